//! YOLO's labels: one text file an image, one row an object, in shares of the upright image.
//!
//! The label file of an image is where ultralytics looks (`images/` becomes `labels/`) or where Darknet does (beside the image).

use std::collections::{BTreeSet, HashSet};
use std::path::{Component, Path, PathBuf};

use super::data_yaml::DataYaml;
use super::files::{
    IMAGE_FOLDERS, files_below, files_in, find_file, name_below, portable_name, read_text, stem_of, subfolder,
};
use super::{Choice, Dataset, DatasetError, Fault, LabelledImage, Object, object};
use crate::source::{has_extension, image_size, is_image};
use yolo_lat_core::geometry::BBox;

/// How far beyond the image a share may lie: programs round, and cut boxes carelessly.
const OUTSIDE: f64 = 0.01;

/// What a set's files say beside its labels.
#[derive(Debug)]
pub(crate) struct Description {
    /// The file that says it.
    pub(crate) path: PathBuf,
    classes: Vec<String>,
    /// Key points of a pose, and numbers of each.
    key_points: Option<[usize; 2]>,
    /// Where the parts lie: folders of images or lists of them, by the name of the part.
    splits: Vec<(String, Vec<String>)>,
    /// Folders that these are relative to, the likeliest first.
    roots: Vec<PathBuf>,
}

impl Description {
    /// From a `data.yaml`; `None` if it says nothing of classes.
    pub(crate) fn from_yaml(path: &Path) -> Result<Option<Self>, Fault> {
        let yaml = DataYaml::read(path)?;
        let Some(classes) = yaml.classes() else { return Ok(None) };
        let folder = folder_of(path);
        // Relative to the file, or to where the program runs. A set that was moved is still beside its file.
        let given = yaml.path.0.first().map(|given| portable_name(given));
        let given = given.into_iter().flat_map(|given| [folder.join(&given), PathBuf::from(given)]);
        let splits = yaml.splits().into_iter().map(|(name, paths)| (name.to_owned(), paths.to_vec())).collect();
        let roots = given.chain([folder.clone()]).collect();
        Ok(Some(Self { path: path.to_owned(), classes, key_points: yaml.kpt_shape, splits, roots }))
    }

    /// Whether there is nothing but names of classes, one a line.
    pub(crate) fn is_list(&self) -> bool {
        !has_extension(&self.path, &["yaml", "yml", "data"])
    }

    /// From Darknet's `obj.data`: lines of `key = value`; `None` if it names no file of names.
    pub(crate) fn from_darknet(path: &Path) -> Result<Option<Self>, Fault> {
        // Other programs call their binary files so.
        let Ok(text) = read_text(path) else { return Ok(None) };
        let lines: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once('=')).collect();
        let value = |key: &str| lines.iter().find(|(found, _)| found.trim() == key).map(|(_, value)| value.trim());
        let folder = folder_of(path);
        let Some(names) = value("names") else { return Ok(None) };
        let list = find_file(names, std::slice::from_ref(&folder))
            .ok_or_else(|| Fault::new(path, format!("names = {names}: there is no such file")))?;
        let splits = ["train", "valid", "test"].into_iter();
        let splits = splits.filter_map(|name| Some((name.to_owned(), vec![value(name)?.to_owned()]))).collect();
        Ok(Some(Self {
            classes: read_names(&list)?,
            path: path.to_owned(),
            key_points: None,
            splits,
            roots: vec![folder],
        }))
    }

    /// What describes a folder: its own files, or those of its labels.
    ///
    /// # Errors
    /// A file that cannot be understood, or several that describe it.
    pub(crate) fn find(folder: &Path) -> Result<Option<Self>, Fault> {
        let mut yamls = files_in(folder, &["yaml", "yml"]);
        let usual = yamls.iter().position(|path| ["data", "dataset"].contains(&stem_of(path).as_str()));
        if let Some(index) = usual
            && let Some(found) = Self::from_yaml(&yamls.swap_remove(index))?
        {
            return Ok(Some(found));
        }
        let mut described = yamls.iter().filter_map(|path| Self::from_yaml(path).ok().flatten());
        match (described.next(), described.next()) {
            (Some(first), Some(second)) => {
                return Err(Fault::new(
                    &first.path,
                    format!("{} names classes too: name one of them", second.path.display()),
                ));
            }
            (Some(found), None) => return Ok(Some(found)),
            _ => {}
        }
        for path in files_in(folder, &["data"]) {
            if let Some(found) = Self::from_darknet(&path)? {
                return Ok(Some(found));
            }
        }
        let labels = subfolder(folder, &["labels"]);
        let lists = [Some(folder.to_owned()), labels].into_iter().flatten();
        let mut lists = lists.flat_map(|folder| {
            let usual = ["classes.txt", "_darknet.labels"].map(|name| folder.join(name));
            usual.into_iter().filter(|path| path.is_file()).chain(files_in(&folder, &["names"]))
        });
        let Some(path) = lists.next() else { return Ok(None) };
        let roots = vec![folder.to_owned()];
        Ok(Some(Self { classes: read_names(&path)?, path, key_points: None, splits: Vec::new(), roots }))
    }

    /// As [`Self::find`], else of the folder above: parts of a set lie in folders of their own.
    pub(crate) fn find_around(folder: &Path) -> Result<Self, DatasetError> {
        let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
        let above = above.map_or_else(|| folder.join(".."), Path::to_owned);
        for folder in [folder, &above, &above.join("..")] {
            if let Some(found) = Self::find(folder)? {
                return Ok(found);
            }
        }
        Err(Fault::new(folder, "no names of classes: expected data.yaml, classes.txt or obj.names").into())
    }
}

