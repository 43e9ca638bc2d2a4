//! The inference worker: takes the newest frame, says what is in it, and follows the settings.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::{Captured, EngineStatus, LiveResult, Probe, Settings, Shared, Texture, Turns, lock};
use yolo_lat::detector::{AttentionOptions, DetectError, Detector, DetectorOptions};
use yolo_lat::model::classes::find_class;
use yolo_lat::postprocess::{Detection, PostprocessOptions};
use yolo_lat::{AttentionLayer, ModelFile, Runtime};
use yolo_lat_io::follow::{FollowOptions, Followed, Follower};
use yolo_lat_io::sink::NamedDetection;

/// How often settings and the end are looked at while no frame comes.
const SETTINGS_TIMEOUT: Duration = Duration::from_millis(50);

/// A detector and what it was made for.
struct Loaded {
    made_for: DetectorKey,
    /// Version of the settings whose limits it has.
    limited_by: Option<u64>,
    detector: Detector,
    layers: Vec<AttentionLayer>,
    /// Of each feed, the source that is followed.
    followed: Vec<(u64, Follower)>,
}

/// What a detector must be made anew for.
#[derive(Clone, PartialEq)]
struct DetectorKey {
    model: String,
    options: DetectorOptions,
}

impl DetectorKey {
    fn of(settings: &Settings) -> Self {
        let watched = settings.probe.map(|probe| probe.layer);
        let attention = AttentionOptions { watched, ..settings.detector.attention.clone() };
        // Limits are changed without a new detector.
        let postprocess = PostprocessOptions::default();
        let options = DetectorOptions { attention, postprocess, ..settings.detector.clone() };
        Self { model: settings.model.clone(), options }
    }
}

/// What the worker keeps of each feed.
#[derive(Default)]
struct Seen {
    /// The last frame, for settings that change while none comes; and the settings it was seen with.
    last: Option<(Arc<Captured>, u64)>,
}

/// A frame, perhaps on the GPU.
type Arrival = (Arc<Captured>, Option<Texture>);

/// The newest frame of a feed if more than `seen` have come.
fn arrival(shared: &Shared, feed: usize, seen: u64) -> Option<(Arrival, u64)> {
    let slots = &shared.feeds[feed];
    #[cfg(feature = "window")]
    if shared.takes_textures.load(Ordering::Relaxed) && shared.shown.load(Ordering::Relaxed) == feed {
        let (uploaded, _) = slots.uploaded.newer(0).filter(|(uploaded, _)| uploaded.count > seen)?;
        return Some(((uploaded.captured.clone(), Some(uploaded.texture.clone())), uploaded.count));
    }
    slots.frames.newer(seen).map(|(captured, count)| ((captured, None), count))
}

pub(super) fn run(shared: &Shared, runtime: &Runtime) {
    let (mut version, mut settings) = (u64::MAX, None);
    let mut loaded: Option<Loaded> = None;
    let mut failed_for: Option<DetectorKey> = None;
    let mut turns = Turns::new(shared.feeds.len());
    let mut seen: Vec<Seen> = shared.feeds.iter().map(|_| Seen::default()).collect();
    while !shared.stop.load(Ordering::Relaxed) {
        if let Some(observer) = &shared.observer {
            observer.notes().into_iter().for_each(|(is_error, line)| shared.event(is_error, line));
        }
        let now = shared.version.load(Ordering::Acquire);
        if now != version {
            (version, settings) = (now, lock(&shared.settings).clone());
        }
        let Some(settings) = &settings else { return };
        let wanted = DetectorKey::of(settings);
        if loaded.as_ref().is_none_or(|loaded| loaded.made_for != wanted) && failed_for.as_ref() != Some(&wanted) {
            match load(shared, &wanted, runtime) {
                Ok(mut new) => {
                    if let Some(old) = loaded.take()
                        && old.detector.classes() == new.detector.classes()
                    {
                        new.followed = old.followed;
                    }
                    (loaded, failed_for) = (Some(new), None);
                }
                Err(error) => {
                    shared.event(true, format!("{}: {error}", wanted.model));
                    shared.set_engine(EngineStatus::Failed { reason: error.to_string() });
                    failed_for = Some(wanted);
                }
            }
        }
        let Some(loaded) = &mut loaded else {
            std::thread::sleep(SETTINGS_TIMEOUT);
            continue;
        };
        if loaded.limited_by.replace(version) != Some(version) {
            loaded.set_limits(settings);
        }
        // Only the newest frame counts: what came and went in between is counted.
        match turns.next(&shared.frame_came, SETTINGS_TIMEOUT, |feed, seen| arrival(shared, feed, seen)) {
            Some((feed, (captured, texture), skipped)) => {
                seen[feed].last = Some((captured.clone(), version));
                report(shared, feed, detect(loaded, feed, captured, texture.as_ref(), skipped, settings.probe));
            }
            None => again(shared, loaded, &mut seen, version, settings.probe),
        }
        for (index, feed) in shared.feeds.iter().enumerate() {
            let is_over = feed.frames.is_closed() && arrival(shared, index, turns.seen(index)).is_none();
            if is_over && !feed.results.is_closed() {
                // Everything that will ever come has been seen.
                feed.results.close();
                shared.result_came.put(Arc::default());
            }
        }
    }
}

