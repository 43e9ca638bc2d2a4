//! Which exporters a run writes to.

use std::path::PathBuf;

use anyhow::bail;
use clap::ValueEnum;
use yolo_lat::sink::{
    AnnotatedSink, CocoSink, CropSink, CsvSink, JsonLinesSink, JsonSink, Sink, SinkError, Target, TextSink, VocSink,
    YoloSink,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A readable line a picture
    Text,
    /// One JSON array
    Json,
    /// One JSON object a line
    Jsonl,
    /// One row a detection
    Csv,
    /// Label files as YOLO reads them (needs -o)
    Yolo,
    /// XML files as PASCAL VOC has them (needs -o)
    Voc,
    /// COCO results, for pycocotools and `eval --detections`
    Coco,
}

/// What is written besides the formats.
#[derive(Clone, Debug)]
pub(super) struct Outputs {
    pub(super) folder: Option<PathBuf>,
    pub(super) formats: Vec<Format>,
    pub(super) images: bool,
    pub(super) crops: bool,
    pub(super) labels: bool,
    pub(super) quiet: bool,
}

impl Outputs {
    /// Checks what can be combined.
    pub(super) fn validate(&self) -> anyhow::Result<()> {
        if self.folder.is_some() {
            return Ok(());
        }
        if self.images || self.crops {
            bail!("--save-images and --save-crops need a folder: add -o DIR");
        }
        if let Some(format) = self.formats.iter().find(|format| matches!(format, Format::Yolo | Format::Voc)) {
            bail!("--format {} writes a file for each picture: add -o DIR", format!("{format:?}").to_lowercase());
        }
        if self.formats.len() > 1 {
            bail!("standard output carries one format: give --format once, or add -o DIR to write files");
        }
        Ok(())
    }

    /// Makes the exporters. Without a folder the one format goes to standard output; with one, text does and the
    /// others become files.
    pub(super) fn open(&self) -> Result<Vec<Box<dyn Sink>>, SinkError> {
        let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
        let formats = if self.formats.is_empty() { &[Format::Text] } else { &self.formats[..] };
        for (index, &format) in formats.iter().enumerate() {
            if formats[..index].contains(&format) || (format == Format::Text && self.quiet && self.folder.is_some()) {
                continue;
            }
            let target = |name: &str| match &self.folder {
                Some(folder) => Target::file(&folder.join(name)),
                None => Ok(Target::stdout()),
            };
            match format {
                Format::Text => sinks.push(Box::new(TextSink::new(Target::stdout()))),
                Format::Json => sinks.push(Box::new(JsonSink::new(target("results.json")?))),
                Format::Jsonl => sinks.push(Box::new(JsonLinesSink::new(target("results.jsonl")?))),
                Format::Csv => sinks.push(Box::new(CsvSink::new(target("results.csv")?))),
                Format::Coco => sinks.push(Box::new(CocoSink::new(target("coco.json")?))),
                Format::Yolo | Format::Voc => {}
            }
        }
        sinks.extend(self.per_picture());
        Ok(sinks)
    }

    /// The exporters that write files of their own for each picture. Making them touches no file.
    pub(super) fn per_picture(&self) -> Vec<Box<dyn Sink>> {
        let Some(folder) = &self.folder else { return Vec::new() };
        let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
        if self.formats.contains(&Format::Yolo) {
            sinks.push(Box::new(YoloSink::new(folder.join("labels"))));
        }
        if self.formats.contains(&Format::Voc) {
            sinks.push(Box::new(VocSink::new(folder.join("voc"))));
        }
        if self.images {
            sinks.push(Box::new(AnnotatedSink::new(folder.join("images"), self.labels)));
        }
        if self.crops {
            sinks.push(Box::new(CropSink::new(folder.join("crops"))));
        }
        sinks
    }
}
