//! The parts of the report. None fails: what cannot be found out is a problem that is told.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};
use yolo_lat::engine::cpu::{InstructionSet, chosen_instruction_set};
use yolo_lat::engine::{EngineError, EngineKind, create, fastest, least_times, processor_name};
use yolo_lat::model::{Model, ModelError, Precision};
use yolo_lat::{ModelFile, Runtime};

use super::Part;
use super::install::{self, Package};

const MODELS: [&str; 2] = ["n", "s"];
const ENGINES: [EngineKind; 3] = [EngineKind::Cpu, EngineKind::Gpu, EngineKind::Ort];
/// All that is measured takes turns for so long.
const MEASURED: Duration = Duration::from_secs(2);
/// Beyond this another engine is worth a word.
const MUCH_FASTER: f64 = 0.9;

pub(super) fn processor() -> Part {
    let name = processor_name();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = cores();
    let available: Vec<String> = InstructionSet::available().iter().map(ToString::to_string).collect();
    let chosen = chosen_instruction_set();
    let has_dot_products = chosen.as_ref().is_ok_and(|set| set.has_dot_products());
    let chosen = chosen.map(|set| set.to_string()).map_err(|error| error.to_string());
    let counted = cores.map(|cores| format!("{cores} cores, ")).unwrap_or_default();
    let with = if has_dot_products { " with dot products of bytes" } else { "" };
    let used = chosen.as_ref().map_or_else(String::clone, |set| format!("{set}{with} is used"));
    Part::new(
        format!("{name}: {counted}{threads} threads; {used}, it has {}", available.join(", ")),
        json!({
            "name": name, "cores": cores, "threads": threads, "instruction_set": chosen.as_ref().ok(),
            "instruction_sets": available, "dot_products": has_dot_products, "problem": chosen.as_ref().err(),
        }),
    )
}

/// Cores, of which each may run several threads, where the system tells.
fn cores() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let value = |line: &str, name| Some(line.strip_prefix(name)?.split_once(':')?.1.trim().to_owned());
    let core = |thread: &str| {
        let find = |name| thread.lines().find_map(|line| value(line, name));
        Some((find("physical id")?, find("core id")?))
    };
    let cores: std::collections::HashSet<_> = text.split("\n\n").filter_map(core).collect();
    (!cores.is_empty()).then_some(cores.len())
}

/// Least milliseconds of an image in an engine, or why there are none.
struct Timed {
    engine: EngineKind,
    model: &'static str,
    ms: Result<f64, String>,
}

