//! From raw logits to detections: distribution focal decoding, score threshold, non-maximum suppression.

use ndarray::ArrayView3;

use crate::geometry::BBox;
use crate::model::config::{CONFIDENCE, HeadConfig};

/// An object that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// Index into the model's class names.
    pub class: usize,
    /// Probability in 0..1.
    pub confidence: f32,
    /// Where; in image pixels once it leaves the detector.
    pub bbox: BBox,
}

/// What counts as a detection.
#[derive(Clone, Debug, PartialEq)]
pub struct PostprocessOptions {
    /// Least confidence, 0..1.
    pub confidence: f32,
    /// Of two boxes that overlap more than this, the less confident goes; 0..1.
    pub iou: f32,
    /// Most detections in an image.
    pub max_detections: usize,
    /// Only these classes; `None` for all.
    pub classes: Option<Vec<usize>>,
    /// Boxes of different classes suppress each other too.
    pub agnostic: bool,
    /// A cell may report several classes: the custom when average precision is measured, confusing for people.
    pub multi_label: bool,
    /// What suppressed boxes are good for.
    pub nms: Nms,
}

/// What becomes of the boxes that a more confident one suppresses; see [`suppress`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nms {
    /// They are thrown away.
    Greedy,
    /// They vote for it. Only our own networks' thresholds are made for that: for third-party ones it must be asked for besides.
    #[default]
    BoxVoting,
}

impl Nms {
    /// Both, by the names that people use.
    pub const ALL: [(&str, Self); 2] = [("greedy", Self::Greedy), ("box-voting", Self::BoxVoting)];

    /// The name.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].0
    }
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
            nms: Nms::default(),
        }
    }
}

impl PostprocessOptions {
    /// Least confidence of a suppressed box that votes; above 1 where none does.
    pub fn least_voter(&self) -> f32 {
        if self.nms == Nms::BoxVoting { LEAST_VOTER } else { 2.0 }
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
    let mut found = Vec::new();
    decode_into(&mut found, scales, head, options);
    found
}

/// Cells that are looked at together: few cells of an image have an object.
const CELLS: usize = 64;

fn decode_into<'a>(
    found: &mut Vec<Detection>,
    scales: impl Iterator<Item = (usize, ArrayView3<'a, f32>, ArrayView3<'a, f32>)>,
    head: HeadConfig,
    options: &PostprocessOptions,
) {
    let (least, least_logit) = (options.least_candidate(), least_logit(options.least_candidate()));
    let passes = |logit: f32| logit >= least_logit && logit > f32::NEG_INFINITY && sigmoid(logit) >= least;
    for (stride, class_logits, box_logits) in scales {
        let (classes, height, width) = class_logits.dim();
        let logits = class_logits.as_standard_layout();
        let Some(logits) = logits.as_slice() else { unreachable!("it is in standard layout") };
        let planes = || {
            let wanted = |class: &usize| options.classes.as_ref().is_none_or(|only| only.contains(class));
            (0..classes).filter(wanted).map(|class| (class, &logits[class * height * width..][..height * width]))
        };
        let box_of = |cell: usize| decode_box(&box_logits, cell / width, cell % width, stride, head);
        let mut add = |class: usize, logit: f32, bbox: BBox| {
            found.push(Detection { class, confidence: sigmoid(logit), bbox });
        };
        if options.multi_label {
            // A cell that reports several classes has one box.
            let mut boxes: Vec<Option<BBox>> = vec![None; height * width];
            for (class, plane) in planes() {
                for (cell, &logit) in plane.iter().enumerate().filter(|(_, logit)| passes(**logit)) {
                    add(class, logit, *boxes[cell].get_or_insert_with(|| box_of(cell)));
                }
            }
            continue;
        }
        for first in (0..height * width).step_by(CELLS) {
            let cells = first..(first + CELLS).min(height * width);
            let mut peaks = [f32::NEG_INFINITY; CELLS];
            for (_, plane) in planes() {
                for (peak, &logit) in peaks.iter_mut().zip(&plane[cells.clone()]) {
                    *peak = if logit > *peak { logit } else { *peak };
                }
            }
            for (cell, &peak) in cells.zip(&peaks).filter(|(_, peak)| passes(**peak)) {
                if let Some((class, _)) = planes().find(|(_, plane)| plane[cell] == peak) {
                    add(class, peak, box_of(cell));
                }
            }
        }
    }
}

