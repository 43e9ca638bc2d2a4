//! Results of `live` as lines.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::json;
use yolo_lat::follow::FollowOptions;
use yolo_lat::sink::{CsvColumns, CsvSink, Item, Record, Sink, Target};
use yolo_lat::zones::counts_in_words;
use yolo_lat_app::live::LiveResult;

use super::arguments::LiveFormat;

/// Results on standard output.
pub(super) struct Lines {
    format: LiveFormat,
    /// Of several sources each line of text names its own.
    several: bool,
    csv: CsvSink,
    /// When the first frame of each source was taken.
    began: Vec<Option<SystemTime>>,
}

impl Lines {
    pub(super) fn new(format: LiveFormat, sources: usize, follow: &FollowOptions) -> Self {
        let columns = CsvColumns { videos: true, tracks: follow.track, zones: !follow.zones.is_empty() };
        let csv = CsvSink::new(Target::stdout(), columns);
        Self { format, several: sources > 1, csv, began: vec![None; sources] }
    }

    /// Whether somebody still reads them.
    pub(super) fn write(&mut self, result: &LiveResult) -> anyhow::Result<bool> {
        let line = match self.format {
            LiveFormat::Jsonl => as_json(result),
            LiveFormat::Text if self.several => format!("{}: {}", result.captured.name, as_text(result)),
            LiveFormat::Text => as_text(result),
            LiveFormat::Csv => return self.write_rows(result),
        };
        let mut output = std::io::stdout().lock();
        match writeln!(output, "{line}").and_then(|()| output.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
            written => Ok(written.map(|()| true)?),
        }
    }

    fn write_rows(&mut self, result: &LiveResult) -> anyhow::Result<bool> {
        let frame = &result.captured.frame;
        let began = *self.began[result.feed].get_or_insert(frame.captured_at);
        let record = Record {
            image: format!("{}#{}", result.captured.name, frame.sequence),
            frame: Some(frame.sequence),
            time_s: Some(frame.captured_at.duration_since(began).unwrap_or_default().as_secs_f64()),
            width: frame.width(),
            height: frame.height(),
            detections: result.detections.clone(),
            counts: result.counts.clone(),
            ..Record::default()
        };
        let nowhere = Path::new("");
        match self.csv.write(Item { record: &record, path: nowhere, video: None, stem: nowhere, image: None }) {
            Err(error) if error.is_broken_pipe() => Ok(false),
            written => Ok(written.map(|()| true)?),
        }
    }

    pub(super) fn finish(&mut self) -> anyhow::Result<()> {
        if self.format == LiveFormat::Csv {
            self.csv.finish().or_else(|error| if error.is_broken_pipe() { Ok(()) } else { Err(error) })?;
        }
        Ok(())
    }
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

/// Since its frame was taken.
pub(super) fn age(result: &LiveResult) -> Duration {
    SystemTime::now().duration_since(result.captured.frame.captured_at).unwrap_or_default()
}

fn as_json(result: &LiveResult) -> String {
    let frame = &result.captured.frame;
    let times = result.times;
    let mut line = json!({
        "frame": frame.sequence, "captured_at": humantime::format_rfc3339_millis(frame.captured_at).to_string(),
        "age_ms": milliseconds(age(result)), "width": frame.width(), "height": frame.height(),
        "detections": result.detections, "skipped": result.skipped, "engine": result.engine,
        "source": result.captured.name,
        "timing_ms": {
            "capture": milliseconds(result.captured.capture), "preprocess": times.preprocess.map(milliseconds),
            "inference": milliseconds(times.inference), "postprocess": times.postprocess.map(milliseconds),
        },
    });
    if !result.counts.is_empty() {
        line["counts"] = json!(result.counts);
    }
    line.to_string()
}

fn as_text(result: &LiveResult) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for detection in &result.detections {
        match counts.iter_mut().find(|(name, _)| *name == detection.name) {
            Some((_, count)) => *count += 1,
            None => counts.push((&detection.name, 1)),
        }
    }
    let found: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
    let lines = counts_in_words(&result.counts);
    let lines = if lines.is_empty() { lines } else { format!("; {lines}") };
    let frame = &result.captured.frame;
    format!(
        "frame {}: {}x{} {found}{lines}, network {:.1} ms, age {:.1} ms",
        frame.sequence,
        frame.width(),
        frame.height(),
        milliseconds(result.times.inference),
        milliseconds(age(result))
    )
}
