//! Controls at the side, status below, help and messages above all.

use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Instant;

use eframe::egui;
use egui::{Color32, RichText, Slider, Ui};

use super::{LiveApp, charts};
use crate::live::{EngineStatus, SourceStatus};
use yolo_lat::InputSize;
use yolo_lat::engine::EngineKind;
use yolo_lat::model::classes::find_class;
use yolo_lat::model::config::KernelKind;
use yolo_lat::model::graph::Mixing;
use yolo_lat_io::sink::Drawing;
use yolo_lat_io::source::{CameraRequest, ScreenRequest, SourceRequest};

const ENGINES: [(EngineKind, &str); 4] =
    [(EngineKind::Auto, "auto"), (EngineKind::Cpu, "cpu"), (EngineKind::Gpu, "gpu"), (EngineKind::Ort, "ort")];

const DRAWINGS: [(Drawing, &str); 4] =
    [(Drawing::Box, "boxes"), (Drawing::Blur, "blurred"), (Drawing::Pixelate, "tiles"), (Drawing::Heat, "heat")];

/// Side that stands for a model's own input.
const USUAL_SIDE: usize = 320;

/// What can run in the layers of attention.
const KINDS: [(Option<Mixing>, &str); 6] = [
    (None, "the model's own"),
    (Some(Mixing::Linear(KernelKind::HadamardExp)), "Hadamard exp"),
    (Some(Mixing::Linear(KernelKind::SumDistance)), "sum distance"),
    (Some(Mixing::Linear(KernelKind::DiffDistance)), "difference distance"),
    (Some(Mixing::Linear(KernelKind::ModulatedDot)), "modulated dot"),
    (Some(Mixing::Softmax), "softmax"),
];

const KEYS: [(&str, &str); 14] = [
    ("Space", "pause, go on"),
    ("S", "snapshot: photo and JSON"),
    ("R", "record: video, or JSON lines without ffmpeg"),
    ("N", "the next source, where there are several"),
    ("A", "attention: then click a point"),
    ("Z", "draw a zone: click its corners, Enter closes it"),
    ("X", "draw a line: click its ends"),
    ("F", "full screen"),
    ("0, double click", "the whole image"),
    ("wheel, pinch, drag", "zoom and move"),
    ("click", "pin an object, or look from a point"),
    ("L", "messages"),
    ("Esc", "close, unpin"),
    ("?", "this help"),
];

impl LiveApp {
    /// The side panel.
    pub(super) fn controls(&mut self, ui: &mut Ui) {
        let section = |name: &'static str| egui::CollapsingHeader::new(name).default_open(true);
        section("Source").show(ui, |ui| self.source_controls(ui));
        section("Detector").show(ui, |ui| self.detector_controls(ui));
        section("Classes").show(ui, |ui| self.class_controls(ui));
        section("Attention").show(ui, |ui| self.attention_controls(ui));
        section("Zones and lines").show(ui, |ui| self.zone_controls(ui));
        section("Times").show(ui, |ui| self.time_charts(ui));
    }

    fn source_controls(&mut self, ui: &mut Ui) {
        let cameras = self.cameras.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut wanted = None;
        if self.sources.len() > 1 {
            ui.horizontal_wrapped(|ui| {
                for feed in 0..self.sources.len() {
                    let name = self.sources[feed].to_string();
                    if ui.selectable_label(feed == self.feed, format!("{}", feed + 1)).on_hover_text(name).clicked() {
                        self.show_feed(feed);
                    }
                }
                ui.weak("which is shown (N: the next)");
            });
        }
        let now = self.sources[self.feed].clone();
        egui::ComboBox::new("source", "source").selected_text(now.to_string()).width(220.0).show_ui(ui, |ui| {
            let mut choice = |source: SourceRequest, text: String| {
                if ui.selectable_label(now == source, text).clicked() {
                    wanted = Some(source);
                }
            };
            choice(SourceRequest::Synthetic, "synthetic scene".into());
            choice(SourceRequest::Screen(ScreenRequest::default()), "screen".into());
            for camera in &cameras {
                choice(
                    SourceRequest::Camera(CameraRequest::of(&camera.path)),
                    format!("{} ({})", camera.name, camera.path),
                );
            }
        });
        if ui.button("Look for cameras").clicked() {
            self.look_for_cameras();
        }
        ui.horizontal(|ui| {
            let label = ui.label("File");
            let edit = egui::TextEdit::singleline(&mut self.path)
                .hint_text("video, image, folder, address, model")
                .desired_width(200.0);
            let response = ui.add(edit).labelled_by(label.id);
            let entered = response.lost_focus() && ui.input(|input| input.key_pressed(egui::Key::Enter));
            if (ui.button("Open").clicked() || entered) && !self.path.trim().is_empty() {
                let path = PathBuf::from(self.path.trim());
                self.open_path(path);
            }
        });
        if let Some(source) = wanted {
            self.set_source(source);
        }
        ui.horizontal(|ui| {
            if ui.button(if self.paused { "Go on" } else { "Pause" }).clicked() {
                self.set_paused(!self.paused);
            }
            if ui.button("Snapshot").clicked() {
                self.snapshot();
            }
            let (text, color) = match &self.recording {
                Some(recording) => (format!("Stop recording ({})", recording.frames), Color32::LIGHT_RED),
                None => ("Record".to_owned(), ui.visuals().text_color()),
            };
            if ui.button(RichText::new(text).color(color)).clicked() {
                self.toggle_recording();
            }
        });
    }

