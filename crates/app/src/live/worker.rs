//! The inference worker: takes the newest frame, says what is in it, and follows the settings.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{AttentionView, Captured, EngineStatus, LiveResult, Probe, Settings, Shared, lock};
use yolo_lat::attention::{
    DiffDistance, HadamardExp, ModulatedDot, Similarity, Softmax, SumDistance, attention_weights,
};
use yolo_lat::detector::{AttentionOptions, DetectError, Detector, DetectorOptions};
use yolo_lat::geometry::{BBox, Letterbox};
use yolo_lat::model::Model;
use yolo_lat::model::classes::find_class;
use yolo_lat::model::config::{AttentionKind, KernelKind};
use yolo_lat::model::graph::Op;
use yolo_lat::postprocess::{Detection, PostprocessOptions};
use yolo_lat_io::sink::NamedDetection;

/// How often settings and the end are looked at while no frame comes.
const PATIENCE: Duration = Duration::from_millis(50);

/// A detector and what it was made for.
struct Loaded {
    made_for: Made,
    detector: Detector,
    layers: Vec<Layer>,
}

/// Similarity and heads of an attention layer as it runs; no similarity for one that is off.
type Layer = (Option<&'static dyn Similarity>, usize);

/// What a detector must be made anew for.
#[derive(Clone, PartialEq)]
struct Made {
    model: String,
    options: DetectorOptions,
}

impl Made {
    fn of(settings: &Settings) -> Self {
        let watched = settings.probe.map(|probe| probe.layer);
        let attention = AttentionOptions { watched, ..settings.detector.attention.clone() };
        // Limits are changed without a new detector.
        let postprocess = PostprocessOptions::default();
        let options = DetectorOptions { attention, postprocess, ..settings.detector.clone() };
        Self { model: settings.model.clone(), options }
    }
}

pub(super) fn run(shared: &Shared) {
    let (mut version, mut settings) = (u64::MAX, None);
    let mut loaded: Option<Loaded> = None;
    let (mut frames_seen, mut uploaded_seen) = (0, 0);
    let mut failed_for: Option<Made> = None;
    // The last frame, for settings that change while none comes; and the settings it was seen with.
    let mut last: Option<(Arc<Captured>, u64)> = None;
    while !shared.stop.load(Ordering::Relaxed) {
        let now = shared.version.load(Ordering::Acquire);
        if now != version {
            (version, settings) = (now, lock(&shared.settings).clone());
        }
        let Some(settings) = &settings else { return };
        let wanted = Made::of(settings);
        if loaded.as_ref().is_none_or(|loaded| loaded.made_for != wanted) && failed_for.as_ref() != Some(&wanted) {
            match load(shared, &wanted) {
                Ok(new) => (loaded, failed_for) = (Some(new), None),
                Err(error) => {
                    shared.event(true, format!("{}: {error}", wanted.model));
                    *lock(&shared.engine) = Some(EngineStatus::Failed { reason: error.to_string() });
                    failed_for = Some(wanted);
                }
            }
        }
        let Some(loaded) = &mut loaded else {
            std::thread::sleep(PATIENCE);
            continue;
        };
        let postprocess = limits(settings, loaded.detector.classes());
        loaded.detector.set_postprocess(postprocess);
        // Only the newest frame counts: what came and went in between is counted.
        let (captured, texture, skipped) = if shared.takes_textures.load(Ordering::Relaxed) {
            let Some((uploaded, count)) = shared.uploaded.wait_newer(uploaded_seen, PATIENCE) else {
                again(shared, loaded, &mut last, version, settings.probe);
                continue;
            };
            let skipped = count - uploaded_seen - 1;
            uploaded_seen = count;
            (uploaded.captured.clone(), Some(uploaded.texture.clone()), skipped)
        } else {
            let Some((captured, count)) = shared.frames.wait_newer(frames_seen, PATIENCE) else {
                again(shared, loaded, &mut last, version, settings.probe);
                if shared.frames.is_closed() {
                    // Everything that will ever come has been seen.
                    shared.results.close();
                    std::thread::sleep(PATIENCE);
                }
                continue;
            };
            let skipped = count - frames_seen - 1;
            frames_seen = count;
            (captured, None, skipped)
        };
        last = Some((captured.clone(), version));
        report(shared, detect(loaded, captured, texture.as_deref(), skipped, settings.probe));
    }
}

/// Looks at the last frame again where settings have changed since.
fn again(
    shared: &Shared,
    loaded: &mut Loaded,
    last: &mut Option<(Arc<Captured>, u64)>,
    version: u64,
    probe: Option<Probe>,
) {
    if let Some((captured, seen_with)) = last
        && *seen_with != version
    {
        *seen_with = version;
        report(shared, detect(loaded, captured.clone(), None, 0, probe));
    }
}

fn report(shared: &Shared, found: Result<LiveResult, DetectError>) {
    match found {
        Ok(result) => shared.results.put(Arc::new(result)),
        Err(error) => {
            shared.event(true, error.to_string());
            std::thread::sleep(PATIENCE);
        }
    }
}

/// Names that this model does not know are no limit: they were marked for another.
fn limits(settings: &Settings, classes: &[String]) -> PostprocessOptions {
    let only: Vec<usize> = settings.classes.iter().filter_map(|name| find_class(name, classes).ok()).collect();
    PostprocessOptions { classes: (!only.is_empty()).then_some(only), ..settings.detector.postprocess.clone() }
}

fn load(shared: &Shared, wanted: &Made) -> Result<Loaded, DetectError> {
    *lock(&shared.engine) = Some(EngineStatus::Loading);
    if let Some(gpu) = &*lock(&shared.gpu) {
        gpu.share();
    }
    let options = &wanted.options;
    if wanted.model.to_ascii_lowercase().ends_with(".onnx") {
        let detector = Detector::open_onnx(std::path::Path::new(&wanted.model), options)?;
        return Ok(ready(shared, wanted, detector, Vec::new()));
    }
    let model = Model::load(&wanted.model)?;
    let graph = model.graph(model.config.input, model.config.input)?;
    let mut detector = Detector::new(&model, options)?;
    let layers = graph
        .attention_layers()
        .enumerate()
        .filter_map(|(index, node)| {
            let node = &graph.nodes[node];
            let Op::Attention { kind, kernel, heads } = node.op else { return None };
            let replaced = options.attention.replaced.iter().find(|(layer, _)| *layer == index).map(|(_, by)| *by);
            let now = replaced.unwrap_or(Some((kind, kernel)));
            let name = node.name.trim_end_matches(".attention").to_owned();
            Some((name, (now.and_then(|(kind, kernel)| similarity(kind, kernel)), heads)))
        })
        .collect::<Vec<_>>();
    let of_window = lock(&shared.gpu).clone();
    let on_window =
        of_window.zip(detector.gpu_engine()).is_some_and(|(window, engine)| Arc::ptr_eq(&window, engine.gpu()));
    shared.takes_textures.store(on_window, Ordering::Relaxed);
    Ok(ready(shared, wanted, detector, layers))
}

fn ready(shared: &Shared, wanted: &Made, detector: Detector, layers: Vec<(String, Layer)>) -> Loaded {
    *lock(&shared.engine) = Some(EngineStatus::Ready {
        description: detector.description(),
        classes: detector.classes().to_vec(),
        layers: layers.iter().map(|(name, (_, heads))| (name.clone(), *heads)).collect(),
    });
    let layers = layers.into_iter().map(|(_, layer)| layer).collect();
    Loaded { made_for: wanted.clone(), detector, layers }
}

fn similarity(kind: AttentionKind, kernel: KernelKind) -> Option<&'static dyn Similarity> {
    match (kind, kernel) {
        (AttentionKind::None, _) => None,
        (AttentionKind::Softmax, _) => Some(&Softmax),
        (AttentionKind::Ela, KernelKind::HadamardExp) => Some(&HadamardExp),
        (AttentionKind::Ela, KernelKind::SumDistance) => Some(&SumDistance),
        (AttentionKind::Ela, KernelKind::DiffDistance) => Some(&DiffDistance),
        (AttentionKind::Ela, KernelKind::ModulatedDot) => Some(&ModulatedDot),
    }
}

