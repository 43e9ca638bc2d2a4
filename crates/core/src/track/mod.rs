//! Tracks: which detections of successive frames are of one object. ByteTrack (Zhang et al. 2022) with true frame times.

mod assignment;
mod kalman;

use std::time::Duration;

pub use self::assignment::assign;
use self::kalman::Motion;
use crate::geometry::BBox;
use crate::postprocess::Detection;

/// Frames a second for which the noise of movements is known.
const FRAMES_PER_SECOND: f64 = 30.0;
/// Share of the least confidence with which a track goes on that is there already: votes square a confidence that nothing confirms.
const FAINT: f32 = 0.1;
/// Least IoU of a track with a sure detection, with a faint one, and of a track that is not confirmed. Small networks' boxes move: 0.5 of
/// faint ones, as published, loses one track in ten of a noisy still.
const SURE_IOU: f64 = 0.2;
const FAINT_IOU: f64 = 0.4;
const NEW_IOU: f64 = 0.3;
/// Of two tracks of a class that overlap more than this, one of which is lost, the younger is forgotten.
const SAME_IOU: f32 = 0.85;
/// What the IoU counts where classes differ: networks confuse a car with a bus, but a person on a horse stays one.
const OTHER_CLASS: f64 = 0.8;
/// Updates that a lost track survives however long they take.
const LOST_UPDATES_TIMEOUT: u32 = 10;
/// In how many seconds the shown confidence follows that of the detections.
const SMOOTHING: f64 = 0.3;

/// How objects are followed.
#[derive(Clone, Debug, PartialEq)]
pub struct TrackOptions {
    /// Least confidence of a detection that begins a track or finds a lost one again, 0..1.
    pub confidence: f32,
    /// Instead of it, for single classes.
    pub class_confidence: Vec<(usize, f32)>,
    /// How long an object that is not seen is remembered.
    pub memory: Duration,
}

impl Default for TrackOptions {
    fn default() -> Self {
        let confidence = crate::model::config::CONFIDENCE;
        Self { confidence, class_confidence: Vec::new(), memory: Duration::from_secs(1) }
    }
}

impl TrackOptions {
    /// Least confidence of a sure detection of a class.
    pub fn least(&self, class: usize) -> f32 {
        let own = self.class_confidence.iter().find(|(other, _)| *other == class);
        own.map_or(self.confidence, |(_, confidence)| *confidence)
    }

    /// Least confidence that a tracker has a use for where `confidence` is the least of a sure detection: what a detector should give.
    pub fn faintest(confidence: f32) -> f32 {
        FAINT * confidence
    }
}

/// An object that was seen in this frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Tracked {
    /// The object's number, from 1 in the order in which they were confirmed.
    pub id: u64,
    /// Place of its detection in the list that was given.
    pub detection: usize,
    /// Since it was first seen.
    pub age: Duration,
    /// Of the centre in x and y, in pixels a second.
    pub velocity: (f32, f32),
    /// The class that it had most often, by confidence.
    pub class: usize,
    /// Where it is, smoothed.
    pub bbox: BBox,
    /// Its confidence, smoothed.
    pub confidence: f32,
}

/// Follows the objects of one camera or video.
///
/// ```
/// use std::time::Duration;
/// use yolo_lat_core::geometry::BBox;
/// use yolo_lat_core::postprocess::Detection;
/// use yolo_lat_core::track::{TrackOptions, Tracker};
///
/// let mut tracker = Tracker::new(TrackOptions::default());
/// for frame in 0..30 {
///     let bbox = BBox::from_xywh([4.0 * frame as f32, 20.0, 40.0, 80.0]);
///     let found = [Detection { class: 0, confidence: 0.9, bbox }];
///     let tracked = tracker.update(&found, Duration::from_millis(33 * frame));
///     assert_eq!(tracked[0].id, 1);
/// }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    options: TrackOptions,
    tracks: Vec<Track>,
    confirmed: u64,
    /// Time of the last frame.
    last: Option<Duration>,
}

/// What is known of an object.
#[derive(Clone, Debug)]
struct Track {
    /// `None` until a second frame has confirmed it.
    id: Option<u64>,
    motion: Motion,
    began: Duration,
    seen: Duration,
    /// Updates since it was seen; 0 for one that is in sight.
    missed: u32,
    /// Sum of confidences for each class.
    votes: Vec<(usize, f32)>,
    confidence: f32,
}

impl Track {
    fn new(detection: &Detection, time: Duration) -> Self {
        Self {
            id: None,
            motion: Motion::new(&detection.bbox),
            began: time,
            seen: time,
            missed: 0,
            votes: vec![(detection.class, detection.confidence)],
            confidence: detection.confidence,
        }
    }

    fn class(&self) -> usize {
        self.votes.iter().max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(class, _)| *class)
    }

    fn see(&mut self, detection: &Detection, time: Duration) {
        self.motion.correct(&detection.bbox);
        match self.votes.iter_mut().find(|(class, _)| *class == detection.class) {
            Some((_, votes)) => *votes += detection.confidence,
            None => self.votes.push((detection.class, detection.confidence)),
        }
        let passed = time.saturating_sub(self.seen).as_secs_f64();
        let weight = 1.0 - (-passed / SMOOTHING).exp();
        self.confidence += weight as f32 * (detection.confidence - self.confidence);
        (self.seen, self.missed) = (time, 0);
    }
}