    fn detector_controls(&mut self, ui: &mut Ui) {
        ui.horizontal(|ui| {
            ui.label("Model");
            for name in ["n", "s"] {
                if ui.selectable_label(self.settings.model == name, name).clicked() {
                    self.choose_model(name.into());
                }
            }
            if !["n", "s"].contains(&self.settings.model.as_str()) {
                let name = std::path::Path::new(&self.settings.model).file_name().unwrap_or_default();
                let _ = ui.selectable_label(true, name.to_string_lossy());
            }
        });
        ui.horizontal(|ui| {
            ui.label("Engine");
            for (engine, name) in ENGINES {
                ui.selectable_value(&mut self.settings.detector.engine, engine, name);
            }
        });
        let wanted = &mut self.settings.detector.size;
        let mut side = wanted.side(USUAL_SIDE);
        let mut square = matches!(wanted, InputSize::Square(_));
        let is_new = ui.add(Slider::new(&mut side, 160..=1280).step_by(32.0).text("input size")).changed();
        if ui.checkbox(&mut square, "square instead of the image's shape").changed() || is_new {
            let side = Some(side.next_multiple_of(32));
            *wanted = if square { InputSize::Square(side) } else { InputSize::Budget(side) };
        }
        let mut drawing = self.drawing;
        ui.horizontal(|ui| {
            ui.label("Show");
            for (choice, name) in DRAWINGS {
                ui.selectable_value(&mut drawing, choice, name);
            }
        });
        if drawing != self.drawing {
            self.show_as(drawing);
        }
        let limits = &mut self.settings.detector.postprocess;
        ui.add(Slider::new(&mut limits.confidence, 0.01..=0.95).text("confidence").fixed_decimals(2));
        ui.add(Slider::new(&mut limits.iou, 0.1..=0.95).text("overlap (IoU)").fixed_decimals(2));
        ui.checkbox(&mut self.settings.follow.track, "follow objects: numbers and trails");
        match &*self.live.engine() {
            EngineStatus::Loading => drop(ui.weak("loading ...")),
            EngineStatus::Ready { description, .. } => {
                let input = self.result.as_ref().map(|result| result.letterbox.input);
                let input = input.map(|(width, height)| format!(", input {width} x {height}")).unwrap_or_default();
                ui.weak(format!("{description}{input}"));
            }
            EngineStatus::Failed { reason } => drop(ui.colored_label(ui.visuals().error_fg_color, reason)),
        }
        if let Some(pinned) = self.pinned() {
            let [x, y, width, height] = pinned.bbox.xywh();
            ui.label(format!(
                "pinned, as last seen: {}, {width:.0} x {height:.0} pixels at ({x:.0}, {y:.0})",
                pinned.label()
            ));
        }
    }

    fn class_controls(&mut self, ui: &mut Ui) {
        let engine = self.live.engine();
        let EngineStatus::Ready { classes, .. } = &*engine else { return };
        let detections = self.result.as_ref().map_or(&[][..], |result| &result.detections);
        let only = &mut self.settings.classes;
        // What was remembered or given may be another word.
        let mut meant: Vec<Option<usize>> = only.iter().map(|name| find_class(name, classes).ok()).collect();
        ui.horizontal(|ui| {
            if ui.button("All").clicked() {
                only.clear();
            }
            ui.weak(if meant.iter().all(Option::is_none) { "every class is reported" } else { "only what is marked" });
        });
        egui::ScrollArea::vertical().id_salt("classes").max_height(150.0).show(ui, |ui| {
            for (index, name) in classes.iter().enumerate() {
                let count = detections.iter().filter(|detection| detection.name == *name).count();
                let mut marked = meant.contains(&Some(index));
                let text =
                    if count > 0 { RichText::new(format!("{name}  {count}")).strong() } else { RichText::new(name) };
                if ui.checkbox(&mut marked, text).changed() {
                    let mut meant = meant.drain(..);
                    only.retain(|_| meant.next().flatten() != Some(index));
                    if marked {
                        only.push(name.clone());
                    }
                }
            }
        });
    }

