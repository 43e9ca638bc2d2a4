//! Labelled photographs: finds out which layout a path has and calls the reader of its format. docs/DATASETS.md lists them.

use std::path::{Path, PathBuf};

use crate::labels::coco::{self, Id};
use crate::labels::files::{PICTURE_FOLDERS, files_below, files_in, read_text, stem_of, subfolder};
use crate::labels::{Fault, voc, yolo};
use crate::source::{IMAGE_EXTENSIONS, has_extension};
use yolo_lat_core::geometry::BBox;

/// Why a data set could not be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// A file or folder cannot be read or has wrong contents.
    #[error(transparent)]
    File(#[from] Fault),
    /// The path has none of the layouts.
    #[error(
        "{}: no data set found here: expected COCO (annotations.json, annotations/instances_*.json), VOC (XML in Annotations/ \
         or beside the pictures) or YOLO (data.yaml, or images/ and labels/ with classes.txt); `eval --help` lists all layouts",
        path.display()
    )]
    UnknownLayout {
        /// The file or folder.
        path: PathBuf,
    },
    /// The part that was asked for is not there, or none was and there are several.
    #[error("{}: {}; there is {}", path.display(), split.as_ref().map_or("--split must say which part".into(), |split| format!("no {split:?}")), found.join(", "))]
    Split {
        /// Where parts were looked for.
        path: PathBuf,
        /// Which was asked for.
        split: Option<String>,
        /// Which there are.
        found: Vec<String>,
    },
    /// Nothing can be measured.
    #[error("{}: none of its {images} photographs has a labelled object that counts", path.display())]
    NothingLabelled {
        /// The data set.
        path: PathBuf,
        /// Photographs in it.
        images: usize,
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
    /// What result files call it: COCO's id, or the file's path without extension in its folder of pictures.
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
    /// COCO's category ids; without them classes count from 1.
    pub category_ids: Vec<Id>,
    /// Of each class, whether its objects are labelled. What is not labelled in a picture may still be there.
    pub labelled: Vec<bool>,
    /// In the order of their files.
    pub images: Vec<LabelledImage>,
    /// Photographs of the set that are not to be measured: their labels are at fault, or they belong to another part. Result files
    /// may name them.
    pub set_aside: Vec<LabelledImage>,
    /// What is at fault; nothing in it is measured.
    pub faults: Vec<Fault>,
    /// What else a reader should hear: labels without picture, rows that count once.
    pub notes: Vec<String>,
}

/// Which part of a data set is read, where it has parts (train, val, test).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split<'a> {
    /// This one, or all where there are no parts.
    Prefer(&'a str),
    /// This one and no other: its name, or the path of a list of pictures.
    Only(&'a str),
}

/// Which part the readers look for.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    name: String,
    required: bool,
    /// All parts, since a list chooses among them.
    all: bool,
}

impl Dataset {
    /// Reads a data set: a file or folder in one of the layouts of docs/DATASETS.md. What is at fault in it is left out and
    /// told in [`Dataset::faults`].
    ///
    /// # Errors
    /// [`DatasetError`] if nothing can be read.
    pub fn load(path: &Path, split: Split) -> Result<Self, DatasetError> {
        match split {
            Split::Prefer(name) => read(path, &Choice { name: name.into(), required: false, all: false }),
            Split::Only(list) if Path::new(list).is_file() => {
                let choice = Choice { name: stem_of(Path::new(list)), required: false, all: true };
                read(path, &choice)?.keep_listed(path, Path::new(list))
            }
            Split::Only(name) => read(path, &Choice { name: name.into(), required: true, all: false }),
        }
    }

    /// Parses COCO detection labels; pictures lie in or around `folder`. `origin` names the file in errors.
    ///
    /// # Errors
    /// [`DatasetError::File`].
    pub fn parse_coco(text: &str, origin: &Path, folder: &Path) -> Result<Self, DatasetError> {
        Ok(coco::parse(text, origin, folder)?)
    }

    /// Sets all photographs but the first `count` aside.
    pub fn truncate(&mut self, count: usize) {
        self.set_aside.extend(self.images.drain(count.min(self.images.len())..));
    }

    /// An average precision of photographs without objects is no number.
    ///
    /// # Errors
    /// [`DatasetError::NothingLabelled`] if no object counts: `path` names the set in it.
    pub fn check_labelled(&self, path: &Path) -> Result<(), DatasetError> {
        let mut objects = self.images.iter().flat_map(|image| &image.objects);
        if objects.any(|object| !object.crowd && !object.difficult) {
            return Ok(());
        }
        Err(DatasetError::NothingLabelled { path: path.to_owned(), images: self.images.len() })
    }

