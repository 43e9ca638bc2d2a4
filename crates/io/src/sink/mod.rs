//! Where detections go: one exporter a file, all behind [`Sink`].

#[cfg(feature = "plot")]
mod annotated;
mod coco;
mod csv;
mod cvat;
#[cfg(feature = "plot")]
mod draw;
mod file;
mod folder;
#[cfg(feature = "plot")]
mod fonts;
#[cfg(feature = "plot")]
mod heat;
#[cfg(feature = "plot")]
mod hide;
mod images;
mod json;
mod label_studio;
mod labels;
mod mot;
mod names;
mod record;
mod text;
mod video;
mod voc;
mod yolo;

use std::path::{Path, PathBuf};
use std::time::Duration;

use image::RgbImage;

#[cfg(feature = "plot")]
pub use self::annotated::AnnotatedSink;
pub use self::coco::{CocoSink, ImageId, ImageIds, coco_category_ids};
pub use self::csv::{CsvColumns, CsvSink};
pub use self::cvat::CvatSink;
#[cfg(feature = "plot")]
pub use self::draw::{Annotator, DrawOptions, Drawing, annotate, class_color};
pub use self::file::{Target, write_atomically};
pub use self::folder::{EarlierResults, OutputFolder, written_files};
#[cfg(feature = "plot")]
pub(crate) use self::fonts::use_own_font;
#[cfg(feature = "plot")]
pub use self::fonts::{FONT, system_font};
pub use self::images::{CropSink, ImageSink, Placing, write_jpeg};
pub use self::json::{JsonLinesSink, JsonSink};
pub use self::label_studio::{LabelStudioOptions, LabelStudioSink};
pub use self::labels::{ink, label_places};
pub use self::mot::MotSink;
pub use self::record::{NamedDetection, Record, Shown, Timing, Track};
pub use self::text::TextSink;
pub use self::video::VideoRecorder;
pub use self::voc::VocSink;
pub use self::yolo::YoloSink;

/// One image's results on their way into the sinks.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// What was found.
    pub record: &'a Record,
    /// The file that was read.
    pub path: &'a Path,
    /// Of a frame of a video.
    pub video: Option<VideoFrame<'a>>,
    /// Relative path without extension under which files of this image are written; unique in a run.
    pub stem: &'a Path,
    /// The pixels; `None` when an earlier run's record is played back and its images are on disk already.
    pub image: Option<&'a RgbImage>,
}

impl Item<'_> {
    /// The image's own relative path: its stem and its extension, `jpg` for the frame of a video.
    pub fn image_name(&self) -> PathBuf {
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
    /// Writes one image's results.
    ///
    /// # Errors
    /// [`SinkError`] names the file; what was written before stays valid.
    fn write(&mut self, item: Item) -> Result<(), SinkError>;

    /// Whether an image's own file is there already. Sinks with one file for all images always rewrite it.
    fn has(&self, _stem: &Path) -> bool {
        true
    }

    /// The video whose frames came last is complete. Without this word it was cut off: damaged, or the run was stopped.
    ///
    /// # Errors
    /// [`SinkError`]; then its file does not appear under its name.
    fn end_video(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Completes and publishes what belongs to all images together.
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
