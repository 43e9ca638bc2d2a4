//! Live detection: a capture thread, an inference worker, and slots between them that hold only the newest.
//!
//! ```text
//! capture -> latest frame -> inference worker -> latest result -> window or command line
//! ```
//!
//! No thread waits for a slower one. Nothing joins a thread that a driver may hold: a session ends at once.

mod slot;
mod stats;
mod worker;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use ndarray::Array2;

pub use self::slot::Latest;
pub use self::stats::{History, Sample, percentile};
use yolo_lat::detector::{DetectorOptions, StageTimes};
use yolo_lat::engine::gpu::Gpu;
use yolo_lat::geometry::Letterbox;
use yolo_lat_io::frame::Frame;
use yolo_lat_io::sink::NamedDetection;
use yolo_lat_io::source::{FrameSource, SourceError, SourceRequest, open_source};

/// Messages kept for the window.
const EVENTS: usize = 200;
/// Pauses between two attempts to get a camera back.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(4);
/// What a source gets to end a process that it started.
const LAST_MOMENT: Duration = Duration::from_millis(300);

/// A frame with what its capture took.
#[derive(Debug)]
pub struct Captured {
    /// The picture.
    pub frame: Frame,
    /// Reading and decoding it, without waiting for its time.
    pub capture: Duration,
    /// When it was there.
    pub at: Instant,
}

/// A frame that the window brought to its GPU: it is shown and looked at without another copy.
pub struct Uploaded {
    /// The frame.
    pub captured: Arc<Captured>,
    /// The same pixels.
    pub texture: Arc<wgpu::Texture>,
}

/// Where attention is looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Probe {
    /// Layer by its number in the order of execution.
    pub layer: usize,
    /// In picture pixels.
    pub point: (f32, f32),
}

/// The weights of one query on every position.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionView {
    /// The layer.
    pub layer: usize,
    /// Row and column of the query.
    pub query: (usize, usize),
    /// Rows and columns of positions.
    pub grid: (usize, usize),
    /// (heads, rows * columns), each row of sum 1.
    pub weights: Array2<f64>,
}

/// What the worker found in a frame.
#[derive(Debug)]
pub struct LiveResult {
    /// The frame.
    pub captured: Arc<Captured>,
    /// By falling confidence, in picture pixels.
    pub detections: Vec<NamedDetection>,
    /// How the picture lies in the network's input.
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
    /// Where attention is looked at.
    pub probe: Option<Probe>,
}

/// What the source does.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceStatus {
    /// Being opened.
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
#[derive(Clone, Debug, PartialEq)]
pub enum EngineStatus {
    /// Being made.
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

/// What all threads of a session see.
#[derive(Default)]
struct Shared {
    frames: Latest<Captured>,
    uploaded: Latest<Uploaded>,
    results: Latest<LiveResult>,
    settings: Mutex<Option<Settings>>,
    /// Rises with every change of the settings.
    version: AtomicU64,
    source: Mutex<Option<(SourceStatus, String)>>,
    engine: Mutex<Option<EngineStatus>>,
    events: Mutex<VecDeque<Event>>,
    paused: AtomicBool,
    stop: AtomicBool,
    /// The worker takes uploaded frames instead of pixels.
    takes_textures: AtomicBool,
    /// The window's device.
    gpu: Mutex<Option<Arc<Gpu>>>,
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
        let mut events = lock(&self.events);
        if events.len() == EVENTS {
            events.pop_front();
        }
        events.push_back(Event { at: SystemTime::now(), is_error, line });
    }

    fn set_source(&self, status: SourceStatus, name: &str) {
        *lock(&self.source) = Some((status, name.to_owned()));
    }
}

/// A running session.
pub struct Live {
    shared: Arc<Shared>,
    /// Ends the capture thread of the current source.
    capture_stop: Arc<AtomicBool>,
    capture: Option<JoinHandle<()>>,
}

