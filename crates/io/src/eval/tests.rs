use std::path::Path;

use super::*;
use yolo_lat_core::geometry::BBox;
use yolo_lat_core::postprocess::Detection;

#[test]
fn coco_figures_equal_those_of_pycocotools() {
    let folder = Path::new("../../tests/golden/coco");
    let dataset = Dataset::load(&folder.join("labels.json"), Split::Prefer("val")).unwrap();
    let results = read_results(&folder.join("detections.json"), &dataset).unwrap();
    let expected: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("expected.json")).unwrap()).unwrap();
    compare(&dataset, &results, &expected, "labels.json");
}

/// Thirty sets by chance, with crowds and difficult objects mixed: tests/golden/coco/mixed.py makes and measures them.
#[test]
fn crowds_and_difficult_objects_count_as_pycocotools_has_it() {
    let sets = std::fs::read_to_string("../../tests/golden/coco/mixed.json").unwrap();
    let sets: Vec<serde_json::Value> = serde_json::from_str(&sets).unwrap();
    assert_eq!(sets.len(), 30);
    for (index, set) in sets.iter().enumerate() {
        let dataset = Dataset::parse_coco(&set["labels"].to_string(), Path::new("labels"), Path::new("")).unwrap();
        let results = results::parse_results(&set["detections"].to_string(), Path::new("results"), &dataset);
        compare(&dataset, &results.unwrap(), &set["expected"], &format!("set {index}"));
    }
}

#[test]
fn each_image_is_left_out_as_if_it_were_not_there() {
    let sets = std::fs::read_to_string("../../tests/golden/coco/mixed.json").unwrap();
    let sets: Vec<serde_json::Value> = serde_json::from_str(&sets).unwrap();
    let mut changes = 0;
    for set in &sets {
        let dataset = Dataset::parse_coco(&set["labels"].to_string(), Path::new("labels"), Path::new("")).unwrap();
        let found = results::parse_results(&set["detections"].to_string(), Path::new("results"), &dataset).unwrap();
        let objects: Vec<_> = dataset.images.iter().map(|image| image.objects.clone()).collect();
        let classes = dataset.classes.len();
        let whole = evaluate(classes, &objects, &found.detections).map50;
        for (image, without) in map50_without_each(classes, &objects, &found.detections).into_iter().enumerate() {
            let (mut objects, mut detections) = (objects.clone(), found.detections.clone());
            objects.remove(image);
            detections.remove(image);
            let expected = evaluate(classes, &objects, &detections).map50;
            assert!((without - expected).abs() < 1e-12, "image {image}: {without} instead of {expected}");
            changes += usize::from((without - whole).abs() > 1e-6);
        }
    }
    assert!(changes > 30, "{changes}");
}

fn compare(dataset: &Dataset, results: &Results, expected: &serde_json::Value, name: &str) {
    let objects: Vec<_> = dataset.images.iter().map(|image| image.objects.clone()).collect();
    let found = evaluate(dataset.classes.len(), &objects, &results.detections).coco;
    let figures = [
        ("ap", found.ap),
        ("ap50", found.ap50),
        ("ap75", found.ap75),
        ("ap_small", found.ap_small),
        ("ap_medium", found.ap_medium),
        ("ap_large", found.ap_large),
        ("ar100", found.ar100),
    ];
    for (figure, found) in figures {
        let expected = expected[figure].as_f64();
        let same = found.zip(expected).map_or(found == expected, |(found, expected)| (found - expected).abs() < 1e-6);
        assert!(same, "{name}, {figure}: expected {expected:?}, found {found:?}");
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
fn wrong_labels_are_named() {
    let parse = |text: &str| Dataset::parse_coco(text, Path::new("x.json"), Path::new(""));
    let error = parse("{").unwrap_err().to_string();
    assert!(error.contains("x.json: not COCO labels: EOF"), "{error}");
    for text in ["[]", r#"{"images": [5], "annotations": [], "categories": []}"#] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains("expected an ") && !error.contains("struct"), "{error}");
    }
    let labels = r#"{"images": [{"id": 1, "file_name": "a"}], "categories": [{"id": 1, "name": "cat"}], "annotations": [
        {"image_id": 1, "category_id": CATEGORY, "bbox": [0, 0, WIDTH, 5]}]}"#;
    let with = |category: &str, width: &str| {
        let dataset = parse(&labels.replace("CATEGORY", category).replace("WIDTH", width)).unwrap();
        assert_eq!((dataset.images.len(), dataset.set_aside.len()), (0, 1));
        dataset.faults[0].to_string()
    };
    assert!(with("9", "5").contains("annotation 0: no category has the id 9"));
    assert!(with("1", "-5").contains("no box in pixels"));
    let folder = tempfile::tempdir().unwrap();
    let error = Dataset::load(folder.path(), Split::Prefer("val")).unwrap_err().to_string();
    assert!(error.contains("no data set found here"));
}

