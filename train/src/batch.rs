//! Samples and teachers' answers on their way to libtorch.

use std::sync::Arc;

use ndarray::Array4;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use tch::{Device, Kind, Tensor};
use yolo_lat::input_size::rectangle;

use crate::config::TrainConfig;
use crate::data::{Augmentation, Region, Sample, Target, TrainingImages};
use crate::frozen::{FrozenPart, joined};
use crate::loss::{Answers, DenseAnswers, Regions, Targets, TeacherOutput};
use crate::teacher::{Answer, Mode, Teacher, TeacherConfig};

/// What a step learns from.
pub(crate) struct Batch {
    /// Width and height of its images.
    pub(crate) size: (usize, usize),
    pub(crate) samples: Vec<Sample>,
    /// (n, 3, height, width) bytes on another device than the processor, if they are there already; the samples have no pixels then.
    pub(crate) bytes: Option<Tensor>,
    /// Of each dense teacher that was asked, an answer to each sample.
    pub(crate) dense: Vec<Vec<Answer>>,
    /// Of each sample, what the frozen part of the network makes of it.
    pub(crate) frozen: Option<Vec<Vec<Array4<f32>>>>,
}

/// Makes the batches of a run from their numbers alone.
#[derive(Clone)]
pub(crate) struct Batches {
    pub(crate) config: Arc<TrainConfig>,
    pub(crate) images: Arc<TrainingImages>,
    /// Of each image, width and height of samples in its shape; none where samples are squares.
    pub(crate) shapes: Arc<Vec<(usize, usize)>>,
    /// Those that are asked about every sample, by the engine on the processor.
    pub(crate) dense: Arc<Vec<Teacher>>,
    /// What the network need not compute in a step.
    pub(crate) frozen: Option<Arc<FrozenPart>>,
    /// Where the steps happen.
    pub(crate) device: Device,
}

impl Batches {
    /// Steps that see every image as often as its data set's weight says.
    pub(crate) fn steps_per_epoch(&self) -> usize {
        (self.images.per_epoch() / (self.config.batch * self.config.accumulate)).max(1)
    }

    /// Makes batch `number` of a run.
    ///
    /// # Errors
    /// A teacher fails.
    pub(crate) fn load(&self, number: usize) -> anyhow::Result<Batch> {
        let Self { config, images, dense, frozen, .. } = self;
        let per_epoch = self.steps_per_epoch() * config.accumulate;
        let (epoch, index) = (number / per_epoch, number % per_epoch);
        let augmentation = if config.is_gentle(epoch) { Augmentation::gentle() } else { config.augmentation };
        let step = dense.iter().map(Teacher::step).max().unwrap_or(32);
        let side = config.size_of(number, epoch, step);
        let order = images.order(config.seed, epoch);
        let start = index * config.batch;
        let (chosen, size) = if config.rectangles {
            let chosen = self.of_like_shape(order, epoch, index);
            let median = images.all[chosen[chosen.len() / 2]].pixels.dimensions();
            let shape = config.other_shape(number).unwrap_or(median);
            let (width, height) = rectangle(side, shape);
            (chosen, (nearest_multiple(width, step), nearest_multiple(height, step)))
        } else {
            ((start..start + config.batch).map(|place| order[place % order.len()]).collect(), (side, side))
        };
        let sample = |(place, &image): (usize, &usize)| {
            let seed = config.seed.wrapping_mul(1_000_003).wrapping_add((epoch * images.per_epoch() + place) as u64);
            images.sample(image, size, &augmentation, seed)
        };
        let mut samples: Vec<Sample> = (start..).zip(&chosen).map(sample).collect();
        let ask = |teacher: &Teacher| samples.iter().map(|sample| teacher.answer(&sample.pixels, size)).collect();
        let dense = dense.iter().map(ask).collect::<anyhow::Result<_>>()?;
        let compute = |part: &Arc<FrozenPart>| samples.iter().map(|sample| part.maps(&sample.pixels, size)).collect();
        let frozen = frozen.as_ref().map(compute).transpose()?;
        let bytes = (self.device != Device::Cpu).then(|| to_bytes(&mut samples, size, self.device));
        Ok(Batch { size, samples, bytes, dense, frozen })
    }

