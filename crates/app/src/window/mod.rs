//! The window: what the session sees, drawn at the display's own pace. The UI waits for nothing: it looks at the newest frame
//! and the newest result, and whatever takes time has a thread of its own.

mod actions;
mod charts;
mod panels;
mod pool;
mod preferences;
mod viewport;
mod zones;
mod zones_file;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eframe::egui;
use egui::Key;

use self::actions::{Ending, Recording};
use self::charts::AttentionTimes;
use self::pool::ImagePool;
pub use self::preferences::Preferences;
use self::viewport::Viewport;
use self::zones::{Kind, Sketch};
use crate::live::{
    Captured, EngineStatus, Feed, History, LiveResult, LiveSession, Observer, Probe, Sample, Settings, SourceStatus,
};
use yolo_lat::Runtime;
use yolo_lat::engine::EngineKind;
use yolo_lat::engine::gpu::{Gpu, GpuOptions};
use yolo_lat::model::graph::Mixing;
use yolo_lat_io::sink::{Annotator, DrawOptions, Drawing};
use yolo_lat_io::source::{CameraEntry, SourceOptions, SourceRequest};

/// How long the charts look back.
const SPAN: Duration = Duration::from_secs(10);
/// Pause between two repaints: 60 a second, whatever the camera and the network do.
const REPAINT: Duration = Duration::from_micros(16_600);

/// What the window begins with.
#[derive(Clone)]
pub struct WindowOptions {
    /// Where frames come from, at least one; the first is shown at first.
    pub sources: Vec<SourceRequest>,
    /// How they are read.
    pub reading: SourceOptions,
    /// Model, engine, limits.
    pub settings: Settings,
    /// What engines run on; the window's own device goes before its GPU.
    pub runtime: Runtime,
    /// Take model, engine and limits from the last time instead.
    pub use_remembered: bool,
    /// Where they are kept; `None` for nowhere.
    pub preferences: Option<PathBuf>,
    /// Where snapshots and recordings go; `None` for the system's folder for the user's pictures.
    pub output: Option<PathBuf>,
    /// What is drawn for objects.
    pub drawing: Drawing,
    /// The TOML file that zones and lines are kept in, and read from where the settings have none; `None` for nowhere.
    pub zones_file: Option<PathBuf>,
    /// Who is told what is found.
    pub observer: Option<Arc<dyn Observer>>,
}

/// Why there is no window.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WindowError {
    /// No display, or no way to draw on it.
    #[error("no window can be opened: {reason}; `yolo-lat live --headless` prints results without one")]
    NoWindow {
        /// What the system says.
        reason: String,
    },
}

/// Opens the window and comes back when it is closed.
///
/// # Errors
/// [`WindowError::NoWindow`] without a display.
pub fn run(options: WindowOptions) -> Result<(), WindowError> {
    if cfg!(target_os = "linux") {
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        if !is_set("DISPLAY") && !is_set("WAYLAND_DISPLAY") && !is_set("WAYLAND_SOCKET") {
            return Err(WindowError::NoWindow { reason: "neither DISPLAY nor WAYLAND_DISPLAY is set".into() });
        }
    }
    let mut native = eframe::NativeOptions {
        viewport: egui::ViewportBuilder::default()
            .with_title("yolo-lat")
            .with_app_id("yolo-lat")
            .with_inner_size([1180.0, 760.0])
            .with_min_inner_size([480.0, 320.0])
            .with_drag_and_drop(true),
        ..eframe::NativeOptions::default()
    };
    // Window and network share a device: it gets what the network's kernels use.
    if let eframe::egui_wgpu::WgpuSetup::CreateNew(setup) = &mut native.wgpu_options.wgpu_setup {
        let usual = setup.device_descriptor.clone();
        setup.device_descriptor = Arc::new(move |adapter| {
            let mut descriptor = usual(adapter);
            descriptor.required_features |= adapter.features() & Gpu::useful_features();
            descriptor
        });
    }
    let create: eframe::AppCreator = Box::new(|context| Ok(Box::new(LiveApp::new(context, options)?)));
    eframe::run_native("yolo-lat", native, create)
        .map_err(|error| WindowError::NoWindow { reason: error.to_string().lines().next().unwrap_or_default().into() })
}

/// How attention is shown and changed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct AttentionControls {
    shown: bool,
    layer: usize,
    /// `None` for the mean of all heads.
    head: Option<usize>,
    /// What runs in the layers instead of the model's own.
    kind: Option<Mixing>,
    /// The layer is off.
    off: bool,
}

/// What is wanted of attention: the controls, where it is looked at, and the layers that there are.
type Watched = (AttentionControls, Option<(f32, f32)>, usize);

