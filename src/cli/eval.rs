//! `yolo-lat eval`: average precision on labelled photographs.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde_json::json;
use yolo_lat::eval::{Dataset, Evaluation, Object, evaluate, plot_precision_recall, read_coco_results};
use yolo_lat::model::Model;
use yolo_lat::postprocess::PostprocessOptions;
use yolo_lat::source::{Prefetch, open_image};
use yolo_lat::{Detection, Detector, DetectorOptions};

use super::options::{EngineArguments, is_onnx, parse_share};
use super::{INTERRUPTED, SOME_FAILED, report};

#[derive(Args, Debug)]
pub(super) struct EvalArguments {
    /// Labelled photographs: a COCO JSON file, or a COCO, VOC or YOLO folder
    #[arg(value_name = "DIR_OR_JSON")]
    dataset: PathBuf,

    #[command(flatten)]
    engine: EngineArguments,

    /// Least confidence of a detection, 0 to 1
    #[arg(long, default_value_t = 0.001, value_parser = parse_share)]
    conf: f32,
    /// Of two boxes of a class that overlap more than this (IoU), the less confident goes
    #[arg(long, default_value_t = 0.45, value_parser = parse_share)]
    iou: f32,
    /// Most detections in a picture
    #[arg(long, default_value_t = 300, value_name = "N")]
    max_det: usize,
    /// Only the best class of a cell counts, as `detect` gives it; by default a cell may report several classes, as
    /// detectors are customarily measured
    #[arg(long)]
    single_label: bool,
    /// What a detection of an object marked difficult is: neither right nor wrong, as VOC defines it, or a false alarm
    #[arg(long, value_enum, default_value = "ignore")]
    difficult: Difficult,
    /// Measure the detections of this COCO result file instead of running a model
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "engine", "size", "batch", "single_label"])]
    detections: Option<PathBuf>,
    /// Only the first N photographs
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Draw precision against recall into this file (.png or .svg)
    #[arg(long, value_name = "FILE")]
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

/// Detections of every photograph that could be read, and what that took.
struct Measured {
    detections: Vec<Vec<Detection>>,
    objects: Vec<Vec<Object>>,
    images_per_second: Option<f64>,
    failed: usize,
}

pub(super) fn run(arguments: EvalArguments) -> anyhow::Result<ExitCode> {
    let mut dataset = Dataset::load(&arguments.dataset)?;
    dataset.images.truncate(arguments.limit.unwrap_or(usize::MAX));
    if arguments.difficult == Difficult::FalseAlarm {
        dataset.images.iter_mut().for_each(|image| image.objects.retain(|object| !object.difficult));
    }
    if dataset.images.is_empty() {
        bail!("{}: no photographs in this data set", arguments.dataset.display());
    }
    let measured = match &arguments.detections {
        Some(path) => Measured {
            detections: read_coco_results(path, &dataset)?,
            objects: dataset.images.iter().map(|image| image.objects.clone()).collect(),
            images_per_second: None,
            failed: 0,
        },
        None => match detect_all(&arguments, &dataset)? {
            Some(measured) => measured,
            None => return Ok(ExitCode::from(INTERRUPTED)),
        },
    };
    let evaluation = evaluate(dataset.classes.len(), &measured.objects, &measured.detections);
    if let Some(path) = &arguments.plot {
        plot_precision_recall(path, &dataset.classes, &evaluation)?;
    }
    let text = if arguments.json {
        format!("{}\n", as_json(&dataset, &evaluation, &measured))
    } else {
        as_table(&dataset, &evaluation, &measured)
    };
    super::print(&text)?;
    Ok(if measured.failed > 0 { ExitCode::from(SOME_FAILED) } else { ExitCode::SUCCESS })
}

