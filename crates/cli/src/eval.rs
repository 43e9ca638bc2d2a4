//! `yolo-lat eval`: average precision on labelled images.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, ValueEnum};
use image::RgbImage;
use serde_json::json;
use yolo_lat::eval::{Correspondence, Dataset, Evaluation, Feed, Measured, Split, measure, read_results};
use yolo_lat::postprocess::PostprocessOptions;

use yolo_lat::Detector;

use super::for_class::parse_share;
use super::options::EngineArguments;
use super::threshold::{self, Curve, LEAST_THRESHOLD};
use super::tracks;
use super::{INTERRUPTED, SOME_FAILED, percent, report};

const LAYOUTS: &str = "Layouts of data sets:
  COCO  a .json file; a folder with annotations.json, _annotations.coco.json, labels.json or annotations/instances_*.json
  YOLO  data.yaml or another .yaml with names; images/ and labels/ with classes.txt; obj.data; images, labels and classes.txt
        in one folder; a .txt that lists images
  VOC   Annotations/*.xml with JPEGImages/ or images/; XML beside the images
Parts (train, val, test) as files, folders or lists in any of them. docs/DATASETS.md has all that is read and refused.";

#[derive(Args, Debug)]
#[command(after_help = LAYOUTS)]
pub(super) struct EvalArguments {
    /// Labelled images: a folder or file in one of the layouts below; several with --threshold
    #[arg(value_name = "DATASET", required = true)]
    datasets: Vec<PathBuf>,
    /// The part of the data set that is measured: its name (val, test) or a file that lists images; default: val where there
    /// are parts, of VOC folders all
    #[arg(long, value_name = "NAME_OR_LIST")]
    split: Option<String>,
    /// A file that cannot be read or has wrong labels is an error, instead of being named and left out
    #[arg(long)]
    strict: bool,

    /// Instead of average precision: precision, recall, F1 and second boxes on one object at every least confidence (IoU 0.5, all
    /// classes together, one class a cell as `detect` gives it), and the best for the model file
    #[arg(long, conflicts_with_all = ["conf", "single_label"])]
    threshold: bool,

    #[command(flatten)]
    engine: EngineArguments,

    /// Least confidence of a detection, 0 to 1
    #[arg(long, default_value_t = 0.001, value_parser = parse_share)]
    conf: f32,
    /// Of two boxes of a class that overlap more than this (IoU), the less confident goes
    #[arg(long, default_value_t = 0.45, value_parser = parse_share)]
    iou: f32,
    /// Most detections in an image
    #[arg(long, default_value_t = 300, value_name = "N")]
    max_det: usize,
    /// Only the best class of a cell counts, as `detect` gives it; by default a cell may report several classes, as
    /// detectors are customarily measured
    #[arg(long)]
    single_label: bool,
    /// What a detection of an object marked difficult is: neither right nor wrong, as VOC defines it, or a false alarm
    #[arg(long, value_enum, default_value = "ignore")]
    difficult: Difficult,
    /// Measure the detections of this file instead of running a model: COCO results, or what detect -f json, jsonl or csv wrote
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "engine", "size", "square", "slice", "batch", "single_label"])]
    detections: Option<PathBuf>,
    /// Measure tracks in MOTChallenge's text (detect --track -f mot) instead: MOTA, IDF1, HOTA. DATASET is the truth then: gt.txt of a
    /// sequence, its folder, or a folder of them, with NAME.txt of each in the folder TRACKS
    #[arg(long, value_name = "TRACKS", conflicts_with_all = [
        "model", "engine", "size", "square", "threads", "batch", "conf", "iou", "nms", "max_det", "single_label", "difficult",
        "detections", "threshold", "split", "strict", "limit",
    ])]
    tracks: Option<PathBuf>,
    /// Only the first N images
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Draw precision against recall into this file (.png or .svg)
    #[cfg(feature = "plot")]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["threshold", "tracks"])]
    plot: Option<PathBuf>,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Difficult {
    /// As if neither the object nor its detection were there
    Ignore,
    /// As if only the object were not there
    FalseAlarm,
}

pub(super) fn run(arguments: EvalArguments) -> anyhow::Result<ExitCode> {
    if arguments.threshold {
        return thresholds(&arguments);
    }
    let [path] = &arguments.datasets[..] else {
        bail!("average precision and tracks are measured on one data set at a time; several are for --threshold");
    };
    if let Some(tracks) = &arguments.tracks {
        return super::print(&tracks::run(path, tracks, arguments.json)?);
    }
    let dataset = load(path, &arguments)?;
    let measured = measured(&arguments, &dataset)?;
    if measured.interrupted {
        report("yolo-lat: interrupted; nothing was measured");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    if arguments.strict && measured.failed > 0 {
        bail!("{} cannot be read, and --strict was given", count_of(measured.failed, "image"));
    }
    let evaluation = measured.evaluate(dataset.classes.len());
    if evaluation.per_class.is_empty() {
        bail!("{}: no labelled object is of a class that the model knows", path.display());
    }
    #[cfg(feature = "plot")]
    if let Some(path) = &arguments.plot {
        yolo_lat::eval::plot_precision_recall(path, &dataset.classes, &evaluation)?;
    }
    let text = if arguments.json {
        format!("{}\n", as_json(&dataset, &evaluation, &measured))
    } else {
        as_table(&dataset, &evaluation, &measured)
    };
    super::print(&text)?;
    Ok(if measured.failed > 0 || !dataset.faults.is_empty() { ExitCode::from(SOME_FAILED) } else { ExitCode::SUCCESS })
}

/// A line on standard error for each.
fn say_all(lines: &[impl std::fmt::Display]) {
    lines.iter().for_each(|line| report(&format!("yolo-lat: {line}")));
}

fn count_of(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// The labels that count.
fn load(path: &Path, arguments: &EvalArguments) -> anyhow::Result<Dataset> {
    let mut dataset = Dataset::load(path, arguments.split.as_deref().map_or(Split::Prefer("val"), Split::Only))?;
    dataset.truncate(arguments.limit.unwrap_or(usize::MAX));
    say_all(&dataset.notes);
    say_all(&dataset.faults);
    if arguments.strict && !dataset.faults.is_empty() {
        bail!("{}: {} at fault, and --strict was given", path.display(), count_of(dataset.faults.len(), "file"));
    }
    if dataset.images.is_empty() {
        bail!(
            "{}: no images in this data set{}",
            path.display(),
            if dataset.faults.is_empty() { "" } else { " whose labels are right" }
        );
    }
    dataset.check_labelled(path)?;
    if arguments.difficult == Difficult::FalseAlarm {
        dataset.images.iter_mut().for_each(|image| image.objects.retain(|object| !object.difficult));
    }
    Ok(dataset)
}

/// Precision and recall over thresholds instead of average precision.
fn thresholds(arguments: &EvalArguments) -> anyhow::Result<ExitCode> {
    if arguments.detections.is_some() && arguments.datasets.len() > 1 {
        bail!("--detections belong to one data set");
    }
    let mut curves = Vec::new();
    let mut failed = 0;
    for path in &arguments.datasets {
        let dataset = load(path, arguments)?;
        let measured = measured(arguments, &dataset)?;
        if measured.interrupted {
            report("yolo-lat: interrupted; nothing was measured");
            return Ok(ExitCode::from(INTERRUPTED));
        }
        failed += measured.failed + dataset.faults.len();
        curves.push(Curve::new(path, &measured));
    }
    let text = if arguments.json {
        format!("{}\n", threshold::as_json(&curves))
    } else {
        threshold::as_table(&curves, &arguments.engine.model)
    };
    super::print(&text)?;
    Ok(if failed > 0 { ExitCode::from(SOME_FAILED) } else { ExitCode::SUCCESS })
}

/// Detections from a file or of the model.
fn measured(arguments: &EvalArguments, dataset: &Dataset) -> anyhow::Result<Measured> {
    Ok(match &arguments.detections {
        Some(path) => {
            let results = read_results(path, dataset)?;
            say_all(&results.notes);
            Measured {
                detections: results.detections,
                objects: dataset.images.iter().map(|image| image.objects.clone()).collect(),
                ..Measured::default()
            }
        }
        None => detect_all(arguments, dataset)?,
    })
}

/// Runs the model on all images.
fn detect_all(arguments: &EvalArguments, dataset: &Dataset) -> anyhow::Result<Measured> {
    let runtime = arguments.engine.runtime()?;
    let (file, mut options) = arguments.engine.open()?;
    options.postprocess = PostprocessOptions {
        // No threshold below is tried.
        confidence: if arguments.threshold { LEAST_THRESHOLD } else { arguments.conf },
        iou: arguments.iou,
        max_detections: arguments.max_det,
        multi_label: !arguments.single_label && !arguments.threshold,
        ..options.postprocess
    };
    let name = &arguments.engine.model;
    let mut detector = Detector::new(&file, &runtime, &options)?;
    log::info!("{name} on {}", detector.description());
    let left_out = Correspondence::new(detector.classes(), &dataset.classes)?.left_out(dataset).join(", ");
    if !left_out.is_empty() {
        log::warn!("{name} lacks classes of the data set; their objects are left out: {left_out}");
    }
    let threads = runtime.threads();
    let feed = Feed { batch: arguments.engine.batch(threads), threads, stop: super::interrupt_flag()? };
    let progress = super::progress_bar(dataset.images.len(), arguments.quiet);
    let classes = detector.classes().to_vec();
    let mut inputs = BTreeMap::new();
    let detect = |images: &[&RgbImage]| {
        for image in images {
            *inputs.entry(detector.input_size(image.dimensions())).or_default() += 1;
        }
        detector.detections(images)
    };
    let measured = measure(&classes, detect, dataset, &feed, |path, error| {
        if let Some(error) = error {
            progress.suspend(|| report(&format!("yolo-lat: {}: {error}", path.display())));
        }
        progress.inc(1);
    })?;
    let measured = Measured { inputs, ..measured };
    progress.finish_and_clear();
    if measured.detections.is_empty() && !measured.interrupted {
        bail!("none of the images could be read");
    }
    Ok(measured)
}

/// Inputs that the network had, the most frequent first: `384x288`, and how many images.
fn inputs(measured: &Measured) -> Vec<(String, usize)> {
    let mut inputs: Vec<_> = measured.inputs.iter().map(|(&shape, &count)| (shape, count)).collect();
    inputs.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    inputs.into_iter().map(|((width, height), count)| (format!("{width}x{height}"), count)).collect()
}

fn as_json(dataset: &Dataset, evaluation: &Evaluation, measured: &Measured) -> serde_json::Value {
    let coco = &evaluation.coco;
    let per_class: Vec<_> = evaluation
        .per_class
        .iter()
        .map(|class| {
            json!({
                "name": dataset.classes[class.class], "ap50": percent(class.ap50),
                "ap50_95": percent(class.ap50_95), "objects": class.objects,
            })
        })
        .collect();
    let inputs = inputs(measured);
    json!({
        "images": measured.detections.len(),
        "map50": percent(evaluation.map50),
        "map50_voc07": percent(evaluation.map50_voc07),
        "map50_95": percent(coco.ap.unwrap_or(0.0)),
        "images_per_second": measured.images_per_second(),
        "inputs": inputs.into_iter().map(|(shape, count)| (shape, count.into())).collect::<serde_json::Map<_, _>>(),
        "coco": {
            "ap50": coco.ap50.map(percent), "ap75": coco.ap75.map(percent), "ap_small": coco.ap_small.map(percent),
            "ap_medium": coco.ap_medium.map(percent), "ap_large": coco.ap_large.map(percent), "ar100": coco.ar100.map(percent),
        },
        "per_class": per_class,
    })
}

fn as_table(dataset: &Dataset, evaluation: &Evaluation, measured: &Measured) -> String {
    let mut table = format!("{:<16} {:>8} {:>8} {:>8}\n", "class", "objects", "AP50", "AP50-95");
    // Writing to a String cannot fail.
    for class in &evaluation.per_class {
        let (ap50, ap50_95) = (100.0 * class.ap50, 100.0 * class.ap50_95);
        let _ = writeln!(table, "{:<16} {:>8} {ap50:>8.1} {ap50_95:>8.1}", dataset.classes[class.class], class.objects);
    }
    let coco = &evaluation.coco;
    let shown = |share: Option<f64>| share.map_or("-".into(), |share| format!("{:.1}", 100.0 * share));
    let _ = writeln!(
        table,
        "\nmAP50     {:.1}  (VOC, all points; 11 points: {:.1}; COCO, 101 points: {})",
        100.0 * evaluation.map50,
        100.0 * evaluation.map50_voc07,
        shown(coco.ap50)
    );
    let _ = writeln!(
        table,
        "mAP50-95  {}  (COCO; AP75 {}, small {}, medium {}, large {}, AR100 {})",
        shown(coco.ap),
        shown(coco.ap75),
        shown(coco.ap_small),
        shown(coco.ap_medium),
        shown(coco.ap_large),
        shown(coco.ar100)
    );
    let rate = measured.images_per_second().map(|rate| format!(", {rate:.1} images/s")).unwrap_or_default();
    let inputs: Vec<String> = inputs(measured).into_iter().map(|(shape, count)| format!("{shape} ({count})")).collect();
    let inputs = if inputs.is_empty() { String::new() } else { format!("; input {}", inputs.join(", ")) };
    let _ = writeln!(table, "{} images{rate}{inputs}", measured.detections.len());
    table
}
