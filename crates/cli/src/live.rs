//! `yolo-lat live`: detections as they happen, in a window or as lines.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use anyhow::bail;
use clap::{Args, ValueEnum};
use serde_json::json;
use yolo_lat::model::default_confidence;
use yolo_lat::postprocess::PostprocessOptions;
use yolo_lat::sink::{VideoRecorder, annotate};
use yolo_lat::source::{CameraRequest, FormatRequest, SourceRequest};
use yolo_lat::{DetectorOptions, Model};
use yolo_lat_app::live::{EngineStatus, Live, LiveResult, Settings, SourceStatus, percentile};
use yolo_lat_app::window::{self, Preferences, WindowOptions};

use super::options::{EngineArguments, find_classes, is_onnx, parse_share};
use super::{INTERRUPTED, SOME_FAILED, report};

const IOU: f32 = 0.45;

#[derive(Args, Debug)]
pub(super) struct LiveArguments {
    /// Where frames come from: auto (a camera, else the synthetic scene), synthetic, a video, picture or folder, an address
    /// (rtsp://, http://), or the number or device of a camera
    #[arg(long, default_value = "auto", value_name = "SOURCE", conflicts_with = "camera")]
    source: String,
    /// A camera by number, path or a part of its name (`yolo-lat cameras` lists them)
    #[arg(long, value_name = "CAMERA")]
    camera: Option<String>,
    /// The only format to try: 640x480@30,mjpeg (kinds: mjpeg, yuyv, nv12, rgb, bgr, grey)
    #[arg(long, value_name = "FORMAT", requires = "camera")]
    camera_format: Option<FormatRequest>,
    /// How long a network stream may give no picture: 10s, 1m
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Duration,

    #[command(flatten)]
    engine: EngineArguments,

    /// Least confidence of a detection, 0 to 1; default: the model's (`confidence` in its file), else 0.25
    #[arg(long, value_parser = parse_share)]
    conf: Option<f32>,
    /// Of two boxes of a class that overlap more than this (IoU), the less confident goes
    #[arg(long, default_value_t = IOU, value_parser = parse_share)]
    iou: f32,
    /// Boxes do not vote for the more confident one that suppresses them: its confidence and corners stay the network's own.
    /// Those of other people's ONNX networks do not anyway (--merge)
    #[arg(long)]
    no_merge: bool,
    /// Only these classes, by name, another word for it or number: person,sofa,16 (`yolo-lat classes` lists them)
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    classes: Vec<String>,

    /// Snapshots and recordings of the window go into this folder; default: your pictures
    #[arg(short, long, value_name = "DIR", conflicts_with = "headless")]
    output: Option<PathBuf>,

