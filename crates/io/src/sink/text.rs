//! One readable line an image.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Item, Record, Sink, SinkError, Target};
use crate::zones::counts_in_words;

/// `photo.jpg: 640x480 2 person (0.91, 0.80), 1 dog (0.66), 8.2 ms`; with lines `...; gate 7 in 5 out, 8.2 ms`.
pub struct TextSink {
    target: Target,
}

impl TextSink {
    /// Writes to `target`.
    pub fn new(target: Target) -> Self {
        Self { target }
    }
}

impl Sink for TextSink {
    fn write(&mut self, item: Item) -> Result<(), SinkError> {
        self.target.write(line(item.record).as_bytes())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.target.finish(b"", b"")
    }
}

fn line(record: &Record) -> String {
    let mut by_class: BTreeMap<usize, (&str, Vec<f32>)> = BTreeMap::new();
    for detection in &record.detections {
        by_class.entry(detection.class).or_insert((&detection.name, Vec::new())).1.push(detection.confidence);
    }
    let mut line = format!("{}: {}x{} ", record.image, record.width, record.height);
    let classes: Vec<String> = by_class
        .values()
        .map(|(name, confidences)| {
            let list: Vec<String> = confidences.iter().map(|confidence| format!("{confidence:.2}")).collect();
            format!("{} {name} ({})", confidences.len(), list.join(", "))
        })
        .collect();
    line.push_str(if classes.is_empty() { "no detections" } else { "" });
    line.push_str(&classes.join(", "));
    // Writing to a String cannot fail.
    if !record.counts.is_empty() {
        let _ = write!(line, "; {}", counts_in_words(&record.counts));
    }
    if let Some(timing) = &record.timing_ms {
        let _ = write!(line, ", {:.1} ms", timing.total());
    }
    line.push('\n');
    line
}
