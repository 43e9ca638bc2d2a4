//! One of our models on a GPU: letterbox to suppression in one submission.

use std::sync::Arc;
use std::time::Instant;

use image::RgbImage;
use ndarray::Array3;

use crate::by_shape::{ByShape, Shape, each_shape};
use crate::options::Recipe;
use crate::pipeline::{Each, Found, Pipeline, StageTimes, into_image};
use yolo_lat_core::engine::{Engine, EngineError, StepTime};
use yolo_lat_core::postprocess::PostprocessOptions;
use yolo_lat_gpu::{Clock, DispatchTime, Gpu, GpuEngine, PixelFormat, RawImage, wgpu};

/// An engine for each input shape on one device.
pub struct GpuPipeline {
    gpu: Arc<Gpu>,
    engines: ByShape<GpuEngine>,
    recipe: Arc<Recipe>,
    /// What times dispatches, when they are wanted.
    clock: Option<Clock>,
    watched: Option<Array3<f32>>,
}

fn make(gpu: &Arc<Gpu>, recipe: &Recipe, shape: Shape) -> Result<GpuEngine, EngineError> {
    GpuEngine::on(gpu.clone(), &recipe.network(shape)?)
}

impl GpuPipeline {
    /// On the runtime's device, with an engine for images of the usual shape.
    pub(crate) fn new(recipe: Arc<Recipe>, shape: Shape) -> Result<Self, EngineError> {
        let gpu = recipe.runtime.gpu()?;
        let engines = ByShape::new(shape, make(&gpu, &recipe, shape)?);
        Ok(Self { gpu, engines, recipe, clock: None, watched: None })
    }

    /// The device.
    pub fn device(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// The engine that ran last.
    pub fn engine(&mut self) -> &mut GpuEngine {
        self.engines.last().1
    }

    pub(crate) fn recipe(&self) -> &Arc<Recipe> {
        &self.recipe
    }

    pub(crate) fn last_shape(&mut self) -> Shape {
        self.engines.last().0
    }

    /// The engine for a shape, timed where that is wanted.
    fn engine_for(&mut self, shape: Shape) -> Result<&mut GpuEngine, EngineError> {
        self.engines.get(shape, || {
            let mut engine = make(&self.gpu, &self.recipe, shape)?;
            if self.clock.is_some() {
                engine.start_profile(self.clock)?;
            }
            Ok(engine)
        })
    }

    fn watch(&mut self) -> Result<(), EngineError> {
        if self.recipe.watches() {
            self.watched = self.engine().last_output()?;
        }
        Ok(())
    }

    /// Detections in a texture of this pipeline's device, `size` pixels wide and high; the image itself never leaves it.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the device fails.
    pub fn detect_texture(
        &mut self,
        texture: &wgpu::TextureView,
        size: (u32, u32),
        options: &PostprocessOptions,
    ) -> Result<Found, EngineError> {
        let start = Instant::now();
        let shape = self.recipe.input_size(size);
        let (letterbox, mut detections) = self.engine_for(shape)?.detect_texture(texture, size, options)?;
        self.watch()?;
        into_image(&mut detections, &letterbox);
        Ok((detections, StageTimes { inference: start.elapsed(), ..StageTimes::default() }))
    }
}

impl Pipeline for GpuPipeline {
    fn input_size(&self, size: (u32, u32)) -> Shape {
        self.recipe.input_size(size)
    }

    fn detect(&mut self, images: &[&RgbImage], options: &PostprocessOptions, each: Each) -> Result<(), EngineError> {
        let recipe = self.recipe.clone();
        each_shape(
            images,
            |size| recipe.input_size(size),
            |shape, images, place| {
                let start = Instant::now();
                let views = images.iter().map(|image| {
                    let (size, bytes) = (image.dimensions(), image.as_raw().as_slice());
                    RawImage { size, format: PixelFormat::Rgb, bytes }
                });
                let views: Vec<RawImage> = views.collect();
                let found = self.engine_for(shape)?.detect(&views, options)?;
                // One submission does it all: its time is not divided.
                let times = StageTimes { inference: start.elapsed() / images.len() as u32, ..StageTimes::default() };
                self.watch()?;
                for (at, (letterbox, mut detections)) in found.into_iter().enumerate() {
                    into_image(&mut detections, &letterbox);
                    each(place(at), (detections, times));
                }
                Ok(())
            },
        )
    }

    fn description(&self) -> String {
        self.engines.latest().description()
    }

    fn watched(&self) -> Option<&Array3<f32>> {
        self.watched.as_ref()
    }

    fn start_profile(&mut self) -> Result<Option<&'static str>, EngineError> {
        for engine in self.engines.iter_mut() {
            self.clock = Some(engine.start_profile(self.clock)?);
        }
        Ok(self.clock.map(|clock| match clock {
            Clock::Gpu => "by its time stamps",
            Clock::Wall => "by this process's clock, each dispatch waited for: it has no time stamps",
        }))
    }

    fn profile(&self) -> Result<Vec<StepTime>, EngineError> {
        let step = |DispatchTime { name, start, duration }| {
            let (kind, shape) = (String::new(), String::new());
            StepTime { name, kind, shape, multiply_adds: 0, start, duration }
        };
        Ok(self.engines.latest().profile()?.into_iter().map(step).collect())
    }
}
