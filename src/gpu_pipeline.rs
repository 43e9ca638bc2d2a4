//! One of our models on a GPU: letterbox to suppression in one submission.

use std::sync::Arc;

use image::RgbImage;
use ndarray::Array3;

use crate::by_shape::{ByShape, Shape, places_by_shape};
use crate::options::Recipe;
use crate::pipeline::{Each, Found, Later, Pipeline, StageTimes, into_image};
use yolo_lat_core::engine::{Engine, EngineError, StepTime};
use yolo_lat_core::postprocess::PostprocessOptions;
use yolo_lat_core::time::Instant;
use yolo_lat_gpu::{Clock, DispatchTime, Gpu, GpuEngine, PixelFormat, RawImage, wait, wgpu};

/// An engine for each input shape on one device.
pub struct GpuPipeline {
    gpu: Arc<Gpu>,
    engines: ByShape<GpuEngine>,
    recipe: Arc<Recipe>,
    /// What times dispatches, when they are wanted.
    clock: Option<Clock>,
    watched: Option<Array3<f32>>,
}

async fn make(gpu: &Arc<Gpu>, recipe: &Recipe, shape: Shape) -> Result<GpuEngine, EngineError> {
    GpuEngine::on_async(gpu.clone(), &recipe.network(shape)?).await
}

impl GpuPipeline {
    /// On the runtime's device, with an engine for images of the usual shape.
    pub(crate) async fn new(recipe: Arc<Recipe>, shape: Shape) -> Result<Self, EngineError> {
        let gpu = recipe.runtime.gpu_async().await?;
        let engines = ByShape::new(shape, make(&gpu, &recipe, shape).await?);
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
    async fn engine_for(&mut self, shape: Shape) -> Result<&mut GpuEngine, EngineError> {
        let Self { engines, gpu, recipe, clock, .. } = self;
        let make = async || {
            let mut engine = make(gpu, recipe, shape).await?;
            if clock.is_some() {
                engine.start_profile(*clock)?;
            }
            Ok::<_, EngineError>(engine)
        };
        engines.get_async(shape, make).await
    }

    async fn watch(&mut self) -> Result<(), EngineError> {
        if self.recipe.watches() {
            self.watched = self.engine().last_output().await?;
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
        let (letterbox, mut detections) = wait(self.engine_for(shape))?.detect_texture(texture, size, options)?;
        wait(self.watch())?;
        into_image(&mut detections, &letterbox);
        Ok((detections, StageTimes { inference: start.elapsed(), ..StageTimes::default() }))
    }
}

impl Pipeline for GpuPipeline {
    fn input_size(&self, size: (u32, u32)) -> Shape {
        self.recipe.input_size(size)
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
            for (shape, places) in places_by_shape(images, |size| self.recipe.input_size(size)) {
                let start = Instant::now();
                let view = |&place: &usize| {
                    let (size, bytes) = (images[place].dimensions(), images[place].as_raw().as_slice());
                    RawImage { size, format: PixelFormat::Rgb, bytes }
                };
                let views: Vec<RawImage> = places.iter().map(view).collect();
                let found = self.engine_for(shape).await?.detect_async(&views, options).await?;
                // One submission does it all: its time is not divided.
                let times = StageTimes { inference: start.elapsed() / places.len() as u32, ..StageTimes::default() };
                self.watch().await?;
                for (place, (letterbox, mut detections)) in places.into_iter().zip(found) {
                    into_image(&mut detections, &letterbox);
                    each(place, (detections, times));
                }
            }
            Ok(())
        })
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
