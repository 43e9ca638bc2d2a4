//! Labelled images: finds out which layout a path has and calls the reader of its format. docs/DATASETS.md lists them.

use std::path::{Path, PathBuf};

use crate::labels::files::{IMAGE_FOLDERS, files_below, files_in, read_text, stem_of, subfolder};
use crate::labels::{Choice, Fault, coco, voc, yolo};
pub use crate::labels::{Dataset, DatasetError, LabelledImage, Object};
use crate::source::{IMAGE_EXTENSIONS, has_extension};

/// Which part of a data set is read, where it has parts (train, val, test).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split<'a> {
    /// This one, or all where there are no parts.
    Prefer(&'a str),
    /// This one and no other: its name, or the path of a list of images.
    Only(&'a str),
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

    /// Parses COCO detection labels; images lie in or around `folder`. `origin` names the file in errors.
    ///
    /// # Errors
    /// [`DatasetError::File`].
    pub fn parse_coco(text: &str, origin: &Path, folder: &Path) -> Result<Self, DatasetError> {
        Ok(coco::parse(text, origin, folder)?)
    }

    /// Sets all images but the first `count` aside.
    pub fn truncate(&mut self, count: usize) {
        self.set_aside.extend(self.images.drain(count.min(self.images.len())..));
    }

    /// An average precision of images without objects is no number.
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
            return Err(Fault::new(list, "none of its lines names an image of the data set").into());
        }
        if missing > 0 {
            let (list, count) = (list.display(), names.len());
            self.notes.push(format!("{list}: {missing} of {count} lines name no image of the data set"));
        }
        Ok(self)
    }
}

/// Folders and name of an image, without the ending that says it is one.
fn parts_of(name: &str) -> Vec<&str> {
    let bare = name.rsplit_once('.').filter(|(_, end)| IMAGE_EXTENSIONS.contains(&end.to_lowercase().as_str()));
    bare.map_or(name, |(bare, _)| bare).split('/').filter(|part| !part.is_empty() && *part != ".").collect()
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
    if subfolder(folder, &["labels"]).is_some() && subfolder(folder, &IMAGE_FOLDERS).is_some() {
        let description = yolo::Description::find_around(folder)?;
        return yolo::read(folder, &description, choice).map(Some);
    }
    // A folder for each part, each with a layout of its own, as Roboflow exports them.
    let mut parts = Vec::new();
    for (name, part) in choice.parts_in(folder) {
        parts.extend(is_layout(&part).then_some((name, part)));
    }
    if parts.is_empty() {
        // XML beside images, all of them in sub-folders.
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

/// The folder of VOC's XML files: one that is called so, or the folder itself, where they lie beside the images.
fn voc_annotations(folder: &Path) -> Option<PathBuf> {
    let inside = ["Annotations", "annotation", "labels", "xml", "xmls"].into_iter();
    let has_any = |folder: &PathBuf| !files_below(folder, voc::is_xml, &mut Vec::new()).is_empty();
    if let Some(found) = inside.filter_map(|name| subfolder(folder, &[name])).find(has_any) {
        return Some(found);
    }
    files_in(folder, &["xml"]).iter().any(|path| voc::is_voc(path)).then(|| folder.to_owned())
}

fn read_voc(folder: &Path, mut annotations: PathBuf, choice: &Choice) -> Result<Dataset, DatasetError> {
    let images = IMAGE_FOLDERS.iter().filter_map(|name| subfolder(folder, &[name]));
    let mut images: Vec<PathBuf> = images.filter(|path| *path != annotations && annotations != folder).collect();
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
    if images.is_empty() {
        images.push(folder.to_owned());
    }
    let dataset = voc::read(&annotations, &images);
    match chosen {
        Some(list) => dataset.keep_listed(folder, &list),
        None => Ok(dataset),
    }
}
