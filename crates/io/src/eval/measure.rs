//! Runs what detects over labelled images: the loop that `yolo-lat eval` and the trainer share.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use image::RgbImage;
use yolo_lat_core::model::classes::class_map;
use yolo_lat_core::postprocess::Detection;

use super::{Dataset, Evaluation, Object, evaluate};
use crate::source::{Budget, Prefetch, SourceError};

/// Why a data set could not be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// The system gives no threads.
    #[error("cannot start threads: {0}")]
    Threads(#[from] std::io::Error),
    /// The engine failed.
    #[error(transparent)]
    Detect(Box<dyn Error + Send + Sync>),
    /// Nothing could be found, whatever the model does.
    #[error(
        "the model and the data set have no class in common (model: {}; data set: {})",
        model.join(", "),
        dataset.join(", ")
    )]
    Classes {
        /// Classes of the model.
        model: Vec<String>,
        /// Classes of the data set.
        dataset: Vec<String>,
    },
}

/// How images are fed to the detector.
#[derive(Clone, Debug)]
pub struct Feed {
    /// Images that the detector sees at once.
    pub batch: usize,
    /// Threads that decode.
    pub threads: usize,
    /// Set from elsewhere, it ends the measurement.
    pub stop: Arc<AtomicBool>,
}

/// Detections of every image that could be read, in the data set's classes.
#[derive(Debug, Default)]
pub struct Measured {
    /// One list an image, best first.
    pub detections: Vec<Vec<Detection>>,
    /// The labels of the same images.
    pub objects: Vec<Vec<Object>>,
    /// How many images were seen at each input (width, height), where who detects keeps count.
    pub inputs: BTreeMap<(usize, usize), usize>,
    /// Images that could not be read.
    pub failed: usize,
    /// From the first image to the last.
    pub elapsed: Duration,
    /// Whether [`Feed::stop`] ended it before all images were seen.
    pub interrupted: bool,
}

impl Measured {
    /// Average precision over `classes` classes.
    pub fn evaluate(&self, classes: usize) -> Evaluation {
        evaluate(classes, &self.objects, &self.detections)
    }

    /// Images a second; `None` where nothing was run.
    pub fn images_per_second(&self) -> Option<f64> {
        (!self.elapsed.is_zero()).then(|| self.detections.len() as f64 / self.elapsed.as_secs_f64())
    }
}

/// Which class of a data set is which of a model, by what they are called ([`class_map`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correspondence {
    /// For each class of the model the data set's; `None` where nothing is labelled so.
    pub of_model: Vec<Option<usize>>,
    /// For each class of the data set the one that its objects count as: itself, or the one that stands for it where several
    /// mean the same class of the model (`sofa` and `couch`); `None` where the model has none such.
    pub of_dataset: Vec<Option<usize>>,
}

impl Correspondence {
    /// Of a model's classes and a data set's.
    ///
    /// # Errors
    /// [`MeasureError::Classes`] if none is the same.
    pub fn new(model: &[String], dataset: &[String]) -> Result<Self, MeasureError> {
        let of_model = class_map(model, dataset);
        let in_model = class_map(dataset, model).into_iter();
        let of_dataset: Vec<_> = in_model.map(|class| class.and_then(|class| of_model[class])).collect();
        if of_dataset.iter().all(Option::is_none) {
            return Err(MeasureError::Classes { model: model.to_vec(), dataset: dataset.to_vec() });
        }
        Ok(Self { of_model, of_dataset })
    }

    /// Names of labelled classes that the model lacks: their objects are left out.
    pub fn left_out<'a>(&self, dataset: &'a Dataset) -> Vec<&'a str> {
        let mut labelled = vec![false; dataset.classes.len()];
        dataset.images.iter().flat_map(|image| &image.objects).for_each(|object| labelled[object.class] = true);
        let classes = dataset.classes.iter().zip(&self.of_dataset).zip(labelled);
        classes
            .filter(|((_, class), labelled)| class.is_none() && *labelled)
            .map(|((name, _), _)| name.as_str())
            .collect()
    }
}

/// Detects on all images of `dataset` with `detect`, whose detections count in `classes`. Classes correspond by name
/// ([`Correspondence`]); detections of classes that the data set lacks, and objects of classes that the model lacks, are left out.
/// `seen` hears of every image, with the reason if it could not be read.
///
/// # Errors
/// [`MeasureError`]; images that cannot be read are none.
pub fn measure<E: Error + Send + Sync + 'static>(
    classes: &[String],
    mut detect: impl FnMut(&[&RgbImage]) -> Result<Vec<Vec<Detection>>, E>,
    dataset: &Dataset,
    feed: &Feed,
    mut seen: impl FnMut(&Path, Option<SourceError>),
) -> Result<Measured, MeasureError> {
    let correspondence = Correspondence::new(classes, &dataset.classes)?;
    let paths: Arc<Vec<PathBuf>> = Arc::new(dataset.images.iter().map(|image| image.path.clone()).collect());
    let budget = Budget::new(Budget::bytes_for(feed.threads));
    let _wanted = budget.open();
    let load = {
        let paths = paths.clone();
        move |index: usize| budget.open_image(index, &paths[index])
    };
    let mut loader = Prefetch::new(paths.len(), feed.threads, feed.stop.clone(), load)?;
    let start = Instant::now();
    let mut measured = Measured::default();
    loop {
        let batch = loader.next_batch(feed.batch);
        if feed.stop.load(Ordering::Relaxed) {
            measured.interrupted = true;
            break;
        }
        if batch.is_empty() {
            break;
        }
        let mut images = Vec::new();
        for (index, image) in batch {
            match image {
                Ok(image) => {
                    images.push(image);
                    let objects = dataset.images[index].objects.iter();
                    let counted =
                        |&object: &Object| Some(Object { class: correspondence.of_dataset[object.class]?, ..object });
                    measured.objects.push(objects.filter_map(counted).collect());
                    seen(&paths[index], None);
                }
                Err(error) => {
                    measured.failed += 1;
                    seen(&paths[index], Some(error));
                }
            }
        }
        let found = detect(&images.iter().map(|image| &**image).collect::<Vec<_>>());
        for detections in found.map_err(|error| MeasureError::Detect(Box::new(error)))? {
            let in_dataset = |detection: Detection| {
                Some(Detection { class: correspondence.of_model[detection.class]?, ..detection })
            };
            measured.detections.push(detections.into_iter().filter_map(in_dataset).collect());
        }
    }
    measured.elapsed = start.elapsed();
    Ok(measured)
}
