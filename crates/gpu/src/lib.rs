//! GPU engine: the graph as compute shaders on wgpu, from the image's bytes to the detections.
//!
//! All feature maps lie in one buffer, the arena; a view is a list of plane offsets and moves nothing. A plan says
//! which shader runs on which planes; a session owns buffers and pipelines and replays the plan for every frame.
//!
//! Whatever waits for a device is `async`, because in a browser nothing may block; each such function has a twin that blocks
//! ([`wait`]), for everywhere else.

mod cache;
mod compile;
mod device;
mod report;
mod resize;
mod session;
#[cfg(test)]
mod tests;
mod wait;

use std::sync::Arc;

use ndarray::{Array3, Array4, ArrayView4, s};

pub use self::cache::write_whole;
use self::compile::Program;
pub use self::device::{Adapter, AdapterReport, Gpu, GpuOptions, adapters};
pub use self::report::{DispatchReport, PlanReport, Roofline};
pub use self::session::{Clock, DispatchTime, PixelFormat, RawImage};
use self::session::{MOST_CLASSES, Session};
pub use self::wait::wait;
pub use wgpu;
use yolo_lat_core::engine::{Engine, EngineError, check_input};
use yolo_lat_core::geometry::Letterbox;
use yolo_lat_core::model::Network;
use yolo_lat_core::model::graph::Shape;
use yolo_lat_core::postprocess::{Detection, PostprocessOptions};
pub use yolo_lat_shaders::ShaderFeatures;

/// Computes a graph on a GPU.
pub struct GpuEngine {
    session: Session,
    outputs: Vec<Array4<f32>>,
}

impl GpuEngine {
    /// Makes an engine on a device.
    ///
    /// # Errors
    /// As [`GpuEngine::on_async`], and what [`wait`] says in a browser.
    pub fn on(gpu: Arc<Gpu>, network: &Network) -> Result<Self, EngineError> {
        wait(Self::on_async(gpu, network))
    }

    /// The same for callers that wait in their own way.
    ///
    /// # Errors
    /// [`EngineError::Device`] where a limit of the device is too small.
    pub async fn on_async(gpu: Arc<Gpu>, network: &Network) -> Result<Self, EngineError> {
        // Compilers of OpenGL drivers take minutes for the fused shader.
        let plan = Program::with_units(network, !gpu.is_opengl())?;
        if plan.classes > MOST_CLASSES {
            let reason = format!("{} classes do not fit the shaders, at most {MOST_CLASSES} do", plan.classes);
            return Err(EngineError::Device { reason });
        }
        let tensors = network.nodes.iter().flat_map(|node| network.tensors(node));
        let values: Vec<f32> = tensors.flat_map(|tensor| tensor.values.iter().copied()).collect();
        let session = Session::new(gpu, plan, &values).await?;
        session.gpu.keep_pipelines();
        Ok(Self { session, outputs: Vec::new() })
    }

    /// The device.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.session.gpu
    }

    /// Finds objects: letterbox, network, decoding and suppression in one submission; boxes in network pixels.
    ///
    /// # Errors
    /// As [`GpuEngine::detect_async`], and what [`wait`] says in a browser.
    pub fn detect(
        &mut self,
        images: &[RawImage],
        options: &PostprocessOptions,
    ) -> Result<Vec<(Letterbox, Vec<Detection>)>, EngineError> {
        wait(self.detect_async(images, options))
    }

    /// The same for callers that wait in their own way.
    ///
    /// # Errors
    /// [`EngineError::Device`] for an image beyond the device's limits, or if the device was lost.
    pub async fn detect_async(
        &mut self,
        images: &[RawImage<'_>],
        options: &PostprocessOptions,
    ) -> Result<Vec<(Letterbox, Vec<Detection>)>, EngineError> {
        self.check_head()?;
        let mut result = Vec::with_capacity(images.len());
        for images in images.chunks(self.session.batch(images.len()).max(1)) {
            result.extend(self.session.detect(images, options).await?);
        }
        Ok(result)
    }

    /// The same for a texture of this engine's device, `size` pixels wide and high, without a copy to the CPU.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the device was lost, and what [`wait`] says in a browser.
    pub fn detect_texture(
        &mut self,
        texture: &wgpu::TextureView,
        size: (u32, u32),
        options: &PostprocessOptions,
    ) -> Result<(Letterbox, Vec<Detection>), EngineError> {
        self.check_head()?;
        wait(self.session.detect_texture(texture, size, options))
    }

    fn check_head(&self) -> Result<(), EngineError> {
        let reason = "this network has no detection scales: it gives feature maps, and no boxes can be read off them";
        if self.session.plan.cells == 0 { Err(EngineError::Device { reason: reason.into() }) } else { Ok(()) }
    }

    /// Values of the last output, (channels, rows, columns), for the first image of the last call of [`GpuEngine::detect`].
    ///
    /// # Errors
    /// [`EngineError::Device`] if the device was lost.
    pub async fn last_output(&mut self) -> Result<Option<Array3<f32>>, EngineError> {
        let Some(&(Shape { channels, height, width }, _)) = self.session.plan.outputs.last() else { return Ok(None) };
        Ok(Array3::from_shape_vec((channels, height, width), self.session.last_output().await?).ok())
    }

    /// Times every dispatch from now on, by the GPU's time stamps where it has them and no other clock is wanted; says
    /// which clock it is.
    ///
    /// # Errors
    /// [`EngineError::Device`] if there is no memory for the times, and what [`wait`] says in a browser.
    pub fn start_profile(&mut self, wanted: Option<Clock>) -> Result<Clock, EngineError> {
        wait(self.session.start_profile(wanted))
    }

    /// Times of the dispatches of the last call of [`GpuEngine::detect`].
    ///
    /// # Errors
    /// [`EngineError::Device`] if the device was lost, and what [`wait`] says in a browser.
    pub fn profile(&self) -> Result<Vec<DispatchTime>, EngineError> {
        wait(self.session.profile())
    }
}

impl Engine for GpuEngine {
    fn description(&self) -> String {
        let ShaderFeatures { half, subgroups } = self.session.gpu.features();
        let f16 = if half { ", f16" } else { "" };
        let subgroups = if subgroups { ", subgroups" } else { "" };
        format!("gpu ({}{f16}{subgroups})", self.session.gpu.name())
    }

    fn input(&self) -> Shape {
        self.session.plan.input.0
    }

    fn run(&mut self, images: ArrayView4<f32>) -> Result<&[Array4<f32>], EngineError> {
        check_input(&images, self.input())?;
        let images = images.as_standard_layout();
        let count = images.dim().0;
        self.outputs = self
            .session
            .plan
            .outputs
            .iter()
            .map(|(shape, _)| Array4::zeros((count, shape.channels, shape.height, shape.width)))
            .collect();
        let values: Vec<&[f32]> = images.as_slice().unwrap_or(&[]).chunks_exact(self.input().values()).collect();
        let mut first = 0;
        for batch in values.chunks(self.session.batch(count)) {
            for image in wait(self.session.logits(batch))? {
                for (output, values) in self.outputs.iter_mut().zip(image) {
                    let mut target = output.slice_mut(s![first, .., .., ..]);
                    target.iter_mut().zip(values).for_each(|(target, value)| *target = value);
                }
                first += 1;
            }
        }
        Ok(&self.outputs)
    }
}
