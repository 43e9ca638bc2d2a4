//! Somebody else's detections: COCO result files.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use super::dataset::{Dataset, DatasetError};
use yolo_lat_core::geometry::BBox;
use yolo_lat_core::postprocess::Detection;

#[derive(Deserialize)]
struct CocoResult {
    image_id: ImageId,
    category_id: u64,
    bbox: [f32; 4],
    score: f32,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ImageId {
    Number(u64),
    Name(String),
}

/// Reads a COCO result file for `dataset`: one list of detections a picture, in the data set's order and classes.
/// Pictures are found by `image_id`, a number or the file's name without extension.
///
/// # Errors
/// [`DatasetError`] for a file that is no COCO result, an unknown picture, a box of no numbers, or no
/// known category at all; single unknown categories are passed over, as pycocotools does.
pub fn read_coco_results(path: &Path, dataset: &Dataset) -> Result<Vec<Vec<Detection>>, DatasetError> {
    let text = std::fs::read_to_string(path).map_err(|source| DatasetError::Read { path: path.to_owned(), source })?;
    parse_coco_results(&text, path, dataset)
}

pub(super) fn parse_coco_results(
    text: &str,
    path: &Path,
    dataset: &Dataset,
) -> Result<Vec<Vec<Detection>>, DatasetError> {
    let invalid = |reason: String| DatasetError::Invalid { path: path.to_owned(), reason };
    let results: Vec<CocoResult> =
        serde_json::from_str(text).map_err(|error| invalid(format!("not COCO results: {error}")))?;
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut pictures: HashMap<String, usize> = HashMap::new();
    for (index, image) in dataset.images.iter().enumerate() {
        pictures.entry(stem(&image.path)).or_insert(index);
    }
    // The data set's own numbers win over names.
    pictures.extend(dataset.images.iter().enumerate().map(|(index, image)| (image.id.clone(), index)));
    let classes: HashMap<u64, usize> =
        dataset.category_ids.iter().enumerate().map(|(index, &id)| (id, index)).collect();
    let mut detections = vec![Vec::new(); dataset.images.len()];
    let (total, mut matched) = (results.len(), 0);
    for (position, CocoResult { image_id, category_id, bbox, score }) in results.into_iter().enumerate() {
        let id = match image_id {
            ImageId::Number(number) => number.to_string(),
            ImageId::Name(name) => name,
        };
        let &image =
            pictures.get(&id).ok_or_else(|| invalid(format!("result {position}: no image has the id {id:?}")))?;
        // A model may know classes that the data set lacks.
        let Some(&class) = classes.get(&category_id) else { continue };
        matched += 1;
        if !score.is_finite() || bbox.iter().any(|value| !value.is_finite()) {
            return Err(invalid(format!("result {position}: the box {bbox:?} or the score {score} is not a number")));
        }
        detections[image].push(Detection { class, confidence: score, bbox: BBox::from_xywh(bbox) });
    }
    if matched == 0 && total > 0 {
        return Err(invalid(format!(
            "none of the {total} results has a category id of the data set {:?}",
            dataset.category_ids
        )));
    }
    Ok(detections)
}
