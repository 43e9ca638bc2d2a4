//! The first stage: pictures decoded ahead, videos frame by frame.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

use image::RgbImage;

use super::{Input, Known};
use crate::frame::Frame;
use crate::sink::Record;
use crate::source::{FrameSource, SourceError, VideoSource, is_video, open_image};

/// Frames a second that are assumed where a video does not say.
const USUAL_RATE: f64 = 25.0;

/// An input on its way from the loaders to the network.
pub(super) enum Loaded {
    /// Decoded, with the time that took.
    Picture(Frame, Duration),
    /// Completed by an earlier run.
    Known(Record),
    /// Decoded frame by frame when its turn comes.
    Video,
    Failed(String),
}

impl Loaded {
    /// What the network is to see.
    pub(super) fn image(&self) -> Option<&RgbImage> {
        match self {
            Self::Picture(frame, _) => Some(&frame.pixels),
            Self::Known(_) | Self::Video | Self::Failed(_) => None,
        }
    }
}

pub(super) fn load(input: &Input, index: usize, known: Option<&Known>) -> Loaded {
    if let Some(known) = known
        && let Some(record) = known.journal.find(&input.name())
        && known.sinks.iter().all(|sink| sink.has(&input.stem))
    {
        return Loaded::Known(record);
    }
    if is_video(&input.path) {
        return Loaded::Video;
    }
    let start = Instant::now();
    match open_image(&input.path) {
        Ok(pixels) => {
            let frame = Frame { pixels, sequence: index as u64, captured_at: SystemTime::now() };
            Loaded::Picture(frame, start.elapsed())
        }
        Err(error) => Loaded::Failed(error.to_string()),
    }
}

/// Gives each frame to `take` with its time in the video in seconds, the frames a second and how long decoding took, until
/// `take` has enough or `stop` is set.
pub(super) fn decode_video(
    path: &Path,
    stop: &AtomicBool,
    mut take: impl FnMut(Frame, f64, f64, Duration) -> bool,
) -> Result<(), SourceError> {
    let mut video = VideoSource::open(path, false)?;
    loop {
        let start = Instant::now();
        let Some(frame) = video.next_frame(stop)? else { return Ok(()) };
        let rate = video.rate().unwrap_or(USUAL_RATE);
        let seconds = frame.sequence as f64 / rate;
        if !take(frame, seconds, rate, start.elapsed()) {
            return Ok(());
        }
    }
}
