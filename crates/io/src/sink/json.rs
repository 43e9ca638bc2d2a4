//! JSON: one object a line, or one array of all.

use super::{Item, Record, Sink, SinkError, Target};

/// One JSON object a line.
pub struct JsonLinesSink {
    target: Target,
}

impl JsonLinesSink {
    /// Writes to `target`.
    pub fn new(target: Target) -> Self {
        Self { target }
    }
}

impl Sink for JsonLinesSink {
    fn write(&mut self, item: Item) -> Result<(), SinkError> {
        let mut line = encode(item.record);
        line.push('\n');
        self.target.write(line.as_bytes())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.target.finish(b"", b"")
    }
}

/// One JSON array with an object an image.
pub struct JsonSink {
    array: JsonArray,
}

impl JsonSink {
    /// Writes to `target`.
    pub fn new(target: Target) -> Self {
        Self { array: JsonArray::new(target) }
    }
}

impl Sink for JsonSink {
    fn write(&mut self, item: Item) -> Result<(), SinkError> {
        self.array.push(&encode(item.record))
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.array.finish()
    }
}

fn encode(record: &Record) -> String {
    // Maps with string keys and finite numbers always encode.
    serde_json::to_string(record).unwrap_or_default()
}

/// Writes an array element by element, so that memory does not grow with it.
pub(super) struct JsonArray {
    target: Target,
    is_empty: bool,
}

impl JsonArray {
    pub(super) fn new(target: Target) -> Self {
        Self { target, is_empty: true }
    }

    /// Adds an encoded element.
    pub(super) fn push(&mut self, element: &str) -> Result<(), SinkError> {
        let separator = if self.is_empty { "[\n" } else { ",\n" };
        self.is_empty = false;
        self.target.write(format!("{separator}{element}").as_bytes())
    }

    pub(super) fn finish(&mut self) -> Result<(), SinkError> {
        self.target.finish(if self.is_empty { b"[]\n" } else { b"\n]\n" }, b"[]\n")
    }
}