impl Tracker {
    /// Nothing has been seen so far.
    pub fn new(options: TrackOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// Other limits from now on.
    pub fn set_options(&mut self, options: TrackOptions) {
        self.options = options;
    }

    /// Takes the detections of the next frame, seen at `time` from any fixed start, down to [`TrackOptions::faintest`]. Gives the
    /// objects among them that are confirmed, by a second frame or because they were there at the beginning, in the order of
    /// `detections`. What is no number is passed over.
    ///
    /// First the sure detections go to the tracks, of all pairs those with the largest sum of IoU; then the faint ones to those tracks
    /// without a partner that were in sight. A sure detection without a track begins one; a faint one never does.
    pub fn update(&mut self, detections: &[Detection], time: Duration) -> Vec<Tracked> {
        let is_first = self.last.is_none();
        self.predict(time);
        let (sure, faint) = self.divide(detections);
        let known: Vec<usize> = (0..self.tracks.len()).filter(|&track| self.tracks[track].id.is_some()).collect();
        let mut pairs = self.pair(&known, &sure, SURE_IOU, detections);
        let in_sight = |&track: &usize| self.tracks[track].missed == 1;
        let left: Vec<usize> = without(&known, pairs.iter().map(|pair| pair.0)).into_iter().filter(in_sight).collect();
        pairs.extend(self.pair(&left, &faint, FAINT_IOU, detections));
        let sure = without(&sure, pairs.iter().map(|pair| pair.1));
        let new: Vec<usize> = (0..self.tracks.len()).filter(|&track| self.tracks[track].id.is_none()).collect();
        let confirmed = self.pair(&new, &sure, NEW_IOU, detections);
        let sure = without(&sure, confirmed.iter().map(|pair| pair.1));
        pairs.extend(confirmed);
        for detection in sure {
            self.tracks.push(Track::new(&detections[detection], time));
            if is_first {
                pairs.push((self.tracks.len() - 1, detection));
            }
        }
        pairs.sort_unstable_by_key(|pair| pair.1);
        let tracked =
            pairs.iter().map(|&(track, detection)| self.tracked(track, detection, detections, time)).collect();
        self.forget(time);
        tracked
    }

    /// Moves everything to `time`; who is seen there is told later.
    fn predict(&mut self, time: Duration) {
        let passed = time.saturating_sub(self.last.unwrap_or(time));
        self.last = Some(time);
        let frames = passed.as_secs_f64() * FRAMES_PER_SECOND;
        for track in &mut self.tracks {
            if track.missed > 0 {
                track.motion.keep_height();
            }
            track.motion.predict(frames);
            track.missed += 1;
        }
    }

    /// Places of sure and of faint detections.
    fn divide(&self, detections: &[Detection]) -> (Vec<usize>, Vec<usize>) {
        let is_finite = |detection: &Detection| {
            detection.confidence.is_finite() && detection.bbox.corners().iter().all(|side| side.is_finite())
        };
        let least = |place: usize| self.options.least(detections[place].class);
        let places = (0..detections.len()).filter(|&place| is_finite(&detections[place]));
        let (sure, faint): (Vec<_>, Vec<_>) = places.partition(|&place| detections[place].confidence >= least(place));
        let faintest = |&place: &usize| detections[place].confidence >= TrackOptions::faintest(least(place));
        (sure, faint.into_iter().filter(faintest).collect())
    }

    /// Pairs of a track and a detection that belong together.
    fn pair(&self, tracks: &[usize], places: &[usize], least: f64, detections: &[Detection]) -> Vec<(usize, usize)> {
        let expected: Vec<(BBox, usize)> =
            self.tracks.iter().map(|track| (track.motion.bbox(), track.class())).collect();
        assign(tracks, places, least, &|track, place| {
            let (bbox, class) = expected[track];
            let Detection { class: other, bbox: seen, .. } = detections[place];
            f64::from(bbox.iou(&seen)) * if class == other { 1.0 } else { OTHER_CLASS }
        })
    }

    /// Notes that a track was seen, and what is told of it.
    fn tracked(&mut self, track: usize, place: usize, detections: &[Detection], time: Duration) -> Tracked {
        let Self { tracks, confirmed, .. } = self;
        let track = &mut tracks[track];
        // One that begins in this frame has its box already.
        if track.missed > 0 {
            track.see(&detections[place], time);
        }
        let id = *track.id.get_or_insert_with(|| {
            *confirmed += 1;
            *confirmed
        });
        let (x, y) = track.motion.velocity();
        let per_second = |velocity: f64| (velocity * FRAMES_PER_SECOND) as f32;
        Tracked {
            id,
            detection: place,
            age: time.saturating_sub(track.began),
            velocity: (per_second(x), per_second(y)),
            class: track.class(),
            bbox: track.motion.bbox(),
            confidence: track.confidence,
        }
    }

    /// What was not confirmed, what has been lost for too long, and what is another's shadow.
    fn forget(&mut self, time: Duration) {
        let memory = self.options.memory;
        self.tracks.retain(|track| match track.id {
            None => track.missed == 0,
            Some(_) => track.missed <= LOST_UPDATES_TIMEOUT || time.saturating_sub(track.seen) <= memory,
        });
        let shadow = |track: &Track| {
            let is_same = |other: &Track| {
                // One of them is lost, and the younger one goes.
                (track.missed == 0) != (other.missed == 0)
                    && track.began > other.began
                    && track.class() == other.class()
                    && track.motion.bbox().iou(&other.motion.bbox()) > SAME_IOU
            };
            self.tracks.iter().any(is_same)
        };
        let shadows: Vec<bool> = self.tracks.iter().map(shadow).collect();
        let mut shadows = shadows.into_iter();
        self.tracks.retain(|_| shadows.next() != Some(true));
    }
}

/// Those of `all` that are not among `taken`, in their order.
fn without(all: &[usize], taken: impl Iterator<Item = usize>) -> Vec<usize> {
    let taken: Vec<usize> = taken.collect();
    all.iter().copied().filter(|place| !taken.contains(place)).collect()
}

#[cfg(test)]
mod tests;