    /// No window: results on standard output
    #[arg(long)]
    headless: bool,
    /// End after so many results (with --headless)
    #[arg(long, value_name = "N", requires = "headless")]
    frames: Option<u64>,
    /// Form of the results (with --headless)
    #[arg(long, value_enum, default_value = "text", requires = "headless")]
    format: LiveFormat,
    /// Write the frames with their boxes into a video (needs ffmpeg)
    #[arg(long, value_name = "FILE", requires = "headless")]
    save_video: Option<PathBuf>,
    /// Print percentiles of ages and the growth of memory at the end (with --headless)
    #[arg(long, requires = "headless")]
    statistics: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LiveFormat {
    /// A readable line a frame
    Text,
    /// One JSON object a line
    Jsonl,
}

pub(super) fn run(arguments: LiveArguments) -> anyhow::Result<ExitCode> {
    arguments.engine.devices.apply()?;
    let source = match &arguments.camera {
        Some(camera) => {
            SourceRequest::Camera(CameraRequest { device: camera.clone(), format: arguments.camera_format })
        }
        None => match arguments.source.parse() {
            Ok(SourceRequest::Url { url, .. }) => SourceRequest::Url { url, timeout: arguments.timeout },
            Ok(source) => source,
            Err(reason) => bail!("--source {}: {reason}", arguments.source),
        },
    };
    if !is_onnx(&arguments.engine.model) {
        // What is wrong with a name is said before anything starts.
        let model = Model::load(&arguments.engine.model)?;
        find_classes(&arguments.classes, &model.config.classes)?;
    }
    let settings = Settings {
        model: arguments.engine.model.clone(),
        detector: DetectorOptions {
            engine: arguments.engine.kind(),
            size: arguments.engine.size()?,
            threads: usize::from(arguments.engine.threads),
            postprocess: PostprocessOptions {
                confidence: arguments.conf.unwrap_or_else(|| default_confidence(&arguments.engine.model)),
                iou: arguments.iou,
                merge: !arguments.no_merge,
                ..PostprocessOptions::default()
            },
            onnx: arguments.engine.onnx()?,
            ..DetectorOptions::default()
        },
        classes: arguments.classes.clone(),
        probe: None,
    };
    if arguments.headless {
        return headless(&arguments, source, settings);
    }
    let usual = arguments.engine.is_usual() && arguments.classes.is_empty();
    window::run(WindowOptions {
        source,
        settings,
        use_remembered: usual && arguments.conf.is_none() && arguments.iou == IOU,
        preferences: Preferences::default_file(),
        output: arguments.output,
    })?;
    Ok(ExitCode::SUCCESS)
}

fn headless(arguments: &LiveArguments, source: SourceRequest, settings: Settings) -> anyhow::Result<ExitCode> {
    let interrupted = super::interrupt_flag()?;
    let live = Live::start(source, settings, None)?;
    let mut seen = 0;
    let mut printed = 0;
    let mut recorder: Option<VideoRecorder> = None;
    let mut statistics = Statistics::default();
    let wanted = arguments.frames.unwrap_or(u64::MAX);
    let mut code = ExitCode::SUCCESS;
    while printed < wanted {
        if interrupted.load(Ordering::Relaxed) {
            code = ExitCode::from(INTERRUPTED);
            break;
        }
        let Some((result, count)) = live.results().wait_newer(seen, Duration::from_millis(100)) else {
            match (live.source().0, live.engine()) {
                (_, EngineStatus::Failed { reason }) => bail!("{reason}"),
                // It was never there: waiting for it is what a window is for.
                (SourceStatus::Lost { reason }, _) if seen == 0 => bail!("{reason}"),
                (SourceStatus::Failed { .. }, _) => {
                    code = ExitCode::from(SOME_FAILED);
                    break;
                }
                _ if live.results().is_closed() => break,
                _ => continue,
            }
        };
        if seen == 0
            && let EngineStatus::Ready { classes, .. } = live.engine()
        {
            // Those of an ONNX file are known only now.
            find_classes(&arguments.classes, &classes)?;
        }
        seen = count;
        printed += 1;
        statistics.add(&result);
        let line = match arguments.format {
            LiveFormat::Jsonl => as_json(&result, &live.source().1),
            LiveFormat::Text => as_text(&result),
        };
        let mut output = std::io::stdout().lock();
        match writeln!(output, "{line}").and_then(|()| output.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => break,
            written => written?,
        }
        drop(output);
        if let Some(path) = &arguments.save_video {
            let mut picture = result.captured.frame.pixels.clone();
            annotate(&mut picture, &result.detections, true);
            let recorder = match &mut recorder {
                Some(recorder) => recorder,
                None => recorder.insert(VideoRecorder::start(path, picture.dimensions())?),
            };
            recorder.push_taken_at(&picture, result.captured.frame.captured_at)?;
        }
    }
    if let Some(recorder) = recorder {
        recorder.finish(None)?;
    }
    if arguments.statistics {
        report(&statistics.summary());
    }
    Ok(code)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

fn age(result: &LiveResult) -> Duration {
    SystemTime::now().duration_since(result.captured.frame.captured_at).unwrap_or_default()
}

fn as_json(result: &LiveResult, source: &str) -> String {
    let frame = &result.captured.frame;
    let times = result.times;
    json!({
        "frame": frame.sequence, "captured_at": humantime::format_rfc3339_millis(frame.captured_at).to_string(),
        "age_ms": milliseconds(age(result)), "width": frame.width(), "height": frame.height(),
        "detections": result.detections, "skipped": result.skipped, "engine": result.engine, "source": source,
        "timing_ms": {
            "capture": milliseconds(result.captured.capture), "preprocess": times.preprocess.map(milliseconds),
            "inference": milliseconds(times.inference), "postprocess": times.postprocess.map(milliseconds),
        },
    })
    .to_string()
}

fn as_text(result: &LiveResult) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for detection in &result.detections {
        match counts.iter_mut().find(|(name, _)| *name == detection.name) {
            Some((_, count)) => *count += 1,
            None => counts.push((&detection.name, 1)),
        }
    }
    let found: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
    let frame = &result.captured.frame;
    format!(
        "frame {}: {}x{} {found}, network {:.1} ms, age {:.1} ms",
        frame.sequence,
        frame.width(),
        frame.height(),
        milliseconds(result.times.inference),
        milliseconds(age(result))
    )
}

/// Ages of results, order of frames, and memory.
#[derive(Default)]
struct Statistics {
    started: Option<Instant>,
    /// Milliseconds, of the last results.
    ages: std::collections::VecDeque<f64>,
    results: u64,
    skipped: u64,
    last: Option<u64>,
    out_of_order: u64,
    /// Bytes after the warm-up.
    warm: Option<u64>,
}

impl Statistics {
    /// Results after which everything is in place.
    const WARM_UP: u64 = 100;
    /// Ages that are kept.
    const AGES: usize = 100_000;

    fn add(&mut self, result: &LiveResult) {
        self.started.get_or_insert_with(Instant::now);
        if self.ages.len() == Self::AGES {
            self.ages.pop_front();
        }
        self.ages.push_back(milliseconds(age(result)));
        self.results += 1;
        self.skipped += result.skipped;
        let sequence = result.captured.frame.sequence;
        self.out_of_order += u64::from(self.last.is_some_and(|last| sequence <= last));
        self.last = Some(sequence);
        if self.results == Self::WARM_UP {
            self.warm = super::resident_bytes();
        }
    }

    fn summary(&self) -> String {
        let seconds = self.started.map_or(0.0, |started| started.elapsed().as_secs_f64());
        let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|share| percentile(self.ages.iter().copied().collect(), share));
        let growth = self.warm.zip(super::resident_bytes()).map(|(warm, now)| now as f64 - warm as f64);
        let growth = growth.map_or("not measured".into(), |bytes| format!("{:.2} MB", bytes / 1e6));
        format!(
            "{} results in {seconds:.1} s, {} frames skipped, {} out of order; age p50 {p50:.1}, p90 {p90:.1}, p99 {p99:.1} ms; \
             memory grew by {growth} after the first {}",
            self.results,
            self.skipped,
            self.out_of_order,
            Self::WARM_UP
        )
    }
}