/// One name a line. An empty line in the middle is a class without a name: those after it keep their numbers.
fn read_names(path: &Path) -> Result<Vec<String>, Fault> {
    let text = read_text(path)?;
    let names = text.trim_end().lines().enumerate().map(|(number, name)| match name.trim() {
        "" => format!("class{number}"),
        name => name.to_owned(),
    });
    let names: Vec<String> = names.collect();
    if names.is_empty() { Err(Fault::new(path, "no names of classes in it")) } else { Ok(names) }
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Reads the part of a set that `choice` asks for, where `description` or the usual folders have it.
///
/// # Errors
/// No such part, or one that lies nowhere.
pub(crate) fn read(folder: &Path, description: &Description, choice: &Choice) -> Result<Dataset, DatasetError> {
    let mut dataset = Dataset::default();
    let places = if description.splits.is_empty() {
        usual_places(folder, choice)?
    } else {
        let splits = description.splits.iter().map(|(name, places)| (name.clone(), places)).collect();
        let mut found = Vec::new();
        for entry in choice.pick(&description.path, splits)?.into_iter().flatten() {
            let missing = || Fault::new(&description.path, format!("{entry}: there is no such file or folder"));
            found.push(place_of(entry, &description.roots).ok_or_else(missing)?);
        }
        found
    };
    let mut images = Vec::new();
    for place in places {
        if place.is_dir() {
            let found = files_below(&place, is_image, &mut dataset.faults);
            images.extend(found.into_iter().map(|path| (name_below(&path, &place), path)));
        } else if is_image(&place) {
            images.push((stem_of(&place), place));
        } else {
            images.extend(listed(&place, &description.roots, &mut dataset)?);
        }
    }
    Ok(read_labels(images, description, dataset))
}

/// Reads the images of a list file.
///
/// # Errors
/// It cannot be read.
pub(crate) fn read_list(list: &Path) -> Result<Dataset, DatasetError> {
    let mut dataset = Dataset::default();
    let description = Description::find_around(&folder_of(list))?;
    let images = listed(list, &description.roots, &mut dataset)?;
    Ok(read_labels(images, &description, dataset))
}

/// The folder or list that an entry of `data.yaml` means. Roboflow writes `../train/images` for what lies in `train/images`, CVAT
/// `data/train.txt` for what lies beside `obj.data`.
fn place_of(entry: &str, roots: &[PathBuf]) -> Option<PathBuf> {
    let portable = portable_name(entry);
    let inside = portable.trim_start_matches("../").trim_start_matches("./");
    let candidates = [portable.as_str(), inside].into_iter();
    let mut candidates = candidates.flat_map(|entry| roots.iter().map(move |root| root.join(entry)));
    candidates.find(|path| path.exists()).or_else(|| find_file(entry, roots))
}

/// Images of a list, one path a line.
fn listed(list: &Path, roots: &[PathBuf], dataset: &mut Dataset) -> Result<Vec<(String, PathBuf)>, Fault> {
    let text = read_text(list)?;
    let folders: Vec<PathBuf> = [folder_of(list)].into_iter().chain(roots.iter().cloned()).collect();
    let mut images = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match find_file(line, &folders) {
            Some(path) => images.push((stem_of(&path), path)),
            None => dataset.faults.push(Fault::new(list, format!("{line}: there is no such image"))),
        }
    }
    Ok(images)
}

