//! How a session of `live` went.

use std::collections::VecDeque;
use std::time::Instant;

use yolo_lat_app::live::{LiveResult, percentile};

use super::lines::{age, milliseconds};

/// Ages of results, order of frames, and memory.
#[derive(Default)]
pub(super) struct Statistics {
    started: Option<Instant>,
    /// Milliseconds, of the last results.
    ages: VecDeque<f64>,
    pub(super) results: u64,
    skipped: u64,
    /// Number of the last frame of each source.
    last: Vec<Option<u64>>,
    out_of_order: u64,
    /// Bytes after the warm-up.
    warm: Option<u64>,
}

impl Statistics {
    /// Results after which everything is in place.
    const WARM_UP: u64 = 100;
    /// Ages that are kept.
    const AGES: usize = 100_000;

    pub(super) fn of(sources: usize) -> Self {
        Self { last: vec![None; sources], ..Self::default() }
    }

    pub(super) fn add(&mut self, result: &LiveResult) {
        self.started.get_or_insert_with(Instant::now);
        if self.ages.len() == Self::AGES {
            self.ages.pop_front();
        }
        self.ages.push_back(milliseconds(age(result)));
        self.results += 1;
        self.skipped += result.skipped;
        let sequence = result.captured.frame.sequence;
        let last = self.last[result.feed].replace(sequence);
        self.out_of_order += u64::from(last.is_some_and(|last| sequence <= last));
        if self.results == Self::WARM_UP {
            self.warm = crate::resident_bytes();
        }
    }

    pub(super) fn summary(&self) -> String {
        let seconds = self.started.map_or(0.0, |started| started.elapsed().as_secs_f64());
        let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|share| percentile(self.ages.iter().copied().collect(), share));
        let growth = self.warm.zip(crate::resident_bytes()).map(|(warm, now)| now as f64 - warm as f64);
        let growth = growth.map_or("not measured".into(), |bytes| format!("{:.2} MB", bytes / 1e6));
        format!(
            "{} results in {seconds:.1} s, {} frames skipped, {} out of order; age p50 {p50:.1}, p90 {p90:.1}, p99 {p99:.1} ms; \
             memory grew by {growth} after the first {}",
            self.results,
            self.skipped,
            self.out_of_order,
            Self::WARM_UP
        )
    }
}
