//! YOLO labels: one text file an image, one line a detection, and the names of the classes.

use std::io::Write;
use std::path::Path;

use super::{Item, OutputFolder, Sink, SinkError, path_of};

/// `labels/STEM.txt` with lines `class x y width height`: centre and size as shares of the image. `data.yaml` and
/// `classes.txt` name the classes, so that with the images in `images/` the folder is a data set.
pub struct YoloSink {
    folder: OutputFolder,
    classes: Vec<String>,
    confidence: bool,
}

impl YoloSink {
    /// Writes into `folder`; `confidence` adds it as a sixth column, which many readers of labels refuse.
    pub fn new(folder: OutputFolder, classes: Vec<String>, confidence: bool) -> Self {
        Self { folder, classes, confidence }
    }
}

impl Sink for YoloSink {
    fn write(&mut self, item: Item) -> Result<(), SinkError> {
        let (width, height) = (f64::from(item.record.width), f64::from(item.record.height));
        self.folder.write(&path_of("labels", item.stem, "txt"), |file| {
            for detection in &item.record.detections {
                let [x1, y1, x2, y2] = detection.bbox.corners().map(f64::from);
                let (x, y) = ((x1 + x2) / 2.0 / width, (y1 + y2) / 2.0 / height);
                let (w, h) = ((x2 - x1) / width, (y2 - y1) / height);
                write!(file, "{} {x:.6} {y:.6} {w:.6} {h:.6}", detection.class)?;
                if self.confidence {
                    write!(file, " {:.6}", detection.confidence)?;
                }
                writeln!(file)?;
            }
            Ok(())
        })
    }

    fn has(&self, stem: &Path) -> bool {
        self.folder.path(&path_of("labels", stem, "txt")).exists()
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.folder.write(Path::new("data.yaml"), |file| {
            writeln!(file, "path: .\ntrain: images\nval: images\nnc: {}\nnames:", self.classes.len())?;
            for (class, name) in self.classes.iter().enumerate() {
                // A JSON string is a YAML string, whatever is in it: yes, 12, a colon.
                writeln!(file, "  {class}: {}", serde_json::to_string(name)?)?;
            }
            Ok(())
        })?;
        self.folder.write(Path::new("classes.txt"), |file| {
            for (class, name) in self.classes.iter().enumerate() {
                // A line each: none may be empty, or the names after it would move up.
                let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
                writeln!(file, "{}", if name.is_empty() { format!("class{class}") } else { name })?;
            }
            Ok(())
        })
    }
}
