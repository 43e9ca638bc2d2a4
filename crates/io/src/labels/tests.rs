//! Data sets as programs write them and people keep them. Reports of such files are summed up in docs/DATASETS.md.

use std::path::Path;

use tempfile::TempDir;

use crate::dataset::{Dataset, DatasetError, Split};

const VAL: Split = Split::Prefer("val");
const NAMES: &str = "names: [bolt, nut]\n";
/// A bolt at 10, 10, 30, 20 and a nut at 20, 5, 60, 45 of images of 100 x 50.
const ROWS: [&str; 2] = ["0 0.2 0.3 0.2 0.2\n", "1 0.4 0.5 0.4 0.8\n"];
const EXPECTED: &str = "p1 bolt 10 10 30 20, p2 nut 20 5 60 45";

/// Writes files; what is named like an image becomes one, of 100 x 50 pixels.
fn tree(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("png" | "jpg") if text.is_empty() => {
                image::RgbImage::new(100, 50).save_with_format(&path, image::ImageFormat::Png).unwrap();
            }
            _ => std::fs::write(&path, text).unwrap(),
        }
    }
    folder
}

/// Photographs with their objects, in the names of files and classes.
fn summary(dataset: &Dataset) -> String {
    let mut images = Vec::new();
    for image in &dataset.images {
        let mut text = image.path.file_stem().unwrap().to_string_lossy().into_owned();
        for object in &image.objects {
            let [x1, y1, x2, y2] = [object.bbox.x1, object.bbox.y1, object.bbox.x2, object.bbox.y2].map(f32::round);
            text += &format!(" {} {x1} {y1} {x2} {y2}", dataset.classes[object.class]);
        }
        images.push(text);
    }
    images.join(", ")
}

fn coco(first: &str, second: &str) -> String {
    format!(
        r#"{{"images": [{{"id": 1, "file_name": "{first}"}}, {{"id": 2, "file_name": "{second}"}}],
        "categories": [{{"id": 5, "name": "bolt"}}, {{"id": 9, "name": "nut"}}], "annotations": [
        {{"image_id": 1, "category_id": 5, "bbox": [10, 10, 20, 10]}}, {{"image_id": 2, "category_id": 9, "bbox": [20, 5, 40, 40]}}]}}"#
    )
}

fn voc(filename: &str, name: &str, corners: [u32; 4]) -> String {
    let [xmin, ymin, xmax, ymax] = corners;
    format!(
        "<annotation>{filename}<object><name>{name}</name><bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin>\
         <xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox></object></annotation>"
    )
}

const BOLT: [u32; 4] = [10, 10, 30, 20];
const NUT: [u32; 4] = [20, 5, 60, 45];

