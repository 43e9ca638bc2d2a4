//! `yolo-lat detect`: photographs in, detections out.

mod arguments;
mod sinks;
mod summary;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use image::RgbImage;
use yolo_lat::batch::{BatchOptions, DetectFailure, Ending, Found, Journal, Known, Outlets, run_batch};
use yolo_lat::fingerprint::Fingerprint;
use yolo_lat::model::{Model, default_confidence};
use yolo_lat::postprocess::PostprocessOptions;
use yolo_lat::{Detector, DetectorOptions};

pub(super) use self::arguments::{DetectArguments, ResultArguments};
use self::sinks::{Outputs, Run};
use self::summary::Errors;
use super::inputs::{InputOptions, Inputs};
use super::options::{find_classes, is_onnx};
use super::profile::Profile;
use super::report;

pub(super) fn run(arguments: DetectArguments) -> anyhow::Result<ExitCode> {
    let outputs = Outputs::new(&arguments.results, arguments.course.quiet)?;
    arguments.engine.devices.apply()?;
    let (mut detector, settings) = open_detector(&arguments)?;
    let found = find_inputs(&arguments)?;
    log::info!("{} on {}, {} inputs", arguments.engine.model, detector.description(), found.inputs.len());

    let classes = detector.classes().to_vec();
    let run = Run { classes: &classes, model: &arguments.engine.model, inputs: &found.inputs };
    let categories = outputs.categories(&run)?;
    let folder = outputs.folder(&run)?;
    let (mut journal, mut known) = (None, None);
    if let Some(path) = &arguments.results.output {
        if arguments.results.resume {
            journal = Journal::resume(path, &settings)?;
        }
        if let Some(journal) = &mut journal {
            known = Some(Known { journal: journal.reader()?, sinks: outputs.per_picture(folder.as_ref(), &run) });
        } else {
            journal = Some(Journal::start(path, &settings)?);
        }
    }
    let sinks = outputs.open(folder.as_ref(), &run, categories)?;

    let mut profile = match &arguments.course.profile {
        Some(file) => Some(Profile::start(file, &mut detector)?),
        None => None,
    };
    let progress = super::progress_bar(found.inputs.len(), arguments.course.quiet);
    let errors = Errors { progress: progress.clone(), json: arguments.course.json_errors };
    for (path, reason) in &found.errors {
        errors.failed(Some(&path.to_string_lossy()), reason);
    }
    let options = BatchOptions {
        batch: arguments.engine.batch(),
        loaders: arguments.engine.threads(),
        classes: &classes,
        timing: !arguments.results.no_timing,
        stream_timeout: arguments.course.timeout,
        fail_fast: arguments.course.fail_fast,
        stop: super::interrupt_flag()?,
    };
    let mut detect = |images: &[&RgbImage]| detect(&mut detector, images, profile.as_mut());
    let outlets = Outlets { sinks, journal, known, observer: &mut |event| errors.hear(event) };
    let summary = run_batch(&found.inputs, &mut detect, outlets, &options).context("cannot start threads")?;
    progress.finish_and_clear();
    if let Some(folder) = &folder {
        folder.close();
    }
    if let Ending::Network(failure) = &summary.ending {
        errors.failed(None, failure);
    }
    if !arguments.course.quiet && summary.ending != Ending::ReaderGone {
        report(&summary::line(&summary, arguments.results.output.as_deref()));
    }
    if let Some(profile) = &profile {
        report(profile.finish()?.trim_end());
    }
    Ok(summary::exit_code(&summary, found.errors.len()))
}

/// The middle of the run: a batch of pictures through the detector.
fn detect(
    detector: &mut Detector,
    images: &[&RgbImage],
    profile: Option<&mut Profile>,
) -> Result<Vec<Found>, DetectFailure> {
    let start = Instant::now();
    let found = detector.detect_batch(images)?;
    if let (Some(profile), Some(gpu)) = (profile, detector.gpu_engine()) {
        profile.add(start, gpu)?;
    }
    let with_times = found.into_iter().map(|(detections, times)| Found {
        detections,
        preprocess: times.preprocess,
        inference: times.inference,
        postprocess: times.postprocess,
    });
    Ok(with_times.collect())
}

fn find_inputs(arguments: &DetectArguments) -> anyhow::Result<Inputs> {
    let except = arguments.results.output.clone();
    let options = InputOptions { recursive: arguments.input.recursive, null: arguments.input.null, except };
    Inputs::find(&arguments.input.sources, &options)
}

/// Makes the detector, and tells everything that results depend on: a journal made with other settings is not continued.
fn open_detector(arguments: &DetectArguments) -> anyhow::Result<(Detector, serde_json::Value)> {
    let limits = &arguments.limits;
    let name = &arguments.engine.model;
    let model = if is_onnx(name) { None } else { Some(Model::load(name)?) };
    let options = DetectorOptions {
        engine: arguments.engine.kind(),
        size: arguments.engine.size()?,
        threads: arguments.engine.threads(),
        postprocess: PostprocessOptions {
            confidence: limits.conf.unwrap_or_else(|| default_confidence(name)),
            iou: limits.iou,
            max_detections: limits.max_det,
            classes: None,
            agnostic: limits.agnostic_nms,
            multi_label: false,
            merge: !limits.no_merge,
        },
        attention: yolo_lat::detector::AttentionOptions::default(),
        onnx: arguments.engine.onnx()?,
    };
    let mut detector = match &model {
        Some(model) => Detector::new(model, &options)?,
        None => Detector::open_onnx(name.as_ref(), &options)?,
    };
    let classes = find_classes(&limits.classes, detector.classes())?;
    detector.restrict_classes(classes.clone());
    let mut weights = Fingerprint::default();
    match &model {
        Some(model) => {
            for (name, tensor) in model.weights.iter() {
                weights.add(name.as_bytes());
                tensor.values.iter().for_each(|value| weights.add(&value.to_bits().to_le_bytes()));
            }
        }
        None => weights.add(&std::fs::read(name)?),
    }
    let settings = serde_json::json!({
        "yolo-lat": env!("CARGO_PKG_VERSION"), "model": model.as_ref().map_or(name, |model| &model.config.name),
        "weights-fnv1a": weights.text(), "engine": options.engine.to_string(), "size": options.size.to_string(),
        "conf": options.postprocess.confidence.to_string(), "iou": limits.iou.to_string(), "max_det": limits.max_det, "classes": classes,
        "agnostic": limits.agnostic_nms, "merge": !limits.no_merge, "no_timing": arguments.results.no_timing,
        "labels": !arguments.results.hide_labels, "label_conf": arguments.results.label_conf, "onnx": format!("{:?}", options.onnx),
    });
    Ok((detector, settings))
}
