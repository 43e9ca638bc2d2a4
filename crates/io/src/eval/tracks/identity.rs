//! Identity: one track for each object over the whole sequence.

use std::collections::HashMap;
use std::ops::AddAssign;

use super::{LEAST, Sequence, assign, share};

/// Boxes by whether they are of their object's one track, at an IoU of 0.5.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Boxes of an object's own track.
    pub right: u64,
    /// Objects in frames where their own track is not.
    pub missed: u64,
    /// Boxes of tracks where their own object is not.
    pub wrong: u64,
}

impl Identity {
    pub(super) fn of(sequence: &Sequence) -> Self {
        let mut together: HashMap<(usize, usize), f64> = HashMap::new();
        let (mut objects, mut tracks) = (0, 0);
        for frame in &sequence.frames {
            objects += frame.objects.len() as u64;
            tracks += frame.tracks.len() as u64;
            for (place, &object) in frame.objects.iter().enumerate() {
                for (other, &track) in frame.tracks.iter().enumerate() {
                    if frame.iou(place, other) >= LEAST {
                        *together.entry((object, track)).or_default() += 1.0;
                    }
                }
            }
        }
        let frames = |object: usize, track: usize| together.get(&(object, track)).copied().unwrap_or(0.0);
        let all = |count: usize| (0..count).collect::<Vec<_>>();
        let pairs = assign(&all(sequence.objects), &all(sequence.tracks), 0.0, &frames);
        let right = pairs.into_iter().map(|(object, track)| frames(object, track) as u64).sum();
        Self { right, missed: objects - right, wrong: tracks - right }
    }

    /// Harmonic mean of [`precision`](Self::precision) and [`recall`](Self::recall).
    pub fn idf1(&self) -> f64 {
        share(2.0 * self.right as f64, 2 * self.right + self.missed + self.wrong)
    }

    /// Share of the tracks' boxes that are right.
    pub fn precision(&self) -> f64 {
        share(self.right as f64, self.right + self.wrong)
    }

    /// Share of the objects' boxes that are found rightly.
    pub fn recall(&self) -> f64 {
        share(self.right as f64, self.right + self.missed)
    }
}

impl AddAssign<&Identity> for Identity {
    fn add_assign(&mut self, other: &Self) {
        self.right += other.right;
        self.missed += other.missed;
        self.wrong += other.wrong;
    }
}
