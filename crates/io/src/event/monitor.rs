//! The thread that watches results: which events begin and end, their snapshots, clips and messages.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use yolo_lat_core::model::classes::find_class;

use super::clip::{encode, record};
use super::message::{EventState, Kind, Message, seconds};
use super::outlet::{Courier, Notes, STEP};
use super::ring::{Encoded, Ring};
use super::rule::{GRACE, Watch};
use super::{EventOptions, Input, Ongoing, Seen, Summary};
use crate::sink::{Annotator, Drawing, NamedDetection, SinkError, write_jpeg};

/// Bytes of the frames of one source that wait for clips, as JPEG.
pub const CLIP_MEMORY: usize = 64 << 20;
/// Clips that are written at the same time.
pub const CLIPS: usize = 4;
/// How often events are ended while no result comes.
const TICK: Duration = Duration::from_millis(100);
/// An event is told again at most so often.
const UPDATE: Duration = Duration::from_secs(1);
/// And only if it is so much more certain, or its zones have changed.
const MORE_CERTAIN: f32 = 0.05;
/// A source that gives nothing for so long is forgotten, with its frames.
const FORGET: Duration = Duration::from_secs(60);
/// How long clips, then outlets, are waited for at the end.
const LAST_CLIPS: Duration = Duration::from_secs(20);
const LAST_MESSAGES: Duration = Duration::from_secs(5);

/// Watches results of all sources.
pub(super) struct Monitor {
    teller: Teller,
    /// Class of each rule, once the model is known.
    classes: Vec<Option<usize>>,
    cameras: Vec<Camera>,
}

/// One source.
struct Camera {
    number: u64,
    ring: Arc<Ring>,
    annotator: Annotator,
    /// When the next frame is kept.
    due: (Instant, Duration),
    /// When its last frame was taken, since 1970.
    last: Duration,
    /// One for each rule.
    rules: Vec<Watched>,
}

/// A rule at one source.
struct Watched {
    watch: Watch,
    /// The most certain thing of those that are there, for the snapshot.
    best: Option<(NamedDetection, Arc<dyn Seen>)>,
    event: Option<Event>,
}

/// An event that goes on.
struct Event {
    state: EventState,
    /// What was told last, and when.
    told: EventState,
    told_at: Duration,
    /// Its clip's place in the ring.
    reader: Option<u64>,
}

/// A clip that is being written.
struct Clip {
    /// The event, as it was when it ended.
    event: EventState,
    thread: JoinHandle<Result<(), SinkError>>,
}

/// Tells what happens.
struct Teller {
    options: EventOptions,
    ongoing: Ongoing,
    couriers: Vec<Courier>,
    notes: Notes,
    clips: Vec<Clip>,
    totals: Summary,
}

impl Monitor {
    pub(super) fn new(options: EventOptions, ongoing: Ongoing, couriers: Vec<Courier>, notes: Notes) -> Self {
        let classes = vec![None; options.rules.len()];
        let teller = Teller { options, ongoing, couriers, notes, clips: Vec::new(), totals: Summary::default() };
        Self { teller, classes, cameras: Vec::new() }
    }

