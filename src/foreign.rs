//! Other people's detectors as ONNX files: their layouts are recognised by the shapes of their outputs.

use image::RgbImage;
use ndarray::{Array4, ArrayD, ArrayView2, ArrayView3, Axis, Ix2, Ix3, s};

use crate::preprocess::Preprocessor;
use yolo_lat_core::engine::EngineError;
use yolo_lat_core::geometry::{BBox, Letterbox};
use yolo_lat_core::model::classes::COCO;
use yolo_lat_core::postprocess::{Detection, PostprocessOptions, ranked, suppress};
use yolo_lat_onnx::ort::OnnxSession;

/// Input side where a file leaves it open: a multiple of every stride here.
const OPEN_SIDE: usize = 320;

/// How a network's outputs are read, and what it expects as input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// (1, cells, 5 + classes): offsets from the cell, log sizes, objectness, classes; BGR in 0..255.
    Yolox,
    /// (1, 4 + classes, cells): centre and size in pixels, probabilities; RGB in 0..1.
    Yolov8,
    /// (1, n, 6): corners, confidence, class; RGB in 0..1.
    EndToEnd,
    /// (1, 5 + classes, rows, columns): objectness, tanh offsets, sizes, classes; BGR in 0..1, stretched.
    FastestDet,
    /// Per stride (1, cells, classes) and (1, cells, 4 * bins); normalised BGR.
    NanoDet,
    /// (1, cells, classes + 4 * bins) with strides 8 to 64; normalised BGR.
    NanoDetPlus,
}

const LAYOUTS: &str = "YOLOX (1, cells, 5 + classes), YOLOv8 (1, 4 + classes, cells), end-to-end (1, n, 6), \
                       FastestDet (1, 5 + classes, rows, columns), NanoDet (classes and bins of each stride), \
                       NanoDet-Plus (1, cells, classes + 32)";
const BINS: usize = 8;

/// A detector in ONNX Runtime that is not ours.
pub(crate) struct ForeignDetector {
    session: OnnxSession,
    layout: Layout,
    classes: Vec<String>,
    input: Array4<f32>,
    preprocessor: Preprocessor,
    name: String,
}

impl ForeignDetector {
    /// Recognises the layout of `session`; `size` is width and height for files that leave them open.
    ///
    /// # Errors
    /// [`EngineError::Onnx`] for an unknown layout, with the outputs found and the layouts known, or for a size that
    /// the file does not take.
    pub(crate) fn new(session: OnnxSession, size: Option<(usize, usize)>, name: String) -> Result<Self, EngineError> {
        let fail = |reason: String| EngineError::Onnx { origin: name.clone(), reason };
        let shapes: Vec<&[i64]> = session.outputs().iter().map(|output| output.shape.as_slice()).collect();
        let input = match session.inputs() {
            [input] if input.shape.len() == 4 => input.shape.clone(),
            inputs => return Err(fail(format!("expected one input (batch, 3, height, width), found {inputs:?}"))),
        };
        let side = |axis: usize, wanted: Option<usize>| match (usize::try_from(input[axis]), wanted) {
            (Ok(fixed), Some(wanted)) if fixed != wanted => {
                Err(fail(format!("takes {}x{} pixels only", input[3], input[2])))
            }
            (Ok(fixed), _) => Ok(fixed),
            (Err(_), wanted) => Ok(wanted.unwrap_or(OPEN_SIDE)),
        };
        let (width, height) = (side(3, size.map(|size| size.0))?, side(2, size.map(|size| size.1))?);
        let cells: usize = [8, 16, 32].iter().map(|stride| (height / stride) * (width / stride)).sum();
        let layout = match shapes.as_slice() {
            [[_, _, 6]] => Layout::EndToEnd,
            [[_, found, channels]] if *found == cells as i64 && *channels > 5 => Layout::Yolox,
            [[_, channels, found]] if *found == cells as i64 && *channels > 4 => Layout::Yolov8,
            [[_, channels, -1]] if *channels > 4 => Layout::Yolov8,
            [[_, _, 112]] => Layout::NanoDetPlus,
            [[_, channels, rows, columns]] if *channels > 5 && *rows > 0 && *columns > 0 => Layout::FastestDet,
            [a, b, c, d, e, f] if a.len() == 3 && a[2] == b[2] && b[2] == c[2] && [d[2], e[2], f[2]] == [32; 3] => {
                Layout::NanoDet
            }
            _ => return Err(fail(format!("unknown layout: outputs {shapes:?}; known are {LAYOUTS}"))),
        };
        let named = session.metadata("names").map(|names| parse_names(&names)).filter(|names| !names.is_empty());
        let classes = named.unwrap_or_else(|| COCO.map(str::to_owned).to_vec());
        let input = Array4::zeros((1, 3, height, width));
        Ok(Self { session, layout, classes, input, preprocessor: Preprocessor::default(), name })
    }

    /// Class names; the index is the class.
    pub(crate) fn classes(&self) -> &[String] {
        &self.classes
    }

