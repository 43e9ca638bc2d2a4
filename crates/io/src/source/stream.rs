//! Sources that go on: what a capture thread asks for one image after the other.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

#[cfg(feature = "camera")]
use super::camera::{CameraRequest, CameraSource};
use super::folder::{Found, files_in};
use super::images::{SourceError, decode_image, is_image, open_image};
use super::screen::ScreenRequest;
use super::synthetic::SyntheticSource;
use super::url::{as_url, display_name};
use super::video::{STREAM_TIMEOUT, VideoSource, holds_video};
use crate::frame::Frame;

/// How long one image of a slide show stays.
const SLIDE: Duration = Duration::from_secs(2);
/// What is shown where no camera is.
const NO_CAMERA: &str = "no camera: synthetic scene";

/// Something that gives frames until it ends.
pub trait Source {
    /// What it is, for people.
    fn description(&self) -> String;

    /// The next frame, when its time has come: sequence numbers rise. `None` at the end, or soon after `stop` is set.
    ///
    /// # Errors
    /// [`SourceError`] says what went wrong; asking again tries again.
    fn next_frame(&mut self, stop: &AtomicBool) -> Result<Option<Frame>, SourceError>;

    /// Time of the last frame from the start, where the source says so itself.
    fn time(&self) -> Option<Duration> {
        None
    }

    /// How long it lasts, if its file says so and a frame has come.
    fn length(&self) -> Option<Duration> {
        None
    }

    /// Whether asking again after an error makes sense: a camera may come back, a damaged file will not.
    fn can_recover(&self) -> bool {
        false
    }
}

/// Which source is wanted.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceRequest {
    /// The first camera that delivers, else the synthetic scene.
    Auto,
    /// A moving scene of sample photographs.
    Synthetic,
    /// A camera.
    #[cfg(feature = "camera")]
    Camera(CameraRequest),
    /// A screen, or a part of it.
    Screen(ScreenRequest),
    /// A video, an image or a folder of images.
    Path(PathBuf),
    /// Images one after the other.
    Images(Vec<PathBuf>),
    /// An image that came on standard input, as a file would hold it.
    Contents(Arc<[u8]>),
    /// A network stream, as ffmpeg opens it.
    Url(String),
}

impl SourceRequest {
    /// What is no file: an address, `screen`, the number or device of a camera, `synthetic`. Where a file or folder is called
    /// so, that is meant.
    ///
    /// # Errors
    /// In words: an area of the screen that is none, a part that this build lacks.
    pub fn of_stream(path: &Path) -> Result<Option<Self>, String> {
        if let Some(url) = as_url(path) {
            return Ok(Some(Self::Url(url.to_owned())));
        }
        let Some(text) = path.to_str() else { return Ok(None) };
        let is_named = || path.exists();
        Ok(match text {
            _ if is_device(path) => Some(camera(text)?),
            "synthetic" if !is_named() => Some(Self::Synthetic),
            _ if text.parse::<u32>().is_ok() && !is_named() => Some(camera(text)?),
            _ if ScreenRequest::is_meant(text) && !is_named() => Some(Self::Screen(text.parse()?)),
            _ => None,
        })
    }
}

impl std::str::FromStr for SourceRequest {
    type Err = String;

    /// `auto`, what [`SourceRequest::of_stream`] reads, or the path of something that is there.
    fn from_str(text: &str) -> Result<Self, String> {
        let path = Path::new(text);
        match Self::of_stream(path)? {
            Some(stream) => Ok(stream),
            None if path.exists() => Ok(Self::Path(path.to_owned())),
            None if text == "auto" => Ok(Self::Auto),
            None => Err(super::url::unknown_scheme(path).unwrap_or_else(|| {
                "no such file or folder; or the number of a camera, an address (rtsp://, http://), screen, synthetic"
                    .into()
            })),
        }
    }
}

#[cfg(feature = "camera")]
fn camera(device: &str) -> Result<SourceRequest, String> {
    Ok(SourceRequest::Camera(CameraRequest::of(device)))
}

#[cfg(not(feature = "camera"))]
fn camera(device: &str) -> Result<SourceRequest, String> {
    Err(format!("camera {device}: this build of yolo-lat lacks the feature \"camera\""))
}

/// Whether a path is a device, as cameras are.
#[cfg(unix)]
fn is_device(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_char_device())
}

/// None is a path elsewhere.
#[cfg(not(unix))]
fn is_device(_: &Path) -> bool {
    false
}

impl std::fmt::Display for SourceRequest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Synthetic => formatter.write_str("synthetic scene"),
            #[cfg(feature = "camera")]
            Self::Camera(request) => write!(formatter, "camera {}", request.device),
            Self::Screen(request) => request.fmt(formatter),
            Self::Path(path) => path.display().fmt(formatter),
            Self::Images(images) => write!(formatter, "{} images", images.len()),
            Self::Contents(_) => formatter.write_str("-"),
            Self::Url(url) => formatter.write_str(&display_name(url.as_ref())),
        }
    }
}

/// How sources are read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SourceOptions {
    /// How long a network stream may give no image.
    pub timeout: Duration,
    /// Of videos, streams, cameras and screens every so manieth frame is taken; at least 1.
    pub stride: u64,
    /// As things happen: a video at its own pace, a stream without end. Otherwise each frame as soon as it is there, until the
    /// stream ends.
    pub live: bool,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self { timeout: STREAM_TIMEOUT, stride: 1, live: true }
    }
}

