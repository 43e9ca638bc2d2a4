//! `yolo-lat detect`: photographs in, detections out.
//!
//! Three stages overlap: workers load pictures ahead, this thread runs the network on batches, a writer exports in
//! input order. Queues between them are short, so memory does not grow with the number of inputs.

use std::collections::hash_map::DefaultHasher;
use std::ffi::OsString;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use clap::Args;
use image::RgbImage;
use indicatif::ProgressBar;
use yolo_lat::detector::StageTimes;
use yolo_lat::model::{Model, default_confidence};
use yolo_lat::postprocess::PostprocessOptions;
use yolo_lat::sink::{Item, NamedDetection, Record, Sink, SinkError, Timing, VideoFrame};
use yolo_lat::source::{FrameSource, Prefetch, VideoSource, display_name, holds_video, open_image};
use yolo_lat::{Detection, Detector, DetectorOptions, Frame};

use super::inputs::{Input, InputOptions, Inputs};
use super::journal::{Journal, JournalReader};
use super::options::{EngineArguments, find_classes, is_onnx, parse_share};
use super::profile::Profile;
use super::sinks::{Format, Outputs};
use super::{INTERRUPTED, SOME_FAILED, report};

#[derive(Args, Debug)]
pub(super) struct DetectArguments {
    /// Pictures, videos, folders, glob patterns, addresses (rtsp://, http://), or - for paths on standard input
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<OsString>,
    /// Look into sub-folders
    #[arg(short, long)]
    recursive: bool,
    /// Paths on standard input end with NUL (find -print0)
    #[arg(short = '0', long)]
    null: bool,

    #[command(flatten)]
    engine: EngineArguments,

    /// Least confidence of a detection, 0 to 1; default: the model's (`confidence` in its file), else 0.25
    #[arg(long, value_parser = parse_share)]
    conf: Option<f32>,
    /// Of two boxes of a class that overlap more than this (IoU), the less confident goes
    #[arg(long, default_value_t = 0.45, value_parser = parse_share)]
    iou: f32,
    /// Boxes do not vote for the more confident one that suppresses them: its confidence and corners stay the network's own.
    /// Those of other people's ONNX networks do not anyway (--merge)
    #[arg(long)]
    no_merge: bool,
    /// Most detections in a picture
    #[arg(long, default_value_t = 300, value_name = "N")]
    max_det: usize,
    /// Only these classes, by name, another word for it or number: person,sofa,16 (`yolo-lat classes` lists them)
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    classes: Vec<String>,
    /// Boxes of different classes suppress each other too
    #[arg(long)]
    agnostic_nms: bool,

    /// Write files into this folder, sub-folders of the inputs mirrored
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Format of the results; may be repeated with -o [default: text]
    #[arg(short, long, value_enum)]
    format: Vec<Format>,
    /// Write the pictures with boxes into DIR/images
    #[arg(long)]
    save_images: bool,
    /// Write each object into DIR/crops
    #[arg(long)]
    save_crops: bool,
    /// Draw boxes without names
    #[arg(long)]
    hide_labels: bool,
    /// Leave out timing_ms, so that results are equal from run to run
    #[arg(long)]
    no_timing: bool,
    /// Go on where an earlier run into the same folder stopped
    #[arg(long, requires = "output")]
    resume: bool,

    /// How long a network stream may give no picture: 10s, 1m
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Duration,

    /// Time every dispatch of the GPU: a table on standard error, and FILE for Perfetto or chrome://tracing
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,

    /// Stop at the first input that fails
    #[arg(long)]
    fail_fast: bool,
    /// No progress and no summary; with -o no text on standard output either
    #[arg(short, long)]
    quiet: bool,
    /// Name failed inputs on standard error as JSON: {"image", "error"}
    #[arg(long)]
    json_errors: bool,
}

/// A picture on its way from the loaders to the network.
enum Loaded {
    /// Decoded, with the time that took.
    Picture(Frame, Duration),
    /// Completed by an earlier run.
    Known(Record),
    /// Decoded frame by frame when its turn comes.
    Video(PathBuf),
    Failed(String),
}