/// Where images lie without a file that says so: `images/` or one part of it, `PART/images/`, or the folder itself.
fn usual_places(folder: &Path, choice: &Choice) -> Result<Vec<PathBuf>, DatasetError> {
    let images = subfolder(folder, &IMAGE_FOLDERS);
    let parts = choice.parts_in(images.as_deref().unwrap_or(folder));
    let parts: Vec<(String, PathBuf)> =
        parts.into_iter().map(|(name, path)| (name, subfolder(&path, &IMAGE_FOLDERS).unwrap_or(path))).collect();
    let lists = files_in(folder, &["txt"]).into_iter().filter(|path| choice.is_part(&stem_of(path)));
    let lists: Vec<(String, PathBuf)> = lists.map(|path| (stem_of(&path), path)).collect();
    for places in [parts, lists] {
        if !places.is_empty() {
            return choice.pick(folder, places);
        }
    }
    choice.none_here(folder)?;
    Ok(vec![images.unwrap_or_else(|| folder.to_owned())])
}

/// Where the labels of an image may stand, ultralytics' place first.
fn label_paths(image: &Path) -> Vec<PathBuf> {
    let parts: Vec<Component> = image.components().collect();
    let is_images = |part: &Component| IMAGE_FOLDERS.iter().any(|name| part.as_os_str().eq_ignore_ascii_case(name));
    let folders = parts.len().saturating_sub(1);
    let mut paths = Vec::new();
    if let Some(at) = parts[..folders].iter().rposition(is_images) {
        let before: PathBuf = parts[..at].iter().collect();
        let after: PathBuf = parts[at + 1..].iter().collect();
        let labels = subfolder(if before.as_os_str().is_empty() { Path::new(".") } else { &before }, &["labels"]);
        paths.extend(labels.map(|labels| labels.join(after).with_extension("txt")));
    }
    paths.push(image.with_extension("txt"));
    paths.push(image.with_file_name("labels").join(image.file_name().unwrap_or_default()).with_extension("txt"));
    paths
}

/// Reads the labels of images, each with the name that result files give it.
fn read_labels(images: Vec<(String, PathBuf)>, description: &Description, mut dataset: Dataset) -> Dataset {
    let (mut claimed, mut folders) = (HashSet::new(), BTreeSet::new());
    let mut repeated: Vec<(PathBuf, usize)> = Vec::new();
    let (mut seen, mut again) = (HashSet::new(), Vec::new());
    for (id, path) in images {
        if !seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())) {
            again.push(path);
            continue;
        }
        let places = label_paths(&path);
        // A link that leads nowhere, or a folder, is no image without objects.
        let labels = places.iter().find(|labels| labels.symlink_metadata().is_ok()).cloned();
        folders.extend(places.iter().filter_map(|place| place.parent().map(Path::to_owned)));
        claimed.extend(places);
        let mut image = LabelledImage { id, path, objects: Vec::new() };
        match objects_of(&image.path, labels.as_deref(), description) {
            Ok((objects, repeats)) => {
                image.objects = objects;
                dataset.images.push(image);
                repeated.extend(labels.filter(|_| repeats > 0).map(|labels| (labels, repeats)));
            }
            Err(fault) => dataset.leave_out(image, fault),
        }
    }
    if let Some(first) = again.first() {
        let (count, first) = (again.len(), first.display());
        dataset.notes.push(format!("{count} images that are listed again count once (first: {first})"));
    }
    if let Some((first, _)) = repeated.first() {
        let (rows, files) = (repeated.iter().map(|(_, rows)| rows).sum::<usize>(), repeated.len());
        let first = first.display();
        dataset.notes.push(format!("{rows} rows that stand twice in {files} label files count once (first: {first})"));
    }
    if dataset.images.iter().all(|image| image.objects.is_empty()) {
        // Labels of another part of the set, or in folders unlike those of the images.
        let labels = description.roots.iter().filter_map(|root| subfolder(root, &["labels"]));
        let texts =
            labels.flat_map(|labels| files_below(&labels, |path| has_extension(path, &["txt"]), &mut Vec::new()));
        folders.extend(texts.filter_map(|path| Some(path.parent()?.to_owned())));
    }
    let texts = folders.iter().flat_map(|folder| files_in(folder, &["txt"]));
    let strangers: Vec<PathBuf> = texts.filter(|path| !claimed.contains(path) && holds_rows(path)).collect();
    if let Some(first) = strangers.first() {
        let (count, first) = (strangers.len(), first.display());
        dataset.notes.push(format!("{count} label files belong to no image (first: {first})"));
    }
    dataset.with_classes(description.classes.clone())
}

