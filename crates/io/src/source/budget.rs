//! How much memory decoded images may take together: large ones wait for each other.

use std::ops::Deref;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use image::RgbImage;

use super::images::{SourceError, decode_image, memory_of, read};

/// Bytes for each thread that loads: two images of 12 megapixels.
const OF_THREAD: u64 = 72 << 20;
/// Threads that there is memory for in any case: enough for one image of 64 megapixels.
const FOR_THREADS: usize = 3;

/// Handed out in the order of the inputs. What an input waits for is held by earlier ones, which are done without it: so none waits
/// for ever.
pub struct Budget {
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
pub(crate) struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// Of so many bytes; an input that needs more is alone.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, state: Mutex::default(), changed: Condvar::new() })
    }

    /// Bytes that suit so many threads which load.
    pub fn bytes_for(threads: usize) -> u64 {
        OF_THREAD * threads.max(FOR_THREADS) as u64
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn of input `index`, which each must take once, and until there is room for so many bytes or nothing else is
    /// there. `None` when nothing more is wanted.
    pub(crate) fn take(self: &Arc<Self>, index: usize, bytes: u64) -> Option<Share> {
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

    /// An image that `make` decodes in at most so many bytes, when it is the turn of input `index` and there is room.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn hold<E>(
        self: &Arc<Self>,
        index: usize,
        bytes: u64,
        make: impl FnOnce() -> Result<RgbImage, E>,
    ) -> Result<Held, E> {
        let mut share = self.take(index, bytes);
        let pixels = make()?;
        if let Some(share) = &mut share {
            share.keep(pixels.as_raw().len() as u64);
        }
        Ok(Held { pixels, _share: share })
    }

    /// The image of input `index`, of which these are the file's bytes: [`decode_image`], as above.
    ///
    /// # Errors
    /// [`SourceError`], which does not repeat the input.
    pub fn decode_image(self: &Arc<Self>, index: usize, bytes: &[u8]) -> Result<Held, SourceError> {
        self.hold(index, memory_of(bytes), || decode_image(bytes))
    }

    /// The same of a file on disk.
    ///
    /// # Errors
    /// [`SourceError`], which does not repeat the path.
    pub fn open_image(self: &Arc<Self>, index: usize, path: &Path) -> Result<Held, SourceError> {
        match read(path) {
            Ok(bytes) => self.decode_image(index, &bytes),
            // Whatever it is: those after it wait for its turn.
            Err(error) => self.hold(index, 0, || Err(error)),
        }
    }

    /// Until what this gives is dropped, what is loaded is wanted.
    pub fn open(self: &Arc<Self>) -> Open {
        Open(self.clone())
    }
}

/// An image with its share of the budget.
pub struct Held {
    pixels: RgbImage,
    _share: Option<Share>,
}

impl Deref for Held {
    type Target = RgbImage;

    fn deref(&self) -> &RgbImage {
        &self.pixels
    }
}

/// Whoever takes what is loaded.
pub struct Open(Arc<Budget>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.state().is_closed = true;
        self.0.changed.notify_all();
    }
}

impl Share {
    /// Gives back all but so many bytes.
    pub(crate) fn keep(&mut self, bytes: u64) {
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
