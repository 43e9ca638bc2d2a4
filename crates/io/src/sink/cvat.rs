//! CVAT for images 1.1: pre-annotations that CVAT imports into a task with the same images.
//!
//! <https://docs.cvat.ai/docs/other/xml_format>

use serde::Serialize;

use super::voc::without_control_characters;
use super::{Item, Sink, SinkError, Target, name_of};

/// One XML file with an `image` for every image. The frames of a run's only video are numbered and called as CVAT does it
/// in a task of that video.
pub struct CvatSink {
    target: Target,
    head: String,
    is_one_video: bool,
    next: u64,
}

const END: &str = "</annotations>\n";

#[derive(Serialize)]
#[serde(rename = "meta")]
struct Meta<'a> {
    task: Task<'a>,
}

#[derive(Serialize)]
struct Task<'a> {
    mode: &'static str,
    labels: Labels<'a>,
}

#[derive(Serialize)]
struct Labels<'a> {
    label: Vec<Label<'a>>,
}

#[derive(Serialize)]
struct Label<'a> {
    name: &'a str,
}

#[derive(Serialize)]
#[serde(rename = "image")]
struct Image<'a> {
    #[serde(rename = "@id")]
    id: u64,
    #[serde(rename = "@name")]
    name: String,
    #[serde(rename = "@width")]
    width: u32,
    #[serde(rename = "@height")]
    height: u32,
    #[serde(rename = "box")]
    boxes: Vec<Rectangle<'a>>,
}

#[derive(Serialize)]
struct Rectangle<'a> {
    #[serde(rename = "@label")]
    label: &'a str,
    #[serde(rename = "@source")]
    source: &'static str,
    #[serde(rename = "@occluded")]
    occluded: u8,
    #[serde(rename = "@xtl")]
    x1: f32,
    #[serde(rename = "@ytl")]
    y1: f32,
    #[serde(rename = "@xbr")]
    x2: f32,
    #[serde(rename = "@ybr")]
    y2: f32,
    #[serde(rename = "@z_order")]
    z_order: u8,
}

impl CvatSink {
    /// Writes to `target`. `is_one_video` says that a video is the run's only input.
    pub fn new(target: Target, classes: &[String], is_one_video: bool) -> Self {
        let label = classes.iter().map(|name| Label { name }).collect();
        let mode = if is_one_video { "interpolation" } else { "annotation" };
        let meta = Meta { task: Task { mode, labels: Labels { label } } };
        let head = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<annotations>\n<version>1.1</version>\n";
        Self { target, head: format!("{head}{}", encode(&meta)), is_one_video, next: 0 }
    }
}

fn encode(element: &impl Serialize) -> String {
    let mut xml = String::new();
    let mut serializer = quick_xml::se::Serializer::new(&mut xml);
    serializer.indent(' ', 2);
    // Structures of texts and numbers always encode.
    let _ = element.serialize(serializer);
    without_control_characters(&xml) + "\n"
}

impl Sink for CvatSink {
    fn write(&mut self, item: Item) -> Result<(), SinkError> {
        let record = item.record;
        let boxes = record.detections.iter().map(|detection| {
            let [x1, y1, x2, y2] = detection.bbox.corners();
            Rectangle { label: &detection.name, source: "auto", occluded: 0, x1, y1, x2, y2, z_order: 0 }
        });
        let frame = record.frame.filter(|_| self.is_one_video);
        let image = Image {
            id: frame.unwrap_or(self.next),
            name: frame.map_or_else(|| name_of(&item.image_name()), |frame| format!("frame_{frame:06}")),
            width: record.width,
            height: record.height,
            boxes: boxes.collect(),
        };
        self.next += 1;
        let xml = std::mem::take(&mut self.head) + &encode(&image);
        self.target.write(xml.as_bytes())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        // Nothing was written yet where the head is still there.
        let nothing =
            if self.head.is_empty() { "<annotations>\n<version>1.1</version>\n<meta/>\n" } else { &self.head };
        let whole = format!("{nothing}{END}");
        let end = if self.head.is_empty() { END } else { &whole };
        self.target.finish(end.as_bytes(), whole.as_bytes())
    }
}