    /// What runs, for people.
    pub(crate) fn description(&self) -> String {
        format!("{} ({:?} layout) in ONNX Runtime", self.name, self.layout)
    }

    /// Fits a picture into the input.
    pub(crate) fn prepare(&mut self, picture: &RgbImage) -> Letterbox {
        let (_, _, height, width) = self.input.dim();
        let input = (width as u32, height as u32);
        let letterbox = if self.layout == Layout::FastestDet {
            Letterbox { image: picture.dimensions(), input, resized: input, offset: (0, 0) }
        } else {
            Letterbox::fit(picture.dimensions(), input)
        };
        let mut planes = self.input.index_axis_mut(Axis(0), 0);
        self.preprocessor.apply_in(picture, letterbox, planes.view_mut());
        if matches!(self.layout, Layout::Yolov8 | Layout::EndToEnd) {
            return letterbox;
        }
        let (red, _, mut blue) = planes.multi_slice_mut((s![0, .., ..], s![1, .., ..], s![2, .., ..]));
        ndarray::Zip::from(red).and(&mut blue).for_each(std::mem::swap);
        // Means and deviations of ImageNet, blue first.
        let (mean, deviation) = match self.layout {
            Layout::NanoDet | Layout::NanoDetPlus => ([103.53, 116.28, 123.675], [57.375, 57.12, 58.395]),
            Layout::Yolox => ([0.0; 3], [1.0; 3]),
            _ => ([0.0; 3], [255.0; 3]),
        };
        for (channel, mut plane) in planes.outer_iter_mut().enumerate() {
            plane.mapv_inplace(|value| (value * 255.0 - mean[channel]) / deviation[channel]);
        }
        letterbox
    }

    /// Runs the network on the prepared picture.
    ///
    /// # Errors
    /// [`EngineError::Onnx`] if ONNX Runtime fails.
    pub(crate) fn run(&mut self) -> Result<Vec<ArrayD<f32>>, EngineError> {
        self.session.run(self.input.view().into_dyn())
    }

    /// Detections in network pixels, suppressed as `options` say.
    ///
    /// # Errors
    /// [`EngineError::Onnx`] if the outputs have other shapes than the file promised.
    pub(crate) fn decode(
        &self,
        outputs: &[ArrayD<f32>],
        options: &PostprocessOptions,
    ) -> Result<Vec<Detection>, EngineError> {
        let shape =
            |error: ndarray::ShapeError| EngineError::Onnx { origin: self.name.clone(), reason: error.to_string() };
        let rows = |output: &ArrayD<f32>| -> Result<ndarray::Array2<f32>, EngineError> {
            output.index_axis(Axis(0), 0).to_owned().into_dimensionality::<Ix2>().map_err(shape)
        };
        let (_, _, height, width) = self.input.dim();
        let mut found = Found { options, classes: self.classes.len(), detections: Vec::new() };
        match self.layout {
            Layout::EndToEnd => {
                for row in rows(&outputs[0])?.outer_iter() {
                    let bbox = BBox { x1: row[0], y1: row[1], x2: row[2], y2: row[3] };
                    found.one(row[5] as usize, row[4], bbox);
                }
                // Suppressed in the file already.
                let mut detections = ranked(found.detections, options.confidence);
                detections.truncate(options.max_detections);
                return Ok(detections);
            }
            Layout::Yolov8 => {
                for column in rows(&outputs[0])?.axis_iter(Axis(1)) {
                    let bbox = centred(column[0], column[1], column[2], column[3]);
                    found.best(|class| column[4 + class], bbox);
                }
            }
            Layout::Yolox => {
                let grid = grid(&[8, 16, 32], width, height);
                for (row, (stride, x, y)) in rows(&outputs[0])?.outer_iter().zip(grid) {
                    let bbox = centred(
                        (row[0] + x) * stride,
                        (row[1] + y) * stride,
                        row[2].exp() * stride,
                        row[3].exp() * stride,
                    );
                    found.best(|class| row[4] * row[5 + class], bbox);
                }
            }
            Layout::FastestDet => {
                let map = outputs[0].index_axis(Axis(0), 0).to_owned().into_dimensionality::<Ix3>().map_err(shape)?;
                self.fastest_det(map.view(), &mut found);
            }
            Layout::NanoDet => {
                for (index, stride) in [8, 16, 32].into_iter().enumerate() {
                    let (scores, bins) = (rows(&outputs[index])?, rows(&outputs[3 + index])?);
                    let strides = [stride];
                    let cells = grid(&strides, width, height);
                    for ((scores, bins), (stride, x, y)) in scores.outer_iter().zip(bins.outer_iter()).zip(cells) {
                        let centre = |index: f32| (index + 0.5) * stride - 0.5;
                        let bbox = from_bins(|bin| bins[bin], centre(x), centre(y), stride);
                        found.best(|class| scores[class], bbox);
                    }
                }
            }
            Layout::NanoDetPlus => {
                let cells = grid(&[8, 16, 32, 64], width, height);
                for (row, (stride, x, y)) in rows(&outputs[0])?.outer_iter().zip(cells) {
                    let bbox = from_bins(|bin| row[row.len() - 4 * BINS + bin], x * stride, y * stride, stride);
                    found.best(|class| row[class], bbox);
                }
            }
        }
        Ok(suppress(found.detections, options))
    }

