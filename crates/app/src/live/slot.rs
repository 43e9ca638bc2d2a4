//! Where a thread leaves its newest value for others: never a queue, so nobody works on what is old.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Holds the newest value. Readers remember how many they have seen; what they missed in between, they can count.
#[derive(Debug)]
pub struct Latest<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    value: Option<Arc<T>>,
    /// How many values were put so far.
    count: u64,
    closed: bool,
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State { value: None, count: 0, closed: false }), changed: Condvar::new() }
    }
}

impl<T> Latest<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the value, and opens the slot again where another source follows one that ended; never waits for a reader.
    pub fn put(&self, value: Arc<T>) {
        let mut state = self.lock();
        state.value = Some(value);
        state.count += 1;
        state.closed = false;
        self.changed.notify_all();
    }

    /// No more values will come; the last one stays.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Whether no more values will come.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// The newest value if more than `seen` were put, and their number; does not wait.
    pub fn newer(&self, seen: u64) -> Option<(Arc<T>, u64)> {
        let state = self.lock();
        state.value.clone().filter(|_| state.count > seen).map(|value| (value, state.count))
    }

    /// The same, waiting up to `patience` for it.
    pub fn wait_newer(&self, seen: u64, patience: Duration) -> Option<(Arc<T>, u64)> {
        let until = Instant::now() + patience;
        let mut state = self.lock();
        while state.count <= seen && !state.closed {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.value.clone().filter(|_| state.count > seen).map(|value| (value, state.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_is_seen_and_misses_can_be_counted() {
        let slot = Latest::default();
        assert!(slot.newer(0).is_none());
        for value in 1..=5 {
            slot.put(Arc::new(value));
        }
        let (value, seen) = slot.newer(0).unwrap();
        assert_eq!((*value, seen), (5, 5));
        assert!(slot.newer(seen).is_none());
        slot.close();
        assert!(slot.wait_newer(seen, Duration::from_secs(60)).is_none());
        assert_eq!(*slot.wait_newer(0, Duration::ZERO).unwrap().0, 5);
        slot.put(Arc::new(6));
        assert!(!slot.is_closed());
    }

    #[test]
    fn a_reader_wakes_when_something_comes() {
        let slot = Arc::new(Latest::default());
        let writer = slot.clone();
        let thread = std::thread::spawn(move || writer.put(Arc::new("frame")));
        assert_eq!(*slot.wait_newer(0, Duration::from_secs(60)).unwrap().0, "frame");
        thread.join().unwrap();
    }
}
