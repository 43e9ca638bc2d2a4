//! What readers make of labels, and which part of them they look for.

use std::path::{Path, PathBuf};

use super::Fault;
use super::coco::Id;
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
         or beside the images) or YOLO (data.yaml, or images/ and labels/ with classes.txt); `eval --help` lists all layouts",
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
    #[error("{}: none of its {images} images has a labelled object that counts", path.display())]
    NothingLabelled {
        /// The data set.
        path: PathBuf,
        /// Images in it.
        images: usize,
    },
}

/// One labelled object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Object {
    /// Index into the data set's classes.
    pub class: usize,
    /// In pixels of the image.
    pub bbox: BBox,
    /// Area in pixels as the data set gives it (COCO: of the segment), else of the box.
    pub area: f32,
    /// Neither an object to be found nor a false alarm when found.
    pub difficult: bool,
    /// A region of many objects: it may be found any number of times.
    pub crowd: bool,
}

/// An image with its labels.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledImage {
    /// What result files call it: COCO's id, or the file's path without extension in its folder of images.
    pub id: String,
    /// The file.
    pub path: PathBuf,
    /// Labels.
    pub objects: Vec<Object>,
}

/// Labelled images.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dataset {
    /// Class names; the index is the class of [`Object`].
    pub classes: Vec<String>,
    /// COCO's category ids; without them classes count from 1.
    pub category_ids: Vec<Id>,
    /// Of each class, whether its objects are labelled. What is not labelled in an image may still be there.
    pub labelled: Vec<bool>,
    /// In the order of their files.
    pub images: Vec<LabelledImage>,
    /// Images of the set that are not to be measured: their labels are at fault, or they belong to another part. Result files
    /// may name them.
    pub set_aside: Vec<LabelledImage>,
    /// What is at fault; nothing in it is measured.
    pub faults: Vec<Fault>,
    /// What else a reader should hear: labels without image, rows that count once.
    pub notes: Vec<String>,
}

impl Dataset {
    /// An image that is not measured since its labels are wrong.
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
}

/// Which part the readers look for.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) name: String,
    pub(crate) required: bool,
    /// All parts, since a list chooses among them.
    pub(crate) all: bool,
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
        let entries = super::files::entries_of(folder).unwrap_or_default();
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
