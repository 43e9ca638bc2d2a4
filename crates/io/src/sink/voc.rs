//! PASCAL VOC annotations: one XML file a picture.

use std::io::{Error, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Item, Sink, SinkError, path_of, write_atomically};

/// Pixel boxes as VOC writes them, with the confidence in an element of its own.
pub struct VocSink {
    folder: PathBuf,
}

#[derive(Serialize)]
#[serde(rename = "annotation")]
struct Annotation<'a> {
    filename: &'a str,
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
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }
}

impl Sink for VocSink {
    fn write(&mut self, item: Item) -> Result<(), SinkError> {
        let record = item.record;
        let name = Path::new(&record.image).file_name().and_then(|name| name.to_str());
        let object = record.detections.iter().map(|detection| Object {
            name: &detection.name,
            confidence: detection.confidence,
            difficult: 0,
            bndbox: BndBox {
                xmin: detection.bbox.x1,
                ymin: detection.bbox.y1,
                xmax: detection.bbox.x2,
                ymax: detection.bbox.y2,
            },
        });
        let annotation = Annotation {
            filename: name.unwrap_or(&record.image),
            size: Size { width: record.width, height: record.height, depth: 3 },
            object: object.collect(),
        };
        write_atomically(&path_of(&self.folder, item.stem, "xml"), |file| {
            let mut xml = String::new();
            let mut serializer = quick_xml::se::Serializer::new(&mut xml);
            serializer.indent(' ', 2);
            annotation.serialize(serializer).map_err(Error::other)?;
            writeln!(file, "{xml}")
        })
    }

    fn has(&self, stem: &Path) -> bool {
        path_of(&self.folder, stem, "xml").exists()
    }
}