/// The state of the window.
pub struct LiveApp {
    live: LiveSession,
    sources: Vec<SourceRequest>,
    /// The one that is shown.
    feed: usize,
    settings: Settings,
    /// What the worker was told last.
    sent: Option<(Settings, Watched)>,
    preferences: Preferences,
    preferences_file: Option<PathBuf>,
    attention: AttentionControls,
    /// Where attention is looked at, in image pixels.
    probe: Option<(f32, f32)>,
    pool: Option<ImagePool>,
    viewport: Viewport,
    sketch: Sketch,
    drawing: Drawing,
    annotator: Annotator,
    shown: Option<Arc<Captured>>,
    frames_seen: u64,
    result: Option<Arc<LiveResult>>,
    results_seen: u64,
    skipped: u64,
    history: History,
    upload: Duration,
    draw: Duration,
    repaints: History,
    paused: bool,
    fullscreen: bool,
    help: bool,
    log: bool,
    cameras: Arc<std::sync::Mutex<Vec<CameraEntry>>>,
    recording: Option<Recording>,
    ending: Vec<Ending>,
    output: Option<PathBuf>,
    times: AttentionTimes,
    path: String,
    renderer: String,
}

/// The font that also writes on images; it has the letters of most alphabets, which names of cameras, files and classes are in.
fn fonts() -> egui::FontDefinitions {
    let mut fonts = egui::FontDefinitions::empty();
    let name = "DejaVu Sans".to_owned();
    fonts.families.values_mut().for_each(|family| family.push(name.clone()));
    fonts.font_data.insert(name, Arc::new(egui::FontData::from_static(yolo_lat_io::sink::FONT)));
    fonts
}

