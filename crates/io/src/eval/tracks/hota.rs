//! HOTA: how well objects are found, and how well they stay themselves, at every overlap.

use std::collections::{BTreeMap, HashMap};
use std::ops::AddAssign;

use super::{EPSILON, Sequence, share};

/// IoU of 0.05, 0.10 ... 0.95.
const OVERLAPS: usize = 19;

/// Sums at each least IoU.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hota {
    /// At 0.05, 0.10 ... 0.95.
    pub overlaps: [Overlap; OVERLAPS],
}

/// Sums at one least IoU.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Overlap {
    /// Objects that were found.
    pub found: u64,
    /// Objects that were missed.
    pub missed: u64,
    /// Boxes on no object.
    pub false_alarms: u64,
    /// Over all that was found, how much its object and its track have in common, each 0..1.
    pub association: f64,
    /// ... and their IoU.
    pub location: f64,
}

impl Overlap {
    fn detection(&self) -> f64 {
        share(self.found as f64, self.found + self.missed + self.false_alarms)
    }

    fn association(&self) -> f64 {
        share(self.association, self.found)
    }
}

impl Hota {
    pub(super) fn of(sequence: &Sequence) -> Self {
        let (mut frames_of_object, mut frames_of_track) = (vec![0u64; sequence.objects], vec![0u64; sequence.tracks]);
        let mut shared: HashMap<(usize, usize), f64> = HashMap::new();
        for frame in &sequence.frames {
            frame.objects.iter().for_each(|&object| frames_of_object[object] += 1);
            frame.tracks.iter().for_each(|&track| frames_of_track[track] += 1);
            let (objects, tracks) = (0..frame.objects.len(), 0..frame.tracks.len());
            let of_object = |object| tracks.clone().map(|track| frame.iou(object, track)).sum::<f64>();
            let of_track: Vec<f64> =
                tracks.clone().map(|track| objects.clone().map(|object| frame.iou(object, track)).sum()).collect();
            for object in objects.clone() {
                let of_object = of_object(object);
                for track in tracks.clone() {
                    let iou = frame.iou(object, track);
                    let all = of_object + of_track[track] - iou;
                    if iou > 0.0 && all > EPSILON {
                        *shared.entry((frame.objects[object], frame.tracks[track])).or_default() += iou / all;
                    }
                }
            }
        }
        // How much an object and a track have in common in the whole sequence decides who is whose in each frame.
        let alignment = |object: usize, track: usize| {
            let shared = shared.get(&(object, track)).copied().unwrap_or(0.0);
            shared / ((frames_of_object[object] + frames_of_track[track]) as f64 - shared)
        };
        let mut matches: Vec<(usize, usize, f64)> = Vec::new();
        for frame in &sequence.frames {
            let pairs =
                frame.pairs(&|at, other| alignment(frame.objects[at], frame.tracks[other]) * frame.iou(at, other));
            let named = |(at, other): (usize, usize)| (frame.objects[at], frame.tracks[other], frame.iou(at, other));
            matches.extend(pairs.into_iter().map(named));
        }
        let (objects, tracks) = (frames_of_object.iter().sum::<u64>(), frames_of_track.iter().sum::<u64>());
        let at = |overlap: usize| {
            let least = 0.05 * (overlap + 1) as f64 - EPSILON;
            let mut sum = Overlap::default();
            let mut together: BTreeMap<(usize, usize), u64> = BTreeMap::new();
            for &(object, track, iou) in matches.iter().filter(|(_, _, iou)| *iou >= least) {
                sum.found += 1;
                sum.location += iou;
                *together.entry((object, track)).or_default() += 1;
            }
            for ((object, track), count) in together {
                let union = frames_of_object[object] + frames_of_track[track] - count;
                sum.association += count as f64 * share(count as f64, union);
            }
            Overlap { missed: objects - sum.found, false_alarms: tracks - sum.found, ..sum }
        };
        Self { overlaps: std::array::from_fn(at) }
    }

    fn mean(&self, of: impl Fn(&Overlap) -> f64) -> f64 {
        self.overlaps.iter().map(of).sum::<f64>() / OVERLAPS as f64
    }

    /// Higher order tracking accuracy: the mean of the geometric means of detection and association, 0..1.
    pub fn hota(&self) -> f64 {
        self.mean(|overlap| (overlap.detection() * overlap.association()).sqrt())
    }

    /// Detection accuracy.
    pub fn detection(&self) -> f64 {
        self.mean(Overlap::detection)
    }

    /// Association accuracy.
    pub fn association(&self) -> f64 {
        self.mean(Overlap::association)
    }

    /// Localisation accuracy: the mean IoU of what was found, 1 where nothing was.
    pub fn location(&self) -> f64 {
        self.mean(|overlap| if overlap.found == 0 { 1.0 } else { share(overlap.location, overlap.found) })
    }
}

impl AddAssign<&Hota> for Hota {
    fn add_assign(&mut self, other: &Self) {
        for (sum, other) in self.overlaps.iter_mut().zip(&other.overlaps) {
            sum.found += other.found;
            sum.missed += other.missed;
            sum.false_alarms += other.false_alarms;
            sum.association += other.association;
            sum.location += other.location;
        }
    }
}