/// Runs the model on all photographs; `None` when interrupted. Classes are matched by name.
fn detect_all(arguments: &EvalArguments, dataset: &Dataset) -> anyhow::Result<Option<Measured>> {
    arguments.engine.devices.apply()?;
    let options = DetectorOptions {
        engine: arguments.engine.kind(),
        size: arguments.engine.size,
        threads: arguments.engine.threads(),
        postprocess: PostprocessOptions {
            confidence: arguments.conf,
            iou: arguments.iou,
            max_detections: arguments.max_det,
            multi_label: !arguments.single_label,
            ..PostprocessOptions::default()
        },
        attention: yolo_lat::detector::AttentionOptions::default(),
    };
    let name = &arguments.engine.model;
    let mut detector = if is_onnx(name) {
        Detector::open_onnx(name.as_ref(), &options)?
    } else {
        Detector::new(&Model::load(name)?, &options)?
    };
    let dataset_class =
        |name: &String| dataset.classes.iter().position(|class| common_name(class) == common_name(name));
    let class_of: Vec<Option<usize>> = detector.classes().iter().map(dataset_class).collect();
    if class_of.iter().all(Option::is_none) {
        let (known, found) = (detector.classes().join(", "), dataset.classes.join(", "));
        bail!("the model and the data set have no class in common\n  model: {known}\n  data set: {found}");
    }
    log::info!("{name} on {}", detector.description());
    let stop = super::interrupt_flag()?;
    let paths: Arc<Vec<PathBuf>> = Arc::new(dataset.images.iter().map(|image| image.path.clone()).collect());
    let load = {
        let paths = paths.clone();
        move |index: usize| open_image(&paths[index])
    };
    let mut loader = Prefetch::new(paths.len(), options.threads, stop.clone(), load).context("cannot start threads")?;
    let progress = super::progress_bar(paths.len(), arguments.quiet);
    let start = Instant::now();
    let mut measured = Measured { detections: Vec::new(), objects: Vec::new(), images_per_second: None, failed: 0 };
    loop {
        let batch = loader.next_batch(arguments.engine.batch());
        if stop.load(Ordering::Relaxed) {
            progress.suspend(|| report("yolo-lat: interrupted; nothing was measured"));
            return Ok(None);
        }
        if batch.is_empty() {
            break;
        }
        let mut pictures = Vec::new();
        for (index, picture) in &batch {
            match picture {
                Ok(picture) => {
                    pictures.push(picture);
                    measured.objects.push(dataset.images[*index].objects.clone());
                }
                Err(error) => {
                    measured.failed += 1;
                    progress.suspend(|| report(&format!("yolo-lat: {}: {error}", paths[*index].display())));
                }
            }
        }
        for (detections, _) in detector.detect_batch(&pictures)? {
            let in_dataset = |detection: Detection| Some(Detection { class: class_of[detection.class]?, ..detection });
            measured.detections.push(detections.into_iter().filter_map(in_dataset).collect());
        }
        progress.inc(batch.len() as u64);
    }
    progress.finish_and_clear();
    measured.images_per_second = Some(measured.detections.len() as f64 / start.elapsed().as_secs_f64());
    if measured.detections.is_empty() {
        bail!("none of the photographs could be read");
    }
    Ok(Some(measured))
}

/// PASCAL VOC and COCO call some things by different names.
fn common_name(name: &str) -> String {
    let name = name.to_lowercase();
    let names = [
        ("aeroplane", "airplane"),
        ("motorbike", "motorcycle"),
        ("pottedplant", "potted plant"),
        ("sofa", "couch"),
        ("tvmonitor", "tv"),
        ("diningtable", "dining table"),
    ];
    names.iter().find(|(voc, _)| *voc == name).map_or(name, |(_, coco)| (*coco).to_owned())
}

/// Percent with two decimals.
fn percent(share: f64) -> f64 {
    (share * 1e4).round() / 1e2
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
    json!({
        "images": measured.detections.len(),
        "map50": percent(evaluation.map50),
        "map50_voc07": percent(evaluation.map50_voc07),
        "map50_95": percent(coco.ap.unwrap_or(0.0)),
        "images_per_second": measured.images_per_second,
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
    let rate = measured.images_per_second.map(|rate| format!(", {rate:.1} images/s")).unwrap_or_default();
    let _ = writeln!(table, "{} images{rate}", measured.detections.len());
    table
}
