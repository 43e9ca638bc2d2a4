//! Buffers, bind groups and pipelines for one plan, made once; frames only replay them.

mod image;
mod profile;

use std::sync::Arc;
#[cfg(not(target_arch = "wasm32"))]
use std::time::Duration;

use wgpu::BufferUsages as Usage;

use self::image::{Geometry, Slot};
pub use self::image::{PixelFormat, RawImage};
use self::profile::Timer;
pub use self::profile::{Clock, DispatchTime};

use super::compile::{Program, Step};
use super::device::Gpu;
use yolo_lat_core::engine::EngineError;
use yolo_lat_core::geometry::Letterbox;
use yolo_lat_core::postprocess::{Detection, PostprocessOptions, ranked};

/// Longest wait for a frame; browsers have their own.
#[cfg(not(target_arch = "wasm32"))]
const DEVICE_TIMEOUT: Duration = Duration::from_secs(60);
/// Distance of uniform blocks: WebGPU's default alignment.
const BLOCK: usize = 256;
/// Classes of the bit mask in shared/detections.wgsl.
pub(crate) const MOST_CLASSES: usize = 4096;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Dispatch {
    first_job: u32,
    jobs: u32,
    image_stride: u32,
    images: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
struct Options {
    confidence: f32,
    iou: f32,
    max_detections: u32,
    agnostic: u32,
    multi_label: u32,
    capacity: u32,
    least_voter: f32,
    reserved: u32,
    allowed: [u32; MOST_CLASSES / 32],
}

#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
struct Candidate {
    corners: [f32; 4],
    confidence: f32,
    class: u32,
    order: u32,
    voter: u32,
}

/// Where decoding and suppression put things.
struct Found {
    options: Options,
    /// Least confidence of a detection; candidates may have less, see `suppress`.
    confidence: f32,
    options_buffer: wgpu::Buffer,
    counts: wgpu::Buffer,
    detections: wgpu::Buffer,
    readback: wgpu::Buffer,
    group: wgpu::BindGroup,
}

/// A plan on a device.
pub(super) struct Session {
    pub(super) gpu: Arc<Gpu>,
    pub(super) plan: Program,
    /// Images that the arena has room for.
    images: usize,
    /// Images that are computed together at most.
    most_images: usize,
    weights: wgpu::Buffer,
    planes: wgpu::Buffer,
    jobs: wgpu::Buffer,
    arena: wgpu::Buffer,
    uniforms: wgpu::Buffer,
    network: wgpu::BindGroup,
    pipelines: Vec<wgpu::ComputePipeline>,
    slots: Vec<Slot>,
    geometry: wgpu::Buffer,
    /// Workgroups in one dimension at most.
    most_groups: usize,
    found: Option<Found>,
    readback: Option<wgpu::Buffer>,
    /// Nanoseconds of every dispatch of the last frame, when they are wanted.
    timer: Option<Timer>,
}

fn bytes_of<T: bytemuck::NoUninit>(values: &[T]) -> u64 {
    size_of_val(values) as u64
}

fn entries<'a>(buffers: &[wgpu::BindingResource<'a>]) -> Vec<wgpu::BindGroupEntry<'a>> {
    (0u32..)
        .zip(buffers)
        .map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource: resource.clone() })
        .collect()
}

/// One block of a buffer that holds several.
fn block(buffer: &wgpu::Buffer, bytes: usize) -> wgpu::BindingResource<'_> {
    let size = std::num::NonZeroU64::new(bytes as u64);
    wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: 0, size })
}

