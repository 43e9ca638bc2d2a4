//! The whole pipeline as one call: picture in, detections out.

use std::time::{Duration, Instant};

use image::RgbImage;
use ndarray::{Array3, Array4, Axis, s};

use crate::by_shape::{ByShape, alike};
use crate::engine::{self, Engine, EngineError, EngineKind};
#[cfg(feature = "ort")]
use crate::foreign::{ForeignDetector, OnnxOptions};
use crate::preprocess::Preprocessor;
use yolo_lat_core::geometry::Letterbox;
use yolo_lat_core::input_size::InputSize;
use yolo_lat_core::model::config::{AttentionKind, KernelKind, STRIDES};
use yolo_lat_core::model::{Graph, Model, ModelError};
use yolo_lat_core::postprocess::{Detection, PostprocessOptions, decode, suppress};
#[cfg(feature = "gpu")]
use yolo_lat_gpu::{Clock, GpuEngine, Picture, PixelFormat, wgpu};
#[cfg(feature = "ort")]
use yolo_lat_onnx::ort::OnnxSession;

/// The shape of most pictures: an engine for it is made at once.
const USUAL_PICTURE: (u32, u32) = (4, 3);

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
    /// A picture without pixels.
    #[error("the picture has no pixels ({width}x{height})")]
    Empty {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
    },
}

/// How a detector runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DetectorOptions {
    /// What computes the network.
    pub engine: EngineKind,
    /// How the network's input follows from a picture.
    pub size: InputSize,
    /// Threads; 0 for one a core.
    pub threads: usize,
    /// What counts as a detection.
    pub postprocess: PostprocessOptions,
    /// Changes of the attention, to see what it does.
    pub attention: AttentionOptions,
    /// How somebody's ONNX file is read.
    #[cfg(feature = "ort")]
    pub onnx: OnnxOptions,
}

impl DetectorOptions {
    /// The customary options with the least confidence that a model asks for.
    pub fn of(model: &Model) -> Self {
        let mut options = Self::default();
        options.postprocess.confidence = model.config.confidence.unwrap_or(options.postprocess.confidence);
        options
    }
}

/// Looks into a network's attention, or changes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AttentionOptions {
    /// Layers by their number in the order of execution, and what takes their place: `None` turns a layer off.
    pub replaced: Vec<(usize, Option<(AttentionKind, KernelKind)>)>,
    /// The layer whose queries, keys and values [`Detector::queries_keys_values`] gives.
    pub watched: Option<usize>,
}

/// Times of the stages for one picture; of a batch, its share.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StageTimes {
    /// Resize into the letterbox; `None` where it cannot be told from the network, as in a GPU's one submission.
    pub preprocess: Option<Duration>,
    /// The network.
    pub inference: Duration,
    /// Decoding of the logits and suppression; `None` as above.
    pub postprocess: Option<Duration>,
}

/// What finds boxes.
enum Network {
    /// One of our networks on an engine.
    Own(Box<OnHost>),
    /// One of our networks on a GPU, letterbox and suppression included.
    #[cfg(feature = "gpu")]
    Gpu(Box<OnGpu>),
    /// Somebody's ONNX file.
    #[cfg(feature = "ort")]
    Foreign(Box<ForeignDetector>),
}

/// An engine for each input shape, and what is needed to make more.
struct OnHost {
    engines: ByShape<HostEngine>,
    model: Model,
    options: DetectorOptions,
}

/// An engine with the input of its last batch, kept for the next.
struct HostEngine {
    engine: Box<dyn Engine>,
    input: Array4<f32>,
}

/// A GPU can be lost: what is needed to begin again.
#[cfg(feature = "gpu")]
struct OnGpu {
    engines: ByShape<GpuEngine>,
    model: Model,
    options: DetectorOptions,
    /// Whether the device was already made anew after a failure.
    rebuilt: bool,
    /// What times dispatches, when they are wanted.
    clock: Option<Clock>,
}

/// Finds objects in pictures.
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
    network: Network,
    classes: Vec<String>,
    options: PostprocessOptions,
    preprocessor: Preprocessor,
    /// Whether a layer of attention is watched, and what it read for the last picture.
    watches: bool,
    watched: Option<Array3<f32>>,
}