fn detect(
    loaded: &mut Loaded,
    captured: Arc<Captured>,
    texture: Option<&wgpu::Texture>,
    skipped: u64,
    probe: Option<Probe>,
) -> Result<LiveResult, DetectError> {
    let picture = &captured.frame.pixels;
    let on_gpu = match texture {
        Some(texture) => {
            let view = texture.create_view(&wgpu::TextureViewDescriptor::default());
            // A lost device is replaced by the path through the pixels.
            loaded.detector.detect_texture(&view, picture.dimensions()).ok().flatten()
        }
        None => None,
    };
    let (detections, times) = match on_gpu {
        Some(found) => found,
        None => loaded.detector.detect_batch(&[picture])?.swap_remove(0),
    };
    let (width, height) = loaded.detector.input_size(picture.dimensions());
    let letterbox = Letterbox::fit(picture.dimensions(), (width as u32, height as u32));
    let attention = probe.and_then(|probe| look(loaded, &letterbox, probe));
    let named = |Detection { class, confidence, bbox }: Detection| {
        let name = loaded.detector.class_name(class).to_owned();
        NamedDetection { name, class, confidence, bbox }
    };
    Ok(LiveResult {
        detections: detections.into_iter().map(named).collect(),
        letterbox,
        times,
        skipped,
        engine: loaded.detector.description(),
        at: Instant::now(),
        attention,
        captured,
    })
}

/// The weights of the query under a point.
fn look(loaded: &Loaded, letterbox: &Letterbox, probe: Probe) -> Option<AttentionView> {
    let read = loaded.detector.queries_keys_values()?;
    let &(similarity, heads) = loaded.layers.get(probe.layer)?;
    let (_, rows, columns) = read.dim();
    let (x, y) = probe.point;
    let BBox { x1: x, y1: y, .. } = letterbox.letterbox_from_image(&BBox { x1: x, y1: y, x2: x, y2: y });
    let cell = |at: f32, cells: usize, side: u32| {
        ((at / side as f32 * cells as f32).floor().max(0.0) as usize).min(cells.saturating_sub(1))
    };
    let query = (cell(y, rows, letterbox.input.1), cell(x, columns, letterbox.input.0));
    let weights = attention_weights(similarity?, read.view(), heads, query);
    Some(AttentionView { layer: probe.layer, query, grid: (rows, columns), weights })
}