/// Layouts: who has them, the files (images, and `path=what stands in it`), and the path that is given.
const LAYOUTS: [(&str, &str, &str); 31] = [
    ("COCO, the file", "images/p1.png images/p2.png a.json=coco", "a.json"),
    ("COCO, annotations.json", "images/p1.png images/p2.png annotations.json=coco", ""),
    (
        "COCO, its own layout",
        "images/p1.png images/p2.png annotations/instances_val2017.json=coco annotations/instances_train2017.json=other \
         annotations/captions_val2017.json=other",
        "",
    ),
    (
        "COCO, the file in its own layout",
        "val2017/p1.png images/val2017/p2.png annotations/instances_val2017.json=coco",
        "annotations/instances_val2017.json",
    ),
    ("LVIS", "val2017/p1.png val2017/p2.png lvis_v1_val.json=lvis", ""),
    (
        "Roboflow's COCO",
        "valid/p1.png valid/p2.png valid/_annotations.coco.json=coco train/_annotations.coco.json=other",
        "",
    ),
    ("FiftyOne's COCO", "data/p1.png data/p2.png labels.json=coco", ""),
    ("COCO of Windows", "images/p1.png images/p2.png annotations.json=windows", ""),
    ("Label Studio's COCO", "images/p1.png images/p2.png result.json=addresses", ""),
    ("YOLO", "images/p1.png images/p2.png labels/p1.txt=row1 labels/p2.txt=row2 data.yaml=names", ""),
    ("YOLO, classes.txt", "images/p1.png images/p2.png labels/p1.txt=row1 labels/p2.txt=row2 classes.txt=list", ""),
    ("LabelImg", "images/p1.png images/p2.png labels/p1.txt=row1 labels/p2.txt=row2 labels/classes.txt=list", ""),
    (
        "FiftyOne's YOLO",
        "images/p1.png images/p2.png labels/p1.txt=row1 labels/p2.txt=row2 dataset.yaml=names other.yaml=other labels.json=other",
        "",
    ),
    (
        "ultralytics",
        "images/val/p1.png images/val/p2.png labels/val/p1.txt=row1 labels/val/p2.txt=row2 images/train/t.png data.yaml=splits",
        "",
    ),
    (
        "ultralytics, the file",
        "images/val/p1.png images/val/p2.png labels/val/p1.txt=row1 labels/val/p2.txt=row2 images/train/t.png coco8.yaml=splits",
        "coco8.yaml",
    ),
    (
        "parts without a word of them",
        "images/val/p1.png images/val/p2.png labels/val/p1.txt=row1 labels/val/p2.txt=row2 images/train/t.png classes.txt=list",
        "",
    ),
    (
        "Roboflow's YOLO",
        "train/images/t.png valid/images/p1.png valid/images/p2.png valid/labels/p1.txt=row1 valid/labels/p2.txt=row2 \
         data.yaml=roboflow",
        "",
    ),
    (
        "one part of it",
        "train/images/t.png valid/images/p1.png valid/images/p2.png valid/labels/p1.txt=row1 valid/labels/p2.txt=row2 \
         data.yaml=roboflow",
        "valid",
    ),
    (
        "lists",
        "images/p1.png images/p2.png images/t.png labels/p1.txt=row1 labels/p2.txt=row2 val.txt=images train.txt=other \
         data.yaml=lists",
        "",
    ),
    (
        "a list itself",
        "images/p1.png images/p2.png images/t.png labels/p1.txt=row1 labels/p2.txt=row2 some.txt=images data.yaml=names",
        "some.txt",
    ),
    ("sub-folders", "images/p1.png images/sub/p2.png labels/p1.txt=row1 labels/sub/p2.txt=row2 data.yaml=names", ""),
    ("one folder", "p1.png p2.png p1.txt=row1 p2.txt=row2 classes.txt=list", ""),
    (
        "CVAT's YOLO",
        "obj_train_data/p1.png obj_train_data/p2.png obj_train_data/p1.txt=row1 obj_train_data/p2.txt=row2 obj.names=list \
         train.txt=darknet obj.data=data",
        "",
    ),
    (
        "Roboflow's Darknet",
        "valid/p1.png valid/p2.png valid/p1.txt=row1 valid/p2.txt=row2 valid/_darknet.labels=list train/_darknet.labels=other",
        "",
    ),
    (
        "VOC",
        "JPEGImages/p1.jpg JPEGImages/p2.jpg SegmentationClass/p1.png Annotations/p1.xml=xml1 Annotations/p2.xml=xml2",
        "",
    ),
    (
        "VOC, filename without ending",
        "JPEGImages/p1.jpg JPEGImages/p2.png Annotations/p1.xml=stem1 Annotations/p2.xml=xml2",
        "",
    ),
    ("VOC, images and annotations", "images/p1.png images/p2.png annotations/p1.xml=xml1 annotations/p2.xml=xml2", ""),
    ("FiftyOne's VOC", "data/p1.png data/p2.png labels/p1.xml=xml1 labels/p2.xml=xml2", ""),
    ("VOC in one folder", "p1.jpg p2.jpg p1.xml=xml1 p2.xml=xml2 classes.txt=other", ""),
    ("Roboflow's VOC", "valid/p1.jpg valid/p2.jpg valid/p1.xml=xml1 valid/p2.xml=xml2 train/t.xml=xml1", ""),
    (
        "VOC in sub-folders",
        "JPEGImages/a/p1.jpg JPEGImages/b/p1.jpg JPEGImages/b/p2.jpg Annotations/a/p1.xml=xml1 Annotations/b/p2.xml=xml2",
        "",
    ),
];

