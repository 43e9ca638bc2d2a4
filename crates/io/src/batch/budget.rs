//! How much memory decoded images may take together: large ones wait for each other.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Handed out in the order of the inputs. What an input waits for is held by earlier ones, which are written without it: so none waits
/// for ever.
pub(super) struct Budget {
    limit: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The input whose turn it is.
    next: usize,
    used: u64,
    is_closed: bool,
}

/// Bytes of an image, given back when it is gone.
pub(super) struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, state: Mutex::default(), changed: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn of input `index`, which each must take once, and until there is room for so many bytes or nothing else is
    /// there. `None` when nothing more is wanted.
    pub(super) fn take(self: &Arc<Self>, index: usize, bytes: u64) -> Option<Share> {
        let must_wait = |state: &mut State| {
            !state.is_closed && (state.next != index || (state.used > 0 && state.used + bytes > self.limit))
        };
        let waited = self.changed.wait_while(self.state(), must_wait);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        if state.is_closed {
            return None;
        }
        state.next += 1;
        state.used += bytes;
        drop(state);
        self.changed.notify_all();
        Some(Share { budget: self.clone(), bytes })
    }

    /// Until what this gives is dropped, what is loaded is wanted.
    pub(super) fn open(self: &Arc<Self>) -> Open {
        Open(self.clone())
    }
}

/// Whoever takes what is loaded.
pub(super) struct Open(Arc<Budget>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.state().is_closed = true;
        self.0.changed.notify_all();
    }
}

impl Share {
    /// Gives back all but so many bytes.
    pub(super) fn keep(&mut self, bytes: u64) {
        self.budget.state().used -= self.bytes.saturating_sub(bytes);
        self.bytes = self.bytes.min(bytes);
        self.budget.changed.notify_all();
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.state().used -= self.bytes;
        self.budget.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn images_take_turns_and_never_more_than_there_is() {
        let budget = Budget::new(100);
        let (sender, receiver) = channel();
        std::thread::scope(|scope| {
            // The last begins first: it must wait for its turn all the same.
            for index in (0..40usize).rev() {
                let (budget, sender) = (budget.clone(), sender.clone());
                scope.spawn(move || {
                    let bytes = if index % 7 == 0 { 250 } else { 30 };
                    let share = budget.take(index, bytes).unwrap();
                    let used = budget.state().used;
                    assert!(used <= 100 || used == bytes, "{used}");
                    sender.send((index, share)).unwrap();
                });
            }
            drop(sender);
            let order: Vec<usize> = receiver.iter().map(|(index, _)| index).collect();
            assert_eq!(order.len(), 40);
        });
        let state = budget.state();
        assert_eq!((state.used, state.next), (0, 40));
    }

    #[test]
    fn who_waits_when_nothing_more_is_wanted_goes_away() {
        let budget = Budget::new(100);
        let open = budget.open();
        let first = budget.take(0, 100);
        std::thread::scope(|scope| {
            let waiting = [1, 5].map(|index| {
                let budget = budget.clone();
                scope.spawn(move || budget.take(index, 100).is_none())
            });
            drop(open);
            assert!(waiting.into_iter().all(|thread| thread.join().unwrap()));
        });
        drop(first);
    }
}
