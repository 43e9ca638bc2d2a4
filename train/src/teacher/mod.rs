//! Detectors whose answers a network learns beside the labels.
//!
//! A teacher answers in one of two ways. *Dense*: it sees the very images that augmentation made and answers cell by cell ("a
//! good teacher is patient and consistent", Beyer et al. 2022); that costs a forward pass an image. *Cached*: it looks at
//! each image once, its boxes are kept in a file and moved with the image; these can also stand for the labels that
//! an image lacks.

mod cache;
mod device;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, bail};
use image::RgbImage;
use ndarray::{Array4, ArrayD, Axis, s};
use serde::{Deserialize, Serialize};
use yolo_lat::engine::cpu::CpuEngine;
use yolo_lat::engine::ort::OnnxSession;
use yolo_lat::geometry::BBox;
use yolo_lat::model::classes::{COCO, class_map};
use yolo_lat::model::config::STRIDES;
use yolo_lat::model::{CheckedGraph, Model};
use yolo_lat::postprocess::{Detection, Nms, PostprocessOptions, decode_box, suppress};
use yolo_lat::preprocess::Preprocessor;
use yolo_lat::{ModelFile, Runtime};

use crate::frozen::{Engines, lock};
use crate::network::layer;

pub(crate) use device::DeviceTeacher;

/// NanoDet-Plus: BGR in 0..255, normalised by the means and deviations of ImageNet.
const MEAN: [f32; 3] = [103.53, 116.28, 123.675];
const DEVIATION: [f32; 3] = [57.375, 57.12, 58.395];
const BINS: usize = 8;
/// NanoDet-Plus has a scale of stride 64 too, so its images' sides are multiples of it.
pub(crate) const NANODET_STEP: usize = 64;
/// Boxes of an image that are kept in a cache: how sure the teacher is at least, how many at most, and the overlap
/// from which the less certain of two goes.
const LEAST_CERTAINTY: f32 = 0.05;
const MOST_BOXES: usize = 50;
const SAME_OBJECT: f32 = 0.7;

/// How a teacher is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// About every sample, cell by cell.
    #[default]
    Dense,
    /// About every image once.
    Cached,
}

/// Who teaches, and how much the answers weigh beside the labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TeacherConfig {
    /// NanoDet-Plus-m as ONNX, or a model of this project (`s`, `NAME.toml`); relative to the working folder, `--teacher`
    /// fills it in where it is missing.
    pub(crate) file: Option<PathBuf>,
    #[serde(default)]
    pub(crate) answers: Mode,
    /// Weight of the loss against its class scores.
    pub(crate) class: f64,
    /// Weight of the loss against its boxes.
    pub(crate) boxes: f64,
    /// Side of the images that a cached teacher sees; the training size unless given.
    pub(crate) size: Option<usize>,
    /// Where its answers are kept; `answers-N.safetensors` in the output folder unless given.
    pub(crate) cache: Option<PathBuf>,
    /// Layers of a dense teacher of this project whose maps the student's layers of the same names learn to tell, with their
    /// weights in the loss.
    #[serde(default)]
    pub(crate) features: BTreeMap<String, f64>,
    /// Boxes of unlabelled images that it is at least so sure of become labels (cached teachers).
    pub(crate) labels_from: Option<f32>,
}

/// What a teacher says to one image, for every cell of strides 8, 16 and 32, finest first, rows first.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// (cells, classes), probabilities.
    pub(crate) scores: Vec<f32>,
    /// (cells, 4), corners in pixels of the image.
    pub(crate) boxes: Vec<f32>,
    /// (1, channels, rows, columns) of each layer that the teacher shows.
    pub(crate) features: Vec<Array4<f32>>,
}

/// A detector that several threads may ask at once.
pub(crate) struct Teacher {
    detector: Detector,
    path: PathBuf,
    /// Index of each of the student's classes among the teacher's.
    classes: Vec<usize>,
    /// Layers that it shows.
    features: Vec<String>,
}

enum Detector {
    /// NanoDet-Plus-m in ONNX Runtime: sessions that nobody uses.
    NanoDet(Mutex<Vec<OnnxSession>>),
    /// A model of this project.
    Own { model: Box<Model>, engines: Engines },
}