impl Detector {
    /// Loads a model by name (`n`, `s`) or path with the customary options and its own least confidence.
    ///
    /// # Errors
    /// [`DetectError`] says what is missing or wrong.
    pub fn load(model: &str) -> Result<Self, DetectError> {
        let model = Model::load(model)?;
        Self::new(&model, &DetectorOptions::of(&model))
    }

    /// Makes a detector from a loaded model.
    ///
    /// # Errors
    /// [`DetectError::Engine`] where the engine is not available or the size does not suit the model.
    pub fn new(model: &Model, options: &DetectorOptions) -> Result<Self, DetectError> {
        // Most pictures have this shape; what is wrong with a size or a device is said at once.
        let shape = options.size.for_picture(model.config.input, USUAL_PICTURE);
        #[cfg(feature = "gpu")]
        let gpu = match options.engine {
            EngineKind::Gpu => Some(gpu_engine_for(model, options, shape)?),
            // A machine without one is no reason to say anything.
            EngineKind::Auto => gpu_engine_for(model, options, shape).inspect_err(|error| log::debug!("{error}")).ok(),
            _ => None,
        };
        let (model, options) = (model.clone(), options.clone());
        let (classes, postprocess) = (model.config.classes.clone(), options.postprocess.clone());
        let watches = options.attention.watched.is_some();
        #[cfg(feature = "gpu")]
        let on_gpu = gpu.map(|engine| {
            let (model, options) = (model.clone(), options.clone());
            let engines = ByShape::new(shape, engine);
            Network::Gpu(Box::new(OnGpu { engines, model, options, rebuilt: false, clock: None }))
        });
        #[cfg(not(feature = "gpu"))]
        let on_gpu = None;
        let network = match on_gpu {
            Some(network) => network,
            None => {
                let engines = ByShape::new(shape, HostEngine::new(&model, &options, shape)?);
                Network::Own(Box::new(OnHost { engines, model, options }))
            }
        };
        let preprocessor = Preprocessor::default();
        Ok(Self { network, classes, options: postprocess, preprocessor, watches, watched: None })
    }

    /// Makes a detector from an ONNX file of one of the known layouts, in ONNX Runtime whatever engine the options name. Boxes
    /// of other people's networks do not vote unless [`OnnxOptions::merge`] says so.
    ///
    /// # Errors
    /// [`DetectError::Engine`] without ONNX Runtime, or for a file that it or this program cannot read.
    #[cfg(feature = "ort")]
    pub fn open_onnx(path: &std::path::Path, options: &DetectorOptions) -> Result<Self, DetectError> {
        let threads = if options.threads == 0 {
            std::thread::available_parallelism().map_or(1, usize::from)
        } else {
            options.threads
        };
        let session = OnnxSession::open(path, threads)?;
        // Other people's networks were made for one shape.
        let size = match options.size {
            InputSize::Budget(side) | InputSize::Square(side) => side.map(|side| (side, side)),
            InputSize::Fixed(width, height) => Some((width, height)),
        };
        let foreign = ForeignDetector::new(session, size, &options.onnx, path.display().to_string())?;
        Ok(Self {
            classes: foreign.classes().to_vec(),
            network: Network::Foreign(Box::new(foreign)),
            options: options.postprocess.clone(),
            preprocessor: Preprocessor::default(),
            watches: false,
            watched: None,
        })
    }

    /// Detections in one picture, by falling confidence, in picture pixels.
    ///
    /// # Errors
    /// [`DetectError::Empty`] for a picture without pixels.
    pub fn detect(&mut self, picture: &RgbImage) -> Result<Vec<Detection>, DetectError> {
        Ok(self.detect_batch(&[picture])?.swap_remove(0).0)
    }

    /// Detections in several pictures at once, of any sizes: the same as one by one, and faster on several threads.
    ///
    /// # Errors
    /// As [`Detector::detect`]; then none of the pictures is processed.
    pub fn detect_batch(&mut self, pictures: &[&RgbImage]) -> Result<Vec<(Vec<Detection>, StageTimes)>, DetectError> {
        if let Some(&empty) = pictures.iter().find(|picture| picture.width() == 0 || picture.height() == 0) {
            return Err(DetectError::Empty { width: empty.width(), height: empty.height() });
        }
        let shapes: Vec<_> = pictures.iter().map(|picture| self.input_size(picture.dimensions())).collect();
        let mut results: Vec<_> = pictures.iter().map(|_| None).collect();
        for (number, (shape, members)) in alike(&shapes).into_iter().enumerate() {
            let same: Vec<&RgbImage> = members.iter().map(|&index| pictures[index]).collect();
            let found = match self.detect_alike(shape, &same, number == 0) {
                #[cfg(feature = "gpu")]
                Err(error) if self.lost_gpu() => {
                    self.replace_gpu(&error)?;
                    return self.detect_batch(pictures);
                }
                found => found?,
            };
            for (index, found) in members.into_iter().zip(found) {
                results[index] = Some(found);
            }
        }
        Ok(results.into_iter().flatten().collect())
    }

