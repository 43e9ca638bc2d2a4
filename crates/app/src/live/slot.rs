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

    /// How many values were put so far.
    pub fn count(&self) -> u64 {
        self.lock().count
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

/// Reads several slots in fair turns: after one has had its turn, all others come before it.
#[derive(Debug)]
pub struct Turns {
    /// Of each slot, how many values had been put when it was read.
    seen: Vec<u64>,
    last: usize,
}

impl Turns {
    /// For so many slots, of which nothing has been read.
    pub fn new(slots: usize) -> Self {
        Self { seen: vec![0; slots], last: slots.saturating_sub(1) }
    }

    /// The next value that is new, its slot's number and how many came and went before it. `newer` reads a slot as
    /// [`Latest::newer`] does, and each `put` is followed by one to `bell`. Waits up to `patience`.
    pub fn next<T>(
        &mut self,
        bell: &Latest<()>,
        patience: Duration,
        newer: impl Fn(usize, u64) -> Option<(T, u64)>,
    ) -> Option<(usize, T, u64)> {
        let until = Instant::now() + patience;
        loop {
            let rung = bell.count();
            for turn in 1..=self.seen.len() {
                let index = (self.last + turn) % self.seen.len();
                if let Some((value, count)) = newer(index, self.seen[index]) {
                    let missed = count - self.seen[index] - 1;
                    (self.seen[index], self.last) = (count, index);
                    return Some((index, value, missed));
                }
            }
            bell.wait_newer(rung, until.saturating_duration_since(Instant::now()))?;
        }
    }

    /// How many values of a slot had been put when it was read.
    pub fn seen(&self, slot: usize) -> u64 {
        self.seen[slot]
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

    #[test]
    fn a_slot_that_is_always_full_does_not_starve_others() {
        let slots: [Latest<usize>; 3] = Default::default();
        let (bell, mut turns) = (Latest::default(), Turns::new(3));
        let mut served = Vec::new();
        for round in 0..6 {
            for (index, slot) in slots.iter().enumerate().filter(|(index, _)| *index == 0 || round == 0) {
                slot.put(Arc::new(index));
            }
            let (index, _, _) = turns.next(&bell, Duration::ZERO, |index, seen| slots[index].newer(seen)).unwrap();
            served.push(index);
        }
        assert_eq!(served, [0, 1, 2, 0, 0, 0]);
        slots[2].put(Arc::new(7));
        slots[2].put(Arc::new(8));
        let (index, value, missed) = turns.next(&bell, Duration::ZERO, |index, seen| slots[index].newer(seen)).unwrap();
        assert_eq!((index, *value, missed), (2, 8, 1));
        assert!(turns.next(&bell, Duration::ZERO, |index, seen| slots[index].newer(seen)).is_none());
    }
}
