//! The first stage: pictures decoded ahead, videos frame by frame.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

use image::RgbImage;

use super::{Input, Known};
use crate::frame::Frame;
use crate::sink::Record;
use crate::source::{FrameSource, SourceError, VideoSource, holds_video, open_image};

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
    if holds_video(&input.path) {
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

/// Gives each frame to `take` with its time in the video, the video's length if it is known, and how long decoding took, until
/// `take` has enough or `stop` is set.
pub(super) fn decode_video(
    path: &Path,
    timeout: Duration,
    stop: &AtomicBool,
    mut take: impl FnMut(Frame, Duration, Option<Duration>, Duration) -> bool,
) -> Result<(), SourceError> {
    let mut video = VideoSource::open(path, false)?;
    video.set_timeout(timeout);
    loop {
        let start = Instant::now();
        let Some(frame) = video.next_frame(stop)? else { return Ok(()) };
        if !take(frame, video.time(), video.length(), start.elapsed()) {
            return Ok(());
        }
    }
}
