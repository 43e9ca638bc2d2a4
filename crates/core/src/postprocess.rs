//! From raw logits to detections: distribution focal decoding, score threshold, non-maximum suppression.

use ndarray::{ArrayView3, Axis};

use crate::geometry::BBox;
use crate::model::config::{CONFIDENCE, HeadConfig};

/// An object that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// Index into the model's class names.
    pub class: usize,
    /// Probability in 0..1.
    pub confidence: f32,
    /// Where; in picture pixels once it leaves the detector.
    pub bbox: BBox,
}

/// What counts as a detection.
#[derive(Clone, Debug, PartialEq)]
pub struct PostprocessOptions {
    /// Least confidence, 0..1.
    pub confidence: f32,
    /// Of two boxes that overlap more than this, the less confident goes; 0..1.
    pub iou: f32,
    /// Most detections in a picture.
    pub max_detections: usize,
    /// Only these classes; `None` for all.
    pub classes: Option<Vec<usize>>,
    /// Boxes of different classes suppress each other too.
    pub agnostic: bool,
    /// A cell may report several classes: the custom when average precision is measured, confusing for people.
    pub multi_label: bool,
    /// Boxes vote for the more confident one that suppresses them; otherwise they are thrown away. See [`suppress`]. Only our
    /// own networks' thresholds are made for it: for other people's it must be asked for besides.
    pub merge: bool,
}

/// Least confidence of a box that votes.
const LEAST_VOTER: f32 = 0.1;

impl Default for PostprocessOptions {
    fn default() -> Self {
        Self {
            confidence: CONFIDENCE,
            iou: 0.45,
            max_detections: 300,
            classes: None,
            agnostic: false,
            multi_label: false,
            merge: true,
        }
    }
}

impl PostprocessOptions {
    /// Least confidence of a suppressed box that votes; above 1 where none does.
    pub fn least_voter(&self) -> f32 {
        if self.merge { LEAST_VOTER } else { 2.0 }
    }

    /// Least confidence of a box before suppression: it may vote, even if it is not confident enough itself.
    pub fn least_candidate(&self) -> f32 {
        self.confidence.min(self.least_voter())
    }
}

/// What comes out of suppression in any order, without what has less than `least` after the votes, by falling confidence.
pub fn ranked(mut detections: Vec<Detection>, least: f32) -> Vec<Detection> {
    detections.retain(|detection| detection.confidence >= least);
    detections.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    detections
}

/// Reads the boxes off the logits of every scale. `scales` gives stride, class logits (classes, rows, columns) and
/// box logits (4 * bins, rows, columns), finest first. Boxes are in network pixels, not yet suppressed, and have at least
/// [`PostprocessOptions::least_candidate`].
///
/// Score: sigmoid of the class logit. A side's distance from the cell's centre `((i + 0.5) * stride)` is the
/// expectation of its bins, `sum softmax(logits)_b * b * max_distance / (bins - 1) * stride` (Li et al. 2020).
pub fn decode<'a>(
    scales: impl Iterator<Item = (usize, ArrayView3<'a, f32>, ArrayView3<'a, f32>)>,
    head: HeadConfig,
    options: &PostprocessOptions,
) -> Vec<Detection> {
    let least = options.least_candidate();
    let mut detections = Vec::new();
    for (stride, class_logits, box_logits) in scales {
        let (classes, height, width) = class_logits.dim();
        let mut best = vec![(f32::NEG_INFINITY, 0); height * width];
        let box_of = |cell: usize| decode_box(&box_logits, cell / width, cell % width, stride, head);
        // A cell that reports several classes has one box.
        let mut boxes: Vec<Option<BBox>> = vec![None; if options.multi_label { height * width } else { 0 }];
        // Class by class, so that memory is read in order.
        for class in (0..classes).filter(|class| options.classes.as_ref().is_none_or(|only| only.contains(class))) {
            let plane = class_logits.index_axis(Axis(0), class);
            for (cell, (&logit, best)) in plane.iter().zip(&mut best).enumerate() {
                if !options.multi_label {
                    if logit > best.0 {
                        *best = (logit, class);
                    }
                } else if sigmoid(logit) >= least {
                    let bbox = *boxes[cell].get_or_insert_with(|| box_of(cell));
                    detections.push(Detection { class, confidence: sigmoid(logit), bbox });
                }
            }
        }
        if !options.multi_label {
            for (cell, &(logit, class)) in best.iter().enumerate() {
                if sigmoid(logit) >= least && logit > f32::NEG_INFINITY {
                    detections.push(Detection { class, confidence: sigmoid(logit), bbox: box_of(cell) });
                }
            }
        }
    }
    detections
}

fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

/// The box of one cell, in network pixels, from box logits (4 * bins, rows, columns): see [`decode`].
pub fn decode_box(logits: &ArrayView3<f32>, row: usize, column: usize, stride: usize, head: HeadConfig) -> BBox {
    let stride = stride as f32;
    let step = head.max_distance / (head.bins - 1) as f32 * stride;
    let distance = |side: usize| {
        let logit = |bin: usize| logits[(side * head.bins + bin, row, column)];
        let peak = (0..head.bins).map(logit).fold(f32::NEG_INFINITY, f32::max);
        let (mut sum, mut mean) = (0.0, 0.0);
        for bin in 0..head.bins {
            let weight = (logit(bin) - peak).exp();
            sum += weight;
            mean += weight * bin as f32;
        }
        mean / sum * step
    };
    let (x, y) = ((column as f32 + 0.5) * stride, (row as f32 + 0.5) * stride);
    BBox { x1: x - distance(0), y1: y - distance(1), x2: x + distance(2), y2: y + distance(3) }
}

/// Greedy non-maximum suppression, class by class unless `options.agnostic`: the most confident box stays, those that overlap it go,
/// and again. Result by falling confidence, at most `options.max_detections`; equal confidences keep the order of `detections`.
///
/// With `options.merge` those of the same class that go vote for the box that stays, from a confidence of 0.1. Of confidence `s` it
/// has `s * (1 - product over it and its voters of (1 - confidence))` then: its own times the chance that any of them is right, so that
/// what nothing confirms has `s * s`. Its corners are the mean of theirs, by the square of confidence times the fourth power of the IoU
/// with it (after box voting, Gidaris and Komodakis 2015).
pub fn suppress(mut detections: Vec<Detection>, options: &PostprocessOptions) -> Vec<Detection> {
    detections.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    let mut kept: Vec<Elected> = Vec::new();
    for detection in detections {
        let votes = detection.confidence >= options.least_voter();
        let is_full = kept.len() == options.max_detections;
        if is_full && !votes {
            break;
        }
        let suppresses = |other: &&mut Elected| {
            let rival = options.agnostic || other.first.class == detection.class;
            rival && other.first.bbox.iou(&detection.bbox) > options.iou
        };
        match kept.iter_mut().find(suppresses) {
            Some(winner) if votes && winner.first.class == detection.class => winner.count(&detection),
            None if !is_full => kept.push(Elected::new(detection)),
            _ => {}
        }
    }
    let result = |elected: Elected| if options.merge { elected.result() } else { elected.first };
    ranked(kept.into_iter().map(result).collect(), options.confidence)
}

/// A box that stays, and the votes for it.
struct Elected {
    first: Detection,
    /// How probable it is that it and its voters are all wrong.
    doubt: f32,
    /// Of it and its voters, the sum of weights.
    weight: f32,
    /// ... and of weighted corners.
    corners: [f32; 4],
}

impl Elected {
    fn new(first: Detection) -> Self {
        let mut elected = Self { first, doubt: 1.0, weight: 0.0, corners: [0.0; 4] };
        elected.count(&first);
        elected
    }

    fn count(&mut self, voter: &Detection) {
        let weight = voter.confidence.powi(2) * self.first.bbox.iou(&voter.bbox).powi(4);
        let BBox { x1, y1, x2, y2 } = voter.bbox;
        for (sum, corner) in self.corners.iter_mut().zip([x1, y1, x2, y2]) {
            *sum += weight * corner;
        }
        self.weight += weight;
        self.doubt *= 1.0 - voter.confidence;
    }

