//! Labelled photographs in the three formats people have: COCO JSON, PASCAL VOC folders, YOLO folders.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::source::{IMAGE_EXTENSIONS, image_size};
use yolo_lat_core::geometry::BBox;

/// Why a data set could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// A file or folder could not be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file has wrong contents.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// Which one.
        path: PathBuf,
        /// What is wrong and where.
        reason: String,
    },
    /// The folder has none of the layouts.
    #[error(
        "{}: no data set found here: expected a COCO file (annotations.json), a VOC folder (Annotations/*.xml with \
         JPEGImages/) or a YOLO folder (labels/*.txt with images/ and data.yaml or classes.txt)",
        path.display()
    )]
    UnknownLayout {
        /// The folder.
        path: PathBuf,
    },
}

/// One labelled object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Object {
    /// Index into the data set's classes.
    pub class: usize,
    /// In pixels of the picture.
    pub bbox: BBox,
    /// Area in pixels as the data set gives it (COCO: of the segment), else of the box.
    pub area: f32,
    /// Neither an object to be found nor a false alarm when found.
    pub difficult: bool,
    /// A region of many objects: it may be found any number of times.
    pub crowd: bool,
}

/// A photograph with its labels.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledImage {
    /// What result files call it: COCO's number, or the file's name without extension.
    pub id: String,
    /// The file.
    pub path: PathBuf,
    /// Labels.
    pub objects: Vec<Object>,
}

/// Labelled photographs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dataset {
    /// Class names; the index is the class of [`Object`].
    pub classes: Vec<String>,
    /// COCO's category numbers; without them classes count from 1.
    pub category_ids: Vec<u64>,
    /// In the order of their files.
    pub images: Vec<LabelledImage>,
}

#[derive(Deserialize)]
struct CocoFile {
    images: Vec<CocoImage>,
    annotations: Vec<CocoAnnotation>,
    categories: Vec<CocoCategory>,
}

#[derive(Deserialize)]
struct CocoImage {
    id: u64,
    file_name: String,
}

#[derive(Deserialize)]
struct CocoAnnotation {
    image_id: u64,
    category_id: u64,
    bbox: [f32; 4],
    area: Option<f32>,
    #[serde(default)]
    iscrowd: u8,
    #[serde(default)]
    difficult: u8,
}

#[derive(Deserialize)]
struct CocoCategory {
    id: u64,
    name: String,
}

#[derive(Deserialize)]
struct VocFile {
    filename: Option<String>,
    #[serde(default)]
    object: Vec<VocObject>,
}

#[derive(Deserialize)]
struct VocObject {
    name: String,
    #[serde(default)]
    difficult: u8,
    bndbox: VocBox,
}

#[derive(Deserialize)]
struct VocBox {
    xmin: f32,
    ymin: f32,
    xmax: f32,
    ymax: f32,
}

/// The part of an ultralytics `data.yaml` that matters here.
#[derive(Deserialize)]
struct YoloFile {
    names: YoloNames,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum YoloNames {
    List(Vec<String>),
    Map(BTreeMap<usize, String>),
}

impl Dataset {
    /// Reads a data set: a COCO JSON file, or a folder in one of the three layouts. Classes of VOC folders are those
    /// that occur, in alphabetical order.
    ///
    /// # Errors
    /// [`DatasetError`] names the file and what is wrong in it.
    pub fn load(path: &Path) -> Result<Self, DatasetError> {
        if path.is_file() {
            let folder = path.parent().unwrap_or(Path::new(""));
            return Self::parse_coco(&read_text(path)?, path, folder);
        }
        let entries = [("annotations.json", 0), ("Annotations", 1), ("labels", 2)];
        std::fs::read_dir(path).map_err(|source| DatasetError::Read { path: path.to_owned(), source })?;
        match entries.iter().find(|(name, _)| path.join(name).exists()) {
            Some((name, 0)) => Self::parse_coco(&read_text(&path.join(name))?, &path.join(name), path),
            Some((_, 1)) => Self::load_voc(path),
            Some(_) => Self::load_yolo(path),
            None => Err(DatasetError::UnknownLayout { path: path.to_owned() }),
        }
    }