impl Teacher {
    /// Loads the teacher of a model with the given classes.
    ///
    /// # Errors
    /// The file is neither a NanoDet-Plus nor a model of this project, ONNX Runtime is missing, or the teacher does not
    /// know a class.
    pub(crate) fn load(path: &Path, classes: &[String]) -> anyhow::Result<Self> {
        let file = ModelFile::open(&path.to_string_lossy())?;
        let (detector, known) = if let ModelFile::Native(model) = file {
            let known = model.config.classes.clone();
            (Detector::Own { model: Box::new(model), engines: Engines::default() }, known)
        } else {
            let session = OnnxSession::open(&Runtime::default().onnx_runtime()?, path, 1)?;
            let channels = session.outputs().first().and_then(|output| output.shape.last()).copied();
            if session.outputs().len() != 1 || channels != Some((COCO.len() + 4 * BINS) as i64) {
                bail!("{}: not a NanoDet-Plus (outputs {:?})", path.display(), session.outputs());
            }
            (Detector::NanoDet(Mutex::new(vec![session])), COCO.map(str::to_owned).to_vec())
        };
        let indices = class_map(classes, &known).into_iter().zip(classes);
        let indices = indices.map(|(index, name)| {
            index.with_context(|| format!("{}: the teacher does not know the class {name}", path.display()))
        });
        Ok(Self {
            detector,
            path: path.to_owned(),
            classes: indices.collect::<anyhow::Result<_>>()?,
            features: Vec::new(),
        })
    }

    /// The same teacher, showing the maps of some layers too.
    ///
    /// # Errors
    /// It has no such layer, or is no model of this project.
    pub(crate) fn showing(mut self, layers: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        self.features = layers.collect();
        match &self.detector {
            Detector::NanoDet(_) if self.features.is_empty() => {}
            Detector::NanoDet(_) => bail!("teacher.features: {} is no model of this project", self.path.display()),
            Detector::Own { .. } => drop(self.feature_channels()?),
        }
        Ok(self)
    }

    /// Channels of the layers that it shows.
    ///
    /// # Errors
    /// It has no such layer.
    pub(crate) fn feature_channels(&self) -> anyhow::Result<Vec<usize>> {
        let Detector::Own { model, .. } = &self.detector else { return Ok(Vec::new()) };
        let graph = self.graph(model, (STRIDES[2], STRIDES[2]))?;
        Ok(graph.taps.iter().map(|&tap| graph.nodes[tap].shape.channels).collect())
    }

    fn graph(&self, model: &Model, (width, height): (usize, usize)) -> anyhow::Result<CheckedGraph> {
        let graph = model.graph(width, height)?;
        let taps = self.features.iter().map(|name| layer(&graph, name)).collect::<anyhow::Result<_>>()?;
        Ok(graph.edit(|graph| graph.taps = taps)?)
    }

    /// The sides of its images are multiples of this.
    pub(crate) fn step(&self) -> usize {
        match self.detector {
            Detector::NanoDet(_) => NANODET_STEP,
            Detector::Own { .. } => STRIDES[2],
        }
    }

    /// Answers to one image: RGB planes of `size` (width, height) in 0..1.
    ///
    /// # Errors
    /// The engine fails.
    pub(crate) fn answer(&self, pixels: &[f32], size: (usize, usize)) -> anyhow::Result<Answer> {
        match &self.detector {
            Detector::NanoDet(sessions) => {
                let free = lock(sessions)?.pop();
                let mut session = match free {
                    Some(session) => session,
                    None => OnnxSession::open(&Runtime::default().onnx_runtime()?, &self.path, 1)?,
                };
                let (width, height) = size;
                let input = Array4::from_shape_fn((1, 3, height, width), |(_, channel, y, x)| {
                    let value = pixels[((2 - channel) * height + y) * width + x] * 255.0;
                    (value - MEAN[channel]) / DEVIATION[channel]
                });
                let outputs = session.run(input.view().into_dyn())?;
                lock(sessions)?.push(session);
                Ok(self.decode_nanodet(&outputs[0], size))
            }
            Detector::Own { model, engines } => {
                let make = || Ok(CpuEngine::new(&self.graph(model, size)?.with(model.weights.without_steps())?, 1)?);
                engines.run(pixels, size, make, |outputs| self.decode_own(outputs, model))
            }
        }
    }

    fn decode_nanodet(&self, output: &ArrayD<f32>, (width, height): (usize, usize)) -> Answer {
        let mut answer = Answer::default();
        let mut rows = output.axis_iter(Axis(1));
        for stride in STRIDES {
            let columns = width / stride;
            for (cell, row) in rows.by_ref().take(columns * (height / stride)).enumerate() {
                answer.scores.extend(self.classes.iter().map(|&class| row[[0, class]]));
                let distance = |edge: usize| {
                    let bins = (0..BINS).map(|bin| row[[0, COCO.len() + edge * BINS + bin]].exp());
                    let (sum, mean) = bins
                        .enumerate()
                        .fold((0.0, 0.0), |(sum, mean), (bin, weight)| (sum + weight, mean + weight * bin as f32));
                    mean / sum * stride as f32
                };
                let (x, y) = ((cell % columns * stride) as f32, (cell / columns * stride) as f32);
                answer.boxes.extend([x - distance(0), y - distance(1), x + distance(2), y + distance(3)]);
            }
        }
        answer
    }

