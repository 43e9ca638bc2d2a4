//! Events: something is where it was waited for. It is told to a receiver, a broker, a command, and kept as a snapshot and a clip.
//!
//! [`Events`] watches results in a thread of its own. Whoever gives it results never waits: what it cannot take in time, and what
//! outlets cannot, is left out and counted.

mod address;
mod clip;
mod message;
mod monitor;
mod mqtt;
mod outlet;
mod post;
mod ring;
mod rule;
mod run;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub use self::address::{Address, AddressError};
pub use self::message::{EventState, Kind, Message};
use self::monitor::Monitor;
pub use self::monitor::{CLIP_MEMORY, CLIPS};
use self::mqtt::{Mqtt, Ongoing};
use self::outlet::{Courier, Notes};
pub use self::outlet::{Deliveries, Note, QUEUE};
use self::post::Post;
pub use self::rule::{GRACE, Rule, STALL};
use self::run::Run;
pub use self::run::{Program, ProgramError};
use crate::frame::Frame;
use crate::sink::{DrawOptions, NamedDetection};
use crate::zones::Counts;

/// Results that may wait to be looked at.
const RESULTS: usize = 8;

/// What is waited for, and what happens then.
#[derive(Clone, Debug)]
pub struct EventOptions {
    /// What is waited for.
    pub rules: Vec<Rule>,
    /// How long a thing must be there.
    pub hold: Duration,
    /// How much a clip shows of what was before the event.
    pub before: Duration,
    /// And of what was after it.
    pub after: Duration,
    /// Where snapshots and clips go.
    pub folder: PathBuf,
    /// Whether clips are made, which takes ffmpeg.
    pub clips: bool,
    /// How snapshots and clips are drawn on.
    pub drawing: DrawOptions,
    /// Where messages are posted.
    pub post: Option<Address>,
    /// The broker to which messages are published.
    pub mqtt: Option<Address>,
    /// What is started for each message.
    pub run: Option<Program>,
}

/// Events cannot be watched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventsError {
    /// An address cannot be used.
    #[error("{address}: {source}")]
    Address {
        /// Without secrets.
        address: String,
        /// Why.
        source: AddressError,
    },
    /// The system gives no threads.
    #[error("no thread for events: {0}")]
    Thread(std::io::Error),
}

impl EventsError {
    fn of(address: &Address) -> impl FnOnce(AddressError) -> Self + use<> {
        let address = address.to_string();
        move |source| Self::Address { address, source }
    }
}

/// A result that is looked at.
pub trait Seen: Send + Sync {
    /// Where it is from: its number among all sources, and its name, which several may have.
    fn source(&self) -> (u64, &str);
    /// The image.
    fn frame(&self) -> &Frame;
    /// What is in it.
    fn detections(&self) -> &[NamedDetection];
    /// What has crossed each line so far.
    fn counts(&self) -> &Counts;
}

/// What the thread is given.
enum Input {
    /// Names of the classes of all results that follow.
    Classes(Vec<String>),
    Seen(Arc<dyn Seen>),
}

/// What became of everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events that began.
    pub events: u64,
    /// Clips that are complete.
    pub clips: u64,
    /// Clips that failed or found no room beside others.
    pub lost_clips: u64,
    /// Frames that clips lack for want of memory.
    pub lost_frames: u64,
    /// Results that could not be looked at in time.
    pub lost_results: u64,
    /// Of each outlet.
    pub deliveries: Vec<Deliveries>,
}

impl Summary {
    /// Whether something is missing.
    pub fn has_losses(&self) -> bool {
        let lost = self.lost_clips + self.lost_frames + self.lost_results;
        lost > 0 || self.deliveries.iter().any(|deliveries| deliveries.lost > 0)
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { events, clips, lost_clips, lost_frames, lost_results, deliveries } = self;
        write!(
            formatter,
            "{events} events, {clips} clips; lost: {lost_results} results, {lost_clips} clips, {lost_frames} frames of clips"
        )?;
        deliveries.iter().try_for_each(|Deliveries { name, delivered, lost }| {
            write!(formatter, "; {name}: {delivered} messages delivered, {lost} lost")
        })
    }
}

/// Watches results.
pub struct Events {
    sender: Mutex<Option<SyncSender<Input>>>,
    lost: AtomicU64,
    notes: Notes,
    thread: Mutex<Option<JoinHandle<Summary>>>,
}

impl Events {
    /// Begins to watch. A receiver that does not answer is no error: it may come later.
    ///
    /// # Errors
    /// [`EventsError`] if an encrypted address cannot be used, or the system gives no threads.
    pub fn start(options: EventOptions) -> Result<Self, EventsError> {
        let notes = Notes::default();
        let ongoing = Ongoing::of(&options.rules);
        let couriers = couriers(&options, &ongoing, &notes)?;
        let (sender, receiver) = sync_channel(RESULTS);
        let monitor = Monitor::new(options, ongoing, couriers, notes.clone());
        let watch = move || monitor.run(&receiver);
        let thread = std::thread::Builder::new().name("events".into()).spawn(watch).map_err(EventsError::Thread)?;
        Ok(Self { sender: Mutex::new(Some(sender)), lost: AtomicU64::new(0), notes, thread: Mutex::new(Some(thread)) })
    }

    /// Names of the classes of all results that follow; may wait a moment.
    pub fn set_classes(&self, classes: &[String]) {
        if let Some(sender) = lock(&self.sender).clone() {
            // The thread ends only after its senders.
            let _ = sender.send(Input::Classes(classes.to_vec()));
        }
    }

    /// Gives a result; never waits.
    pub fn see(&self, seen: Arc<dyn Seen>) {
        let given = lock(&self.sender).as_ref().map(|sender| sender.try_send(Input::Seen(seen)));
        self.lost.fetch_add(matches!(given, Some(Err(_))).into(), Ordering::Relaxed);
    }

    /// Lines for people since the last time.
    pub fn notes(&self) -> Vec<Note> {
        self.notes.take()
    }

    /// Ends events that go on, completes clips, and waits some seconds for outlets. What is seen later is ignored.
    pub fn finish(&self) -> Summary {
        drop(lock(&self.sender).take());
        let summary = lock(&self.thread).take().and_then(|thread| thread.join().ok());
        Summary { lost_results: self.lost.load(Ordering::Relaxed), ..summary.unwrap_or_default() }
    }
}

/// Who is told.
fn couriers(options: &EventOptions, ongoing: &Ongoing, notes: &Notes) -> Result<Vec<Courier>, EventsError> {
    let mut couriers = Vec::new();
    if let Some(address) = &options.post {
        let post = Post::new(address).map_err(EventsError::of(address))?;
        couriers.push(Courier::start(format!("--post {address}"), post, notes.clone()));
    }
    if let Some(address) = &options.mqtt {
        let mqtt = Mqtt::connect(address, &options.rules, ongoing.clone())?;
        couriers.push(Courier::start(format!("--mqtt {address}"), mqtt, notes.clone()));
    }
    if let Some(program) = &options.run {
        couriers.push(Courier::start(format!("--run {program}"), Run::new(program.clone()), notes.clone()));
    }
    couriers.into_iter().collect::<Result<_, _>>().map_err(EventsError::Thread)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