/// A picture on its way from the network to the writer.
enum Outcome {
    Done(Record, Option<RgbImage>),
    /// Of a video that lasts so long, if it says so.
    Frame(Record, RgbImage, Option<Duration>),
    Failed(String),
}

pub(super) fn run(arguments: DetectArguments) -> anyhow::Result<ExitCode> {
    let outputs = Outputs {
        folder: arguments.output.clone(),
        formats: arguments.format.clone(),
        images: arguments.save_images,
        crops: arguments.save_crops,
        labels: !arguments.hide_labels,
        quiet: arguments.quiet,
    };
    outputs.validate()?;
    arguments.engine.devices.apply()?;
    let name = &arguments.engine.model;
    let model = if is_onnx(name) { None } else { Some(Model::load(name)?) };
    let mut options = DetectorOptions {
        engine: arguments.engine.kind(),
        size: arguments.engine.size()?,
        threads: arguments.engine.threads(),
        postprocess: PostprocessOptions {
            confidence: arguments.conf.unwrap_or_else(|| default_confidence(name)),
            iou: arguments.iou,
            max_detections: arguments.max_det,
            classes: None,
            agnostic: arguments.agnostic_nms,
            multi_label: false,
            merge: !arguments.no_merge,
        },
        attention: yolo_lat::detector::AttentionOptions::default(),
        onnx: arguments.engine.onnx()?,
    };
    let mut detector = match &model {
        Some(model) => Detector::new(model, &options)?,
        None => Detector::open_onnx(name.as_ref(), &options)?,
    };
    options.postprocess.classes = find_classes(&arguments.classes, detector.classes())?;
    detector.restrict_classes(options.postprocess.classes.clone());
    let except = arguments.output.clone();
    let input_options = InputOptions { recursive: arguments.recursive, null: arguments.null, except };
    let found = Inputs::find(&arguments.sources, &input_options)?;
    log::info!("{name} on {}, {} inputs", detector.description(), found.inputs.len());

    let settings = settings(name, model.as_ref(), &options, &outputs, arguments.no_timing)?;
    let mut journal = match &arguments.output {
        Some(folder) => Some(Journal::open(folder, &settings, arguments.resume)?),
        None => None,
    };
    let known = journal.as_mut().map(Journal::reader).transpose()?;
    let sinks = outputs.open()?;
    let known = known.map(|known| Known { known, sinks: outputs.per_picture() });

    let interrupted = super::interrupt_flag()?;
    let stop = interrupted.clone();
    let inputs = Arc::new(found.inputs);
    let count = inputs.len();
    let load = {
        let inputs = inputs.clone();
        move |index: usize| load(&inputs[index], index, known.as_ref())
    };
    let mut loader = Prefetch::new(count, options.threads, stop.clone(), load).context("cannot start threads")?;
    let (sender, receiver) = sync_channel(2 * arguments.engine.batch());
    let progress = super::progress_bar(count, arguments.quiet);
    let mut writer = Writer {
        inputs,
        sinks,
        journal,
        errors: Errors { progress: progress.clone(), json: arguments.json_errors, failed: 0 },
        progress,
        fail_fast: arguments.fail_fast,
        stop: stop.clone(),
        pipe_closed: false,
        written: 0,
        frames: 0,
        objects: 0,
    };
    for (path, reason) in &found.errors {
        writer.errors.failed(&path.to_string_lossy(), reason);
    }
    let mut profile = arguments.profile.as_ref().map(|file| Profile::start(file, &mut detector)).transpose()?;
    let start = Instant::now();
    let writer = std::thread::Builder::new().name("write".into()).spawn(move || writer.run(&receiver));
    let writer = writer.context("cannot start threads")?;
    loop {
        let batch = loader.next_batch(arguments.engine.batch());
        if batch.is_empty() || stop.load(Ordering::Relaxed) {
            break;
        }
        // Videos and pictures take their turns in the order of the inputs.
        let mut batch = batch.into_iter().peekable();
        while let Some((index, loaded)) = batch.next() {
            if let Loaded::Video(path) = &loaded {
                detect_video(&mut detector, index, path, &arguments, &stop, &sender)?;
                continue;
            }
            let mut pictures = vec![(index, loaded)];
            while let Some(next) = batch.next_if(|(_, loaded)| !matches!(loaded, Loaded::Video(_))) {
                pictures.push(next);
            }
            let begun = Instant::now();
            let outcomes = detect_batch(&mut detector, pictures, arguments.no_timing)?;
            if let (Some(profile), Some(gpu)) = (&mut profile, detector.gpu_engine()) {
                profile.add(begun, gpu)?;
            }
            for outcome in outcomes {
                if sender.send(outcome).is_err() {
                    break;
                }
            }
        }
    }
    drop(sender);
    let writer = writer.join().map_err(|_| anyhow::anyhow!("the writer failed; please report this"))?;
    if !arguments.quiet && !writer.pipe_closed {
        report(&writer.summary(start.elapsed(), arguments.output.as_deref()));
    }
    if let Some(profile) = &profile {
        report(profile.finish()?.trim_end());
    }
    Ok(if writer.pipe_closed {
        ExitCode::SUCCESS
    } else if writer.errors.failed > 0 {
        ExitCode::from(SOME_FAILED)
    } else if interrupted.load(Ordering::Relaxed) {
        ExitCode::from(INTERRUPTED)
    } else {
        ExitCode::SUCCESS
    })
}

