//! Small things in large images.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::path::Path;

use common::{program, text, yolo_lat};
use image::RgbImage;
use image::imageops::{FilterType, replace, resize};
use serde_json::Value;

/// Boxes that `detect` finds in an image, by their left edge.
fn boxes(image: &Path, arguments: &[&str]) -> Vec<[f64; 4]> {
    let usual = ["detect", "-f", "jsonl", "-q", "--engine", "cpu"];
    let output = program().args(usual).args(arguments).arg(image).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    let corners = |found: &Value| ["x1", "y1", "x2", "y2"].map(|side| found["box"][side].as_f64().unwrap());
    let mut found: Vec<[f64; 4]> = line["detections"].as_array().unwrap().iter().map(corners).collect();
    found.sort_by(|a, b| a[0].total_cmp(&b[0]));
    found
}

#[test]
fn slices_find_what_is_small_in_a_large_image_and_once() {
    let cat = image::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/chelsea.jpg")).unwrap().into_rgb8();
    let cat = resize(&cat, 180, 120, FilterType::Triangle);
    let mut large = RgbImage::from_pixel(2000, 1500, image::Rgb([114; 3]));
    // Slices of 384 x 288 begin 269 or 270 pixels apart: the second cat lies on the seam that ends the first column.
    let places = [(800, 700), (300, 200)];
    for (x, y) in places {
        replace(&mut large, &cat, x, y);
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("large.png");
    large.save(&image).unwrap();

    assert_eq!(boxes(&image, &[]).len(), 0, "they are too small for the whole image");
    for slice in ["auto", "384x288:0.2"] {
        let found = boxes(&image, &["--slice", slice]);
        assert_eq!(found.len(), 2, "{slice}: {found:?}");
        for (found, (x, y)) in found.iter().zip([places[1], places[0]]) {
            let (x, y) = (x as f64, y as f64);
            let middle = ((found[0] + found[2]) / 2.0 - x, (found[1] + found[3]) / 2.0 - y);
            assert!((45.0..135.0).contains(&middle.0) && (30.0..90.0).contains(&middle.1), "{slice}: {found:?}");
        }
    }
}

#[test]
fn a_slice_that_cannot_be_is_refused() {
    for (slice, reason) in
        [("0", "at least 32"), ("320:1", "from 0 to 0.9"), ("large", "expected auto, off or the size")]
    {
        let output = yolo_lat(&["detect", "a.jpg", "--slice", slice]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2));
        assert!(said.contains(reason), "{said}");
    }
}
