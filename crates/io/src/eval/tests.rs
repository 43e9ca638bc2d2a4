use std::path::Path;

use super::*;
use yolo_lat_core::geometry::BBox;
use yolo_lat_core::postprocess::Detection;

#[test]
fn coco_figures_equal_those_of_pycocotools() {
    let folder = Path::new("../../tests/golden/coco");
    let dataset = Dataset::load(&folder.join("labels.json")).unwrap();
    let detections = read_coco_results(&folder.join("detections.json"), &dataset).unwrap();
    let objects: Vec<_> = dataset.images.iter().map(|image| image.objects.clone()).collect();
    let found = evaluate(dataset.classes.len(), &objects, &detections).coco;
    let expected: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("expected.json")).unwrap()).unwrap();
    let figures = [
        ("ap", found.ap),
        ("ap50", found.ap50),
        ("ap75", found.ap75),
        ("ap_small", found.ap_small),
        ("ap_medium", found.ap_medium),
        ("ap_large", found.ap_large),
        ("ar100", found.ar100),
    ];
    for (name, found) in figures {
        let expected = expected[name].as_f64().unwrap();
        assert!((found.unwrap() - expected).abs() < 1e-6, "{name}: expected {expected}, found {found:?}");
    }
}

fn object(x: f32, difficult: bool) -> Object {
    Object { class: 0, bbox: BBox::from_xywh([x, 0.0, 10.0, 10.0]), area: 100.0, difficult, crowd: false }
}

fn detection(x: f32, confidence: f32) -> Detection {
    Detection { class: 0, confidence, bbox: BBox::from_xywh([x, 0.0, 10.0, 10.0]) }
}

#[test]
fn voc_by_hand() {
    // Right, double, right: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1.
    let objects = [vec![object(0.0, false), object(50.0, false), object(100.0, true)]];
    let detections = [vec![detection(0.0, 0.9), detection(1.0, 0.8), detection(100.0, 0.7), detection(50.0, 0.6)]];
    let found = evaluate(1, &objects, &detections);
    assert!((found.map50 - (0.5 + 0.5 * 2.0 / 3.0)).abs() < 1e-9, "{}", found.map50);
    assert!((found.map50_voc07 - (6.0 + 5.0 * 2.0 / 3.0) / 11.0).abs() < 1e-9, "{}", found.map50_voc07);
    assert_eq!(found.per_class[0].objects, 2, "a difficult object does not count");
}

#[test]
fn nothing_found_and_nothing_to_find() {
    assert_eq!(evaluate(1, &[vec![object(0.0, false)]], &[vec![]]).map50, 0.0);
    let empty = evaluate(1, &[vec![]], &[vec![detection(0.0, 0.9)]]);
    assert!(empty.per_class.is_empty() && empty.coco.ap.is_none());
}

#[test]
fn voc_and_yolo_folders_give_the_same_objects() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let picture = folder.path().join("yolo/images/1.png");
    std::fs::create_dir_all(picture.parent().unwrap()).unwrap();
    image::RgbImage::new(100, 50).save(&picture).unwrap();
    write("yolo/data.yaml", "path: .\nnc: 2\nnames:\n  0: cat\n  1: dog\n");
    write("yolo/labels/1.txt", "1 0.3 0.5 0.2 0.4\n");
    write(
        "voc/Annotations/1.xml",
        "<annotation><filename>1.png</filename><object><name>cat</name><difficult>1</difficult><bndbox><xmin>1</xmin>\
         <ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></object><object><name>dog</name><bndbox><xmin>20</xmin>\
         <ymin>15</ymin><xmax>40</xmax><ymax>35</ymax></bndbox></object></annotation>",
    );
    let yolo = Dataset::load(&folder.path().join("yolo")).unwrap();
    let voc = Dataset::load(&folder.path().join("voc")).unwrap();
    assert_eq!(yolo.classes, ["cat", "dog"]);
    assert_eq!(voc.classes, yolo.classes);
    assert!(voc.images[0].objects[0].difficult);
    let (a, b) = (yolo.images[0].objects[0], voc.images[0].objects[1]);
    assert_eq!((a.class, b.class), (1, 1));
    assert!(a.bbox.iou(&b.bbox) > 0.999, "{a:?} {b:?}");
    assert_eq!(voc.images[0].path, folder.path().join("voc/JPEGImages/1.png"));
}

#[test]
fn wrong_labels_are_named() {
    let parse = |text: &str| Dataset::parse_coco(text, Path::new("x.json"), Path::new("")).unwrap_err().to_string();
    assert!(parse("{").contains("x.json: not COCO labels"));
    let labels = r#"{"images": [{"id": 1, "file_name": "a"}], "categories": [{"id": 1, "name": "cat"}], "annotations": [
        {"image_id": IMAGE, "category_id": CATEGORY, "bbox": [0, 0, WIDTH, 5]}]}"#;
    let with = |image: &str, category: &str, width: &str| {
        parse(&labels.replace("IMAGE", image).replace("CATEGORY", category).replace("WIDTH", width))
    };
    assert!(with("2", "1", "5").contains("annotation 0: no image has the id 2"));
    assert!(with("1", "9", "5").contains("annotation 0: no category has the id 9"));
    assert!(with("1", "1", "-5").contains("no box in pixels"));
    let folder = tempfile::tempdir().unwrap();
    assert!(Dataset::load(folder.path()).unwrap_err().to_string().contains("no data set found here"));
}

#[test]
fn plots_are_written_as_png_and_svg() {
    let folder = tempfile::tempdir().unwrap();
    let found = evaluate(1, &[vec![object(0.0, false)]], &[vec![detection(0.0, 0.9)]]);
    for (name, start) in [("a.png", &b"\x89PNG"[..]), ("b.svg", b"<svg")] {
        let path = folder.path().join(name);
        plot_precision_recall(&path, &["cat".to_owned()], &found).unwrap();
        assert!(std::fs::read(path).unwrap().starts_with(start));
    }
    assert!(plot_precision_recall(&folder.path().join("c.pdf"), &["cat".to_owned()], &found).is_err());
    assert!(!folder.path().join("c.pdf").exists());
}
