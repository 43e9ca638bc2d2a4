//! Detections as objects with numbers, and where these have been.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::sink::{NamedDetection, Shown, Track};
use yolo_lat_core::geometry::BBox;
use yolo_lat_core::postprocess::Detection;
use yolo_lat_core::track::{TrackOptions, Tracked, Tracker};

/// When an object was where, in pixels, the newest last.
type Trail = VecDeque<(Duration, (f32, f32))>;

/// How far trails go back.
const TRAIL: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, Default)]
pub(super) struct Tracks {
    tracker: Tracker,
    /// Where each object was, and when.
    trails: HashMap<u64, Trail>,
    /// Names of classes that were detected: an object's may be that of an earlier detection.
    names: HashMap<usize, String>,
}

impl Tracks {
    /// The same objects with other options.
    pub(super) fn with(mut self, options: TrackOptions) -> Self {
        self.tracker.set_options(options);
        self
    }

    /// The detections of objects, with their classes; smoothed if `smooth`.
    pub(super) fn follow(
        &mut self,
        detections: Vec<NamedDetection>,
        time: Duration,
        smooth: bool,
    ) -> Vec<NamedDetection> {
        for NamedDetection { class, name, .. } in &detections {
            if !self.names.contains_key(class) {
                self.names.insert(*class, name.clone());
            }
        }
        let plain =
            |&NamedDetection { class, confidence, bbox, .. }: &NamedDetection| Detection { class, confidence, bbox };
        let plain: Vec<Detection> = detections.iter().map(plain).collect();
        let tracked = self.tracker.update(&plain, time);
        let found =
            tracked.into_iter().map(|tracked| self.named(plain[tracked.detection], tracked, time, smooth)).collect();
        self.trails.retain(|_, trail| trail.back().is_some_and(|(last, _)| time.saturating_sub(*last) <= TRAIL));
        found
    }

    fn named(&mut self, detection: Detection, tracked: Tracked, time: Duration, smooth: bool) -> NamedDetection {
        let Tracked { id, age, velocity: (x, y), class, bbox, confidence, .. } = tracked;
        let trail = self.trails.entry(id).or_default();
        trail.push_back((time, foot(&bbox)));
        while trail.front().is_some_and(|(first, _)| time.saturating_sub(*first) > TRAIL) {
            trail.pop_front();
        }
        let shown = Shown { bbox, confidence, trail: trail.iter().map(|(_, at)| *at).collect() };
        let detection = if smooth { Detection { class, confidence, bbox } } else { Detection { class, ..detection } };
        let mut named = NamedDetection::new(detection, self.names.get(&class).cloned().unwrap_or_default());
        // Milliseconds and tenths of a pixel are as fine as they mean anything.
        let age = age.as_millis() as f64 / 1e3;
        let speed = (x.hypot(y) * 10.0).round() / 10.0;
        named.track = Some(Track { id, age, speed, shown: Some(shown) });
        named
    }
}

/// The middle of the lower edge: where somebody stands.
fn foot(bbox: &BBox) -> (f32, f32) {
    ((bbox.x1 + bbox.x2) / 2.0, bbox.y2)
}
