//! Loads items in parallel, ahead of their use, and hands them out in order.
//!
//! Worker `w` of `n` loads items `w, w + n, w + 2n, ...` into a short queue of its own, and the reader takes from the
//! queues in turn: order is kept and memory bounded without any reordering.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::{Builder, Scope};

/// Items waiting in each worker's queue.
const QUEUE: usize = 2;

/// A stream of items that threads load ahead of their reader.
pub struct Prefetch<T> {
    queues: Vec<Receiver<T>>,
    next: usize,
    count: usize,
}

impl<T: Send> Prefetch<T> {
    /// Loads items `0..count` on `workers` threads until `stop` is set.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn new(
        count: usize,
        workers: usize,
        stop: Arc<AtomicBool>,
        load: impl Fn(usize) -> T + Send + Sync + 'static,
    ) -> std::io::Result<Self>
    where
        T: 'static,
    {
        let load = Arc::new(load);
        Self::start(count, workers, |name, items, sender| {
            let (load, stop) = (load.clone(), stop.clone());
            name.spawn(move || feed(items, &sender, &stop, &*load)).map(drop)
        })
    }

    /// The same on threads of a scope, which may borrow.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn scoped<'scope>(
        scope: &'scope Scope<'scope, '_>,
        count: usize,
        workers: usize,
        stop: Arc<AtomicBool>,
        load: impl Fn(usize) -> T + Send + Sync + 'scope,
    ) -> std::io::Result<Self>
    where
        T: 'scope,
    {
        let load = Arc::new(load);
        Self::start(count, workers, |name, items, sender| {
            let (load, stop) = (load.clone(), stop.clone());
            name.spawn_scoped(scope, move || feed(items, &sender, &stop, &*load)).map(drop)
        })
    }

    fn start(
        count: usize,
        workers: usize,
        spawn: impl Fn(Builder, Items, SyncSender<T>) -> std::io::Result<()>,
    ) -> std::io::Result<Self> {
        let workers = workers.clamp(1, count.max(1));
        let start = |worker: usize| {
            let (sender, receiver) = sync_channel(QUEUE);
            spawn(Builder::new().name(format!("load {worker}")), (worker..count).step_by(workers), sender)?;
            Ok(receiver)
        };
        let queues = (0..workers).map(start).collect::<std::io::Result<_>>()?;
        Ok(Self { queues, next: 0, count })
    }

    /// The next item and its index; waits for it. `None` at the end or after `stop`.
    pub fn next_item(&mut self) -> Option<(usize, T)> {
        if self.next >= self.count {
            return None;
        }
        let item = self.queues[self.next % self.queues.len()].recv().ok()?;
        self.next += 1;
        Some((self.next - 1, item))
    }

    /// Up to `most` items: waits for the first and takes what else is ready. Empty at the end.
    pub fn next_batch(&mut self, most: usize) -> Vec<(usize, T)> {
        let mut batch: Vec<(usize, T)> = self.next_item().into_iter().collect();
        while !batch.is_empty() && batch.len() < most && self.next < self.count {
            match self.queues[self.next % self.queues.len()].try_recv() {
                Ok(item) => batch.push((self.next, item)),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
            self.next += 1;
        }
        batch
    }
}

/// What one worker loads.
type Items = std::iter::StepBy<std::ops::Range<usize>>;

fn feed<T>(items: Items, sender: &SyncSender<T>, stop: &AtomicBool, load: &(impl Fn(usize) -> T + ?Sized)) {
    for item in items {
        if stop.load(Ordering::Relaxed) || sender.send(load(item)).is_err() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_in_order_whatever_they_cost() {
        let load = |item: usize| {
            (0..(item * 7919) % 5000).fold(0u64, |sum, x| std::hint::black_box(sum + x as u64));
            item
        };
        let mut prefetch = Prefetch::new(100, 3, Arc::default(), load).unwrap();
        let mut seen = Vec::new();
        loop {
            let batch = prefetch.next_batch(4);
            if batch.is_empty() {
                break;
            }
            seen.extend(batch);
        }
        assert_eq!(seen, (0..100).map(|item| (item, item)).collect::<Vec<_>>());
    }

    #[test]
    fn stopping_ends_the_stream() {
        let stop = Arc::new(AtomicBool::new(true));
        assert!(Prefetch::new(10, 2, stop, |item| item).unwrap().next_item().is_none());
    }
}
