//! The first stage: images decoded ahead, videos frame by frame.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

use image::RgbImage;

use super::{Input, Known};
use crate::frame::Frame;
use crate::sink::Record;
use crate::source::{SourceError, SourceOptions, SourceRequest, decode_image, holds_video, open_image, open_source};

/// An input on its way from the loaders to the network.
pub(super) enum Loaded {
    /// Decoded, with the time that took.
    Image(Frame, Duration),
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
            Self::Image(frame, _) => Some(&frame.pixels),
            Self::Known(_) | Self::Video | Self::Failed(_) => None,
        }
    }
}

pub(super) fn load(input: &Input, index: usize, known: Option<&Known>) -> Loaded {
    if let Some(known) = known
        && input.contents.is_none()
        && let Some(record) = known.journal.find(&input.name())
        && known.sinks.iter().all(|sink| sink.has(&input.stem))
    {
        return Loaded::Known(record);
    }
    if input.contents.is_none() && holds_video(&input.path) {
        return Loaded::Video;
    }
    let start = Instant::now();
    match input.contents.as_deref().map_or_else(|| open_image(&input.path), decode_image) {
        Ok(pixels) => {
            let frame = Frame { pixels, sequence: index as u64, captured_at: SystemTime::now() };
            Loaded::Image(frame, start.elapsed())
        }
        Err(error) => Loaded::Failed(error.to_string()),
    }
}

/// Gives each frame to `take` with its time in the video or since the first one, the video's length if it is known, and how long
/// decoding took, until `take` has enough or `stop` is set.
pub(super) fn decode_video(
    path: &Path,
    options: &SourceOptions,
    stop: &AtomicBool,
    mut take: impl FnMut(Frame, Duration, Option<Duration>, Duration) -> bool,
) -> Result<(), SourceError> {
    let request = SourceRequest::of_stream(path).map_err(SourceError::Camera)?;
    let mut source = open_source(&request.unwrap_or_else(|| SourceRequest::Path(path.to_owned())), options)?;
    let mut first = None;
    loop {
        let start = Instant::now();
        let Some(frame) = source.next_frame(stop)? else { return Ok(()) };
        let first = *first.get_or_insert(frame.captured_at);
        let time = source.time().unwrap_or_else(|| frame.captured_at.duration_since(first).unwrap_or_default());
        if !take(frame, time, source.length(), start.elapsed()) {
            return Ok(());
        }
    }
}