    /// Watches until no more results come.
    pub(super) fn run(mut self, inputs: &Receiver<Input>) -> Summary {
        loop {
            match inputs.recv_timeout(TICK) {
                Ok(Input::Classes(classes)) => {
                    let rules = self.teller.options.rules.iter();
                    let find = |name| {
                        find_class(name, &classes)
                            .inspect_err(|error| self.teller.notes.add(true, format!("--when {name}: {error}")))
                    };
                    self.classes = rules.map(|rule| find(&rule.class).ok()).collect();
                }
                Ok(Input::Seen(seen)) => self.see(&seen),
                Err(RecvTimeoutError::Timeout) => self.tick(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.teller.collect_clips();
        }
        for camera in &mut self.cameras {
            for (index, watched) in camera.rules.iter_mut().enumerate() {
                if let Some(last) = watched.watch.end() {
                    self.teller.end(index, watched, &camera.ring, last);
                }
            }
            camera.ring.close();
        }
        self.teller.finish(&self.cameras)
    }

    fn see(&mut self, seen: &Arc<dyn Seen>) {
        let Self { teller, classes, cameras } = self;
        let (number, name) = seen.source();
        let index = cameras.iter().position(|camera| camera.number == number).unwrap_or_else(|| {
            cameras.push(Camera::new(number, &teller.options));
            cameras.len() - 1
        });
        let share = cameras.len() as u32;
        let camera = &mut cameras[index];
        // A clock may be set back.
        let taken = seen.frame().captured_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let previous = camera.last;
        camera.last = previous.max(taken);
        if teller.options.clips {
            camera.keep(&**seen, share);
        }
        let Camera { ring, last: now, rules, .. } = camera;
        for (index, watched) in rules.iter_mut().enumerate() {
            if let Some(last) = watched.watch.expire(*now, previous) {
                teller.end(index, watched, ring, last);
            }
            let Some(class) = classes[index] else { continue };
            let rule = &teller.options.rules[index];
            let found = || seen.detections().iter().filter(|found| rule.matches(class, found));
            let began = watched.watch.see(*now, found().map(|found| found.track.as_ref().map(|track| track.id)));
            if watched.watch.is_empty() {
                watched.best = None;
            }
            let Some(best) = found().max_by(|a, b| a.confidence.total_cmp(&b.confidence)) else { continue };
            if let Some(event) = &mut watched.event {
                event.state.see(best, *now);
                teller.update(event, *now);
                if let Some(reader) = event.reader {
                    ring.extend(reader, *now + teller.options.after, false);
                }
                continue;
            }
            if watched.best.as_ref().is_none_or(|(known, _)| known.confidence < best.confidence) {
                watched.best = Some((best.clone(), seen.clone()));
            }
            if let Some(began) = began {
                teller.begin(index, (name, ring), watched, best, (began, *now));
            }
        }
    }

    /// Time goes on without results.
    fn tick(&mut self) {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        for camera in &mut self.cameras {
            for (index, watched) in camera.rules.iter_mut().enumerate() {
                if let Some(last) = watched.watch.expire(now, camera.last) {
                    self.teller.end(index, watched, &camera.ring, last);
                }
            }
        }
        self.cameras.retain(|camera| {
            let stays = now.saturating_sub(camera.last) < FORGET;
            self.teller.totals.lost_frames += if stays { 0 } else { camera.ring.lost() };
            stays
        });
    }
}

impl Camera {
    fn new(number: u64, options: &EventOptions) -> Self {
        let watch = || Watched { watch: Watch::new(options.hold), best: None, event: None };
        // An event is told when a thing has been there for `hold`, which may have been away for moments.
        let ring = Arc::new(Ring::new(options.before + options.hold + GRACE, CLIP_MEMORY));
        let rules = options.rules.iter().map(|_| watch()).collect();
        let annotator = Annotator::new(options.drawing.clone());
        Self { number, ring, annotator, due: (Instant::now(), Duration::ZERO), last: Duration::ZERO, rules }
    }

    /// Keeps a frame for clips, drawn on. That takes at most half of a core, which `share` sources have together: of large images, some
    /// are left out, by this machine's time and by that of the frames, whichever is over first: one may stand still, and frames of a
    /// file may come faster than they were taken.
    fn keep(&mut self, seen: &dyn Seen, share: u32) {
        let start = Instant::now();
        if start < self.due.0 && self.last < self.due.1 {
            return;
        }
        let mut image = seen.frame().pixels.clone();
        self.annotator.draw(&mut image, seen.detections(), seen.counts());
        if let Some(jpeg) = encode(&image) {
            self.ring.push(Encoded { time: self.last, jpeg });
        }
        let pause = 2 * share * start.elapsed();
        self.due = (start + pause, self.last + pause);
    }
}

impl Teller {
    fn tell(&mut self, kind: Kind, before: EventState, after: &EventState) {
        let message = Arc::new(Message { kind, before, after: after.clone() });
        self.couriers.iter_mut().for_each(|courier| courier.offer(&message));
    }

    /// An event has begun at the first of `times` and is told at the second.
    fn begin(
        &mut self,
        rule: usize,
        (camera, ring): (&str, &Arc<Ring>),
        watched: &mut Watched,
        best: &NamedDetection,
        (began, now): (Duration, Duration),
    ) {
        self.totals.events += 1;
        let number = self.totals.events;
        let stamp = humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + began).to_string().replace(':', "-");
        let name = format!("{stamp}-{}-{number}", self.options.rules[rule].slug());
        let file = |extension: &str| self.options.folder.join(format!("{name}.{extension}"));
        let mut state = EventState {
            id: format!("{:.6}-{number}", seconds(began)),
            camera: camera.to_owned(),
            rule: self.options.rules[rule].to_string(),
            label: best.name.clone(),
            start_time: seconds(began),
            ..EventState::default()
        };
        if let Some((found, seen)) = watched.best.take() {
            let mut image = seen.frame().pixels.clone();
            let drawing = &self.options.drawing;
            // What hides objects hides all of them.
            let is_box = drawing.drawing == Drawing::Box;
            let drawn = if is_box { std::slice::from_ref(&found) } else { seen.detections() };
            Annotator::new(drawing.clone()).draw(&mut image, drawn, seen.counts());
            let path = file("jpg");
            match write_jpeg(&path, &image) {
                Ok(()) => (state.has_snapshot, state.snapshot_file) = (true, Some(path)),
                Err(error) => self.notes.add(true, error.to_string()),
            }
            state.top_score = found.confidence;
        }
        state.see(best, now);
        let mut reader = None;
        if self.options.clips {
            (state.has_clip, state.clip_file) = (true, Some(file("mp4")));
            reader = self.start_clip(&state, ring, began, now);
        }
        if reader.is_none() {
            (state.has_clip, state.clip_file) = (false, None);
        }
        self.notes.add(false, format!("{camera}: {} since {stamp}", state.rule));
        self.ongoing.begin(rule);
        self.tell(Kind::New, state.clone(), &state);
        watched.event = Some(Event { told: state.clone(), state, told_at: now, reader });
    }

    /// Starts to write the clip of an event; its place in the ring.
    fn start_clip(&mut self, event: &EventState, ring: &Arc<Ring>, began: Duration, now: Duration) -> Option<u64> {
        if self.clips.len() == CLIPS {
            self.totals.lost_clips += 1;
            self.notes.add(true, format!("no clip of {}: {CLIPS} others are being written", event.rule));
            return None;
        }
        let path = event.clip_file.clone()?;
        let reader = ring.read(began.saturating_sub(self.options.before), now + self.options.after);
        let id = reader.id;
        let write = move || record(&path, reader);
        match std::thread::Builder::new().name("clip".into()).spawn(write) {
            Ok(thread) => {
                self.clips.push(Clip { event: event.clone(), thread });
                Some(id)
            }
            Err(error) => {
                self.totals.lost_clips += 1;
                self.notes.add(true, format!("no clip of {}: {error}", event.rule));
                None
            }
        }
    }

    /// Tells an event again if there is news of it, and not too often.
    fn update(&mut self, event: &mut Event, now: Duration) {
        let (told, state) = (&event.told, &event.state);
        let has_moved = (&told.current_zones, &told.entered_zones) != (&state.current_zones, &state.entered_zones);
        let is_news = has_moved || state.top_score >= told.top_score + MORE_CERTAIN;
        if is_news && now >= event.told_at + UPDATE {
            let told = std::mem::replace(&mut event.told, state.clone());
            event.told_at = now;
            self.tell(Kind::Update, told, &event.state);
        }
    }

    /// An event has ended where it was seen `last`.
    fn end(&mut self, rule: usize, watched: &mut Watched, ring: &Ring, last: Duration) {
        watched.best = None;
        let Some(Event { mut state, told, reader, .. }) = watched.event.take() else { return };
        state.end_time = Some(seconds(last));
        if let Some(reader) = reader {
            ring.extend(reader, last + self.options.after, true);
        }
        if let Some(clip) = self.clips.iter_mut().find(|clip| clip.event.id == state.id) {
            clip.event = state.clone();
        }
        let length = seconds(last) - state.start_time;
        self.notes.add(false, format!("{}: {} for {length:.1} s", state.camera, state.rule));
        self.ongoing.end(rule);
        self.tell(Kind::End, told, &state);
    }

    /// Says what became of clips that are complete.
    fn collect_clips(&mut self) {
        for clip in self.clips.extract_if(.., |clip| clip.thread.is_finished()).collect::<Vec<_>>() {
            let Clip { event, thread } = clip;
            match thread.join() {
                Ok(Ok(())) => {
                    self.totals.clips += 1;
                    let path = event.clip_file.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
                    self.notes.add(false, format!("clip: {path}"));
                    self.tell(Kind::Clip, event.clone(), &event);
                }
                Ok(Err(error)) => self.lose_clip(error.to_string()),
                Err(_) => self.lose_clip("a clip failed; please report this".into()),
            }
        }
    }

    fn lose_clip(&mut self, reason: String) {
        self.totals.lost_clips += 1;
        self.notes.add(true, reason);
    }

    /// Waits for clips and outlets as long as that makes sense.
    fn finish(mut self, cameras: &[Camera]) -> Summary {
        let until = Instant::now() + LAST_CLIPS;
        while !self.clips.is_empty() && Instant::now() < until {
            self.collect_clips();
            std::thread::sleep(STEP);
        }
        self.totals.lost_clips += self.clips.len() as u64;
        self.totals.lost_frames += cameras.iter().map(|camera| camera.ring.lost()).sum::<u64>();
        self.couriers.iter_mut().for_each(Courier::close);
        let until = Instant::now() + LAST_MESSAGES;
        self.totals.deliveries = self.couriers.into_iter().map(|courier| courier.finish(until)).collect();
        self.totals
    }
}
