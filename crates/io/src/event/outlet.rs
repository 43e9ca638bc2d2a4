//! Who is told of events, each in a thread of its own behind a short queue: whoever is slow or gone loses messages, which are
//! counted, and holds nobody up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::lock;
use super::message::{Kind, Message};

/// Messages that may wait for one outlet.
pub const QUEUE: usize = 64;
/// How often a waiting thread looks whether it shall stop.
pub(super) const STEP: Duration = Duration::from_millis(20);
/// How often an outlet without messages is asked how it is.
const HEALTH: Duration = Duration::from_millis(200);

/// Where messages go.
pub(super) trait Outlet: Send {
    /// Whether it is told of this.
    fn takes(kind: Kind) -> bool
    where
        Self: Sized;

    /// Delivers a message, in a limited time and soon after `stop` is set; or says why it is lost.
    fn deliver(&mut self, message: &Message, stop: &AtomicBool) -> Result<(), String>;

    /// Whether messages would arrive, where that is known without one.
    fn health(&mut self) -> Option<Result<(), String>> {
        None
    }

    /// No message comes any more.
    fn end(&mut self, _stop: &AtomicBool) {}
}

/// A line for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Whether something went wrong.
    pub is_error: bool,
    /// What.
    pub line: String,
}

/// Lines for people, until somebody takes them.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes(Arc<Mutex<Vec<Note>>>);

impl Notes {
    pub(super) fn add(&self, is_error: bool, line: String) {
        lock(&self.0).push(Note { is_error, line });
    }

    pub(super) fn take(&self) -> Vec<Note> {
        std::mem::take(&mut lock(&self.0))
    }
}

/// How many messages went where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deliveries {
    /// Whom they were for, without secrets.
    pub name: String,
    /// Messages that arrived.
    pub delivered: u64,
    /// Messages that did not.
    pub lost: u64,
}

/// An outlet with its queue and thread.
pub(super) struct Courier {
    name: String,
    takes: fn(Kind) -> bool,
    sender: Option<SyncSender<Arc<Message>>>,
    offered: u64,
    delivered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    failures: Failures,
    thread: JoinHandle<()>,
}

/// What went wrong with an outlet, said once and not each time.
#[derive(Clone)]
struct Failures {
    name: String,
    fails: Arc<AtomicBool>,
    notes: Notes,
}

impl Failures {
    fn tell(&self, outcome: Result<(), &str>) {
        let fails = self.fails.swap(outcome.is_err(), Ordering::Relaxed);
        match outcome {
            Ok(()) if fails => self.notes.add(false, format!("{}: works again", self.name)),
            Err(reason) if !fails => {
                self.notes.add(true, format!("{}: {reason}; what it misses is counted", self.name));
            }
            _ => {}
        }
    }
}

impl Courier {
    /// Starts the thread; `name` is what people know the outlet by.
    pub(super) fn start<O: Outlet + 'static>(name: String, mut outlet: O, notes: Notes) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE);
        let (delivered, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let failures = Failures { name: name.clone(), fails: Arc::default(), notes };
        let thread = {
            let (delivered, stop, failures) = (delivered.clone(), stop.clone(), failures.clone());
            let run = move || run(&mut outlet, &receiver, &delivered, &stop, &failures);
            std::thread::Builder::new().name("events out".into()).spawn(run)?
        };
        Ok(Self { name, takes: O::takes, sender: Some(sender), offered: 0, delivered, stop, failures, thread })
    }

    /// Gives a message to the outlet if it takes such; never waits.
    pub(super) fn offer(&mut self, message: &Arc<Message>) {
        if (self.takes)(message.kind) {
            self.offered += 1;
            // One that finds no room is lost: it was offered and never counts as delivered.
            let _ = self.sender.as_ref().map(|sender| sender.try_send(message.clone()));
        }
    }

    /// No more messages come.
    pub(super) fn close(&mut self) {
        self.sender = None;
    }

    /// Waits until `until` for what is on its way; a thread that hangs is left behind, which is said.
    pub(super) fn finish(mut self, until: Instant) -> Deliveries {
        self.close();
        let wait = |until: Instant| {
            while !self.thread.is_finished() && Instant::now() < until {
                std::thread::sleep(STEP);
            }
        };
        wait(until);
        self.stop.store(true, Ordering::Relaxed);
        wait(Instant::now() + 10 * STEP);
        if !self.thread.is_finished() {
            self.failures.tell(Err("no answer until the end"));
        }
        let delivered = self.delivered.load(Ordering::Relaxed);
        Deliveries { name: self.name, delivered, lost: self.offered - delivered }
    }
}

