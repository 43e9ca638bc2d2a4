//! Whole runs: images and videos through a network into sinks, in the order of the inputs.
//!
//! Three stages overlap: workers load ahead, the caller's thread computes, a writer exports. Queues between them are short, and
//! large images wait for each other, so memory grows neither with the number of inputs nor, for images, beyond
//! [`BatchOptions::memory`]. Whatever fails, all that was computed is written and every sink is finished before [`run_batch`]
//! returns.

mod journal;
mod loader;
mod shard;
mod writer;

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use image::RgbImage;

pub use self::journal::{Journal, JournalError, JournalReader};
use self::loader::{Loaded, decode_video};
pub use self::shard::Shard;
use self::writer::{Outcome, VideoTime, Writer};
use crate::follow::{FollowOptions, Followed, Follower};
use crate::frame::Frame;
use crate::sink::{NamedDetection, Record, Sink, Timing};
use crate::source::{Budget, Prefetch, SourceOptions, display_name};
use yolo_lat_core::postprocess::Detection;

/// One input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// As it was given or found.
    pub path: PathBuf,
    /// Relative path without extension for its outputs; unique in the run.
    pub stem: PathBuf,
    /// The image, where it came on standard input, as a file would hold it.
    pub contents: Option<Arc<[u8]>>,
}

impl Input {
    /// The path as results name it.
    pub fn name(&self) -> String {
        display_name(&self.path)
    }
}

/// What a network found in an image, and the time that it took; of a batch, its share.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// In image pixels, by falling confidence.
    pub detections: Vec<Detection>,
    /// `None` where it is part of `inference`.
    pub preprocess: Option<Duration>,
    /// The network.
    pub inference: Duration,
    /// `None` where it is part of `inference`.
    pub postprocess: Option<Duration>,
}

/// Why a network gave nothing.
pub type DetectFailure = Box<dyn Error + Send + Sync>;

/// How a batch runs.
pub struct BatchOptions<'a> {
    /// Images that the network sees at once, at least 1.
    pub batch: usize,
    /// Threads that load images.
    pub loaders: usize,
    /// Bytes that decoded images may take together, [`Budget::bytes_for`] the loaders; one that is larger is alone.
    pub memory: u64,
    /// Names of the classes.
    pub classes: &'a [String],
    /// What becomes of the detections of an image, and of a video's from frame to frame.
    pub follow: FollowOptions,
    /// Whether records have times.
    pub timing: bool,
    /// How videos and streams are read.
    pub sources: SourceOptions,
    /// Most frames of each video or stream.
    pub max_frames: u64,
    /// Stops at the first input that fails.
    pub fail_fast: bool,
    /// Set from elsewhere, it ends the run.
    pub stop: Arc<AtomicBool>,
}

/// What an earlier run has completed.
pub struct Known {
    /// Its records.
    pub journal: JournalReader,
    /// Sinks whose files must still be there.
    pub sinks: Vec<Box<dyn Sink>>,
}

/// Where results go.
pub struct Outlets<'a> {
    /// In this order for each image.
    pub sinks: Vec<Box<dyn Sink>>,
    /// Learns of an image when everything else of it is written.
    pub journal: Option<Journal>,
    /// Images that need not be computed again.
    pub known: Option<Known>,
    /// Hears of every input, from the writer's thread.
    pub observer: &'a mut (dyn FnMut(Event) + Send),
}

/// What happens during a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// An input is done.
    Done,
    /// An input, or an output file, failed.
    Failed {
        /// Which.
        name: &'a str,
        /// Why.
        reason: &'a str,
    },
}