fn contents(key: &str) -> String {
    let plain = coco("p1.png", "p2.png");
    match key {
        "coco" => plain,
        "lvis" => plain.replace("file_name\": \"", "coco_url\": \"http://images.example.org/val2017/"),
        "windows" => coco("images\\\\p1.png", "C:\\\\data\\\\images\\\\p2.png"),
        "addresses" => coco("http://host/data/upload/p%31.png?x=1", "/data/local-files/?d=images/p2.png"),
        "row1" => ROWS[0].into(),
        "row2" => ROWS[1].into(),
        "names" => NAMES.into(),
        "list" => "bolt\r\nnut\r\n\r\n".into(),
        "splits" => format!("path: .\ntrain: images/train\nval: images/val\n{NAMES}"),
        "roboflow" => format!("train: ../train/images\nval: ../valid/images\n{NAMES}"),
        "lists" => format!("path: ../elsewhere\ntrain: train.txt\nval: [val.txt]\n{NAMES}"),
        "images" => "./images/p1.png\n/elsewhere/images/p2.png\n".into(),
        "darknet" => "data/obj_train_data/p1.png\ndata/obj_train_data/p2.png\n".into(),
        "data" => "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n".into(),
        "xml1" => voc("", "bolt", BOLT),
        "xml2" => voc("", "nut", NUT),
        "stem1" => voc("<filename>p1</filename>", "bolt", BOLT),
        _ => "{}".into(),
    }
}

#[test]
fn the_same_boxes_are_read_from_every_layout() {
    for (name, files, path) in LAYOUTS {
        let files: Vec<(&str, String)> = files
            .split_whitespace()
            .map(|file| file.split_once('=').map_or((file, String::new()), |(file, key)| (file, contents(key))))
            .collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(file, text)| (*file, text.as_str())).collect();
        let folder = tree(&files);
        let dataset = Dataset::load(&folder.path().join(path), VAL).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(summary(&dataset), EXPECTED, "{name}");
        assert_eq!((&dataset.notes[..], &dataset.faults[..]), (&[][..], &[][..]), "{name}");
        assert!(dataset.images.iter().all(|image| image.path.is_file()), "{name}: {:?}", dataset.images);
    }
}