/// A little less than the logit whose sigmoid is `confidence`: what is below has no need of an exponential.
fn least_logit(confidence: f32) -> f32 {
    let share = f64::from(confidence).min(1.0 - 1e-7);
    ((share / (1.0 - share)).ln() - 1e-3) as f32
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
/// By [`Nms::BoxVoting`] those of the same class that go vote for the box that stays, from a confidence of 0.1. Of confidence `s` it
/// has `s * (1 - product over it and its voters of (1 - confidence))` then (noisy-or): its own times the chance that any of them is right, so that
/// what nothing confirms has `s * s`. Its corners are the mean of theirs, by the square of confidence times the fourth power of the IoU
/// with it (after box voting, Gidaris and Komodakis 2015).
pub fn suppress(detections: Vec<Detection>, options: &PostprocessOptions) -> Vec<Detection> {
    Postprocessor { found: detections, ..Postprocessor::default() }.suppress(options)
}

/// [`decode`] and [`suppress`] with buffers that are kept from image to image: only the result is allocated.
#[derive(Default)]
pub struct Postprocessor {
    found: Vec<Detection>,
    /// Places in `found` by falling confidence.
    order: Vec<usize>,
    kept: Vec<Cluster>,
}

impl Postprocessor {
    /// The detections in the logits of every scale, in network pixels.
    pub fn apply<'a>(
        &mut self,
        scales: impl Iterator<Item = (usize, ArrayView3<'a, f32>, ArrayView3<'a, f32>)>,
        head: HeadConfig,
        options: &PostprocessOptions,
    ) -> Vec<Detection> {
        self.found.clear();
        decode_into(&mut self.found, scales, head, options);
        self.suppress(options)
    }

    fn suppress(&mut self, options: &PostprocessOptions) -> Vec<Detection> {
        let Self { found, order, kept } = self;
        order.clear();
        order.extend(0..found.len());
        order.sort_unstable_by(|&a, &b| found[b].confidence.total_cmp(&found[a].confidence).then(a.cmp(&b)));
        kept.clear();
        for detection in order.iter().map(|&place| found[place]) {
            let votes = detection.confidence >= options.least_voter();
            let is_full = kept.len() == options.max_detections;
            if is_full && !votes {
                break;
            }
            let suppresses = |other: &&mut Cluster| {
                let rival = options.agnostic || other.first.class == detection.class;
                rival && other.first.bbox.iou(&detection.bbox) > options.iou
            };
            match kept.iter_mut().find(suppresses) {
                Some(cluster) if votes && cluster.first.class == detection.class => cluster.add(&detection),
                None if !is_full => kept.push(Cluster::new(detection)),
                _ => {}
            }
        }
        let result = |cluster: &Cluster| if options.nms == Nms::BoxVoting { cluster.result() } else { cluster.first };
        ranked(kept.iter().map(result).collect(), options.confidence)
    }
}

/// A box that stays, and the votes for it.
struct Cluster {
    first: Detection,
    /// The chance that it and its voters are all wrong: what noisy-or leaves of 1.
    all_wrong: f32,
    /// Of it and its voters, the sum of weights.
    weight: f32,
    /// ... and of weighted corners.
    corners: [f32; 4],
}

impl Cluster {
    fn new(first: Detection) -> Self {
        let mut cluster = Self { first, all_wrong: 1.0, weight: 0.0, corners: [0.0; 4] };
        cluster.add(&first);
        cluster
    }

    fn add(&mut self, voter: &Detection) {
        let weight = voter.confidence.powi(2) * self.first.bbox.iou(&voter.bbox).powi(4);
        let BBox { x1, y1, x2, y2 } = voter.bbox;
        for (sum, corner) in self.corners.iter_mut().zip([x1, y1, x2, y2]) {
            *sum += weight * corner;
        }
        self.weight += weight;
        self.all_wrong *= 1.0 - voter.confidence;
    }

    fn result(&self) -> Detection {
        let confidence = self.first.confidence * (1.0 - self.all_wrong);
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
    use arbtest::arbtest;
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

    /// Against the definition, exponential by exponential.
    #[test]
    fn decoding_is_what_it_is_defined_to_be() {
        arbtest(|u| {
            let (classes, height, width) = (u.int_in_range(1..=5)?, u.int_in_range(1..=9)?, u.int_in_range(1..=20)?);
            let logits = [f32::NEG_INFINITY, f32::NAN, -200.0, -2.2, -0.2, 0.0, 0.04, 0.2, 3.0, 16.6, 17.0, 200.0];
            let mut random = || -> arbtest::arbitrary::Result<f32> { Ok(*u.choose(&logits)?) };
            let values = (0..classes * height * width).map(|_| random()).collect::<Result<Vec<_>, _>>()?;
            let class = Array3::from_shape_vec((classes, height, width), values).unwrap();
            let boxes = Array3::zeros((12, height, width));
            let options = PostprocessOptions {
                confidence: *u.choose(&[0.0, 0.01, 0.5, 0.51, 0.9, 1.0])?,
                classes: if u.arbitrary()? { Some(vec![0, 3]) } else { None },
                nms: *u.choose(&[Nms::Greedy, Nms::BoxVoting])?,
                ..PostprocessOptions::default()
            };
            let mut expected = Vec::new();
            for cell in 0..height * width {
                let mut best = (f32::NEG_INFINITY, 0);
                for label in (0..classes).filter(|label| options.classes.is_none() || [0, 3].contains(label)) {
                    let logit = class[(label, cell / width, cell % width)];
                    best = if logit > best.0 { (logit, label) } else { best };
                }
                if best.0 > f32::NEG_INFINITY && sigmoid(best.0) >= options.least_candidate() {
                    expected.push((best.1, sigmoid(best.0), (cell % width) as f32 * 8.0 + 4.0));
                }
            }
            let found = decode([(8, class.view(), boxes.view())].into_iter(), HEAD, &options);
            let centre = |bbox: BBox| (bbox.x1 + bbox.x2) / 2.0;
            let found: Vec<_> = found.iter().map(|one| (one.class, one.confidence, centre(one.bbox))).collect();
            assert_eq!(found, expected);
            Ok(())
        });
    }

    #[test]
    fn suppression_is_per_class_unless_agnostic() {
        let all = vec![detection(0, 0.5, 0.0), detection(0, 0.9, 1.0), detection(1, 0.6, 0.0), detection(0, 0.4, 30.0)];
        let confidences = |options: &PostprocessOptions| -> Vec<f32> {
            suppress(all.clone(), options).iter().map(|detection| detection.confidence).collect()
        };
        let options = PostprocessOptions { nms: Nms::Greedy, ..Default::default() };
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