/// Why a run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// All inputs had their turn.
    #[default]
    Complete,
    /// [`BatchOptions::stop`] was set.
    Stopped,
    /// An input failed, and [`BatchOptions::fail_fast`] was set.
    Failed,
    /// There is no more room; named as [`Event::Failed`].
    DiskFull,
    /// Whoever read the results has gone.
    ReaderGone,
    /// The network failed: on which input, and why.
    Network(String),
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Inputs there were.
    pub inputs: usize,
    /// Images that were written.
    pub images: usize,
    /// Videos of which at least one frame was written.
    pub videos: usize,
    /// Frames of these videos.
    pub frames: usize,
    /// Detections in all of them.
    pub objects: usize,
    /// Inputs and output files that failed.
    pub failed: usize,
    /// From the first image to the last.
    pub elapsed: Duration,
    /// Why it ended.
    pub ending: Ending,
}

impl Summary {
    /// Images and frames a second.
    pub fn rate(&self) -> f64 {
        (self.images + self.frames) as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Finds objects in some images: one list of them an image.
pub type Detect<'a> = dyn FnMut(&[&RgbImage]) -> Result<Vec<Found>, DetectFailure> + 'a;

/// Runs `detect` over all inputs. It gets up to [`BatchOptions::batch`] images and gives what it found in each.
///
/// # Errors
/// The system gives no threads; everything else is told by the [`Summary`] and its [`Ending`].
pub fn run_batch(
    inputs: &[Input],
    detect: &mut Detect<'_>,
    outlets: Outlets,
    options: &BatchOptions,
) -> std::io::Result<Summary> {
    let start = Instant::now();
    let Outlets { sinks, journal, known, observer } = outlets;
    // Set by the writer when nothing more is wanted, and by whoever asked for the run.
    let ended = AtomicBool::new(false);
    let is_over = || ended.load(Ordering::Relaxed) || options.stop.load(Ordering::Relaxed);
    let mut summary = std::thread::scope(|scope| {
        let known = known.as_ref();
        let budget = Budget::new(options.memory);
        let wanted = budget.open();
        let load = move |index: usize| loader::load(&inputs[index], index, known, &budget);
        let mut loader = Prefetch::scoped(scope, inputs.len(), options.loaders, options.stop.clone(), load)?;
        let (sender, receiver) = sync_channel(2 * options.batch);
        let writer = Writer::new(inputs, sinks, journal, observer, options.fail_fast, &ended);
        let writer =
            std::thread::Builder::new().name("write".into()).spawn_scoped(scope, move || writer.run(&receiver))?;
        let images = Follower::new(options.follow.of_images());
        let mut network = Network { detect, sender, options, is_over: &is_over, images };
        let failure = network.run(&mut loader, inputs).err();
        // The writer ends when nothing more can come, the loaders when nobody takes.
        drop((network, loader, wanted));
        let mut summary = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        if let Some(failure) = failure {
            summary.ending = Ending::Network(failure);
        } else if summary.ending == Ending::Complete && options.stop.load(Ordering::Relaxed) {
            summary.ending = Ending::Stopped;
        }
        std::io::Result::Ok(summary)
    })?;
    summary.elapsed = start.elapsed();
    Ok(summary)
}

/// The stage in the middle.
struct Network<'a> {
    detect: &'a mut Detect<'a>,
    sender: SyncSender<(usize, Outcome)>,
    options: &'a BatchOptions<'a>,
    is_over: &'a dyn Fn() -> bool,
    /// Of images, each of which stands alone.
    images: Follower,
}

impl Network<'_> {
    /// Until all inputs are done or nobody wants them; an error is the network's, with the input's name.
    fn run(&mut self, loader: &mut Prefetch<Loaded>, inputs: &[Input]) -> Result<(), String> {
        loop {
            let batch = loader.next_batch(self.options.batch);
            if batch.is_empty() || (self.is_over)() {
                return Ok(());
            }
            // Videos and images take their turns in the order of the inputs.
            let mut batch = batch.into_iter().peekable();
            while let Some((index, loaded)) = batch.next() {
                let result = if matches!(loaded, Loaded::Video) {
                    self.video(index, &inputs[index])
                } else {
                    let mut images = vec![(index, loaded)];
                    while let Some(next) = batch.next_if(|(_, loaded)| !matches!(loaded, Loaded::Video)) {
                        images.push(next);
                    }
                    self.images(images)
                };
                result.map_err(|error| format!("{}: {error}", inputs[index].name()))?;
            }
        }
    }