/// Whether a text is labels and not a list or somebody's notes.
fn holds_rows(path: &Path) -> bool {
    let Ok(text) = read_text(path) else { return false };
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let fields: Vec<&str> = first.split_whitespace().collect();
    fields.len() >= 5 && fields.iter().all(|field| field.parse::<f64>().is_ok())
}

/// Objects of an image, and how many rows were left out because they stand there already. An image without labels shows none
/// of the classes.
fn objects_of(image: &Path, labels: Option<&Path>, description: &Description) -> Result<(Vec<Object>, usize), Fault> {
    let size = image_size(image).map_err(|error| Fault::new(image, error.to_string()))?;
    let Some(labels) = labels else { return Ok((Vec::new(), 0)) };
    let (mut objects, mut repeats) = (Vec::new(), 0);
    for (line, text) in read_text(labels)?.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        let object = object_of(text, description, size);
        let object = object.map_err(|reason| Fault::new(labels, format!("line {}: {reason}", line + 1)))?;
        if objects.contains(&object) {
            repeats += 1;
        } else {
            objects.push(object);
        }
    }
    Ok((objects, repeats))
}

/// One row: `class x y width height [confidence]`, a polygon (`class x y x y x y ...`) or a pose (a box and key points).
fn object_of(line: &str, description: &Description, (width, height): (u32, u32)) -> Result<Object, String> {
    let unlike = || {
        let row = line.trim();
        let comma = if row.contains(',') { "; numbers are separated by blanks" } else { "" };
        format!("expected `class x y width height`, found {row:?}{comma}")
    };
    let (class, values) = line.trim().split_once(char::is_whitespace).ok_or_else(unlike)?;
    let classes = description.classes.len();
    // NumPy writes whole numbers as decimals too.
    let number =
        class.parse::<f64>().ok().filter(|class| class.fract() == 0.0 && (0.0..classes as f64).contains(class));
    let values: Vec<f64> = values.split_whitespace().map(str::parse).collect::<Result<_, _>>().map_err(|_| unlike())?;
    let class = number.ok_or_else(|| match class.parse::<f64>() {
        Ok(_) => format!("class {class:?} is not one of 0..{classes} ({})", description.path.display()),
        Err(_) => unlike(),
    })?;
    let shares = match (values.len(), description.key_points) {
        (4 | 5, _) => &values[..4],
        (count, Some([points, numbers])) if count == points.saturating_mul(numbers).saturating_add(4) => &values[..4],
        (count, _) if count >= 7 && is_pose(&values) => &values[..4],
        (count, _) if count >= 6 && count.is_multiple_of(2) => &values[..],
        _ => return Err(unlike()),
    };
    let outside = shares.iter().find(|share| !(-OUTSIDE..=1.0 + OUTSIDE).contains(*share));
    if let Some(share) = outside {
        let pixels =
            if *share > 1.0 { "; labels in pixels must be divided by the image's width and height" } else { "" };
        return Err(format!("{share} is no share of the image, expected 0 to 1{pixels}"));
    }
    let (width, height) = (f64::from(width), f64::from(height));
    let bbox = match *shares {
        [x, y, w, h] => BBox::from_xywh(
            [(x - w / 2.0) * width, (y - h / 2.0) * height, w * width, h * height].map(|value| value as f32),
        ),
        _ => {
            let range = |first: usize, side: f64| {
                let points = shares[first..].iter().step_by(2).map(|share| (share * side) as f32);
                points.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), at| (low.min(at), high.max(at)))
            };
            let ((x1, x2), (y1, y2)) = (range(0, width), range(1, height));
            BBox { x1, y1, x2, y2 }
        }
    };
    object(class as usize, bbox, None, false, false)
}

