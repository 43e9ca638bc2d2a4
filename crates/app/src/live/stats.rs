//! Times of the last seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Times of one shown result.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Reading and decoding the frame.
    pub capture: Duration,
    /// Bringing it to the GPU.
    pub upload: Duration,
    /// Resizing into the network's input.
    pub letterbox: Duration,
    /// The network; on a GPU with letterbox and suppression.
    pub network: Duration,
    /// Decoding and suppression.
    pub postprocess: Duration,
    /// Drawing the window.
    pub draw: Duration,
    /// From the capture to the moment the boxes could be seen.
    pub age: Duration,
}

impl Sample {
    /// Names of the stages, in order.
    pub const STAGES: [&str; 6] = ["capture", "upload", "letterbox", "network", "decode + NMS", "draw"];

    /// Milliseconds of each stage.
    pub fn stages_ms(&self) -> [f64; 6] {
        let Self { capture, upload, letterbox, network, postprocess, draw, .. } = *self;
        [capture, upload, letterbox, network, postprocess, draw].map(|time| time.as_secs_f64() * 1e3)
    }
}

/// Samples of the last seconds.
#[derive(Debug)]
pub struct History {
    span: Duration,
    samples: VecDeque<(Instant, Sample)>,
}

impl History {
    /// Keeps what is at most `span` old.
    pub fn new(span: Duration) -> Self {
        Self { span, samples: VecDeque::new() }
    }

    /// Adds a sample.
    pub fn push(&mut self, at: Instant, sample: Sample) {
        self.samples.push_back((at, sample));
        while self.samples.front().is_some_and(|(first, _)| at.saturating_duration_since(*first) > self.span) {
            self.samples.pop_front();
        }
    }

    /// All samples, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &(Instant, Sample)> {
        self.samples.iter()
    }

    /// The newest sample.
    pub fn last(&self) -> Option<&Sample> {
        self.samples.back().map(|(_, sample)| sample)
    }

    /// Samples a second.
    pub fn rate(&self) -> f64 {
        match (self.samples.front(), self.samples.back()) {
            (Some((first, _)), Some((last, _))) if last > first => {
                (self.samples.len() - 1) as f64 / (*last - *first).as_secs_f64()
            }
            _ => 0.0,
        }
    }

    /// Milliseconds that a share of all ages does not exceed.
    pub fn age_ms(&self, share: f64) -> f64 {
        percentile(self.samples.iter().map(|(_, sample)| sample.age.as_secs_f64() * 1e3).collect(), share)
    }
}

/// The value that a share (0..=1) of all does not exceed; 0 of none.
pub fn percentile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get(((share * values.len() as f64).ceil() as usize).saturating_sub(1).min(last)).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_few_and_many() {
        assert_eq!(percentile(vec![], 0.5), 0.0);
        assert_eq!(percentile(vec![3.0], 0.99), 3.0);
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!([0.0, 0.5, 0.9, 1.0].map(|share| percentile(hundred.clone(), share)), [1.0, 50.0, 90.0, 100.0]);
    }

    #[test]
    fn old_samples_are_forgotten() {
        let (mut history, start) = (History::new(Duration::from_secs(10)), Instant::now());
        for second in 0..=20 {
            let sample = Sample { age: Duration::from_millis(second), ..Sample::default() };
            history.push(start + Duration::from_secs(second), sample);
        }
        assert_eq!(history.iter().count(), 11);
        assert!((history.rate() - 1.0).abs() < 1e-9);
        assert_eq!(history.age_ms(1.0), 20.0);
    }
}