    /// A photograph that is not measured since its labels are wrong.
    pub(crate) fn leave_out(&mut self, image: LabelledImage, fault: Fault) {
        self.set_aside.push(image);
        self.faults.push(fault);
    }

    /// Classes that count from 1 in result files.
    pub(crate) fn with_classes(mut self, classes: Vec<String>) -> Self {
        self.category_ids = (1..=classes.len() as i64).map(Id::Number).collect();
        self.labelled = vec![true; classes.len()];
        self.classes = classes;
        self
    }

    /// Sets aside what a list does not name. Its lines are ids, file names or paths, also as VOC has them for one class (`000005 -1`).
    fn keep_listed(mut self, root: &Path, list: &Path) -> Result<Self, DatasetError> {
        let text = read_text(list)?;
        let lines = text.lines().map(|line| {
            let line = line.trim();
            let flagged = line.rsplit_once(char::is_whitespace).filter(|(_, flag)| ["1", "0", "-1"].contains(flag));
            flagged.map_or(line, |(name, _)| name.trim()).replace('\\', "/")
        });
        let names: Vec<String> = lines.filter(|line| !line.is_empty()).collect();
        let mut wanted: std::collections::HashMap<&str, Vec<(usize, Vec<&str>)>> = Default::default();
        for (index, name) in names.iter().enumerate() {
            let parts = parts_of(name);
            wanted.entry(parts.last().copied().unwrap_or_default()).or_default().push((index, parts));
        }
        let mut found = vec![false; names.len()];
        let mut is_listed = |image: &LabelledImage| {
            let path = image.path.strip_prefix(root).unwrap_or(&image.path).to_string_lossy().replace('\\', "/");
            [path.as_str(), image.id.as_str()].iter().any(|name| {
                let parts = parts_of(name);
                let same = wanted.get(parts.last().copied().unwrap_or_default());
                let same = same
                    .into_iter()
                    .flatten()
                    .filter(|(_, other)| parts.iter().rev().zip(other.iter().rev()).all(|(part, other)| part == other));
                same.map(|(index, _)| found[*index] = true).count() > 0
            })
        };
        let (images, others) = std::mem::take(&mut self.images).into_iter().partition(|image| is_listed(image));
        self.images = images;
        // What is at fault is in the list too, though not measured.
        for image in &self.set_aside {
            is_listed(image);
        }
        self.set_aside.extend::<Vec<_>>(others);
        let missing = found.iter().filter(|found| !**found).count();
        if missing == names.len() {
            return Err(Fault::new(list, "none of its lines names a picture of the data set").into());
        }
        if missing > 0 {
            let (list, count) = (list.display(), names.len());
            self.notes.push(format!("{list}: {missing} of {count} lines name no picture of the data set"));
        }
        Ok(self)
    }
}

/// Folders and name of a picture, without the ending that says it is one.
fn parts_of(name: &str) -> Vec<&str> {
    let bare = name.rsplit_once('.').filter(|(_, end)| IMAGE_EXTENSIONS.contains(&end.to_lowercase().as_str()));
    bare.map_or(name, |(bare, _)| bare).split('/').filter(|part| !part.is_empty() && *part != ".").collect()
}

impl Choice {
    /// Names that mean the same part.
    fn names(name: &str) -> Vec<&str> {
        let known = [&["val", "valid", "validation"][..], &["train", "training"], &["test", "testing"]];
        known.into_iter().find(|names| names.contains(&name)).map_or_else(|| vec![name], <[_]>::to_vec)
    }

    /// Whether a file's or folder's name has the name of a part in it, perhaps with a year: `instances_val2017`.
    fn has(text: &str, part: &str) -> bool {
        let names = Self::names(part);
        let mut words = text.split(|letter: char| !letter.is_alphanumeric());
        let is_name = |word: &str| names.iter().any(|name| word.eq_ignore_ascii_case(name));
        text == part || words.any(|word| is_name(word) || is_name(word.trim_end_matches(|c: char| c.is_ascii_digit())))
    }

    /// Whether something that is called so is a part of a set.
    pub(crate) fn is_part(&self, name: &str) -> bool {
        let bare = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let known =
            ["train", "val", "test"].into_iter().flat_map(Self::names).any(|part| bare.eq_ignore_ascii_case(part));
        known || (self.required && name == self.name)
    }

