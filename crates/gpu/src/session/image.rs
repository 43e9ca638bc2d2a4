//! Images on their way into the network's input: formats, upload, letterbox.

use super::{BLOCK, Session, Usage, block, bytes_of, entries};
use crate::resize::Taps;
use yolo_lat_core::engine::EngineError;
use yolo_lat_core::geometry::Letterbox;
use yolo_lat_shaders::Shader;

/// Bytes of an image and how they are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// Red, green, blue.
    Rgb,
    /// Red, green, blue, anything.
    Rgba,
    /// A plane of luma, then pairs of colour for 2 x 2 pixels.
    Nv12,
    /// Y0 U Y1 V for two pixels.
    Yuyv,
}

impl PixelFormat {
    /// Bytes of an image.
    pub fn bytes(self, width: u32, height: u32) -> usize {
        let (width, height) = (width as usize, height as usize);
        match self {
            Self::Rgb => 3 * width * height,
            Self::Rgba => 4 * width * height,
            Self::Nv12 => width * height + 2 * width.div_ceil(2) * height.div_ceil(2),
            Self::Yuyv => 4 * width.div_ceil(2) * height,
        }
    }
}

/// An image for the GPU: as the camera or the decoder gave it.
#[derive(Clone, Copy, Debug)]
pub struct RawImage<'a> {
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// How to read the bytes.
    pub format: PixelFormat,
    /// Rows without padding.
    pub bytes: &'a [u8],
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Geometry {
    pub(super) size: [u32; 2],
    pub(super) resized: [u32; 2],
    pub(super) offset: [u32; 2],
    pub(super) network: [u32; 2],
    pub(super) input: u32,
    pub(super) plane: u32,
    pub(super) image: u32,
    pub(super) grey: f32,
    pub(super) bits: [u32; 2],
    pub(super) rows: u32,
    pub(super) reserved: u32,
}

/// How an image reaches the GPU; one for each image of a batch.
pub(super) struct Slot {
    /// Its bytes; nothing for a texture.
    pub(super) bytes: Option<wgpu::Buffer>,
    /// Weights of its resize.
    pub(super) taps: wgpu::Buffer,
    /// The size that weights and geometry were written for.
    pub(super) size: (u32, u32),
    /// `None` where a buffer was made anew.
    pub(super) group: Option<wgpu::BindGroup>,
}

impl Session {
    pub(super) fn network_size(&self) -> (u32, u32) {
        (self.plan.input.0.width as u32, self.plan.input.0.height as u32)
    }

    /// Says where an image goes and how it is resized; nothing new where the last one had the same size.
    pub(super) async fn write_geometry(&mut self, image: usize, size: (u32, u32)) -> Result<Letterbox, EngineError> {
        let letterbox = Letterbox::fit(size, self.network_size());
        if self.slots.get(image).is_some_and(|slot| slot.size == size) {
            return Ok(letterbox);
        }
        let (columns, rows) = (Taps::new(size.0, letterbox.resized.0), Taps::new(size.1, letterbox.resized.1));
        let geometry = Geometry {
            size: size.into(),
            resized: letterbox.resized.into(),
            offset: letterbox.offset.into(),
            network: self.network_size().into(),
            input: self.plan.input.1 as u32,
            plane: self.plan.input.0.positions().next_multiple_of(4) as u32,
            image: image as u32,
            grey: Letterbox::GREY,
            bits: [columns.bits, rows.bits],
            rows: columns.table.len() as u32,
            reserved: 0,
        };
        self.gpu.queue.write_buffer(&self.geometry, (BLOCK * image) as u64, bytemuck::bytes_of(&geometry));
        let table = [columns.table, rows.table].concat();
        let bytes = bytes_of(&table);
        if self.slots.get(image).is_none_or(|slot| slot.taps.size() < bytes) {
            let taps = self.gpu.buffer("the resize", bytes, Usage::STORAGE | Usage::COPY_DST).await?;
            match self.slots.get_mut(image) {
                Some(slot) => (slot.taps, slot.group) = (taps, None),
                None => self.slots.push(Slot { bytes: None, taps, size, group: None }),
            }
        }
        self.slots[image].size = size;
        self.gpu.queue.write_buffer(&self.slots[image].taps, 0, bytemuck::cast_slice(&table));
        Ok(letterbox)
    }

