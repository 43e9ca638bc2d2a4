//! A teacher's answers to images, computed once and kept in a file.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use indicatif::ProgressBar;
use rayon::prelude::*;
use tch::{Kind, Tensor};
use yolo_lat::geometry::BBox;

use super::Teacher;
use crate::checkpoint::write_tensors;
use crate::data::{Target, TrainingImage};

const COUNTS: &str = "counts";
const BOXES: &str = "boxes";
const SCORES: &str = "scores";
const KEY: &str = "key";

impl Teacher {
    /// Adds its answers to the images, as teacher number `index`: from the file at `path` if it was written for these
    /// images by this teacher, else computed and written there. Boxes of unlabelled images of at least `labels_from`
    /// become labels too. Gives the number of images that were computed.
    ///
    /// # Errors
    /// The engine fails or the file cannot be written.
    pub(crate) fn teach(
        &self,
        index: usize,
        images: &mut [TrainingImage],
        size: usize,
        path: &Path,
        labels_from: Option<f32>,
        progress: &ProgressBar,
    ) -> anyhow::Result<usize> {
        let key = self.key(images, size)?;
        let kept = read(path, key, images.len(), self.classes.len());
        let (answers, computed) = match kept {
            Some(answers) => (answers, 0),
            None => {
                let answer = |image: &TrainingImage| {
                    let found = self.boxes(&image.pixels, size);
                    progress.inc(1);
                    found.with_context(|| image.path.display().to_string())
                };
                let answers: Vec<_> = images.par_iter().map(answer).collect::<anyhow::Result<_>>()?;
                write(path, key, &answers, self.classes.len())?;
                (answers, images.len())
            }
        };
        for (image, boxes) in images.iter_mut().zip(answers) {
            for (bbox, scores) in boxes {
                let best = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
                let Some((class, &certainty)) = best else { continue };
                if !image.is_labelled && labels_from.is_some_and(|least| certainty >= least) {
                    image.targets.push(Target::label(class, bbox));
                }
                let scores: Option<Arc<[f32]>> = Some(scores.into());
                image.targets.push(Target { bbox, class, scores, teacher: index });
            }
        }
        Ok(computed)
    }

    /// Differs when the teacher, the images or the question differ.
    fn key(&self, images: &[TrainingImage], size: usize) -> anyhow::Result<i64> {
        let mut hasher = DefaultHasher::new();
        let weights = if self.path.exists() { self.path.clone() } else { Default::default() };
        for file in [weights.clone(), weights.with_extension("safetensors")] {
            if file.is_file() {
                std::fs::read(&file).with_context(|| file.display().to_string())?.hash(&mut hasher);
            }
        }
        (self.path.as_path(), &self.classes, size).hash(&mut hasher);
        for image in images {
            (&image.path, image.pixels.dimensions()).hash(&mut hasher);
        }
        Ok(hasher.finish() as i64)
    }
}

type Boxes = Vec<(BBox, Vec<f32>)>;

/// `None` where there is no such file or it answers another question.
fn read(path: &Path, key: i64, images: usize, classes: usize) -> Option<Vec<Boxes>> {
    let tensors = Tensor::read_safetensors(path).ok()?;
    let get = |name: &str| tensors.iter().find(|(known, _)| known == name).map(|(_, tensor)| tensor.reshape([-1]));
    if get(KEY)?.to_kind(Kind::Int64).int64_value(&[0]) != key {
        return None;
    }
    let counts: Vec<i64> = Vec::try_from(get(COUNTS)?).ok()?;
    let boxes: Vec<f32> = Vec::try_from(get(BOXES)?).ok()?;
    let scores: Vec<f32> = Vec::try_from(get(SCORES)?).ok()?;
    let total = counts.iter().sum::<i64>() as usize;
    if counts.len() != images || boxes.len() != 4 * total || scores.len() != classes * total {
        return None;
    }
    let mut all = boxes.chunks_exact(4).zip(scores.chunks_exact(classes)).map(|(corners, scores)| {
        (BBox { x1: corners[0], y1: corners[1], x2: corners[2], y2: corners[3] }, scores.to_vec())
    });
    Some(counts.iter().map(|&count| all.by_ref().take(count as usize).collect()).collect())
}

fn write(path: &Path, key: i64, answers: &[Boxes], classes: usize) -> anyhow::Result<()> {
    let counts: Vec<i64> = answers.iter().map(|boxes| boxes.len() as i64).collect();
    let all = || answers.iter().flatten();
    let corners: Vec<f32> = all().flat_map(|(bbox, _)| [bbox.x1, bbox.y1, bbox.x2, bbox.y2]).collect();
    let scores: Vec<f32> = all().flat_map(|(_, scores)| scores.iter().copied()).collect();
    let total = corners.len() as i64 / 4;
    let tensors = [
        (KEY, Tensor::from_slice(&[key])),
        (COUNTS, Tensor::from_slice(&counts)),
        (BOXES, Tensor::from_slice(&corners).reshape([total, 4])),
        (SCORES, Tensor::from_slice(&scores).reshape([total, classes as i64])),
    ];
    write_tensors(path, &tensors)
}