    /// Parses COCO detection labels; pictures lie in `folder` or in `folder/images`. `origin` names the file in errors.
    ///
    /// # Errors
    /// [`DatasetError::Invalid`].
    pub fn parse_coco(text: &str, origin: &Path, folder: &Path) -> Result<Self, DatasetError> {
        let invalid = |reason: String| DatasetError::Invalid { path: origin.to_owned(), reason };
        let file: CocoFile =
            serde_json::from_str(text).map_err(|error| invalid(format!("not COCO labels: {error}")))?;
        let classes: HashMap<u64, usize> =
            file.categories.iter().enumerate().map(|(index, category)| (category.id, index)).collect();
        let subfolder = folder.join("images");
        let folder = if subfolder.is_dir() { subfolder } else { folder.to_owned() };
        let mut index_of_id = HashMap::new();
        let mut images: Vec<LabelledImage> = Vec::new();
        for image in file.images {
            if index_of_id.insert(image.id, images.len()).is_some() {
                return Err(invalid(format!("image id {} stands twice", image.id)));
            }
            images.push(LabelledImage {
                id: image.id.to_string(),
                path: folder.join(image.file_name),
                objects: Vec::new(),
            });
        }
        for (position, annotation) in file.annotations.into_iter().enumerate() {
            let CocoAnnotation { image_id, category_id, bbox, area, iscrowd, difficult } = annotation;
            let &image = index_of_id
                .get(&image_id)
                .ok_or_else(|| invalid(format!("annotation {position}: no image has the id {image_id}")))?;
            let &class = classes
                .get(&category_id)
                .ok_or_else(|| invalid(format!("annotation {position}: no category has the id {category_id}")))?;
            let object = object(class, BBox::from_xywh(bbox), area, difficult != 0, iscrowd != 0);
            images[image].objects.push(object.map_err(|reason| invalid(format!("annotation {position}: {reason}")))?);
        }
        let category_ids = file.categories.iter().map(|category| category.id).collect();
        let classes = file.categories.into_iter().map(|category| category.name).collect();
        Ok(Self { classes, category_ids, images })
    }

    fn load_voc(folder: &Path) -> Result<Self, DatasetError> {
        let mut labels = Vec::new();
        for path in files_in(&folder.join("Annotations"), &["xml"])? {
            let file: VocFile = quick_xml::de::from_str(&read_text(&path)?).map_err(|error| DatasetError::Invalid {
                path: path.clone(),
                reason: format!("not VOC labels: {error}"),
            })?;
            labels.push((path, file));
        }
        let mut classes: Vec<String> =
            labels.iter().flat_map(|(_, file)| file.object.iter().map(|object| object.name.clone())).collect();
        classes.sort();
        classes.dedup();
        let mut images = Vec::new();
        for (path, file) in labels {
            let stem = stem_of(&path);
            let name = file.filename.unwrap_or_else(|| format!("{stem}.jpg"));
            let mut objects = Vec::new();
            for (position, VocObject { name, difficult, bndbox }) in file.object.into_iter().enumerate() {
                let class = classes.partition_point(|class| *class < name);
                let bbox = BBox { x1: bndbox.xmin, y1: bndbox.ymin, x2: bndbox.xmax, y2: bndbox.ymax };
                let object = object(class, bbox, None, difficult != 0, false);
                objects.push(object.map_err(|reason| DatasetError::Invalid {
                    path: path.clone(),
                    reason: format!("object {position}: {reason}"),
                })?);
            }
            images.push(LabelledImage { id: stem, path: folder.join("JPEGImages").join(name), objects });
        }
        let category_ids = (1..=classes.len() as u64).collect();
        Ok(Self { classes, category_ids, images })
    }

