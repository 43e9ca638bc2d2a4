//! The whole pipeline as one call: picture in, detections out.

use std::time::{Duration, Instant};

use image::RgbImage;
use ndarray::{Array3, Array4, Axis, s};

use crate::engine::{self, Engine, EngineError, EngineKind};
#[cfg(feature = "ort")]
use crate::foreign::ForeignDetector;
use crate::preprocess::Preprocessor;
use yolo_lat_core::geometry::Letterbox;
use yolo_lat_core::model::config::{AttentionKind, HeadConfig, KernelKind, STRIDES};
use yolo_lat_core::model::{Graph, Model, ModelError};
use yolo_lat_core::postprocess::{Detection, PostprocessOptions, decode, suppress};
#[cfg(feature = "gpu")]
use yolo_lat_gpu::{GpuEngine, Picture, PixelFormat, wgpu};
#[cfg(feature = "ort")]
use yolo_lat_onnx::ort::OnnxSession;

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
    /// Width and height of the network's input; `None` for the model's own.
    pub size: Option<(usize, usize)>,
    /// Threads; 0 for one a core.
    pub threads: usize,
    /// What counts as a detection.
    pub postprocess: PostprocessOptions,
    /// Changes of the attention, to see what it does.
    pub attention: AttentionOptions,
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
    /// Resize into the letterbox.
    pub preprocess: Duration,
    /// The network.
    pub inference: Duration,
    /// Decoding of the logits and suppression.
    pub postprocess: Duration,
}

/// What finds boxes.
enum Network {
    /// One of our networks on an engine.
    Own { engine: Box<dyn Engine>, head: HeadConfig },
    /// One of our networks on a GPU, letterbox and suppression included.
    #[cfg(feature = "gpu")]
    Gpu(Box<OnGpu>),
    /// Somebody's ONNX file.
    #[cfg(feature = "ort")]
    Foreign(Box<ForeignDetector>),
}

/// A GPU can be lost: what is needed to begin again.
#[cfg(feature = "gpu")]
struct OnGpu {
    engine: GpuEngine,
    model: Model,
    options: DetectorOptions,
    /// Whether the device was already made anew after a failure.
    rebuilt: bool,
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
    /// Input of the last batch, kept for the next.
    input: Array4<f32>,
    /// Whether a layer of attention is watched, and what it read for the last picture.
    watches: bool,
    watched: Option<Array3<f32>>,
}

impl Detector {
    /// Loads a model by name (`n`, `s`) or path with the customary options.
    ///
    /// # Errors
    /// [`DetectError`] says what is missing or wrong.
    pub fn load(model: &str) -> Result<Self, DetectError> {
        Self::new(&Model::load(model)?, &DetectorOptions::default())
    }

    /// Makes a detector from a loaded model.
    ///
    /// # Errors
    /// [`DetectError::Engine`] where the engine is not available or the size does not suit the model.
    pub fn new(model: &Model, options: &DetectorOptions) -> Result<Self, DetectError> {
        let (width, height) = options.size.unwrap_or((model.config.input, model.config.input));
        #[cfg(feature = "gpu")]
        let gpu = match options.engine {
            EngineKind::Gpu => Some(GpuEngine::new(&graph_for(model, options)?, &model.weights)?),
            // A machine without one is no reason to say anything.
            EngineKind::Auto => GpuEngine::new(&graph_for(model, options)?, &model.weights)
                .inspect_err(|error| log::debug!("{error}"))
                .ok(),
            _ => None,
        };
        #[cfg(feature = "gpu")]
        let on_gpu = gpu.map(|engine| {
            Network::Gpu(Box::new(OnGpu { engine, model: model.clone(), options: options.clone(), rebuilt: false }))
        });
        #[cfg(not(feature = "gpu"))]
        let on_gpu = None;
        let network = match on_gpu {
            Some(network) => network,
            None => {
                let graph = graph_for(model, options)?;
                let engine = engine::create_for(options.engine, model, &graph, options.threads)?;
                Network::Own { engine, head: model.config.head }
            }
        };
        Ok(Self {
            network,
            classes: model.config.classes.clone(),
            options: options.postprocess.clone(),
            preprocessor: Preprocessor::default(),
            input: Array4::zeros((0, 3, height, width)),
            watches: options.attention.watched.is_some(),
            watched: None,
        })
    }