    fn fastest_det(&self, map: ArrayView3<f32>, found: &mut Found) {
        let (_, rows, columns) = map.dim();
        let (_, _, height, width) = self.input.dim();
        let (cell_width, cell_height) = (width as f32 / columns as f32, height as f32 / rows as f32);
        let plane = |channel: usize| -> ArrayView2<f32> { map.index_axis_move(Axis(0), channel) };
        for ((row, column), objectness) in plane(0).indexed_iter() {
            let value = |channel: usize| map[(channel, row, column)];
            let x = (value(1).tanh() + column as f32) * cell_width;
            let y = (value(2).tanh() + row as f32) * cell_height;
            let share = |logit: f32| 1.0 / (1.0 + (-logit).exp());
            let bbox = centred(x, y, share(value(3)) * width as f32, share(value(4)) * height as f32);
            found.best(|class| objectness.powf(0.6) * value(5 + class).powf(0.4), bbox);
        }
    }
}

/// Collects what is confident enough.
struct Found<'a> {
    options: &'a PostprocessOptions,
    classes: usize,
    detections: Vec<Detection>,
}

impl Found<'_> {
    fn one(&mut self, class: usize, confidence: f32, bbox: BBox) {
        let wanted = self.options.classes.as_ref().is_none_or(|only| only.contains(&class));
        if wanted && class < self.classes && confidence >= self.options.least_candidate() && confidence > 0.0 {
            self.detections.push(Detection { class, confidence, bbox });
        }
    }

    /// The best class of a cell, or all of them.
    fn best(&mut self, score: impl Fn(usize) -> f32, bbox: BBox) {
        if self.options.multi_label {
            (0..self.classes).for_each(|class| self.one(class, score(class), bbox));
            return;
        }
        let wanted = |class: &usize| self.options.classes.as_ref().is_none_or(|only| only.contains(class));
        let best = (0..self.classes).filter(wanted).max_by(|&a, &b| score(a).total_cmp(&score(b)));
        if let Some(class) = best {
            self.one(class, score(class), bbox);
        }
    }
}

fn centred(x: f32, y: f32, width: f32, height: f32) -> BBox {
    BBox { x1: x - width / 2.0, y1: y - height / 2.0, x2: x + width / 2.0, y2: y + height / 2.0 }
}

/// Stride, column and row of every cell, finest scale first, rows first. Sides are rounded up, as strided convolutions do.
fn grid(strides: &[usize], width: usize, height: usize) -> impl Iterator<Item = (f32, f32, f32)> {
    strides.iter().flat_map(move |&stride| {
        (0..height.div_ceil(stride))
            .flat_map(move |y| (0..width.div_ceil(stride)).map(move |x| (stride as f32, x as f32, y as f32)))
    })
}

/// Distances as expectations over bins (Li et al. 2020), in strides.
fn from_bins(logit: impl Fn(usize) -> f32, x: f32, y: f32, stride: f32) -> BBox {
    let distance = |side: usize| {
        let logits = || (0..BINS).map(|bin| logit(side * BINS + bin));
        let peak = logits().fold(f32::NEG_INFINITY, f32::max);
        let (sum, mean) = logits().enumerate().fold((0.0, 0.0), |(sum, mean), (bin, logit)| {
            let weight = (logit - peak).exp();
            (sum + weight, mean + weight * bin as f32)
        });
        mean / sum * stride
    };
    BBox { x1: x - distance(0), y1: y - distance(1), x2: x + distance(2), y2: y + distance(3) }
}

/// Names from the metadata of ultralytics' exports: `{0: 'person', 1: 'bicycle'}`.
fn parse_names(text: &str) -> Vec<String> {
    let inner = text.trim().trim_start_matches('{').trim_end_matches('}');
    let mut names = Vec::new();
    let mut rest = inner;
    while let Some(at) = rest.find(':') {
        rest = rest[at + 1..].trim_start();
        let Some(quote @ ('\'' | '"')) = rest.chars().next() else { return Vec::new() };
        let mut name = String::new();
        let mut characters = rest[1..].char_indices();
        let end = loop {
            match characters.next() {
                Some((_, '\\')) => name.extend(characters.next().map(|(_, character)| character)),
                Some((at, character)) if character == quote => break at + 2,
                Some((_, character)) => name.push(character),
                None => return Vec::new(),
            }
        };
        names.push(name);
        rest = &rest[end..];
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_ultralytics_writes_them() {
        assert_eq!(parse_names("{0: 'cat', 1: \"king's\", 2: 'it\\'s'}"), ["cat", "king's", "it's"]);
        assert!(parse_names("{0: cat}").is_empty() && parse_names("{0: 'cat").is_empty());
    }
}