    fn attention_controls(&mut self, ui: &mut Ui) {
        let engine = self.live.engine();
        let EngineStatus::Ready { layers, .. } = &*engine else { return };
        if layers.is_empty() {
            ui.weak("this model has no attention that can be looked at");
            return;
        }
        let controls = &mut self.attention;
        ui.checkbox(&mut controls.shown, "Show the weights of a point (A, then click)");
        controls.layer = controls.layer.min(layers.len() - 1);
        ui.horizontal(|ui| {
            ui.label("Layer");
            for (index, (name, _)) in layers.iter().enumerate() {
                ui.selectable_value(&mut controls.layer, index, name);
            }
            ui.checkbox(&mut controls.off, "off");
        });
        ui.horizontal(|ui| {
            ui.label("Head");
            ui.selectable_value(&mut controls.head, None, "mean");
            for head in 0..layers[controls.layer].1 {
                ui.selectable_value(&mut controls.head, Some(head), format!("{}", head + 1));
            }
        });
        let name = |kind| KINDS.iter().find(|(other, _)| *other == kind).map_or("", |(_, name)| *name);
        egui::ComboBox::new("kernel", "kernel").selected_text(name(controls.kind)).show_ui(ui, |ui| {
            for (kind, name) in KINDS {
                ui.selectable_value(&mut controls.kind, kind, name);
            }
        });
        if self.settings.detector.engine == EngineKind::Ort {
            ui.weak("ONNX Runtime keeps its attention to itself: take cpu or gpu");
        }
        let view = self.result.as_ref().and_then(|result| result.attention.as_ref());
        if let Some(view) = view.filter(|_| self.attention.shown) {
            let (row, column) = view.query;
            ui.weak(format!("query at row {row}, column {column} of {} x {}", view.grid.0, view.grid.1));
        }
    }

    fn time_charts(&mut self, ui: &mut Ui) {
        charts::stages(ui, &self.history, Instant::now());
        let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|share| self.history.age_ms(share));
        ui.label(format!("age of the boxes: p50 {p50:.0}, p90 {p90:.0}, p99 {p99:.0} ms"));
        ui.label(format!(
            "{:.1} results/s, {:.0} repaints/s, {} frames skipped",
            self.history.rate(),
            self.repaints.rate(),
            self.skipped
        ));
        self.times.show(ui, self.settings.detector.size.side(USUAL_SIDE));
    }

    /// One line below the image.
    pub(super) fn status(&mut self, ui: &mut Ui) {
        let last = self.live.last_event();
        ui.horizontal(|ui| {
            let (status, name) = &*self.feed().source();
            let state = match status {
                SourceStatus::Starting => "opening",
                SourceStatus::Running if self.paused => "paused",
                SourceStatus::Running => "running",
                SourceStatus::Lost { .. } => "lost",
                SourceStatus::Failed { .. } => "failed",
                SourceStatus::Ended => "ended",
            };
            ui.label(format!("{name}: {state}"));
            if let Some(sample) = self.history.last() {
                ui.separator();
                ui.label(format!("{:.1} FPS, age {:.0} ms", self.history.rate(), sample.age.as_secs_f64() * 1e3));
            }
            ui.separator();
            if let Some(event) = last {
                let color = if event.is_error { ui.visuals().error_fg_color } else { ui.visuals().weak_text_color() };
                let line =
                    egui::Label::new(RichText::new(&event.line).color(color)).truncate().sense(egui::Sense::click());
                if ui.add(line).on_hover_text("click for all messages (L)").clicked() {
                    self.log = !self.log;
                }
            }
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                if ui.button("?").on_hover_text("help").clicked() {
                    self.help = !self.help;
                }
                let mut theme = ui.ctx().options(|options| options.theme_preference);
                for (choice, name) in [
                    (egui::ThemePreference::System, "system"),
                    (egui::ThemePreference::Light, "light"),
                    (egui::ThemePreference::Dark, "dark"),
                ] {
                    ui.selectable_value(&mut theme, choice, name);
                }
                ui.ctx().set_theme(theme);
                self.preferences.set_theme(theme);
            });
        });
    }

    /// Help and messages.
    pub(super) fn windows(&mut self, ctx: &egui::Context) {
        let (mut help, mut log) = (self.help, self.log);
        egui::Window::new("Help").open(&mut help).resizable(false).show(ctx, |ui| {
            egui::Grid::new("keys").striped(true).show(ui, |ui| {
                for (key, what) in KEYS {
                    ui.strong(key);
                    ui.label(what);
                    ui.end_row();
                }
            });
            ui.label("Drop videos, images, folders or model files on the window.");
            ui.weak(&self.renderer);
        });
        egui::Window::new("Messages").open(&mut log).default_width(560.0).show(ctx, |ui| {
            egui::ScrollArea::vertical().max_height(300.0).stick_to_bottom(true).show(ui, |ui| {
                for event in self.live.events() {
                    let time = humantime::format_rfc3339_seconds(event.at).to_string();
                    let color = if event.is_error { ui.visuals().error_fg_color } else { ui.visuals().text_color() };
                    ui.label(RichText::new(format!("{}  {}", &time[11..19], event.line)).color(color));
                }
            });
        });
        (self.help, self.log) = (help, log);
    }
}
