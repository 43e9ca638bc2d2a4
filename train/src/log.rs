//! What a run tells: sums over some steps, for the progress bar and the log; the time that is left, where there is no bar.

use std::time::{Duration, Instant};

use crate::loss::Loss;

/// Writes a line to standard error.
pub(crate) fn say(line: &str) {
    // A closed standard error is no reason to stop.
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{line}\n"));
}

/// Sums over steps.
#[derive(Default)]
pub(crate) struct Sums {
    start: Option<Instant>,
    images: usize,
    batches: usize,
    class: f64,
    boxes: f64,
    distribution: f64,
    teacher: f64,
    distillation: f64,
    /// Time the steps waited for data.
    pub(crate) waited: Duration,
}

impl Sums {
    /// Counts a batch of `images` images.
    pub(crate) fn add(&mut self, loss: &Loss, images: usize) {
        self.start.get_or_insert_with(Instant::now);
        self.images += images;
        self.batches += 1;
        self.class += loss.class;
        self.boxes += loss.boxes;
        self.distribution += loss.distribution;
        self.teacher += loss.teacher;
        self.distillation += loss.distillation;
    }

    fn mean(&self, sum: f64) -> f64 {
        (sum / self.batches.max(1) as f64 * 1e4).round() / 1e4
    }

    fn images_per_second(&self) -> f64 {
        let seconds = self.start.map_or(0.0, |start| start.elapsed().as_secs_f64());
        (self.images as f64 / seconds.max(1e-3) * 10.0).round() / 10.0
    }

    /// A line of the log: means of the loss parts, speed, seconds of waiting.
    pub(crate) fn as_json(&self, step: usize) -> serde_json::Value {
        serde_json::json!({
            "step": step, "class": self.mean(self.class), "box": self.mean(self.boxes),
            "distribution": self.mean(self.distribution), "teacher": self.mean(self.teacher),
            "distillation": self.mean(self.distillation),
            "images_per_second": self.images_per_second(),
            "waited_seconds": (self.waited.as_secs_f64() * 100.0).round() / 100.0,
        })
    }
}

impl std::fmt::Display for Sums {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (class, boxes, distribution) = (self.mean(self.class), self.mean(self.boxes), self.mean(self.distribution));
        write!(
            formatter,
            "class {class:.3}, box {boxes:.3}, distribution {distribution:.3}, teacher {:.3}, distillation {:.3}, {} images/s, waited {:.1} s",
            self.mean(self.teacher),
            self.mean(self.distillation),
            self.images_per_second(),
            self.waited.as_secs_f64()
        )
    }
}

/// From the beginning to the first line where there is no bar, and from one to the next.
const FIRST_LINE: Duration = Duration::from_secs(60);
const LINE_EVERY: Duration = Duration::from_secs(600);

/// How fast a run goes, for the lines that stand for a progress bar where standard error is no terminal.
pub(crate) struct Pace {
    /// When the last line was written, and the steps done then.
    since: Instant,
    first_step: usize,
    /// Time since then that went into measurements.
    measuring: Duration,
    /// What a photograph of a measurement takes; none before the first one.
    seconds_per_photograph: Option<f64>,
    /// From the last line to the next.
    wait: Duration,
}

/// What a run has still to do.
pub(crate) struct Rest {
    pub(crate) steps: usize,
    pub(crate) measurements: usize,
    /// In all measurements together; none before the first one.
    pub(crate) photographs: Option<usize>,
}

impl Pace {
    /// Of a run that goes on after `step`.
    pub(crate) fn new(step: usize) -> Self {
        Self {
            since: Instant::now(),
            first_step: step,
            measuring: Duration::ZERO,
            seconds_per_photograph: None,
            wait: FIRST_LINE,
        }
    }

    /// Counts a measurement of `photographs`.
    pub(crate) fn add_measurement(&mut self, took: Duration, photographs: usize) {
        self.measuring += took;
        self.seconds_per_photograph = Some(took.as_secs_f64() / photographs.max(1) as f64);
    }

    /// Where a line is due after `step`: the time left for `rest`, by the steps since the last line and the last measurement.
    pub(crate) fn time_left(&mut self, step: usize, rest: impl FnOnce() -> Rest) -> Option<String> {
        let elapsed = self.since.elapsed();
        if elapsed < self.wait {
            return None;
        }
        let training = elapsed.saturating_sub(self.measuring).as_secs_f64();
        let seconds_per_step = training / step.saturating_sub(self.first_step).max(1) as f64;
        let seconds_per_photograph = self.seconds_per_photograph;
        *self = Self { seconds_per_photograph, wait: LINE_EVERY, ..Self::new(step) };
        Some(time_left(&rest(), seconds_per_step, seconds_per_photograph))
    }
}

/// "2 h 10 min left"; measurements are named beside it as long as nobody knows what one takes.
fn time_left(rest: &Rest, seconds_per_step: f64, seconds_per_photograph: Option<f64>) -> String {
    let training = rest.steps as f64 * seconds_per_step;
    match (seconds_per_photograph.zip(rest.photographs), rest.measurements) {
        (Some((seconds, photographs)), _) => format!("{} left", in_minutes(training + seconds * photographs as f64)),
        (None, 1) => format!("{} and a measurement left", in_minutes(training)),
        (None, count) => format!("{} and {count} measurements left", in_minutes(training)),
    }
}

fn in_minutes(seconds: f64) -> String {
    match (seconds / 60.0).round() as u64 {
        0 => "less than a minute".to_owned(),
        minutes @ 1..60 => format!("{minutes} min"),
        minutes => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_counts_steps_and_measurements() {
        let rest = Rest { steps: 3000, measurements: 3, photographs: Some(1200) };
        // 7500 s and 300 s.
        assert_eq!(time_left(&rest, 2.5, Some(0.25)), "2 h 10 min left");
        assert_eq!(time_left(&rest, 0.02, None), "1 min and 3 measurements left");
        let rest = Rest { steps: 10, measurements: 1, photographs: None };
        assert_eq!(time_left(&rest, 0.1, None), "less than a minute and a measurement left");
        assert_eq!(in_minutes(59.6 * 60.0), "1 h 0 min");
        assert_eq!(in_minutes(31.0 * 3600.0), "31 h 0 min");
    }

    #[test]
    fn a_line_is_due_after_a_minute_and_then_every_ten() {
        let rest = || Rest { steps: 100, measurements: 1, photographs: Some(0) };
        let mut pace = Pace::new(50);
        assert_eq!(pace.time_left(51, rest), None);
        let earlier = Instant::now().checked_sub(Duration::from_secs(90)).unwrap();
        pace.since = earlier;
        // 15 steps in a minute and a half, half a minute of which was a measurement.
        pace.add_measurement(Duration::from_secs(30), 300);
        assert_eq!(pace.time_left(65, rest).unwrap(), "7 min left");
        pace.since = earlier;
        assert_eq!((pace.time_left(80, rest), pace.first_step, pace.measuring), (None, 65, Duration::ZERO));
    }
}
