//! Pictures with boxes drawn on them, and the objects cut out.

use std::io::{BufWriter, Error};
use std::path::{Path, PathBuf};
use std::time::Duration;

use image::codecs::jpeg::JpegEncoder;
use image::{GenericImageView, RgbImage};

use super::draw::annotate;
use super::names::folder_name;
use super::video::VideoRecorder;
use super::{Item, Sink, SinkError, VideoFrame, path_of, with_ending, write_atomically};

const JPEG_QUALITY: u8 = 90;

/// Writes each picture with its detections as a JPEG, each video as a video.
pub struct AnnotatedSink {
    folder: PathBuf,
    labels: bool,
    video: Option<Video>,
}

/// The video that is being written.
struct Video {
    stem: PathBuf,
    recorder: VideoRecorder,
    length: Option<Duration>,
}

impl AnnotatedSink {
    /// Writes into `folder`, sub-folders mirrored; `labels` says whether names and confidences are drawn.
    pub fn new(folder: PathBuf, labels: bool) -> Self {
        Self { folder, labels, video: None }
    }
}

impl Sink for AnnotatedSink {
    fn write(&mut self, item: Item) -> Result<(), SinkError> {
        let Some(picture) = item.picture else { return Ok(()) };
        let mut picture = picture.clone();
        annotate(&mut picture, &item.record.detections, self.labels);
        let Some(VideoFrame { stem, time, length }) = item.video else {
            return write_jpeg(&path_of(&self.folder, item.stem, "jpg"), &picture);
        };
        if self.video.as_ref().is_none_or(|video| video.stem != stem) {
            self.finish()?;
            let recorder = VideoRecorder::start(&path_of(&self.folder, stem, "mp4"), picture.dimensions())?;
            self.video = Some(Video { stem: stem.to_owned(), recorder, length });
        }
        match &mut self.video {
            Some(video) => video.recorder.push(&picture, time),
            None => Ok(()),
        }
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.video.take().map_or(Ok(()), |video| video.recorder.finish(video.length))
    }

    fn has(&self, stem: &Path) -> bool {
        path_of(&self.folder, stem, "jpg").exists()
    }
}

/// Writes each detection as a JPEG of its own: `CLASS/STEM_INDEX.jpg`.
pub struct CropSink {
    folder: PathBuf,
}

impl CropSink {
    /// Writes into `folder`, a sub-folder a class.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }
}

impl Sink for CropSink {
    fn write(&mut self, item: Item) -> Result<(), SinkError> {
        let Some(picture) = item.picture else { return Ok(()) };
        for (index, detection) in item.record.detections.iter().enumerate() {
            let bbox = detection.bbox.clip(picture.width() as f32, picture.height() as f32);
            let (left, top) = (bbox.x1.floor() as u32, bbox.y1.floor() as u32);
            let (width, height) = (bbox.x2.ceil() as u32 - left, bbox.y2.ceil() as u32 - top);
            if width == 0 || height == 0 {
                continue;
            }
            let crop = picture.view(left, top, width, height).to_image();
            let folder = self.folder.join(folder_name(&detection.name, detection.class));
            write_jpeg(&with_ending(&folder, item.stem, &format!("_{index}.jpg")), &crop)?;
        }
        Ok(())
    }
}

/// Writes a picture as JPEG.
///
/// # Errors
/// [`SinkError`] names the file; no part of it is left behind.
pub fn write_jpeg(path: &Path, picture: &RgbImage) -> Result<(), SinkError> {
    write_atomically(path, |file: &mut BufWriter<_>| {
        JpegEncoder::new_with_quality(file, JPEG_QUALITY).encode_image(picture).map_err(Error::other)
    })
}
