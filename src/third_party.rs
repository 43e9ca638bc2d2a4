//! Other people's detectors as ONNX files: images as their networks were taught to see them, and boxes of their outputs.

mod input;
mod layout;
mod names;

use std::path::Path;

use image::RgbImage;
use ndarray::{Array4, ArrayD, Axis, s};

use yolo_lat_onnx::ort::OnnxSession;

use crate::heads::{Head, HeadError};
use crate::pipeline::{Each, Pipeline, Stages, run_stages};
use crate::preprocess::{Preprocessing, Preprocessor};
use crate::runtime::Runtime;
use layout::{Clues, Reading, decide, is_doubtful, recognise};
use names::{COCO_CLASSES, names_for, parse_names};
use yolo_lat_core::engine::EngineError;
use yolo_lat_core::geometry::Letterbox;
use yolo_lat_core::input_size::InputSize;
use yolo_lat_core::postprocess::{Detection, Nms, PostprocessOptions};

pub use input::{
    InputForm, PreprocessingChanges, parse_border, parse_channels, parse_deviations, parse_fit, parse_order,
    parse_scale,
};
pub use layout::Layout;
pub use names::parse_class_names;

/// What a person says of somebody's ONNX file; the rest is recognised.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OnnxOptions {
    /// How its outputs are read.
    pub layout: Option<Layout>,
    /// How it sees.
    pub preprocessing: PreprocessingChanges,
    /// Its classes.
    pub names: Option<Vec<String>>,
    /// [`Nms::BoxVoting`] counts, though the thresholds of the votes were not made for this network. For our own exports it always
    /// does.
    pub box_voting: bool,
}

/// A detector in ONNX Runtime that is not ours.
pub(crate) struct ThirdPartyDetector {
    session: OnnxSession,
    reading: Reading,
    head: Box<dyn Head>,
    classes: Vec<String>,
    form: InputForm,
    preprocessing: Preprocessing,
    preprocessor: Preprocessor,
    /// (batch, channels, height, width)
    input: Array4<f32>,
    votes: bool,
    name: String,
}

impl ThirdPartyDetector {
    /// Opens a file in ONNX Runtime and recognises what it holds.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] without ONNX Runtime; [`EngineError::Onnx`] for an input that is no image, a size that the
    /// file does not take, or outputs that are of no known layout, or of several: with what was found and what would decide.
    pub(crate) fn new(
        path: &Path,
        runtime: &Runtime,
        size: InputSize,
        options: &OnnxOptions,
    ) -> Result<Self, EngineError> {
        let name = path.display().to_string();
        let mut session = OnnxSession::open(&runtime.onnx_runtime()?, path, runtime.threads())?;
        // Other people's networks were made for one shape; some files leave it open.
        let size = match size {
            InputSize::Budget(side) | InputSize::Square(side) => side.map(|side| (side, side)),
            InputSize::Fixed(width, height) => Some((width, height)),
        };
        let fail = |reason: String| EngineError::Onnx { origin: name.clone(), reason };
        let form = InputForm::of(&session, size).map_err(fail)?;
        let batch = form.batch.unwrap_or(1);
        // Nothing but the grey of a border.
        let grey = if form.bytes { 114.0 } else { 114.0 / 255.0 };
        let input = Array4::from_elem((batch, form.channels, form.height, form.width), grey);
        let of_file = session.metadata("names").as_deref().map(parse_names);
        if of_file == Some(None) {
            log::warn!("{name}: the names in its metadata cannot be read; --names gives them");
        }
        let given = options.names.clone().map(|names| names.into_iter().map(Some).collect::<Vec<_>>());
        let given = given.or(of_file.flatten());
        let mut clues = clues_of(&session, form, given.as_ref().map(Vec::len));
        let mut outputs = None;
        if session.outputs().iter().any(|output| output.shape.iter().skip(1).any(|&side| side < 1)) {
            outputs = Some(session.run(form.arranged(&input))?);
        }
        clues.shapes = shapes_of(&session, outputs.as_deref(), batch).map_err(fail)?;
        let mut reading = recognise(&clues, options.layout).map_err(fail)?;
        let doubtful = options.layout.is_none() && is_doubtful(&reading, &clues);
        if outputs.is_none() && (doubtful || reading.box_axis().is_some()) {
            outputs = Some(session.run(form.arranged(&input))?);
        }
        if doubtful {
            reading = decide(reading, &clues, outputs.as_deref().unwrap_or_default()).map_err(fail)?;
        }
        // What came through TensorFlow has boxes as shares of the input.
        let shares = are_shares(&reading, outputs.as_deref().unwrap_or_default());
        let named = given.as_ref().map(Vec::len);
        // An end-to-end file without names has COCO's number of classes, or the decoder says otherwise.
        let count = reading.classes.or(named).unwrap_or(COCO_CLASSES);
        if let Some(named) = named.filter(|&named| named != count) {
            log::warn!("{name}: {named} names for {count} classes");
        }
        let unnamed = || vec![None; count];
        let classes = names_for(count, given.or_else(|| reading.classes.is_none().then(unnamed)));
        if reading.layout == Layout::Yolov8Obb {
            log::warn!("{name}: oriented boxes; the upright boxes around them are given");
        }
        let left_out = if clues.keypoints > 0 { "keypoints" } else { "further outputs" };
        if clues.keypoints > 0 || (clues.shapes.len() > 1 && clues.shapes.iter().any(|shape| shape.len() > 2)) {
            log::info!("{name}: {left_out} are left out");
        }
        let head = reading.head(count, (form.width, form.height), shares);
        let mut usual = head.preprocessing();
        if form.bytes {
            usual = Preprocessing { scale: 1.0, mean: [0.0; 3], deviation: [1.0; 3], ..usual };
        }
        let of_file = PreprocessingChanges::from_metadata(|key| session.metadata(key)).map_err(fail)?;
        let preprocessing = options.preprocessing.apply(of_file.apply(usual));
        if form.bytes && (preprocessing.scale, preprocessing.mean, preprocessing.deviation) != (1.0, [0.0; 3], [1.0; 3])
        {
            return Err(fail("takes bytes as they are: no --scale, --mean, --std".into()));
        }
        let votes = options.box_voting || session.metadata("author").as_deref() == Some("yolo-lat");
        let preprocessor = Preprocessor::default();
        Ok(Self { session, reading, head, classes, form, preprocessing, preprocessor, input, votes, name })
    }

