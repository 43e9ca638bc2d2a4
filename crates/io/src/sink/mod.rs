//! Where detections go: one exporter a file, all behind [`Sink`].

mod coco;
mod csv;
mod cvat;
mod draw;
mod file;
mod folder;
mod fonts;
mod json;
mod label_studio;
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

pub use self::coco::{CocoSink, ImageId, ImageIds, coco_category_ids};
pub use self::csv::CsvSink;
pub use self::cvat::CvatSink;
pub use self::draw::{annotate, class_color};
pub use self::file::{Target, write_atomically};
pub use self::folder::{EarlierResults, OutputFolder, written_files};
pub(crate) use self::fonts::use_own_font;
pub use self::fonts::{FONT, system_font};
pub use self::json::{JsonLinesSink, JsonSink};
pub use self::label_studio::{LabelStudioOptions, LabelStudioSink};
pub use self::labels::{ink, label_places};
pub use self::pictures::{AnnotatedSink, CropSink, PictureSink, Placing, write_jpeg};
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

/// Milliseconds spent on one picture; of a batch, its share. A stage that was not measured alone is absent.
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

/// One picture's results on their way into the sinks.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// What was found.
    pub record: &'a Record,
    /// The file that was read.
    pub path: &'a Path,
    /// Of a frame of a video.
    pub video: Option<VideoFrame<'a>>,
    /// Relative path without extension under which files of this picture are written; unique in a run.
    pub stem: &'a Path,
    /// The pixels; `None` when an earlier run's record is played back and its pictures are on disk already.
    pub picture: Option<&'a RgbImage>,
}

impl Item<'_> {
    /// The picture's own relative path: its stem and its extension, `jpg` for the frame of a video.
    pub fn picture_name(&self) -> PathBuf {
        let mut name = self.stem.as_os_str().to_owned();
        let own = self.path.extension().unwrap_or_default();
        let extension = if self.record.frame.is_some() { "jpg".as_ref() } else { own };
        if !extension.is_empty() {
            name.push(".");
            name.push(extension);
        }
        name.into()
    }
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

    /// Whether nothing more can be written there.
    pub fn is_disk_full(&self) -> bool {
        matches!(self.source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
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

/// `PLACE/STEM.EXTENSION`, where the stem itself may contain dots.
fn path_of(place: &str, stem: &Path, extension: &str) -> PathBuf {
    with_ending(Path::new(place), stem, &format!(".{extension}"))
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

/// A path as text, with `/` on every system; bytes that are no UTF-8 are written out, so that different paths stay different.
fn name_of(path: &Path) -> String {
    use std::fmt::Write;
    let part = |part: std::path::Component| {
        let mut text = String::new();
        for chunk in part.as_os_str().as_encoded_bytes().utf8_chunks() {
            text.push_str(chunk.valid());
            for byte in chunk.invalid() {
                // Writing to a String cannot fail.
                let _ = write!(text, "\\x{byte:02X}");
            }
        }
        text
    };
    path.components().map(part).collect::<Vec<_>>().join("/")
}
