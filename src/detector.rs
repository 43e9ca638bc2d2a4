//! The whole pipeline as one call: image in, detections out.

#[cfg(feature = "gpu")]
use std::sync::Arc;

use image::RgbImage;
use ndarray::Array3;

#[cfg(feature = "gpu")]
use crate::engine::fastest;
use crate::engine::{EngineError, EngineKind, StepTime};
#[cfg(feature = "gpu")]
use crate::fallback::Fallback;
#[cfg(feature = "gpu")]
use crate::gpu_pipeline::GpuPipeline;
use crate::model_file::{ModelFile, OnnxFile};
use crate::options::Recipe;
use crate::pipeline::{Each, Pipeline};
use crate::runtime::Runtime;
use crate::slices::{Sliced, Slices};
use crate::staged::Staged;
#[cfg(feature = "ort")]
use crate::third_party::ThirdPartyDetector;
#[cfg(any(feature = "gpu", feature = "ort"))]
use yolo_lat_core::model::Precision;
use yolo_lat_core::model::{Model, ModelError};
use yolo_lat_core::postprocess::{Detection, PostprocessOptions};
#[cfg(feature = "gpu")]
use yolo_lat_gpu::{wait, wgpu};

pub use crate::options::{AttentionOptions, DetectorOptions};
pub use crate::pipeline::{Found, StageTimes};

/// The shape of most images: an engine for it is made at once.
const USUAL_IMAGE: (u32, u32) = (4, 3);

/// Why a detector could not be made or could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DetectError {
    /// The model could not be loaded.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The engine could not be made or failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An image without pixels.
    #[error("the image has no pixels ({width}x{height})")]
    Empty {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
    },
}

/// Finds objects in images.
///
/// ```
/// use yolo_lat::Detector;
///
/// let mut detector = Detector::load("n")?;
/// let detections = detector.detect(&image::open("assets/chelsea.jpg")?.into_rgb8())?;
/// assert_eq!(detector.class_name(detections[0].class), "cat");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Detector {
    pipeline: Box<dyn Pipeline>,
    classes: Vec<String>,
    options: PostprocessOptions,
}

impl Detector {
    /// Loads a model by name (`n`, `s`) or path with the customary options, its own least confidence and what the machine has.
    ///
    /// # Errors
    /// [`DetectError`] says what is missing or wrong.
    pub fn load(name: &str) -> Result<Self, DetectError> {
        let file = ModelFile::open(name)?;
        Self::new(&file, &Runtime::default(), &DetectorOptions::of(&file))
    }

    /// Makes a detector of a model on what a runtime has. Boxes of other people's networks do not vote unless their options
    /// say so.
    ///
    /// # Errors
    /// [`DetectError::Engine`] where the engine is not available, the size does not suit the model, or an ONNX file is of no
    /// known layout.
    pub fn new(file: &ModelFile, runtime: &Runtime, options: &DetectorOptions) -> Result<Self, DetectError> {
        match file {
            ModelFile::Native(model) => Self::of_model(model, runtime, options),
            ModelFile::Onnx(file) => Self::of_onnx(file, runtime, options),
        }
    }

    /// The same for one of our models.
    ///
    /// # Errors
    /// [`DetectError::Engine`] where the engine is not available or the size does not suit the model.
    pub fn of_model(model: &Model, runtime: &Runtime, options: &DetectorOptions) -> Result<Self, DetectError> {
        #[cfg(feature = "gpu")]
        return wait(Self::of_model_async(model, runtime, options));
        #[cfg(not(feature = "gpu"))]
        {
            let recipe = Recipe::new(model, runtime, options)?;
            if options.engine == EngineKind::Gpu {
                return Err(crate::engine::not_in_build(EngineKind::Gpu).into());
            }
            Self::staged(recipe)
        }
    }

    /// The same for callers that wait for a GPU in their own way, as those in a browser must: there [`EngineKind::Auto`] measures
    /// nothing and is the CPU engine.
    ///
    /// # Errors
    /// As [`Detector::of_model`].
    #[cfg(feature = "gpu")]
    pub async fn of_model_async(
        model: &Model,
        runtime: &Runtime,
        options: &DetectorOptions,
    ) -> Result<Self, DetectError> {
        let recipe = Recipe::new(model, runtime, options)?;
        match gpu_pipeline(&recipe, recipe.input_size(USUAL_IMAGE)).await? {
            Some(gpu) => Ok(Self::over(Box::new(gpu), model.config.classes.clone(), options)),
            None => Self::staged(recipe),
        }
    }

