//! Detections on eight validation photographs, which are not part of the project: needs YOLO_LAT_DATA, the folder
//! that holds voc2007/val.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::process::Command;

use image::RgbImage;

use yolo_lat::engine::EngineKind;
use yolo_lat::geometry::BBox;
use yolo_lat::postprocess::Nms;
use yolo_lat::{Detector, DetectorOptions, InputSize, Model, Runtime};

/// The golden detections were made from libjpeg's pixels. Other decoders, that of the `image` crate too, restore chroma
/// otherwise by a few levels, which moves a side of one unsure box by 2.7 px and tips a suppression elsewhere; so this
/// test decodes with libjpeg's own program.
fn decode_with_libjpeg(path: &Path) -> Option<RgbImage> {
    let output = Command::new("djpeg").arg("-ppm").arg(path).output().ok()?;
    // P6, width, height, 255, each followed by white space, then the pixels.
    let mut fields = output.stdout.splitn(4, |byte| byte.is_ascii_whitespace());
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse::<u32>().ok();
    let (_, width, height) = (number(), number()?, number()?);
    RgbImage::from_raw(width, height, fields.next()?.strip_prefix(b"255\n")?.to_vec())
}

#[test]
#[ignore = "needs YOLO_LAT_DATA, the folder that holds voc2007/val, and djpeg"]
fn golden_photographs_give_the_golden_detections() {
    let folder = std::env::var_os("YOLO_LAT_DATA").unwrap();
    let golden: serde_json::Value = serde_json::from_str(include_str!("golden/yolo-lat-n.json")).unwrap();
    let golden = &golden["photographs"];
    let model = Model::load("tests/golden/bootstrap/yolo-lat-n.toml").unwrap();
    for engine in [EngineKind::Cpu, EngineKind::Reference] {
        let mut options = DetectorOptions { engine, size: InputSize::Square(None), ..DetectorOptions::default() };
        // A little below the golden threshold: a confidence may differ by 0.03.
        options.postprocess.confidence = golden["conf"].as_f64().unwrap() as f32 - 0.03;
        // The golden detections name every class of a cell.
        options.postprocess.multi_label = true;
        options.postprocess.nms = Nms::Greedy;
        options.postprocess.iou = golden["iou"].as_f64().unwrap() as f32;
        let mut detector = Detector::of_model(&model, &Runtime::default(), &options).unwrap();
        for result in golden["results"].as_array().unwrap() {
            let name = result["image"].as_str().unwrap();
            let path = PathBuf::from(&folder).join("voc2007/val/images").join(name);
            let image = decode_with_libjpeg(&path).unwrap();
            let found = detector.detect(&image).unwrap();
            for expected in result["detections"].as_array().unwrap() {
                let side = |index: usize| expected["box"][index].as_f64().unwrap() as f32;
                // The golden boxes may reach past the image; ours are cut off there.
                let bbox = BBox { x1: side(0), y1: side(1), x2: side(2), y2: side(3) };
                let bbox = bbox.clip(image.width() as f32, image.height() as f32);
                let confidence = expected["confidence"].as_f64().unwrap() as f32;
                let matches = found.iter().any(|found| {
                    let sides = [
                        (found.bbox.x1, bbox.x1),
                        (found.bbox.y1, bbox.y1),
                        (found.bbox.x2, bbox.x2),
                        (found.bbox.y2, bbox.y2),
                    ];
                    detector.class_name(found.class) == expected["name"]
                        && (found.confidence - confidence).abs() <= 0.03
                        && sides.iter().all(|(a, b)| (a - b).abs() <= 2.0)
                });
                assert!(matches, "{engine} {name}: {expected} is missing among {found:?}");
            }
        }
    }
}