    /// Detections in pictures that have the same input shape; `is_first` for the group with the first picture of a batch.
    fn detect_alike(
        &mut self,
        shape: (usize, usize),
        pictures: &[&RgbImage],
        is_first: bool,
    ) -> Result<Vec<(Vec<Detection>, StageTimes)>, EngineError> {
        let watches = self.watches && is_first;
        match &mut self.network {
            #[cfg(feature = "gpu")]
            Network::Gpu(gpu) => {
                let (found, watched) = gpu.detect(shape, pictures, &self.options, watches)?;
                self.watched = if is_first { watched } else { self.watched.take() };
                Ok(found)
            }
            Network::Own(host) => {
                let (found, watched) = host.detect(shape, pictures, &self.options, &mut self.preprocessor, watches)?;
                self.watched = if is_first { watched } else { self.watched.take() };
                Ok(found)
            }
            #[cfg(feature = "ort")]
            Network::Foreign(foreign) => {
                let mut found = Vec::with_capacity(pictures.len());
                for pictures in pictures.chunks(foreign.batch()) {
                    found.extend(detect_foreign(foreign, pictures, &self.options)?);
                }
                Ok(found)
            }
        }
    }

    /// Width and height of the network's input for a picture of `picture` pixels (width, height).
    pub fn input_size(&self, picture: (u32, u32)) -> (usize, usize) {
        match &self.network {
            Network::Own(host) => host.options.size.for_picture(host.model.config.input, picture),
            #[cfg(feature = "gpu")]
            Network::Gpu(gpu) => gpu.options.size.for_picture(gpu.model.config.input, picture),
            #[cfg(feature = "ort")]
            Network::Foreign(foreign) => foreign.input_size(),
        }
    }

    #[cfg(feature = "gpu")]
    fn lost_gpu(&self) -> bool {
        matches!(&self.network, Network::Gpu(gpu) if gpu.engines.latest().gpu().is_lost())
    }

    /// As [`Detector::detect_batch`], without times.
    ///
    /// # Errors
    /// As [`Detector::detect`].
    pub fn detections(&mut self, pictures: &[&RgbImage]) -> Result<Vec<Vec<Detection>>, DetectError> {
        Ok(self.detect_batch(pictures)?.into_iter().map(|(found, _)| found).collect())
    }

    /// After a failure of the device: a new one, once; then the CPU.
    #[cfg(feature = "gpu")]
    fn replace_gpu(&mut self, error: &EngineError) -> Result<(), DetectError> {
        let Network::Gpu(lost) = &mut self.network else { return Ok(()) };
        if !std::mem::replace(&mut lost.rebuilt, true) {
            let (shape, _) = lost.engines.last();
            match gpu_engine_for(&lost.model, &lost.options, shape) {
                Ok(engine) => {
                    log::warn!("{error}; going on with a new device");
                    lost.engines = ByShape::new(shape, engine);
                    lost.clock = None;
                    return Ok(());
                }
                Err(again) => log::debug!("{again}"),
            }
        }
        log::warn!("{error}; going on with the CPU engine");
        let options = DetectorOptions { engine: EngineKind::Cpu, ..lost.options.clone() };
        let cpu = Self::new(&lost.model.clone(), &DetectorOptions { postprocess: self.options.clone(), ..options })?;
        *self = cpu;
        Ok(())
    }

    /// The GPU engine that ran last, where a GPU runs.
    #[cfg(feature = "gpu")]
    pub fn gpu_engine(&mut self) -> Option<&mut GpuEngine> {
        match &mut self.network {
            Network::Gpu(gpu) => Some(gpu.engines.last().1),
            _ => None,
        }
    }