    /// On an engine of the host. Most images have the usual shape; what is wrong with a size is said at once.
    fn staged(recipe: Recipe) -> Result<Self, DetectError> {
        let (classes, options, shape) =
            (recipe.model.config.classes.clone(), recipe.options.clone(), recipe.input_size(USUAL_IMAGE));
        Ok(Self::over(Box::new(Staged::new(recipe, shape)?), classes, &options))
    }

    fn over(pipeline: Box<dyn Pipeline>, classes: Vec<String>, options: &DetectorOptions) -> Self {
        let pipeline: Box<dyn Pipeline> = match options.slices {
            Slices::Off => pipeline,
            slices => Box::new(Sliced { inner: pipeline, slices }),
        };
        Self { pipeline, classes, options: options.postprocess.clone() }
    }

    #[cfg(feature = "ort")]
    fn of_onnx(file: &OnnxFile, runtime: &Runtime, options: &DetectorOptions) -> Result<Self, DetectError> {
        if options.precision == Some(Precision::Int8) {
            let reason = "--precision is for our models; an ONNX file has its own".to_owned();
            return Err(EngineError::Unavailable {
                engine: "int8",
                reason: format!("{}: {reason}", file.path().display()),
            }
            .into());
        }
        let third_party = ThirdPartyDetector::new(file.path(), runtime, options.size, &options.onnx)?;
        let classes = third_party.classes().to_vec();
        Ok(Self::over(Box::new(third_party), classes, options))
    }

    #[cfg(not(feature = "ort"))]
    fn of_onnx(_: &OnnxFile, _: &Runtime, _: &DetectorOptions) -> Result<Self, DetectError> {
        Err(crate::engine::not_in_build(EngineKind::Ort).into())
    }

    /// Detections in one image, by falling confidence, in image pixels.
    ///
    /// # Errors
    /// [`DetectError::Empty`] for an image without pixels.
    pub fn detect(&mut self, image: &RgbImage) -> Result<Vec<Detection>, DetectError> {
        let mut found = Vec::new();
        self.run(&[image], &mut |_, (detections, _)| found = detections)?;
        Ok(found)
    }

    /// Detections in several images at once, of any sizes: the same as one by one, and faster on several threads.
    ///
    /// # Errors
    /// As [`Detector::detect`]; then none of the images is processed.
    pub fn detect_batch(&mut self, images: &[&RgbImage]) -> Result<Vec<Found>, DetectError> {
        let mut found = vec![Found::default(); images.len()];
        self.run(images, &mut |at, one| found[at] = one)?;
        Ok(found)
    }

    /// What is in one image, with times, for callers that wait for a GPU in their own way, as those in a browser must. Images in
    /// slices need the CPU engine there.
    ///
    /// # Errors
    /// As [`Detector::detect`].
    #[cfg(feature = "gpu")]
    pub async fn detect_async(&mut self, image: &RgbImage) -> Result<Found, DetectError> {
        check_pixels(&[image])?;
        let mut found = Found::default();
        self.pipeline.detect_async(&[image], &self.options, &mut |_, one| found = one).await?;
        Ok(found)
    }

    fn run(&mut self, images: &[&RgbImage], each: Each) -> Result<(), DetectError> {
        check_pixels(images)?;
        Ok(self.pipeline.detect(images, &self.options, each)?)
    }

    /// As [`Detector::detect_batch`], without times.
    ///
    /// # Errors
    /// As [`Detector::detect`].
    pub fn detections(&mut self, images: &[&RgbImage]) -> Result<Vec<Vec<Detection>>, DetectError> {
        Ok(self.detect_batch(images)?.into_iter().map(|(found, _)| found).collect())
    }

    /// Width and height of the network's input for an image of `image` pixels (width, height).
    pub fn input_size(&self, image: (u32, u32)) -> (usize, usize) {
        self.pipeline.input_size(image)
    }

    /// The GPU's pipeline, where a GPU runs.
    #[cfg(feature = "gpu")]
    pub fn gpu(&mut self) -> Option<&mut GpuPipeline> {
        gpu_of(&mut *self.pipeline)
    }

