//! What is told of an event, in the form of frigate's events: <https://docs.frigate.video/integrations/mqtt>.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::sink::NamedDetection;

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It began.
    New,
    /// It goes on, and more is known of it.
    Update,
    /// It ended.
    End,
    /// Its clip is complete.
    Clip,
}

impl Kind {
    /// Its name in messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Update => "update",
            Self::End => "end",
            Self::Clip => "clip",
        }
    }
}

/// An event as it was known at some time. Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct EventState {
    /// Unique.
    pub id: String,
    /// The source.
    pub camera: String,
    /// The rule as it was given: `person:door`.
    pub rule: String,
    /// When it was seen last.
    pub frame_time: f64,
    /// Class.
    pub label: String,
    /// There is none.
    pub sub_label: Option<String>,
    /// The largest confidence so far.
    pub top_score: f32,
    /// It never is: rules say how long a thing must stay.
    pub false_positive: bool,
    /// When it was first seen.
    pub start_time: f64,
    /// When it was last seen, of one that has ended.
    pub end_time: Option<f64>,
    /// Confidence of the most confident thing where it was seen last.
    pub score: f32,
    /// That thing's left, top, right, bottom in pixels.
    #[serde(rename = "box")]
    pub bbox: [i64; 4],
    /// Of the box, in pixels.
    pub area: i64,
    /// Width of the box by its height.
    pub ratio: f32,
    /// Zones that the thing is in.
    pub current_zones: Vec<String>,
    /// Zones that a thing of this event was in.
    pub entered_zones: Vec<String>,
    /// There is a snapshot.
    pub has_snapshot: bool,
    /// A clip is there, or being made.
    pub has_clip: bool,
    /// Its track, where things are tracked.
    pub track: Option<u64>,
    /// The file.
    pub snapshot_file: Option<PathBuf>,
    /// The file; it appears when it is complete, which [`Kind::Clip`] tells.
    pub clip_file: Option<PathBuf>,
}

impl EventState {
    /// Takes what is seen of the event now.
    pub(super) fn see(&mut self, detection: &NamedDetection, time: Duration) {
        let bbox = detection.bbox;
        self.frame_time = seconds(time);
        self.score = detection.confidence;
        self.top_score = self.top_score.max(self.score);
        self.bbox = [bbox.x1, bbox.y1, bbox.x2, bbox.y2].map(|side| side.round() as i64);
        let [left, top, right, bottom] = self.bbox;
        self.area = (right - left) * (bottom - top);
        self.ratio = (right - left) as f32 / (bottom - top).max(1) as f32;
        self.current_zones.clone_from(&detection.zones);
        for zone in &detection.zones {
            if !self.entered_zones.contains(zone) {
                self.entered_zones.push(zone.clone());
            }
        }
        self.track = detection.track.as_ref().map(|track| track.id);
    }
}

/// Seconds since 1970, to the microsecond.
pub(super) fn seconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e6
}

/// What outlets are given.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Message {
    /// What has happened.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What the last message said; of a new event, the same as `after`.
    pub before: EventState,
    /// What is known now.
    pub after: EventState,
}

impl Message {
    /// As a line of JSON.
    pub(super) fn json(&self) -> String {
        // Numbers and texts: nothing that JSON cannot hold.
        serde_json::to_string(self).unwrap_or_default()
    }
}
