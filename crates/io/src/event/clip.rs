//! A clip of an event: frames from the ring into a video, in a thread of its own.

use std::io;
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::{ImageFormat, RgbImage};

use super::ring::Reader;
use crate::sink::{SinkError, VideoRecorder};

/// Quality of the frames that wait in memory.
const JPEG_QUALITY: u8 = 85;

/// An image as it waits in memory.
pub(super) fn encode(image: &RgbImage) -> Option<Vec<u8>> {
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, JPEG_QUALITY).encode_image(image).ok()?;
    Some(jpeg)
}

/// Writes what the reader gives; the video lasts from the reader's start to its end.
pub(super) fn record(path: &Path, mut reader: Reader) -> Result<(), SinkError> {
    let broken = |error| SinkError { path: path.to_owned(), source: io::Error::other(error) };
    let mut recorder: Option<VideoRecorder> = None;
    while let Some(frame) = reader.next() {
        let image = image::load_from_memory_with_format(&frame.jpeg, ImageFormat::Jpeg).map_err(broken)?.into_rgb8();
        let recorder = match &mut recorder {
            Some(recorder) => recorder,
            None => recorder.insert(VideoRecorder::start(path, image.dimensions())?),
        };
        recorder.push(&image, frame.time.saturating_sub(reader.start))?;
    }
    recorder.map_or(Ok(()), |recorder| recorder.finish(reader.length()))
}
