//! Images to boxes: letterbox, network, head and suppression, wherever they run.

use std::any::Any;
#[cfg(feature = "gpu")]
use std::pin::Pin;
use std::time::Duration;

use image::RgbImage;
use ndarray::Array3;

use crate::by_shape::Shape;
use yolo_lat_core::engine::{EngineError, StepTime};
use yolo_lat_core::geometry::Letterbox;
use yolo_lat_core::postprocess::{Detection, PostprocessOptions};
use yolo_lat_core::time::Instant;

/// Times of the stages for one image; of a batch, its share.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StageTimes {
    /// Resize into the letterbox; `None` where it cannot be told from the network, as in a GPU's one submission.
    pub preprocess: Option<Duration>,
    /// The network.
    pub inference: Duration,
    /// Decoding of the logits and suppression; `None` as above.
    pub postprocess: Option<Duration>,
}

/// What was found in an image, by falling confidence, in image pixels; and how long it took.
pub type Found = (Vec<Detection>, StageTimes);

/// Takes the place of an image and what was found in it.
pub(crate) type Each<'a> = &'a mut dyn FnMut(usize, Found);

/// What is there later: where a device must be waited for that nothing may block on, as in a browser.
#[cfg(feature = "gpu")]
pub(crate) type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T, EngineError>> + 'a>>;

/// Finds boxes in images.
pub(crate) trait Pipeline: Any + Send {
    /// Width and height of the network's input for an image of `size` pixels.
    fn input_size(&self, size: (u32, u32)) -> Shape;

    /// Gives `each` what is in each of `images` with its place, in any order; images of any sizes, but none without pixels.
    ///
    /// # Errors
    /// [`EngineError`]; then what was given does not count.
    fn detect(&mut self, images: &[&RgbImage], options: &PostprocessOptions, each: Each) -> Result<(), EngineError>;

    /// The same for callers that wait in their own way. What runs on the processor is done at once.
    #[cfg(feature = "gpu")]
    fn detect_async<'a>(
        &'a mut self,
        images: &'a [&'a RgbImage],
        options: &'a PostprocessOptions,
        each: Each<'a>,
    ) -> Later<'a, ()> {
        Box::pin(std::future::ready(self.detect(images, options, each)))
    }

    /// What runs, for people.
    fn description(&self) -> String;

    /// What the watched layer of attention read for the first image of the last batch (3 * width, rows, columns).
    fn watched(&self) -> Option<&Array3<f32>> {
        None
    }

    /// Times every step of the network from now on and says by which clock, for people; `None` if it has no steps to show.
    ///
    /// # Errors
    /// [`EngineError`] if a GPU has no memory for the times.
    fn start_profile(&mut self) -> Result<Option<&'static str>, EngineError> {
        Ok(None)
    }

    /// The steps of the last batch with their times, where they are taken.
    ///
    /// # Errors
    /// [`EngineError`] if a GPU fails.
    fn profile(&self) -> Result<Vec<StepTime>, EngineError> {
        Ok(Vec::new())
    }

    /// Most GFLOP/s of what computes the network, measured now; `None` where that is not known.
    fn peak_gflops(&self) -> Option<f64> {
        None
    }
}

/// A network whose stages run one after the other.
pub(crate) trait Stages {
    /// Fits an image into place `at` of the batch.
    ///
    /// # Errors
    /// [`EngineError`] if it cannot be resized.
    fn fit(&mut self, at: usize, image: &RgbImage) -> Result<Letterbox, EngineError>;

    /// Runs the network on the first `images` of the batch. What it gives decodes an image, in network pixels.
    fn run(
        &mut self,
        images: usize,
        options: &PostprocessOptions,
    ) -> Result<impl FnMut(usize) -> Result<Vec<Detection>, EngineError>, EngineError>;
}

/// One batch through all stages, timed. `fitted` is room for where each image lies, kept from batch to batch.
pub(crate) fn run_stages(
    stages: &mut impl Stages,
    images: &[&RgbImage],
    options: &PostprocessOptions,
    fitted: &mut Vec<(Letterbox, Duration)>,
    each: Each,
) -> Result<(), EngineError> {
    fitted.clear();
    for (at, image) in images.iter().enumerate() {
        let start = Instant::now();
        let letterbox = stages.fit(at, image)?;
        fitted.push((letterbox, start.elapsed()));
    }
    let start = Instant::now();
    let mut decode = stages.run(images.len(), options)?;
    let inference = start.elapsed() / images.len() as u32;
    for (at, (letterbox, preprocess)) in fitted.iter().enumerate() {
        let start = Instant::now();
        let mut detections = decode(at)?;
        into_image(&mut detections, letterbox);
        let (preprocess, postprocess) = (Some(*preprocess), Some(start.elapsed()));
        each(at, (detections, StageTimes { preprocess, inference, postprocess }));
    }
    Ok(())
}

/// Boxes from network pixels to image pixels.
pub(crate) fn into_image(detections: &mut [Detection], letterbox: &Letterbox) {
    let (width, height) = letterbox.image;
    for detection in detections {
        let bbox = letterbox.image_from_letterbox(&detection.bbox);
        detection.bbox = bbox.clip(width as f32, height as f32);
    }
}
