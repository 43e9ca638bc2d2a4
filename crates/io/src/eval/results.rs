//! Somebody else's detections: COCO result files.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use crate::dataset::{Dataset, DatasetError};
use crate::labels::Fault;
use crate::labels::coco::{Id, Number, Xywh, parse_json};
use crate::labels::files::{name_of, read_text, stem_of};
use yolo_lat_core::geometry::BBox;
use yolo_lat_core::model::classes::class_map;
use yolo_lat_core::postprocess::Detection;

#[derive(Deserialize)]
#[serde(expecting = "a detection: an object with image_id, category_id, bbox and score")]
struct CocoResult {
    image_id: Id,
    category_id: Id,
    category_name: Option<String>,
    bbox: Xywh,
    score: Number,
}

/// Most folders of a picture's path that its name in results may begin with.
const LONGEST_NAME: usize = 4;

/// Detections of a result file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    /// One list a photograph, in the data set's order and classes.
    pub detections: Vec<Vec<Detection>>,
    /// What a reader should hear: results of classes that the data set lacks.
    pub notes: Vec<String>,
}

/// Reads a COCO result file for `dataset`. Pictures are found by `image_id`: their id, or the file's name without extension where
/// only one is called so. Classes are found by `category_name` where results have it, else by `category_id`.
///
/// # Errors
/// [`DatasetError`] for a file that is no COCO result, an unknown picture, a box of no numbers, or no
/// known category at all; single unknown categories are passed over, as pycocotools does, and said.
pub fn read_coco_results(path: &Path, dataset: &Dataset) -> Result<Results, DatasetError> {
    parse_coco_results(&read_text(path)?, path, dataset)
}

pub(super) fn parse_coco_results(text: &str, path: &Path, dataset: &Dataset) -> Result<Results, DatasetError> {
    let invalid = |reason: String| DatasetError::from(Fault { path: path.to_owned(), reason });
    let results: Vec<CocoResult> = parse_json(text).map_err(|error| invalid(format!("not COCO results: {error}")))?;
    let pictures = pictures_by_name(dataset);
    let by_id: HashMap<String, usize> =
        dataset.category_ids.iter().enumerate().map(|(index, id)| (id.to_string(), index)).collect();
    let by_name = |name: &str| class_map(&[name.to_owned()], &dataset.classes).pop().flatten();
    let mut found = Results { detections: vec![Vec::new(); dataset.images.len()], notes: Vec::new() };
    let (total, mut matched) = (results.len(), 0);
    let mut unknown: Vec<String> = Vec::new();
    for (position, CocoResult { image_id, category_id, category_name, bbox, score }) in results.into_iter().enumerate()
    {
        let &image = pictures
            .get(&image_id.to_string())
            .ok_or_else(|| invalid(format!("result {position}: no image has the id {:?}", image_id.to_string())))?;
        let image = image.ok_or_else(|| invalid(format!("result {position}: several images are called {image_id}")))?;
        // A model may know classes that the data set lacks.
        let class = match &category_name {
            Some(name) => by_name(name.trim()),
            None => by_id.get(&category_id.to_string()).copied(),
        };
        let Some(class) = class else {
            unknown.push(category_name.unwrap_or_else(|| category_id.to_string()));
            continue;
        };
        matched += 1;
        let (Some(bbox), Some(score)) = (bbox.0, score.0) else {
            return Err(invalid(format!("result {position}: its bbox is not four numbers, or its score is none")));
        };
        // Those of pictures that are not measured are passed over.
        if let Some(detections) = found.detections.get_mut(image) {
            detections.push(Detection { class, confidence: score as f32, bbox: BBox::from_xywh(bbox) });
        }
    }
    let ids = || dataset.category_ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if matched == 0 && total > 0 {
        return Err(invalid(format!("none of the {total} results has a category of the data set ({})", ids())));
    }
    let count = unknown.len();
    if count > 0 {
        unknown.sort();
        unknown.dedup();
        let unknown = unknown.join(", ");
        found.notes.push(format!(
            "{}: {count} of {total} results are of categories that the data set lacks ({unknown}) and do not count; it has {}. Do both \
             number their categories alike?",
            path.display(),
            ids()
        ));
    }
    Ok(found)
}

/// Index of each picture by what results may call it: its id; its file's name or path, with or without ending, or the number that
/// the name is (`000139.jpg` is 139), where only one is called so (else `None`). Those that were set aside have indices beyond the
/// data set's.
fn pictures_by_name(dataset: &Dataset) -> HashMap<String, Option<usize>> {
    let mut pictures: HashMap<String, Option<usize>> = HashMap::new();
    let images = || dataset.images.iter().chain(&dataset.set_aside).enumerate();
    for (index, image) in images() {
        let number = stem_of(&image.path).parse::<u64>().map(|number| number.to_string());
        let names = [name_of(&image.path), name_of(&image.path.with_extension(""))];
        let tails = names.iter().flat_map(|name| {
            let starts = name.rmatch_indices('/').map(|(at, _)| at + 1).chain([0]);
            starts.take(LONGEST_NAME).map(move |at| name[at..].to_owned())
        });
        for name in tails.chain(number) {
            pictures.entry(name).or_insert(Some(index)).take_if(|other| *other != index);
        }
    }
    // The data set's own ids win over names.
    pictures.extend(images().map(|(index, image)| (image.id.clone(), Some(index))));
    pictures
}