pub(super) fn engines(runtime: &Runtime) -> Part {
    let models: Vec<(&'static str, Model)> = MODELS
        .into_iter()
        .filter_map(|name| match ModelFile::open(name) {
            Ok(ModelFile::Native(model)) => Some((name, model)),
            _ => None,
        })
        .collect();
    let timed = measure(&models, runtime);
    let threads = runtime.threads();
    let size = models.first().map_or(0, |(_, model)| model.config.input);
    let row =
        |name: &str, cells: [String; 2], note: &str| format!("{name:<4} {:>7} {:>7}   {note}", cells[0], cells[1]);
    let head = format!("ms of an image of {size}x{size}, {threads} threads");
    let mut lines = vec![row("", MODELS.map(str::to_owned), &head)];
    let mut rows = Vec::new();
    for engine in ENGINES {
        let own = |model| timed.iter().find(|one| one.engine == engine && one.model == model).map(|one| &one.ms);
        let problem = MODELS.into_iter().find_map(|model| own(model)?.as_ref().err()).map(String::as_str);
        let cell = |model| own(model).and_then(|ms| ms.as_ref().ok()).map_or("-".into(), |ms| format!("{ms:.2}"));
        // What to do about it stands in the engine's own part.
        let short = problem.and_then(|problem| problem.split("; ").next()).unwrap_or_default();
        lines.push(row(&engine.to_string(), MODELS.map(cell), short).trim_end().to_owned());
        let ms = MODELS.map(|model| (model.to_owned(), json!(own(model).and_then(|ms| ms.as_ref().ok()))));
        rows.push(json!({ "engine": engine.to_string(), "ms": Map::from_iter(ms), "problem": problem }));
    }
    let mut auto = Map::new();
    for (name, model) in &models {
        let fastest = as_detected(EngineKind::Cpu, model)
            .map_err(EngineError::from)
            .and_then(|model| fastest(&model, (size, size), runtime));
        let said = fastest.as_ref().map_or_else(ToString::to_string, ToString::to_string);
        lines.push(match &fastest {
            Ok(only) if only.times_ms.is_empty() => format!("auto for {name}: {}, there is no choice", only.engine),
            _ => format!("auto for {name}: {said}"),
        });
        let engine = fastest.ok().map(|fastest| fastest.engine);
        lines.extend(engine.and_then(|engine| faster(name, engine, &timed)));
        auto.insert((*name).to_owned(), json!({ "engine": engine.map(|engine| engine.to_string()), "why": said }));
    }
    let facts = json!({ "size": [size, size], "threads": threads, "measured": rows, "auto": auto });
    Part { lines, ..Part::new(String::new(), facts) }
}

/// A line about an engine that is much faster than the one that is taken.
fn faster(model: &str, taken: EngineKind, timed: &[Timed]) -> Option<String> {
    let own = || timed.iter().filter(|one| one.model == model);
    let time = |one: &Timed| one.ms.as_ref().copied().unwrap_or(f64::INFINITY);
    let least = own().min_by(|a, b| time(a).total_cmp(&time(b)))?;
    let is_much = time(least) < MUCH_FASTER * time(own().find(|one| one.engine == taken)?);
    is_much.then(|| format!("  {engine} is faster here: --engine {engine}", engine = least.engine))
}

/// The model as `detect` runs it on an engine.
fn as_detected(engine: EngineKind, model: &Model) -> Result<Model, ModelError> {
    let precision = if engine == EngineKind::Cpu { model.usual_precision() } else { Precision::F32 };
    model.clone().in_precision(precision)
}

/// All engines with all models, in turns.
fn measure(models: &[(&'static str, Model)], runtime: &Runtime) -> Vec<Timed> {
    let mut timed = Vec::new();
    let mut engines = Vec::new();
    for engine in ENGINES {
        for &(name, ref model) in models {
            let made = as_detected(engine, model)
                .map_err(EngineError::from)
                .and_then(|model| create(engine, &model, model.config.input, model.config.input, runtime));
            let ms = made.map(|made| engines.push(made)).map(|()| f64::NAN).map_err(reason);
            timed.push(Timed { engine, model: name, ms });
        }
    }
    let times = least_times(&mut engines, MEASURED);
    let made = timed.iter_mut().filter(|one| one.ms.is_ok());
    made.zip(times).for_each(|(one, time)| one.ms = time.map(milliseconds).map_err(reason));
    timed
}

/// To a microsecond.
fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

fn reason(error: EngineError) -> String {
    match error {
        EngineError::Unavailable { reason, .. } => reason,
        error => error.to_string(),
    }
}

/// What is a part of other builds.
fn not_in_build(feature: &str, facts: Value) -> Part {
    Part::problem(&format!("this build lacks the feature {feature:?}"), facts)
}

#[cfg(not(feature = "gpu"))]
pub(super) fn gpu(_: &Runtime) -> Part {
    not_in_build("gpu", json!({ "used": null, "adapters": [] }))
}

#[cfg(feature = "gpu")]
pub(super) fn gpu(runtime: &Runtime) -> Part {
    let adapters = yolo_lat::engine::gpu::adapters();
    let used = runtime.gpu_identity().map_err(reason);
    let facts = json!({
        "used": used.as_ref().ok(), "adapters": adapters.iter().map(crate::devices::as_json).collect::<Vec<_>>(),
        "problem": used.as_ref().err(),
    });
    let part = match &used {
        Ok(used) => Part::new(used.clone(), facts),
        Err(problem) => Part::problem(problem, facts),
    };
    match graphics_card().filter(|_| !adapters.iter().any(|adapter| adapter.automatic)) {
        Some((maker, package)) => {
            part.missing(&format!("the Vulkan driver of the {maker} GPU"), "--engine gpu", install::command(package))
        }
        None => part,
    }
}

/// Who made the graphics card that the system sees, whether it has a driver or not, and where that comes from.
#[cfg(feature = "gpu")]
fn graphics_card() -> Option<(&'static str, Package)> {
    let devices = std::fs::read_dir("/sys/bus/pci/devices").ok()?;
    devices.flatten().find_map(|device| {
        let read = |name| std::fs::read_to_string(device.path().join(name)).unwrap_or_default();
        // Display controllers.
        let maker = read("class").starts_with("0x03").then(|| read("vendor"))?;
        match maker.trim() {
            "0x10de" => Some(("NVIDIA", Package::Nvidia)),
            "0x1002" => Some(("AMD", Package::Mesa)),
            "0x8086" => Some(("Intel", Package::Mesa)),
            _ => None,
        }
    })
}

#[cfg(not(feature = "ort"))]
pub(super) fn onnx_runtime(_: &Runtime) -> Part {
    not_in_build("ort", json!({ "path": null, "version": null }))
}

#[cfg(feature = "ort")]
pub(super) fn onnx_runtime(runtime: &Runtime) -> Part {
    match runtime.onnx_runtime() {
        Ok(library) => {
            let (path, version) = (library.path().display().to_string(), library.version());
            let line = format!("{}, {path}", version.as_deref().unwrap_or("of unknown version"));
            Part::new(line, json!({ "path": path, "version": version }))
        }
        Err(error) => Part::problem(&reason(error), json!({ "path": null, "version": null })).missing(
            "ONNX Runtime",
            "other people's networks, --engine ort",
            install::onnx_runtime(),
        ),
    }
}

#[cfg(not(feature = "camera"))]
pub(super) fn cameras() -> Part {
    not_in_build("camera", json!({ "found": [] }))
}

#[cfg(feature = "camera")]
pub(super) fn cameras() -> Part {
    let found = crate::cameras::found(true);
    let facts = json!({ "found": found.iter().map(crate::cameras::as_json).collect::<Vec<_>>() });
    if found.is_empty() {
        return Part::problem("no camera is plugged in, or the system does not show it", facts);
    }
    let line = |(camera, formats): &crate::cameras::Found| {
        let said = match formats {
            Some(Ok(formats)) => by_kind(formats),
            Some(Err(problem)) => problem.clone(),
            None => camera.problem.clone().unwrap_or_default(),
        };
        format!("{} {} {}: {said}", camera.index, camera.path, camera.name)
    };
    Part { lines: found.iter().map(line).collect(), ..Part::new(String::new(), facts) }
}

/// `mjpeg 320x240@30 to 1920x1080@30 (12), yuyv 640x480@30` of formats that are sorted by kind and size.
#[cfg(feature = "camera")]
fn by_kind(formats: &[String]) -> String {
    let parts: Vec<(&str, &str)> = formats.iter().filter_map(|format| format.split_once(',')).collect();
    let kinds = parts.chunk_by(|(_, a), (_, b)| a == b);
    let range = |formats: &[(&str, &str)]| match formats {
        [(only, kind)] => format!("{kind} {only}"),
        [(first, kind), .., (last, _)] => format!("{kind} {first} to {last} ({})", formats.len()),
        [] => String::new(),
    };
    let kinds: Vec<String> = kinds.map(range).collect();
    if kinds.is_empty() { "no format that is read here".into() } else { kinds.join(", ") }
}

pub(super) fn ffmpeg() -> Part {
    use yolo_lat::source::{ffmpeg_version, find_program};
    let nothing = json!({ "path": null, "version": null });
    if cfg!(not(feature = "video")) {
        return not_in_build("video", nothing);
    }
    let path = find_program("ffmpeg").map(|path| path.display().to_string());
    match ffmpeg_version() {
        Ok(version) => {
            let line = format!("{version}, {}", path.as_deref().unwrap_or_default());
            Part::new(line, json!({ "path": path, "version": version }))
        }
        Err(error) => Part::problem(&error.to_string(), json!({ "path": path, "version": null })).missing(
            "ffmpeg",
            "videos, streams, screens, clips",
            install::command(Package::Ffmpeg),
        ),
    }
}

pub(super) fn display() -> Part {
    if cfg!(not(feature = "window")) {
        return not_in_build("window", json!({ "name": null }));
    }
    if cfg!(any(windows, target_os = "macos")) {
        return Part::new("the system's".into(), json!({ "name": std::env::consts::OS }));
    }
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (wayland, x11) = (variable("WAYLAND_DISPLAY"), variable("DISPLAY"));
    let Some(name) = wayland.clone().or_else(|| x11.clone()) else {
        let problem = "none (neither DISPLAY nor WAYLAND_DISPLAY is set); `yolo-lat live --headless` needs none";
        return Part::problem(problem, json!({ "name": null }));
    };
    let (kind, socket, library) = match &wayland {
        Some(name) => ("Wayland", wayland_socket(name), "libwayland-client.so.0"),
        None => ("X11", x11_socket(&name), "libxkbcommon-x11.so.0"),
    };
    let facts = json!({ "name": name });
    let part = match socket.map(|path| answers(&path)) {
        Some(Err(error)) => Part::problem(&format!("{kind} {name} does not answer: {error}"), facts),
        // One on another machine is not asked.
        None | Some(Ok(())) => Part::new(format!("{kind} {name}"), facts),
    };
    if has_library(library) {
        return part;
    }
    part.missing(library, "the window of `yolo-lat live`", install::command(Package::Window))
}

fn wayland_socket(name: &str) -> Option<PathBuf> {
    Some(
        std::env::var_os("XDG_RUNTIME_DIR").map_or_else(|| PathBuf::from(name), |folder| Path::new(&folder).join(name)),
    )
}

/// `:0.1` is number 0 of this machine.
fn x11_socket(name: &str) -> Option<PathBuf> {
    let number = name.strip_prefix(':')?.split('.').next()?;
    Some(PathBuf::from(format!("/tmp/.X11-unix/X{number}")))
}

#[cfg(unix)]
fn answers(socket: &Path) -> std::io::Result<()> {
    std::os::unix::net::UnixStream::connect(socket).map(drop)
}

#[cfg(not(unix))]
fn answers(_: &Path) -> std::io::Result<()> {
    Ok(())
}

/// Whether the system's folders have a library.
fn has_library(name: &str) -> bool {
    let folders = ["/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/local/lib"].map(PathBuf::from);
    let below = |folder: &PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    folders.iter().flat_map(|folder| below(folder).chain([folder.clone()])).any(|folder| folder.join(name).exists())
}

pub(super) fn cache() -> Part {
    #[cfg(feature = "gpu")]
    let folder = yolo_lat::engine::gpu::GpuOptions::default().cache;
    #[cfg(not(feature = "gpu"))]
    let folder = None;
    place(folder, cfg!(feature = "gpu"))
}

pub(super) fn configuration() -> Part {
    #[cfg(feature = "window")]
    let file = yolo_lat_app::window::Preferences::default_file();
    #[cfg(not(feature = "window"))]
    let file = None;
    place(file, cfg!(feature = "window"))
}

/// A file or folder, which need not be there, and whether it can be written.
fn place(path: Option<PathBuf>, is_used: bool) -> Part {
    let nothing = json!({ "path": null, "writable": false });
    let Some(path) = path else {
        let why =
            if is_used { "the user has no home folder: nothing is kept" } else { "this build keeps nothing there" };
        return Part::problem(why, nothing);
    };
    let writable = try_to_write(&path);
    let facts = json!({ "path": path.display().to_string(), "writable": writable.is_ok() });
    match writable {
        Ok(()) => Part::new(format!("{}, which can be written", path.display()), facts),
        Err(error) => Part::problem(&format!("{} cannot be written: {error}; nothing is kept", path.display()), facts),
    }
}

/// Makes a file and takes it away: in the folder itself, or in the nearest one above that is there.
fn try_to_write(path: &Path) -> std::io::Result<()> {
    let there = path.ancestors().find(|path| path.exists()).unwrap_or(path);
    if there.is_file() && there == path {
        return std::fs::OpenOptions::new().append(true).open(there).map(drop);
    }
    let file = there.join(format!(".yolo-lat-doctor-{}", std::process::id()));
    std::fs::OpenOptions::new().write(true).create_new(true).open(&file)?;
    std::fs::remove_file(&file)
}