fn run(
    outlet: &mut dyn Outlet,
    messages: &Receiver<Arc<Message>>,
    delivered: &AtomicU64,
    stop: &AtomicBool,
    failures: &Failures,
) {
    let tell = |outcome: Result<(), String>| failures.tell(outcome.as_ref().map(|_| ()).map_err(String::as_str));
    loop {
        match messages.recv_timeout(HEALTH) {
            Ok(message) => {
                let outcome = outlet.deliver(&message, stop);
                delivered.fetch_add(u64::from(outcome.is_ok()), Ordering::Relaxed);
                tell(outcome);
            }
            Err(RecvTimeoutError::Timeout) => outlet.health().into_iter().for_each(tell),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    outlet.end(stop);
}

#[cfg(test)]
mod tests {
    use super::super::tests::message;
    use super::*;

    /// Takes what it is told to, and fails when its list says so.
    struct Listed(Vec<bool>);

    impl Outlet for Listed {
        fn takes(kind: Kind) -> bool {
            kind != Kind::Update
        }

        fn deliver(&mut self, _: &Message, _: &AtomicBool) -> Result<(), String> {
            if self.0.remove(0) { Ok(()) } else { Err("gone".into()) }
        }
    }

    /// Never gets anything done before it is told to stop.
    struct Hanging;

    impl Outlet for Hanging {
        fn takes(_: Kind) -> bool {
            true
        }

        fn deliver(&mut self, _: &Message, stop: &AtomicBool) -> Result<(), String> {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(STEP);
            }
            Err("stopped".into())
        }
    }

    #[test]
    fn what_fails_is_said_once_and_counted() {
        let notes = Notes::default();
        let outcomes = vec![true, false, false, true, false];
        let mut courier = Courier::start("--post h".into(), Listed(outcomes), notes.clone()).unwrap();
        for kind in [Kind::New, Kind::End, Kind::Update, Kind::New, Kind::End, Kind::Clip] {
            courier.offer(&Arc::new(message(kind)));
        }
        let deliveries = courier.finish(Instant::now() + Duration::from_secs(60));
        assert_eq!(deliveries, Deliveries { name: "--post h".into(), delivered: 2, lost: 3 });
        let lines: Vec<_> = notes.take().into_iter().map(|note| note.line).collect();
        let fails = "--post h: gone; what it misses is counted";
        assert_eq!(lines, [fails, "--post h: works again", fails]);
    }

    #[test]
    fn who_hangs_holds_nobody_up_and_loses_what_finds_no_room() {
        let mut courier = Courier::start("--run x".into(), Hanging, Notes::default()).unwrap();
        let offered = 3 * QUEUE as u64;
        for _ in 0..offered {
            courier.offer(&Arc::new(message(Kind::New)));
        }
        assert_eq!(courier.finish(Instant::now()).lost, offered);
    }

    /// Fails at once with the first message and hears nothing with the second, until it is let go.
    struct Deaf(Receiver<()>, u32);

    impl Outlet for Deaf {
        fn takes(_: Kind) -> bool {
            true
        }

        fn deliver(&mut self, _: &Message, _: &AtomicBool) -> Result<(), String> {
            self.1 += 1;
            if self.1 > 1 {
                let _ = self.0.recv();
            }
            Err("gone".into())
        }
    }

    #[test]
    fn who_is_left_behind_is_named_once() {
        for (before, wanted) in [(1, "no answer until the end"), (0, "gone")] {
            let ((let_go, wait), notes) = (std::sync::mpsc::channel(), Notes::default());
            let mut courier = Courier::start("--post h".into(), Deaf(wait, before), notes.clone()).unwrap();
            for _ in 0..2 {
                courier.offer(&Arc::new(message(Kind::New)));
            }
            let deliveries = courier.finish(Instant::now() + 10 * STEP);
            assert_eq!((deliveries.delivered, deliveries.lost), (0, 2));
            let lines: Vec<_> = notes.take().into_iter().map(|note| note.line).collect();
            assert_eq!(lines, [format!("--post h: {wanted}; what it misses is counted")]);
            drop(let_go);
        }
    }
}
