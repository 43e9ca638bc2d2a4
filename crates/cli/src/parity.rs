//! `yolo-lat parity`: all engines of this machine side by side with the reference.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use image::RgbImage;
use ndarray::{Array4, Axis};
use serde_json::json;
use yolo_lat::engine::{EngineError, EngineKind, create};
use yolo_lat::geometry::Letterbox;
use yolo_lat::model::Model;
use yolo_lat::preprocess::Preprocessor;
use yolo_lat::source::open_image;
use yolo_lat::{DetectError, Detection, Detector, DetectorOptions, InputSize, Runtime};

use super::SOME_FAILED;
use super::options::{DeviceArguments, parse_size};

/// Largest differences of boxes, in pixels of the network's input, and of confidences at which detections are still the same.
/// An image's own pixels would make an engine's error depend on the camera.
#[derive(Clone, Copy)]
struct Limits {
    pixels: f32,
    confidence: f32,
}

const SAME: Limits = Limits { pixels: 0.5, confidence: 0.005 };

/// Factors of 16 bits are off by 2^-11 of themselves in each of some sixty layers: the largest logits, which are far from any
/// decision, move by tenths. What is found must be the same.
const HALF: Limits = Limits { pixels: 1.0, confidence: 0.01 };
const HALF_TOLERANCE: f32 = 0.5;

/// An engine, and what is asked of it.
struct Contender {
    name: &'static str,
    kind: EngineKind,
    /// Whether the GPU may use 16-bit floats.
    half: Option<bool>,
    tolerance: f32,
    same: Limits,
}

fn contenders(tolerance: f32) -> [Contender; 5] {
    let exact = |name, kind, half| Contender { name, kind, half, tolerance, same: SAME };
    [
        exact("reference", EngineKind::Reference, None),
        exact("cpu", EngineKind::Cpu, None),
        exact("gpu", EngineKind::Gpu, Some(false)),
        Contender { tolerance: HALF_TOLERANCE, same: HALF, ..exact("gpu f16", EngineKind::Gpu, Some(true)) },
        exact("ort", EngineKind::Ort, None),
    ]
}

#[derive(Args, Debug)]
pub(super) struct ParityArguments {
    /// Model: n, s, or the path of a .toml or .safetensors file
    #[arg(default_value = "n")]
    model: String,
    /// Images; default: three generated images
    #[arg(value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Input size in pixels, multiples of 32: 320 or 416x320 (width x height); default: the model's
    #[arg(long, value_name = "PIXELS", value_parser = parse_size)]
    size: Option<(usize, usize)>,
    /// Largest difference of a logit; for the GPU in 16 bits it is 0.5
    #[arg(long, default_value_t = 2e-3, value_name = "DIFFERENCE")]
    tolerance: f32,
    #[command(flatten)]
    devices: DeviceArguments,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What an engine gives for all images.
struct Outcome {
    logits: Vec<Array4<f32>>,
    /// Boxes in pixels of the network's input.
    detections: Vec<Vec<Detection>>,
}

/// Difference of an engine from the reference.
struct Compared {
    max: f32,
    mean: f64,
    detections_equal: bool,
}

pub(super) fn run(arguments: &ParityArguments) -> anyhow::Result<ExitCode> {
    let runtime = arguments.devices.runtime(0)?;
    let model = Model::load(&arguments.model)?;
    let images = if arguments.images.is_empty() {
        generated()
    } else {
        let open = |path: &PathBuf| open_image(path).with_context(|| path.display().to_string());
        arguments.images.iter().map(open).collect::<anyhow::Result<_>>()?
    };
    let size = arguments.size.unwrap_or((model.config.input, model.config.input));
    let reference = outcome(EngineKind::Reference, &model, size, &images, &runtime)?;
    let mut rows = Vec::new();
    for contender in contenders(arguments.tolerance) {
        let Some(runtime) = runtime_for(&contender, arguments) else { continue };
        let row = match contender.kind {
            EngineKind::Reference => Ok(compare(&reference, &reference, SAME)),
            kind => match outcome(kind, &model, size, &images, &runtime) {
                Ok(found) => Ok(compare(&reference, &found, contender.same)),
                Err(error) => match *error {
                    DetectError::Engine(EngineError::Unavailable { reason, .. }) => Err(reason),
                    error => return Err(error.into()),
                },
            },
        };
        rows.push((contender, row));
    }
    let fits = |(contender, row): &(Contender, Result<Compared, String>)| {
        row.as_ref().map_or(true, |found| found.max <= contender.tolerance && found.detections_equal)
    };
    let ok = rows.iter().all(fits);
    let text = if arguments.json {
        let row = |(contender, row): &(Contender, Result<Compared, String>)| {
            let found = row.as_ref().ok();
            json!({
                "name": contender.name, "tolerance": contender.tolerance, "available": found.is_some(), "why": row.as_ref().err(),
                "max_abs_logit": found.map(|found| found.max), "mean_abs_logit": found.map(|found| found.mean),
                "detections_equal": found.map(|found| found.detections_equal),
            })
        };
        let engines: Vec<_> = rows.iter().map(row).collect();
        let value = json!({
            "model": model.config.name, "size": [size.0, size.1], "images": images.len(), "engines": engines,
            "tolerance": arguments.tolerance, "ok": ok,
        });
        format!("{value}\n")
    } else {
        let mut table = format!("{:<10} {:>15} {:>15}  detections\n", "engine", "max |logit - r|", "mean");
        for (Contender { name, .. }, row) in &rows {
            // Writing to a String cannot fail.
            let _ = match row {
                Ok(Compared { max, mean, detections_equal }) => {
                    let equal = if *detections_equal { "equal" } else { "DIFFERENT" };
                    writeln!(table, "{name:<10} {max:>15.2e} {mean:>15.2e}  {equal}")
                }
                Err(why) => writeln!(table, "{name:<10} not available: {why}"),
            };
        }
        let verdict = if ok { "ok" } else { "NOT within the tolerance" };
        let _ = writeln!(
            table,
            "{}, {} images, tolerance {}: {verdict}",
            model.config.name,
            images.len(),
            arguments.tolerance
        );
        table
    };
    super::print(&text)?;
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::from(SOME_FAILED) })
}

