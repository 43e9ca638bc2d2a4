//! `yolo-lat live`: detections as they happen, in a window or as lines.

mod arguments;
mod lines;
mod statistics;

#[cfg(all(feature = "plot", feature = "video"))]
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::bail;
#[cfg(all(feature = "plot", feature = "video"))]
use yolo_lat::sink::{Annotator, VideoRecorder};
use yolo_lat::source::SourceRequest;
use yolo_lat::{ModelFile, Runtime};
use yolo_lat_app::live::{EngineStatus, LiveSession, Observer, Settings, SourceStatus, Turns};
#[cfg(feature = "window")]
use yolo_lat_app::window::{self, Preferences, WindowOptions};

pub(super) use self::arguments::LiveArguments;
use self::lines::Lines;
use self::statistics::Statistics;
use super::options::find_classes;
use super::{INTERRUPTED, SOME_FAILED, USAGE, report};

/// How often the end is looked for while no result comes.
const RESULT_TIMEOUT: Duration = Duration::from_millis(100);

pub(crate) fn run(arguments: LiveArguments) -> anyhow::Result<ExitCode> {
    let runtime = arguments.engine.runtime()?;
    let sources = arguments.sources()?;
    // What is wrong with a name is said before anything starts.
    let (file, mut detector) = arguments.engine.open()?;
    if let ModelFile::Native(model) = &file {
        find_classes(&arguments.limits.classes, &model.config.classes)?;
        arguments.limits.by_class.find(&model.config.classes)?;
    }
    detector.postprocess = arguments.limits.apply(detector.postprocess);
    let (model, classes) = (arguments.engine.model.clone(), arguments.limits.classes.clone());
    let mut follow = arguments.follow.options(!arguments.results.headless || arguments.watch.counts())?;
    arguments.watch.add_to(&mut follow)?;
    let by_class = &arguments.limits.by_class;
    let (class_confidence, least_size) = (by_class.class_confidence(), by_class.least_size());
    let settings = Settings { model, detector, classes, class_confidence, least_size, follow, probe: None };
    #[cfg(any(feature = "window", feature = "events"))]
    arguments.check_output()?;
    #[cfg(feature = "events")]
    let (watcher, statistics) = (arguments.watcher(&file, &settings.follow)?, arguments.results.statistics);
    #[cfg(feature = "events")]
    let observer = watcher.clone().map(|watcher| watcher as Arc<dyn Observer>);
    #[cfg(not(feature = "events"))]
    let observer = None;
    let code = if arguments.results.headless {
        headless(&arguments, sources, settings, runtime, observer)
    } else {
        window(arguments, sources, settings, runtime, observer)
    };
    #[cfg(feature = "events")]
    if let Some(watcher) = watcher {
        watcher.finish(statistics);
    }
    code
}

#[cfg(not(feature = "window"))]
fn window(
    _: LiveArguments,
    _: Vec<SourceRequest>,
    _: Settings,
    _: Runtime,
    _: Option<Arc<dyn Observer>>,
) -> anyhow::Result<ExitCode> {
    bail!("this build of yolo-lat has no window (feature \"window\"); --headless prints results without one")
}