#[test]
fn results_find_their_image_and_class_or_say_why_not() {
    let labels = r#"{"images": [{"id": 1, "file_name": "a/000007.png"}, {"id": "u-2", "file_name": "a/x.png"}, {"id": 3, "file_name": "b/x.png"}],
        "categories": [{"id": 0, "name": "bolt"}, {"id": 1, "name": "couch"}], "annotations": []}"#;
    let mut dataset = Dataset::parse_coco(labels, Path::new("x.json"), Path::new("")).unwrap();
    dataset.truncate(2);
    let read = |result: &str| {
        results::parse_results(&format!("[{result}]"), Path::new("r.json"), &dataset).map_err(|error| error.to_string())
    };
    let found = |id: &str, category: &str| {
        let results = read(&format!(r#"{{"image_id": {id}, {category}, "bbox": [0, 0, 1, 2.0], "score": 1}}"#))?;
        let of = |list: &Vec<Detection>| list.first().map(|detection| detection.class);
        Ok::<_, String>(results.detections.iter().map(of).collect::<Vec<_>>())
    };
    assert_eq!(found("1.0", "\"category_id\": 0"), Ok(vec![Some(0), None]));
    assert_eq!(found("\"u-2\"", "\"category_id\": \"1\""), Ok(vec![None, Some(1)]));
    assert_eq!(found("\"000007\"", "\"category_id\": 9, \"category_name\": \"sofa\""), Ok(vec![Some(1), None]));
    assert_eq!(found("3", "\"category_id\": 1"), Ok(vec![None, None]), "of an image that is not measured");
    for name in ["7", "\"000007.png\"", "\"a/000007\"", "\"a/000007.png\""] {
        assert_eq!(found(name, "\"category_id\": 0"), Ok(vec![Some(0), None]), "{name}");
    }
    assert!(found("4", "\"category_id\": 1").unwrap_err().contains("no image has the id \"4\""));
    assert!(found("\"x\"", "\"category_id\": 1").unwrap_err().contains("several images are called x"));
    assert!(
        found("1", "\"category_id\": 2")
            .unwrap_err()
            .contains("none of the 1 results has a category of the data set (0, 1)")
    );
    assert!(
        read(r#"{"image_id": 1, "category_id": 0, "bbox": [0, NaN, 1, 2], "score": 1}"#)
            .unwrap_err()
            .contains("not four numbers")
    );
    let one = r#"{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 2], "score": 1}"#;
    let notes = read(&format!("{one}, {}", one.replace("\"category_id\": 1", "\"category_id\": 2"))).unwrap().notes;
    assert!(notes[0].contains("1 of 2 results are of categories that the data set lacks (2)"), "{notes:?}");
    let notes = read(r#"{"image_id": 3, "category_id": 1, "bbox": [0, 0, 1, 2], "score": 1}"#).unwrap().notes;
    assert!(notes[0].contains("none of its 1 results is of an image that is measured"), "{notes:?}");
    assert!(read(&one.replace("1, 2]", "-1, 2]")).unwrap_err().contains("negative width"));
    let none = read("").unwrap();
    assert!(none.notes[0].contains("it has no results: every object counts as missed"), "{:?}", none.notes);
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
