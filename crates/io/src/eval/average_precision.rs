//! Average precision as PASCAL VOC and COCO define it.
//!
//! * VOC (Everingham et al. 2010): a detection goes to the object it overlaps most; from IoU 0.5 it is right if
//!   nobody claimed the object before; difficult objects count neither way. The area under the precision envelope
//!   (all-point), or its mean at 11 recalls (VOC 2007).
//! * COCO (Lin et al. 2014, as pycocotools computes it): ten IoU thresholds, 101 recalls, at most 100 detections a
//!   image, area ranges. Crowds may be found any number of times; difficult objects are ignored as VOC does.

use crate::dataset::Object;
use yolo_lat_core::postprocess::Detection;

/// Precision and recall of one class over falling confidence, at IoU 0.5.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// Share of the objects found so far, rising.
    pub recall: Vec<f64>,
    /// Share of the detections so far that are right.
    pub precision: Vec<f64>,
}

/// Figures of one class, as shares of 1.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassResult {
    /// Index into the data set's classes.
    pub class: usize,
    /// Objects that count.
    pub objects: usize,
    /// VOC, all points.
    pub ap50: f64,
    /// VOC 2007, 11 points.
    pub ap50_voc07: f64,
    /// COCO, IoU 0.5 to 0.95.
    pub ap50_95: f64,
    /// At IoU 0.5.
    pub curve: Curve,
}

/// COCO's figures, as shares of 1; `None` where no object lies in the area range.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CocoSummary {
    /// Mean over IoU 0.5, 0.55 ... 0.95.
    pub ap: Option<f64>,
    /// IoU 0.5.
    pub ap50: Option<f64>,
    /// IoU 0.75.
    pub ap75: Option<f64>,
    /// Area below 32 x 32 pixels.
    pub ap_small: Option<f64>,
    /// Area from 32 x 32 to 96 x 96.
    pub ap_medium: Option<f64>,
    /// Area above 96 x 96.
    pub ap_large: Option<f64>,
    /// Mean recall at 100 detections an image.
    pub ar100: Option<f64>,
}

/// Everything that is measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// Classes that have objects, in the data set's order.
    pub per_class: Vec<ClassResult>,
    /// Mean of [`ClassResult::ap50`].
    pub map50: f64,
    /// Mean of [`ClassResult::ap50_voc07`].
    pub map50_voc07: f64,
    /// COCO's figures.
    pub coco: CocoSummary,
}

const THRESHOLDS: usize = 10;
const RECALLS: usize = 101;
const COCO_DETECTIONS: usize = 100;
/// Area ranges in square pixels: all, small, medium, large.
const AREAS: [(f64, f64); 4] = [(0.0, 1e10), (0.0, 1024.0), (1024.0, 9216.0), (9216.0, 1e10)];

fn threshold(index: usize) -> f64 {
    // In floating point as numpy.linspace computes it: an IoU may equal a threshold exactly.
    index as f64 * ((0.95 - 0.5) / 9.0) + 0.5
}

/// Measures `detections` against `objects`; both have one list an image, classes of both mean the same.
pub fn evaluate(classes: usize, objects: &[Vec<Object>], detections: &[Vec<Detection>]) -> Evaluation {
    let mut per_class = Vec::new();
    let mut coco: Vec<CocoClass> = Vec::new();
    for class in 0..classes {
        let images: Vec<Image> = objects.iter().zip(detections).map(|(o, d)| Image::of_class(class, o, d)).collect();
        let (mut verdicts, counts) = voc_verdicts(&images);
        verdicts.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
        let count = counts.iter().sum();
        let curve = curve(verdicts.iter().map(|verdict| verdict.is_right), count);
        let coco_class = CocoClass::measure(&images);
        if count > 0 {
            per_class.push(ClassResult {
                class,
                objects: count,
                ap50: all_point(&curve),
                ap50_voc07: eleven_point(&curve),
                ap50_95: coco_class.ap(0, 0..THRESHOLDS).unwrap_or(0.0),
                curve,
            });
        }
        coco.push(coco_class);
    }
    let mean_of = |value: fn(&ClassResult) -> f64| mean(per_class.iter().map(value)).unwrap_or(0.0);
    let (map50, map50_voc07) = (mean_of(|class| class.ap50), mean_of(|class| class.ap50_voc07));
    let ap = |area: usize, thresholds: std::ops::Range<usize>| {
        mean(coco.iter().filter_map(|class| class.ap(area, thresholds.clone())))
    };
    let coco = CocoSummary {
        ap: ap(0, 0..THRESHOLDS),
        ap50: ap(0, 0..1),
        ap75: ap(0, 5..6),
        ap_small: ap(1, 0..THRESHOLDS),
        ap_medium: ap(2, 0..THRESHOLDS),
        ap_large: ap(3, 0..THRESHOLDS),
        ar100: mean(coco.iter().filter_map(CocoClass::recall)),
    };
    Evaluation { per_class, map50, map50_voc07, coco }
}

