//! What `detect` writes, read again: in every format the same boxes.

use std::path::{Path, PathBuf};

use arbtest::arbitrary::{Result, Unstructured};
use arbtest::arbtest;
use image::RgbImage;
use serde::Deserialize;

use super::results::parse_results;
use crate::dataset::{Dataset, LabelledImage, Object, Split};
use crate::labels::coco::Id;
use crate::sink::*;
use yolo_lat_core::geometry::BBox;
use yolo_lat_core::postprocess::Detection;

const CLASSES: [&str; 4] = ["cat", "a: \"b\", <c> & 'd'", "yes", "鳥\t12"];

/// A run over images with difficult names, and what was found in them.
struct Run {
    /// Relative paths of the images.
    files: Vec<PathBuf>,
    records: Vec<Record>,
}

fn arbitrary_run(u: &mut Unstructured, flat: bool) -> Result<Run> {
    let names = ["1.png", "0001.png", "night/1.png", "000139.png", "a b,\"c\".png", "x#7.png", "ü.png", "1.2.png"];
    let mut files: Vec<PathBuf> = names.map(PathBuf::from).into();
    if flat {
        files.retain(|file| file.components().count() == 1);
    }
    let mut records = Vec::new();
    for file in &files {
        let (width, height) = (u.int_in_range(1..=40)?, u.int_in_range(1..=40)?);
        let mut detections = Vec::new();
        for _ in 0..u.int_in_range(0..=5)? {
            let class = u.choose_index(CLASSES.len())?;
            let mut side = |most: u32| Ok(most as f32 * u.int_in_range(0..=1000)? as f32 / 1000.0);
            let ([a, b], [c, d]) = ([side(width)?, side(width)?], [side(height)?, side(height)?]);
            let bbox = BBox { x1: a.min(b), y1: c.min(d), x2: a.max(b), y2: c.max(d) };
            let confidence = u.int_in_range(0..=1000)? as f32 / 1000.0;
            // Readers of labels count an object that stands twice once.
            if detections.iter().any(|other: &NamedDetection| (other.class, other.bbox) == (class, bbox)) {
                continue;
            }
            detections.push(NamedDetection::new(Detection { class, confidence, bbox }, CLASSES[class].into()));
        }
        let image = format!("photos/{}", file.display());
        records.push(Record { image, width, height, detections, ..Record::default() });
    }
    Ok(Run { files, records })
}

impl Run {
    /// Writes all of it through a sink, in a folder with the images.
    fn write(&self, root: &Path, sink: impl FnOnce(&OutputFolder, &Run) -> Box<dyn Sink>) {
        let folder = OutputFolder::open(root, Default::default()).unwrap();
        let mut sinks = [sink(&folder, self), Box::new(ImageSink::new(folder.clone(), "images", Placing::Copy))];
        let photos = tempfile::tempdir().unwrap();
        for (file, record) in self.files.iter().zip(&self.records) {
            let (path, image) = (photos.path().join("photos").join(file), RgbImage::new(record.width, record.height));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            image.save(&path).unwrap();
            let item = Item { record, path: &path, video: None, stem: &file.with_extension(""), image: Some(&image) };
            sinks.iter_mut().for_each(|sink| sink.write(item).unwrap());
        }
        sinks.iter_mut().for_each(|sink| sink.finish().unwrap());
    }

    /// A data set of the same images and classes, which it counts otherwise.
    fn dataset(&self) -> Dataset {
        let images = self.files.iter().enumerate().map(|(index, file)| LabelledImage {
            id: (1000 + index).to_string(),
            path: Path::new("elsewhere/photos").join(file),
            objects: Vec::new(),
        });
        let classes = CLASSES.iter().rev().map(|&name| name.to_owned()).collect();
        let category_ids = [7, 5, 3, 0].map(Id::Number).into();
        Dataset { classes, category_ids, images: images.collect(), ..Dataset::default() }
    }

    fn expected(&self) -> Vec<Vec<Detection>> {
        let detection = |found: &NamedDetection| Detection {
            class: CLASSES.len() - 1 - found.class,
            confidence: found.confidence,
            bbox: found.bbox,
        };
        self.records.iter().map(|record| record.detections.iter().map(detection).collect()).collect()
    }
}

fn close(a: &BBox, b: &BBox, tolerance: f32) -> bool {
    a.corners().into_iter().zip(b.corners()).all(|(a, b)| (a - b).abs() <= tolerance)
}

