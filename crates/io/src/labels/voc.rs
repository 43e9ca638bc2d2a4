//! PASCAL VOC's labels: one XML file an image, as the VOC devkit, LabelImg, CVAT, Roboflow and FiftyOne write it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use quick_xml::DeError;
use serde::Deserialize;

use super::files::{files_below, name_below, portable_name, read_bytes, read_text, stem_of};
use super::{Dataset, Fault, LabelledImage, Object, object};
use crate::source::{has_extension, is_image};
use yolo_lat_core::geometry::BBox;

/// The root element: anything else is some other XML.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Document {
    Annotation(Annotation),
}

/// A list of what stands in it, since objects need not follow one another.
#[derive(Deserialize)]
struct Annotation {
    #[serde(rename = "$value", default)]
    elements: Vec<Element>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Element {
    Filename(String),
    Object(Box<Labelled>),
    #[serde(other)]
    Other,
}

/// An object; its parts, pose and the rest are passed over.
#[derive(Deserialize)]
struct Labelled {
    name: Option<String>,
    difficult: Option<String>,
    bndbox: Option<Corners>,
}

#[derive(Deserialize)]
struct Corners {
    xmin: String,
    ymin: String,
    xmax: String,
    ymax: String,
}

/// What a file says: the image's name, and the objects with the names of their classes.
struct Labels {
    filename: Option<String>,
    objects: Vec<(String, Object)>,
}

/// Whether a path is named like VOC's labels.
pub(crate) fn is_xml(path: &Path) -> bool {
    has_extension(path, &["xml"])
}

/// Whether a file is VOC's by its looks.
pub(crate) fn is_voc(path: &Path) -> bool {
    read_text(path).is_ok_and(|text| text.contains("<annotation>") || text.contains("<annotation "))
}

/// Reads the XML files below `annotations`; their images lie below one of `folders`. Classes are those that occur, in
/// alphabetical order.
pub(crate) fn read(annotations: &Path, folders: &[PathBuf]) -> Dataset {
    let mut dataset = Dataset::default();
    let images = Images::find(folders, &mut dataset.faults);
    let mut labelled: Vec<(LabelledImage, Vec<(String, Object)>)> = Vec::new();
    for path in files_below(annotations, is_xml, &mut dataset.faults) {
        let id = name_below(&path, annotations);
        match parse(&path) {
            Ok(Labels { filename, objects }) => {
                let image = images.of(&id, filename.as_deref());
                labelled.push((LabelledImage { id, path: image, objects: Vec::new() }, objects));
            }
            Err(fault) => {
                let image = images.of(&id, None);
                dataset.leave_out(LabelledImage { id, path: image, objects: Vec::new() }, fault);
            }
        }
    }
    let mut classes: Vec<String> =
        labelled.iter().flat_map(|(_, objects)| objects.iter().map(|(name, _)| name.clone())).collect();
    classes.sort();
    classes.dedup();
    for (mut image, objects) in labelled {
        let class_of = |name: &String| classes.partition_point(|class| class < name);
        image.objects = objects.iter().map(|(name, object)| Object { class: class_of(name), ..*object }).collect();
        dataset.images.push(image);
    }
    dataset.with_classes(classes)
}

/// The text of an XML file. A byte order mark decides on its encoding, else the declaration (`<?xml encoding="GBK"?>`).
fn read_xml(path: &Path) -> Result<String, Fault> {
    let bytes = read_bytes(path)?;
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(128)]);
    let declaration = start.strip_prefix("<?xml").and_then(|start| start.split("?>").next()).unwrap_or_default();
    let label = declaration.split_once("encoding").and_then(|(_, label)| label.split(['"', '\'']).nth(1));
    let declared = label.and_then(|label| encoding_rs::Encoding::for_label(label.as_bytes()));
    let text = declared.and_then(|encoding| encoding.decode_without_bom_handling_and_without_replacement(&bytes));
    text.map_or_else(|| read_text(path), |text| Ok(text.into_owned()))
}