    /// The images of batch `index` of an epoch that sees them in `order`, where each batch has images of like shape: they are sorted by
    /// their rectangles, widest last, and cut into batches, which come in another order. A batch on a border has two shapes or more.
    pub(crate) fn of_like_shape(&self, order: Vec<usize>, epoch: usize, index: usize) -> Vec<usize> {
        let config = &self.config;
        let count = self.steps_per_epoch() * config.accumulate;
        // What the epoch leaves out is chosen before the shapes are looked at.
        let mut sorted: Vec<usize> = order.iter().copied().cycle().take(count * config.batch).collect();
        let aspect = |image: &usize| self.shapes[*image].0 as f64 / self.shapes[*image].1 as f64;
        sorted.sort_by(|a, b| aspect(a).total_cmp(&aspect(b)));
        let mut batches: Vec<usize> = (0..count).collect();
        let seed = config.seed ^ (epoch as u64).wrapping_mul(0xA24B_AED4_963E_E407);
        batches.shuffle(&mut SmallRng::seed_from_u64(seed));
        sorted[batches[index] * config.batch..][..config.batch].to_vec()
    }
}

/// What [`Batches`] knows of the images' shapes.
pub(crate) fn shapes(config: &TrainConfig, images: &TrainingImages) -> Vec<(usize, usize)> {
    let images = images.all.iter().filter(|_| config.rectangles);
    images.map(|image| rectangle(config.size, image.pixels.dimensions())).collect()
}

/// The multiple of `step` that is nearest to `side`, at least one.
fn nearest_multiple(side: usize, step: usize) -> usize {
    ((side + step / 2) / step).max(1) * step
}

/// Takes the samples' pixels to another device: a quarter of the numbers' size, by the thread that made them, so that a step need not wait.
pub(crate) fn to_bytes(samples: &mut [Sample], (width, height): (usize, usize), device: Device) -> Tensor {
    let byte = |value: f32| (value * 255.0).round() as u8;
    let bytes: Vec<u8> =
        samples.iter_mut().flat_map(|sample| std::mem::take(&mut sample.pixels).into_iter().map(byte)).collect();
    Tensor::from_slice(&bytes).to_device(device).reshape([samples.len() as i64, 3, height as i64, width as i64])
}

impl Batch {
    /// (n, 3, height, width).
    pub(crate) fn images(&self, device: Device) -> Tensor {
        if let Some(bytes) = &self.bytes {
            return bytes.to_kind(Kind::Float) / 255.0;
        }
        let (count, width, height) = (self.samples.len() as i64, self.size.0 as i64, self.size.1 as i64);
        let pixels: Vec<&[f32]> = self.samples.iter().map(|sample| &sample.pixels[..]).collect();
        Tensor::from_slice(&pixels.concat()).reshape([count, 3, height, width]).to_device(device)
    }

    /// The labels and what each teacher says. `asked` has the answers of the dense teachers that libtorch asked, in the order of all
    /// dense ones.
    pub(crate) fn tensors(
        &self,
        teachers: &[TeacherConfig],
        asked: Vec<Option<DenseAnswers>>,
        classes: usize,
        device: Device,
    ) -> Tensors {
        let mut labels = self.boxes(|target| target.scores.is_none(), None, device);
        labels.regions = self.regions(classes, device);
        let (mut dense, mut asked) = (self.dense.iter(), asked.into_iter());
        let answers = teachers.iter().enumerate().filter_map(|(index, teacher)| {
            let answers = match teacher.answers {
                Mode::Dense => Answers::Dense(match asked.next().flatten() {
                    Some(answers) => answers,
                    None => dense_answers(dense.next()?, classes, device),
                }),
                Mode::Cached => {
                    let is_his = |target: &Target| target.scores.is_some() && target.teacher == index;
                    Answers::Boxes(self.boxes(is_his, Some(classes), device))
                }
            };
            Some(TeacherOutput { answers, class_weight: teacher.class, box_weight: teacher.boxes })
        });
        Tensors { teacher_outputs: answers.collect(), labels }
    }