#[test]
fn a_part_of_a_set_can_be_named_or_listed() {
    let xml = voc("", "bolt", BOLT);
    let folder = tree(&[
        ("JPEGImages/p1.jpg", ""),
        ("JPEGImages/p2.jpg", ""),
        ("JPEGImages/p3.jpg", ""),
        ("Annotations/p1.xml", &xml),
        ("Annotations/p2.xml", &xml),
        ("Annotations/p3.xml", &xml),
        ("ImageSets/Main/val.txt", "p1\r\np3\r\n"),
        ("ImageSets/Main/bolt_train.txt", "p2  -1\n"),
        ("mine.list", "JPEGImages\\p3.jpg\nabsent.jpg\n"),
    ]);
    let read = |split| {
        Dataset::load(folder.path(), split).map(|dataset| {
            let names: Vec<String> = dataset.images.into_iter().map(|image| image.id).collect();
            (names.join(" "), dataset.set_aside.len(), dataset.notes.join(""))
        })
    };
    assert_eq!(read(VAL).unwrap(), ("p1 p2 p3".into(), 0, "".into()), "all of VOC unless a part is named");
    assert_eq!(read(Split::Only("val")).unwrap(), ("p1 p3".into(), 1, "".into()));
    assert_eq!(read(Split::Only("bolt_train")).unwrap().0, "p2");
    let list = folder.path().join("mine.list");
    let (names, _, notes) = read(Split::Only(list.to_str().unwrap())).unwrap();
    assert!(names == "p3" && notes.contains("1 of 2 lines name no image"), "{names} {notes}");
    let error = read(Split::Only("test")).unwrap_err().to_string();
    assert!(error.contains("no \"test\"; there is bolt_train, val"), "{error}");

    let coco = coco("p1.png", "p2.png");
    let folder = tree(&[("annotations/instances_train.json", &coco), ("annotations/instances_test.json", &coco)]);
    let error = Dataset::load(folder.path(), VAL).unwrap_err();
    assert!(matches!(&error, DatasetError::Split { split: None, found, .. } if found.len() == 2), "{error}");
    assert_eq!(Dataset::load(folder.path(), Split::Only("train")).unwrap().images.len(), 2);

    let yaml = format!("train: images/a\nval: images/b\n{NAMES}");
    let yolo = tree(&[
        ("images/a/p1.png", ""),
        ("images/b/p2.png", ""),
        ("data.yaml", &yaml),
        ("some.txt", "images/a/p1.png"),
    ]);
    for (split, expected) in [(VAL, "p2"), (Split::Only("train"), "p1"), (Split::Prefer("train"), "p1")] {
        assert_eq!(summary(&Dataset::load(yolo.path(), split).unwrap()), expected, "{split:?}");
    }
    let list = yolo.path().join("some.txt");
    assert_eq!(summary(&Dataset::load(yolo.path(), Split::Only(list.to_str().unwrap())).unwrap()), "p1");
    assert!(Dataset::load(yolo.path(), Split::Only("test")).is_err());
}

#[test]
fn what_python_takes_for_a_label_is_one_here() {
    let text = r#"{"images": [{"id": 1.0, "file_name": "a"}, {"id": "x-1", "file_name": "b"}], "categories": [{"id": "7", "name": " cat "}],
        "annotations": [
        {"image_id": 1, "category_id": 7, "bbox": [0, 0, 4, 5], "iscrowd": false, "area": NaN, "segmentation": {"counts": [1], "size": [2, 3]}},
        {"image_id": "1", "category_id": "7", "bbox": [0.0, 0, 4, 5], "iscrowd": true, "area": [9], "segmentation": [[0, 0, 1, 1]]},
        {"image_id": "x-1", "category_id": 7.0, "bbox": [0, 0, 4, 5], "iscrowd": null, "area": 3.5, "difficult": 1},
        {"image_id": 99, "category_id": 7, "bbox": null}, {"image_id": null}]}"#;
    let dataset = Dataset::parse_coco(text, Path::new("x.json"), Path::new("")).unwrap();
    let objects: Vec<_> = dataset.images.iter().flat_map(|image| &image.objects).collect();
    let facts: Vec<_> = objects.iter().map(|object| (object.crowd, object.difficult, object.area)).collect();
    assert_eq!(facts, [(false, false, 20.0), (true, false, 20.0), (false, true, 3.5)]);
    assert_eq!(dataset.classes, ["cat"]);
    assert_eq!(dataset.notes, ["x.json: 2 of 5 annotations belong to no image"]);
}