/// Opens a source. Cameras are only looked for: they open with their first frame, in the capture thread.
///
/// # Errors
/// [`SourceError`] for a path that is nothing of the kind.
pub fn open_source(request: &SourceRequest, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
    let every = |source: Box<dyn Source>| -> Box<dyn Source> {
        if options.stride == 1 { source } else { Box::new(Strided { source, stride: options.stride, asked: 0 }) }
    };
    Ok(match request {
        SourceRequest::Synthetic => every(Box::<SyntheticSource>::default()),
        #[cfg(feature = "camera")]
        SourceRequest::Camera(request) => every(Box::new(CameraSource::new(request.clone()))),
        SourceRequest::Path(path) if path.is_dir() => Box::new(Slides::of_folder(path)?),
        SourceRequest::Path(path) if holds_video(path) => Box::new(VideoSource::open(path, options)?),
        SourceRequest::Url(url) => Box::new(VideoSource::open(url.as_ref(), options)?),
        SourceRequest::Screen(request) => Box::new(VideoSource::of_screen(request.clone(), options)?),
        SourceRequest::Path(path) => Box::new(Slides { images: vec![path.clone()], ..Slides::default() }),
        SourceRequest::Images(images) => Box::new(Slides { images: images.clone(), ..Slides::default() }),
        SourceRequest::Contents(contents) => {
            Box::new(Slides { images: vec!["-".into()], contents: Some(contents.clone()), ..Slides::default() })
        }
        SourceRequest::Auto => {
            #[cfg(feature = "camera")]
            if let Some(camera) = super::camera::cameras().first() {
                return Ok(every(Box::new(CameraSource::new(CameraRequest::of(&camera.path)))));
            }
            log::warn!("{NO_CAMERA}");
            every(Box::new(SyntheticSource::called(NO_CAMERA)))
        }
    })
}

/// Every so manieth frame of a source that cannot leave them out itself.
struct Strided {
    source: Box<dyn Source>,
    stride: u64,
    /// Frames so far, those that were left out too.
    asked: u64,
}

impl Source for Strided {
    fn description(&self) -> String {
        self.source.description()
    }

    fn next_frame(&mut self, stop: &AtomicBool) -> Result<Option<Frame>, SourceError> {
        loop {
            let frame = self.source.next_frame(stop)?;
            let is_wanted = self.asked.is_multiple_of(self.stride);
            self.asked += 1;
            if is_wanted || frame.is_none() {
                return Ok(frame);
            }
        }
    }

    fn can_recover(&self) -> bool {
        self.source.can_recover()
    }
}

/// Waits until `due`, a little at a time; false if `stop` was set.
pub(super) fn wait_until(due: Instant, stop: &AtomicBool) -> bool {
    const STEP: Duration = Duration::from_millis(20);
    loop {
        if stop.load(Ordering::Relaxed) {
            return false;
        }
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(STEP));
    }
}

/// Images one after the other, round and round.
#[derive(Default)]
struct Slides {
    images: Vec<PathBuf>,
    /// Of the only image, where it is no file.
    contents: Option<Arc<[u8]>>,
    shown: u64,
    due: Option<Instant>,
}

impl Slides {
    fn of_folder(folder: &Path) -> Result<Self, SourceError> {
        let Found { files: images, errors } = files_in(folder, false, None, is_image);
        if let Some((_, error)) = errors.into_iter().next() {
            return Err(error.into());
        }
        if images.is_empty() {
            return Err(SourceError::NoImages);
        }
        Ok(Self { images, ..Self::default() })
    }
}

impl Source for Slides {
    /// The image that is seen.
    fn description(&self) -> String {
        self.images[self.shown.saturating_sub(1) as usize % self.images.len()].display().to_string()
    }

    fn next_frame(&mut self, stop: &AtomicBool) -> Result<Option<Frame>, SourceError> {
        if let Some(due) = self.due
            && !wait_until(due, stop)
        {
            return Ok(None);
        }
        self.due = Some(Instant::now() + SLIDE);
        let sequence = self.shown;
        self.shown += 1;
        let path = &self.images[sequence as usize % self.images.len()];
        let named = |error| SourceError::At { path: path.clone(), error: Box::new(error) };
        let pixels = self.contents.as_deref().map_or_else(|| open_image(path), decode_image).map_err(named)?;
        Ok(Some(Frame { pixels, sequence, captured_at: SystemTime::now() }))
    }

    /// The next image may be better.
    fn can_recover(&self) -> bool {
        self.images.len() > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_told_from_files() {
        let told =
            |text: &str| SourceRequest::of_stream(text.as_ref()).map(|found| found.map(|found| found.to_string()));
        let named = |name: &str| Ok(Some(name.to_owned()));
        assert_eq!(told("synthetic"), named("synthetic scene"));
        #[cfg(feature = "camera")]
        assert_eq!((told("0"), told("12")), (named("camera 0"), named("camera 12")));
        assert_eq!(told("screen:1"), named("screen:1"));
        #[cfg(feature = "video")]
        assert_eq!(told("rtsp://me:secret@h/1"), named("rtsp://h/1"));
        for path in ["a.mp4", "screens", "-1", "auto", "-", "list.txt", "../io"] {
            assert_eq!(told(path), Ok(None), "{path}");
        }
        assert!(told("screen:left").unwrap_err().contains("screen:0:640x480+100+50"));
        // What is called so is meant.
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("0");
        std::fs::write(&file, "").unwrap();
        assert_eq!(told(file.to_str().unwrap()), Ok(None));
        let error = "ftp://h/a.mp4".parse::<SourceRequest>().unwrap_err();
        assert!(error.starts_with("addresses of ftp:// are not read"), "{error}");
    }
}