#[cfg(feature = "window")]
fn window(
    arguments: LiveArguments,
    sources: Vec<SourceRequest>,
    settings: Settings,
    runtime: Runtime,
    observer: Option<Arc<dyn Observer>>,
) -> anyhow::Result<ExitCode> {
    let LiveArguments { engine, limits, follow, watch, .. } = &arguments;
    let use_remembered = engine.is_usual() && limits.is_usual() && follow.is_usual() && watch.is_usual();
    window::run(WindowOptions {
        sources,
        reading: arguments.reading.options(true),
        settings,
        runtime,
        use_remembered,
        preferences: Preferences::default_file(),
        output: arguments.results.output,
        drawing: arguments.results.draw.into(),
        zones_file: arguments.watch.config.or_else(Preferences::zones_file),
        observer,
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What becomes of the results of one source.
#[derive(Default)]
struct Outlet {
    results: u64,
    is_over: bool,
    #[cfg(all(feature = "plot", feature = "video"))]
    recorder: Option<VideoRecorder>,
    #[cfg(all(feature = "plot", feature = "video"))]
    annotator: Option<Annotator>,
}

/// Where an error ends the session, the videos are completed with what came before.
#[cfg(all(feature = "plot", feature = "video"))]
impl Drop for Outlet {
    fn drop(&mut self) {
        // The error that ended it is the one that is told.
        let _ = self.recorder.take().map(|recorder| recorder.finish(None));
    }
}

fn headless(
    arguments: &LiveArguments,
    sources: Vec<SourceRequest>,
    settings: Settings,
    runtime: Runtime,
    observer: Option<Arc<dyn Observer>>,
) -> anyhow::Result<ExitCode> {
    let results = &arguments.results;
    let interrupted = crate::interrupt_flag()?;
    let mut turns = Turns::new(sources.len());
    #[cfg(all(feature = "plot", feature = "video"))]
    let drawing = results.drawing(&settings.follow);
    let mut outlets: Vec<Outlet> = sources.iter().map(|_| Outlet::default()).collect();
    let mut lines = Lines::new(results.format, sources.len(), &settings.follow);
    let mut statistics = Statistics::of(sources.len());
    let mut live = LiveSession::start(sources, arguments.reading.options(true), settings, runtime, observer)?;
    let wanted = results.max_frames.unwrap_or(u64::MAX);
    let mut code = ExitCode::SUCCESS;
    loop {
        if interrupted.load(Ordering::Relaxed) {
            code = ExitCode::from(INTERRUPTED);
            break;
        }
        for (feed, outlet) in outlets.iter_mut().enumerate().filter(|(_, outlet)| !outlet.is_over) {
            let (source, slot) = (live.feeds()[feed].source(), live.feeds()[feed].results());
            match &*source {
                // It was never there: waiting for it is what a window is for.
                (SourceStatus::Lost { reason }, name) if live.feeds()[feed].frames().count() == 0 => {
                    report(&format!("yolo-lat: {name}: {reason}"));
                    code = ExitCode::from(SOME_FAILED);
                    outlet.is_over = true;
                }
                (status, _) if slot.is_closed() && turns.seen(feed) == slot.count() => {
                    if matches!(status, SourceStatus::Failed { .. }) {
                        code = ExitCode::from(SOME_FAILED);
                    }
                    outlet.is_over = true;
                }
                _ => outlet.is_over = outlet.results >= wanted,
            }
            if outlet.is_over {
                live.end_source(feed);
            }
        }
        if outlets.iter().all(|outlet| outlet.is_over) {
            break;
        }
        let Some(result) = live.next_result(&mut turns, RESULT_TIMEOUT) else {
            match &*live.engine() {
                EngineStatus::Failed { reason } => bail!("{reason}"),
                _ => continue,
            }
        };
        let outlet = &mut outlets[result.feed];
        if outlet.is_over {
            continue;
        }
        if statistics.results == 0
            && let EngineStatus::Ready { classes, .. } = &*live.engine()
        {
            // Those of an ONNX file are known only now.
            find_classes(&arguments.limits.classes, classes)?;
            arguments.limits.by_class.find(classes)?;
            #[cfg(feature = "events")]
            arguments.events.check(classes)?;
        }
        outlet.results += 1;
        statistics.add(&result);
        if !lines.write(&result)? {
            break;
        }
        #[cfg(all(feature = "plot", feature = "video"))]
        if let Some(path) = &results.save_video {
            let mut image = result.captured.frame.pixels.clone();
            let annotator = outlet.annotator.get_or_insert_with(|| Annotator::new(drawing.clone()));
            annotator.draw(&mut image, &result.detections, &result.counts);
            let recorder = match &mut outlet.recorder {
                Some(recorder) => recorder,
                None => {
                    let path = numbered(path, (live.feeds().len() > 1).then_some(result.feed + 1));
                    outlet.recorder.insert(VideoRecorder::start(&path, image.dimensions())?)
                }
            };
            recorder.push_taken_at(&image, result.captured.frame.captured_at)?;
        }
    }
    lines.finish()?;
    #[cfg(all(feature = "plot", feature = "video"))]
    for recorder in outlets.iter_mut().filter_map(|outlet| outlet.recorder.take()) {
        recorder.finish(None)?;
    }
    if results.statistics {
        report(&statistics.summary());
    }
    let none_was_there = live.feeds().iter().all(|feed| matches!(feed.source().0, SourceStatus::Lost { .. }));
    Ok(if none_was_there && statistics.results == 0 { ExitCode::from(USAGE) } else { code })
}

/// `boxes.mp4` as it is, or as `boxes-2.mp4`.
#[cfg(all(feature = "plot", feature = "video"))]
fn numbered(path: &Path, number: Option<usize>) -> PathBuf {
    let Some(number) = number else { return path.to_owned() };
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}-{number}.{extension}"))
}