/// Everything that results depend on, as one line: a journal made with other settings is not continued.
fn settings(
    name: &str,
    model: Option<&Model>,
    options: &DetectorOptions,
    outputs: &Outputs,
    no_timing: bool,
) -> anyhow::Result<String> {
    let mut hasher = DefaultHasher::new();
    if model.is_none() {
        std::fs::read(name)?.hash(&mut hasher);
    }
    for (name, tensor) in model.iter().flat_map(|model| model.weights.iter()) {
        name.hash(&mut hasher);
        tensor.values.iter().for_each(|value| value.to_bits().hash(&mut hasher));
    }
    let PostprocessOptions { confidence, iou, max_detections, classes, agnostic, merge, .. } = &options.postprocess;
    let settings = serde_json::json!({
        "yolo-lat": env!("CARGO_PKG_VERSION"), "model": model.map_or(name, |model| &model.config.name), "weights": hasher.finish(),
        "engine": options.engine.to_string(), "size": options.size.to_string(), "conf": confidence, "iou": iou,
        "max_det": max_detections, "classes": classes, "agnostic": agnostic, "merge": merge, "no_timing": no_timing,
        "labels": outputs.labels, "onnx": format!("{:?}", options.onnx),
    });
    Ok(serde_json::to_string(&settings)?)
}

/// What an earlier run completed, and where its files would be.
struct Known {
    known: JournalReader,
    sinks: Vec<Box<dyn Sink>>,
}

fn load(input: &Input, index: usize, known: Option<&Known>) -> Loaded {
    if let Some(known) = known
        && let Some(record) = known.known.find(&display_name(&input.path))
        && known.sinks.iter().all(|sink| sink.has(&input.stem))
    {
        return Loaded::Known(record);
    }
    if holds_video(&input.path) {
        return Loaded::Video(input.path.clone());
    }
    let start = Instant::now();
    match open_image(&input.path) {
        Ok(pixels) => {
            let frame = Frame { pixels, sequence: index as u64, captured_at: SystemTime::now() };
            Loaded::Picture(frame, start.elapsed())
        }
        Err(error) => Loaded::Failed(error.to_string()),
    }
}

