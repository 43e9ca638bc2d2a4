//! What a threshold on the confidence makes of detections: precision, recall, their harmonic mean, and second boxes.
//!
//! Average precision looks at all confidences; a person who looks at boxes sees one threshold. Matching is VOC's at IoU 0.5: within
//! a class, the surest first, each to the object that it overlaps most; difficult objects and crowds count neither way.

use super::Object;
use yolo_lat_core::postprocess::Detection;

/// A wrong box is a *second box* if it shares at least this part of the smaller of the two with an object of its class that was found.
const SAME_PLACE: f32 = 0.5;
/// Least IoU of a right box.
const RIGHT: f32 = 0.5;

/// Detections above a threshold, all classes together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OperatingPoint {
    /// Least confidence.
    pub threshold: f32,
    /// Detections that found an object.
    pub right: usize,
    /// Detections that did not, second boxes among them.
    pub wrong: usize,
    /// Those of them that lie on an object that another one found.
    pub second: usize,
    /// Objects that count.
    pub objects: usize,
    /// Images.
    pub images: usize,
}

impl OperatingPoint {
    /// Share of the detections that are right; 1 where there are none.
    pub fn precision(&self) -> f64 {
        let all = self.right + self.wrong;
        if all > 0 { self.right as f64 / all as f64 } else { 1.0 }
    }

    /// Share of the objects that were found; 0 where there are none.
    pub fn recall(&self) -> f64 {
        self.right as f64 / self.objects.max(1) as f64
    }

    /// Harmonic mean of precision and recall.
    pub fn f1(&self) -> f64 {
        2.0 * self.right as f64 / (self.right + self.wrong + self.objects).max(1) as f64
    }

    /// Second boxes an image.
    pub fn second_boxes(&self) -> f64 {
        self.second as f64 / self.images.max(1) as f64
    }

    /// Boxes an image.
    pub fn boxes(&self) -> f64 {
        (self.right + self.wrong) as f64 / self.images.max(1) as f64
    }
}

/// The operating point of each of `thresholds`; `objects` and `detections` have one list an image, in the same classes.
/// Detections must have been suppressed already: what a threshold removes suppresses nothing surer.
pub fn operating_points(
    objects: &[Vec<Object>],
    detections: &[Vec<Detection>],
    thresholds: impl IntoIterator<Item = f32>,
) -> Vec<OperatingPoint> {
    let verdicts: Vec<(f32, Verdict)> =
        objects.iter().zip(detections).flat_map(|(objects, detections)| judge(objects, detections)).collect();
    let count = objects.iter().flatten().filter(|object| counts(object)).count();
    let point = |threshold: f32| {
        let seen = verdicts.iter().filter(|(confidence, _)| *confidence >= threshold);
        let mut point =
            OperatingPoint { threshold, objects: count, images: objects.len(), ..OperatingPoint::default() };
        for (_, verdict) in seen {
            point.right += usize::from(*verdict == Verdict::Right);
            point.wrong += usize::from(matches!(verdict, Verdict::Wrong | Verdict::Second));
            point.second += usize::from(*verdict == Verdict::Second);
        }
        point
    };
    thresholds.into_iter().map(point).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Right,
    Wrong,
    Second,
    Ignored,
}

fn counts(object: &Object) -> bool {
    !object.difficult && !object.crowd
}

/// What each detection of an image is, the surest first: a threshold leaves the front part of this list.
fn judge(objects: &[Object], detections: &[Detection]) -> Vec<(f32, Verdict)> {
    let mut detections: Vec<&Detection> = detections.iter().collect();
    detections.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    let mut found = vec![false; objects.len()];
    let mut verdict = |detection: &Detection| {
        let same = || objects.iter().enumerate().filter(|(_, object)| object.class == detection.class);
        let overlap = |object: &Object| object.bbox.iou(&detection.bbox);
        let best = same().max_by(|(_, a), (_, b)| overlap(a).total_cmp(&overlap(b)));
        match best.filter(|(_, object)| overlap(object) >= RIGHT) {
            Some((_, object)) if !counts(object) => Verdict::Ignored,
            Some((index, _)) if !std::mem::replace(&mut found[index], true) => Verdict::Right,
            _ => {
                let is_in_place = |object: &Object| {
                    let smaller = object.bbox.area().min(detection.bbox.area());
                    object.bbox.intersection(&detection.bbox) >= SAME_PLACE * smaller && smaller > 0.0
                };
                // Most of a crowd's or a difficult object's box would be one of it.
                let inside = |object: &Object| object.crowd && is_in_place(object);
                if same().any(|(_, object)| inside(object)) {
                    Verdict::Ignored
                } else if same().any(|(index, object)| found[index] && is_in_place(object)) {
                    Verdict::Second
                } else {
                    Verdict::Wrong
                }
            }
        }
    };
    detections.into_iter().map(|detection| (detection.confidence, verdict(detection))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use yolo_lat_core::geometry::BBox;

    fn object(class: usize, x: f32) -> Object {
        let bbox = BBox::from_xywh([x, 0.0, 10.0, 10.0]);
        Object { class, bbox, area: 100.0, difficult: false, crowd: false }
    }

    fn detection(class: usize, confidence: f32, x: f32, width: f32) -> Detection {
        Detection { class, confidence, bbox: BBox::from_xywh([x, 0.0, width, 10.0]) }
    }

    #[test]
    fn every_kind_of_box_is_told_apart() {
        let objects = vec![vec![
            object(0, 0.0),
            object(0, 100.0),
            object(1, 200.0),
            Object { difficult: true, ..object(0, 300.0) },
            Object { crowd: true, ..object(0, 400.0) },
        ]];
        let detections = vec![vec![
            detection(0, 0.9, 0.0, 10.0),   // right
            detection(0, 0.8, 1.0, 10.0),   // second: the object is taken
            detection(0, 0.7, 0.0, 4.0),    // second: a part of it
            detection(1, 0.6, 0.0, 10.0),   // wrong: another class there
            detection(0, 0.5, 100.0, 4.0),  // wrong: a part of what nobody found so far
            detection(0, 0.4, 100.0, 10.0), // right
            detection(0, 0.3, 300.0, 10.0), // difficult
            detection(0, 0.2, 402.0, 2.0),  // in the crowd
        ]];
        let points = operating_points(&objects, &detections, [0.1, 0.65, 0.95]);
        let numbers = |point: &OperatingPoint| (point.right, point.wrong, point.second, point.objects);
        assert_eq!(points.iter().map(numbers).collect::<Vec<_>>(), [(2, 4, 2, 3), (1, 2, 2, 3), (0, 0, 0, 3)]);
        assert!((points[0].precision() - 2.0 / 6.0).abs() < 1e-9 && (points[0].recall() - 2.0 / 3.0).abs() < 1e-9);
        assert!((points[0].f1() - 4.0 / 9.0).abs() < 1e-9);
        assert_eq!((points[0].second_boxes(), points[0].boxes(), points[2].precision()), (2.0, 6.0, 1.0));
        assert_eq!(operating_points(&[], &[], [0.5])[0].f1(), 0.0);
    }
}
