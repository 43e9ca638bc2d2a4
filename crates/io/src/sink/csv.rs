//! CSV: one row a detection.

use super::{Item, Sink, SinkError, Target};

/// Columns: image, width, height, class, name, confidence, x1, y1, x2, y2; of a run with videos also frame and time (seconds
/// from the video's start), which are empty for pictures.
pub struct CsvSink {
    target: Target,
    videos: bool,
    has_header: bool,
}

const COLUMNS: [&str; 12] =
    ["image", "width", "height", "class", "name", "confidence", "x1", "y1", "x2", "y2", "frame", "time"];

impl CsvSink {
    /// Writes to `target`; `videos` says whether the run has any.
    pub fn new(target: Target, videos: bool) -> Self {
        Self { target, videos, has_header: false }
    }

    fn row(&mut self, fields: &[&str; 12]) -> Result<(), SinkError> {
        let mut row = csv::Writer::from_writer(Vec::new());
        // Writing to memory cannot fail.
        let _ = row.write_record(&fields[..if self.videos { 12 } else { 10 }]);
        self.target.write(&row.into_inner().unwrap_or_default())
    }

    fn header(&mut self) -> Result<(), SinkError> {
        if std::mem::replace(&mut self.has_header, true) { Ok(()) } else { self.row(&COLUMNS) }
    }
}

impl Sink for CsvSink {
    fn write(&mut self, item: Item) -> Result<(), SinkError> {
        self.header()?;
        let record = item.record;
        let (width, height) = (record.width.to_string(), record.height.to_string());
        let frame = record.frame.map(|frame| frame.to_string()).unwrap_or_default();
        let time = record.time_s.map(|seconds| format!("{seconds:.3}")).unwrap_or_default();
        for detection in &record.detections {
            let bbox = detection.bbox;
            let [confidence, x1, y1, x2, y2] =
                [detection.confidence, bbox.x1, bbox.y1, bbox.x2, bbox.y2].map(|number| number.to_string());
            let (class, name) = (detection.class.to_string(), &detection.name);
            let head = [&record.image, &width, &height, &class, name, &confidence, &x1, &y1, &x2, &y2, &frame, &time];
            self.row(&head.map(String::as_str))?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.header()?;
        self.target.finish(b"", b"")
    }
}