/// Runs the network on the pictures of a batch; gives an outcome for each item, in order.
fn detect_batch(
    detector: &mut Detector,
    batch: Vec<(usize, Loaded)>,
    no_timing: bool,
) -> anyhow::Result<Vec<(usize, Outcome)>> {
    let pictures = batch.iter().filter_map(|(_, loaded)| match loaded {
        Loaded::Picture(frame, _) => Some(&frame.pixels),
        Loaded::Known(_) | Loaded::Failed(_) | Loaded::Video(_) => None,
    });
    let mut results = detector.detect_batch(&pictures.collect::<Vec<_>>())?.into_iter();
    let outcome = |loaded| match loaded {
        Loaded::Known(record) => Outcome::Done(record, None),
        Loaded::Failed(reason) => Outcome::Failed(reason),
        Loaded::Video(path) => Outcome::Failed(format!("{} is no picture", path.display())),
        Loaded::Picture(frame, decode) => match results.next() {
            Some((detections, times)) => {
                let timing = (!no_timing).then(|| timing(decode, times));
                Outcome::Done(record(detector, &frame, detections, timing), Some(frame.pixels))
            }
            None => Outcome::Failed("the engine gave no result".into()),
        },
    };
    let (indices, loaded): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
    Ok(indices.into_iter().zip(loaded.into_iter().map(outcome)).collect())
}

