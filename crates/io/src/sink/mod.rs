//! Where detections go: one exporter a file, all behind [`Sink`].

mod coco;
mod csv;
mod draw;
mod file;
mod fonts;
mod json;
mod labels;
mod names;
mod pictures;
mod text;
mod video;
mod voc;
mod yolo;

use std::path::{Path, PathBuf};
use std::time::Duration;

use image::RgbImage;
use serde::{Deserialize, Serialize};

pub use self::coco::CocoSink;
pub use self::csv::CsvSink;
pub use self::draw::{annotate, class_color};
pub use self::file::{Target, write_atomically};
pub(crate) use self::fonts::use_own_font;
pub use self::fonts::{FONT, system_font};
pub use self::json::{JsonLinesSink, JsonSink};
pub use self::labels::{ink, label_places};
pub use self::pictures::{AnnotatedSink, CropSink, write_jpeg};
pub use self::text::TextSink;
pub use self::video::VideoRecorder;
pub use self::voc::VocSink;
pub use self::yolo::YoloSink;

use yolo_lat_core::geometry::BBox;

/// Result for one picture, under the names that users of ultralytics know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The picture as it was given; of a video, `FILE#FRAME`.
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
    /// Absent where the caller wants results that are equal from run to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing_ms: Option<Timing>,
}

/// A detection with its class name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NamedDetection {
    /// Class name.
    pub name: String,
    /// Class index.
    pub class: usize,
    /// 0..1.
    pub confidence: f32,
    /// In pixels of the picture.
    #[serde(rename = "box")]
    pub bbox: BBox,
}

impl NamedDetection {
    /// What stands beside the box: name and confidence.
    pub fn label(&self) -> String {
        format!("{} {:.2}", self.name, self.confidence)
    }
}

/// Milliseconds spent on one picture; of a batch, its share.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Reading and decoding the file.
    pub decode: f64,
    /// Resizing into the network's input.
    pub preprocess: f64,
    /// The network.
    pub inference: f64,
    /// Boxes, threshold, suppression.
    pub postprocess: f64,
}

/// One picture's results on their way into the sinks.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// What was found.
    pub record: &'a Record,
    /// Of a frame of a video.
    pub video: Option<VideoFrame<'a>>,
    /// Relative path without extension under which files of this picture are written; unique in a run.
    pub stem: &'a Path,
    /// The pixels; `None` when an earlier run's record is played back and its pictures are on disk already.
    pub picture: Option<&'a RgbImage>,
}

/// Where a frame stands in its video.
#[derive(Clone, Copy, Debug)]
pub struct VideoFrame<'a> {
    /// The video's own stem.
    pub stem: &'a Path,
    /// From the start.
    pub time: Duration,
    /// How long the video lasts, if its file says so.
    pub length: Option<Duration>,
}

/// A file or stream could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot be written: {source}", path.display())]
pub struct SinkError {
    /// Where to.
    pub path: PathBuf,
    /// What the system said.
    pub source: std::io::Error,
}

impl SinkError {
    fn new(path: &Path, error: impl Into<std::io::Error>) -> Self {
        Self { path: path.to_owned(), source: error.into() }
    }

    /// Whether the reader of a pipe is gone, which is no fault.
    pub fn is_broken_pipe(&self) -> bool {
        self.source.kind() == std::io::ErrorKind::BrokenPipe
    }
}

/// Takes results in the order of the inputs.
pub trait Sink: Send + Sync {
    /// Writes one picture's results.
    ///
    /// # Errors
    /// [`SinkError`] names the file; what was written before stays valid.
    fn write(&mut self, item: Item) -> Result<(), SinkError>;

    /// Whether a picture's own file is there already. Sinks with one file for all pictures always rewrite it.
    fn has(&self, _stem: &Path) -> bool {
        true
    }

    /// Completes and publishes what belongs to all pictures together.
    ///
    /// # Errors
    /// [`SinkError`]; then the file does not appear under its name.
    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// `DIR/FOLDER/STEM.EXTENSION`, where the stem itself may contain dots.
fn path_of(folder: &Path, stem: &Path, extension: &str) -> PathBuf {
    with_ending(folder, stem, &format!(".{extension}"))
}

/// `DIR/FOLDER/STEM` and `ending`; too long a name is shortened.
fn with_ending(folder: &Path, stem: &Path, ending: &str) -> PathBuf {
    let mut path = folder.join(stem);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    if name.len() + ending.len() > names::LONGEST {
        name = names::shortened(&name.to_string_lossy(), names::LONGEST - ending.len()).into();
    }
    name.push(ending);
    path.set_file_name(name);
    path
}
