//! Detections from files: COCO results, anybody's, and the JSON, JSON lines and CSV of `detect`.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use crate::dataset::{Dataset, DatasetError};
use crate::labels::Fault;
use crate::labels::coco::{Id, Number, Xywh, parse_json};
use crate::labels::files::{name_of, read_text, stem_of};
use crate::sink::{NamedDetection, Record};
use crate::source::is_video;
use yolo_lat_core::geometry::BBox;
use yolo_lat_core::model::classes::class_map;
use yolo_lat_core::postprocess::Detection;

#[derive(Deserialize)]
#[serde(expecting = "a detection: an object with image_id, category_id, bbox and score")]
struct CocoResult {
    image_id: Id,
    category_id: Id,
    /// Ours, and SAHI's.
    category_name: Option<String>,
    /// Ours.
    file_name: Option<String>,
    bbox: Xywh,
    score: Number,
}

#[derive(Deserialize)]
struct CsvRow {
    image: String,
    name: String,
    confidence: f32,
    x1: f32,
    y1: f32,
    x2: f32,
    y2: f32,
}

/// A detection as some file has it.
struct Entry {
    /// What the image is called: its file, its id.
    images: [Option<String>; 2],
    category_id: Option<String>,
    category_name: Option<String>,
    bbox: Option<BBox>,
    score: Option<f32>,
}

/// Most folders of an image's path that its name in results may begin with.
const LONGEST_NAME: usize = 4;

/// Detections of a result file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    /// One list an image, in the data set's order and classes.
    pub detections: Vec<Vec<Detection>>,
    /// What a reader should hear: results of classes that the data set lacks.
    pub notes: Vec<String>,
}

/// Reads detections for `dataset`. Images are found by the path of their file, as much of its end as the data set's paths have, or
/// by `image_id`: their id, or the file's name without extension, where only one is called so. Classes are found by name where
/// results have it, else by `category_id`.
///
/// # Errors
/// [`DatasetError`] for a file of another format, an unknown image, a box of no numbers, or no
/// known category at all; single unknown categories are passed over, as pycocotools does, and said.
pub fn read_results(path: &Path, dataset: &Dataset) -> Result<Results, DatasetError> {
    parse_results(&read_text(path)?, path, dataset)
}

