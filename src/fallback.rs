//! A GPU that may be lost: a new device takes its place, once; then the CPU engine.

use image::RgbImage;
use ndarray::Array3;

use crate::by_shape::Shape;
use crate::engine::EngineKind;
use crate::gpu_pipeline::GpuPipeline;
use crate::options::{DetectorOptions, Recipe};
use crate::pipeline::{Each, Later, Pipeline};
use crate::staged::Staged;
use yolo_lat_core::engine::{EngineError, StepTime};
use yolo_lat_core::postprocess::PostprocessOptions;
use yolo_lat_gpu::wait;

/// What runs now.
#[allow(clippy::large_enum_variant, reason = "a detector has one, behind a pointer")]
pub(crate) enum Fallback {
    /// The GPU; whether its device was already made anew after a failure.
    Gpu(GpuPipeline, bool),
    /// The CPU engine.
    Cpu(Staged),
}

impl Fallback {
    /// The GPU's pipeline, where it is what runs.
    pub(crate) fn gpu(&mut self) -> Option<&mut GpuPipeline> {
        match self {
            Self::Gpu(gpu, _) => Some(gpu),
            Self::Cpu(_) => None,
        }
    }

    fn running(&self) -> &dyn Pipeline {
        match self {
            Self::Gpu(gpu, _) => gpu,
            Self::Cpu(cpu) => cpu,
        }
    }

    fn running_mut(&mut self) -> &mut dyn Pipeline {
        match self {
            Self::Gpu(gpu, _) => gpu,
            Self::Cpu(cpu) => cpu,
        }
    }

    async fn replace(&mut self, error: &EngineError) -> Result<(), EngineError> {
        let Self::Gpu(lost, rebuilt) = self else { return Ok(()) };
        let (shape, recipe) = (lost.last_shape(), lost.recipe().clone());
        if !*rebuilt {
            match GpuPipeline::new(recipe.clone(), shape).await {
                Ok(gpu) => {
                    log::warn!("{error}; going on with a new device");
                    *self = Self::Gpu(gpu, true);
                    return Ok(());
                }
                Err(again) => log::warn!("{again}"),
            }
        }
        log::warn!("{error}; going on with the CPU engine");
        // In floats as so far.
        let precision = Some(recipe.model.precision());
        let options = DetectorOptions { engine: EngineKind::Cpu, precision, ..recipe.options.clone() };
        *self = Self::Cpu(Staged::new(Recipe::new(&recipe.model, &recipe.runtime, &options)?, shape)?);
        Ok(())
    }
}

impl Pipeline for Fallback {
    fn input_size(&self, size: (u32, u32)) -> Shape {
        self.running().input_size(size)
    }

    fn detect(&mut self, images: &[&RgbImage], options: &PostprocessOptions, each: Each) -> Result<(), EngineError> {
        wait(self.detect_async(images, options, each))
    }

    fn detect_async<'a>(
        &'a mut self,
        images: &'a [&'a RgbImage],
        options: &'a PostprocessOptions,
        each: Each<'a>,
    ) -> Later<'a, ()> {
        Box::pin(async move {
            loop {
                match self {
                    Self::Cpu(cpu) => return cpu.detect(images, options, each),
                    Self::Gpu(gpu, _) => match gpu.detect_async(images, options, each).await {
                        Err(error) if gpu.device().is_lost() => self.replace(&error).await?,
                        found => return found,
                    },
                }
            }
        })
    }

    fn description(&self) -> String {
        self.running().description()
    }

    fn watched(&self) -> Option<&Array3<f32>> {
        self.running().watched()
    }

    fn start_profile(&mut self) -> Result<Option<&'static str>, EngineError> {
        self.running_mut().start_profile()
    }

    fn profile(&self) -> Result<Vec<StepTime>, EngineError> {
        self.running().profile()
    }

    fn peak_gflops(&self) -> Option<f64> {
        self.running().peak_gflops()
    }
}
