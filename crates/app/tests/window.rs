//! The window without a display: every panel and key, drawn by a software adapter.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use eframe::egui;
use egui::{Key, Pos2, Vec2};
use egui_kittest::kittest::Queryable;
use egui_kittest::{Harness, SnapshotOptions};
use yolo_lat::engine::EngineKind;
use yolo_lat::follow::FollowOptions;
use yolo_lat::model::Precision;
use yolo_lat::sink::Drawing;
use yolo_lat::source::{SourceOptions, SourceRequest};
use yolo_lat::{DetectorOptions, Runtime};
use yolo_lat_app::live::{EngineStatus, LiveResult, Observer, Settings, SourceStatus};
use yolo_lat_app::window::{LiveApp, Preferences, WindowOptions};

const SNAPSHOTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots");
const SIZE: Vec2 = Vec2::new(1100.0, 720.0);
/// Somewhere on the cat.
const CAT: Pos2 = Pos2::new(380.0, 330.0);
/// Steps until something must have happened.
const STEPS_TIMEOUT: usize = 3_000;

fn options(source: &str, folder: &Path) -> WindowOptions {
    WindowOptions {
        sources: vec![if source == "synthetic" {
            SourceRequest::Synthetic
        } else {
            SourceRequest::Path(source.into())
        }],
        reading: SourceOptions::default(),
        settings: Settings {
            model: "n".into(),
            // Confidences are in the pictures that are compared.
            detector: DetectorOptions {
                engine: EngineKind::Cpu,
                precision: Some(Precision::F32),
                ..DetectorOptions::default()
            },
            classes: Vec::new(),
            class_confidence: Vec::new(),
            least_size: Vec::new(),
            follow: FollowOptions { track: true, ..FollowOptions::default() },
            probe: None,
        },
        runtime: Runtime::with_threads(1),
        use_remembered: false,
        preferences: Some(folder.join("live.json")),
        output: Some(folder.to_owned()),
        drawing: Drawing::Box,
        zones_file: Some(folder.join("zones.toml")),
        observer: None,
    }
}

/// The window, once there is a result.
fn open(options: WindowOptions) -> Harness<'static, LiveApp> {
    open_at(options, 1.0)
}

fn open_at(options: WindowOptions, pixels_per_point: f32) -> Harness<'static, LiveApp> {
    // The window shows paths as they are given: from the repository's root, where the samples are.
    std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).unwrap();
    let snapshots = SnapshotOptions::new().output_path(SNAPSHOTS).threshold(1.5).max_failed_pixels(1200);
    let mut harness = Harness::builder()
        .with_size(SIZE)
        .with_pixels_per_point(pixels_per_point)
        .with_theme(egui::Theme::Dark)
        .with_options(snapshots)
        .wgpu()
        .build_eframe(move |context| LiveApp::new(context, options).unwrap());
    until(&mut harness, "a result", |app| app.result().is_some());
    harness
}

/// Draws until something is so.
fn until(harness: &mut Harness<'static, LiveApp>, what: &str, is_so: impl Fn(&LiveApp) -> bool) {
    for _ in 0..STEPS_TIMEOUT {
        harness.step();
        if is_so(harness.state()) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let events = harness.state().live().events();
    panic!("{what} never came; messages: {events:#?}");
}

fn press(harness: &mut Harness<'static, LiveApp>, key: Key) {
    harness.key_press(key);
    harness.run_steps(3);
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

#[test]
fn the_image_is_shown_with_its_boxes() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = open(options("assets/chelsea.jpg", folder.path()));
    // Only the image: times differ from run to run.
    press(&mut harness, Key::F);
    harness.remove_cursor();
    harness.run_steps(3);
    harness.mask(egui::Rect::from_min_max(Pos2::new(0.0, SIZE.y - 32.0), SIZE.to_pos2()));
    harness.snapshot("image");
    assert_eq!(harness.state().result().unwrap().detections[0].name, "cat");
    // What is drawn sixty times a second is not copied as often.
    let (engine, source) = (harness.state().live().engine(), harness.state().feed().source());
    harness.run_steps(3);
    let app = harness.state();
    assert!(Arc::ptr_eq(&engine, &app.live().engine()) && Arc::ptr_eq(&source, &app.feed().source()));
}

#[test]
fn attention_of_a_clicked_point_is_drawn_over_the_image() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = open(options("assets/chelsea.jpg", folder.path()));
    press(&mut harness, Key::A);
    press(&mut harness, Key::F);
    click(&mut harness, CAT);
    until(&mut harness, "attention", |app| app.result().is_some_and(|result| result.attention.is_some()));
    let view = harness.state().result().unwrap().attention.clone().unwrap();
    // The input takes the photograph's shape, 384 x 256.
    assert_eq!(view.grid, (8, 12));
    for head in view.weights.outer_iter() {
        assert!((head.sum() - 1.0).abs() < 1e-9);
    }
    harness.remove_cursor();
    harness.run_steps(3);
    harness.mask(egui::Rect::from_min_max(Pos2::new(0.0, SIZE.y - 32.0), SIZE.to_pos2()));
    harness.snapshot("attention");
    // Another layer, another grid; a layer that is off has no weights; softmax has some.
    press(&mut harness, Key::F);
    // Below what the panel shows: asked for as a screen reader would.
    harness.get_by_label("ela16").click_accesskit();
    until(&mut harness, "the other layer", |app| {
        app.result().is_some_and(|result| result.attention.as_ref().is_some_and(|view| view.grid == (16, 24)))
    });
    harness.get_by_label("off").click_accesskit();
    until(&mut harness, "no weights", |app| app.result().is_some_and(|result| result.attention.is_none()));
    harness.get_by_label("off").click_accesskit();
    until(&mut harness, "weights again", |app| app.result().is_some_and(|result| result.attention.is_some()));
}