    /// Hands a result on. Whether somebody took it is of no interest: if not, `is_over` says so.
    fn send(&self, index: usize, outcome: Outcome) {
        let _ = self.sender.send((index, outcome));
    }

    fn images(&mut self, batch: Vec<(usize, Loaded)>) -> Result<(), DetectFailure> {
        let images: Vec<&RgbImage> = batch.iter().filter_map(|(_, loaded)| loaded.image()).collect();
        let mut found = if images.is_empty() { Vec::new() } else { (self.detect)(&images)? }.into_iter();
        for (index, loaded) in batch {
            let outcome = match loaded {
                Loaded::Known(record) => Outcome::Image(record, None),
                Loaded::Failed(reason) => Outcome::Failed(reason),
                Loaded::Video => continue,
                Loaded::Image(frame, decode, share) => match found.next() {
                    Some(found) => {
                        let record = record(self.options, &mut self.images, &frame, found, (decode, Duration::ZERO));
                        Outcome::Image(record, Some((frame.pixels, share)))
                    }
                    None => Outcome::Failed("the network gave no result".into()),
                },
            };
            self.send(index, outcome);
        }
        Ok(())
    }

    /// The frames of a video, one after the other.
    fn video(&mut self, index: usize, input: &Input) -> Result<(), DetectFailure> {
        let mut failure = None;
        let mut follower = Follower::new(self.options.follow.clone());
        let (stop, most) = (&*self.options.stop, self.options.max_frames);
        let mut left = most;
        let ended = decode_video(&input.path, &self.options.sources, stop, |frame, time, length, decode| {
            match (self.detect)(&[&frame.pixels]) {
                Ok(mut found) => {
                    let found = found.pop().unwrap_or_default();
                    let record = record(self.options, &mut follower, &frame, found, (decode, time));
                    let record = Record { frame: Some(frame.sequence), time_s: Some(time.as_secs_f64()), ..record };
                    // What ends before its end lasts as long as what was seen.
                    let length = length.filter(|_| most == u64::MAX);
                    self.send(index, Outcome::Frame(record, frame.pixels, VideoTime { time, length }));
                }
                Err(error) => failure = Some(error),
            }
            left = left.saturating_sub(1);
            failure.is_none() && left > 0 && !(self.is_over)()
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
        match ended {
            Err(error) => self.send(index, Outcome::Failed(error.to_string())),
            Ok(()) if stop.load(Ordering::Relaxed) || (self.is_over)() => {}
            Ok(()) => self.send(index, Outcome::VideoEnd),
        }
        Ok(())
    }
}

/// A record without its name, which the writer knows, of an image that took so long to decode and is seen at a time of its video.
/// What is no number is no detection.
fn record(
    options: &BatchOptions,
    follower: &mut Follower,
    frame: &Frame,
    found: Found,
    (decode, time): (Duration, Duration),
) -> Record {
    let is_finite = |detection: &Detection| {
        detection.confidence.is_finite() && detection.bbox.corners().iter().all(|side| side.is_finite())
    };
    let name = |class: usize| options.classes.get(class).cloned().unwrap_or_else(|| format!("class{class}"));
    let named = |detection: Detection| NamedDetection::new(detection, name(detection.class));
    let detections = found.detections.into_iter().filter(is_finite).map(named).collect();
    let (width, height) = (frame.width(), frame.height());
    let Followed { detections, counts } = follower.follow(detections, (width, height), time);
    // Microseconds are as fine as these clocks mean anything.
    let ms = |time: Duration| time.as_micros() as f64 / 1e3;
    let timing_ms = options.timing.then(|| Timing {
        decode: ms(decode),
        preprocess: found.preprocess.map(ms),
        inference: ms(found.inference),
        postprocess: found.postprocess.map(ms),
    });
    Record { width, height, detections, counts, timing_ms, ..Record::default() }
}

#[cfg(test)]
mod tests;
