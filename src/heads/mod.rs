//! What a network's outputs mean: one family of detectors a file. A head is pure: outputs and options in, boxes out.

mod end_to_end;
mod fastestdet;
mod nanodet;
mod rtdetr;
mod yolov5;
mod yolov8;
mod yolox;

use ndarray::{ArrayD, ArrayView2, Axis, Ix2};

pub(crate) use end_to_end::EndToEnd;
pub(crate) use fastestdet::FastestDet;
pub(crate) use nanodet::{NanoDet, Origin, Outputs};
pub(crate) use rtdetr::RtDetr;
pub(crate) use yolov5::Yolov5;
pub(crate) use yolov8::Yolov8;
pub(crate) use yolox::Yolox;

use crate::preprocess::Preprocessing;
use yolo_lat_core::geometry::BBox;
use yolo_lat_core::postprocess::{Detection, PostprocessOptions, ranked, suppress};

/// Reads the outputs of one family of detectors.
pub(crate) trait Head: Send {
    /// How networks of this family see, unless a file or a person says otherwise.
    fn preprocessing(&self) -> Preprocessing;

    /// Boxes of image `image` of the batch in network pixels, by falling confidence, suppressed as `options` say.
    ///
    /// # Errors
    /// [`HeadError`] for outputs that are not this head's.
    fn decode(
        &self,
        outputs: &[ArrayD<f32>],
        image: usize,
        options: &PostprocessOptions,
    ) -> Result<Vec<Detection>, HeadError>;
}

/// Outputs that a head cannot have given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeadError {
    /// Another shape than the one that was recognised.
    #[error("output {output} has the shape {shape:?}, expected {expected}")]
    Shape { output: usize, shape: Vec<usize>, expected: String },
    /// A class that has no name.
    #[error("class {class} was found, but {classes} are known: name them all with --names")]
    Class { class: usize, classes: usize },
    /// No probability.
    #[error("a confidence of {0}, where probabilities are expected: another --layout?")]
    Score(f32),
}

/// Output number `index` of image `image` as a table (rows, columns) of at least `least` columns.
fn table(outputs: &[ArrayD<f32>], index: usize, image: usize, least: usize) -> Result<ArrayView2<'_, f32>, HeadError> {
    let wrong = || HeadError::Shape {
        output: index,
        shape: outputs.get(index).map_or(Vec::new(), |output| output.shape().to_vec()),
        expected: format!("(batch, rows, {least} or more columns)"),
    };
    let output = outputs.get(index).filter(|output| output.ndim() == 3 && image < output.len_of(Axis(0)));
    let table = output.ok_or_else(wrong)?.index_axis(Axis(0), image).into_dimensionality::<Ix2>();
    table.ok().filter(|table| table.ncols() >= least).ok_or_else(wrong)
}

/// Collects what is confident enough.
struct Candidates<'a> {
    options: &'a PostprocessOptions,
    detections: Vec<Detection>,
    /// A confidence that cannot be one.
    odd: Option<f32>,
}

impl<'a> Candidates<'a> {
    fn new(options: &'a PostprocessOptions) -> Self {
        Self { options, detections: Vec::new(), odd: None }
    }

    fn wanted(&self, class: usize) -> bool {
        self.options.classes.as_ref().is_none_or(|only| only.contains(&class))
    }

    fn one(&mut self, class: usize, confidence: f32, bbox: BBox) {
        let finite = [confidence, bbox.x1, bbox.y1, bbox.x2, bbox.y2].iter().all(|value| value.is_finite());
        if finite && confidence > 0.0 && confidence >= self.options.least_candidate() && self.wanted(class) {
            // 16-bit floats may round a little upwards.
            if confidence > 1.01 {
                self.odd = Some(confidence);
            }
            self.detections.push(Detection { class, confidence: confidence.min(1.0), bbox });
        }
    }

    /// The best of `classes` classes, or all of them.
    fn best(&mut self, classes: usize, score: impl Fn(usize) -> f32, bbox: BBox) {
        if self.options.multi_label {
            (0..classes).for_each(|class| self.one(class, score(class), bbox));
            return;
        }
        let mut best = (f32::NEG_INFINITY, 0);
        for class in 0..classes {
            let score = score(class);
            if score > best.0 && self.wanted(class) {
                best = (score, class);
            }
        }
        self.one(best.1, best.0, bbox);
    }

    fn collected(self) -> Result<Vec<Detection>, HeadError> {
        match self.odd {
            Some(score) => Err(HeadError::Score(score)),
            None => Ok(self.detections),
        }
    }

    fn suppressed(self) -> Result<Vec<Detection>, HeadError> {
        let options = self.options;
        Ok(suppress(self.collected()?, options))
    }

