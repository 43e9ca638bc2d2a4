//! CLEAR: every frame's matches, of which those of the frame before are kept.

use std::collections::HashMap;
use std::ops::AddAssign;

use super::{EPSILON, LEAST, Sequence, share};

/// Worth more than any IoU: a pair of the frame before stays one.
const KEPT: f64 = 1000.0;

/// Counts over all frames at an IoU of 0.5.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Clear {
    /// Objects that were found.
    pub found: u64,
    /// Objects that were missed.
    pub missed: u64,
    /// Boxes on no object.
    pub false_alarms: u64,
    /// Objects whose track is another one than the last time they were found.
    pub switches: u64,
    /// Sum of the IoU of what was found.
    pub overlap: f64,
}

impl Clear {
    pub(super) fn of(sequence: &Sequence) -> Self {
        let mut sum = Self::default();
        // The track of each object when it was found last, and in the last frame that had both.
        let mut last: HashMap<usize, usize> = HashMap::new();
        let mut before: HashMap<usize, usize> = HashMap::new();
        for frame in &sequence.frames {
            let matches = frame.pairs(&|object, track| {
                let iou = frame.iou(object, track);
                let kept = before.get(&frame.objects[object]) == Some(&frame.tracks[track]);
                if iou < LEAST - EPSILON { 0.0 } else { iou + if kept { KEPT } else { 0.0 } }
            });
            sum.found += matches.len() as u64;
            sum.missed += (frame.objects.len() - matches.len()) as u64;
            sum.false_alarms += (frame.tracks.len() - matches.len()) as u64;
            if frame.objects.is_empty() || frame.tracks.is_empty() {
                continue;
            }
            before.clear();
            for (object, track) in matches {
                sum.overlap += frame.iou(object, track);
                let (object, track) = (frame.objects[object], frame.tracks[track]);
                sum.switches += u64::from(last.insert(object, track).is_some_and(|other| other != track));
                before.insert(object, track);
            }
        }
        sum
    }

    /// Multiple object tracking accuracy: 1 less all errors for each object; at most 1, and negative where there are more errors than
    /// objects.
    pub fn mota(&self) -> f64 {
        let right = self.found as f64 - self.false_alarms as f64 - self.switches as f64;
        share(right, self.found + self.missed)
    }

    /// Multiple object tracking precision: the mean IoU of what was found.
    pub fn motp(&self) -> f64 {
        share(self.overlap, self.found)
    }
}

impl AddAssign<&Clear> for Clear {
    fn add_assign(&mut self, other: &Self) {
        self.found += other.found;
        self.missed += other.missed;
        self.false_alarms += other.false_alarms;
        self.switches += other.switches;
        self.overlap += other.overlap;
    }
}