/// The files that the packages of CVAT's and Label Studio's makers have read (`tests/golden/annotators/check.py`): written today, they
/// are the same.
#[test]
fn files_for_annotation_tools_are_those_that_their_packages_read() {
    let golden = Path::new("../../tests/golden/annotators");
    let expected: Vec<Record> =
        serde_json::from_str(&std::fs::read_to_string(golden.join("records.json")).unwrap()).unwrap();
    let classes: Vec<String> = ["person", "cat", "potted plant"].map(str::to_owned).into();
    let folder = tempfile::tempdir().unwrap();
    let output = OutputFolder::open(folder.path(), Default::default()).unwrap();
    let options = LabelStudioOptions {
        url: "/data/local-files/?d=images/".into(),
        model: "yolo-lat-n".into(),
        classes: classes.clone(),
    };
    let tasks = output.target("label-studio.json").unwrap();
    let mut sinks: [Box<dyn Sink>; 2] = [
        Box::new(CvatSink::new(output.target("cvat.xml").unwrap(), &classes, false)),
        Box::new(LabelStudioSink::new(tasks, Some(output.clone()), options)),
    ];
    for record in &expected {
        let path = Path::new(&record.image);
        let item = Item { record, path, video: None, stem: &path.with_extension(""), image: None };
        sinks.iter_mut().for_each(|sink| sink.write(item).unwrap());
    }
    sinks.iter_mut().for_each(|sink| sink.finish().unwrap());
    for name in ["cvat.xml", "label-studio.json", "label-studio.xml"] {
        let written = std::fs::read_to_string(folder.path().join(name)).unwrap();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(golden.join(name), &written).unwrap();
        }
        assert!(written == std::fs::read_to_string(golden.join(name)).unwrap(), "{name}: {written}");
    }
}

type MakeSink = fn(&OutputFolder, &Run) -> Box<dyn Sink>;

#[test]
fn results_in_one_file_are_read_by_eval() {
    let coco: MakeSink = |folder, run| {
        let stems: Vec<PathBuf> = run.files.iter().map(|file| file.with_extension("")).collect();
        let ids = ImageIds::new(stems.iter().map(PathBuf::as_path));
        Box::new(CocoSink::new(folder.target("file").unwrap(), ids, (1..=4).map(Some).collect()))
    };
    let formats: [(&str, MakeSink); 4] = [
        ("coco", coco),
        ("json", |folder, _| Box::new(JsonSink::new(folder.target("file").unwrap()))),
        ("jsonl", |folder, _| Box::new(JsonLinesSink::new(folder.target("file").unwrap()))),
        ("csv", |folder, _| {
            let columns = CsvColumns { videos: true, ..CsvColumns::default() };
            Box::new(CsvSink::new(folder.target("file").unwrap(), columns))
        }),
    ];
    arbtest(|u| {
        let run = arbitrary_run(u, false)?;
        for (format, sink) in formats {
            let folder = tempfile::tempdir().unwrap();
            run.write(folder.path(), sink);
            let text = std::fs::read_to_string(folder.path().join("file")).unwrap();
            if run.records.iter().all(|record| record.detections.is_empty()) {
                continue;
            }
            let found = parse_results(&text, Path::new(format), &run.dataset()).unwrap().detections;
            for (found, expected) in found.iter().flatten().zip(run.expected().iter().flatten()) {
                assert_eq!((found.class, found.confidence), (expected.class, expected.confidence), "{format}");
                // COCO's width and height are differences of rounded numbers.
                assert!(close(&found.bbox, &expected.bbox, 1e-5), "{format}: {found:?} {expected:?}");
            }
            let counts = |lists: &[Vec<Detection>]| lists.iter().map(Vec::len).collect::<Vec<_>>();
            assert_eq!(counts(&found), counts(&run.expected()), "{format}");
        }
        Ok(())
    })
    .budget_ms(1000);
}