impl Session {
    pub(super) async fn new(gpu: Arc<Gpu>, plan: Program, weights: &[f32]) -> Result<Self, EngineError> {
        let upload = async |label: &str, bytes: &[u8]| {
            let buffer = gpu.buffer(label, bytes.len() as u64, Usage::STORAGE | Usage::COPY_DST).await?;
            gpu.queue.write_buffer(&buffer, 0, bytes);
            Ok::<_, EngineError>(buffer)
        };
        let weights = upload("the weights", bytemuck::cast_slice(weights)).await?;
        let planes = upload("the lists of planes", bytemuck::cast_slice(&plan.planes)).await?;
        let jobs = upload("the jobs", bytemuck::cast_slice(&plan.jobs)).await?;
        let limits = gpu.device.limits();
        let image_bytes = 4 * plan.image_stride as u64;
        let most = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size) / image_bytes;
        let most_groups = limits.max_compute_workgroups_per_dimension as usize;
        let most_images = (most as usize).clamp(1, most_groups);
        let uniforms =
            gpu.buffer("uniforms", (BLOCK * plan.steps.len()) as u64, Usage::UNIFORM | Usage::COPY_DST).await?;
        let geometry = gpu.buffer("geometry", BLOCK as u64, Usage::UNIFORM | Usage::COPY_DST).await?;
        let pipelines = plan.steps.iter().map(|step| gpu.pipeline(step.shader, &step.constants)).collect();
        let (arena, network) = Self::arena(&gpu, &plan, 1, &weights, &planes, &jobs, &uniforms).await?;
        let mut session = Self {
            images: 1,
            most_images,
            weights,
            planes,
            jobs,
            arena,
            uniforms,
            network,
            pipelines,
            slots: Vec::new(),
            geometry,
            most_groups,
            found: None,
            readback: None,
            timer: None,
            gpu,
            plan,
        };
        session.write_uniforms();
        session.check()?;
        Ok(session)
    }

    async fn arena(
        gpu: &Gpu,
        plan: &Program,
        images: usize,
        weights: &wgpu::Buffer,
        planes: &wgpu::Buffer,
        jobs: &wgpu::Buffer,
        uniforms: &wgpu::Buffer,
    ) -> Result<(wgpu::Buffer, wgpu::BindGroup), EngineError> {
        let bytes = 4 * (plan.image_stride * images) as u64;
        let arena = gpu.buffer("the feature maps", bytes, Usage::STORAGE | Usage::COPY_DST | Usage::COPY_SRC).await?;
        let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("network"),
            layout: &gpu.layouts.network,
            entries: &entries(&[
                arena.as_entire_binding(),
                weights.as_entire_binding(),
                planes.as_entire_binding(),
                jobs.as_entire_binding(),
                block(uniforms, size_of::<Dispatch>()),
            ]),
        });
        Ok((arena, group))
    }

    fn write_uniforms(&mut self) {
        let mut blocks = vec![0u8; BLOCK * self.plan.steps.len()];
        for (step, target) in self.plan.steps.iter().zip(blocks.chunks_exact_mut(BLOCK)) {
            let dispatch = Dispatch {
                first_job: step.jobs.start as u32,
                jobs: step.jobs.len() as u32,
                image_stride: self.plan.image_stride as u32,
                images: self.images as u32,
            };
            target[..size_of::<Dispatch>()].copy_from_slice(bytemuck::bytes_of(&dispatch));
        }
        self.gpu.queue.write_buffer(&self.uniforms, 0, &blocks);
    }

    /// How many of `wanted` images are computed together.
    pub(super) fn batch(&self, wanted: usize) -> usize {
        wanted.min(self.most_images)
    }

    /// Makes room for a batch; frames of the same size need nothing new.
    async fn reserve(&mut self, images: usize) -> Result<(), EngineError> {
        if images > self.images {
            (self.arena, self.network) =
                Self::arena(&self.gpu, &self.plan, images, &self.weights, &self.planes, &self.jobs, &self.uniforms)
                    .await?;
            self.images = images;
            self.found = None;
            self.readback = None;
            self.write_uniforms();
        }
        Ok(())
    }

    /// An error if the device has failed since the last call.
    fn check(&self) -> Result<(), EngineError> {
        self.gpu.device_error().map_or(Ok(()), |reason| Err(EngineError::Device { reason }))
    }

    /// The size of a dispatch: a row of workgroups, folded where one dimension does not suffice.
    fn grid(&self, step: &Step, images: usize) -> [u32; 3] {
        let groups = step.groups.max(1);
        [groups.min(self.most_groups) as u32, groups.div_ceil(self.most_groups) as u32, images as u32]
    }

    /// Records steps; with a timer each in a pass of its own.
    fn record(&self, encoder: &mut wgpu::CommandEncoder, steps: std::ops::Range<usize>, images: usize) {
        let mut run = |steps: std::ops::Range<usize>| {
            let writes = self.stamps().map(|stamps| stamps.writes(steps.start));
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes: writes };
            let mut pass = encoder.begin_compute_pass(&descriptor);
            for index in steps {
                let [x, y, z] = self.grid(&self.plan.steps[index], images);
                pass.set_pipeline(&self.pipelines[index]);
                pass.set_bind_group(0, &self.network, &[(BLOCK * index) as u32]);
                if index >= self.plan.network
                    && let Some(found) = &self.found
                {
                    pass.set_bind_group(1, &found.group, &[]);
                }
                pass.dispatch_workgroups(x, y, z);
            }
        };
        if self.stamps().is_some() {
            steps.for_each(|step| run(step..step + 1));
        } else {
            run(steps);
        }
    }

    /// Waits for everything submitted. A device that does not come back is given up.
    #[cfg(not(target_arch = "wasm32"))]
    async fn submitted(&self) -> Result<(), EngineError> {
        let wait = wgpu::PollType::Wait { submission_index: None, timeout: Some(DEVICE_TIMEOUT) };
        self.gpu.device.poll(wait).map(drop).map_err(|error| {
            self.gpu.give_up(&format!("waiting for {}: {error}", self.gpu.name()));
            let reason = self.gpu.device_error().unwrap_or_default();
            EngineError::Device { reason }
        })
    }

    /// The same in a browser, which gives lost devices up by itself.
    #[cfg(target_arch = "wasm32")]
    async fn submitted(&self) -> Result<(), EngineError> {
        let (sender, receiver) = futures_channel::oneshot::channel();
        self.gpu.queue.on_submitted_work_done(move || {
            // Who no longer waits needs no answer.
            let _ = sender.send(());
        });
        // Nobody drops the sender before it has called.
        let _ = receiver.await;
        self.check()
    }

    /// Waits for everything submitted, and maps a buffer.
    async fn wait_for(&self, buffer: &wgpu::Buffer, bytes: u64) -> Result<wgpu::BufferView, EngineError> {
        self.map(buffer, bytes).await?;
        self.check()?;
        self.gpu.count_read(bytes);
        buffer.get_mapped_range(..bytes).map_err(|error| self.failure(error.to_string()))
    }

    /// What the device itself says went wrong, else `what`.
    fn failure(&self, what: String) -> EngineError {
        EngineError::Device { reason: self.gpu.device_error().unwrap_or(what) }
    }

    #[cfg(not(target_arch = "wasm32"))]
    async fn map(&self, buffer: &wgpu::Buffer, bytes: u64) -> Result<(), EngineError> {
        let (sender, receiver) = std::sync::mpsc::channel();
        buffer.map_async(wgpu::MapMode::Read, ..bytes, move |result| drop(sender.send(result)));
        self.submitted().await?;
        // Another thread that shares the device may be the one that delivers the answer.
        match receiver.recv_timeout(DEVICE_TIMEOUT) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.failure(error.to_string())),
            Err(_) => {
                self.gpu.give_up("the device never finished");
                Err(self.failure("the device never finished".into()))
            }
        }
    }

    #[cfg(target_arch = "wasm32")]
    async fn map(&self, buffer: &wgpu::Buffer, bytes: u64) -> Result<(), EngineError> {
        let (sender, receiver) = futures_channel::oneshot::channel();
        buffer.map_async(wgpu::MapMode::Read, ..bytes, move |result| drop(sender.send(result)));
        if let Ok(Ok(())) = receiver.await {
            return Ok(());
        }
        // Only a device that is gone maps nothing. That it is lost may be told later than this.
        self.gpu.give_up("the device was lost");
        Err(self.failure(String::new()))
    }

    /// Runs the network on planes (n, 3, rows, columns) and gives the outputs of each image, values without padding.
    pub(super) async fn logits(&mut self, images: &[&[f32]]) -> Result<Vec<Vec<Vec<f32>>>, EngineError> {
        self.reserve(images.len()).await?;
        self.write_input(images);
        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        self.record(&mut encoder, 0..self.plan.network, images.len());
        self.read_outputs(encoder, images.len(), 0).await
    }

    fn write_input(&self, images: &[&[f32]]) {
        let (shape, at) = self.plan.input;
        let positions = shape.positions();
        for (index, image) in images.iter().enumerate() {
            for (channel, plane) in image.chunks_exact(positions).enumerate() {
                let plane_at = index * self.plan.image_stride + at + channel * positions.next_multiple_of(4);
                self.gpu.queue.write_buffer(&self.arena, 4 * plane_at as u64, bytemuck::cast_slice(plane));
            }
        }
    }

    /// The last output of the first image of the last submission, which nothing has overwritten. The others stay where they are.
    pub(super) async fn last_output(&mut self) -> Result<Vec<f32>, EngineError> {
        let encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let last = self.plan.outputs.len().saturating_sub(1);
        Ok(self.read_outputs(encoder, 1, last).await?.swap_remove(0).swap_remove(0))
    }

    /// Submits, and reads the outputs from number `first` on of each image, values without padding.
    async fn read_outputs(
        &mut self,
        mut encoder: wgpu::CommandEncoder,
        images: usize,
        first: usize,
    ) -> Result<Vec<Vec<Vec<f32>>>, EngineError> {
        let outputs: Vec<_> = self.plan.outputs[first..]
            .iter()
            .flat_map(|(shape, planes)| {
                let size = shape.positions().next_multiple_of(4);
                planes.iter().map(move |&plane| (plane as usize, size))
            })
            .collect();
        let floats: usize = outputs.iter().map(|(_, size)| size).sum();
        let bytes = 4 * (floats * images) as u64;
        let readback = match self.readback.take() {
            Some(buffer) if buffer.size() >= bytes => buffer,
            _ => self.gpu.buffer("the logits", bytes, Usage::MAP_READ | Usage::COPY_DST).await?,
        };
        let mut target = 0;
        for image in 0..images {
            for &(plane, size) in &outputs {
                let from = 4 * (image * self.plan.image_stride + plane) as u64;
                encoder.copy_buffer_to_buffer(&self.arena, from, &readback, target, 4 * size as u64);
                target += 4 * size as u64;
            }
        }
        self.gpu.queue.submit([encoder.finish()]);
        let view = self.wait_for(&readback, bytes).await?;
        let values: &[f32] = bytemuck::cast_slice(&view);
        let result = values.chunks_exact(floats).map(|values| {
            let mut rest = values;
            let outputs = self.plan.outputs[first..].iter().map(|(shape, planes)| {
                let size = shape.positions().next_multiple_of(4);
                let (these, after) = rest.split_at(size * planes.len());
                rest = after;
                these.chunks_exact(size).flat_map(|plane| &plane[..shape.positions()]).copied().collect()
            });
            outputs.collect()
        });
        let result = result.collect();
        drop(view);
        readback.unmap();
        self.readback = Some(readback);
        Ok(result)
    }

    /// The whole pipeline in one submission: images in, detections in network pixels out.
    pub(super) async fn detect(
        &mut self,
        images: &[RawImage<'_>],
        options: &PostprocessOptions,
    ) -> Result<Vec<(Letterbox, Vec<Detection>)>, EngineError> {
        self.reserve(images.len()).await?;
        self.prepare_results(options).await?;
        let letterboxes = self.upload(images).await?;
        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        self.record_letterbox(&mut encoder, images);
        self.finish(encoder, &letterboxes).await
    }

    /// Only the letterbox: the planes of each image, where the graph's outputs are its input.
    #[cfg(test)]
    pub(super) async fn letterboxed(&mut self, images: &[RawImage<'_>]) -> Result<Vec<Vec<Vec<f32>>>, EngineError> {
        self.reserve(images.len()).await?;
        self.upload(images).await?;
        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        self.record_letterbox(&mut encoder, images);
        self.read_outputs(encoder, images.len(), 0).await
    }

    /// Only decoding and suppression: detections of each image from its planes, where the graph's outputs are its input.
    #[cfg(test)]
    pub(super) async fn decoded(
        &mut self,
        images: &[&[f32]],
        options: &PostprocessOptions,
    ) -> Result<Vec<Vec<Detection>>, EngineError> {
        self.reserve(images.len()).await?;
        self.prepare_results(options).await?;
        self.write_input(images);
        let encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let letterbox = Letterbox::fit(self.network_size(), self.network_size());
        let found = self.finish(encoder, &vec![letterbox; images.len()]).await?;
        Ok(found.into_iter().map(|(_, detections)| detections).collect())
    }

    /// The same with a texture of the same device, which is never copied to the CPU.
    pub(super) async fn detect_texture(
        &mut self,
        texture: &wgpu::TextureView,
        size: (u32, u32),
        options: &PostprocessOptions,
    ) -> Result<(Letterbox, Vec<Detection>), EngineError> {
        self.prepare_results(options).await?;
        let letterbox = self.write_geometry(0, size).await?;
        // The view may be another one every time.
        let group = self.gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("texture"),
            layout: &self.gpu.layouts.texture,
            entries: &entries(&[
                block(&self.geometry, size_of::<Geometry>()),
                wgpu::BindingResource::TextureView(texture),
                self.slots[0].taps.as_entire_binding(),
            ]),
        });
        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let pipeline = self.gpu.pipeline(yolo_lat_shaders::Shader::LetterboxTexture, &Vec::new());
        self.letterbox_pass(&mut encoder, &pipeline, &group, 0);
        let mut found = self.finish(encoder, &[letterbox]).await?;
        Ok((letterbox, found.pop().map(|(_, detections)| detections).unwrap_or_default()))
    }

    /// Options and room for the results.
    async fn prepare_results(&mut self, wanted: &PostprocessOptions) -> Result<(), EngineError> {
        let per_cell = if wanted.multi_label { self.plan.classes } else { 1 };
        let capacity = self.plan.cells * per_cell;
        let mut allowed = [0u32; MOST_CLASSES / 32];
        for class in 0..self.plan.classes {
            if wanted.classes.as_ref().is_none_or(|only| only.contains(&class)) {
                allowed[class / 32] |= 1 << (class % 32);
            }
        }
        let options = Options {
            confidence: wanted.least_candidate(),
            iou: wanted.iou,
            max_detections: wanted.max_detections.min(capacity) as u32,
            agnostic: u32::from(wanted.agnostic),
            multi_label: u32::from(wanted.multi_label),
            capacity: capacity as u32,
            least_voter: wanted.least_voter(),
            reserved: 0,
            allowed,
        };
        let fits = |found: &Found| {
            (found.options.max_detections, found.options.capacity) == (options.max_detections, options.capacity)
        };
        match &mut self.found {
            Some(found) if fits(found) => {
                found.confidence = wanted.confidence;
                if found.options != options {
                    found.options = options;
                    self.gpu.queue.write_buffer(&found.options_buffer, 0, bytemuck::bytes_of(&options));
                }
            }
            _ => self.found = Some(Found::new(&self.gpu, self.images, options, wanted.confidence).await?),
        }
        Ok(())
    }

    async fn finish(
        &mut self,
        mut encoder: wgpu::CommandEncoder,
        letterboxes: &[Letterbox],
    ) -> Result<Vec<(Letterbox, Vec<Detection>)>, EngineError> {
        let images = letterboxes.len();
        if let Some(found) = &self.found {
            encoder.clear_buffer(&found.counts, 0, None);
        }
        if matches!(self.timer, Some(Timer::Wall(_))) {
            encoder = self.run_one_by_one(encoder, images).await?;
        } else {
            self.record(&mut encoder, 0..self.plan.steps.len(), images);
        }
        let Some(found) = &self.found else { return Ok(Vec::new()) };
        let rows = found.options.max_detections as usize + 1;
        let bytes = (images * rows * size_of::<Candidate>()) as u64;
        encoder.copy_buffer_to_buffer(&found.detections, 0, &found.readback, 0, bytes);
        if let Some(stamps) = self.stamps() {
            encoder.resolve_query_set(&stamps.queries, 0..stamps.count, &stamps.resolved, 0);
            encoder.copy_buffer_to_buffer(&stamps.resolved, 0, &stamps.readback, 0, 8 * u64::from(stamps.count));
        }
        self.gpu.queue.submit([encoder.finish()]);
        let view = self.wait_for(&found.readback, bytes).await?;
        let candidates: &[Candidate] = bytemuck::cast_slice(&view);
        let read = |(letterbox, rows): (&Letterbox, &[Candidate])| {
            let count = (rows[0].class as usize).min(rows.len() - 1);
            let detection = |row: &Candidate| {
                let [x1, y1, x2, y2] = row.corners;
                let bbox = yolo_lat_core::geometry::BBox { x1, y1, x2, y2 };
                Detection { class: row.class as usize, confidence: row.confidence, bbox }
            };
            (*letterbox, ranked(rows[1..=count].iter().map(detection).collect(), found.confidence))
        };
        let result = letterboxes.iter().zip(candidates.chunks_exact(rows)).map(read).collect();
        drop(view);
        found.readback.unmap();
        Ok(result)
    }
}

