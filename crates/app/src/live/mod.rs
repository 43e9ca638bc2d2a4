//! Live detection: a capture thread a source, an inference worker, and slots between them that hold only the newest.
//!
//! ```text
//! capture -> latest frame -> inference worker -> latest result -> window or command line
//! capture -> latest frame -^                \-> latest result -^
//! ```
//!
//! No thread waits for a slower one. Nothing joins a thread that a driver may hold: a session ends at once.

mod slot;
mod stats;
mod worker;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

pub use self::slot::{Latest, Turns};
pub use self::stats::{History, Sample, percentile};
use yolo_lat::detector::{DetectorOptions, StageTimes};
#[cfg(feature = "window")]
use yolo_lat::engine::gpu::Gpu;
use yolo_lat::geometry::Letterbox;
use yolo_lat::{AttentionView, Runtime};
use yolo_lat_io::follow::FollowOptions;
use yolo_lat_io::frame::Frame;
use yolo_lat_io::sink::NamedDetection;
use yolo_lat_io::source::{Source, SourceError, SourceOptions, SourceRequest, open_source};
use yolo_lat_io::zones::{Counts, LeastSize};

/// Messages kept for the window.
const EVENTS: usize = 200;
/// Pauses between two attempts to get a source back.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(2);
/// A source that is lost again before it has given frames for so long is not told of again.
const STEADY: Duration = Duration::from_secs(10);
/// What a source gets to end a process that it started.
const LAST_MOMENT: Duration = Duration::from_millis(300);

/// A frame with what its capture took.
#[derive(Debug)]
pub struct Captured {
    /// The image.
    pub frame: Frame,
    /// Which of the session's sources it is of, from 1.
    pub source: u64,
    /// What that calls itself.
    pub name: String,
    /// Reading and decoding it, without waiting for its time.
    pub capture: Duration,
    /// When it was there.
    pub at: Instant,
}

/// A frame that the window brought to its GPU: it is shown and looked at without another copy.
pub struct Uploaded {
    /// The frame.
    pub captured: Arc<Captured>,
    /// Which of its source's frames, counted by the slot.
    pub count: u64,
    /// The same pixels.
    pub texture: Texture,
}

/// An image on the window's GPU.
#[cfg(feature = "window")]
pub type Texture = Arc<wgpu::Texture>;
/// Without a window there is none.
#[cfg(not(feature = "window"))]
pub type Texture = std::convert::Infallible;

/// Where attention is looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Probe {
    /// Layer by its number in the order of execution.
    pub layer: usize,
    /// In image pixels.
    pub point: (f32, f32),
}

/// What the worker found in a frame.
#[derive(Debug)]
pub struct LiveResult {
    /// Number of the source, from 0.
    pub feed: usize,
    /// The frame.
    pub captured: Arc<Captured>,
    /// By falling confidence, in image pixels.
    pub detections: Vec<NamedDetection>,
    /// Of each line, how many objects have crossed it so far.
    pub counts: Counts,
    /// How the image lies in the network's input.
    pub letterbox: Letterbox,
    /// Of the detector.
    pub times: StageTimes,
    /// Frames that came and went while the worker was busy.
    pub skipped: u64,
    /// What computed it.
    pub engine: String,
    /// When it was there.
    pub at: Instant,
    /// If attention is probed.
    pub attention: Option<AttentionView>,
}

/// Everything that can be changed while it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Name or path of the model.
    pub model: String,
    /// Engine, size, limits, changes of the attention.
    pub detector: DetectorOptions,
    /// The classes that are reported, as [`find_class`](yolo_lat::model::classes::find_class) reads them; empty for all.
    pub classes: Vec<String>,
    /// Least confidences of single classes, by name.
    pub class_confidence: Vec<(String, f32)>,
    /// Least sizes, by the names of classes; `None` for all that have none of their own.
    pub least_size: Vec<(Option<String>, LeastSize)>,
    /// What is reported of the detections; its least confidence is the detector's, its limits of classes are those above.
    pub follow: FollowOptions,
    /// Where attention is looked at.
    pub probe: Option<Probe>,
}