    /// Class names; the index is the class.
    pub(crate) fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Images that are computed together.
    fn batch(&self) -> usize {
        self.input.len_of(Axis(0))
    }
}

impl Pipeline for ThirdPartyDetector {
    fn input_size(&self, _: (u32, u32)) -> (usize, usize) {
        let (_, _, height, width) = self.input.dim();
        (width, height)
    }

    fn detect(&mut self, images: &[&RgbImage], options: &PostprocessOptions, each: Each) -> Result<(), EngineError> {
        let (batch, mut fitted) = (self.batch(), Vec::new());
        for (number, images) in images.chunks(batch).enumerate() {
            run_stages(self, images, options, &mut fitted, &mut |at, found| each(number * batch + at, found))?;
        }
        Ok(())
    }

    fn description(&self) -> String {
        let Self { name, reading, preprocessing, form, .. } = self;
        let InputForm { width, height, .. } = form;
        let mut text = format!("{name} ({reading}; {width}x{height}, {preprocessing}");
        for (holds, what) in [
            (form.channels_last, ", channels last"),
            (form.bytes, ", bytes"),
            (form.channels == 1, ", grey"),
            (self.votes, "; boxes vote"),
        ] {
            text.push_str(if holds { what } else { "" });
        }
        if self.batch() > 1 {
            text.push_str(&format!(", batch {}", self.batch()));
        }
        text + ") in ONNX Runtime"
    }
}

impl Stages for ThirdPartyDetector {
    fn fit(&mut self, at: usize, image: &RgbImage) -> Result<Letterbox, EngineError> {
        self.preprocessor.apply_as(image, &self.preprocessing, self.input.index_axis_mut(Axis(0), at))
    }

    fn run(
        &mut self,
        images: usize,
        options: &PostprocessOptions,
    ) -> Result<impl FnMut(usize) -> Result<Vec<Detection>, EngineError>, EngineError> {
        // The rest of the batch is empty.
        self.input.slice_mut(s![images.., .., .., ..]).fill(0.0);
        let outputs = self.session.run(self.form.arranged(&self.input))?;
        let nms = if self.votes { options.nms } else { Nms::Greedy };
        let options = PostprocessOptions { nms, ..options.clone() };
        let (head, name) = (&self.head, &self.name);
        let fail = |error: HeadError| EngineError::Onnx { origin: name.clone(), reason: error.to_string() };
        Ok(move |image| head.decode(&outputs, image, &options).map_err(fail))
    }
}

fn clues_of(session: &OnnxSession, form: InputForm, names: Option<usize>) -> Clues {
    let text = |key: &str| session.metadata(key).unwrap_or_default();
    let task = text("task").to_lowercase();
    // `[17, 3]`: how many, and numbers of each.
    let keypoints: Option<Vec<usize>> =
        text("kpt_shape").trim_matches(['[', ']']).split(',').map(|side| side.trim().parse().ok()).collect();
    let keypoints = keypoints
        .filter(|sides| task == "pose" && sides.len() == 2)
        .map_or(0, |sides| sides.iter().try_fold(1usize, |product, &side| product.checked_mul(side)).unwrap_or(0));
    Clues {
        shapes: Vec::new(),
        width: form.width,
        height: form.height,
        names,
        task,
        keypoints,
        end_to_end: text("end2end").eq_ignore_ascii_case("true"),
        description: text("description"),
    }
}

/// Shapes of the outputs without the batch: those that were `seen`, else those that the file promises.
fn shapes_of(session: &OnnxSession, seen: Option<&[ArrayD<f32>]>, batch: usize) -> Result<Vec<Vec<usize>>, String> {
    let shapes: Vec<Vec<usize>> = match seen {
        Some(outputs) => outputs.iter().map(|output| output.shape().to_vec()).collect(),
        None => {
            let side = |&side: &i64| usize::try_from(side).unwrap_or(batch);
            session.outputs().iter().map(|output| output.shape.iter().map(side).collect()).collect()
        }
    };
    match shapes.iter().find(|shape| shape.first() != Some(&batch)) {
        Some(shape) => Err(format!("unknown layout: an output {shape:?} for a batch of {batch}")),
        None => Ok(shapes.into_iter().map(|shape| shape[1..].to_vec()).collect()),
    }
}

/// Whether all boxes are shares of the input; in pixels, the largest coordinates are far above 1.
fn are_shares(reading: &Reading, outputs: &[ArrayD<f32>]) -> bool {
    let first = outputs.first().filter(|output| output.ndim() == 3 && !output.is_empty());
    let (Some(first), Some(axis)) = (first, reading.box_axis()) else { return false };
    let image = first.index_axis(Axis(0), 0);
    let numbers = (0..image.len_of(axis).min(4)).flat_map(|at| image.index_axis(axis, at).to_owned());
    let largest = numbers.fold(0f32, |largest, value| largest.max(value));
    largest > 0.0 && largest <= 2.0
}