/// [`Evaluation::map50`] as it would be without each of the images: what one of them is worth, for a jackknife (Quenouille 1956).
pub fn map50_without_each(classes: usize, objects: &[Vec<Object>], detections: &[Vec<Detection>]) -> Vec<f64> {
    let mut sums = vec![(0.0, 0usize); objects.len()];
    for class in 0..classes {
        let images: Vec<Image> = objects.iter().zip(detections).map(|(o, d)| Image::of_class(class, o, d)).collect();
        let (mut verdicts, counts) = voc_verdicts(&images);
        verdicts.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
        let count: usize = counts.iter().sum();
        let ap = |left_out: Option<usize>, count: usize| {
            let kept = verdicts.iter().filter(|verdict| Some(verdict.image) != left_out);
            all_point(&curve(kept.map(|verdict| verdict.is_right), count))
        };
        let whole = ap(None, count);
        let mut seen = vec![false; images.len()];
        verdicts.iter().for_each(|verdict| seen[verdict.image] = true);
        for (image, (sum, measured)) in sums.iter_mut().enumerate() {
            let count = count - counts[image];
            if count > 0 {
                *sum += if seen[image] || counts[image] > 0 { ap(Some(image), count) } else { whole };
                *measured += 1;
            }
        }
    }
    sums.into_iter().map(|(sum, measured)| sum / measured.max(1) as f64).collect()
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}

/// Objects and detections of one class in one image; detections by falling confidence.
struct Image<'a> {
    objects: Vec<&'a Object>,
    detections: Vec<&'a Detection>,
    /// IoU of each detection (row) with each object.
    overlaps: Vec<Vec<f64>>,
}

impl<'a> Image<'a> {
    fn of_class(class: usize, objects: &'a [Object], detections: &'a [Detection]) -> Self {
        let objects: Vec<&Object> = objects.iter().filter(|object| object.class == class).collect();
        let mut detections: Vec<&Detection> = detections.iter().filter(|detection| detection.class == class).collect();
        detections.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
        let row = |detection: &&Detection| objects.iter().map(|object| overlap(detection, object)).collect();
        let overlaps = detections.iter().map(row).collect();
        Self { objects, detections, overlaps }
    }
}

/// IoU; with a crowd the share of the detection that lies in it.
fn overlap(detection: &Detection, object: &Object) -> f64 {
    let [ax, ay, aw, ah] = detection.bbox.xywh().map(f64::from);
    let [bx, by, bw, bh] = object.bbox.xywh().map(f64::from);
    let width = ((ax + aw).min(bx + bw) - ax.max(bx)).max(0.0);
    let height = ((ay + ah).min(by + bh) - ay.max(by)).max(0.0);
    let intersection = width * height;
    let union = if object.crowd { aw * ah } else { aw * ah + bw * bh - intersection };
    if union > 0.0 { intersection / union } else { 0.0 }
}

/// Whether a detection found an object.
struct Verdict {
    confidence: f32,
    is_right: bool,
    image: usize,
}

/// What VOC says of each detection at IoU 0.5, and the number of objects that count in each image.
fn voc_verdicts(images: &[Image]) -> (Vec<Verdict>, Vec<usize>) {
    let (mut verdicts, mut counts) = (Vec::new(), Vec::new());
    for (index, image) in images.iter().enumerate() {
        let ignored = |object: &Object| object.difficult || object.crowd;
        counts.push(image.objects.iter().filter(|object| !ignored(object)).count());
        let mut claimed = vec![false; image.objects.len()];
        for (detection, overlaps) in image.detections.iter().zip(&image.overlaps) {
            let best = overlaps.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            let is_right = match best.filter(|(_, overlap)| **overlap >= 0.5) {
                Some((object, _)) if ignored(image.objects[object]) => continue,
                Some((object, _)) => !std::mem::replace(&mut claimed[object], true),
                None => false,
            };
            verdicts.push(Verdict { confidence: detection.confidence, is_right, image: index });
        }
    }
    (verdicts, counts)
}

/// Precision and recall after each detection; they come most confident first.
fn curve(verdicts: impl Iterator<Item = bool>, objects: usize) -> Curve {
    let mut right = 0;
    let mut curve = Curve::default();
    for (index, is_right) in verdicts.enumerate() {
        right += usize::from(is_right);
        curve.recall.push(if objects > 0 { right as f64 / objects as f64 } else { 0.0 });
        curve.precision.push(right as f64 / (index + 1) as f64);
    }
    curve
}

