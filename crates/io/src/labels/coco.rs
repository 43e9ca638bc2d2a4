//! COCO's labels: one JSON file with images, annotations and categories that refer to each other by ids.
//!
//! Made for what pycocotools reads, which goes by Python's rules: an id is anything that can be compared, `iscrowd` is whatever
//! is true, and numbers may be `NaN` (Lin et al. 2014, github.com/cocodataset/cocoapi).

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeOwned, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::files::{IMAGE_FOLDERS, find_file, portable_name, stem_of};
use super::{Dataset, Fault, LabelledImage, Object, object};
use yolo_lat_core::geometry::BBox;

/// What an image or a category is referred to by: a number, also one that is written as `1.0`, or a text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum Id {
    /// A whole number.
    Number(i64),
    /// Anything else, such as a UUID.
    Text(String),
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IdVisitor)
    }
}

struct IdVisitor;

impl Visitor<'_> for IdVisitor {
    type Value = Id;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an id: a whole number or a text")
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Id, E> {
        Ok(Id::Number(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Id, E> {
        Ok(i64::try_from(value).map_or_else(|_| Id::Text(value.to_string()), Id::Number))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Id, E> {
        // Beyond 2^53 neighbouring whole numbers are the same float.
        let whole = value.fract() == 0.0 && value.abs() < 9e15;
        if whole { Ok(Id::Number(value as i64)) } else { Err(E::custom(format!("the id {value} is no whole number"))) }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Id, E> {
        Ok(Id::Text(value.to_owned()))
    }
}

/// A number, or nothing: what stands there instead (null, a list, a text) is for the reader to judge where it matters.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Number(pub(crate) Option<f64>);

impl Number {
    /// Python's truth, with NaN for no.
    fn is_true(self) -> bool {
        self.0.is_some_and(|value| value != 0.0)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor).map(Self)
    }
}

struct NumberVisitor;

impl<'de> Visitor<'de> for NumberVisitor {
    type Value = Option<f64>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Some(f64::from(u8::from(value))))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Some(value as f64))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Some(value as f64))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Some(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(value.trim().parse().ok())
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

/// x, y, width and height, if it is four finite numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Xywh(pub(crate) Option<[f32; 4]>);

impl<'de> Deserialize<'de> for Xywh {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let values = Option::<Vec<Number>>::deserialize(deserializer)?.unwrap_or_default();
        let values: Option<Vec<f32>> = values.iter().map(|value| value.0.map(|value| value as f32)).collect();
        let numbers = values.and_then(|values| <[f32; 4]>::try_from(values).ok());
        Ok(Self(numbers.filter(|numbers| numbers.iter().all(|value| value.is_finite()))))
    }
}

#[derive(Deserialize)]
#[serde(expecting = "an object with images, annotations and categories")]
struct File {
    /// Programs write what they like here. Of ours `labelled_classes` has the names of the classes that are labelled, where some
    /// are not.
    #[serde(default)]
    info: serde_json::Value,
    images: Vec<Image>,
    annotations: Vec<Annotation>,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
#[serde(expecting = "an image: an object with id and file_name")]
struct Image {
    id: Id,
    file_name: Option<String>,
    /// LVIS has only this.
    coco_url: Option<String>,
}

#[derive(Deserialize)]
#[serde(expecting = "an annotation: an object with image_id, category_id and bbox")]
struct Annotation {
    image_id: Option<Id>,
    category_id: Option<Id>,
    #[serde(default)]
    bbox: Xywh,
    #[serde(default)]
    area: Number,
    #[serde(default)]
    iscrowd: Number,
    #[serde(default)]
    difficult: Number,
}

#[derive(Deserialize)]
#[serde(expecting = "a category: an object with id and name")]
struct Category {
    id: Id,
    /// Some programs write digits as a number.
    name: Id,
}

/// Parses JSON as Python's `json` reads and writes it.
pub(crate) fn parse_json<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text)
        .or_else(|error| if error.is_syntax() { serde_json::from_str(&without_nan(text)) } else { Err(error) })
        .map_err(|error| error.to_string())
}

