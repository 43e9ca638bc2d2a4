//! Threads that do a piece of work together, many times a second.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use yolo_lat_core::time::Instant;

/// How long a thread looks whether there is work before it gives its core away: a few steps of a network.
const SPIN: Duration = Duration::from_micros(50);

/// The calling thread and its helpers, which sleep while there is no work.
pub(super) struct Team {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
}

type Job = *const (dyn Fn(usize) + Sync);

struct Shared {
    /// The upper half counts openings and closings, so that it is odd while the job may be entered; the lower half counts the
    /// helpers inside. One that comes late finds it closed: nobody waits for a thread that has not begun.
    gate: AtomicU64,
    /// Valid while the gate is open or a helper is inside.
    job: UnsafeCell<Option<Job>>,
    ended: AtomicBool,
}

// SAFETY: the job is written only while the gate is closed and nobody inside, and read only inside; it is `Sync` itself.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

const OPENING: u64 = 1 << 32;

impl Team {
    /// The calling thread and `helpers` more.
    pub(super) fn new(helpers: usize) -> std::io::Result<Self> {
        let shared =
            Arc::new(Shared { gate: AtomicU64::new(0), job: UnsafeCell::new(None), ended: AtomicBool::new(false) });
        let mut team = Self { shared, helpers: Vec::with_capacity(helpers) };
        for index in 1..=helpers {
            let shared = team.shared.clone();
            let helper = std::thread::Builder::new().name(format!("yolo-lat-cpu-{index}"));
            team.helpers.push(helper.spawn(move || shared.help(index))?);
        }
        Ok(team)
    }

    /// Calls `job` with 0 on the calling thread and with numbers from 1 on helpers, on as many as come before the caller has
    /// finished, and returns when all have. A panic sets `failed`; `job` should look at it where it waits.
    pub(super) fn run(&mut self, failed: &AtomicBool, job: impl Fn(usize) + Sync) {
        let guarded = |index: usize| {
            if catch_unwind(AssertUnwindSafe(|| job(index))).is_err() {
                failed.store(true, Ordering::Relaxed);
            }
        };
        if self.helpers.is_empty() {
            return guarded(0);
        }
        let shared = &*self.shared;
        let erased: &(dyn Fn(usize) + Sync) = &guarded;
        // SAFETY: the gate is closed and nobody inside. The lifetime is erased; nobody is inside when this returns.
        unsafe { *shared.job.get() = Some(std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(erased)) };
        shared.gate.fetch_add(OPENING, Ordering::Release);
        self.helpers.iter().for_each(|helper| helper.thread().unpark());
        guarded(0);
        shared.gate.fetch_add(OPENING, Ordering::Relaxed);
        wait_until(|| shared.gate.load(Ordering::Acquire).is_multiple_of(OPENING));
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        for helper in self.helpers.drain(..) {
            helper.thread().unpark();
            // Panics of jobs are caught.
            let _ = helper.join();
        }
    }
}

impl Shared {
    fn help(&self, index: usize) {
        let mut served = 0;
        loop {
            let is_new = |gate: u64| gate / OPENING % 2 == 1 && gate / OPENING != served;
            let ended = || self.ended.load(Ordering::Relaxed);
            while !spin_until(|| is_new(self.gate.load(Ordering::Relaxed)) || ended()) {
                std::thread::park();
            }
            if ended() {
                return;
            }
            let gate = self.gate.load(Ordering::Relaxed);
            if is_new(gate) && self.gate.compare_exchange(gate, gate + 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                served = gate / OPENING;
                // SAFETY: the gate was open, and this thread is counted as inside.
                if let Some(job) = unsafe { *self.job.get() } {
                    // SAFETY: valid while somebody is inside.
                    unsafe { (*job)(index) };
                }
                self.gate.fetch_sub(1, Ordering::Release);
            }
        }
    }
}

/// Whether `condition` came true within [`SPIN`].
fn spin_until(condition: impl Fn() -> bool) -> bool {
    let mut start = None;
    loop {
        for _ in 0..32 {
            if condition() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.get_or_insert_with(Instant::now).elapsed() > SPIN {
            return condition();
        }
    }
}

/// Steps take microseconds, so waiting spins; where the machine has other work it gives the core away.
pub(super) fn wait_until(condition: impl Fn() -> bool) {
    if !spin_until(&condition) {
        while !condition() {
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn every_job_is_done_by_all_who_come_and_ends_before_it_returns() {
        for helpers in [0, 1, 3, 20] {
            let mut team = Team::new(helpers).unwrap();
            for round in 0..200 {
                let (next, done, failed) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
                team.run(&failed, |index| {
                    assert!(index <= helpers);
                    while next.fetch_add(1, Ordering::Relaxed) < 50 {
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    assert!(round % 10 != 9, "a job that panics");
                });
                assert_eq!((done.into_inner(), failed.into_inner()), (50, round % 10 == 9));
                if round % 50 == 0 {
                    // Long enough for helpers to fall asleep.
                    std::thread::sleep(4 * SPIN);
                }
            }
        }
    }
}
