//! One of our models on an engine: letterbox, engine, head, suppression, one after the other on the host.

use std::time::Duration;

use image::RgbImage;
use ndarray::{Array3, Array4, Axis, s};

use crate::by_shape::{ByShape, Shape, each_shape};
use crate::engine::{Engine, EngineError, StepTime, create_for};
use crate::options::Recipe;
use crate::pipeline::{Each, Pipeline, Stages, run_stages};
use crate::preprocess::Preprocessor;
use yolo_lat_core::geometry::Letterbox;
use yolo_lat_core::model::config::{HeadConfig, STRIDES};
use yolo_lat_core::postprocess::{Detection, PostprocessOptions, Postprocessor};

/// An engine for each input shape.
pub(crate) struct Staged {
    engines: ByShape<Fitted>,
    recipe: Recipe,
    preprocessor: Preprocessor,
    postprocessor: Postprocessor,
    /// Where each image of the last batch lies, and how long that took.
    fitted: Vec<(Letterbox, Duration)>,
    watched: Option<Array3<f32>>,
    /// Whether engines time their steps.
    profiles: bool,
}

/// An engine with the input of its last batch, kept for the next.
struct Fitted {
    engine: Box<dyn Engine>,
    /// (batch, 3, height, width)
    input: Array4<f32>,
}

impl Fitted {
    fn new(recipe: &Recipe, shape: Shape) -> Result<Self, EngineError> {
        let engine = create_for(recipe.options.engine, &recipe.model, &recipe.network(shape)?, &recipe.runtime)?;
        Ok(Self { engine, input: Array4::zeros((0, 3, shape.1, shape.0)) })
    }
}

impl Staged {
    /// With an engine for images of the usual shape: what is wrong with a size is said at once.
    pub(crate) fn new(recipe: Recipe, shape: Shape) -> Result<Self, EngineError> {
        let engines = ByShape::new(shape, Fitted::new(&recipe, shape)?);
        let (preprocessor, postprocessor) = (Preprocessor::default(), Postprocessor::default());
        Ok(Self { engines, recipe, preprocessor, postprocessor, fitted: Vec::new(), watched: None, profiles: false })
    }
}

impl Pipeline for Staged {
    fn input_size(&self, size: (u32, u32)) -> Shape {
        self.recipe.input_size(size)
    }

    fn detect(&mut self, images: &[&RgbImage], options: &PostprocessOptions, each: Each) -> Result<(), EngineError> {
        let Self { engines, recipe, preprocessor, postprocessor, fitted, watched, profiles } = self;
        each_shape(
            images,
            |size| recipe.input_size(size),
            |shape, images, place| {
                let Fitted { engine, input } = engines.get(shape, || {
                    let mut fitted = Fitted::new(recipe, shape)?;
                    if *profiles {
                        fitted.engine.start_profile();
                    }
                    Ok::<_, EngineError>(fitted)
                })?;
                if input.dim().0 < images.len() {
                    *input = Array4::zeros((images.len(), 3, shape.1, shape.0));
                }
                let watched = recipe.watches().then_some(&mut *watched);
                let head = recipe.model.config.head;
                let mut stages = OnEngine { engine: &mut **engine, input, preprocessor, postprocessor, head, watched };
                run_stages(&mut stages, images, options, fitted, &mut |at, found| each(place(at), found))
            },
        )
    }

    fn description(&self) -> String {
        self.engines.latest().engine.description()
    }

    fn watched(&self) -> Option<&Array3<f32>> {
        self.watched.as_ref()
    }

    fn start_profile(&mut self) -> Result<Option<&'static str>, EngineError> {
        self.profiles = self.engines.iter_mut().all(|fitted| fitted.engine.start_profile());
        Ok(self.profiles.then_some("by the clock of this process"))
    }

    fn profile(&self) -> Result<Vec<StepTime>, EngineError> {
        Ok(self.engines.latest().engine.profile())
    }

    fn peak_gflops(&self) -> Option<f64> {
        self.engines.latest().engine.peak_gflops()
    }
}

/// The stages of one batch.
struct OnEngine<'a> {
    engine: &'a mut dyn Engine,
    input: &'a mut Array4<f32>,
    preprocessor: &'a mut Preprocessor,
    postprocessor: &'a mut Postprocessor,
    head: HeadConfig,
    watched: Option<&'a mut Option<Array3<f32>>>,
}

impl Stages for OnEngine<'_> {
    fn fit(&mut self, at: usize, image: &RgbImage) -> Result<Letterbox, EngineError> {
        self.preprocessor.apply(image, self.input.index_axis_mut(Axis(0), at))
    }

    fn run(
        &mut self,
        images: usize,
        options: &PostprocessOptions,
    ) -> Result<impl FnMut(usize) -> Result<Vec<Detection>, EngineError>, EngineError> {
        let outputs = self.engine.run(self.input.slice(s![..images, .., .., ..]))?;
        if let Some(watched) = &mut self.watched {
            **watched = outputs.last().map(|tap| tap.index_axis(Axis(0), 0).to_owned());
        }
        let (head, postprocessor) = (self.head, &mut *self.postprocessor);
        Ok(move |image| {
            let scales = STRIDES.iter().zip(outputs.chunks_exact(2)).map(|(&stride, output)| {
                (stride, output[0].index_axis(Axis(0), image), output[1].index_axis(Axis(0), image))
            });
            Ok(postprocessor.apply(scales, head, options))
        })
    }
}