/// What a contender runs on; `None` for 16-bit floats on a GPU without them, where there is nothing more to see.
#[cfg(feature = "gpu")]
fn runtime_for(contender: &Contender, arguments: &ParityArguments) -> Option<Runtime> {
    let mut options = arguments.devices.options(0);
    if let Some(half) = contender.half {
        options.gpu.features = yolo_lat::engine::gpu::ShaderFeatures { half, subgroups: true };
    }
    let runtime = Runtime::new(options);
    (contender.half != Some(true) || runtime.gpu().is_ok_and(|gpu| gpu.features().half)).then_some(runtime)
}

#[cfg(not(feature = "gpu"))]
fn runtime_for(contender: &Contender, arguments: &ParityArguments) -> Option<Runtime> {
    contender.half.is_none().then(|| Runtime::new(arguments.devices.options(0)))
}

/// Images with edges, gradients and noise, of three shapes.
fn generated() -> Vec<RgbImage> {
    let image = |width: u32, height: u32, seed: u32| {
        RgbImage::from_fn(width, height, |x, y| {
            let noise = x.wrapping_mul(73_856_093) ^ y.wrapping_mul(19_349_663) ^ seed.wrapping_mul(83_492_791);
            let disc = (x.abs_diff(width / 2).pow(2) + y.abs_diff(height / 2).pow(2)) < (height / 3).pow(2);
            let value = |base: u32| (base % 256) as u8;
            image::Rgb([
                value(x + seed * 40 + noise % 16),
                if disc { 220 } else { value(y / 2) },
                value((noise >> 5) % 64 + y),
            ])
        })
    };
    vec![image(320, 320, 1), image(500, 333, 2), image(211, 407, 3)]
}

fn outcome(
    kind: EngineKind,
    model: &Model,
    (width, height): (usize, usize),
    images: &[RgbImage],
    runtime: &Runtime,
) -> Result<Outcome, Box<DetectError>> {
    let fail = |error: EngineError| Box::new(DetectError::from(error));
    let mut input = Array4::zeros((images.len(), 3, height, width));
    let mut preprocessor = Preprocessor::default();
    for (image, target) in images.iter().zip(input.outer_iter_mut()) {
        preprocessor.apply(image, target).map_err(fail)?;
    }
    let mut engine = create(kind, model, width, height, runtime).map_err(fail)?;
    let logits = engine.run(input.view()).map_err(fail)?.to_vec();
    let options = DetectorOptions {
        engine: kind,
        precision: Some(model.precision()),
        size: InputSize::Fixed(width, height),
        ..DetectorOptions::default()
    };
    let images: Vec<&RgbImage> = images.iter().collect();
    let mut detector = Detector::of_model(model, runtime, &options)?;
    let found = detector.detect_batch(&images)?;
    let in_network = |(image, mut detections): (&&RgbImage, Vec<Detection>)| {
        let letterbox = Letterbox::fit(image.dimensions(), (width as u32, height as u32));
        detections.iter_mut().for_each(|found| found.bbox = letterbox.letterbox_from_image(&found.bbox));
        detections
    };
    let found = found.into_iter().map(|(detections, _)| detections);
    Ok(Outcome { logits, detections: images.iter().zip(found).map(in_network).collect() })
}

fn compare(reference: &Outcome, found: &Outcome, limits: Limits) -> Compared {
    let (mut max, mut sum, mut count) = (0.0f32, 0.0f64, 0usize);
    for (a, b) in reference.logits.iter().zip(&found.logits) {
        debug_assert_eq!(a.len_of(Axis(1)), b.len_of(Axis(1)));
        for (a, b) in a.iter().zip(b) {
            let difference = (a - b).abs();
            // A NaN is as far off as can be.
            max = if difference <= max { max } else { difference };
            sum += f64::from(difference);
            count += 1;
        }
    }
    let same = |a: &Detection, b: &Detection| {
        let near = |a: f32, b: f32, limit: f32| (a - b).abs() <= limit;
        a.class == b.class
            && near(a.confidence, b.confidence, limits.confidence)
            && near(a.bbox.x1, b.bbox.x1, limits.pixels)
            && near(a.bbox.y1, b.bbox.y1, limits.pixels)
            && near(a.bbox.x2, b.bbox.x2, limits.pixels)
            && near(a.bbox.y2, b.bbox.y2, limits.pixels)
    };
    // Each detection has a partner: two of nearly equal confidence may stand in another order.
    let equal = |a: &Vec<Detection>, b: &Vec<Detection>| {
        a.len() == b.len()
            && a.iter().all(|a| b.iter().any(|b| same(a, b)))
            && b.iter().all(|b| a.iter().any(|a| same(a, b)))
    };
    let detections_equal = reference.detections.iter().zip(&found.detections).all(|(a, b)| equal(a, b));
    Compared { max, mean: sum / count as f64, detections_equal }
}
