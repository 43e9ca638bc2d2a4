//! What is found in an image, as results name it.

use serde::{Deserialize, Serialize};

use crate::zones::Counts;
use yolo_lat_core::geometry::BBox;
use yolo_lat_core::postprocess::Detection;

/// Result for one image, under the names that users of ultralytics know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The image as it was given; of a video, `FILE#FRAME`.
    pub image: String,
    /// Number of the frame in its video, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<u64>,
    /// Time of the frame in its video, in seconds from the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_s: Option<f64>,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// By falling confidence.
    pub detections: Vec<NamedDetection>,
    /// Of each line, how many objects have crossed it so far.
    #[serde(default, skip_serializing_if = "Counts::is_empty")]
    pub counts: Counts,
    /// Absent where the caller wants results that are equal from run to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing_ms: Option<Timing>,
}

/// A detection with its class name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NamedDetection {
    /// Class name.
    pub name: String,
    /// Class index.
    pub class: usize,
    /// 0..1.
    pub confidence: f32,
    /// In pixels of the image.
    #[serde(rename = "box")]
    pub bbox: BBox,
    /// Of an object that is followed from frame to frame.
    #[serde(flatten)]
    pub track: Option<Track>,
    /// The zones that it is in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub zones: Vec<String>,
}

/// What earlier frames say of an object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Track {
    /// The object's number in its source, from 1.
    pub id: u64,
    /// Seconds since it was first seen.
    pub age: f64,
    /// Of its centre, in pixels a second.
    pub speed: f32,
    /// How it is drawn; absent from results.
    #[serde(skip)]
    pub shown: Option<Shown>,
}

/// A tracked object as people see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown {
    /// Smoothed, in pixels of the image.
    pub bbox: BBox,
    /// Smoothed, 0..1.
    pub confidence: f32,
    /// Where the middle of its lower edge was, oldest first, in pixels of the image.
    pub trail: Vec<(f32, f32)>,
}

impl NamedDetection {
    /// A detection of a single image.
    pub fn new(Detection { class, confidence, bbox }: Detection, name: String) -> Self {
        Self { name, class, confidence, bbox, track: None, zones: Vec::new() }
    }

    fn shown(&self) -> Option<&Shown> {
        self.track.as_ref()?.shown.as_ref()
    }

    /// The box as it is drawn: smoothed where the object is tracked.
    pub fn shown_box(&self) -> BBox {
        self.shown().map_or(self.bbox, |shown| shown.bbox)
    }

    /// Where it was, see [`Shown::trail`].
    pub fn trail(&self) -> &[(f32, f32)] {
        self.shown().map_or(&[], |shown| &shown.trail)
    }

    /// What stands beside the box: name, number and confidence.
    pub fn label(&self) -> String {
        let confidence = self.shown().map_or(self.confidence, |shown| shown.confidence);
        match &self.track {
            Some(track) => format!("{} #{} {confidence:.2}", self.name, track.id),
            None => format!("{} {confidence:.2}", self.name),
        }
    }
}

/// Milliseconds spent on one image; of a batch, its share. A stage that was not measured alone is absent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Reading and decoding the file.
    pub decode: f64,
    /// Resizing into the network's input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preprocess: Option<f64>,
    /// The network, with the absent stages.
    pub inference: f64,
    /// Boxes, threshold, suppression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postprocess: Option<f64>,
}

impl Timing {
    /// All but the decoding.
    pub fn total(&self) -> f64 {
        self.preprocess.unwrap_or(0.0) + self.inference + self.postprocess.unwrap_or(0.0)
    }
}
