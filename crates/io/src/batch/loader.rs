//! The first stage: images decoded ahead, videos frame by frame.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

use image::RgbImage;

use super::{Input, Known};
use crate::frame::Frame;
use crate::sink::Record;
use crate::source::{
    Budget, Share, SourceError, SourceOptions, SourceRequest, decode_image, holds_video, memory_of, open_source, read,
};

/// An input on its way from the loaders to the network.
pub(super) enum Loaded {
    /// Decoded, with the time and memory that took.
    Image(Frame, Duration, Share),
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
            Self::Image(frame, ..) => Some(&frame.pixels),
            Self::Known(_) | Self::Video | Self::Failed(_) => None,
        }
    }
}

pub(super) fn load(input: &Input, index: usize, known: Option<&Known>, budget: &Arc<Budget>) -> Loaded {
    let start = Instant::now();
    let file = contents(input, known);
    let read = start.elapsed();
    // Whatever it is: those after it wait for its turn.
    let share = budget.take(index, file.as_ref().map_or(0, |bytes| memory_of(bytes)));
    let start = Instant::now();
    match (file.and_then(|bytes| decode_image(&bytes).map_err(failed)), share) {
        (Ok(pixels), Some(mut share)) => {
            share.keep(pixels.as_raw().len() as u64);
            let frame = Frame { pixels, sequence: index as u64, captured_at: SystemTime::now() };
            Loaded::Image(frame, read + start.elapsed(), share)
        }
        (Err(other), _) => *other,
        (Ok(_), None) => Loaded::Failed("the run has ended".into()),
    }
}

/// The bytes of an image, or what else an input is.
fn contents<'a>(input: &'a Input, known: Option<&Known>) -> Result<Cow<'a, [u8]>, Box<Loaded>> {
    if let Some(contents) = &input.contents {
        return Ok(Cow::Borrowed(contents));
    }
    if let Some(known) = known
        && let Some(record) = known.journal.find(&input.name())
        && known.sinks.iter().all(|sink| sink.has(&input.stem))
    {
        return Err(Box::new(Loaded::Known(record)));
    }
    if holds_video(&input.path) {
        return Err(Box::new(Loaded::Video));
    }
    read(&input.path).map(Cow::Owned).map_err(failed)
}

fn failed(error: SourceError) -> Box<Loaded> {
    Box::new(Loaded::Failed(error.to_string()))
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