/// What is wrong with XML, in its own words rather than the parser's.
fn reason(error: &DeError) -> String {
    let text = error.to_string();
    let root = text.strip_prefix("unknown variant `").and_then(|rest| rest.split('`').next());
    match (error, root) {
        (DeError::UnexpectedEof, _) => "it ends too early".into(),
        (_, Some(root)) => format!("it is <{root}>, not <annotation>"),
        _ if text.contains("Event::Eof") || text.contains("before end of input") => "it ends too early".into(),
        // Names of elements may hold line breaks.
        _ => text.split_whitespace().collect::<Vec<_>>().join(" "),
    }
}

fn parse(path: &Path) -> Result<Labels, Fault> {
    let invalid = |reason: String| Fault::new(path, reason);
    let document: Result<Document, _> = quick_xml::de::from_str(&read_xml(path)?);
    let Document::Annotation(annotation) =
        document.map_err(|error| invalid(format!("not VOC labels: {}", reason(&error))))?;
    let mut labels = Labels { filename: None, objects: Vec::new() };
    for element in annotation.elements {
        match element {
            Element::Filename(name) => labels.filename = Some(name.trim().to_owned()),
            Element::Object(labelled) => {
                let position = labels.objects.len();
                let object = object_of(&labelled).map_err(|reason| invalid(format!("object {position}: {reason}")))?;
                labels.objects.push(object);
            }
            Element::Other => {}
        }
    }
    labels.filename.take_if(|name| name.is_empty());
    Ok(labels)
}

fn object_of(labelled: &Labelled) -> Result<(String, Object), String> {
    let name = labelled.name.as_deref().map(str::trim).filter(|name| !name.is_empty()).ok_or("it has no name")?;
    let corners = labelled.bndbox.as_ref().ok_or("it has no bndbox")?;
    let number = |element: &str, text: &str| -> Result<f32, String> {
        text.trim().parse().map_err(|_| format!("{element} is {text:?}, not a number"))
    };
    let bbox = BBox {
        x1: number("xmin", &corners.xmin)?,
        y1: number("ymin", &corners.ymin)?,
        x2: number("xmax", &corners.xmax)?,
        y2: number("ymax", &corners.ymax)?,
    };
    // Programs leave it empty or write Unspecified.
    let difficult = labelled.difficult.as_deref().is_some_and(|value| {
        let value = value.trim();
        value.parse::<f32>().is_ok_and(|value| value != 0.0) || value.eq_ignore_ascii_case("true")
    });
    Ok((name.to_owned(), object(0, bbox, None, difficult, false)?))
}

/// Images by their names.
struct Images {
    folder: PathBuf,
    by_stem: HashMap<String, Vec<(String, PathBuf)>>,
}

impl Images {
    fn find(folders: &[PathBuf], faults: &mut Vec<Fault>) -> Self {
        let mut by_stem: HashMap<String, Vec<(String, PathBuf)>> = HashMap::new();
        for folder in folders {
            for path in files_below(folder, is_image, faults) {
                by_stem.entry(stem_of(&path)).or_default().push((name_below(&path, folder), path));
            }
        }
        Self { folder: folders.first().cloned().unwrap_or_default(), by_stem }
    }

    /// The image of the labels `id` (a path below the folder of labels, without ending): as in VOC's devkit the one of that
    /// name; `filename` counts where there is none, or several. Without either, where it should be.
    fn of(&self, id: &str, filename: Option<&str>) -> PathBuf {
        let stem = id.rsplit('/').next().unwrap_or(id);
        let portable = filename.map(portable_name);
        let filename = portable.as_deref().and_then(|name| name.rsplit('/').next());
        let none = Vec::new();
        let same_stem = self.by_stem.get(stem).unwrap_or(&none);
        let file_is = |path: &Path| filename.is_some_and(|name| path.file_name().is_some_and(|file| file == name));
        let mirrored = || same_stem.iter().filter(|(name, _)| name == id);
        let found = mirrored().find(|(_, path)| file_is(path)).or_else(|| mirrored().next());
        let found = found.or_else(|| same_stem.iter().find(|(_, path)| file_is(path))).or_else(|| same_stem.first());
        let named = || {
            let stem = stem_of(Path::new(filename?));
            self.by_stem.get(&stem)?.iter().find(|(_, path)| file_is(path))
        };
        let missing = || self.folder.join(filename.map_or_else(|| format!("{stem}.jpg"), str::to_owned));
        found.or_else(named).map_or_else(missing, |(_, path)| path.clone())
    }
}