impl Live {
    /// Starts capturing and detecting.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn start(source: SourceRequest, settings: Settings, gpu: Option<Arc<Gpu>>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        *lock(&shared.settings) = Some(settings);
        *lock(&shared.gpu) = gpu;
        *lock(&shared.engine) = Some(EngineStatus::Loading);
        let worker = shared.clone();
        std::thread::Builder::new().name("inference".into()).spawn(move || worker::run(&worker))?;
        let mut live = Self { shared, capture_stop: Arc::default(), capture: None };
        live.set_source(source)?;
        Ok(live)
    }

    /// Changes the source; the old one's thread ends when its driver lets it.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn set_source(&mut self, request: SourceRequest) -> std::io::Result<()> {
        self.capture_stop.store(true, Ordering::Relaxed);
        self.capture_stop = Arc::default();
        self.shared.set_source(SourceStatus::Starting, &request.to_string());
        let (shared, stop) = (self.shared.clone(), self.capture_stop.clone());
        let run = move || capture(&shared, &request, &stop);
        self.capture = Some(std::thread::Builder::new().name("capture".into()).spawn(run)?);
        Ok(())
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

    /// The newest frames.
    pub fn frames(&self) -> &Latest<Captured> {
        &self.shared.frames
    }

    /// The newest results.
    pub fn results(&self) -> &Latest<LiveResult> {
        &self.shared.results
    }

    /// Whether the worker reads frames from the window's GPU: then they must be given to [`Live::put_uploaded`].
    pub fn takes_textures(&self) -> bool {
        self.shared.takes_textures.load(Ordering::Relaxed)
    }

    /// A frame that is on the GPU.
    pub fn put_uploaded(&self, uploaded: Uploaded) {
        self.shared.uploaded.put(Arc::new(uploaded));
    }

    /// What the source does, and its name.
    pub fn source(&self) -> (SourceStatus, String) {
        lock(&self.shared.source).clone().unwrap_or((SourceStatus::Starting, String::new()))
    }

    /// What the detector does.
    pub fn engine(&self) -> EngineStatus {
        lock(&self.shared.engine).clone().unwrap_or(EngineStatus::Loading)
    }

    /// The last messages, oldest first.
    pub fn events(&self) -> Vec<Event> {
        lock(&self.shared.events).iter().cloned().collect()
    }

    /// The newest message.
    pub fn last_event(&self) -> Option<Event> {
        lock(&self.shared.events).back().cloned()
    }

    /// Adds a message, to the log too.
    pub fn note(&self, is_error: bool, line: impl Into<String>) {
        self.shared.event(is_error, line.into());
    }
}

impl Drop for Live {
    /// Tells the threads to end. The source has a moment to end a process of its own; no longer: a driver may hold it.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.capture_stop.store(true, Ordering::Relaxed);
        let until = Instant::now() + LAST_MOMENT;
        while Instant::now() < until && self.capture.as_ref().is_some_and(|capture| !capture.is_finished()) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The capture thread of one source.
fn capture(shared: &Shared, request: &SourceRequest, stop: &AtomicBool) {
    // Opened here, since a driver may take its time.
    let mut source = match open_source(request) {
        Ok(source) => source,
        Err(error) => return failed(shared, &request.to_string(), &error, stop),
    };
    let mut retry = FIRST_RETRY;
    shared.set_source(SourceStatus::Starting, &source.description());
    while !stop.load(Ordering::Relaxed) {
        if shared.paused.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        }
        match next(&mut *source, stop) {
            Ok(Some(captured)) => {
                // Another source may have taken over meanwhile.
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let was_lost = matches!(*lock(&shared.source), Some((SourceStatus::Lost { .. }, _)));
                if was_lost {
                    shared.event(false, format!("{}: frames come again", source.description()));
                }
                shared.set_source(SourceStatus::Running, &source.description());
                shared.frames.put(Arc::new(captured));
                retry = FIRST_RETRY;
            }
            Ok(None) => {
                if !stop.load(Ordering::Relaxed) {
                    shared.set_source(SourceStatus::Ended, &source.description());
                    shared.frames.close();
                }
                return;
            }
            Err(error) if source.can_recover() => {
                let reason = error.to_string();
                let status = SourceStatus::Lost { reason: reason.clone() };
                let is_new = lock(&shared.source).as_ref().is_none_or(|(now, _)| *now != status);
                if is_new {
                    shared.event(true, format!("{}: {reason}; trying again", source.description()));
                }
                shared.set_source(status, &source.description());
                let until = Instant::now() + retry;
                while Instant::now() < until && !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(20));
                }
                retry = (retry * 2).min(LAST_RETRY);
            }
            Err(error) => return failed(shared, &source.description(), &error, stop),
        }
    }
}

fn next(source: &mut dyn FrameSource, stop: &AtomicBool) -> Result<Option<Captured>, SourceError> {
    let frame = source.next_frame(stop)?;
    let at = Instant::now();
    Ok(frame.map(|frame| {
        // Sources stamp a frame before they decode it.
        let capture = frame.captured_at.elapsed().unwrap_or_default();
        Captured { frame, capture, at }
    }))
}

fn failed(shared: &Shared, name: &str, error: &SourceError, stop: &AtomicBool) {
    if !stop.load(Ordering::Relaxed) {
        shared.event(true, format!("{name}: {error}"));
        shared.set_source(SourceStatus::Failed { reason: error.to_string() }, name);
        shared.frames.close();
    }
}