/// The best precision at this recall or a higher one.
fn envelope(curve: &Curve) -> Vec<f64> {
    let mut envelope = curve.precision.clone();
    for index in (1..envelope.len()).rev() {
        envelope[index - 1] = f64::max(envelope[index - 1], envelope[index]);
    }
    envelope
}

fn all_point(curve: &Curve) -> f64 {
    let mut last = 0.0;
    let mut area = 0.0;
    for (recall, precision) in curve.recall.iter().zip(envelope(curve)) {
        area += (recall - last) * precision;
        last = *recall;
    }
    area
}

fn eleven_point(curve: &Curve) -> f64 {
    let envelope = envelope(curve);
    let precision_at =
        |recall: f64| envelope.get(curve.recall.partition_point(|&r| r < recall)).copied().unwrap_or(0.0);
    (0..=10).map(|tenth| precision_at(f64::from(tenth) / 10.0)).sum::<f64>() / 11.0
}

/// COCO's figures of one class for every area range and threshold.
struct CocoClass {
    /// `[area][threshold]`: average precision and highest recall, `None` without objects.
    cells: [[Option<(f64, f64)>; THRESHOLDS]; 4],
}

impl CocoClass {
    fn measure(images: &[Image]) -> Self {
        let cell = |area: (f64, f64), iou: f64| {
            let mut verdicts = Vec::new();
            let objects: usize = images.iter().map(|image| coco_match(image, area, iou, &mut verdicts)).sum();
            verdicts.sort_by(|a: &(f32, bool), b| b.0.total_cmp(&a.0));
            (objects > 0).then(|| coco_ap(curve(verdicts.into_iter().map(|(_, is_right)| is_right), objects)))
        };
        Self { cells: AREAS.map(|area| std::array::from_fn(|index| cell(area, threshold(index)))) }
    }

    fn ap(&self, area: usize, thresholds: std::ops::Range<usize>) -> Option<f64> {
        mean(self.cells[area][thresholds].iter().flatten().map(|(ap, _)| *ap))
    }

    fn recall(&self) -> Option<f64> {
        mean(self.cells[0].iter().flatten().map(|(_, recall)| *recall))
    }
}

/// Matches one image and appends what each detection is; gives the number of objects that count.
fn coco_match(image: &Image, (least, most): (f64, f64), iou: f64, verdicts: &mut Vec<(f32, bool)>) -> usize {
    let outside = |area: f64| area < least || area > most;
    let ignored: Vec<bool> = image
        .objects
        .iter()
        .map(|object| object.crowd || object.difficult || outside(f64::from(object.area)))
        .collect();
    // Objects that count come first: a detection prefers them.
    let mut order: Vec<usize> = (0..image.objects.len()).collect();
    order.sort_by_key(|&object| ignored[object]);
    let mut taken = vec![false; image.objects.len()];
    for (detection, overlaps) in image.detections.iter().zip(&image.overlaps).take(COCO_DETECTIONS) {
        let mut least_overlap = iou.min(1.0 - 1e-10);
        let mut found: Option<usize> = None;
        for &object in &order {
            if taken[object] && !image.objects[object].crowd {
                continue;
            }
            if found.is_some_and(|found| !ignored[found]) && ignored[object] {
                break;
            }
            if overlaps[object] >= least_overlap {
                least_overlap = overlaps[object];
                found = Some(object);
            }
        }
        match found {
            Some(object) => {
                taken[object] = true;
                if !ignored[object] {
                    verdicts.push((detection.confidence, true));
                }
            }
            None if outside(f64::from(detection.bbox.width()) * f64::from(detection.bbox.height())) => {}
            None => verdicts.push((detection.confidence, false)),
        }
    }
    ignored.iter().filter(|&&ignored| !ignored).count()
}

/// Mean of the envelope at 101 recalls, and the highest recall.
fn coco_ap(curve: Curve) -> (f64, f64) {
    let envelope = envelope(&curve);
    let precision_at = |index: usize| {
        // As numpy.linspace computes it, since recalls are fractions too: 35 * 0.01 is not 0.35.
        let recall = index as f64 * (1.0 / (RECALLS - 1) as f64);
        envelope.get(curve.recall.partition_point(|&r| r < recall)).copied().unwrap_or(0.0)
    };
    let ap = (0..RECALLS).map(precision_at).sum::<f64>() / RECALLS as f64;
    (ap, curve.recall.last().copied().unwrap_or(0.0))
}