    /// Sub-folders that are parts of a set.
    pub(crate) fn parts_in(&self, folder: &Path) -> Vec<(String, PathBuf)> {
        let entries = crate::labels::files::entries_of(folder).unwrap_or_default();
        let names = entries.into_iter().filter(|path| path.is_dir()).filter_map(|path| {
            let name = path.file_name()?.to_string_lossy().into_owned();
            self.is_part(&name).then_some((name, path))
        });
        names.collect()
    }

    /// The parts to be read among `parts`: the one that was asked for, else the only one; for a list all.
    ///
    /// # Errors
    /// [`DatasetError::Split`].
    pub(crate) fn pick<T>(&self, path: &Path, parts: Vec<(String, T)>) -> Result<Vec<T>, DatasetError> {
        let found: Vec<String> = parts.iter().map(|(name, _)| name.clone()).collect();
        let matching = || found.iter().position(|name| *name == self.name);
        let index = matching().or_else(|| found.iter().position(|name| Self::has(name, &self.name)));
        let mut parts = parts.into_iter().map(|(_, part)| part);
        match index {
            _ if self.all => Ok(parts.collect()),
            Some(index) => Ok(parts.nth(index).into_iter().collect()),
            None if parts.len() == 1 && !self.required => Ok(parts.collect()),
            None => {
                let split = self.required.then(|| self.name.clone());
                Err(DatasetError::Split { path: path.to_owned(), split, found })
            }
        }
    }

    /// Where a set has no parts: the whole is read unless one was asked for.
    ///
    /// # Errors
    /// [`DatasetError::Split`].
    pub(crate) fn none_here(&self, path: &Path) -> Result<(), DatasetError> {
        self.pick(path, vec![("no part of it".to_owned(), ())]).map(drop)
    }
}

fn read(path: &Path, choice: &Choice) -> Result<Dataset, DatasetError> {
    if path.is_dir() {
        return read_folder(path, choice)?.ok_or_else(|| DatasetError::UnknownLayout { path: path.to_owned() });
    }
    std::fs::metadata(path).map_err(|error| Fault::unreadable(path, &error))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    if has_extension(path, &["json"]) {
        return Ok(coco::parse(&read_text(path)?, path, folder)?);
    }
    if has_extension(path, &["txt"]) {
        return yolo::read_list(path);
    }
    let description = match path.extension().and_then(|extension| extension.to_str()) {
        Some("yaml" | "yml") => yolo::Description::from_yaml(path)?,
        Some("data") => yolo::Description::from_darknet(path)?,
        _ => return Err(DatasetError::UnknownLayout { path: path.to_owned() }),
    };
    let description = description.ok_or_else(|| Fault::new(path, "it says no names of classes"))?;
    yolo::read(if folder.as_os_str().is_empty() { Path::new(".") } else { folder }, &description, choice)
}

/// `None` where the folder has none of the layouts.
fn read_folder(folder: &Path, choice: &Choice) -> Result<Option<Dataset>, DatasetError> {
    std::fs::read_dir(folder).map_err(|error| Fault::unreadable(folder, &error))?;
    let files = coco_files(folder);
    if !files.is_empty() {
        let files = files.into_iter().map(|path| (stem_of(&path), path)).collect();
        let path = choice.pick(folder, files)?.swap_remove(0);
        let inside = path.parent().unwrap_or(folder);
        return Ok(Some(coco::parse(&read_text(&path)?, &path, inside)?));
    }
    // Names of classes alone may stand beside labels of VOC too.
    let description = yolo::Description::find(folder)?;
    if let Some(description) = description.filter(|found| !found.is_list() || voc_annotations(folder).is_none()) {
        return yolo::read(folder, &description, choice).map(Some);
    }
    if let Some(annotations) = voc_annotations(folder) {
        return read_voc(folder, annotations, choice).map(Some);
    }
    if subfolder(folder, &["labels"]).is_some() && subfolder(folder, &PICTURE_FOLDERS).is_some() {
        let description = yolo::Description::find_around(folder)?;
        return yolo::read(folder, &description, choice).map(Some);
    }
    // A folder for each part, each with a layout of its own, as Roboflow exports them.
    let mut parts = Vec::new();
    for (name, part) in choice.parts_in(folder) {
        parts.extend(is_layout(&part).then_some((name, part)));
    }
    if parts.is_empty() {
        // XML beside pictures, all of them in sub-folders.
        let is_voc = files_below(folder, voc::is_xml, &mut Vec::new()).iter().any(|path| voc::is_voc(path));
        return is_voc.then(|| read_voc(folder, folder.to_owned(), choice)).transpose();
    }
    read_folder(&choice.pick(folder, parts)?.swap_remove(0), &Choice { required: false, ..choice.clone() })
}