/// What the source does.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum SourceStatus {
    /// Being opened.
    #[default]
    Starting,
    /// Frames come.
    Running,
    /// It failed and is tried again.
    Lost {
        /// Why.
        reason: String,
    },
    /// It failed for good.
    Failed {
        /// Why.
        reason: String,
    },
    /// It has no more frames.
    Ended,
}

/// What the detector does.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum EngineStatus {
    /// Being made.
    #[default]
    Loading,
    /// It works; what it is, its classes, and its attention layers' names and heads.
    Ready {
        /// For people.
        description: String,
        /// Names of all classes.
        classes: Vec<String>,
        /// Name and heads of each attention layer.
        layers: Vec<(String, usize)>,
    },
    /// It cannot be made; an earlier one goes on if there was one.
    Failed {
        /// Why.
        reason: String,
    },
}

/// A message for people.
#[derive(Clone, Debug)]
pub struct Event {
    /// When.
    pub at: SystemTime,
    /// Whether something went wrong.
    pub is_error: bool,
    /// One line.
    pub line: String,
}

/// One of the sources of a session, with slots of its own.
#[derive(Default)]
pub struct Feed {
    frames: Latest<Captured>,
    uploaded: Latest<Uploaded>,
    results: Latest<LiveResult>,
    source: Mutex<Arc<(SourceStatus, String)>>,
}

impl Feed {
    /// The newest frames.
    pub fn frames(&self) -> &Latest<Captured> {
        &self.frames
    }

    /// The newest results.
    pub fn results(&self) -> &Latest<LiveResult> {
        &self.results
    }

    /// What the source does, and its name.
    pub fn source(&self) -> Arc<(SourceStatus, String)> {
        lock(&self.source).clone()
    }

    fn set_source(&self, status: SourceStatus, name: &str) {
        let mut now = lock(&self.source);
        if now.0 != status || now.1 != name {
            *now = Arc::new((status, name.to_owned()));
        }
    }
}

/// Is told what a session finds, in the worker's thread, which it may not hold up.
pub trait Observer: Send + Sync {
    /// Names of the classes of the results that follow.
    fn classes(&self, classes: &[String]);

    /// A result.
    fn result(&self, result: &Arc<LiveResult>);

    /// Messages for people since the last time: whether something went wrong, and a line.
    fn notes(&self) -> Vec<(bool, String)>;
}

/// What all threads of a session see.
#[derive(Default)]
struct Shared {
    observer: Option<Arc<dyn Observer>>,
    feeds: Vec<Feed>,
    /// The feed that the window shows.
    shown: AtomicUsize,
    /// Rung when a frame has come, or a result.
    frame_came: Latest<()>,
    result_came: Latest<()>,
    settings: Mutex<Option<Settings>>,
    /// Rises with every change of the settings.
    version: AtomicU64,
    engine: Mutex<Arc<EngineStatus>>,
    events: Mutex<VecDeque<Arc<Event>>>,
    paused: AtomicBool,
    stop: AtomicBool,
    /// The worker takes uploaded frames instead of pixels.
    takes_textures: AtomicBool,
    /// The window's device.
    #[cfg(feature = "window")]
    gpu: Option<Arc<Gpu>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn event(&self, is_error: bool, line: String) {
        if is_error {
            log::warn!("{line}");
        } else {
            log::info!("{line}");
        }
        self.keep(is_error, line);
    }

    /// A message for the window alone.
    fn keep(&self, is_error: bool, line: String) {
        let mut events = lock(&self.events);
        if events.len() == EVENTS {
            events.pop_front();
        }
        events.push_back(Arc::new(Event { at: SystemTime::now(), is_error, line }));
    }

    fn set_engine(&self, status: EngineStatus) {
        *lock(&self.engine) = Arc::new(status);
    }
}

/// A running session.
pub struct LiveSession {
    shared: Arc<Shared>,
    options: SourceOptions,
    /// Of each feed.
    captures: Vec<Capture>,
    /// Sources so far.
    sources: u64,
}

/// The thread that reads a source.
#[derive(Default)]
struct Capture {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl LiveSession {
    /// Starts capturing from all `sources` and detecting; `observer` is told what is found.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn start(
        sources: Vec<SourceRequest>,
        options: SourceOptions,
        settings: Settings,
        runtime: Runtime,
        observer: Option<Arc<dyn Observer>>,
    ) -> std::io::Result<Self> {
        Self::begin(sources, options, settings, runtime, Shared { observer, ..Shared::default() })
    }

