//! CSV: one row a detection.

use super::{Item, Sink, SinkError, Target};

/// Columns: image, width, height, class, name, confidence, x1, y1, x2, y2.
pub struct CsvSink {
    target: Target,
    has_header: bool,
}

const COLUMNS: [&str; 10] = ["image", "width", "height", "class", "name", "confidence", "x1", "y1", "x2", "y2"];

impl CsvSink {
    /// Writes to `target`.
    pub fn new(target: Target) -> Self {
        Self { target, has_header: false }
    }

    fn row<T: AsRef<[u8]>>(&mut self, fields: impl IntoIterator<Item = T>) -> Result<(), SinkError> {
        let mut row = csv::Writer::from_writer(Vec::new());
        // Writing to memory cannot fail.
        let _ = row.write_record(fields);
        self.target.write(&row.into_inner().unwrap_or_default())
    }

    fn header(&mut self) -> Result<(), SinkError> {
        if std::mem::replace(&mut self.has_header, true) { Ok(()) } else { self.row(COLUMNS) }
    }
}

impl Sink for CsvSink {
    fn write(&mut self, item: Item) -> Result<(), SinkError> {
        self.header()?;
        let record = item.record;
        for detection in &record.detections {
            let bbox = detection.bbox;
            let numbers = [detection.confidence, bbox.x1, bbox.y1, bbox.x2, bbox.y2].map(|number| number.to_string());
            let head = [record.image.clone(), record.width.to_string(), record.height.to_string()];
            let class = [detection.class.to_string(), detection.name.clone()];
            self.row(head.into_iter().chain(class).chain(numbers))?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.header()?;
        self.target.finish()
    }
}