fn click(harness: &mut Harness<'static, LiveApp>, at: Pos2) {
    harness.hover_at(at);
    harness.run_steps(2);
    for pressed in [true, false] {
        let modifiers = egui::Modifiers::default();
        harness.event(egui::Event::PointerButton { pos: at, button: egui::PointerButton::Primary, pressed, modifiers });
        harness.run_steps(1);
    }
    harness.run_steps(2);
}

#[test]
fn help_and_messages_open_and_close() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = open(options("assets/chelsea.jpg", folder.path()));
    assert!(harness.query_by_label_contains("snapshot: photo and JSON").is_none());
    press(&mut harness, Key::Questionmark);
    assert!(harness.query_by_label_contains("snapshot: photo and JSON").is_some());
    press(&mut harness, Key::L);
    assert!(harness.query_by_label_contains("Messages").is_some());
    press(&mut harness, Key::Escape);
    assert!(harness.query_by_label_contains("snapshot: photo and JSON").is_none());
}

#[test]
fn a_snapshot_writes_photo_and_data() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = open(options("assets/chelsea.jpg", folder.path()));
    press(&mut harness, Key::S);
    let photo = yolo_lat::source::open_image(&files(folder.path(), "jpg")[0]).unwrap();
    assert_eq!(photo.dimensions(), (451, 300));
    let data = std::fs::read_to_string(&files(folder.path(), "json")[0]).unwrap();
    let data: serde_json::Value = serde_json::from_str(&data).unwrap();
    assert_eq!(data["result"]["detections"][0]["name"], "cat");
}

#[test]
fn a_recording_becomes_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = open(options("synthetic", folder.path()));
    press(&mut harness, Key::R);
    let begin = harness.state().results_seen();
    until(&mut harness, "some results", move |app| app.results_seen() > begin + 4);
    press(&mut harness, Key::R);
    until(&mut harness, "the end of the recording", |app| {
        app.live().events().iter().any(|event| event.line.starts_with("recorded"))
    });
    let videos = files(folder.path(), "mp4").len() + files(folder.path(), "jsonl").len();
    assert_eq!(videos, 1);
}

/// Images that come every two seconds: what is seen when recording begins and ends counts too.
#[test]
fn a_recording_lasts_from_key_to_key() {
    use yolo_lat::source::{Source, VideoSource};

    let folder = tempfile::tempdir().unwrap();
    let mut harness = open(options("assets", folder.path()));
    let asked = Instant::now();
    press(&mut harness, Key::R);
    let (begun, seen) = (Instant::now(), harness.state().results_seen());
    until(&mut harness, "another image", move |app| app.results_seen() > seen);
    let least = begun.elapsed();
    press(&mut harness, Key::R);
    let most = asked.elapsed();
    until(&mut harness, "the end of the recording", |app| {
        app.live().events().iter().any(|event| event.line.starts_with("recorded"))
    });
    let reading = SourceOptions { live: false, ..SourceOptions::default() };
    let mut video = VideoSource::open(&files(folder.path(), "mp4")[0], &reading).unwrap();
    video.next_frame(&AtomicBool::new(false)).unwrap();
    let (length, slack) = (video.length().unwrap(), Duration::from_millis(100));
    assert!(length + slack >= least && length <= most + slack, "{length:?} of {least:?} to {most:?}");
}

