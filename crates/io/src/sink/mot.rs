//! MOTChallenge's text: what trackeval, motmetrics and `yolo-lat eval --tracks` read.

use std::fmt::Write;
use std::path::PathBuf;

use super::{Item, OutputFolder, Sink, SinkError, Target, path_of};

/// `mot/STEM.txt` for each video, a row a detection: `frame,id,left,top,width,height,confidence,-1,-1,-1`, frames from 1; the id is -1
/// where objects are not followed. Images have none.
pub struct MotSink {
    folder: OutputFolder,
    /// The video that is being written.
    video: Option<(PathBuf, Target)>,
}

impl MotSink {
    /// Writes into `folder`.
    pub fn new(folder: OutputFolder) -> Self {
        Self { folder, video: None }
    }
}

impl Sink for MotSink {
    fn write(&mut self, item: Item) -> Result<(), SinkError> {
        let (Some(video), Some(frame)) = (item.video, item.record.frame) else { return Ok(()) };
        if self.video.as_ref().is_none_or(|(stem, _)| stem != video.stem) {
            self.finish()?;
            let target = Target::file(&self.folder.note(&path_of("mot", video.stem, "txt"))?)?;
            self.video = Some((video.stem.to_owned(), target));
        }
        let mut rows = String::new();
        for detection in &item.record.detections {
            let id = detection.track.as_ref().map_or(-1, |track| track.id as i64);
            let [left, top, width, height] = detection.bbox.xywh();
            let confidence = detection.confidence;
            // Writing to a String cannot fail.
            let _ =
                writeln!(rows, "{},{id},{left:.2},{top:.2},{width:.2},{height:.2},{confidence:.4},-1,-1,-1", frame + 1);
        }
        self.video.as_mut().map_or(Ok(()), |(_, target)| target.write(rows.as_bytes()))
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.video.take().map_or(Ok(()), |(_, mut target)| target.finish(b"", b""))
    }
}
