//! The last seconds as JPEG, from which clips take what was before them and what comes while they go on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// How often a reader looks whether the source has stopped giving frames.
const STEP: Duration = Duration::from_millis(100);
/// Frames that are so late do not come any more.
const OVERDUE: Duration = Duration::from_secs(1);

/// An image as JPEG.
#[derive(Debug)]
pub(super) struct Encoded {
    /// When it was taken, since the Unix epoch.
    pub(super) time: Duration,
    pub(super) jpeg: Vec<u8>,
}

/// Frames of one source, within a limit of time and of memory.
#[derive(Debug)]
pub(super) struct Ring {
    state: Mutex<State>,
    changed: Condvar,
    /// How long a frame stays that no clip waits for.
    keep: Duration,
    /// Bytes of all frames, whoever waits for them.
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Arc<Encoded>>,
    /// Number of the first frame.
    first: u64,
    bytes: usize,
    readers: BTreeMap<u64, Reading>,
    /// Frames that clips wanted and did not get for want of memory.
    lost: u64,
    closed: bool,
}

/// Where a clip stands.
#[derive(Debug)]
struct Reading {
    /// Number of the next frame.
    next: u64,
    /// The clip takes frames up to here.
    until: Duration,
    /// `until` does not change any more.
    ended: bool,
}

impl Ring {
    pub(super) fn new(keep: Duration, limit: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), keep, limit }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a frame, and lets go what is too old or too much.
    pub(super) fn push(&self, frame: Encoded) {
        let mut state = self.lock();
        let oldest = frame.time.saturating_sub(self.keep);
        state.bytes += frame.jpeg.len();
        state.frames.push_back(Arc::new(frame));
        // The last one before the limit of time is what was seen at that time.
        while let Some(is_recent) = state.frames.get(1).map(|second| second.time > oldest) {
            let wanted = state.readers.values().any(|reader| reader.next <= state.first);
            if state.bytes <= self.limit && (wanted || is_recent) {
                break;
            }
            state.bytes -= state.frames[0].jpeg.len();
            state.lost += u64::from(wanted);
            state.first += 1;
            state.frames.pop_front();
        }
        self.changed.notify_all();
    }

    /// No more frames come.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// A reader of what was seen from `start` on, up to `until` for now; and the time of its first frame, or `start`.
    pub(super) fn read(self: &Arc<Self>, start: Duration, until: Duration) -> Reader {
        let mut state = self.lock();
        let before = state.frames.partition_point(|frame| frame.time <= start).saturating_sub(1);
        let start = state.frames.get(before).map_or(start, |frame| frame.time.max(start));
        let id = state.readers.last_key_value().map_or(0, |(id, _)| id + 1);
        let next = state.first + before as u64;
        state.readers.insert(id, Reading { next, until, ended: false });
        Reader { ring: self.clone(), id, start }
    }

    /// Frames that clips did not get because the memory was full.
    pub(super) fn lost(&self) -> u64 {
        self.lock().lost
    }

    /// How far reader `id` may go, and whether it ends there.
    pub(super) fn extend(&self, id: u64, until: Duration, ended: bool) {
        if let Some(reading) = self.lock().readers.get_mut(&id) {
            (reading.until, reading.ended) = (until, ended);
        }
        self.changed.notify_all();
    }
}

/// Takes frames in order, each once; frames that it has not taken stay as far as the memory goes.
#[derive(Debug)]
pub(super) struct Reader {
    ring: Arc<Ring>,
    pub(super) id: u64,
    /// When the clip begins.
    pub(super) start: Duration,
}