#[test]
fn without_a_camera_it_is_said_what_is_shown() {
    if !yolo_lat::source::cameras().is_empty() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let harness = open(WindowOptions { sources: vec![SourceRequest::Auto], ..options("synthetic", folder.path()) });
    assert!(harness.query_all_by_label_contains("no camera: synthetic scene").next().is_some());
}

#[test]
fn one_of_several_sources_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let mut two = options("assets/chelsea.jpg", folder.path());
    two.sources.push(SourceRequest::Path("assets/astronaut.jpg".into()));
    let mut harness = open(two);
    assert_eq!(harness.state().result().unwrap().detections[0].name, "cat");
    press(&mut harness, Key::N);
    until(&mut harness, "the other", |app| app.result().is_some_and(|result| result.captured.name.contains("astro")));
    assert_eq!(harness.state().feed().source().1, "assets/astronaut.jpg");
    assert_eq!(harness.state().result().unwrap().detections[0].name, "person");
    // What is opened takes the place of the one that is shown.
    harness.state_mut().open("assets/coffee.jpg".into());
    until(&mut harness, "the new one", |app| {
        app.result().is_some_and(|result| result.captured.name.contains("coffee"))
    });
    press(&mut harness, Key::N);
    until(&mut harness, "the first", |app| app.result().is_some_and(|result| result.captured.name.contains("chelsea")));
}

#[test]
fn pause_stops_the_frames() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = open(options("synthetic", folder.path()));
    press(&mut harness, Key::Space);
    // What was on its way arrives, however busy the machine is; then nothing more comes.
    let mut nothing_new = || {
        let seen = harness.state().results_seen();
        std::thread::sleep(std::time::Duration::from_millis(500));
        harness.run_steps(2);
        harness.state().results_seen() == seen
    };
    assert!((0..60).any(|_| nothing_new() && nothing_new()), "frames go on coming");
    let seen = harness.state().results_seen();
    press(&mut harness, Key::Space);
    until(&mut harness, "frames again", move |app| app.results_seen() > seen);
}

#[test]
fn controls_change_the_detector_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = open(options("synthetic", folder.path()));
    harness.get_by_label("s").click();
    harness.run_steps(3);
    assert_eq!(harness.state().settings().model, "s");
    until(&mut harness, "model s", |app| matches!(*app.live().engine(), EngineStatus::Ready { .. }));
    // Below what the list shows: asked for as a screen reader would.
    harness.get_by_label("dog").click_accesskit();
    harness.run_steps(3);
    assert_eq!(harness.state().settings().classes, ["dog"]);
    until(&mut harness, "no dog", |app| app.result().is_some_and(|result| result.detections.is_empty()));
    harness.get_by_label("All").click();
    until(&mut harness, "everything", |app| app.result().is_some_and(|result| !result.detections.is_empty()));
    // An engine that is not there leaves the old one at work, and says why.
    harness.get_by_label("gpu").click();
    until(&mut harness, "an answer", |app| !matches!(*app.live().engine(), EngineStatus::Loading));
    let seen = harness.state().results_seen();
    until(&mut harness, "results all the same", move |app| app.results_seen() > seen + 2);
}

#[test]
fn what_is_dropped_is_opened_and_what_is_wrong_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = open(options("assets/chelsea.jpg", folder.path()));
    harness.state_mut().open("assets/astronaut.jpg".into());
    until(&mut harness, "a person", |app| {
        app.result().is_some_and(|result| result.detections.first().is_some_and(|found| found.name == "person"))
    });
    let broken = folder.path().join("broken.jpg");
    std::fs::write(&broken, "no image").unwrap();
    harness.state_mut().open(broken);
    until(&mut harness, "a complaint", |app| matches!(app.feed().source().0, SourceStatus::Failed { .. }));
    assert!(harness.query_all_by_label_contains("broken.jpg").next().is_some());
    // The image before it stays, and another source works.
    harness.state_mut().open("assets".into());
    until(&mut harness, "the folder", |app| app.feed().source().0 == SourceStatus::Running);
    // A model that is none.
    harness.state_mut().open(folder.path().join("no.safetensors"));
    until(&mut harness, "no model", |app| matches!(*app.live().engine(), EngineStatus::Failed { .. }));
}

