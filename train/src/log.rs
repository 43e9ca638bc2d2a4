//! What a run tells: sums over some steps, for the progress bar and the log.

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