impl Reader {
    /// The next frame, waiting for it; `None` at the end.
    pub(super) fn next(&mut self) -> Option<Arc<Encoded>> {
        let mut state = self.ring.lock();
        loop {
            let State { frames, first, readers, closed, .. } = &mut *state;
            let reading = readers.get_mut(&self.id)?;
            reading.next = reading.next.max(*first);
            match frames.get((reading.next - *first) as usize) {
                Some(frame) if frame.time <= reading.until => {
                    reading.next += 1;
                    return Some(frame.clone());
                }
                Some(_) if reading.ended => return None,
                None if reading.ended && (*closed || is_overdue(reading.until)) => return None,
                _ => {}
            }
            state = self.ring.changed.wait_timeout(state, STEP).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// From the start of the clip to its end; `None` where the frames ended before.
    pub(super) fn length(&self) -> Option<Duration> {
        let state = self.ring.lock();
        let until = state.readers.get(&self.id)?.until;
        let ended_before = state.closed && state.frames.back().is_none_or(|last| last.time < until);
        (!ended_before).then(|| until.saturating_sub(self.start))
    }
}

fn is_overdue(time: Duration) -> bool {
    SystemTime::UNIX_EPOCH.elapsed().is_ok_and(|now| now > time + OVERDUE)
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.ring.lock().readers.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(second: u64, bytes: usize) -> Encoded {
        Encoded { time: Duration::from_secs(second), jpeg: vec![0; bytes] }
    }

    fn rest(reader: &mut Reader) -> Vec<u64> {
        std::iter::from_fn(|| reader.next()).map(|frame| frame.time.as_secs()).collect()
    }

    #[test]
    fn a_clip_takes_what_was_before_it_and_what_comes_while_it_goes_on() {
        let ring = Arc::new(Ring::new(Duration::from_secs(3), 1000));
        (0..10).for_each(|second| ring.push(frame(second, 10)));
        let seconds = Duration::from_secs;
        let mut reader = ring.read(seconds(7), seconds(9));
        let early = ring.read(seconds(1), seconds(9));
        assert_eq!((reader.start, early.start), (seconds(7), seconds(6)), "as far back as frames are kept");
        drop(early);
        assert_eq!(reader.next().unwrap().time, seconds(7));
        (10..30).for_each(|second| ring.push(frame(second, 10)));
        ring.extend(reader.id, seconds(12), true);
        assert_eq!(rest(&mut reader), [8, 9, 10, 11, 12]);
        assert_eq!(reader.length(), Some(seconds(5)));
        drop(reader);
        assert_eq!(ring.lost(), 0);
    }

    #[test]
    fn a_clip_between_two_frames_begins_with_what_was_to_be_seen_then() {
        let ring = Arc::new(Ring::new(Duration::from_secs(60), 1000));
        [0, 10, 20].iter().for_each(|&second| ring.push(frame(second, 10)));
        let mut reader = ring.read(Duration::from_secs(15), Duration::from_secs(17));
        ring.extend(reader.id, Duration::from_secs(17), true);
        assert_eq!(reader.start, Duration::from_secs(15));
        assert_eq!(rest(&mut reader), [10]);
        assert_eq!(reader.length(), Some(Duration::from_secs(2)));
    }

    #[test]
    fn memory_has_a_limit_and_what_a_clip_misses_is_counted() {
        let ring = Arc::new(Ring::new(Duration::from_secs(60), 100));
        (0..20).for_each(|second| ring.push(frame(second, 10)));
        let mut reader = ring.read(Duration::ZERO, Duration::from_secs(30));
        assert_eq!(reader.start, Duration::from_secs(10), "ten frames fit");
        (20..25).for_each(|second| ring.push(frame(second, 10)));
        assert_eq!(ring.lost(), 5);
        ring.extend(reader.id, Duration::from_secs(30), true);
        ring.close();
        assert_eq!(rest(&mut reader), (15..25).collect::<Vec<_>>());
        assert_eq!(reader.length(), None, "the frames ended before");
    }

    #[test]
    fn a_source_that_stops_ends_a_clip() {
        let ring = Arc::new(Ring::new(Duration::from_secs(60), 100));
        ring.push(frame(0, 10));
        let mut reader = ring.read(Duration::ZERO, Duration::from_secs(5));
        ring.extend(reader.id, Duration::from_secs(5), true);
        assert_eq!(rest(&mut reader), [0]);
        assert_eq!(reader.length(), Some(Duration::from_secs(5)), "the last image stays to be seen");
    }
}