pub(super) fn parse_results(text: &str, path: &Path, dataset: &Dataset) -> Result<Results, DatasetError> {
    let invalid = |reason: String| DatasetError::from(Fault { path: path.to_owned(), reason });
    let entries = parse(text).map_err(invalid)?;
    let images = images_by_name(dataset);
    let by_id: HashMap<String, usize> =
        dataset.category_ids.iter().enumerate().map(|(index, id)| (id.to_string(), index)).collect();
    let mut by_name: HashMap<String, Option<usize>> = HashMap::new();
    let mut found = Results { detections: vec![Vec::new(); dataset.images.len()], notes: Vec::new() };
    let (total, mut matched, mut others) = (entries.len(), 0, 0);
    let mut unknown: Vec<String> = Vec::new();
    for (position, Entry { images: called, category_id, category_name, bbox, score }) in entries.into_iter().enumerate()
    {
        let image = find_image(&called, &images).map_err(|reason| invalid(format!("result {position}: {reason}")))?;
        // A model may know classes that the data set lacks.
        let class = match &category_name {
            Some(name) => *by_name
                .entry(name.trim().to_owned())
                .or_insert_with_key(|name| class_map(std::slice::from_ref(name), &dataset.classes).pop().flatten()),
            None => category_id.as_ref().and_then(|id| by_id.get(id)).copied(),
        };
        let Some(class) = class else {
            unknown.extend(category_name.or(category_id));
            continue;
        };
        matched += 1;
        let (Some(bbox), Some(confidence)) = (bbox, score) else {
            return Err(invalid(format!("result {position}: its bbox is not four numbers, or its score is none")));
        };
        if bbox.x1 > bbox.x2 || bbox.y1 > bbox.y2 {
            return Err(invalid(format!("result {position}: its box has a negative width or height")));
        }
        // Those of images that are not measured are passed over.
        match found.detections.get_mut(image) {
            Some(detections) => detections.push(Detection { class, confidence, bbox }),
            None => others += 1,
        }
    }
    let ids = || dataset.category_ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if matched == 0 && total > 0 {
        return Err(invalid(format!("none of the {total} results has a category of the data set ({})", ids())));
    }
    if total == 0 {
        found.notes.push(format!("{}: it has no results: every object counts as missed", path.display()));
    }
    if others > 0 && others == matched {
        found.notes.push(format!("{}: none of its {total} results is of an image that is measured", path.display()));
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

/// The format is told by how the text begins.
fn parse(text: &str) -> Result<Vec<Entry>, String> {
    let start = text.trim_start_matches('\u{FEFF}').trim_start();
    // JSON lines of no image.
    if start.is_empty() {
        return Ok(Vec::new());
    }
    if start.starts_with("image,") {
        let rows = csv::Reader::from_reader(start.as_bytes()).into_deserialize::<CsvRow>();
        let rows = rows.collect::<Result<Vec<_>, _>>().map_err(|error| format!("not the CSV of `detect`: {error}"))?;
        return Ok(rows.into_iter().map(Entry::from).collect());
    }
    if start.starts_with('{') {
        let lines = serde_json::Deserializer::from_str(start).into_iter::<Record>();
        let records =
            lines.collect::<Result<Vec<_>, _>>().map_err(|error| format!("not the JSON lines of `detect`: {error}"))?;
        return Ok(records.into_iter().flat_map(of_record).collect());
    }
    // The results of `detect -f json` have an `image` and `detections` each, all of them or none.
    let first = start.strip_prefix('[').map_or("", str::trim_start);
    if first.starts_with("{\"image\":") {
        let records: Vec<Record> = parse_json(start).map_err(|error| format!("not the JSON of `detect`: {error}"))?;
        return Ok(records.into_iter().flat_map(of_record).collect());
    }
    let results: Vec<CocoResult> = parse_json(start).map_err(|error| format!("not COCO results: {error}"))?;
    let entry = |result: CocoResult| Entry {
        images: [result.file_name, Some(result.image_id.to_string())],
        category_id: Some(result.category_id.to_string()),
        category_name: result.category_name,
        bbox: result.bbox.0.map(BBox::from_xywh),
        score: result.score.0.map(|score| score as f32),
    };
    Ok(results.into_iter().map(entry).collect())
}

impl From<CsvRow> for Entry {
    fn from(CsvRow { image, name, confidence, x1, y1, x2, y2 }: CsvRow) -> Self {
        let bbox = BBox { x1, y1, x2, y2 };
        let detection = NamedDetection::new(Detection { class: 0, confidence, bbox }, name);
        of_detection(&image_of_frame(image), detection)
    }
}

fn of_record(record: Record) -> Vec<Entry> {
    let image = image_of_frame(record.image);
    record.detections.into_iter().map(|detection| of_detection(&image, detection)).collect()
}

fn of_detection(image: &str, detection: NamedDetection) -> Entry {
    Entry {
        images: [Some(image.to_owned()), None],
        category_id: None,
        category_name: Some(detection.name),
        bbox: Some(detection.bbox).filter(|bbox| bbox.corners().iter().all(|side| side.is_finite())),
        score: Some(detection.confidence).filter(|score| score.is_finite()),
    }
}

/// `FILE.mp4#12`, as results call a frame, is the image `FILE/000012`.
fn image_of_frame(image: String) -> String {
    match image.rsplit_once('#').and_then(|(video, frame)| Some((Path::new(video), frame.parse::<u64>().ok()?))) {
        Some((video, frame)) if is_video(video) => name_of(&video.with_extension("").join(format!("{frame:06}"))),
        _ => image,
    }
}

/// By the longest end of its path that one image alone has, else by its id.
fn find_image([file, id]: &[Option<String>; 2], images: &HashMap<String, Option<usize>>) -> Result<usize, String> {
    if let Some(file) = file {
        let file = file.replace('\\', "/");
        let starts = [0].into_iter().chain(file.match_indices('/').map(|(at, _)| at + 1));
        if let Some(&image) = starts.filter_map(|at| images.get(&file[at..])).next()
            && let Some(image) = image
        {
            return Ok(image);
        }
    }
    let name = id.as_ref().or(file.as_ref()).map_or("", String::as_str);
    match images.get(name) {
        Some(Some(image)) => Ok(*image),
        Some(None) => Err(format!("several images are called {name}")),
        None => Err(format!("no image has the id {name:?}")),
    }
}

/// Index of each image by what results may call it: its id; its file's name or path, with or without ending, or the number that
/// the name is (`000139.jpg` is 139), where only one is called so (else `None`). Those that were set aside have indices beyond the
/// data set's.
fn images_by_name(dataset: &Dataset) -> HashMap<String, Option<usize>> {
    let mut by_name: HashMap<String, Option<usize>> = HashMap::new();
    let images = || dataset.images.iter().chain(&dataset.set_aside).enumerate();
    for (index, image) in images() {
        let number = stem_of(&image.path).parse::<u64>().map(|number| number.to_string());
        let names = [name_of(&image.path), name_of(&image.path.with_extension(""))];
        let tails = names.iter().flat_map(|name| {
            let starts = name.rmatch_indices('/').map(|(at, _)| at + 1).chain([0]);
            starts.take(LONGEST_NAME).map(move |at| name[at..].to_owned())
        });
        for name in tails.chain(number) {
            by_name.entry(name).or_insert(Some(index)).take_if(|other| *other != index);
        }
    }
    // The data set's own ids win over names.
    by_name.extend(images().map(|(index, image)| (image.id.clone(), Some(index))));
    by_name
}
