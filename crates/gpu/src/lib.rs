//! GPU engine: the graph as compute shaders on wgpu, from the picture's bytes to the detections.
//!
//! All feature maps lie in one buffer, the arena; a view is a list of plane offsets and moves nothing. A plan says
//! which kernel runs on which planes; a session owns buffers and pipelines and replays the plan for every frame.

mod cache;
mod device;
mod plan;
mod report;
mod resize;
mod session;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ndarray::{Array3, Array4, ArrayView4, s};

pub use self::device::{AdapterReport, Gpu, adapters, allow_features, prefer_adapter};
use self::plan::{Plan, WIDEST_HEAD};
pub use self::report::{DispatchReport, PlanReport, Roofline};
pub use self::session::{Clock, DispatchTime, Picture, PixelFormat};
use self::session::{MOST_CLASSES, Session};
pub use wgpu;
use yolo_lat_core::engine::{Engine, EngineError, check_input};
use yolo_lat_core::geometry::Letterbox;
use yolo_lat_core::model::graph::{Op, Shape};
use yolo_lat_core::model::{Graph, Weights};
use yolo_lat_core::postprocess::{Detection, PostprocessOptions};
pub use yolo_lat_shaders::Variant;

/// Computes a graph on a GPU.
pub struct GpuEngine {
    session: Session,
    outputs: Vec<Array4<f32>>,
}

impl GpuEngine {
    /// Makes an engine on the process's device. `weights` must have been checked against `graph`.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] without a GPU, [`EngineError::Device`] where a limit of it is too small.
    pub fn new(graph: &Graph, weights: &Weights) -> Result<Self, EngineError> {
        Self::on(Gpu::shared()?, graph, weights)
    }

    /// The same on a device of the caller's.
    ///
    /// # Errors
    /// [`EngineError::Device`] where a limit of the device is too small.
    pub fn on(gpu: Arc<Gpu>, graph: &Graph, weights: &Weights) -> Result<Self, EngineError> {
        for node in &graph.nodes {
            if let Op::Attention { heads, .. } = node.op
                && node.shape.channels / heads > WIDEST_HEAD
            {
                let width = node.shape.channels / heads;
                let reason = format!("heads of {width} channels do not fit the shaders, at most {WIDEST_HEAD} do");
                return Err(EngineError::Device { reason });
            }
        }
        // Compilers of OpenGL drivers take minutes for the fused kernel.
        let plan = Plan::with_units(graph, !gpu.is_opengl());
        if plan.classes > MOST_CLASSES {
            let reason = format!("{} classes do not fit the shaders, at most {MOST_CLASSES} do", plan.classes);
            return Err(EngineError::Device { reason });
        }
        let mut values = Vec::with_capacity(plan.weights);
        for spec in graph.weights() {
            let size: usize = spec.shape.iter().product();
            match weights.get(&spec.name) {
                Some(tensor) => values.extend_from_slice(&tensor.values),
                None => values.resize(values.len() + size, 0.0),
            }
        }
        let session = Session::new(gpu, plan, &values)?;
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
    /// [`EngineError::Device`] for a picture beyond the device's limits, or if the device was lost.
    pub fn detect(
        &mut self,
        pictures: &[Picture],
        options: &PostprocessOptions,
    ) -> Result<Vec<(Letterbox, Vec<Detection>)>, EngineError> {
        let mut result = Vec::with_capacity(pictures.len());
        for pictures in pictures.chunks(self.session.batch(pictures.len()).max(1)) {
            result.extend(self.session.detect(pictures, options)?);
        }
        Ok(result)
    }

    /// The same for a texture of this engine's device, `size` pixels wide and high, without a copy to the CPU.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the device was lost.
    pub fn detect_texture(
        &mut self,
        texture: &wgpu::TextureView,
        size: (u32, u32),
        options: &PostprocessOptions,
    ) -> Result<(Letterbox, Vec<Detection>), EngineError> {
        self.session.detect_texture(texture, size, options)
    }

    /// Values of all outputs for the first picture of the last call of [`GpuEngine::detect`], each (channels, rows, columns).
    ///
    /// # Errors
    /// [`EngineError::Device`] if the device was lost.
    pub fn outputs(&mut self) -> Result<Vec<Array3<f32>>, EngineError> {
        let values = self.session.last_outputs()?;
        let shapes = self.session.plan.outputs.iter().map(|(shape, _)| (shape.channels, shape.height, shape.width));
        Ok(shapes.zip(values).filter_map(|(shape, values)| Array3::from_shape_vec(shape, values).ok()).collect())
    }

    /// Times every dispatch from now on, by the GPU's time stamps where it has them and no other clock is wanted; says
    /// which clock it is.
    ///
    /// # Errors
    /// [`EngineError::Device`] if there is no memory for the times.
    pub fn start_profile(&mut self, wanted: Option<Clock>) -> Result<Clock, EngineError> {
        self.session.start_profile(wanted)
    }

    /// Times of the dispatches of the last call of [`GpuEngine::detect`].
    ///
    /// # Errors
    /// [`EngineError::Device`] if the device was lost.
    pub fn profile(&self) -> Result<Vec<DispatchTime>, EngineError> {
        self.session.profile()
    }
}

impl Engine for GpuEngine {
    fn description(&self) -> String {
        let Variant { half, subgroups } = self.session.gpu.variant();
        let f16 = if half { ", f16" } else { "" };
        let subgroups = if subgroups { ", subgroups" } else { "" };
        format!("gpu ({}{f16}{subgroups})", self.session.gpu.name())
    }

    fn input(&self) -> Shape {
        self.session.plan.input.0
    }

    fn run(&mut self, pictures: ArrayView4<f32>) -> Result<&[Array4<f32>], EngineError> {
        check_input(&pictures, self.input())?;
        let pictures = pictures.as_standard_layout();
        let count = pictures.dim().0;
        self.outputs = self
            .session
            .plan
            .outputs
            .iter()
            .map(|(shape, _)| Array4::zeros((count, shape.channels, shape.height, shape.width)))
            .collect();
        let values: Vec<&[f32]> = pictures.as_slice().unwrap_or(&[]).chunks_exact(self.input().values()).collect();
        let mut first = 0;
        for batch in values.chunks(self.session.batch(count)) {
            for image in self.session.logits(batch)? {
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