    fn load_yolo(folder: &Path) -> Result<Self, DatasetError> {
        let classes = yolo_classes(folder)?;
        let mut images = Vec::new();
        for path in files_in(&folder.join("images"), &IMAGE_EXTENSIONS)? {
            let labels = folder.join("labels").join(format!("{}.txt", stem_of(&path)));
            // A picture without a label file shows none of the objects.
            let text = if labels.exists() { read_text(&labels)? } else { String::new() };
            // Labels are shares of the picture as it is seen.
            let size = image_size(&path)
                .map_err(|error| DatasetError::Invalid { path: path.clone(), reason: error.to_string() })?;
            let mut objects = Vec::new();
            for (line, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
                let object = yolo_object(text, classes.len(), size);
                objects.push(object.map_err(|reason| DatasetError::Invalid {
                    path: labels.clone(),
                    reason: format!("line {}: {reason}", line + 1),
                })?);
            }
            images.push(LabelledImage { id: stem_of(&path), path, objects });
        }
        let category_ids = (1..=classes.len() as u64).collect();
        Ok(Self { classes, category_ids, images })
    }
}

/// Checks what every format gives: a finite box, which may be empty but not inverted.
fn object(class: usize, bbox: BBox, area: Option<f32>, difficult: bool, crowd: bool) -> Result<Object, String> {
    let finite = [bbox.x1, bbox.y1, bbox.x2, bbox.y2].iter().all(|value| value.is_finite() && value.abs() < 1e6);
    if !finite || bbox.x2 < bbox.x1 || bbox.y2 < bbox.y1 {
        return Err(format!("the box {:?} is no box in pixels", [bbox.x1, bbox.y1, bbox.x2, bbox.y2]));
    }
    let area = area.filter(|area| area.is_finite()).unwrap_or(bbox.area());
    Ok(Object { class, bbox, area, difficult, crowd })
}

/// `class x y width height [confidence]`, centre and size as shares of the picture.
fn yolo_object(line: &str, classes: usize, (width, height): (u32, u32)) -> Result<Object, String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [class, values @ ..] = &fields[..] else { return Err("empty".into()) };
    let class = class.parse().ok().filter(|&class: &usize| class < classes);
    let class = class.ok_or_else(|| format!("class {:?} is not one of 0..{classes}", fields[0]))?;
    let values: Vec<f32> = values.iter().filter_map(|value| value.parse().ok()).collect();
    if fields.len() < 5 || fields.len() > 6 || values.len() + 1 != fields.len() {
        return Err(format!("expected `class x y width height`, found {line:?}"));
    }
    let (x, y) = (values[0] * width as f32, values[1] * height as f32);
    let (w, h) = (values[2] * width as f32, values[3] * height as f32);
    object(class, BBox::from_xywh([x - w / 2.0, y - h / 2.0, w, h]), None, false, false)
}

/// Names from `data.yaml` (list or map), or one a line from `classes.txt`.
fn yolo_classes(folder: &Path) -> Result<Vec<String>, DatasetError> {
    let list = folder.join("classes.txt");
    if list.exists() {
        return Ok(read_text(&list)?
            .lines()
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect());
    }
    let path = folder.join("data.yaml");
    let invalid = |reason: String| DatasetError::Invalid { path: path.clone(), reason };
    let file: YoloFile = serde_saphyr::from_str(&read_text(&path)?)
        .map_err(|error| invalid(format!("names of the classes: {error}")))?;
    match file.names {
        YoloNames::List(names) => Ok(names),
        YoloNames::Map(names) if names.keys().copied().eq(0..names.len()) => Ok(names.into_values().collect()),
        YoloNames::Map(_) => Err(invalid("names of the classes must be numbered 0, 1, 2, ...".into())),
    }
}

fn read_text(path: &Path) -> Result<String, DatasetError> {
    std::fs::read_to_string(path).map_err(|source| DatasetError::Read { path: path.to_owned(), source })
}

fn stem_of(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Files of a folder with one of the extensions, by name.
fn files_in(folder: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>, DatasetError> {
    let fail = |source| DatasetError::Read { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        if extension.is_some_and(|extension| extensions.contains(&extension.as_str())) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