#[test]
fn zones_and_lines_are_drawn_with_the_mouse_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let kept = || std::fs::read_to_string(folder.path().join("zones.toml")).unwrap_or_default();
    {
        let mut harness = open(options("assets/chelsea.jpg", folder.path()));
        press(&mut harness, Key::Z);
        // One corner is taken back; the first one again closes it. Nothing is pinned meanwhile.
        for at in [Pos2::new(40.0, 60.0), Pos2::new(300.0, 200.0)] {
            click(&mut harness, at);
        }
        press(&mut harness, Key::Backspace);
        for at in [Pos2::new(700.0, 60.0), Pos2::new(700.0, 660.0), Pos2::new(40.0, 660.0), Pos2::new(41.0, 61.0)] {
            click(&mut harness, at);
        }
        harness.run_steps(3);
        assert!(harness.query_by_label_contains("pinned").is_none());
        assert_eq!(harness.state().settings().follow.zones[0].points().len(), 4);
        until(&mut harness, "the cat in the zone", |app| {
            app.result().is_some_and(|result| result.detections.iter().any(|found| found.zones == ["zone 1"]))
        });
        assert!(harness.query_by_label_contains("zone 1: 1 inside").is_some());
        press(&mut harness, Key::X);
        for at in [Pos2::new(100.0, 300.0), Pos2::new(600.0, 300.0)] {
            click(&mut harness, at);
        }
        until(&mut harness, "the line's count", |app| {
            app.result().is_some_and(|result| result.counts.contains_key("line 1"))
        });
        assert!(harness.query_by_label_contains("line 1: 0 in, 0 out").is_some());
        // What is given up leaves nothing; Enter closes a zone, and points on a line are none.
        press(&mut harness, Key::Z);
        click(&mut harness, CAT);
        press(&mut harness, Key::Escape);
        press(&mut harness, Key::Z);
        for x in [100.0, 200.0, 300.0] {
            click(&mut harness, Pos2::new(x, 300.0));
        }
        press(&mut harness, Key::Enter);
        let event = harness.state().live().last_event().unwrap();
        assert!(event.is_error && event.line.contains("one line or in one place"), "{}", event.line);
        assert_eq!(harness.state().settings().follow.zones.len(), 1);
    }
    let file = kept();
    assert!(file.contains("[zone]") && file.contains("\"zone 1\" = [") && file.contains("\"line 1\" = ["), "{file}");
    // They are there again, and go when they are removed.
    let mut harness = open(options("assets/chelsea.jpg", folder.path()));
    assert_eq!(harness.state().settings().follow.lines[0].name(), "line 1");
    harness.get_all_by_label("x").next().unwrap().click_accesskit();
    harness.run_steps(3);
    assert!(harness.state().settings().follow.zones.is_empty());
    assert!(!kept().contains("[zone]") && kept().contains("[line]"), "{}", kept());
}

#[test]
fn hidden_objects_are_hidden_in_window_and_snapshots() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = open(WindowOptions { drawing: Drawing::Blur, ..options("assets/chelsea.jpg", folder.path()) });
    harness.run_steps(3);
    // The cat's fur is fine; blurred, neighbours are nearly equal.
    let detail = |image: &image::RgbaImage, x: std::ops::Range<u32>, y: std::ops::Range<u32>| {
        let differences = y.flat_map(|y| x.clone().map(move |x| (x, y)));
        let differences = differences.map(|(x, y)| image.get_pixel(x, y)[0].abs_diff(image.get_pixel(x + 1, y)[0]));
        differences.map(f64::from).sum::<f64>()
    };
    let at_the_cat = |harness: &mut Harness<'static, LiveApp>| detail(&harness.render().unwrap(), 300..420, 250..400);
    harness.remove_cursor();
    harness.run_steps(3);
    let blurred = at_the_cat(&mut harness);
    press(&mut harness, Key::S);
    let photo = image::open(&files(folder.path(), "jpg")[0]).unwrap().into_rgba8();
    let original = image::open("assets/chelsea.jpg").unwrap().into_rgba8();
    let (hidden, seen) = (detail(&photo, 180..260, 100..160), detail(&original, 180..260, 100..160));
    assert!(hidden < 0.3 * seen, "{hidden} {seen}");
    harness.get_by_label("boxes").click();
    harness.remove_cursor();
    harness.run_steps(5);
    let shown = at_the_cat(&mut harness);
    assert!(blurred < 0.3 * shown, "{blurred} {shown}");
    // While objects are hidden, no image is shown before it was looked at.
    let mut slow = options("synthetic", folder.path());
    slow.settings.detector.engine = EngineKind::Reference;
    slow.drawing = Drawing::Pixelate;
    let mut harness =
        Harness::builder().with_size(SIZE).wgpu().build_eframe(move |context| LiveApp::new(context, slow).unwrap());
    until(&mut harness, "a frame", |app| app.frames_seen() > 2);
    assert_eq!((harness.state().results_seen(), harness.state().is_showing()), (0, false));
}

