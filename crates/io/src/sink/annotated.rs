//! Images and videos with boxes drawn on them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use image::RgbImage;

use super::draw::{Annotator, DrawOptions};
use super::images::write_jpeg;
use super::video::VideoRecorder;
use super::{Item, OutputFolder, Sink, SinkError, VideoFrame, path_of};

/// Writes each image with its detections as a JPEG, each video as a video.
pub struct AnnotatedSink {
    folder: OutputFolder,
    place: &'static str,
    annotator: Annotator,
    video: Option<Video>,
    canvas: RgbImage,
}

/// The video that is being written.
struct Video {
    stem: PathBuf,
    recorder: VideoRecorder,
    length: Option<Duration>,
}

impl AnnotatedSink {
    /// Writes into `place` in `folder`, sub-folders mirrored.
    pub fn new(folder: OutputFolder, place: &'static str, drawing: DrawOptions) -> Self {
        Self { folder, place, annotator: Annotator::new(drawing), video: None, canvas: RgbImage::default() }
    }
}

impl Sink for AnnotatedSink {
    fn write(&mut self, item: Item) -> Result<(), SinkError> {
        let Some(image) = item.image else { return Ok(()) };
        let is_next = item.video.zip(self.video.as_ref()).is_some_and(|(frame, video)| frame.stem == video.stem);
        if !is_next {
            self.annotator = Annotator::new(self.annotator.options().clone());
        }
        self.canvas.clone_from(image);
        self.annotator.draw(&mut self.canvas, &item.record.detections, &item.record.counts);
        let Some(VideoFrame { stem, time, length }) = item.video else {
            return write_jpeg(&self.folder.note(&path_of(self.place, item.stem, "jpg"))?, &self.canvas);
        };
        if !is_next {
            self.finish()?;
            let path = self.folder.note(&path_of(self.place, stem, "mp4"))?;
            let recorder = VideoRecorder::start(&path, self.canvas.dimensions())?;
            self.video = Some(Video { stem: stem.to_owned(), recorder, length });
        }
        match &mut self.video {
            Some(video) => video.recorder.push(&self.canvas, time),
            None => Ok(()),
        }
    }

    fn end_video(&mut self) -> Result<(), SinkError> {
        self.video.take().map_or(Ok(()), |video| video.recorder.finish(video.length))
    }

    /// A video that is not complete ends with its last frame.
    fn finish(&mut self) -> Result<(), SinkError> {
        self.video.take().map_or(Ok(()), |video| video.recorder.finish(None))
    }

    fn has(&self, stem: &Path) -> bool {
        self.folder.path(&path_of(self.place, stem, "jpg")).exists()
    }
}