/// Whether a folder has a layout of its own, by its looks.
fn is_layout(folder: &Path) -> bool {
    let described = yolo::Description::find(folder).is_ok_and(|found| found.is_some());
    !coco_files(folder).is_empty() || described || voc_annotations(folder).is_some()
}

/// COCO's label files of a folder, by what programs call them.
fn coco_files(folder: &Path) -> Vec<PathBuf> {
    // Results of a detector are a list, not an object.
    let is_object = |path: &PathBuf| {
        use std::io::Read;
        let mut start = Vec::new();
        let read = std::fs::File::open(path).and_then(|file| file.take(64).read_to_end(&mut start));
        // In UTF-16 too, whose other byte is 0 here.
        let text: Vec<u8> =
            start.into_iter().filter(|byte| !matches!(byte, 0 | 0xEF | 0xBB | 0xBF | 0xFE | 0xFF)).collect();
        let text = text.trim_ascii_start();
        read.is_ok() && (text.starts_with(b"{") || text.is_empty())
    };
    let mut files = files_in(folder, &["json"]);
    let says = |path: &Path| read_text(path).is_ok_and(|text| text.contains("\"annotations\""));
    files.retain(|path| {
        let stem = stem_of(path).to_lowercase();
        // Other things are called labels or result too.
        let usual =
            stem == "annotations" || ["_annotations", "instances", "lvis"].iter().any(|start| stem.starts_with(start));
        usual || (["labels", "result"].contains(&stem.as_str()) && says(path))
    });
    if files.is_empty() {
        let inside = subfolder(folder, &["annotations"]).map(|folder| files_in(&folder, &["json"])).unwrap_or_default();
        // Beside the boxes COCO has files of key points, captions and regions.
        let others = ["captions", "person_keypoints", "panoptic", "stuff", "image_info"];
        files = inside
            .iter()
            .filter(|path| !others.iter().any(|start| stem_of(path).starts_with(start)))
            .cloned()
            .collect();
        let instances = |path: &PathBuf| stem_of(path).to_lowercase().starts_with("instances");
        if files.iter().any(instances) {
            files.retain(instances);
        }
    }
    files.retain(is_object);
    files
}

/// The folder of VOC's XML files: one that is called so, or the folder itself, where they lie beside the pictures.
fn voc_annotations(folder: &Path) -> Option<PathBuf> {
    let inside = ["Annotations", "annotation", "labels", "xml", "xmls"].into_iter();
    let has_any = |folder: &PathBuf| !files_below(folder, voc::is_xml, &mut Vec::new()).is_empty();
    if let Some(found) = inside.filter_map(|name| subfolder(folder, &[name])).find(has_any) {
        return Some(found);
    }
    files_in(folder, &["xml"]).iter().any(|path| voc::is_voc(path)).then(|| folder.to_owned())
}

fn read_voc(folder: &Path, mut annotations: PathBuf, choice: &Choice) -> Result<Dataset, DatasetError> {
    let pictures = PICTURE_FOLDERS.iter().filter_map(|name| subfolder(folder, &[name]));
    let mut pictures: Vec<PathBuf> = pictures.filter(|path| *path != annotations && annotations != folder).collect();
    let sets = ["ImageSets/Main", "ImageSets", ""].iter().map(|name| folder.join(name));
    let lists = sets.map(|sets| files_in(&sets, &["txt"])).find(|lists| !lists.is_empty()).unwrap_or_default();
    let lists: Vec<(String, PathBuf)> = lists.into_iter().map(|path| (stem_of(&path), path)).collect();
    let parts = choice.parts_in(&annotations);
    let mut chosen = None;
    // All of it counts unless a part was asked for.
    if choice.required {
        match lists.iter().any(|(name, _)| *name == choice.name) || parts.is_empty() {
            true if lists.is_empty() => choice.none_here(folder)?,
            true => chosen = choice.pick(folder, lists)?.pop(),
            false => annotations = choice.pick(folder, parts)?.swap_remove(0),
        }
    }
    if pictures.is_empty() {
        pictures.push(folder.to_owned());
    }
    let dataset = voc::read(&annotations, &pictures);
    match chosen {
        Some(list) => dataset.keep_listed(folder, &list),
        None => Ok(dataset),
    }
}
