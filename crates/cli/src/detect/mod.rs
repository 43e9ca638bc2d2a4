//! `yolo-lat detect`: images in, detections out.

mod arguments;
mod sinks;
mod summary;

use std::borrow::Cow;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use image::RgbImage;
use yolo_lat::batch::{BatchOptions, Ending, Found, Journal, Known, Outlets, run_batch};
use yolo_lat::detector::StageTimes;
use yolo_lat::follow::FollowOptions;
use yolo_lat::postprocess::PostprocessOptions;
use yolo_lat::source::{Budget, holds_video};
use yolo_lat::{Detector, Runtime};

pub(super) use self::arguments::{DetectArguments, ResultArguments};
use self::sinks::{Format, Outputs, Run};
use self::summary::Errors;
use super::inputs::{InputOptions, Inputs};
use super::options::find_classes;
use super::profile::Profile;
use super::report;

pub(super) fn run(arguments: DetectArguments) -> anyhow::Result<ExitCode> {
    let outputs = Outputs::new(&arguments.results, arguments.course.quiet)?;
    let runtime = arguments.engine.runtime()?;
    let (mut detector, follow, settings) = open_detector(&arguments, &runtime)?;
    let found = find_inputs(&arguments)?;
    let has_videos = || found.inputs.iter().any(|input| holds_video(&input.path));
    if arguments.results.format.contains(&Format::Mot) && !has_videos() {
        bail!("-f mot is for videos, and there is none among the inputs");
    }
    if follow.track && !has_videos() {
        if follow.lines.is_empty() {
            bail!("--track follows objects through a video, and there is none among the inputs");
        }
        report("yolo-lat: --line counts objects through a video, and there is none among the inputs");
    }
    let mut inputs = Cow::from(&found.inputs);
    if let Some(shard) = arguments.input.shard {
        inputs = found.inputs.iter().filter(|input| shard.has(input)).cloned().collect();
        log::info!("shard {shard}: {} of {} inputs", inputs.len(), found.inputs.len());
    }
    log::info!("{} on {}, {} inputs", arguments.engine.model, detector.description(), inputs.len());

    let classes = detector.classes().to_vec();
    let run = Run { classes: &classes, model: &arguments.engine.model, inputs: &found.inputs, follow: &follow };
    let categories = outputs.categories(&run)?;
    let folder = outputs.folder(&run)?;
    let (mut journal, mut known) = (None, None);
    if let Some(path) = &arguments.results.output {
        if arguments.results.resume {
            journal = Journal::resume(path, &settings)?;
        }
        if let Some(journal) = &mut journal {
            known = Some(Known { journal: journal.reader()?, sinks: outputs.per_image(folder.as_ref(), &run) });
        } else {
            journal = Some(Journal::start(path, &settings)?);
        }
    }
    let sinks = outputs.open(folder.as_ref(), &run, categories)?;

    let mut profile = match &arguments.course.profile {
        Some(file) => Some(Profile::start(file, &mut detector)?),
        None => None,
    };
    let progress = super::progress_bar(inputs.len(), arguments.course.quiet);
    let errors = Errors { progress: progress.clone(), json: arguments.course.json_errors };
    for (path, reason) in &found.errors {
        errors.failed(Some(&path.to_string_lossy()), reason);
    }
    let options = BatchOptions {
        batch: arguments.engine.batch(runtime.threads()),
        loaders: runtime.threads(),
        memory: Budget::bytes_for(runtime.threads()),
        classes: &classes,
        follow: follow.clone(),
        timing: !arguments.results.no_timing,
        sources: arguments.input.reading.options(false),
        max_frames: arguments.input.max_frames.unwrap_or(u64::MAX),
        fail_fast: arguments.course.fail_fast,
        stop: super::interrupt_flag()?,
    };
    let mut detect = |images: &[&RgbImage]| {
        let start = Instant::now();
        let found = detector.detect_batch(images)?;
        if let Some(profile) = &mut profile {
            profile.add(start, &detector)?;
        }
        Ok(found.into_iter().map(with_times).collect())
    };
    let outlets = Outlets { sinks, journal, known, observer: &mut |event| errors.hear(event) };
    let summary = run_batch(&inputs, &mut detect, outlets, &options).context("cannot start threads")?;
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

fn with_times((detections, times): yolo_lat::detector::Found) -> Found {
    let StageTimes { preprocess, inference, postprocess } = times;
    Found { detections, preprocess, inference, postprocess }
}

fn find_inputs(arguments: &DetectArguments) -> anyhow::Result<Inputs> {
    let except = arguments.results.output.clone();
    let reading = &arguments.input.reading;
    let options = InputOptions { recursive: reading.recursive, null: reading.null, except };
    let found = Inputs::find(&arguments.input.sources, &options)?;
    if arguments.results.images.is_some() && found.inputs.iter().any(|input| input.contents.is_some()) {
        bail!("--images puts files into DIR, and the image on standard input is none");
    }
    Ok(found)
}

/// Makes the detector, and tells everything that results depend on: a journal made with other settings is not continued.
fn open_detector(
    arguments: &DetectArguments,
    runtime: &Runtime,
) -> anyhow::Result<(Detector, FollowOptions, serde_json::Value)> {
    let limits = &arguments.limits;
    let (file, mut options) = arguments.engine.open()?;
    options.postprocess = limits.apply(options.postprocess);
    let mut detector = Detector::new(&file, runtime, &options)?;
    let classes = find_classes(&limits.classes, detector.classes())?;
    let of_classes = limits.by_class.find(detector.classes())?;
    let mut follow = FollowOptions {
        confidence: options.postprocess.confidence,
        class_confidence: of_classes.confidence,
        least_size: of_classes.size,
        ..arguments.follow.options(arguments.watch.counts())?
    };
    arguments.watch.add_to(&mut follow)?;
    let postprocess = &options.postprocess;
    let confidence = follow.detector_confidence();
    detector.set_postprocess(PostprocessOptions { confidence, classes: classes.clone(), ..postprocess.clone() });
    #[cfg(feature = "ort")]
    let onnx = format!("{:?}", options.onnx);
    #[cfg(not(feature = "ort"))]
    let onnx = "";
    let settings = serde_json::json!({
        "yolo-lat": env!("CARGO_PKG_VERSION"), "model": file.name(),
        "weights-fnv1a": file.fingerprint()?.text(), "engine": options.engine.to_string(),
        "precision": options.precision.map(|precision| precision.to_string()),
        "usual_precision": file.usual_precision().to_string(),
        "size": options.size.to_string(),
        "slice": options.slices.to_string(),
        "conf": follow.confidence.to_string(), "class_conf": follow.class_confidence, "min_size": format!("{:?}", follow.least_size),
        "iou": postprocess.iou.to_string(), "max_det": postprocess.max_detections,
        "classes": classes, "agnostic": postprocess.agnostic, "nms": postprocess.nms.name(), "no_timing": arguments.results.no_timing,
        "track": follow.track, "smooth": follow.smooth, "zones": format!("{:?}", follow.zones),
        "lines": format!("{:?}", follow.lines),
        "drawing": format!("{:?}", arguments.results.drawing()), "label_conf": arguments.results.label_conf, "onnx": onnx,
        "shard": arguments.input.shard.map(|shard| shard.to_string()),
    });
    Ok((detector, follow, settings))
}
