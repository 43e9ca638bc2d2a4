//! What becomes of the detections of a camera or video from frame to frame.

mod tracks;

use std::time::Duration;

use self::tracks::Tracks;
use crate::sink::NamedDetection;
use crate::zones::{Counts, LeastSize, Line, LineCounter, Zone, foot};
use yolo_lat_core::model::config::CONFIDENCE;
use yolo_lat_core::track::TrackOptions;

/// What is reported of the detections of a source.
#[derive(Clone, Debug, PartialEq)]
pub struct FollowOptions {
    /// Least confidence, 0..1.
    pub confidence: f32,
    /// That of single classes instead.
    pub class_confidence: Vec<(usize, f32)>,
    /// Least size of an object of a class, or of all that have none of their own.
    pub least_size: Vec<(Option<usize>, LeastSize)>,
    /// Objects are followed: a detection is reported once a second frame has confirmed it, and with less confidence from then on.
    pub track: bool,
    /// Boxes and confidences of tracked objects are reported as they are shown: smoothed.
    pub smooth: bool,
    /// Each detection says which of them it is in.
    pub zones: Vec<Zone>,
    /// Tracked objects that cross one are counted.
    pub lines: Vec<Line>,
}

impl Default for FollowOptions {
    fn default() -> Self {
        let (class_confidence, least_size) = (Vec::new(), Vec::new());
        let (zones, lines) = (Vec::new(), Vec::new());
        Self { confidence: CONFIDENCE, class_confidence, least_size, track: false, smooth: false, zones, lines }
    }
}

impl FollowOptions {
    /// Least confidence that a detector should report: that of the class with the least, and tracks go on with less than what
    /// begins one.
    pub fn detector_confidence(&self) -> f32 {
        let least = self.class_confidence.iter().map(|(_, least)| *least).fold(self.confidence, f32::min);
        if self.track { TrackOptions::faintest(least) } else { least }
    }

    fn admits(&self, detection: &NamedDetection, size: (u32, u32)) -> bool {
        let least = |wanted: Option<usize>| self.least_size.iter().find(|(class, _)| *class == wanted);
        let least = least(Some(detection.class)).or_else(|| least(None));
        least.is_none_or(|(_, least)| least.admits(&detection.bbox, size))
    }

    fn tracking(&self) -> TrackOptions {
        let (confidence, class_confidence) = (self.confidence, self.class_confidence.clone());
        TrackOptions { confidence, class_confidence, ..TrackOptions::default() }
    }

    /// The same for images that stand alone.
    #[must_use]
    pub fn of_images(&self) -> Self {
        Self { track: false, lines: Vec::new(), ..self.clone() }
    }
}

/// What is reported of one frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Followed {
    /// By falling confidence of what was detected.
    pub detections: Vec<NamedDetection>,
    /// Of each line, how many objects have crossed it so far.
    pub counts: Counts,
}

/// Follows one source.
#[derive(Clone, Debug, Default)]
pub struct Follower {
    options: FollowOptions,
    tracks: Option<Tracks>,
    lines: Vec<LineCounter>,
}

impl Follower {
    /// Nothing has been seen so far.
    pub fn new(options: FollowOptions) -> Self {
        let mut follower = Self::default();
        follower.set_options(&options);
        follower
    }

    /// Other options from now on; objects that are followed already keep their numbers, lines their counts.
    pub fn set_options(&mut self, options: &FollowOptions) {
        self.options.clone_from(options);
        self.tracks = options.track.then(|| self.tracks.take().unwrap_or_default().with(options.tracking()));
        let lines = std::mem::take(&mut self.lines).into_iter();
        let counter = |line: &Line| {
            let same = lines.clone().find(|counter| counter.line() == line);
            same.unwrap_or_else(|| LineCounter::new(line.clone()))
        };
        self.lines = options.lines.iter().map(counter).collect();
    }

    /// Forgets all objects: what comes is another source.
    pub fn restart(&mut self) {
        *self = Self::new(std::mem::take(&mut self.options));
    }

    /// What is reported of the next frame, of `size` pixels, seen at `time` from any fixed start; of a detector's results down to
    /// [`FollowOptions::detector_confidence`].
    pub fn follow(&mut self, mut detections: Vec<NamedDetection>, size: (u32, u32), time: Duration) -> Followed {
        let options = &self.options;
        match &mut self.tracks {
            Some(tracks) => detections = tracks.follow(detections, time, options.smooth),
            None => {
                let limits = options.tracking();
                detections.retain(|detection| detection.confidence >= limits.least(detection.class));
            }
        }
        detections.retain(|detection| options.admits(detection, size));
        for detection in &mut detections {
            let foot = foot(&detection.bbox, size);
            let zones = options.zones.iter().filter(|zone| zone.contains(foot));
            detection.zones = zones.map(|zone| zone.name().to_owned()).collect();
        }
        let tracks = detections.iter().filter_map(|detection| Some((detection.track.as_ref()?.id, &detection.bbox)));
        self.lines.iter_mut().for_each(|line| line.see(tracks.clone(), size, time));
        let counts = self.lines.iter().map(|line| (line.line().name().to_owned(), line.crossings())).collect();
        Followed { detections, counts }
    }
}

#[cfg(test)]
mod tests;