    /// Makes a detector from an ONNX file of one of the known layouts, in ONNX Runtime whatever engine the options name.
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
        let foreign = ForeignDetector::new(session, options.size, path.display().to_string())?;
        Ok(Self {
            classes: foreign.classes().to_vec(),
            network: Network::Foreign(Box::new(foreign)),
            options: options.postprocess.clone(),
            preprocessor: Preprocessor::default(),
            input: Array4::zeros((0, 3, 1, 1)),
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
        if pictures.is_empty() {
            return Ok(Vec::new());
        }
        let (engine, head) = match &mut self.network {
            #[cfg(feature = "gpu")]
            Network::Gpu(gpu) => {
                let found = gpu.detect(pictures, &self.options).and_then(|found| {
                    self.watched = if self.watches { gpu.engine.outputs()?.pop() } else { None };
                    Ok(found)
                });
                return match found {
                    Err(error) if gpu.engine.gpu().is_lost() => {
                        self.replace_gpu(&error)?;
                        self.detect_batch(pictures)
                    }
                    found => Ok(found?),
                };
            }
            Network::Own { engine, head } => (engine, *head),
            #[cfg(feature = "ort")]
            Network::Foreign(foreign) => {
                return pictures.iter().map(|picture| detect_foreign(foreign, picture, &self.options)).collect();
            }
        };
        let (_, channels, height, width) = self.input.dim();
        if self.input.dim().0 < pictures.len() {
            self.input = Array4::zeros((pictures.len(), channels, height, width));
        }
        let mut prepared: Vec<(Letterbox, Duration)> = Vec::with_capacity(pictures.len());
        for (picture, target) in pictures.iter().zip(self.input.outer_iter_mut()) {
            let start = Instant::now();
            let letterbox = self.preprocessor.apply(picture, target);
            prepared.push((letterbox, start.elapsed()));
        }
        let start = Instant::now();
        let outputs = engine.run(self.input.slice(s![..pictures.len(), .., .., ..]))?;
        let inference = start.elapsed() / pictures.len() as u32;
        self.watched = outputs.last().filter(|_| self.watches).map(|tap| tap.index_axis(Axis(0), 0).to_owned());
        let results = prepared.into_iter().enumerate().map(|(index, (letterbox, preprocess))| {
            let start = Instant::now();
            let scales = STRIDES.iter().zip(outputs.chunks_exact(2)).map(|(&stride, output)| {
                (stride, output[0].index_axis(Axis(0), index), output[1].index_axis(Axis(0), index))
            });
            let mut detections = suppress(decode(scales, head, &self.options), &self.options);
            into_picture(&mut detections, &letterbox);
            (detections, StageTimes { preprocess, inference, postprocess: start.elapsed() })
        });
        Ok(results.collect())
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
            let again = graph_for(&lost.model, &lost.options)
                .map_err(EngineError::from)
                .and_then(|graph| GpuEngine::new(&graph, &lost.model.weights));
            match again {
                Ok(engine) => {
                    log::warn!("{error}; going on with a new device");
                    lost.engine = engine;
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

    /// The GPU engine, where it is the one that runs.
    #[cfg(feature = "gpu")]
    pub fn gpu_engine(&mut self) -> Option<&mut GpuEngine> {
        match &mut self.network {
            Network::Gpu(gpu) => Some(&mut gpu.engine),
            _ => None,
        }
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
        if gpu.engine.gpu().is_lost() {
            return Ok(None);
        }
        let start = Instant::now();
        let (letterbox, mut detections) = gpu.engine.detect_texture(texture, size, &self.options)?;
        self.watched = if self.watches { gpu.engine.outputs()?.pop() } else { None };
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
            Network::Own { engine, .. } => engine.description(),
            #[cfg(feature = "gpu")]
            Network::Gpu(gpu) => gpu.engine.description(),
            #[cfg(feature = "ort")]
            Network::Foreign(foreign) => foreign.description(),
        }
    }
}

fn graph_for(model: &Model, options: &DetectorOptions) -> Result<Graph, ModelError> {
    let (width, height) = options.size.unwrap_or((model.config.input, model.config.input));
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
impl OnGpu {
    fn detect(
        &mut self,
        pictures: &[&RgbImage],
        options: &PostprocessOptions,
    ) -> Result<Vec<(Vec<Detection>, StageTimes)>, EngineError> {
        let start = Instant::now();
        let views: Vec<Picture> = pictures
            .iter()
            .map(|picture| Picture { size: picture.dimensions(), format: PixelFormat::Rgb, bytes: picture.as_raw() })
            .collect();
        let found = self.engine.detect(&views, options)?;
        // One submission does it all: its time is not divided.
        let times = StageTimes { inference: start.elapsed() / pictures.len() as u32, ..StageTimes::default() };
        let finish = |(letterbox, mut detections): (Letterbox, Vec<Detection>)| {
            into_picture(&mut detections, &letterbox);
            (detections, times)
        };
        Ok(found.into_iter().map(finish).collect())
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

#[cfg(feature = "ort")]
fn detect_foreign(
    foreign: &mut ForeignDetector,
    picture: &RgbImage,
    options: &PostprocessOptions,
) -> Result<(Vec<Detection>, StageTimes), DetectError> {
    let start = Instant::now();
    let letterbox = foreign.prepare(picture);
    let prepared = Instant::now();
    let outputs = foreign.run()?;
    let computed = Instant::now();
    let mut detections = foreign.decode(&outputs, options)?;
    into_picture(&mut detections, &letterbox);
    let times =
        StageTimes { preprocess: prepared - start, inference: computed - prepared, postprocess: computed.elapsed() };
    Ok((detections, times))
}
