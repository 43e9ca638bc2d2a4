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
    file_name: String,
    category_id: u64,
    category_name: &'a str,
    /// x, y, width, height in pixels.
    bbox: [f32; 4],
    score: f32,
}

/// What COCO results call a picture.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum ImageId {
    /// The number that the file's name is, as COCO's own pictures are named: 139 for `000139.jpg`.
    Number(u64),
    /// The relative path without extension.
    Name(String),
}

/// Gives every picture of a run an id of its own.
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

    /// The number in the file's name where no other picture has it; else the stem, which is unique in a run. The frames of a
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
        for detection in &item.record.detections {
            let Some(category_id) = self.categories.get(detection.class).copied().flatten() else { continue };
            let detection = CocoDetection {
                image_id: self.ids.id_of(item.stem, item.record.frame.is_some()),
                file_name: name_of(&item.picture_name()),
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

/// COCO's 80 classes in its order, and the ids it gives them: 1 to 90 with gaps.
const COCO: [(u64, &str); 80] = [
    (1, "person"),
    (2, "bicycle"),
    (3, "car"),
    (4, "motorcycle"),
    (5, "airplane"),
    (6, "bus"),
    (7, "train"),
    (8, "truck"),
    (9, "boat"),
    (10, "traffic light"),
    (11, "fire hydrant"),
    (13, "stop sign"),
    (14, "parking meter"),
    (15, "bench"),
    (16, "bird"),
    (17, "cat"),
    (18, "dog"),
    (19, "horse"),
    (20, "sheep"),
    (21, "cow"),
    (22, "elephant"),
    (23, "bear"),
    (24, "zebra"),
    (25, "giraffe"),
    (27, "backpack"),
    (28, "umbrella"),
    (31, "handbag"),
    (32, "tie"),
    (33, "suitcase"),
    (34, "frisbee"),
    (35, "skis"),
    (36, "snowboard"),
    (37, "sports ball"),
    (38, "kite"),
    (39, "baseball bat"),
    (40, "baseball glove"),
    (41, "skateboard"),
    (42, "surfboard"),
    (43, "tennis racket"),
    (44, "bottle"),
    (46, "wine glass"),
    (47, "cup"),
    (48, "fork"),
    (49, "knife"),
    (50, "spoon"),
    (51, "bowl"),
    (52, "banana"),
    (53, "apple"),
    (54, "sandwich"),
    (55, "orange"),
    (56, "broccoli"),
    (57, "carrot"),
    (58, "hot dog"),
    (59, "pizza"),
    (60, "donut"),
    (61, "cake"),
    (62, "chair"),
    (63, "couch"),
    (64, "potted plant"),
    (65, "bed"),
    (67, "dining table"),
    (70, "toilet"),
    (72, "tv"),
    (73, "laptop"),
    (74, "mouse"),
    (75, "remote"),
    (76, "keyboard"),
    (77, "cell phone"),
    (78, "microwave"),
    (79, "oven"),
    (80, "toaster"),
    (81, "sink"),
    (82, "refrigerator"),
    (84, "book"),
    (85, "clock"),
    (86, "vase"),
    (87, "scissors"),
    (88, "teddy bear"),
    (89, "hair drier"),
    (90, "toothbrush"),
];

/// COCO's categories: ids and names.
pub fn coco_categories() -> impl ExactSizeIterator<Item = (u64, &'static str)> {
    COCO.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_pictures_share_an_id() {
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
    fn coco_has_80_categories_with_ids_of_their_own() {
        let ids: HashSet<u64> = coco_categories().map(|(id, _)| id).collect();
        assert_eq!((ids.len(), ids.iter().max()), (80, Some(&90)));
        assert!([12, 26, 29, 30, 45, 66, 68, 69, 71, 83].iter().all(|gap| !ids.contains(gap)));
    }
}