    /// Brings images into their slots, which grow with them.
    pub(super) async fn upload(&mut self, images: &[RawImage<'_>]) -> Result<Vec<Letterbox>, EngineError> {
        if (self.geometry.size() as usize) < BLOCK * images.len() {
            let bytes = (BLOCK * images.len()) as u64;
            self.geometry = self.gpu.buffer("geometry", bytes, Usage::UNIFORM | Usage::COPY_DST).await?;
            self.slots.clear();
        }
        let mut letterboxes = Vec::with_capacity(images.len());
        for (index, image) in images.iter().enumerate() {
            let (width, height) = image.size;
            let wanted = image.format.bytes(width, height);
            self.gpu.check_size("the image", (wanted as u64).next_multiple_of(4))?;
            if image.bytes.len() != wanted {
                let found = image.bytes.len();
                let reason = format!(
                    "an image of {width}x{height} pixels in {:?} has {wanted} bytes, not {found}",
                    image.format
                );
                return Err(EngineError::Device { reason });
            }
            letterboxes.push(self.write_geometry(index, image.size).await?);
            self.write_image(index, image.bytes).await?;
        }
        Ok(letterboxes)
    }

    pub(super) async fn write_image(&mut self, image: usize, bytes: &[u8]) -> Result<(), EngineError> {
        let slot = &mut self.slots[image];
        let buffer = match slot.bytes.take() {
            Some(buffer) if buffer.size() >= bytes.len() as u64 => buffer,
            _ => {
                slot.group = None;
                self.gpu.buffer("the image", bytes.len() as u64, Usage::STORAGE | Usage::COPY_DST).await?
            }
        };
        // Copies are of whole words.
        let (whole, rest) = bytes.split_at(bytes.len() / 4 * 4);
        self.gpu.queue.write_buffer(&buffer, 0, whole);
        if !rest.is_empty() {
            let mut last = [0; 4];
            last[..rest.len()].copy_from_slice(rest);
            self.gpu.queue.write_buffer(&buffer, whole.len() as u64, &last);
        }
        if slot.group.is_none() {
            slot.group = Some(self.gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("image"),
                layout: &self.gpu.layouts.image,
                entries: &entries(&[
                    block(&self.geometry, size_of::<Geometry>()),
                    buffer.as_entire_binding(),
                    slot.taps.as_entire_binding(),
                ]),
            }));
        }
        slot.bytes = Some(buffer);
        Ok(())
    }

    pub(super) fn record_letterbox(&self, encoder: &mut wgpu::CommandEncoder, images: &[RawImage]) {
        for (index, (image, slot)) in images.iter().zip(&self.slots).enumerate() {
            let format = match image.format {
                PixelFormat::Rgb => 0,
                PixelFormat::Rgba => 1,
                PixelFormat::Nv12 => 2,
                PixelFormat::Yuyv => 3,
            };
            let pipeline = self.gpu.pipeline(Shader::Letterbox, &vec![("FORMAT", format)]);
            if let Some(group) = &slot.group {
                self.letterbox_pass(encoder, &pipeline, group, index);
            }
        }
    }

    pub(super) fn letterbox_pass(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        pipeline: &wgpu::ComputePipeline,
        group: &wgpu::BindGroup,
        image: usize,
    ) {
        let writes = self.stamps().filter(|_| image == 0).map(|stamps| stamps.writes(self.plan.steps.len()));
        let descriptor = wgpu::ComputePassDescriptor { label: Some("letterbox"), timestamp_writes: writes };
        let mut pass = encoder.begin_compute_pass(&descriptor);
        let (width, height) = self.network_size();
        pass.set_pipeline(pipeline);
        pass.set_bind_group(0, &self.network, &[0]);
        pass.set_bind_group(1, group, &[(BLOCK * image) as u32]);
        pass.dispatch_workgroups(width.div_ceil(8), height.div_ceil(8), 1);
    }
}
