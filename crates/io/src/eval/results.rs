//! Detections from files: COCO results, anybody's, and the JSON, JSON lines and CSV of `detect`.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use serde::Deserialize;

use super::dataset::{Dataset, DatasetError};
use crate::sink::Record;
use yolo_lat_core::geometry::BBox;
use yolo_lat_core::model::classes::class_map;
use yolo_lat_core::postprocess::Detection;

#[derive(Deserialize)]
struct CocoResult {
    image_id: Id,
    category_id: Option<u64>,
    bbox: [f32; 4],
    score: f32,
    /// Ours, and SAHI's.
    category_name: Option<String>,
    /// Ours.
    file_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Number(u64),
    Text(String),
}

/// A detection as some file has it.
struct Entry {
    /// What it calls the picture; the first that fits counts.
    pictures: Vec<String>,
    category: Category,
    bbox: BBox,
    score: f32,
}

enum Category {
    Id(u64),
    Name(String),
}

/// Reads detections for `dataset`: one list a picture, in the data set's order and classes.
///
/// Pictures are found by the data set's own id, by path (as much of its end as there is, with or without extension), or by
/// the number that the file's name is (139 for `000139.jpg`). Classes are found by name where the file has names, else by the
/// data set's category ids; what the data set lacks is passed over as pycocotools does, with a warning if it is an id.
///
/// # Errors
/// [`DatasetError`] for a file of another format, an unknown or ambiguous picture, a box of no numbers, or no
/// known category at all.
pub fn read_results(path: &Path, dataset: &Dataset) -> Result<Vec<Vec<Detection>>, DatasetError> {
    let text = std::fs::read_to_string(path).map_err(|source| DatasetError::Read { path: path.to_owned(), source })?;
    parse_results(text.trim_start_matches('\u{FEFF}'), path, dataset)
}

pub(super) fn parse_results(text: &str, path: &Path, dataset: &Dataset) -> Result<Vec<Vec<Detection>>, DatasetError> {
    let invalid = |reason: String| DatasetError::Invalid { path: path.to_owned(), reason };
    let entries = parse(text).map_err(invalid)?;
    let pictures = Pictures::new(dataset);
    let ids: HashMap<u64, usize> = dataset.category_ids.iter().enumerate().map(|(index, &id)| (id, index)).collect();
    let mut names: HashMap<String, Option<usize>> = HashMap::new();
    let (mut unknown, mut left_out) = (BTreeSet::new(), 0);
    let mut detections = vec![Vec::new(); dataset.images.len()];
    let (total, mut matched) = (entries.len(), 0);
    for (position, Entry { pictures: called, category, bbox, score }) in entries.into_iter().enumerate() {
        let image = pictures.find(&called).map_err(|reason| invalid(format!("result {position}: {reason}")))?;
        if !score.is_finite() || bbox.corners().iter().any(|side| !side.is_finite()) {
            return Err(invalid(format!(
                "result {position}: the box {:?} or the score {score} is not a number",
                bbox.xywh()
            )));
        }
        // A model may know classes that the data set lacks.
        let class = match category {
            Category::Name(name) => {
                *names.entry(name).or_insert_with_key(|name| class_map(std::slice::from_ref(name), &dataset.classes)[0])
            }
            Category::Id(id) => {
                let class = ids.get(&id).copied();
                if class.is_none() {
                    unknown.insert(id);
                    left_out += 1;
                }
                class
            }
        };
        if let Some(class) = class {
            matched += 1;
            detections[image].push(Detection { class, confidence: score, bbox });
        }
    }
    if matched == 0 && total > 0 {
        return Err(invalid(format!(
            "none of the {total} results has a category of the data set ({:?}: {})",
            dataset.category_ids,
            dataset.classes.join(", ")
        )));
    }
    if left_out > 0 {
        log::warn!(
            "{}: {left_out} of {total} results have category ids that the data set lacks ({unknown:?}; it has {:?}) and are \
             left out: do both count alike?",
            path.display(),
            dataset.category_ids
        );
    }
    Ok(detections)
}

/// The format is told by how the text begins.
fn parse(text: &str) -> Result<Vec<Entry>, String> {
    let start = text.trim_start();
    let not = |what: &str, error: &dyn std::fmt::Display| format!("not {what}: {error}");
    if start.starts_with("image,") {
        let rows = csv::Reader::from_reader(start.as_bytes()).into_deserialize::<CsvRow>();
        let rows = rows.collect::<Result<Vec<_>, _>>().map_err(|error| not("the CSV of `detect`", &error))?;
        return Ok(rows.into_iter().map(Entry::from).collect());
    }
    if start.starts_with('{') {
        let lines = serde_json::Deserializer::from_str(start).into_iter::<Record>();
        let records =
            lines.collect::<Result<Vec<_>, _>>().map_err(|error| not("the JSON lines of `detect`", &error))?;
        return Ok(records.into_iter().flat_map(of_record).collect());
    }
    let values: Vec<serde_json::Value> =
        serde_json::from_str(start).map_err(|error| not("COCO results, or JSON or CSV of `detect`", &error))?;
    let mut entries = Vec::new();
    for (position, value) in values.into_iter().enumerate() {
        let fail = |error: serde_json::Error| format!("result {position}: {error}");
        if value.get("detections").is_some() {
            entries.extend(of_record(serde_json::from_value(value).map_err(fail)?));
        } else {
            let result: CocoResult = serde_json::from_value(value).map_err(fail)?;
            entries.push(Entry::of_coco(result).map_err(|reason| format!("result {position}: {reason}"))?);
        }
    }
    Ok(entries)
}