/// Whether what follows the box is key points of three numbers, the third 0, 1 or 2 (hidden, guessed, seen). Polygons have an even
/// count of numbers, and hardly ever a whole one in every third place.
fn is_pose(values: &[f64]) -> bool {
    let points = &values[4..];
    points.len().is_multiple_of(3) && points.chunks(3).all(|point| [0.0, 1.0, 2.0].contains(&point[2]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(line: &str) -> Result<[f32; 4], String> {
        let description = Description {
            path: "data.yaml".into(),
            classes: vec!["bolt".into(), "nut".into()],
            key_points: Some([2, 2]),
            splits: Vec::new(),
            roots: Vec::new(),
        };
        object_of(line, &description, (100, 200)).map(|object| {
            let BBox { x1, y1, x2, y2 } = object.bbox;
            [x1, y1, x2, y2].map(|value| (value * 100.0).round() / 100.0)
        })
    }

    #[test]
    fn rows_of_all_kinds_give_the_enclosing_box() {
        let expected = Ok([10.0, 20.0, 30.0, 60.0]);
        for line in [
            "1 0.2 0.2 0.2 0.2",
            " 1\t0.2 0.2  0.2 0.2 ",
            "1 0.2 0.2 0.2 0.2 0.87",
            "1.0 0.2 0.2 0.2 0.2",
            "1.000000e+00 2e-1 0.2 0.2 0.2",
            "1 0.1 0.1 0.3 0.2 0.2 0.3",
            "1 0.1 0.1 0.3 0.1 0.3 0.3 0.1 0.3 0.2 0.2",
            // Two key points of two numbers, as the description says; three of three; and without a word two of three.
            "1 0.2 0.2 0.2 0.2 0.1 0.9 0 0",
            "1 0.2 0.2 0.2 0.2 0.1 0.9 2 0 0 0 0.5 0.5 1",
            "1 0.2 0.2 0.2 0.2 0.1 0.9 2 0.3 0.3 1",
        ] {
            assert_eq!(row(line), expected, "{line}");
        }
        // A little outside by rounding.
        assert_eq!(row("0 0.5 0.5 1.005 1"), Ok([-0.25, 0.0, 100.25, 200.0]));
    }

    #[test]
    fn wrong_rows_say_what_is_wrong() {
        for (line, says) in [
            ("0 45.5 20 30 18", "45.5 is no share of the image, expected 0 to 1; labels in pixels"),
            ("0 0.5 -0.2 0.1 0.1", "-0.2 is no share of the image"),
            ("0 nan 0.5 0.1 0.1", "NaN is no share"),
            ("2 0.5 0.5 0.1 0.1", "class \"2\" is not one of 0..2 (data.yaml)"),
            ("1.5 0.5 0.5 0.1 0.1", "class \"1.5\""),
            ("-1 0.5 0.5 0.1 0.1", "class \"-1\""),
            ("nan 0.5 0.5 0.1 0.1", "class \"nan\""),
            ("bolt 0.5 0.5 0.1 0.1", "expected `class x y width height`"),
            ("0,0.5,0.5,0.1,0.1", "separated by blanks"),
            ("0 0.5 0.5 0.1", "expected `class x y width height`"),
            ("0 0.1 0.1 0.3 0.1 0.3 0.3 0.2", "expected `class x y width height`"),
            ("0", "expected `class x y width height`"),
        ] {
            let error = row(line).unwrap_err();
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
