//! YOLO labels: one text file a picture, one line a detection.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Item, Sink, SinkError, path_of, write_atomically};

/// `class x y width height confidence`: centre and size as shares of the picture.
pub struct YoloSink {
    folder: PathBuf,
}

impl YoloSink {
    /// Writes into `folder`, sub-folders mirrored.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }
}

impl Sink for YoloSink {
    fn write(&mut self, item: Item) -> Result<(), SinkError> {
        let (width, height) = (item.record.width as f32, item.record.height as f32);
        write_atomically(&path_of(&self.folder, item.stem, "txt"), |file| {
            for detection in &item.record.detections {
                let bbox = detection.bbox;
                let (x, y) = ((bbox.x1 + bbox.x2) / 2.0 / width, (bbox.y1 + bbox.y2) / 2.0 / height);
                let (w, h) = (bbox.width() / width, bbox.height() / height);
                writeln!(file, "{} {x:.6} {y:.6} {w:.6} {h:.6} {:.6}", detection.class, detection.confidence)?;
            }
            Ok(())
        })
    }

    fn has(&self, stem: &Path) -> bool {
        path_of(&self.folder, stem, "txt").exists()
    }
}