/// Looks at the last frames again where settings have changed since.
fn again(shared: &Shared, loaded: &mut Loaded, seen: &mut [Seen], version: u64, probe: Option<Probe>) {
    for (feed, Seen { last }) in seen.iter_mut().enumerate() {
        if let Some((captured, seen_with)) = last
            && *seen_with != version
        {
            *seen_with = version;
            report(shared, feed, detect(loaded, feed, captured.clone(), None, 0, probe));
        }
    }
}

fn report(shared: &Shared, feed: usize, found: Result<LiveResult, DetectError>) {
    match found {
        Ok(result) => {
            let result = Arc::new(result);
            shared.feeds[feed].results.put(result.clone());
            shared.result_came.put(Arc::default());
            if let Some(observer) = &shared.observer {
                observer.result(&result);
            }
        }
        Err(error) => {
            shared.event(true, error.to_string());
            std::thread::sleep(SETTINGS_TIMEOUT);
        }
    }
}

impl Loaded {
    /// Names that this model does not know are no limit: they were marked for another.
    fn set_limits(&mut self, settings: &Settings) {
        let classes = self.detector.classes();
        let find = |name: &String| find_class(name, classes).ok();
        let only: Vec<usize> = settings.classes.iter().filter_map(find).collect();
        let limits = &settings.detector.postprocess;
        let confidence = settings.class_confidence.iter().filter_map(|(name, least)| Some((find(name)?, *least)));
        let size = |(name, least): &(Option<String>, _)| match name {
            Some(name) => Some((Some(find(name)?), *least)),
            None => Some((None, *least)),
        };
        let follow = FollowOptions {
            confidence: limits.confidence,
            class_confidence: confidence.collect(),
            least_size: settings.least_size.iter().filter_map(size).collect(),
            ..settings.follow.clone()
        };
        self.detector.set_postprocess(PostprocessOptions {
            classes: (!only.is_empty()).then_some(only),
            confidence: follow.detector_confidence(),
            ..limits.clone()
        });
        self.followed.iter_mut().for_each(|(_, follower)| follower.set_options(&follow));
    }

    /// What is reported of a frame; a new source is followed from its beginning.
    fn follow(&mut self, feed: usize, captured: &Captured, detections: Vec<Detection>) -> Followed {
        let (source, follower) = &mut self.followed[feed];
        if *source != captured.source {
            *source = captured.source;
            follower.restart();
        }
        let name = |class: usize| self.detector.class_name(class).to_owned();
        let named = |detection: Detection| NamedDetection::new(detection, name(detection.class));
        let time = captured.frame.captured_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        follower.follow(detections.into_iter().map(named).collect(), captured.frame.pixels.dimensions(), time)
    }
}

fn load(shared: &Shared, wanted: &DetectorKey, runtime: &Runtime) -> Result<Loaded, DetectError> {
    shared.set_engine(EngineStatus::Loading);
    let options = &wanted.options;
    let file = ModelFile::open(&wanted.model)?;
    #[cfg_attr(not(feature = "window"), expect(unused_mut))]
    let mut detector = Detector::new(&file, runtime, options)?;
    #[cfg(feature = "window")]
    {
        let devices = shared.gpu.as_ref().zip(detector.gpu());
        let on_window = devices.is_some_and(|(window, gpu)| Arc::ptr_eq(window, gpu.device()));
        shared.takes_textures.store(on_window, Ordering::Relaxed);
    }
    let ModelFile::Native(model) = file else { return Ok(ready(shared, wanted, detector, Vec::new())) };
    let layers = AttentionLayer::all(&model, &options.attention)?;
    Ok(ready(shared, wanted, detector, layers))
}

fn ready(shared: &Shared, wanted: &DetectorKey, detector: Detector, layers: Vec<AttentionLayer>) -> Loaded {
    if let Some(observer) = &shared.observer {
        observer.classes(detector.classes());
    }
    shared.set_engine(EngineStatus::Ready {
        description: detector.description(),
        classes: detector.classes().to_vec(),
        layers: layers.iter().map(|layer| (layer.name.clone(), layer.heads)).collect(),
    });
    let followed = shared.feeds.iter().map(|_| Default::default()).collect();
    Loaded { made_for: wanted.clone(), limited_by: None, detector, layers, followed }
}

fn detect(
    loaded: &mut Loaded,
    feed: usize,
    captured: Arc<Captured>,
    texture: Option<&Texture>,
    skipped: u64,
    probe: Option<Probe>,
) -> Result<LiveResult, DetectError> {
    let image = &captured.frame.pixels;
    let on_gpu = match texture {
        #[cfg(feature = "window")]
        Some(texture) => {
            let view = texture.create_view(&wgpu::TextureViewDescriptor::default());
            // A lost device is replaced by the path through the pixels.
            loaded.detector.detect_texture(&view, image.dimensions()).ok().flatten()
        }
        _ => None,
    };
    let (detections, times) = match on_gpu {
        Some(found) => found,
        None => loaded.detector.detect_batch(&[image])?.swap_remove(0),
    };
    let letterbox = loaded.detector.letterbox(image.dimensions());
    let look = |Probe { layer, point, .. }| {
        loaded.detector.look((layer, loaded.layers.get(layer)?), image.dimensions(), point)
    };
    let attention = probe.and_then(look);
    let Followed { detections, counts } = loaded.follow(feed, &captured, detections);
    Ok(LiveResult {
        feed,
        detections,
        counts,
        letterbox,
        times,
        skipped,
        engine: loaded.detector.description(),
        at: Instant::now(),
        attention,
        captured,
    })
}