    /// The targets that are `wanted`, padded; with their scores if `classes` says how many there are.
    fn boxes(&self, wanted: impl Fn(&Target) -> bool, classes: Option<usize>, device: Device) -> Targets {
        let chosen: Vec<Vec<&Target>> =
            self.samples.iter().map(|sample| sample.targets.iter().filter(|target| wanted(target)).collect()).collect();
        let most = chosen.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let (mut indices, mut corners, mut mask, mut scores) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for targets in &chosen {
            for place in 0..most {
                let target = targets.get(place);
                indices.push(target.map_or(0, |target| target.class as i64));
                let bbox = target.map(|target| target.bbox).unwrap_or_default();
                corners.extend([bbox.x1, bbox.y1, bbox.x2, bbox.y2]);
                mask.push(if target.is_some() { 1.0f32 } else { 0.0 });
                match target.and_then(|target| target.scores.as_ref()) {
                    Some(known) => scores.extend_from_slice(known),
                    None => scores.extend(std::iter::repeat_n(0.0, classes.unwrap_or(0))),
                }
            }
        }
        let (count, most) = (self.samples.len() as i64, most as i64);
        let scores = classes.map(|classes| Tensor::from_slice(&scores).reshape([count, most, classes as i64]));
        Targets {
            classes: Tensor::from_slice(&indices).reshape([count, most]).to_device(device),
            boxes: Tensor::from_slice(&corners).reshape([count, most, 4]).to_kind(Kind::Float).to_device(device),
            mask: Tensor::from_slice(&mask).reshape([count, most]).to_device(device),
            scores: scores.map(|scores| scores.to_device(device)),
            regions: None,
        }
    }

    /// Where some of `classes` are not labelled, padded; `None` if all are everywhere.
    fn regions(&self, classes: usize, device: Device) -> Option<Regions> {
        let most = self.samples.iter().map(|sample| sample.regions.len()).max().filter(|&most| most > 0)?;
        let count = self.samples.len();
        let (mut areas, mut unknown) = (vec![0.0f32; count * most * 4], vec![0.0f32; count * most * classes]);
        for (index, sample) in self.samples.iter().enumerate() {
            for (place, Region { area, unknown: missing }) in (index * most..).zip(&sample.regions) {
                areas[4 * place..][..4].copy_from_slice(&[area.x1, area.y1, area.x2, area.y2]);
                missing.iter().for_each(|class| unknown[classes * place + class] = 1.0);
            }
        }
        let tensor =
            |values: &[f32]| Tensor::from_slice(values).reshape([count as i64, most as i64, -1]).to_device(device);
        Some(Regions { areas: tensor(&areas), unknown: tensor(&unknown) })
    }
}

fn dense_answers(answers: &[Answer], classes: usize, device: Device) -> DenseAnswers {
    let join = |part: fn(&Answer) -> &[f32], width: usize| {
        let values: Vec<&[f32]> = answers.iter().map(part).collect();
        let all = Tensor::from_slice(&values.concat());
        all.reshape([answers.len() as i64, -1, width as i64]).to_device(device)
    };
    let features = (0..answers.first().map_or(0, |answer| answer.features.len()))
        .map(|index| joined(answers.iter().map(|answer| &answer.features[index]), device));
    let (scores, boxes) = (join(|answer| &answer.scores, classes), join(|answer| &answer.boxes, 4));
    DenseAnswers { scores, boxes, features: features.collect() }
}

/// A batch in libtorch's memory.
pub(crate) struct Tensors {
    pub(crate) labels: Targets,
    pub(crate) teacher_outputs: Vec<TeacherOutput>,
}
