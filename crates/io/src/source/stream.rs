//! Sources that go on: what a capture thread asks for one picture after the other.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::camera::{CameraRequest, CameraSource};
use super::folder::{Found, files_in};
use super::images::{SourceError, is_picture, open_image};
use super::synthetic::SyntheticSource;
use super::url::{as_url, display_name};
use super::video::{STREAM_TIMEOUT, VideoSource, holds_video};
use crate::frame::Frame;

/// How long one picture of a slide show stays.
const SLIDE: Duration = Duration::from_secs(2);

/// Something that gives frames until it ends.
pub trait FrameSource {
    /// What it is, for people.
    fn description(&self) -> String;

    /// The next frame, when its time has come: sequence numbers rise. `None` at the end, or soon after `stop` is set.
    ///
    /// # Errors
    /// [`SourceError`] says what went wrong; asking again tries again.
    fn next_frame(&mut self, stop: &AtomicBool) -> Result<Option<Frame>, SourceError>;

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
    Camera(CameraRequest),
    /// A video, a picture or a folder of pictures.
    Path(PathBuf),
    /// A network stream.
    Url {
        /// As ffmpeg opens it.
        url: String,
        /// How long it may give no picture.
        timeout: Duration,
    },
}

impl std::str::FromStr for SourceRequest {
    type Err = String;

    /// `auto`, `synthetic`, an address, the number or device of a camera, or a path.
    fn from_str(text: &str) -> Result<Self, String> {
        let path = Path::new(text);
        match text {
            "auto" => Ok(Self::Auto),
            "synthetic" => Ok(Self::Synthetic),
            _ if as_url(path).is_some() => Ok(Self::Url { url: text.to_owned(), timeout: STREAM_TIMEOUT }),
            _ if is_device(path) || (text.parse::<u32>().is_ok() && !path.exists()) => {
                Ok(Self::Camera(CameraRequest::of(text)))
            }
            _ if path.exists() => Ok(Self::Path(path.to_owned())),
            _ => Err("no such file or folder; or an address, auto, synthetic, --camera NAME".into()),
        }
    }
}

/// Whether a path is a device, as cameras are.
fn is_device(path: &Path) -> bool {
    #[cfg(unix)]
    let device = std::fs::metadata(path)
        .is_ok_and(|metadata| std::os::unix::fs::FileTypeExt::is_char_device(&metadata.file_type()));
    #[cfg(not(unix))]
    let device = false;
    device
}

impl std::fmt::Display for SourceRequest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Synthetic => formatter.write_str("synthetic scene"),
            Self::Camera(request) => write!(formatter, "camera {}", request.device),
            Self::Path(path) => path.display().fmt(formatter),
            Self::Url { url, .. } => formatter.write_str(&display_name(url.as_ref())),
        }
    }
}

/// Opens a source. Cameras are only looked for: they open with their first frame, in the capture thread.
///
/// # Errors
/// [`SourceError`] for a path that is nothing of the kind.
pub fn open_source(request: &SourceRequest) -> Result<Box<dyn FrameSource>, SourceError> {
    Ok(match request {
        SourceRequest::Synthetic => Box::new(SyntheticSource::new()),
        SourceRequest::Camera(request) => Box::new(CameraSource::new(request.clone())),
        SourceRequest::Path(path) if path.is_dir() => Box::new(Slides::of_folder(path)?),
        SourceRequest::Path(path) if holds_video(path) => Box::new(VideoSource::open(path, true)?),
        SourceRequest::Url { url, timeout } => {
            let mut stream = VideoSource::open(url.as_ref(), true)?;
            stream.set_timeout(*timeout);
            Box::new(stream)
        }
        SourceRequest::Path(path) => Box::new(Slides { pictures: vec![path.clone()], ..Slides::default() }),
        SourceRequest::Auto => match super::camera::cameras().first() {
            Some(camera) => Box::new(CameraSource::new(CameraRequest::of(&camera.path))),
            None => Box::new(SyntheticSource::new()),
        },
    })
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

/// Pictures one after the other, round and round.
#[derive(Default)]
struct Slides {
    pictures: Vec<PathBuf>,
    shown: u64,
    due: Option<Instant>,
}

impl Slides {
    fn of_folder(folder: &Path) -> Result<Self, SourceError> {
        let Found { files: pictures, errors } = files_in(folder, false, None, is_picture);
        if let Some((_, error)) = errors.into_iter().next() {
            return Err(error.into());
        }
        if pictures.is_empty() {
            return Err(SourceError::NoPictures);
        }
        Ok(Self { pictures, ..Self::default() })
    }
}

impl FrameSource for Slides {
    fn description(&self) -> String {
        match self.pictures.as_slice() {
            [one] => one.display().to_string(),
            many => format!("{} pictures", many.len()),
        }
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
        let path = &self.pictures[sequence as usize % self.pictures.len()];
        let named = |error| SourceError::At { path: path.clone(), error: Box::new(error) };
        let pixels = open_image(path).map_err(named)?;
        Ok(Some(Frame { pixels, sequence, captured_at: SystemTime::now() }))
    }

    /// The next picture may be better.
    fn can_recover(&self) -> bool {
        self.pictures.len() > 1
    }
}