impl LiveApp {
    /// Starts the session.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn new(context: &eframe::CreationContext, options: WindowOptions) -> std::io::Result<Self> {
        let preferences = options.preferences.as_deref().map(Preferences::load).unwrap_or_default();
        let mut settings = options.settings;
        if options.use_remembered {
            preferences.apply(&mut settings);
        }
        context.egui_ctx.set_theme(preferences.theme());
        context.egui_ctx.set_fonts(fonts());
        // Letters that it lacks.
        context.egui_ctx.add_font_provider(Arc::new(|request: &egui::FallbackRequest<'_>| {
            let (name, font) = yolo_lat_io::sink::system_font(request.cluster.chars().next()?)?;
            Some(egui::epaint::text::FontInsert::new(&name, egui::FontData::from_static(font), Vec::new()))
        }));
        let state = context.wgpu_render_state.clone();
        let gpu = state.as_ref().map(|state| {
            let cache = GpuOptions::default().cache;
            let (device, queue) = (state.device.clone(), state.queue.clone());
            Arc::new(Gpu::from_device(state.adapter.get_info(), device, queue, cache.as_deref()))
        });
        let renderer = gpu.as_ref().map_or("no GPU".into(), |gpu| {
            let software = if gpu.is_hardware() { "" } else { ", a software adapter: slow" };
            format!("window drawn by {}{software}", gpu.name())
        });
        // The network runs on the window's device where that is hardware, or where the GPU was asked for.
        let shared = gpu.clone().filter(|gpu| gpu.is_hardware() || settings.detector.engine == EngineKind::Gpu);
        let (sources, reading) = (options.sources, options.reading);
        let (runtime, observer) = (options.runtime, options.observer);
        let live = LiveSession::start_in_window(sources.clone(), reading, settings.clone(), runtime, observer, shared)?;
        live.note(false, renderer.clone());
        let pool = gpu.zip(state).map(|(gpu, state)| ImagePool::new(gpu, state.renderer));
        let mut app = Self {
            live,
            sources,
            feed: 0,
            settings,
            sent: None,
            preferences,
            preferences_file: options.preferences,
            attention: AttentionControls::default(),
            probe: None,
            pool,
            viewport: Viewport::default(),
            sketch: Sketch::new(options.zones_file),
            drawing: options.drawing,
            annotator: Annotator::default(),
            shown: None,
            frames_seen: 0,
            result: None,
            results_seen: 0,
            skipped: 0,
            history: History::new(SPAN),
            upload: Duration::ZERO,
            draw: Duration::ZERO,
            repaints: History::new(Duration::from_secs(2)),
            paused: false,
            fullscreen: false,
            help: false,
            log: false,
            cameras: Arc::default(),
            recording: None,
            ending: Vec::new(),
            output: options.output,
            times: AttentionTimes::default(),
            path: String::new(),
            renderer,
        };
        app.load_zones();
        app.show_as(options.drawing);
        app.look_for_cameras();
        Ok(app)
    }

    /// The session behind the window.
    pub fn live(&self) -> &LiveSession {
        &self.live
    }

    /// The source that is shown.
    pub fn feed(&self) -> &Feed {
        &self.live.feeds()[self.feed]
    }

    /// The newest result that is shown.
    pub fn result(&self) -> Option<&LiveResult> {
        self.result.as_deref()
    }

    /// Whether there is an image on the screen.
    pub fn is_showing(&self) -> bool {
        self.shown.is_some()
    }

    /// Frames that the shown source had when the window last looked.
    pub fn frames_seen(&self) -> u64 {
        self.frames_seen
    }

    /// Results likewise.
    pub fn results_seen(&self) -> u64 {
        self.results_seen
    }

    /// What is wanted of the detector.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Opens a model, video, image or folder, as if it had been dropped on the window.
    pub fn open(&mut self, path: PathBuf) {
        self.open_path(path);
    }

    /// Devices are asked in a thread of their own: one may hang.
    fn look_for_cameras(&self) {
        let found = self.cameras.clone();
        let look = move || {
            let cameras = yolo_lat_io::source::cameras();
            *found.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = cameras;
        };
        if let Err(error) = std::thread::Builder::new().name("cameras".into()).spawn(look) {
            self.live.note(true, format!("cameras are not listed: {error}"));
        }
    }

    /// Takes what is new.
    fn update(&mut self) {
        // Objects are hidden in the image that they were found in: no other is shown then.
        let is_raw = self.drawing == Drawing::Box;
        if let Some((captured, count)) = self.feed().frames().newer(self.frames_seen) {
            self.frames_seen = count;
            let start = Instant::now();
            if let Some(pool) = self.pool.as_mut().filter(|_| is_raw || self.live.takes_textures()) {
                let texture = pool.upload(&captured.frame.pixels, is_raw);
                if self.live.takes_textures() {
                    self.live.put_uploaded(crate::live::Uploaded { captured: captured.clone(), count, texture });
                }
            }
            self.upload = start.elapsed();
            if is_raw {
                self.shown = Some(captured);
            }
        }
        if let Some((result, count)) = self.feed().results().newer(self.results_seen) {
            self.results_seen = count;
            self.skipped += result.skipped;
            let age = result.captured.frame.captured_at.elapsed().unwrap_or_default();
            let sample = Sample {
                capture: result.captured.capture,
                upload: self.upload,
                letterbox: result.times.preprocess.unwrap_or_default(),
                network: result.times.inference,
                postprocess: result.times.postprocess.unwrap_or_default(),
                draw: self.draw,
                age,
            };
            self.history.push(Instant::now(), sample);
            if let Some(recording) = &mut self.recording {
                recording.push(&result);
            }
            self.result = Some(result);
            if !is_raw {
                self.show_result();
            }
        }
    }

    /// Draws objects in another way from now on.
    fn show_as(&mut self, drawing: Drawing) {
        self.drawing = drawing;
        self.annotator = Annotator::new(DrawOptions { drawing, ..DrawOptions::default() });
        self.show_result();
    }

    /// Shows the image of the newest result, objects hidden or as heat where that is asked for.
    fn show_result(&mut self) {
        let Some((result, pool)) = self.result.as_ref().zip(self.pool.as_mut()) else { return };
        let mut image = result.captured.frame.pixels.clone();
        if self.drawing != Drawing::Box {
            self.annotator.draw(&mut image, &result.detections, &result.counts);
        }
        pool.upload(&image, true);
        self.shown = Some(result.captured.clone());
    }

    /// How snapshots and recordings are drawn on.
    fn draw_options(&self) -> DrawOptions {
        let (zones, lines) = (self.settings.follow.zones.clone(), self.settings.follow.lines.clone());
        DrawOptions { drawing: self.drawing, labels: true, zones, lines }
    }

    /// Tells the worker what is wanted now.
    fn send_settings(&mut self) {
        let AttentionControls { shown, layer, kind, off, .. } = self.attention;
        let layers = match &*self.live.engine() {
            EngineStatus::Ready { layers, .. } => layers.len(),
            _ => layer + 1,
        };
        let controls = (self.attention, self.probe, layers);
        if self.sent.as_ref().is_some_and(|(settings, sent)| (settings, *sent) == (&self.settings, controls)) {
            return;
        }
        self.sent = Some((self.settings.clone(), controls));
        let mut settings = self.settings.clone();
        let mut replaced: Vec<_> =
            kind.map(|kind| (0..layers).map(|layer| (layer, Some(kind))).collect()).unwrap_or_default();
        if off {
            replaced.retain(|&(other, _)| other != layer);
            replaced.push((layer, None));
        }
        settings.detector.attention.replaced = replaced;
        let probe = shown.then_some(self.probe).flatten();
        settings.probe = probe.map(|point| Probe { layer, point });
        self.live.set_settings(settings);
    }

    fn set_source(&mut self, source: SourceRequest) {
        self.viewport.unpin();
        self.annotator = Annotator::new(self.annotator.options().clone());
        self.sources[self.feed] = source.clone();
        if let Err(error) = self.live.set_source(self.feed, source) {
            self.live.note(true, format!("no thread for the source: {error}"));
        }
    }

    /// Shows another of the sources; a recording ends, since it is of one.
    fn show_feed(&mut self, feed: usize) {
        if feed == self.feed {
            return;
        }
        if self.recording.is_some() {
            self.toggle_recording();
        }
        self.live.show(feed);
        self.feed = feed;
        self.viewport.unpin();
        self.annotator = Annotator::new(self.annotator.options().clone());
        (self.shown, self.frames_seen, self.result, self.results_seen, self.skipped) = (None, 0, None, 0, 0);
        self.history = History::new(SPAN);
    }

    /// Keys that work wherever the pointer is, but not while text is written.
    fn shortcuts(&mut self, ctx: &egui::Context) {
        if ctx.egui_wants_keyboard_input() {
            return;
        }
        let pressed = |key: Key| ctx.input(|input| input.key_pressed(key) && input.modifiers.is_none());
        if pressed(Key::Space) {
            self.set_paused(!self.paused);
        }
        if pressed(Key::S) {
            self.snapshot();
        }
        if pressed(Key::R) {
            self.toggle_recording();
        }
        if pressed(Key::F) {
            self.fullscreen = !self.fullscreen;
            ctx.send_viewport_cmd(egui::ViewportCommand::Fullscreen(self.fullscreen));
        }
        if pressed(Key::A) {
            self.attention.shown = !self.attention.shown;
        }
        if pressed(Key::N) {
            self.show_feed((self.feed + 1) % self.sources.len());
        }
        if pressed(Key::L) {
            self.log = !self.log;
        }
        if pressed(Key::Num0) {
            self.viewport.reset();
        }
        if pressed(Key::Z) {
            self.toggle_sketch(Kind::Zone);
        }
        if pressed(Key::X) {
            self.toggle_sketch(Kind::Line);
        }
        if pressed(Key::Escape) {
            self.sketch.stop();
            (self.help, self.log, self.probe) = (false, false, None);
            self.viewport.unpin();
        }
        if pressed(Key::Questionmark) || ctx.input(|input| input.key_pressed(Key::Questionmark)) || pressed(Key::F1) {
            self.help = !self.help;
        }
    }

    fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
        self.live.set_paused(paused);
    }

    /// Everything that is drawn.
    pub fn show(&mut self, ui: &mut egui::Ui) {
        let start = Instant::now();
        self.update();
        self.collect_recordings();
        let ctx = ui.ctx().clone();
        self.shortcuts(&ctx);
        self.take_dropped(&ctx);
        egui::Panel::bottom("status").show(ui, |ui| self.status(ui));
        if !self.fullscreen {
            egui::Panel::right("controls").default_size(340.0).resizable(true).show(ui, |ui| {
                egui::ScrollArea::vertical().auto_shrink(false).show(ui, |ui| self.controls(ui));
            });
        }
        egui::CentralPanel::default().frame(egui::Frame::canvas(ui.style())).show(ui, |ui| self.image(ui));
        self.windows(&ctx);
        self.send_settings();
        self.draw = start.elapsed();
        self.repaints.push(start, Sample { draw: self.draw, ..Sample::default() });
        ctx.request_repaint_after(REPAINT);
    }

    /// What covers the image when there is something to say instead of it.
    fn message(&self) -> Option<String> {
        let (status, name) = &*self.feed().source();
        match status {
            SourceStatus::Starting => Some(format!("opening {name} ...")),
            SourceStatus::Lost { reason } => Some(format!("{name}\n{reason}\ntrying again")),
            SourceStatus::Failed { reason } => Some(format!("{name}\n{reason}")),
            SourceStatus::Ended => Some(format!("{name}: the end")),
            SourceStatus::Running => match &*self.live.engine() {
                EngineStatus::Loading => Some(format!("loading model {} ...", self.settings.model)),
                EngineStatus::Failed { reason } => Some(reason.clone()),
                EngineStatus::Ready { .. } => None,
            },
        }
    }

    fn remember(&mut self) {
        self.preferences.take(&self.settings);
        if let Some(file) = &self.preferences_file
            && let Err(error) = self.preferences.save(file)
        {
            log::warn!("{error}");
        }
    }
}

impl eframe::App for LiveApp {
    fn ui(&mut self, ui: &mut egui::Ui, _frame: &mut eframe::Frame) {
        self.show(ui);
    }

    fn on_exit(&mut self) {
        self.ending.extend(self.recording.take().map(Recording::end));
        for ending in self.ending.drain(..) {
            if let Err(error) = ending.outcome() {
                log::warn!("{error}");
            }
        }
        self.remember();
    }
}
