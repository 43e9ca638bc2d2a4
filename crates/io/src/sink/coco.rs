//! COCO result format: what pycocotools and `yolo-lat eval --detections` read.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde::Serialize;

use super::json::JsonArray;
use super::{Item, Sink, SinkError, Target, name_of};

/// One JSON array with an object a detection. Besides what COCO defines, each names its file and its class, so that results
/// can be told apart whatever a data set's numbers are.
pub struct CocoSink {
    array: JsonArray,
    ids: ImageIds,
    categories: Vec<Option<u64>>,
}

#[derive(Serialize)]
struct CocoDetection<'a> {
    image_id: ImageId,
    file_name: &'a str,
    category_id: u64,
    category_name: &'a str,
    /// x, y, width, height in pixels.
    bbox: [f32; 4],
    score: f32,
}

/// What COCO results call an image.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum ImageId {
    /// The number that the file's name is, as COCO's own images are named: 139 for `000139.jpg`.
    Number(u64),
    /// The relative path without extension.
    Name(String),
}

/// Gives every image of a run an id of its own.
#[derive(Clone, Debug, Default)]
pub struct ImageIds {
    /// Numbers that several names of the run are.
    shared: HashSet<u64>,
}

impl ImageIds {
    /// For the stems of all inputs of a run.
    pub fn new<'a>(stems: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut count = HashMap::<u64, usize>::new();
        for number in stems.into_iter().filter_map(number_of) {
            *count.entry(number).or_default() += 1;
        }
        Self { shared: count.into_iter().filter(|(_, count)| *count > 1).map(|(number, _)| number).collect() }
    }

    /// The number in the file's name where no other image has it; else the stem, which is unique in a run. The frames of a
    /// video, whose names are numbers too, go by their stems.
    pub fn id_of(&self, stem: &Path, is_frame: bool) -> ImageId {
        match number_of(stem) {
            Some(number) if !is_frame && !self.shared.contains(&number) => ImageId::Number(number),
            _ => ImageId::Name(name_of(stem)),
        }
    }
}

/// The number that a file's name consists of.
fn number_of(stem: &Path) -> Option<u64> {
    let name = stem.file_name()?.to_str()?;
    name.bytes().all(|byte| byte.is_ascii_digit()).then(|| name.parse().ok()).flatten()
}

impl CocoSink {
    /// Writes to `target`. `categories` has the id of every class; detections of classes without one are left out.
    pub fn new(target: Target, ids: ImageIds, categories: Vec<Option<u64>>) -> Self {
        Self { array: JsonArray::new(target), ids, categories }
    }
}

impl Sink for CocoSink {
    fn write(&mut self, item: Item) -> Result<(), SinkError> {
        let is_frame = item.record.frame.is_some();
        // As it was given: the whole path tells more images apart than a part of it.
        let file_name = match item.record.frame {
            Some(frame) => {
                let video = item.record.image.rsplit_once('#').map_or(item.record.image.as_str(), |(video, _)| video);
                format!("{}/{frame:06}.jpg", Path::new(video).with_extension("").display())
            }
            None => item.record.image.clone(),
        };
        for detection in &item.record.detections {
            let Some(category_id) = self.categories.get(detection.class).copied().flatten() else { continue };
            let detection = CocoDetection {
                image_id: self.ids.id_of(item.stem, is_frame),
                file_name: &file_name,
                category_id,
                category_name: &detection.name,
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

/// Numbers from 1 to 90 that COCO gives no category of its detectors.
const GAPS: [u64; 10] = [12, 26, 29, 30, 45, 66, 68, 69, 71, 83];

/// COCO's own category ids, in the order of [`yolo_lat_core::model::classes::COCO`].
pub fn coco_category_ids() -> impl Iterator<Item = u64> {
    (1..=90).filter(|id| !GAPS.contains(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_images_share_an_id() {
        let stems = ["day/1", "day/0001", "night/1", "night/2", "000139", "+5", "99999999999999999999", "a.png"];
        let ids = ImageIds::new(stems.iter().map(Path::new));
        let found: Vec<ImageId> = stems.iter().map(|stem| ids.id_of(Path::new(stem), false)).collect();
        let name = |name: &str| ImageId::Name(name.to_owned());
        let expected = [
            name("day/1"),
            name("day/0001"),
            name("night/1"),
            ImageId::Number(2),
            ImageId::Number(139),
            name("+5"),
            name("99999999999999999999"),
            name("a.png"),
        ];
        assert_eq!(found, expected);
        assert_eq!(ids.id_of(Path::new("clip/000002"), true), name("clip/000002"));
    }

    #[test]
    fn coco_numbers_its_80_categories_with_gaps() {
        let named: HashMap<&str, u64> =
            yolo_lat_core::model::classes::COCO.into_iter().zip(coco_category_ids()).collect();
        assert_eq!((named.len(), coco_category_ids().count()), (80, 80));
        // As in instances_val2017.json.
        for (name, id) in [("person", 1), ("stop sign", 13), ("dog", 18), ("couch", 63), ("toothbrush", 90)] {
            assert_eq!(named[name], id, "{name}");
        }
    }
}