#[test]
fn labels_are_data_sets() {
    let yolo: MakeSink = |folder, _| Box::new(YoloSink::new(folder.clone(), CLASSES.map(str::to_owned).into(), false));
    let voc: MakeSink = |folder, _| Box::new(VocSink::new(folder.clone()));
    arbtest(|u| {
        for (sink, tolerance) in [(yolo, 1e-4), (voc, 0.0)] {
            let run = arbitrary_run(u, true)?;
            let folder = tempfile::tempdir().unwrap();
            run.write(folder.path(), sink);
            if folder.path().join("voc").exists() {
                std::fs::rename(folder.path().join("voc"), folder.path().join("Annotations")).unwrap();
                std::fs::rename(folder.path().join("images"), folder.path().join("JPEGImages")).unwrap();
            }
            let dataset = Dataset::load(folder.path(), Split::Prefer("val")).unwrap();
            assert_eq!(dataset.images.len(), run.files.len());
            for (file, record) in run.files.iter().zip(&run.records) {
                let image = dataset.images.iter().find(|image| image.path.file_name() == file.file_name()).unwrap();
                assert!(image.path.exists());
                let expected: Vec<_> =
                    record.detections.iter().map(|found| (CLASSES[found.class], found.bbox)).collect();
                let found: Vec<_> = image
                    .objects
                    .iter()
                    .map(|object: &Object| (&*dataset.classes[object.class], object.bbox))
                    .collect();
                // Rows that say the same count once, so lists are compared as sets.
                let plain = |name: &str| name.split_whitespace().collect::<Vec<_>>().join(" ");
                let same = |(name, bbox): &(&str, BBox), (other, box_of_other): &(&str, BBox)| {
                    plain(name) == plain(other) && close(bbox, box_of_other, tolerance)
                };
                assert!(found.len() <= expected.len(), "{found:?} {expected:?}");
                assert!(
                    found.iter().all(|one| expected.iter().any(|other| same(one, other))),
                    "{found:?} {expected:?}"
                );
                assert!(
                    expected.iter().all(|one| found.iter().any(|other| same(other, one))),
                    "{found:?} {expected:?}"
                );
            }
        }
        Ok(())
    })
    .budget_ms(1000);
}

/// As CVAT and Label Studio read them.
#[test]
fn annotation_tools_get_every_box() {
    #[derive(Deserialize)]
    struct Cvat {
        image: Vec<Image>,
    }
    #[derive(Deserialize)]
    struct Image {
        #[serde(rename = "@id")]
        id: u64,
        #[serde(rename = "@name")]
        name: String,
        #[serde(default, rename = "box")]
        boxes: Vec<Rectangle>,
    }
    #[derive(Deserialize)]
    struct Rectangle {
        #[serde(rename = "@label")]
        label: String,
        #[serde(rename = "@xtl")]
        x1: f32,
        #[serde(rename = "@ytl")]
        y1: f32,
        #[serde(rename = "@xbr")]
        x2: f32,
        #[serde(rename = "@ybr")]
        y2: f32,
    }
    let cvat: MakeSink = |folder, _| {
        let classes = CLASSES.map(str::to_owned);
        Box::new(CvatSink::new(folder.target("file").unwrap(), &classes, false))
    };
    let label_studio: MakeSink = |folder, _| {
        let options =
            LabelStudioOptions { url: "/d/".into(), model: "n".into(), classes: CLASSES.map(str::to_owned).into() };
        Box::new(LabelStudioSink::new(folder.target("file").unwrap(), Some(folder.clone()), options))
    };
    arbtest(|u| {
        let run = arbitrary_run(u, false)?;
        let read = |sink| {
            let folder = tempfile::tempdir().unwrap();
            run.write(folder.path(), sink);
            std::fs::read_to_string(folder.path().join("file")).unwrap()
        };
        let file: Cvat = quick_xml::de::from_str(&read(cvat)).unwrap();
        let tasks: Vec<serde_json::Value> = serde_json::from_str(&read(label_studio)).unwrap();
        assert_eq!((file.image.len(), tasks.len()), (run.files.len(), run.files.len()));
        for (index, (path, record)) in run.files.iter().zip(&run.records).enumerate() {
            let image = &file.image[index];
            assert_eq!((image.id, Path::new(&image.name)), (index as u64, path.as_path()));
            assert_eq!(image.boxes.len(), record.detections.len());
            let regions = tasks[index]["predictions"][0]["result"].as_array().unwrap();
            assert_eq!(regions.len(), record.detections.len());
            for ((rectangle, region), expected) in image.boxes.iter().zip(regions).zip(&record.detections) {
                let Rectangle { label, x1, y1, x2, y2 } = rectangle;
                let bbox = BBox { x1: *x1, y1: *y1, x2: *x2, y2: *y2 };
                let plain = |name: &str| name.split_whitespace().collect::<Vec<_>>().join(" ");
                assert_eq!((plain(label), bbox), (plain(&expected.name), expected.bbox));
                let value = &region["value"];
                assert_eq!(value["rectanglelabels"][0], expected.name.as_str());
                let share = |key: &str, side: u32| (value[key].as_f64().unwrap() / 100.0 * f64::from(side)) as f32;
                let xywh = [share("x", record.width), share("y", record.height)];
                let size = [share("width", record.width), share("height", record.height)];
                let bbox = BBox::from_xywh([xywh[0], xywh[1], size[0], size[1]]);
                assert!(close(&bbox, &expected.bbox, 1e-4), "{bbox:?} {expected:?}");
            }
        }
        Ok(())
    })
    .budget_ms(1000);
}
