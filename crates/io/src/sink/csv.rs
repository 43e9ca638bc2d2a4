//! CSV: one row a detection.

use super::{Item, Sink, SinkError, Target};

/// Columns: image, width, height, class, name, confidence, x1, y1, x2, y2, and those of [`CsvColumns`].
pub struct CsvSink {
    target: Target,
    columns: CsvColumns,
    has_header: bool,
}

/// Columns that not every run has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CsvColumns {
    /// The run has videos: frame and time (seconds from the video's start), which are empty for images.
    pub videos: bool,
    /// Objects are followed: id, age (seconds) and speed (pixels a second), which are empty for what is not.
    pub tracks: bool,
    /// There are zones: those that the object is in, with `;` between them.
    pub zones: bool,
}

const COLUMNS: [&str; 10] = ["image", "width", "height", "class", "name", "confidence", "x1", "y1", "x2", "y2"];
const OF_VIDEOS: [&str; 2] = ["frame", "time"];
const OF_TRACKS: [&str; 3] = ["id", "age", "speed"];
const OF_ZONES: [&str; 1] = ["zones"];

impl CsvSink {
    /// Writes to `target`.
    pub fn new(target: Target, columns: CsvColumns) -> Self {
        Self { target, columns, has_header: false }
    }

    fn row(
        &mut self,
        usual: [&str; 10],
        of_videos: [&str; 2],
        of_tracks: [&str; 3],
        of_zones: [&str; 1],
    ) -> Result<(), SinkError> {
        let CsvColumns { videos, tracks, zones } = self.columns;
        let fields = usual.into_iter().chain(of_videos.into_iter().filter(|_| videos));
        let fields = fields.chain(of_tracks.into_iter().filter(|_| tracks));
        let mut row = csv::Writer::from_writer(Vec::new());
        // Writing to memory cannot fail.
        let _ = row.write_record(fields.chain(of_zones.into_iter().filter(|_| zones)));
        self.target.write(&row.into_inner().unwrap_or_default())
    }

    fn header(&mut self) -> Result<(), SinkError> {
        if std::mem::replace(&mut self.has_header, true) {
            return Ok(());
        }
        self.row(COLUMNS, OF_VIDEOS, OF_TRACKS, OF_ZONES)
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
            let usual = [&record.image, &width, &height, &class, name, &confidence, &x1, &y1, &x2, &y2];
            let track = detection.track.as_ref();
            let of_track = track.map(|track| [track.id.to_string(), track.age.to_string(), track.speed.to_string()]);
            let (of_track, zones) = (of_track.unwrap_or_default(), detection.zones.join(";"));
            let of_track = of_track.each_ref().map(String::as_str);
            self.row(usual.map(String::as_str), [&frame, &time], of_track, [&zones])?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.header()?;
        self.target.finish(b"", b"")
    }
}