/// Every frame of a video, one after the other.
fn detect_video(
    detector: &mut Detector,
    index: usize,
    path: &Path,
    arguments: &DetectArguments,
    stop: &AtomicBool,
    sender: &SyncSender<(usize, Outcome)>,
) -> anyhow::Result<()> {
    let send = |outcome| sender.send((index, outcome)).is_ok();
    let mut video = match VideoSource::open(path, false) {
        Ok(video) => video,
        Err(error) => {
            send(Outcome::Failed(error.to_string()));
            return Ok(());
        }
    };
    video.set_timeout(arguments.timeout);
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        let frame = match video.next_frame(stop) {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(error) => {
                send(Outcome::Failed(error.to_string()));
                break;
            }
        };
        let decode = start.elapsed();
        for (detections, times) in detector.detect_batch(&[&frame.pixels])? {
            let timing = (!arguments.no_timing).then(|| timing(decode, times));
            let record = record(detector, &frame, detections, timing);
            let time_s = Some(video.time().as_secs_f64());
            let record = Record { frame: Some(frame.sequence), time_s, ..record };
            if !send(Outcome::Frame(record, frame.pixels.clone(), video.length())) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// A record whose name is filled in by the writer, which knows the inputs.
fn record(detector: &Detector, frame: &Frame, detections: Vec<Detection>, timing_ms: Option<Timing>) -> Record {
    let detections = detections.into_iter().map(|Detection { class, confidence, bbox }| NamedDetection {
        name: detector.class_name(class).to_owned(),
        class,
        confidence,
        bbox,
    });
    let (width, height) = (frame.width(), frame.height());
    Record {
        image: String::new(),
        frame: None,
        time_s: None,
        width,
        height,
        detections: detections.collect(),
        timing_ms,
    }
}

fn timing(decode: Duration, times: StageTimes) -> Timing {
    // Microseconds are as fine as these clocks mean anything.
    let ms = |time: Duration| time.as_micros() as f64 / 1e3;
    Timing {
        decode: ms(decode),
        preprocess: ms(times.preprocess),
        inference: ms(times.inference),
        postprocess: ms(times.postprocess),
    }
}

/// Names failed inputs on standard error, above the progress bar.
struct Errors {
    progress: ProgressBar,
    json: bool,
    failed: usize,
}

impl Errors {
    fn failed(&mut self, image: &str, reason: &str) {
        self.failed += 1;
        let line = if self.json {
            serde_json::json!({ "image": image, "error": reason }).to_string()
        } else {
            format!("yolo-lat: {image}: {reason}")
        };
        self.progress.suspend(|| report(&line));
    }
}

/// The last stage: exports in input order.
struct Writer {
    inputs: Arc<Vec<Input>>,
    sinks: Vec<Box<dyn Sink>>,
    journal: Option<Journal>,
    errors: Errors,
    progress: ProgressBar,
    fail_fast: bool,
    stop: Arc<AtomicBool>,
    pipe_closed: bool,
    written: usize,
    /// Of videos.
    frames: usize,
    objects: usize,
}

impl Writer {
    fn run(mut self, outcomes: &Receiver<(usize, Outcome)>) -> Self {
        for (index, outcome) in outcomes {
            let image = display_name(&self.inputs[index].path);
            let result = match outcome {
                Outcome::Failed(reason) => Err(reason),
                Outcome::Done(record, picture) => {
                    self.write(index, Record { image: image.clone(), ..record }, picture, None)
                }
                Outcome::Frame(record, picture, length) => {
                    let image = format!("{image}#{}", record.frame.unwrap_or_default());
                    self.write(index, Record { image, ..record }, Some(picture), length)
                }
            };
            if let Err(reason) = result {
                self.errors.failed(&image, &reason);
                if self.fail_fast {
                    self.stop.store(true, Ordering::Relaxed);
                    break;
                }
            }
            if self.pipe_closed {
                self.stop.store(true, Ordering::Relaxed);
                break;
            }
            self.progress.inc(1);
        }
        for mut sink in std::mem::take(&mut self.sinks) {
            if let Err(error) = sink.finish() {
                self.sink_failed(&error)
                    .unwrap_or_else(|reason| self.errors.failed(&error.path.to_string_lossy(), &reason));
            }
        }
        self.progress.finish_and_clear();
        self
    }

    /// Exports one picture; the journal learns of it when everything else is written.
    fn write(
        &mut self,
        index: usize,
        record: Record,
        picture: Option<RgbImage>,
        length: Option<Duration>,
    ) -> Result<(), String> {
        let is_new = picture.is_some();
        let own = self.inputs[index].stem.clone();
        let of_frame = record.frame.map(|frame| own.join(format!("{frame:06}")));
        let stem = of_frame.as_ref().unwrap_or(&own);
        let video = record.time_s.map(|time| VideoFrame { stem: &own, time: Duration::from_secs_f64(time), length });
        let item = Item { record: &record, video, stem, picture: picture.as_ref() };
        let mut sinks = std::mem::take(&mut self.sinks);
        let failed = sinks.iter_mut().find_map(|sink| sink.write(item).err());
        self.sinks = sinks;
        if let Some(error) = failed {
            return self.sink_failed(&error);
        }
        // A video is not resumed in its middle.
        if is_new
            && video.is_none()
            && let Some(journal) = &mut self.journal
        {
            journal.append(&record).map_err(|error| format!("{error:#}"))?;
        }
        // A video counts with its first frame.
        self.written += usize::from(record.frame.unwrap_or(0) == 0);
        self.frames += usize::from(record.frame.is_some());
        self.objects += record.detections.len();
        Ok(())
    }

    /// A reader that went away is no error.
    fn sink_failed(&mut self, error: &SinkError) -> Result<(), String> {
        if error.is_broken_pipe() {
            self.pipe_closed = true;
            return Ok(());
        }
        Err(error.to_string())
    }

    fn summary(&self, elapsed: Duration, output: Option<&Path>) -> String {
        let pictures = if self.frames > 0 { self.written + self.frames - 1 } else { self.written };
        let rate = pictures as f64 / elapsed.as_secs_f64().max(1e-9);
        let frames = if self.frames > 0 { format!(" ({} frames of videos)", self.frames) } else { String::new() };
        let failed = match self.errors.failed {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        };
        let place = output.map(|folder| format!(", results in {}", folder.display())).unwrap_or_default();
        let interrupted = if self.written + self.errors.failed < self.inputs.len() { ", stopped early" } else { "" };
        format!(
            "{} of {} images{frames}, {} objects, {rate:.1} images/s{failed}{interrupted}{place}",
            self.written,
            self.inputs.len(),
            self.objects
        )
    }
}