    /// Times every dispatch of the GPU from now on, by its own time stamps where it has them; says by which clock. `None` where
    /// no GPU runs.
    ///
    /// # Errors
    /// [`DetectError::Engine`] if there is no memory for the times.
    #[cfg(feature = "gpu")]
    pub fn start_profile(&mut self) -> Result<Option<Clock>, DetectError> {
        let Network::Gpu(gpu) = &mut self.network else { return Ok(None) };
        for engine in gpu.engines.iter_mut() {
            gpu.clock = Some(engine.start_profile(gpu.clock)?);
        }
        Ok(gpu.clock)
    }

    /// Detections in a texture of the GPU engine's device; the picture itself never leaves it. `None` where another engine
    /// runs, which needs the pixels.
    ///
    /// # Errors
    /// [`DetectError::Engine`] if the device fails; the next call of [`Detector::detect`] replaces it.
    #[cfg(feature = "gpu")]
    pub fn detect_texture(
        &mut self,
        texture: &wgpu::TextureView,
        size: (u32, u32),
    ) -> Result<Option<(Vec<Detection>, StageTimes)>, DetectError> {
        let Network::Gpu(gpu) = &mut self.network else { return Ok(None) };
        if gpu.engines.latest().gpu().is_lost() {
            return Ok(None);
        }
        let start = Instant::now();
        let shape = gpu.options.size.for_picture(gpu.model.config.input, size);
        let engine = gpu.engine(shape)?;
        let (letterbox, mut detections) = engine.detect_texture(texture, size, &self.options)?;
        self.watched = if self.watches { engine.outputs()?.pop() } else { None };
        into_picture(&mut detections, &letterbox);
        Ok(Some((detections, StageTimes { inference: start.elapsed(), ..StageTimes::default() })))
    }

    /// What the watched layer of attention read for the first picture of the last batch: queries, keys and values
    /// (3 * width, rows, columns).
    pub fn queries_keys_values(&self) -> Option<&Array3<f32>> {
        self.watched.as_ref()
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
        match &self.network {
            Network::Own(host) => host.engines.latest().engine.description(),
            #[cfg(feature = "gpu")]
            Network::Gpu(gpu) => gpu.engines.latest().description(),
            #[cfg(feature = "ort")]
            Network::Foreign(foreign) => foreign.description(),
        }
    }
}

fn graph_for(model: &Model, options: &DetectorOptions, (width, height): (usize, usize)) -> Result<Graph, ModelError> {
    let mut graph = model.graph(width, height)?;
    let layers: Vec<_> = graph.attention_layers().collect();
    if let Some(&layer) = options.attention.watched.and_then(|watched| layers.get(watched)) {
        graph.taps.push(graph.nodes[layer].inputs[0]);
    }
    for &(layer, by) in &options.attention.replaced {
        if let Some(&node) = layers.get(layer) {
            graph.replace_attention(node, by);
        }
    }
    Ok(graph)
}

#[cfg(feature = "gpu")]
fn gpu_engine_for(model: &Model, options: &DetectorOptions, shape: (usize, usize)) -> Result<GpuEngine, EngineError> {
    let engine = GpuEngine::new(&graph_for(model, options, shape)?, &model.weights)?;
    say_input(model, shape);
    Ok(engine)
}

fn say_input(model: &Model, (width, height): (usize, usize)) {
    log::info!("{}: input of {width}x{height} pixels", model.config.name);
}

/// Detections of several pictures with their times, and what the watched layer read for the first.
type Found = (Vec<(Vec<Detection>, StageTimes)>, Option<Array3<f32>>);

impl HostEngine {
    fn new(model: &Model, options: &DetectorOptions, shape: (usize, usize)) -> Result<Self, EngineError> {
        let graph = graph_for(model, options, shape)?;
        let engine = engine::create_for(options.engine, model, &graph, options.threads)?;
        say_input(model, shape);
        Ok(Self { engine, input: Array4::zeros((0, 3, shape.1, shape.0)) })
    }
}