    /// Detections in a texture of the GPU's device; the image itself never leaves it. `None` where no GPU runs: then the
    /// pixels are needed.
    ///
    /// # Errors
    /// [`DetectError::Engine`] if the device fails; the next call of [`Detector::detect`] replaces it.
    #[cfg(feature = "gpu")]
    pub fn detect_texture(
        &mut self,
        texture: &wgpu::TextureView,
        size: (u32, u32),
    ) -> Result<Option<Found>, DetectError> {
        let gpu = gpu_of(&mut *self.pipeline).filter(|gpu| !gpu.device().is_lost());
        Ok(gpu.map(|gpu| gpu.detect_texture(texture, size, &self.options)).transpose()?)
    }

    /// Times every step of the network from now on and says by which clock, for people. `None` from an engine that has no steps to
    /// show.
    ///
    /// # Errors
    /// [`DetectError::Engine`] if a GPU has no memory for the times.
    pub fn start_profile(&mut self) -> Result<Option<&'static str>, DetectError> {
        Ok(self.pipeline.start_profile()?)
    }

    /// The steps of the last batch with their times, of images of several shapes those of the first one's; empty unless
    /// [`Detector::start_profile`] was called.
    ///
    /// # Errors
    /// [`DetectError::Engine`] if a GPU fails.
    pub fn profile(&self) -> Result<Vec<StepTime>, DetectError> {
        Ok(self.pipeline.profile()?)
    }

    /// Most GFLOP/s of what computes the network, measured now; `None` where that is not known.
    pub fn peak_gflops(&self) -> Option<f64> {
        self.pipeline.peak_gflops()
    }

    /// What the watched layer of attention read for the first image of the last batch: queries, keys and values
    /// (3 * width, rows, columns).
    pub fn queries_keys_values(&self) -> Option<&Array3<f32>> {
        self.pipeline.watched()
    }

    /// Other limits from now on.
    pub fn set_postprocess(&mut self, options: PostprocessOptions) {
        self.options = options;
    }

    /// Reports only these classes from now on; `None` for all.
    pub fn restrict_classes(&mut self, classes: Option<Vec<usize>>) {
        self.options.classes = classes;
    }

    /// The name of a class.
    pub fn class_name(&self, class: usize) -> &str {
        &self.classes[class]
    }

    /// All class names; the index is the class.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// What runs, for people.
    pub fn description(&self) -> String {
        self.pipeline.description()
    }
}

fn check_pixels(images: &[&RgbImage]) -> Result<(), DetectError> {
    match images.iter().find(|image| image.width() == 0 || image.height() == 0) {
        Some(empty) => Err(DetectError::Empty { width: empty.width(), height: empty.height() }),
        None => Ok(()),
    }
}

#[cfg(feature = "gpu")]
fn gpu_of(pipeline: &mut dyn std::any::Any) -> Option<&mut GpuPipeline> {
    pipeline.downcast_mut::<Fallback>()?.gpu()
}

/// The GPU's pipeline where it is wanted, and says why it is not used where any engine will do.
#[cfg(feature = "gpu")]
async fn gpu_pipeline(recipe: &Recipe, shape: (usize, usize)) -> Result<Option<Fallback>, EngineError> {
    let open = async |recipe: Recipe| Ok(Fallback::Gpu(GpuPipeline::new(Arc::new(recipe), shape).await?, false));
    match recipe.options.engine {
        // Says so, if integers were asked for.
        EngineKind::Gpu => open(recipe.clone()).await.map(Some),
        EngineKind::Auto if recipe.options.precision == Some(Precision::Int8) => Ok(None),
        EngineKind::Auto => {
            let fastest = fastest(&recipe.model, shape, &recipe.runtime)?;
            log::info!("{fastest}");
            if fastest.engine != EngineKind::Gpu {
                return Ok(None);
            }
            match open(recipe.in_floats()?).await {
                Ok(gpu) => Ok(Some(gpu)),
                Err(EngineError::Model(error)) => Err(error.into()),
                Err(error) => {
                    log::warn!("{error}; the cpu engine runs instead");
                    Ok(None)
                }
            }
        }
        _ => Ok(None),
    }
}