    /// The same with a window, on whose device the network runs where one is given.
    #[cfg(feature = "window")]
    pub(crate) fn start_in_window(
        sources: Vec<SourceRequest>,
        options: SourceOptions,
        settings: Settings,
        runtime: Runtime,
        observer: Option<Arc<dyn Observer>>,
        gpu: Option<Arc<Gpu>>,
    ) -> std::io::Result<Self> {
        let runtime = gpu.as_ref().map_or_else(|| runtime.clone(), |gpu| runtime.with_gpu(gpu.clone()));
        Self::begin(sources, options, settings, runtime, Shared { observer, gpu, ..Shared::default() })
    }

    fn begin(
        sources: Vec<SourceRequest>,
        options: SourceOptions,
        settings: Settings,
        runtime: Runtime,
        shared: Shared,
    ) -> std::io::Result<Self> {
        let feeds = sources.iter().map(|_| Feed::default()).collect();
        let shared = Arc::new(Shared { feeds, settings: Mutex::new(Some(settings)), ..shared });
        let worker = shared.clone();
        std::thread::Builder::new().name("inference".into()).spawn(move || worker::run(&worker, &runtime))?;
        let captures = sources.iter().map(|_| Capture::default()).collect();
        let mut live = Self { shared, options, captures, sources: 0 };
        for (feed, source) in sources.into_iter().enumerate() {
            live.set_source(feed, source)?;
        }
        Ok(live)
    }

    /// Changes the source of a feed; the old one's thread ends when its driver lets it.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn set_source(&mut self, feed: usize, request: SourceRequest) -> std::io::Result<()> {
        self.captures[feed].stop.store(true, Ordering::Relaxed);
        let stop = Arc::new(AtomicBool::new(false));
        self.shared.feeds[feed].set_source(SourceStatus::Starting, &request.to_string());
        self.sources += 1;
        let number = self.sources;
        let (shared, stopped, options) = (self.shared.clone(), stop.clone(), self.options);
        let run = move || capture(&shared, (feed, number), &request, &options, &stopped);
        let thread = std::thread::Builder::new().name(format!("capture {feed}")).spawn(run)?;
        self.captures[feed] = Capture { stop, thread: Some(thread) };
        Ok(())
    }

    /// No more frames of a feed are wanted.
    pub fn end_source(&mut self, feed: usize) {
        self.captures[feed].stop.store(true, Ordering::Relaxed);
        self.shared.feeds[feed].frames.close();
    }

    /// Says which feed the window shows: its frames are brought to the GPU by the window.
    pub fn show(&self, feed: usize) {
        self.shared.shown.store(feed, Ordering::Relaxed);
    }

    /// All sources, in the order given.
    pub fn feeds(&self) -> &[Feed] {
        &self.shared.feeds
    }

    /// The next result that `turns` has not seen, of any feed; waits up to `patience` for it.
    pub fn next_result(&self, turns: &mut Turns, patience: Duration) -> Option<Arc<LiveResult>> {
        let newer = |feed: usize, seen| self.shared.feeds[feed].results.newer(seen);
        turns.next(&self.shared.result_came, patience, newer).map(|(_, result, _)| result)
    }

    /// Changes what the worker does from the next frame on.
    pub fn set_settings(&self, settings: Settings) {
        let mut current = lock(&self.shared.settings);
        if current.as_ref() != Some(&settings) {
            *current = Some(settings);
            self.shared.version.fetch_add(1, Ordering::Release);
        }
    }

    /// Stops taking frames, or goes on.
    pub fn set_paused(&self, paused: bool) {
        self.shared.paused.store(paused, Ordering::Relaxed);
    }

    /// Whether the worker reads the shown feed's frames from the window's GPU: then they must be given to [`LiveSession::put_uploaded`].
    pub fn takes_textures(&self) -> bool {
        self.shared.takes_textures.load(Ordering::Relaxed)
    }

    /// A frame of the shown feed that is on the GPU.
    pub fn put_uploaded(&self, uploaded: Uploaded) {
        self.shared.feeds[self.shared.shown.load(Ordering::Relaxed)].uploaded.put(Arc::new(uploaded));
        self.shared.frame_came.put(Arc::default());
    }

    /// What the detector does.
    pub fn engine(&self) -> Arc<EngineStatus> {
        lock(&self.shared.engine).clone()
    }

    /// The last messages, oldest first.
    pub fn events(&self) -> Vec<Arc<Event>> {
        lock(&self.shared.events).iter().cloned().collect()
    }

    /// The newest message.
    pub fn last_event(&self) -> Option<Arc<Event>> {
        lock(&self.shared.events).back().cloned()
    }

    /// Adds a message, to the log too.
    pub fn note(&self, is_error: bool, line: impl Into<String>) {
        self.shared.event(is_error, line.into());
    }
}