impl Entry {
    fn of_coco(result: CocoResult) -> Result<Self, String> {
        let category = match (result.category_name, result.category_id) {
            (Some(name), _) => Category::Name(name),
            (None, Some(id)) => Category::Id(id),
            (None, None) => return Err("no category_id".into()),
        };
        let id = match result.image_id {
            Id::Number(number) => number.to_string(),
            Id::Text(text) => text,
        };
        let pictures = result.file_name.into_iter().chain([id]).collect();
        Ok(Self { pictures, category, bbox: BBox::from_xywh(result.bbox), score: result.score })
    }
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

impl From<CsvRow> for Entry {
    fn from(CsvRow { image, name, confidence, x1, y1, x2, y2 }: CsvRow) -> Self {
        let bbox = BBox { x1, y1, x2, y2 };
        Self { pictures: vec![stem_of_frame(image)], category: Category::Name(name), bbox, score: confidence }
    }
}

fn of_record(record: Record) -> Vec<Entry> {
    let image = stem_of_frame(record.image);
    let entry = |detection: crate::sink::NamedDetection| Entry {
        pictures: vec![image.clone()],
        category: Category::Name(detection.name),
        bbox: detection.bbox,
        score: detection.confidence,
    };
    record.detections.into_iter().map(entry).collect()
}

/// `FILE.mp4#12`, as results call a frame, is the picture `FILE/000012`.
fn stem_of_frame(image: String) -> String {
    match image.rsplit_once('#').and_then(|(video, frame)| Some((Path::new(video), frame.parse::<u64>().ok()?))) {
        Some((video, frame)) if crate::source::is_video(video) => {
            video.with_extension("").join(format!("{frame:06}")).to_string_lossy().into_owned()
        }
        _ => image,
    }
}

/// A data set's pictures by what results call them.
struct Pictures<'a> {
    dataset: &'a Dataset,
    by_id: HashMap<&'a str, usize>,
    by_stem: HashMap<String, Vec<usize>>,
    by_number: HashMap<u64, Vec<usize>>,
}

impl<'a> Pictures<'a> {
    fn new(dataset: &'a Dataset) -> Self {
        let (mut by_stem, mut by_number) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        for (index, image) in dataset.images.iter().enumerate() {
            let stem = image.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if stem.bytes().all(|byte| byte.is_ascii_digit())
                && let Ok(number) = stem.parse::<u64>()
            {
                by_number.entry(number).or_default().push(index);
            }
            by_stem.entry(stem).or_default().push(index);
        }
        // Of data sets without numbers of their own, ids are names of files, which may repeat in sub-folders.
        let mut by_id = HashMap::new();
        let mut twice = BTreeSet::new();
        for (index, image) in dataset.images.iter().enumerate() {
            if by_id.insert(image.id.as_str(), index).is_some() {
                twice.insert(image.id.as_str());
            }
        }
        by_id.retain(|id, _| !twice.contains(id));
        Self { dataset, by_id, by_stem, by_number }
    }

    /// The first of several names that one picture has.
    fn find(&self, names: &[String]) -> Result<usize, String> {
        let mut ambiguous = None;
        for (position, name) in names.iter().enumerate() {
            // A file's name is no id, even if it looks like one.
            let is_id = position + 1 == names.len();
            if let Some(&index) = self.by_id.get(name.as_str()).filter(|_| is_id) {
                return Ok(index);
            }
            let number = name.parse().ok().filter(|_| is_id);
            let by_number = || number.and_then(|number: u64| self.by_number.get(&number)).cloned().unwrap_or_default();
            let mut found = self.by_path(name);
            if found.is_empty() {
                found = by_number();
            }
            match found[..] {
                [index] => return Ok(index),
                [] => {}
                [first, second, ..] => {
                    let path = |index: usize| self.dataset.images[index].path.display();
                    ambiguous = Some(format!("{name:?} may be {} or {}", path(first), path(second)));
                }
            }
        }
        let last = names.last().map_or("", String::as_str);
        Err(ambiguous.unwrap_or_else(|| format!("no image has the id {last:?}")))
    }

    /// Pictures whose path ends like this, with or without extension; of none the whole path, those with the longest common end.
    fn by_path(&self, name: &str) -> Vec<usize> {
        let name = name.replace('\\', "/");
        let name = Path::new(&name);
        let mut candidates: Vec<usize> = Vec::new();
        for stem in [name.file_stem(), name.file_name()].into_iter().flatten() {
            for &index in self.by_stem.get(&*stem.to_string_lossy()).into_iter().flatten() {
                let path = &self.dataset.images[index].path;
                let is_same = path.file_name() == name.file_name() || path.file_stem() == name.file_name();
                if is_same && !candidates.contains(&index) {
                    candidates.push(index);
                }
            }
        }
        if candidates.len() > 1 {
            let common = |index: usize| {
                let folder = |path: &Path| path.parent().map(Path::to_owned).unwrap_or_default();
                let (a, b) = (folder(&self.dataset.images[index].path), folder(name));
                a.components().rev().zip(b.components().rev()).take_while(|(a, b)| a == b).count()
            };
            let best = candidates.iter().map(|&index| common(index)).max();
            candidates.retain(|&index| Some(common(index)) == best);
        }
        candidates
    }
}
