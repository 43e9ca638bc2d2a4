//! COCO result format: what pycocotools and `yolo-lat eval --detections` read.

use serde::Serialize;

use super::json::JsonArray;
use super::{Item, Sink, SinkError, Target};

/// One JSON array with an object a detection.
pub struct CocoSink {
    array: JsonArray,
}

/// `image_id` is the number in the file's name, as COCO's images are named, or else the name itself;
/// `category_id` counts from 1 in the model's class order; `bbox` is x, y, width, height.
#[derive(Serialize)]
struct CocoDetection<'a> {
    image_id: ImageId,
    file_name: &'a str,
    category_id: usize,
    bbox: [f32; 4],
    score: f32,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ImageId {
    Number(u64),
    Name(String),
}

impl CocoSink {
    /// Writes to `target`.
    pub fn new(target: Target) -> Self {
        Self { array: JsonArray::new(target) }
    }
}

impl Sink for CocoSink {
    fn write(&mut self, item: Item) -> Result<(), SinkError> {
        let path = std::path::Path::new(&item.record.image);
        let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or(&item.record.image);
        for detection in &item.record.detections {
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or(file_name);
            // The frames of a video share its name.
            let stem = if item.record.frame.is_some() { file_name } else { stem };
            let image_id = stem.parse().map_or_else(|_| ImageId::Name(stem.to_owned()), ImageId::Number);
            let detection = CocoDetection {
                image_id,
                file_name,
                category_id: detection.class + 1,
                bbox: detection.bbox.xywh(),
                score: detection.confidence,
            };
            self.array.push(&serde_json::to_string(&detection).unwrap_or_default())?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.array.finish()
    }
}