#[test]
fn a_set_may_say_which_classes_are_labelled() {
    let read = |info: &str| {
        let text = coco("p1.png", "p2.png").replacen('{', &format!("{{\"info\": {info}, "), 1);
        Dataset::parse_coco(&text, Path::new("x.json"), Path::new("")).map(|dataset| dataset.labelled)
    };
    for info in ["{}", "\"by hand\"", "null", "[]"] {
        assert_eq!(read(info), Ok(vec![true, true]), "{info}");
    }
    assert_eq!(read(r#"{"labelled_classes": ["nut", "bolt"]}"#), Ok(vec![true, true]));
    let error = read(r#"{"labelled_classes": ["nut"]}"#).unwrap_err().to_string();
    assert!(error.contains("\"bolt\" has boxes but is not among info.labelled_classes"), "{error}");
    assert!(
        read(r#"{"labelled_classes": ["screw"]}"#).unwrap_err().to_string().contains("no category is called \"screw\"")
    );
}

#[test]
fn class_names_of_yaml_are_texts_as_they_are_written() {
    let names = |text: &str| {
        let folder = tree(&[("images/p1.png", ""), ("data.yaml", text)]);
        Dataset::load(folder.path(), VAL).map(|dataset| dataset.classes.join("|")).map_err(|error| {
            let text = error.to_string();
            text.split_once("data.yaml").unwrap().1.to_owned()
        })
    };
    for (text, expected) in [
        ("names:\n  0: yes\n  1: no\n", "yes|no"),
        ("names: [7, 012, 1.0, 1e3, true, Off]", "7|012|1.0|1e3|true|Off"),
        ("names: {\"1\": nut, '0': bolt}", "bolt|nut"),
        ("names:\n- 猫\n- \"a: b\"\n- it's\n", "猫|a: b|it's"),
        ("\u{feff}nc: 2\r\nnames: ['a', 'b'] # two\r\n", "a|b"),
        ("nc: 2\n", "class0|class1"),
        ("names: [~, null, nil]", "null|null|nil"),
    ] {
        assert_eq!(names(text).as_deref(), Ok(expected), "{text}");
    }
    for (text, says) in [
        ("nc: 2\nnames: bolt, nut\n", "line 2"),
        ("names:\n  0: bolt\n  2: nut\n", "numbered 0, 1, 2"),
        ("names: {bolt: 0}", "is no number"),
        ("names: 3", "list"),
        ("names: [a\n", "line"),
        ("names: [a]\n---\nnames: [b]\n", "several documents"),
        (&"[".repeat(100_000), "line"),
    ] {
        let error = names(text).unwrap_err();
        assert!(error.contains(says), "{text}: {error}");
        assert!(error.lines().count() == 1 && !error.contains("DataYaml") && !error.contains("variant"), "{error}");
    }
}

#[test]
fn elements_of_voc_stand_in_any_order_and_may_be_empty() {
    let xml = "\u{feff}<?xml version=\"1.0\"?><!DOCTYPE annotation><annotation verified=\"yes\"><object><name> cat </name><pose/><difficult/>\
        <part><name>head</name><bndbox><xmin>0</xmin><ymin>0</ymin><xmax>1</xmax><ymax>1</ymax></bndbox></part>\
        <bndbox><ymax>4.5</ymax><xmin> 1 </xmin><ymin>2</ymin><xmax>3</xmax></bndbox><part><name>tail</name></part></object>\
        <filename>x.jpg</filename><segmented>0</segmented><object><name>cat</name><difficult>Unspecified</difficult><bndbox><xmin>0</xmin>\
        <ymin>0</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object><size><width>1</width></size><object><difficult>1</difficult>\
        <bndbox><xmin>0</xmin><ymin>0</ymin><xmax>8</xmax><ymax>8</ymax></bndbox><name>tom &amp; jerry</name></object></annotation>";
    let folder = tree(&[("Annotations/a.xml", xml), ("Annotations/b.xml", "<annotation/>")]);
    let dataset = Dataset::load(folder.path(), VAL).unwrap();
    assert_eq!(dataset.faults, []);
    assert_eq!(dataset.classes, ["cat", "tom & jerry"]);
    let [a, b] = &dataset.images[..] else { panic!("{dataset:?}") };
    assert_eq!(a.objects.iter().map(|object| object.difficult).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!((a.objects[0].bbox.x1, a.objects[0].bbox.y2), (1.0, 4.5));
    assert!(b.objects.is_empty());
    // However deep elements lie in each other, it is a file like others.
    let deep = format!("<annotation>{}{}</annotation>", "<a>".repeat(10_000), "</a>".repeat(10_000));
    std::fs::write(folder.path().join("Annotations/b.xml"), deep).unwrap();
    assert_eq!(Dataset::load(folder.path(), VAL).unwrap().images.len(), 2);
    // Text in the encoding that the file says, or that its mark says.
    let gbk =
        [b"<?xml version=\"1.0\" encoding=\"GBK\"?>".as_slice(), &encoding_rs::GBK.encode(&voc("", "猫", BOLT)).0]
            .concat();
    let utf16: Vec<u8> = format!("\u{feff}{}", voc("", "猫", BOLT)).encode_utf16().flat_map(u16::to_le_bytes).collect();
    for bytes in [gbk, utf16] {
        std::fs::write(folder.path().join("Annotations/a.xml"), bytes).unwrap();
        assert_eq!(Dataset::load(folder.path(), VAL).unwrap().classes, ["猫"]);
    }
}

#[test]
fn one_file_at_fault_is_named_and_the_rest_read() {
    let [row1, _] = ROWS;
    let good = [("images/p1.png", ""), ("labels/p1.txt", row1), ("data.yaml", NAMES)];
    let read = |files: &[(&str, &str)]| {
        let folder = tree(&[&good[..], files].concat());
        let dataset = Dataset::load(folder.path(), VAL).unwrap();
        let lines: Vec<String> = dataset.faults.iter().map(ToString::to_string).chain(dataset.notes.clone()).collect();
        let root = format!("{}/", folder.path().display());
        (summary(&dataset), lines.join("\n").replace(&root, ""))
    };
    for (files, says) in [
        (
            &[("images/p2.png", ""), ("labels/p2.txt", "0 45.5 20 30 18\n")][..],
            "labels/p2.txt: line 1: 45.5 is no share",
        ),
        (
            &[("images/p2.png", ""), ("labels/p2.txt", "0 0.1 0.1 0.1 0.1\n2 0.1 0.1 0.1 0.1\n")],
            "labels/p2.txt: line 2: class \"2\"",
        ),
        (&[("images/p2.png", "no image")], "images/p2.png: "),
        (
            &[("labels/x0.txt", row1), ("labels/notes.txt", "to do"), ("labels/empty.txt", "")],
            "1 label files belong to no image (first: labels/x0.txt)",
        ),
        (&[("images/._p1.png", "\0\u{5}\u{16}\u{7}")], ""),
    ] {
        let (found, lines) = read(files);
        assert_eq!(found, "p1 bolt 10 10 30 20", "{lines}");
        assert!(if says.is_empty() { lines.is_empty() } else { lines.contains(says) }, "{says}: {lines}");
    }
    let (found, lines) =
        read(&[("images/p2.png", ""), ("labels/p2.txt", "\u{feff}1.0 0.4 0.5 0.4 0.8\r\n\r\n1 0.4 0.5 0.4 0.80 \r\n")]);
    assert_eq!(found, EXPECTED);
    assert_eq!(lines, "1 rows that stand twice in 1 label files count once (first: labels/p2.txt)");

    let xml = voc("", "bolt", BOLT);
    let folder = tree(&[
        ("p1.jpg", ""),
        ("p1.xml", &xml),
        ("p2.xml", "<html><object/></html>"),
        ("p3.xml", "<annotation><object>"),
        ("p4.xml", &voc("", "", BOLT)),
        ("p5.xml", &voc("", "nut", [30, 10, 10, 20])),
        ("p6.xml", "<annotation><object><name>nut</name></object></annotation>"),
    ]);
    let dataset = Dataset::load(folder.path(), VAL).unwrap();
    assert_eq!(summary(&dataset), "p1 bolt 10 10 30 20");
    let faults: Vec<String> = dataset.faults.iter().map(|fault| fault.reason.clone()).collect();
    assert_eq!(faults.len(), 5);
    for (fault, says) in faults.iter().zip([
        "not VOC labels: it is <html>, not <annotation>",
        "not VOC labels: it ends too early",
        "object 0: it has no name",
        "no box in pixels",
        "object 0: it has no bndbox",
    ]) {
        assert!(fault.contains(says), "{fault}");
    }

    let text = coco("p1.png", "p2.png").replace("[20, 5, 40, 40]", "[]");
    let dataset = Dataset::parse_coco(&text, Path::new("x.json"), Path::new("")).unwrap();
    assert_eq!((dataset.images.len(), dataset.set_aside.len()), (1, 1));
    assert_eq!(
        dataset.faults[0].to_string(),
        "x.json: annotation 1: its bbox is not four numbers (x, y, width, height)"
    );
}

#[test]
fn nothing_labelled_and_nothing_found_are_errors() {
    let folder = tree(&[("images/p1.png", ""), ("labels/x.txt", ROWS[0]), ("data.yaml", NAMES)]);
    let dataset = Dataset::load(folder.path(), VAL).unwrap();
    assert!(dataset.notes[0].contains("1 label files belong to no image"), "{:?}", dataset.notes);
    let error = dataset.check_labelled(folder.path()).unwrap_err().to_string();
    assert!(error.contains("none of its 1 images has a labelled object"), "{error}");
    // Said once, in the words of the system, and of the right file.
    let error = Dataset::load(&folder.path().join("absent.json"), VAL).unwrap_err();
    assert!(
        error.to_string().ends_with("absent.json: cannot be read: No such file or directory (os error 2)"),
        "{error}"
    );
    assert!(std::error::Error::source(&error).is_none(), "what is said is not said again");
    let plain = tree(&[("notes.md", "")]);
    assert!(matches!(Dataset::load(plain.path(), VAL), Err(DatasetError::UnknownLayout { .. })));
    let unnamed = tree(&[("images/p1.png", ""), ("labels/p1.txt", ROWS[0])]);
    let error = Dataset::load(unnamed.path(), VAL).unwrap_err().to_string();
    assert!(error.contains("no names of classes: expected data.yaml, classes.txt or obj.names"), "{error}");
    let elsewhere = tree(&[("data.yaml", &format!("val: gone/images\n{NAMES}"))]);
    let error = Dataset::load(elsewhere.path(), VAL).unwrap_err().to_string();
    assert!(error.contains("data.yaml: gone/images: there is no such file or folder"), "{error}");
}

#[test]
fn what_supervision_writes_is_equal_in_three_formats() {
    let golden = Path::new("../../tests/golden/labels");
    let read = |format: &str| {
        let dataset = Dataset::load(&golden.join(format), VAL).unwrap();
        assert_eq!(
            (&dataset.classes[..], dataset.faults.len()),
            (&["bolt".to_owned(), "nut".to_owned()][..], 0),
            "{format}"
        );
        dataset.images
    };
    let (coco, yolo, voc) = (read("coco"), read("yolo"), read("voc"));
    assert_eq!(coco.iter().map(|image| image.objects.len()).collect::<Vec<_>>(), [3, 1, 0]);
    for ((coco, yolo), voc) in coco.iter().zip(&yolo).zip(&voc) {
        assert_eq!((coco.objects.len(), coco.objects.len()), (yolo.objects.len(), voc.objects.len()));
        for ((coco, yolo), voc) in coco.objects.iter().zip(&yolo.objects).zip(&voc.objects) {
            assert_eq!((coco.class, coco.class), (yolo.class, voc.class));
            let corners =
                |object: &crate::eval::Object| [object.bbox.x1, object.bbox.y1, object.bbox.x2, object.bbox.y2];
            // It rounds shares to five digits, and counts VOC's pixels from 1 at the upper left corner.
            let one = [1.0, 1.0, 0.0, 0.0];
            for (side, expected) in corners(coco).into_iter().enumerate() {
                assert!((corners(yolo)[side] - expected).abs() < 2e-3, "{coco:?} {yolo:?}");
                assert_eq!(corners(voc)[side], expected + one[side], "{coco:?} {voc:?}");
            }
        }
    }
}

#[cfg(unix)]
#[test]
fn linked_folders_are_part_of_a_set_once() {
    let set = tree(&[
        ("images/p1.png", ""),
        ("store/p2.png", ""),
        ("labels/p1.txt", ROWS[0]),
        ("labels/with night/p2.txt", ROWS[1]),
        ("data.yaml", NAMES),
    ]);
    let images = set.path().join("images");
    for link in ["with night", "with night again"] {
        std::os::unix::fs::symlink("../store", images.join(link)).unwrap();
    }
    std::os::unix::fs::symlink("..", images.join("z up")).unwrap();
    assert_eq!(summary(&Dataset::load(set.path(), VAL).unwrap()), EXPECTED);
    // Labels that are not there for now are no image without objects.
    std::fs::remove_file(set.path().join("labels/p1.txt")).unwrap();
    std::os::unix::fs::symlink("../annex/p1.txt", set.path().join("labels/p1.txt")).unwrap();
    let dataset = Dataset::load(set.path(), VAL).unwrap();
    assert!(dataset.faults[0].to_string().contains("labels/p1.txt: cannot be read"), "{:?}", dataset.faults);
    assert_eq!(dataset.images.len(), 1);
}

#[test]
fn images_that_are_listed_again_count_once() {
    let files = [("images/p1.png", ""), ("images/p2.png", ""), ("labels/p1.txt", ROWS[0]), ("labels/p2.txt", ROWS[1])];
    for yaml in ["val: [images, images/p1.png]", "val: [val.txt, ./images]"] {
        let set =
            tree(&[&files[..], &[("data.yaml", &format!("{yaml}\n{NAMES}")), ("val.txt", "images/p1.png\n")]].concat());
        let dataset = Dataset::load(set.path(), VAL).unwrap();
        assert_eq!(summary(&dataset), EXPECTED, "{yaml}");
        assert!(dataset.notes[0].starts_with("1 images that are listed again count once"), "{:?}", dataset.notes);
    }
}

#[test]
fn categories_may_be_called_by_numbers_but_have_one_meaning() {
    let text = coco("p1.png", "p2.png").replace("\"bolt\"", "7");
    assert_eq!(Dataset::parse_coco(&text, Path::new("x.json"), Path::new("")).unwrap().classes, ["7", "nut"]);
    let text = coco("p1.png", "p2.png").replace("\"id\": 9", "\"id\": 5");
    let error = Dataset::parse_coco(&text, Path::new("x.json"), Path::new("")).unwrap_err().to_string();
    assert!(error.contains("category id 5 stands twice, for bolt and nut"), "{error}");
}

#[test]
fn labels_of_voc_may_all_lie_in_sub_folders_and_those_of_coco_in_utf_16() {
    let voc = [("night/p1.png", ""), ("night/p1.xml", &voc("", "bolt", BOLT)[..]), ("p2.png", ""), ("notes.txt", "")];
    assert_eq!(summary(&Dataset::load(tree(&voc).path(), VAL).unwrap()), "p1 bolt 10 10 30 20");
    let set = tree(&[("p1.png", ""), ("p2.png", "")]);
    let text: Vec<u8> =
        format!("\u{feff}{}", coco("p1.png", "p2.png")).encode_utf16().flat_map(u16::to_be_bytes).collect();
    std::fs::write(set.path().join("annotations.json"), text).unwrap();
    assert_eq!(summary(&Dataset::load(set.path(), VAL).unwrap()), EXPECTED);
}
