//! PASCAL VOC annotations: one XML file an image.

use std::io::{Error, Write};
use std::path::Path;

use serde::Serialize;

use super::{Item, OutputFolder, Sink, SinkError, name_of, path_of};

/// `voc/STEM.xml`: pixel boxes as VOC writes them, with the confidence in an element of its own.
pub struct VocSink {
    folder: OutputFolder,
}

#[derive(Serialize)]
#[serde(rename = "annotation")]
struct Annotation<'a> {
    filename: String,
    size: Size,
    object: Vec<Object<'a>>,
}

#[derive(Serialize)]
struct Size {
    width: u32,
    height: u32,
    depth: u32,
}

#[derive(Serialize)]
struct Object<'a> {
    name: &'a str,
    confidence: f32,
    difficult: u8,
    bndbox: BndBox,
}

#[derive(Serialize)]
struct BndBox {
    xmin: f32,
    ymin: f32,
    xmax: f32,
    ymax: f32,
}

impl VocSink {
    /// Writes into `folder`, sub-folders mirrored.
    pub fn new(folder: OutputFolder) -> Self {
        Self { folder }
    }
}

impl Sink for VocSink {
    fn write(&mut self, item: Item) -> Result<(), SinkError> {
        let record = item.record;
        let object = record.detections.iter().map(|detection| {
            let [xmin, ymin, xmax, ymax] = detection.bbox.corners();
            let bndbox = BndBox { xmin, ymin, xmax, ymax };
            Object { name: &detection.name, confidence: detection.confidence, difficult: 0, bndbox }
        });
        let name = item.image_name();
        let annotation = Annotation {
            filename: name_of(name.file_name().map_or(&name, Path::new)),
            size: Size { width: record.width, height: record.height, depth: 3 },
            object: object.collect(),
        };
        self.folder.write(&path_of("voc", item.stem, "xml"), |file| {
            let mut xml = String::new();
            let mut serializer = quick_xml::se::Serializer::new(&mut xml);
            serializer.indent(' ', 2);
            annotation.serialize(serializer).map_err(Error::other)?;
            writeln!(file, "{}", without_control_characters(&xml))
        })
    }

    fn has(&self, stem: &Path) -> bool {
        self.folder.path(&path_of("voc", stem, "xml")).exists()
    }
}

/// XML cannot hold them in any form, and names of files and classes may.
pub(super) fn without_control_characters(xml: &str) -> String {
    let is_allowed = |&letter: &char| !letter.is_control() || matches!(letter, '\n' | '\t') || letter >= '\u{80}';
    xml.chars().filter(|letter| is_allowed(letter) && !matches!(letter, '\u{FFFE}' | '\u{FFFF}')).collect()
}