impl Drop for LiveSession {
    /// Tells the threads to end. Sources have a moment to end processes of their own; no longer: a driver may hold one.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.captures.iter().for_each(|capture| capture.stop.store(true, Ordering::Relaxed));
        let until = Instant::now() + LAST_MOMENT;
        let is_busy = |capture: &Capture| capture.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        while Instant::now() < until && self.captures.iter().any(is_busy) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The capture thread of a feed's source, the session's `number`th.
fn capture(
    shared: &Shared,
    (feed, number): (usize, u64),
    request: &SourceRequest,
    options: &SourceOptions,
    stop: &AtomicBool,
) {
    let feed = &shared.feeds[feed];
    // Opened here, since a driver may take its time.
    let mut source = match open_source(request, options) {
        Ok(source) => source,
        Err(error) => return failed(shared, feed, &request.to_string(), &error, stop),
    };
    let mut retry = FIRST_RETRY;
    // Since when frames come; whether a loss was told, and whether it was the present one.
    let (mut since, mut told, mut is_told) = (Instant::now(), false, false);
    feed.set_source(SourceStatus::Starting, &source.description());
    while !stop.load(Ordering::Relaxed) {
        if shared.paused.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        }
        let is_lost = matches!(feed.source().0, SourceStatus::Lost { .. });
        match next(&mut *source, number, stop) {
            Ok(Some(captured)) => {
                // Another source may have taken over meanwhile.
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                if is_lost {
                    since = Instant::now();
                    if is_told {
                        shared.event(false, format!("{}: frames come again", source.description()));
                    }
                }
                feed.set_source(SourceStatus::Running, &captured.name);
                feed.frames.put(Arc::new(captured));
                shared.frame_came.put(Arc::default());
                retry = FIRST_RETRY;
            }
            Ok(None) => {
                if !stop.load(Ordering::Relaxed) {
                    feed.set_source(SourceStatus::Ended, &source.description());
                    feed.frames.close();
                    shared.frame_came.put(Arc::default());
                }
                return;
            }
            Err(error) if source.can_recover() => {
                let reason = error.to_string();
                if !is_lost {
                    is_told = !told || since.elapsed() >= STEADY;
                    told = true;
                    let line = format!("{}: {reason}; trying again", source.description());
                    match feed.frames.count() {
                        // Who began the session hears it by the status.
                        0 => shared.keep(true, line),
                        _ if is_told => shared.event(true, line),
                        _ => log::debug!("{line}"),
                    }
                }
                feed.set_source(SourceStatus::Lost { reason }, &source.description());
                let until = Instant::now() + retry;
                while Instant::now() < until && !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(20));
                }
                retry = (retry * 2).min(LAST_RETRY);
            }
            Err(error) => return failed(shared, feed, &source.description(), &error, stop),
        }
    }
}

fn next(source: &mut dyn Source, number: u64, stop: &AtomicBool) -> Result<Option<Captured>, SourceError> {
    let frame = source.next_frame(stop)?;
    let at = Instant::now();
    Ok(frame.map(|frame| {
        // Sources stamp a frame before they decode it.
        let capture = frame.captured_at.elapsed().unwrap_or_default();
        Captured { frame, source: number, name: source.description(), capture, at }
    }))
}

fn failed(shared: &Shared, feed: &Feed, name: &str, error: &SourceError, stop: &AtomicBool) {
    if !stop.load(Ordering::Relaxed) {
        shared.event(true, format!("{name}: {error}"));
        feed.set_source(SourceStatus::Failed { reason: error.to_string() }, name);
        feed.frames.close();
        shared.frame_came.put(Arc::default());
    }
}
