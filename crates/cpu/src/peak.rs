//! What the processor could do at best: the measure of every kernel.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Duration;

use yolo_lat_core::time::Instant;
use yolo_lat_simd::{InstructionSet, Simd, Work, dispatch};

/// Independent sums: a multiply-add takes four cycles and two start in each, and as many fit the registers of every set.
const CHAINS: usize = 12;

/// Chains of multiply-adds that never leave the registers.
struct Chains {
    steps: usize,
}

impl Work for Chains {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller's; no memory is touched.
        unsafe {
            let (factor, addend) = (S::splat(black_box(0.5)), S::splat(black_box(1.0)));
            let mut sums = [S::splat(black_box(1.0)); CHAINS];
            for _ in 0..self.steps {
                for sum in &mut sums {
                    *sum = S::fma(*sum, factor, addend);
                }
            }
            black_box(sums.map(|sum| S::sum(sum)));
        }
    }
}

/// Most GFLOP/s that `threads` threads reach together with `set` in registers, the best of some rounds: 40 ms on a quiet machine.
/// Hardware threads of one core share its units, so twice the threads may reach no more.
pub fn peak_gflops(set: InstructionSet, threads: usize) -> f64 {
    const ROUNDS: usize = 20;
    let set = if InstructionSet::available().contains(&set) { set } else { InstructionSet::Plain };
    let time = |steps: usize| {
        let start = Instant::now();
        // SAFETY: the set is available.
        unsafe { dispatch(set, Chains { steps }) };
        start.elapsed()
    };
    // About two milliseconds each: long beside the wait for the others.
    let tried = (0..5).map(|_| time(10_000)).min().unwrap_or_default().as_secs_f64();
    let steps = (10_000.0 * 2e-3 / tried.max(1e-6)) as usize + 1;
    let barrier = Barrier::new(threads);
    let rounds = || -> Vec<Duration> {
        let round = |_| {
            barrier.wait();
            time(steps)
        };
        (0..ROUNDS).map(round).collect()
    };
    let times: Vec<Vec<Duration>> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(rounds)).collect();
        let own = rounds();
        others.into_iter().filter_map(|other| other.join().ok()).chain([own]).collect()
    });
    // A round is as long as its slowest thread.
    let slowest = (0..ROUNDS).filter_map(|round| times.iter().map(|times| times[round]).max());
    let best = slowest.min().unwrap_or_default().as_secs_f64().max(1e-9);
    2e-9 * (threads * steps * CHAINS * set.lanes()) as f64 / best
}
