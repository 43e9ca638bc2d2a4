//! `yolo-lat eval --threshold`: which least confidence a model should have.

use std::fmt::Write;
use std::path::Path;

use serde_json::json;
use yolo_lat::eval::{Measured, OperatingPoint, operating_points};

/// Hundredths that are tried.
const TRIED: std::ops::RangeInclusive<u8> = 5..=95;
/// The first of them.
pub(super) const LEAST_THRESHOLD: f32 = 0.05;

/// Precision and recall of one data set at every threshold.
pub(super) struct Curve {
    name: String,
    points: Vec<OperatingPoint>,
}

impl Curve {
    pub(super) fn new(path: &Path, measured: &Measured) -> Self {
        let thresholds = TRIED.map(|hundredths| f32::from(hundredths) / 100.0);
        let points = operating_points(&measured.objects, &measured.detections, thresholds);
        Self { name: path.display().to_string(), points }
    }
}

/// Place of the threshold with the best F1, in the mean of all data sets.
fn best(curves: &[Curve]) -> usize {
    let mean = |index: usize| curves.iter().map(|curve| curve.points[index].f1()).sum::<f64>() / curves.len() as f64;
    (0..TRIED.count()).max_by(|&a, &b| mean(a).total_cmp(&mean(b))).unwrap_or(0)
}

fn hundredths(value: f64) -> f64 {
    (value * 1e2).round() / 1e2
}

pub(super) fn as_json(curves: &[Curve]) -> serde_json::Value {
    let point = |point: &OperatingPoint| {
        json!({
            "confidence": hundredths(point.threshold.into()), "precision": point.precision(), "recall": point.recall(), "f1": point.f1(),
            "boxes_per_image": point.boxes(), "second_boxes_per_image": point.second_boxes(),
        })
    };
    let curve = |curve: &Curve| {
        json!({ "dataset": curve.name, "best": point(&curve.points[best(std::slice::from_ref(curve))]),
                "curve": curve.points.iter().map(point).collect::<Vec<_>>() })
    };
    let together = best(curves);
    json!({
        "confidence": curves.first().map(|curve| hundredths(curve.points[together].threshold.into())),
        "datasets": curves.iter().map(curve).collect::<Vec<_>>(),
    })
}

pub(super) fn as_table(curves: &[Curve], model: &str) -> String {
    let together = best(curves);
    let mut table = String::new();
    // Writing to a String cannot fail.
    for curve in curves {
        let _ =
            writeln!(table, "{}: {} images, {} objects", curve.name, curve.points[0].images, curve.points[0].objects);
        let _ = writeln!(table, "confidence  precision  recall     F1  boxes/image  second boxes/image");
        for (index, point) in curve.points.iter().enumerate() {
            // Every twentieth, and the one that is proposed.
            if index % 5 != 0 && index != together {
                continue;
            }
            let mark = if index == together { "  <- best F1" } else { "" };
            let _ = writeln!(
                table,
                "{:>10.2} {:>10.3} {:>7.3} {:>6.3} {:>12.2} {:>19.2}{mark}",
                point.threshold,
                point.precision(),
                point.recall(),
                point.f1(),
                point.boxes(),
                point.second_boxes()
            );
        }
        table.push('\n');
    }
    let mean = curves.iter().map(|curve| curve.points[together].f1()).sum::<f64>() / curves.len() as f64;
    let threshold = curves.first().map_or(0.0, |curve| curve.points[together].threshold);
    let of = if curves.len() > 1 { "in the mean of all data sets " } else { "" };
    let _ =
        writeln!(table, "best F1 {of}{mean:.3} at confidence = {threshold:.2}, a line for the model file of {model}");
    table
}