/// Writes `null` for the numbers `NaN`, `Infinity` and `-Infinity`, which JSON lacks and Python's `json` writes. In valid JSON letters
/// stand within quotes, or in true, false and null. (A parser of JSON5 knows them too, but has no limit to how deeply lists may
/// lie in each other.)
fn without_nan(text: &str) -> Cow<'_, str> {
    if !text.contains("NaN") && !text.contains("Infinity") {
        return Cow::Borrowed(text);
    }
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (plain, quoted) = rest.split_at(rest.find('"').unwrap_or(rest.len()));
        if plain.contains(['N', 'I']) {
            let names = ["-Infinity", "Infinity", "NaN"];
            result.push_str(&names.iter().fold(plain.to_owned(), |plain, name| plain.replace(name, "null")));
        } else {
            result.push_str(plain);
        }
        let (quoted, after) = quoted.split_at(end_of_quoted(quoted));
        result.push_str(quoted);
        rest = after;
    }
    Cow::Owned(result)
}

/// How long the text in quotes is with which `text` begins.
fn end_of_quoted(text: &str) -> usize {
    let mut escaped = true; // The opening quote ends nothing.
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !escaped => return at + 1,
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// Reads the labels in `text`, which stand in the file `origin`. Images lie in `folder` or around it.
///
/// # Errors
/// [`Fault`] where the file is none of COCO's; single annotations that make no sense leave out their image.
pub(crate) fn parse(text: &str, origin: &Path, folder: &Path) -> Result<Dataset, Fault> {
    let invalid = |reason: String| Fault::new(origin, reason);
    let file: File = parse_json(text).map_err(|error| invalid(format!("not COCO labels: {error}")))?;
    let mut classes = HashMap::new();
    for (index, category) in file.categories.iter().enumerate() {
        if let Some(other) = classes.insert(category.id.to_string(), index) {
            let (id, other, name) = (&category.id, &file.categories[other].name, &category.name);
            return Err(invalid(format!("category id {id} stands twice, for {other} and {name}")));
        }
    }
    let folders = image_folders(folder, origin);
    let mut index_of_id = HashMap::new();
    let mut images: Vec<(LabelledImage, Option<String>)> = Vec::new();
    for image in file.images {
        let id = image.id.to_string();
        if index_of_id.insert(id.clone(), images.len()).is_some() {
            return Err(invalid(format!("image id {id} stands twice")));
        }
        let path = path_of(&image, folder, &folders);
        let fault = path.is_none().then(|| format!("image {id} has no file_name"));
        images.push((LabelledImage { id, path: path.unwrap_or_default(), objects: Vec::new() }, fault));
    }
    let mut strangers = 0;
    for (position, annotation) in file.annotations.iter().enumerate() {
        let image = annotation.image_id.as_ref().and_then(|id| index_of_id.get(&id.to_string()));
        let Some(&image) = image else {
            strangers += 1;
            continue;
        };
        match object_of(annotation, &classes) {
            Ok(object) => images[image].0.objects.push(object),
            Err(reason) => images[image].1 = Some(format!("annotation {position}: {reason}")),
        }
    }
    let mut dataset = Dataset {
        category_ids: file.categories.iter().map(|category| category.id.clone()).collect(),
        classes: file.categories.into_iter().map(|category| category.name.to_string().trim().to_owned()).collect(),
        ..Dataset::default()
    };
    dataset.labelled = labelled(&file.info, &dataset.classes).map_err(invalid)?;
    for (image, fault) in images {
        match fault {
            None => dataset.images.push(image),
            Some(reason) => dataset.leave_out(image, invalid(reason)),
        }
    }
    let mut objects = dataset.images.iter().flat_map(|image| &image.objects);
    if let Some(object) = objects.find(|object| !dataset.labelled[object.class]) {
        let class = &dataset.classes[object.class];
        return Err(invalid(format!("{class:?} has boxes but is not among info.labelled_classes")));
    }
    if strangers > 0 {
        let count = file.annotations.len();
        dataset.notes.push(format!("{}: {strangers} of {count} annotations belong to no image", origin.display()));
    }
    Ok(dataset)
}

/// Whether each class is labelled.
fn labelled(info: &serde_json::Value, classes: &[String]) -> Result<Vec<bool>, String> {
    let Some(names) = info.get("labelled_classes") else { return Ok(vec![true; classes.len()]) };
    let names: Vec<&str> = names.as_array().into_iter().flatten().filter_map(serde_json::Value::as_str).collect();
    match names.iter().find(|name| !classes.iter().any(|class| class == *name)) {
        Some(name) => Err(format!("info.labelled_classes: no category is called {name:?}")),
        None => Ok(classes.iter().map(|class| names.contains(&class.as_str())).collect()),
    }
}

fn object_of(annotation: &Annotation, classes: &HashMap<String, usize>) -> Result<Object, String> {
    let Annotation { category_id, bbox, area, iscrowd, difficult, .. } = annotation;
    let category = category_id.as_ref().ok_or("it has no category_id")?.to_string();
    let &class = classes.get(&category).ok_or_else(|| format!("no category has the id {category}"))?;
    let bbox = bbox.0.ok_or("its bbox is not four numbers (x, y, width, height)")?;
    object(class, BBox::from_xywh(bbox), area.0.map(|area| area as f32), difficult.is_true(), iscrowd.is_true())
}

/// Where images may lie: beside the file or its folder, in a folder called as folders of images are, or as the part of the set
/// is (`instances_val2017.json`, `val2017/`).
fn image_folders(folder: &Path, origin: &Path) -> Vec<PathBuf> {
    let stem = stem_of(origin);
    let subset = stem.rsplit('_').next().filter(|subset| !subset.is_empty() && !subset.starts_with('.'));
    let above = match folder.parent() {
        Some(above) if !above.as_os_str().is_empty() => above.to_owned(),
        _ if folder.as_os_str().is_empty() || folder == Path::new(".") => PathBuf::from(".."),
        _ => PathBuf::new(),
    };
    let mut folders = Vec::new();
    for root in [folder.to_owned(), above] {
        let inner: Vec<PathBuf> = IMAGE_FOLDERS.iter().map(|name| root.join(name)).collect();
        for parent in [vec![root], inner].concat() {
            folders.extend([Some(parent.clone()), subset.map(|subset| parent.join(subset))].into_iter().flatten());
        }
    }
    folders.retain(|folder| folder.as_os_str().is_empty() || folder.is_dir());
    folders
}

/// The image's file, or where it should be; `None` if nothing names it.
fn path_of(image: &Image, folder: &Path, folders: &[PathBuf]) -> Option<PathBuf> {
    let names = [image.file_name.as_deref(), image.coco_url.as_deref()];
    let names = names.into_iter().flatten().filter(|name| !name.trim().is_empty());
    let mut missing = None;
    for name in names {
        if let Some(path) = find_file(name, folders) {
            return Some(path);
        }
        missing = missing.or_else(|| Some(folder.join(portable_name(name))));
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_python_are_read_and_texts_left_alone() {
        let text = r#"{"NaN": [NaN, -Infinity, Infinity, 1.5], "a\\": "NaN \" Infinity", "b": "\\", "c": NaN}"#;
        let value: serde_json::Value = parse_json(text).unwrap();
        let expected =
            serde_json::json!({"NaN": [null, null, null, 1.5], "a\\": "NaN \" Infinity", "b": "\\", "c": null});
        assert_eq!(value, expected);
        assert!(parse_json::<serde_json::Value>("[NaN, Nan]").is_err());
        // However deep, it is an error and not the end of the program.
        let deep = format!("{{\"a\": NaN, \"b\": {}", "[".repeat(200_000));
        assert!(parse_json::<serde_json::Value>(&deep).unwrap_err().contains("recursion"));
    }

    #[test]
    fn ids_are_compared_as_python_would_and_texts_too() {
        let ids: Vec<Id> = parse_json(r#"[1, 1.0, "1", "a-b", 18446744073709551615]"#).unwrap();
        let texts: Vec<String> = ids.iter().map(Id::to_string).collect();
        assert_eq!(texts, ["1", "1", "1", "a-b", "18446744073709551615"]);
        assert!(parse_json::<Id>("1.5").unwrap_err().contains("1.5 is no whole number"));
    }
}
