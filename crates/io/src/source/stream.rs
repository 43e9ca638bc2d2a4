//! Sources that go on: what a capture thread asks for one picture after the other.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::camera::{CameraRequest, CameraSource};
use super::images::{IMAGE_EXTENSIONS, SourceError, open_image};
use super::synthetic::SyntheticSource;
use super::video::{VideoSource, is_video};
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
}

impl std::fmt::Display for SourceRequest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Synthetic => formatter.write_str("synthetic scene"),
            Self::Camera(request) => write!(formatter, "camera {}", request.device),
            Self::Path(path) => path.display().fmt(formatter),
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
        SourceRequest::Path(path) if is_video(path) => Box::new(VideoSource::open(path, true)?),
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
        let mut pictures: Vec<PathBuf> = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
        pictures.retain(|path| {
            let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
            path.is_file() && extension.is_some_and(|extension| IMAGE_EXTENSIONS.contains(&extension.as_str()))
        });
        pictures.sort();
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