impl OnHost {
    fn detect(
        &mut self,
        shape: (usize, usize),
        pictures: &[&RgbImage],
        options: &PostprocessOptions,
        preprocessor: &mut Preprocessor,
        watches: bool,
    ) -> Result<Found, EngineError> {
        let HostEngine { engine, input } =
            self.engines.get(shape, || HostEngine::new(&self.model, &self.options, shape))?;
        let (_, channels, height, width) = input.dim();
        if input.dim().0 < pictures.len() {
            *input = Array4::zeros((pictures.len(), channels, height, width));
        }
        let mut prepared: Vec<(Letterbox, Duration)> = Vec::with_capacity(pictures.len());
        for (picture, target) in pictures.iter().zip(input.outer_iter_mut()) {
            let start = Instant::now();
            let letterbox = preprocessor.apply(picture, target);
            prepared.push((letterbox, start.elapsed()));
        }
        let start = Instant::now();
        let outputs = engine.run(input.slice(s![..pictures.len(), .., .., ..]))?;
        let inference = start.elapsed() / pictures.len() as u32;
        let watched = outputs.last().filter(|_| watches).map(|tap| tap.index_axis(Axis(0), 0).to_owned());
        let head = self.model.config.head;
        let results = prepared.into_iter().enumerate().map(|(index, (letterbox, preprocess))| {
            let start = Instant::now();
            let scales = STRIDES.iter().zip(outputs.chunks_exact(2)).map(|(&stride, output)| {
                (stride, output[0].index_axis(Axis(0), index), output[1].index_axis(Axis(0), index))
            });
            let mut detections = suppress(decode(scales, head, options), options);
            into_picture(&mut detections, &letterbox);
            (detections, StageTimes { preprocess: Some(preprocess), inference, postprocess: Some(start.elapsed()) })
        });
        Ok((results.collect(), watched))
    }
}

#[cfg(feature = "gpu")]
impl OnGpu {
    /// The engine for a shape, timed where that is wanted.
    fn engine(&mut self, shape: (usize, usize)) -> Result<&mut GpuEngine, EngineError> {
        self.engines.get(shape, || {
            let mut engine = gpu_engine_for(&self.model, &self.options, shape)?;
            if self.clock.is_some() {
                engine.start_profile(self.clock)?;
            }
            Ok(engine)
        })
    }

    fn detect(
        &mut self,
        shape: (usize, usize),
        pictures: &[&RgbImage],
        options: &PostprocessOptions,
        watches: bool,
    ) -> Result<Found, EngineError> {
        let start = Instant::now();
        let views: Vec<Picture> = pictures
            .iter()
            .map(|picture| Picture { size: picture.dimensions(), format: PixelFormat::Rgb, bytes: picture.as_raw() })
            .collect();
        let engine = self.engine(shape)?;
        let found = engine.detect(&views, options)?;
        // One submission does it all: its time is not divided.
        let times = StageTimes { inference: start.elapsed() / pictures.len() as u32, ..StageTimes::default() };
        let watched = if watches { engine.outputs()?.pop() } else { None };
        let finish = |(letterbox, mut detections): (Letterbox, Vec<Detection>)| {
            into_picture(&mut detections, &letterbox);
            (detections, times)
        };
        Ok((found.into_iter().map(finish).collect(), watched))
    }
}

/// Boxes from network pixels to picture pixels.
fn into_picture(detections: &mut [Detection], letterbox: &Letterbox) {
    let (width, height) = letterbox.image;
    for detection in detections {
        let bbox = letterbox.image_from_letterbox(&detection.bbox);
        detection.bbox = bbox.clip(width as f32, height as f32);
    }
}

/// At most as many pictures as `foreign` computes together.
#[cfg(feature = "ort")]
fn detect_foreign(
    foreign: &mut ForeignDetector,
    pictures: &[&RgbImage],
    options: &PostprocessOptions,
) -> Result<Vec<(Vec<Detection>, StageTimes)>, EngineError> {
    let fit = |(at, picture): (usize, &&RgbImage)| {
        let start = Instant::now();
        (foreign.prepare(at, picture), start.elapsed())
    };
    let prepared: Vec<(Letterbox, Duration)> = pictures.iter().enumerate().map(fit).collect();
    let start = Instant::now();
    let outputs = foreign.run(pictures.len())?;
    let inference = start.elapsed() / pictures.len() as u32;
    let finish = |(at, (letterbox, preprocess)): (usize, (Letterbox, Duration))| {
        let start = Instant::now();
        let mut detections = foreign.decode(&outputs, at, options)?;
        into_picture(&mut detections, &letterbox);
        Ok((detections, StageTimes { preprocess: Some(preprocess), inference, postprocess: Some(start.elapsed()) }))
    };
    prepared.into_iter().enumerate().map(finish).collect()
}