#[test]
fn settings_are_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("live.json");
    {
        let mut harness = open(options("assets/chelsea.jpg", folder.path()));
        harness.get_by_label("cat  1").click_accesskit();
        harness.get_by_label("light").click();
        harness.run_steps(3);
        eframe::App::on_exit(harness.state_mut());
    }
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(kept.contains("cat") && kept.contains("light"), "{kept}");
    let mut again = options("assets/chelsea.jpg", folder.path());
    again.use_remembered = true;
    let harness = open(again);
    assert_eq!(harness.state().settings().classes, ["cat"]);
    assert_ne!(Preferences::load(&file), Preferences::default());
}

/// Capture, network and display share one device: a frame is uploaded once, and the network reads what is shown.
#[test]
fn on_the_gpu_the_network_reads_the_texture_that_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let mut on_gpu = options("assets/chelsea.jpg", folder.path());
    on_gpu.settings.detector.engine = EngineKind::Gpu;
    let mut harness = open(on_gpu);
    assert!(harness.state().live().takes_textures());
    let result = harness.state().result().unwrap();
    assert!(result.engine.starts_with("gpu"), "{}", result.engine);
    assert_eq!(result.detections[0].name, "cat");
    // Attention is read from the same device.
    press(&mut harness, Key::A);
    click(&mut harness, CAT);
    until(&mut harness, "attention", |app| app.result().is_some_and(|result| result.attention.is_some()));
    // Another engine takes over, and the GPU again.
    harness.get_by_label("cpu").click();
    until(&mut harness, "the CPU", |app| app.result().is_some_and(|result| result.engine.starts_with("cpu")));
    harness.get_by_label("gpu").click();
    until(&mut harness, "the GPU", |app| app.result().is_some_and(|result| result.engine.starts_with("gpu")));
}

#[test]
fn a_display_with_many_pixels_shows_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = open_at(options("assets/chelsea.jpg", folder.path()), 2.0);
    let image = harness.render().unwrap();
    assert_eq!(image.dimensions(), (2 * SIZE.x as u32, 2 * SIZE.y as u32));
    press(&mut harness, Key::S);
    assert_eq!(files(folder.path(), "jpg").len(), 1);
}

/// The reference engine takes many frames' time for one: the window goes on showing new ones meanwhile.
#[test]
fn the_window_never_waits_for_the_network() {
    let folder = tempfile::tempdir().unwrap();
    let mut slow = options("synthetic", folder.path());
    slow.settings.detector.engine = EngineKind::Reference;
    let mut harness =
        Harness::builder().with_size(SIZE).wgpu().build_eframe(move |context| LiveApp::new(context, slow).unwrap());
    until(&mut harness, "a frame", |app| app.frames_seen() > 0);
    let (results, frames) = (harness.state().results_seen(), harness.state().frames_seen());
    let mut repaints = 0;
    while harness.state().results_seen() == results {
        harness.step();
        repaints += 1;
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(repaints > 10, "{repaints} repaints");
    assert!(harness.state().frames_seen() > frames + 3);
}

/// Counts what it is told, and has something to say once.
#[derive(Default)]
struct Listener {
    results: AtomicUsize,
    classes: AtomicUsize,
    has_spoken: AtomicBool,
}

impl Observer for Listener {
    fn classes(&self, classes: &[String]) {
        self.classes.store(classes.len(), Ordering::Relaxed);
    }

    fn result(&self, _: &Arc<LiveResult>) {
        self.results.fetch_add(1, Ordering::Relaxed);
    }

    fn notes(&self) -> Vec<(bool, String)> {
        let has_spoken = self.has_spoken.swap(true, Ordering::Relaxed);
        (!has_spoken).then(|| (true, "nobody answers".to_owned())).into_iter().collect()
    }
}

#[test]
fn who_observes_is_told_every_result_and_heard() {
    let folder = tempfile::tempdir().unwrap();
    let listener = Arc::new(Listener::default());
    let mut harness = open(WindowOptions { observer: Some(listener.clone()), ..options("synthetic", folder.path()) });
    let EngineStatus::Ready { classes, .. } = &*harness.state().live().engine() else { panic!("there was a result") };
    assert_eq!(listener.classes.load(Ordering::Relaxed), classes.len());
    until(&mut harness, "two results that were told", |_| listener.results.load(Ordering::Relaxed) >= 2);
    let events = harness.state().live().events();
    assert_eq!(events.iter().filter(|event| event.is_error && event.line == "nobody answers").count(), 1);
}