    /// Without suppression: the network did that itself.
    fn ranked(self) -> Result<Vec<Detection>, HeadError> {
        let options = self.options;
        let mut detections = ranked(self.collected()?, options.confidence);
        detections.truncate(options.max_detections);
        Ok(detections)
    }
}

/// A box by its centre and size, turned by `angle` (radians): the upright box around it.
fn around(x: f32, y: f32, width: f32, height: f32, angle: f32) -> BBox {
    let (sine, cosine) = (angle.sin().abs(), angle.cos().abs());
    centred(x, y, width * cosine + height * sine, width * sine + height * cosine)
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

#[cfg(test)]
mod tests {
    use ndarray::Array3;

    use yolo_lat_core::postprocess::Nms;

    use super::*;

    fn only(head: &dyn Head, outputs: &[ArrayD<f32>]) -> Detection {
        let found = head.decode(outputs, 0, &PostprocessOptions { nms: Nms::Greedy, ..Default::default() }).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        found[0]
    }

    fn near(found: Detection, class: usize, confidence: f32, bbox: [f32; 4]) {
        assert_eq!(found.class, class);
        assert!((found.confidence - confidence).abs() < 1e-5, "{found:?}");
        let sides = [found.bbox.x1, found.bbox.y1, found.bbox.x2, found.bbox.y2];
        assert!(sides.iter().zip(bbox).all(|(a, b)| (a - b).abs() < 0.01), "{found:?}, expected {bbox:?}");
    }

    #[test]
    fn yolov8_has_centres_sizes_and_probabilities_of_cells() {
        let mut cells = Array3::zeros((1, 7, 84));
        for (row, value) in [24.0, 24.0, 32.0, 32.0, 0.1, 0.2, 0.9].into_iter().enumerate() {
            cells[(0, row, 5)] = value;
        }
        let head = |classes, oriented, in_rows, unit| Yolov8 { classes, oriented, in_rows, unit };
        near(only(&head(3, false, false, [1.0; 2]), &[cells.clone().into_dyn()]), 2, 0.9, [8.0, 8.0, 40.0, 40.0]);
        let rows = cells.clone().permuted_axes([0, 2, 1]).into_dyn();
        near(only(&head(3, false, true, [0.5, 1.0]), &[rows]), 2, 0.9, [4.0, 8.0, 20.0, 40.0]);
        // Turned by a right angle, a wide box is a high one.
        for (row, value) in [32.0, 32.0, 40.0, 10.0, 0.1, 0.9, std::f32::consts::FRAC_PI_2].into_iter().enumerate() {
            cells[(0, row, 5)] = value;
        }
        near(only(&head(2, true, false, [1.0; 2]), &[cells.clone().into_dyn()]), 1, 0.9, [27.0, 12.0, 37.0, 52.0]);
        cells[(0, 5, 5)] = 7.5;
        let error = head(2, true, false, [1.0; 2]).decode(&[cells.into_dyn()], 0, &PostprocessOptions::default());
        assert!(matches!(error, Err(HeadError::Score(7.5))));
    }

    #[test]
    fn objectness_multiplies() {
        let mut rows = Array3::zeros((2, 21, 7));
        for (column, value) in [24.0, 24.0, 32.0, 32.0, 0.9, 0.2, 0.8].into_iter().enumerate() {
            rows[(1, 20, column)] = value;
        }
        let head = Yolov5 { classes: 2, unit: [1.0; 2], preprocessing: Preprocessing::default() };
        let outputs = [rows.clone().into_dyn()];
        let options = PostprocessOptions { nms: Nms::Greedy, ..Default::default() };
        assert_eq!(head.decode(&outputs, 0, &options).unwrap(), [], "of the other image");
        near(head.decode(&outputs, 1, &options).unwrap()[0], 1, 0.72, [8.0, 8.0, 40.0, 40.0]);
        // The last cell of a 32x32 input: stride 32, column and row 0. Sizes are logarithms.
        let raw = [0.5, 0.25, 0.0, (0.5f32).ln(), 1.0, 0.2, 0.8];
        raw.into_iter().enumerate().for_each(|(column, value)| rows[(1, 20, column)] = value);
        let found = Yolox { classes: 2, width: 32, height: 32 }.decode(&[rows.into_dyn()], 1, &options).unwrap();
        near(found[0], 1, 0.8, [0.0, 0.0, 32.0, 16.0]);
    }

    #[test]
    fn networks_that_suppress_themselves_are_left_alone() {
        let mut rows = Array3::zeros((1, 3, 6));
        for (row, values) in [[8.0, 8.0, 40.0, 40.0, 0.8, 1.0], [8.0, 8.0, 40.0, 41.0, 0.9, 1.0]].iter().enumerate() {
            values.iter().enumerate().for_each(|(column, value)| rows[(0, row, column)] = *value);
        }
        let head = EndToEnd { classes: 2, oriented: false, unit: [1.0; 2] };
        let found = head.decode(&[rows.clone().into_dyn()], 0, &PostprocessOptions::default()).unwrap();
        assert_eq!(found.iter().map(|found| found.confidence).collect::<Vec<_>>(), [0.9, 0.8], "no votes either");
        rows[(0, 0, 5)] = 2.0;
        let error = head.decode(&[rows.into_dyn()], 0, &PostprocessOptions::default()).unwrap_err();
        assert_eq!(error.to_string(), "class 2 was found, but 2 are known: name them all with --names");
        let mut rows = Array3::zeros((1, 300, 6));
        let values = [0.375, 0.375, 0.5, 0.5, 0.1, 0.9];
        values.into_iter().enumerate().for_each(|(column, value)| rows[(0, 7, column)] = value);
        let head = RtDetr { classes: 2, width: 64, height: 64 };
        near(only(&head, &[rows.into_dyn()]), 1, 0.9, [8.0, 8.0, 40.0, 40.0]);
    }

    /// Logits whose expectation is exactly `bin`.
    fn sides(bins: [usize; 4]) -> Vec<f32> {
        let mut logits = vec![0.0; 32];
        bins.iter().enumerate().for_each(|(side, bin)| logits[side * 8 + bin] = 100.0);
        logits
    }

    #[test]
    fn distances_are_expectations_of_bins() {
        // A 64x64 input has 1 cell of stride 64, after 64 + 16 + 4; its corner is (0, 0).
        let mut rows = Array3::zeros((1, 85, 34));
        let values = [vec![0.1, 0.9], sides([0, 0, 1, 1])].concat();
        values.into_iter().enumerate().for_each(|(column, value)| rows[(0, 84, column)] = value);
        let plus = NanoDet {
            classes: 2,
            strides: vec![8, 16, 32, 64],
            origin: Origin::Corner,
            outputs: Outputs::Together,
            width: 64,
            height: 64,
        };
        near(only(&plus, &[rows.into_dyn()]), 1, 0.9, [0.0, 0.0, 64.0, 64.0]);
        let map = |cells: usize, columns: usize| Array3::<f32>::zeros((1, cells, columns)).into_dyn();
        let mut outputs = [map(4, 2), map(1, 2), map(4, 32), map(1, 32)];
        outputs[1][[0, 0, 1]] = 0.9;
        sides([1, 1, 1, 2]).into_iter().enumerate().for_each(|(bin, value)| outputs[3][[0, 0, bin]] = value);
        let of_strides = |origin| NanoDet {
            classes: 2,
            strides: vec![32, 64],
            origin,
            outputs: Outputs::Apart(vec![(0, 2), (1, 3)]),
            width: 64,
            height: 64,
        };
        near(only(&of_strides(Origin::Centre), &outputs), 1, 0.9, [-32.0, -32.0, 96.0, 160.0]);
        near(only(&of_strides(Origin::CentreOfPixels), &outputs), 1, 0.9, [-32.5, -32.5, 95.5, 159.5]);
    }

    #[test]
    fn fastestdet_has_a_map_with_objectness_first() {
        let mut map = ndarray::Array4::zeros((1, 7, 2, 2));
        // tanh(0) = 0: the cell's corner; sigmoid(0) = half of the image.
        map[(0, 0, 1, 1)] = 1.0;
        map[(0, 6, 1, 1)] = 0.5;
        let head = FastestDet { classes: 2, width: 64, height: 32 };
        near(only(&head, &[map.into_dyn()]), 1, 0.5f32.powf(0.4), [16.0, 8.0, 48.0, 24.0]);
    }

    #[test]
    fn outputs_of_another_shape_are_named() {
        let error = Yolox { classes: 2, width: 64, height: 64 }
            .decode(&[Array3::zeros((1, 84, 5)).into_dyn()], 0, &PostprocessOptions::default())
            .unwrap_err();
        assert!(error.to_string().starts_with("output 0 has the shape [1, 84, 5], expected"), "{error}");
        let rows = Array3::from_elem((1, 84, 7), f32::NAN).into_dyn();
        let head = Yolov5 { classes: 2, unit: [1.0; 2], preprocessing: Preprocessing::default() };
        assert_eq!(head.decode(&[rows], 0, &PostprocessOptions::default()).unwrap(), [], "NaN is no object");
    }
}