    fn result(self) -> Detection {
        let confidence = self.first.confidence * (1.0 - self.doubt);
        // A box without area has no weight.
        if self.weight <= 0.0 {
            return Detection { confidence, ..self.first };
        }
        let [x1, y1, x2, y2] = self.corners.map(|corner| corner / self.weight);
        Detection { confidence, bbox: BBox { x1, y1, x2, y2 }, ..self.first }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;

    use super::*;

    const HEAD: HeadConfig = HeadConfig { bins: 3, max_distance: 4.0, shared: 0 };

    fn detection(class: usize, confidence: f32, x: f32) -> Detection {
        Detection { class, confidence, bbox: BBox::from_xywh([x, 0.0, 10.0, 10.0]) }
    }

    #[test]
    fn a_certain_bin_gives_its_distance() {
        let class = Array3::from_shape_vec((1, 1, 2), vec![-9.0, 2.0]).unwrap();
        let mut boxes = Array3::zeros((12, 1, 2));
        for (side, bin) in [0, 1, 2, 1].into_iter().enumerate() {
            boxes[(side * 3 + bin, 0, 1)] = 100.0;
        }
        let found = decode([(8, class.view(), boxes.view())].into_iter(), HEAD, &PostprocessOptions::default());
        // Centre (12, 4); distances 0, 2, 4, 2 strides.
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].bbox, BBox { x1: 12.0, y1: -12.0, x2: 44.0, y2: 20.0 });
        assert!((found[0].confidence - 0.880_797).abs() < 1e-5);
    }

    #[test]
    fn a_cell_reports_its_best_class_or_all() {
        let class = Array3::from_shape_vec((3, 1, 1), vec![1.0, 2.0, -5.0]).unwrap();
        let boxes = Array3::zeros((12, 1, 1));
        let found = |change: fn(&mut PostprocessOptions)| -> Vec<usize> {
            let mut options = PostprocessOptions::default();
            change(&mut options);
            let found = decode([(8, class.view(), boxes.view())].into_iter(), HEAD, &options);
            found.iter().map(|detection| detection.class).collect()
        };
        assert_eq!(found(|_| {}), [1]);
        assert_eq!(found(|options| options.multi_label = true), [0, 1]);
        assert_eq!(found(|options| options.classes = Some(vec![0, 2])), [0]);
    }

    #[test]
    fn suppression_is_per_class_unless_agnostic() {
        let all = vec![detection(0, 0.5, 0.0), detection(0, 0.9, 1.0), detection(1, 0.6, 0.0), detection(0, 0.4, 30.0)];
        let confidences = |options: &PostprocessOptions| -> Vec<f32> {
            suppress(all.clone(), options).iter().map(|detection| detection.confidence).collect()
        };
        let options = PostprocessOptions { merge: false, ..Default::default() };
        assert_eq!(confidences(&options), [0.9, 0.6, 0.4]);
        assert_eq!(confidences(&PostprocessOptions { agnostic: true, ..options.clone() }), [0.9, 0.4]);
        assert_eq!(confidences(&PostprocessOptions { max_detections: 1, ..options }), [0.9]);
    }

    #[test]
    fn what_is_suppressed_votes() {
        // The second box overlaps the first with 8 of 12 units; the third is of another class, the fourth below 0.1.
        let all =
            vec![detection(0, 0.6, 0.0), detection(0, 0.5, 2.0), detection(1, 0.55, 0.0), detection(0, 0.05, 1.0)];
        let options = PostprocessOptions::default();
        let found = suppress(all.clone(), &options);
        let [first, other] = found[..] else { panic!("{found:?}") };
        assert!((first.confidence - 0.6 * (1.0 - 0.4 * 0.5)).abs() < 1e-6);
        let weight = 0.25 * (2.0f32 / 3.0).powi(4);
        assert!((first.bbox.x1 - 2.0 * weight / (0.36 + weight)).abs() < 1e-6);
        assert!((first.bbox.y1, other.bbox.x1) == (0.0, 0.0) && (other.confidence - 0.55 * 0.55).abs() < 1e-6);
        // Boxes of another class go, and have no vote.
        let agnostic = suppress(all.clone(), &PostprocessOptions { agnostic: true, ..options.clone() });
        assert_eq!(agnostic, [first]);
        // The threshold is for what the votes make of a box; who may vote does not hang on it.
        let sure = |confidence: f32| PostprocessOptions { confidence, ..options.clone() };
        assert_eq!(suppress(all.clone(), &sure(0.47)), [first]);
        assert_eq!(suppress(all, &sure(0.49)), []);
    }

    #[test]
    fn a_confirmed_box_passes_a_surer_one() {
        let all = vec![detection(0, 0.6, 0.0), detection(0, 0.5, 30.0), detection(0, 0.5, 30.0)];
        let found = suppress(all, &PostprocessOptions::default());
        assert_eq!(found.iter().map(|detection| detection.bbox.x1).collect::<Vec<_>>(), [30.0, 0.0]);
        assert!((found[0].confidence - 0.5 * 0.75).abs() < 1e-6);
    }

    #[test]
    fn a_box_without_area_stays_where_it_is() {
        let bbox = BBox { x1: 3.0, y1: 4.0, x2: 3.0, y2: 9.0 };
        let found = suppress(vec![Detection { class: 0, confidence: 0.8, bbox }], &PostprocessOptions::default());
        assert_eq!(found.iter().map(|found| found.bbox).collect::<Vec<_>>(), [bbox]);
    }
}