impl Found {
    async fn new(gpu: &Gpu, images: usize, options: Options, confidence: f32) -> Result<Self, EngineError> {
        let candidate = size_of::<Candidate>() as u64;
        let results = images as u64 * u64::from(options.max_detections + 1) * candidate;
        let candidates = images as u64 * u64::from(options.capacity) * candidate;
        let options_buffer = gpu.buffer("options", bytes_of(&[options]), Usage::UNIFORM | Usage::COPY_DST).await?;
        let counts = gpu.buffer("counts", 4 * images as u64, Usage::STORAGE | Usage::COPY_DST).await?;
        let candidates = gpu.buffer("the candidates", candidates, Usage::STORAGE).await?;
        let detections = gpu.buffer("the detections", results, Usage::STORAGE | Usage::COPY_SRC).await?;
        let readback = gpu.buffer("the detections", results, Usage::MAP_READ | Usage::COPY_DST).await?;
        let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("detections"),
            layout: &gpu.layouts.detections,
            entries: &entries(&[
                options_buffer.as_entire_binding(),
                counts.as_entire_binding(),
                candidates.as_entire_binding(),
                detections.as_entire_binding(),
            ]),
        });
        gpu.queue.write_buffer(&options_buffer, 0, bytemuck::bytes_of(&options));
        Ok(Self { options, confidence, options_buffer, counts, detections, readback, group })
    }
}