    fn decode_own(&self, outputs: &[Array4<f32>], model: &Model) -> Answer {
        let mut answer = Answer::default();
        for (pair, stride) in outputs.chunks_exact(2).zip(STRIDES) {
            let (class, boxes) = (pair[0].slice(s![0, .., .., ..]), pair[1].slice(s![0, .., .., ..]));
            let (_, height, width) = class.dim();
            for (row, column) in (0..height).flat_map(|row| (0..width).map(move |column| (row, column))) {
                let score = |&index: &usize| 1.0 / (1.0 + (-class[(index, row, column)]).exp());
                answer.scores.extend(self.classes.iter().map(score));
                let BBox { x1, y1, x2, y2 } = decode_box(&boxes, row, column, stride, model.config.head);
                answer.boxes.extend([x1, y1, x2, y2]);
            }
        }
        answer.features = outputs[2 * STRIDES.len()..].to_vec();
        answer
    }

    /// The objects it finds in an image, letterboxed to `size`: boxes in the image's pixels, each with the
    /// probabilities of all classes, the surest first.
    ///
    /// # Errors
    /// The engine fails.
    pub(crate) fn boxes(&self, image: &RgbImage, size: usize) -> anyhow::Result<Vec<(BBox, Vec<f32>)>> {
        let mut input = Array4::zeros((1, 3, size, size));
        let letterbox = Preprocessor::default().apply(image, input.slice_mut(s![0, .., .., ..]))?;
        let pixels = input.as_slice().context("the image is not in order")?;
        let answer = self.answer(pixels, (size, size))?;
        let classes = self.classes.len();
        let found = answer.boxes.chunks_exact(4).zip(answer.scores.chunks_exact(classes)).enumerate();
        let found = found.map(|(cell, (corners, scores))| Detection {
            // The cell instead of the class: boxes of all classes compete, and it leads back to the scores.
            class: cell,
            confidence: scores.iter().copied().fold(0.0, f32::max),
            bbox: BBox { x1: corners[0], y1: corners[1], x2: corners[2], y2: corners[3] },
        });
        let sure = found.filter(|found| found.confidence >= LEAST_CERTAINTY).collect();
        let options = PostprocessOptions {
            iou: SAME_OBJECT,
            max_detections: MOST_BOXES,
            agnostic: true,
            nms: Nms::Greedy,
            ..PostprocessOptions::default()
        };
        let (width, height) = (image.width() as f32, image.height() as f32);
        let kept = suppress(sure, &options).into_iter().map(|Detection { class: cell, bbox, .. }| {
            let scores = answer.scores[cell * classes..(cell + 1) * classes].to_vec();
            (letterbox.image_from_letterbox(&bbox).clip(width, height), scores)
        });
        Ok(kept.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> (Teacher, Model) {
        let path = "../tests/golden/bootstrap/yolo-lat-n.toml";
        let model = Model::load(path).unwrap();
        (Teacher::load(path.as_ref(), &model.config.classes).unwrap(), model)
    }

    #[test]
    fn an_own_model_answers_what_its_detector_finds() {
        let (teacher, model) = own();
        let image = yolo_lat::source::open_image(Path::new("../assets/astronaut.jpg")).unwrap();
        let options = yolo_lat::DetectorOptions {
            engine: yolo_lat::engine::EngineKind::Cpu,
            size: yolo_lat::InputSize::Square(Some(160)),
            // A teacher's boxes are those of single cells.
            postprocess: PostprocessOptions { nms: Nms::Greedy, ..PostprocessOptions::default() },
            ..yolo_lat::DetectorOptions::default()
        };
        let expected =
            yolo_lat::Detector::of_model(&model, &Runtime::default(), &options).unwrap().detect(&image).unwrap();
        let found = teacher.boxes(&image, 160).unwrap();
        assert!(!expected.is_empty());
        let best = &expected[0];
        let (bbox, scores) = &found[0];
        assert!(bbox.iou(&best.bbox) > 0.99, "{bbox:?} {best:?}");
        assert!((scores[best.class] - best.confidence).abs() < 1e-5);
        assert_eq!(scores.len(), model.config.classes.len());
    }

    #[test]
    fn classes_are_found_by_name_and_a_missing_one_is_named() {
        let (teacher, model) = own();
        assert_eq!(teacher.classes, (0..model.config.classes.len()).collect::<Vec<_>>());
        let error = Teacher::load("../tests/golden/bootstrap/yolo-lat-n.toml".as_ref(), &["zebra".to_owned()]);
        assert!(error.err().unwrap().to_string().contains("zebra"));
    }
}
