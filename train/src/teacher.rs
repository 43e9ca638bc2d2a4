//! A larger detector whose answers a network learns beside the labels. It sees the very pictures that augmentation
//! made, so that its answers fit them cell by cell ("a good teacher is patient and consistent", Beyer et al. 2022); a
//! cache of answers to the plain photographs would have to be cut up and scaled with them.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, bail};
use ndarray::{Array4, ArrayD, Axis};
use serde::{Deserialize, Serialize};
use yolo_lat::engine::ort::OnnxSession;
use yolo_lat::model::config::STRIDES;

/// NanoDet-Plus: BGR in 0..255, normalised by the means and deviations of ImageNet.
const MEAN: [f32; 3] = [103.53, 116.28, 123.675];
const DEVIATION: [f32; 3] = [57.375, 57.12, 58.395];
const COCO_CLASSES: usize = 80;
const BINS: usize = 8;
/// Where the classes of PASCAL VOC stand among COCO's.
const COCO_OF_VOC: [(&str, usize); 20] = [
    ("aeroplane", 4),
    ("bicycle", 1),
    ("bird", 14),
    ("boat", 8),
    ("bottle", 39),
    ("bus", 5),
    ("car", 2),
    ("cat", 15),
    ("chair", 56),
    ("cow", 19),
    ("diningtable", 60),
    ("dog", 16),
    ("horse", 17),
    ("motorbike", 3),
    ("person", 0),
    ("pottedplant", 58),
    ("sheep", 18),
    ("sofa", 57),
    ("train", 6),
    ("tvmonitor", 62),
];

/// Who teaches, and how much the answers weigh beside the labels.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TeacherConfig {
    /// NanoDet-Plus-m as ONNX; relative to the working folder, `--teacher` overrides it.
    pub(crate) file: Option<PathBuf>,
    /// Weight of the loss against the teacher's class scores.
    pub(crate) class: f64,
    /// Weight of the loss against the teacher's boxes.
    pub(crate) boxes: f64,
}

/// What the teacher says to one picture, for every cell of strides 8, 16 and 32, finest first, rows first.
#[derive(Debug)]
pub(crate) struct Answer {
    /// (cells, classes), probabilities.
    pub(crate) scores: Vec<f32>,
    /// (cells, 4), corners in pixels of the picture.
    pub(crate) boxes: Vec<f32>,
}

/// NanoDet-Plus-m in ONNX Runtime; several threads may ask at once.
pub(crate) struct Teacher {
    /// Free sessions.
    sessions: Mutex<Vec<OnnxSession>>,
    path: PathBuf,
    /// Index of each of the model's classes among the teacher's.
    classes: Vec<usize>,
}

impl Teacher {
    /// Loads the teacher of a model with the given classes.
    ///
    /// # Errors
    /// The file is no NanoDet-Plus, ONNX Runtime is missing, or the teacher does not know a class.
    pub(crate) fn load(path: &Path, classes: &[String]) -> anyhow::Result<Self> {
        let session = OnnxSession::open(path, 1)?;
        let channels = session.outputs().first().and_then(|output| output.shape.last()).copied();
        if session.outputs().len() != 1 || channels != Some((COCO_CLASSES + 4 * BINS) as i64) {
            bail!("{}: not a NanoDet-Plus (outputs {:?})", path.display(), session.outputs());
        }
        let index = |name: &String| {
            let known = COCO_OF_VOC.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            known.map(|&(_, index)| index).with_context(|| format!("the teacher does not know the class {name}"))
        };
        let classes = classes.iter().map(index).collect::<anyhow::Result<_>>()?;
        Ok(Self { sessions: Mutex::new(vec![session]), path: path.to_owned(), classes })
    }

    /// Answers to one picture: RGB planes of `size` x `size` in 0..1.
    ///
    /// # Errors
    /// ONNX Runtime fails.
    pub(crate) fn answer(&self, pixels: &[f32], size: usize) -> anyhow::Result<Answer> {
        let free = |sessions: &Mutex<Vec<OnnxSession>>| sessions.lock().ok().and_then(|mut free| free.pop());
        let mut session = match free(&self.sessions) {
            Some(session) => session,
            None => OnnxSession::open(&self.path, 1)?,
        };
        let input = Array4::from_shape_fn((1, 3, size, size), |(_, channel, y, x)| {
            let value = pixels[((2 - channel) * size + y) * size + x] * 255.0;
            (value - MEAN[channel]) / DEVIATION[channel]
        });
        let outputs = session.run(input.view().into_dyn())?;
        if let Ok(mut free) = self.sessions.lock() {
            free.push(session);
        }
        Ok(self.decode(&outputs[0], size))
    }

    fn decode(&self, output: &ArrayD<f32>, size: usize) -> Answer {
        let mut answer = Answer { scores: Vec::new(), boxes: Vec::new() };
        let mut rows = output.axis_iter(Axis(1));
        for stride in STRIDES {
            let side = size / stride;
            for (cell, row) in rows.by_ref().take(side * side).enumerate() {
                answer.scores.extend(self.classes.iter().map(|&class| row[[0, class]]));
                let distance = |edge: usize| {
                    let bins = (0..BINS).map(|bin| row[[0, COCO_CLASSES + edge * BINS + bin]].exp());
                    let (sum, mean) = bins
                        .enumerate()
                        .fold((0.0, 0.0), |(sum, mean), (bin, weight)| (sum + weight, mean + weight * bin as f32));
                    mean / sum * stride as f32
                };
                let (x, y) = ((cell % side * stride) as f32, (cell / side * stride) as f32);
                answer.boxes.extend([x - distance(0), y - distance(1), x + distance(2), y + distance(3)]);
            }
        }
        answer
    }
}
