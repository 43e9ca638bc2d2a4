//! Times of an engine's steps: a table for people, JSON for programs, which is a trace for Perfetto too.

use std::collections::VecDeque;
use std::fmt::Write;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};
use yolo_lat::Detector;
use yolo_lat::engine::StepTime;
use yolo_lat::sink::write_atomically;

/// Frames that the trace keeps: the last ones.
const TRACED: usize = 100;

/// Steps with their times, and how fast the machine could be.
pub(super) struct StepTable {
    /// Most GFLOP/s; `None` where the arithmetic is not known.
    pub(super) peak: Option<f64>,
    pub(super) steps: Vec<StepTime>,
}

impl StepTable {
    fn total(&self) -> Duration {
        self.steps.iter().map(|step| step.duration).sum()
    }

    /// The share of the peak that the whole network reaches, in 0..1.
    fn share(&self) -> Option<f64> {
        let multiply_adds: u64 = self.steps.iter().map(|step| step.multiply_adds).sum();
        Some(2e-9 * multiply_adds as f64 / self.total().as_secs_f64().max(1e-12) / self.peak?)
    }

    pub(super) fn json(&self) -> Value {
        let step = |step: &StepTime| {
            let mut value = json!({ "name": step.name, "us": microseconds(step.duration) });
            if let Some(peak) = self.peak {
                value["kind"] = json!(step.kind);
                value["shape"] = json!(step.shape);
                value["gflops"] = json!(step.gflops());
                value["share_of_peak"] = json!(step.gflops() / peak);
            }
            value
        };
        json!({
            "peak_gflops": self.peak, "share_of_peak": self.share(), "us": microseconds(self.total()),
            "steps": self.steps.iter().map(step).collect::<Vec<_>>(),
        })
    }

    /// A line a step, and one for all of them.
    pub(super) fn text(&self, time: &str) -> String {
        let total = self.total();
        let mut table = format!("{time:>9} {:>6}", "share");
        let head = format!(" {:>8} {:>7}  {:<36} {:<18}", "GFLOP/s", "of peak", "kind", "shape");
        // Writing to a String cannot fail.
        let _ = writeln!(table, "{}  step", self.peak.map_or("", |_| &head));
        for step in &self.steps {
            let share = 100.0 * step.duration.as_secs_f64() / total.as_secs_f64().max(1e-12);
            let _ = write!(table, "{:>9.1} {share:>5.1}%", microseconds(step.duration));
            if let Some(peak) = self.peak {
                let (gflops, share) = (step.gflops(), 100.0 * step.gflops() / peak);
                let _ = write!(table, " {gflops:>8.1} {share:>6.1}%  {:<36} {:<18}", step.kind, step.shape);
            }
            let _ = writeln!(table, "  {}", step.name);
        }
        let _ = write!(table, "{:.3} ms in {} steps", microseconds(total) / 1e3, self.steps.len());
        if let (Some(share), Some(peak)) = (self.share(), self.peak) {
            let _ = write!(table, ", {:.1}% of {peak:.1} GFLOP/s", 100.0 * share);
        }
        table
    }
}

fn microseconds(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}

/// Gathers the steps' times of a run.
pub(super) struct Profile {
    file: PathBuf,
    clock: &'static str,
    engine: String,
    peak: Option<f64>,
    begun: Instant,
    /// When a frame began, and its steps.
    frames: VecDeque<(Duration, Vec<StepTime>)>,
    /// Each step with all its durations.
    times: Vec<(StepTime, Vec<Duration>)>,
}

impl Profile {
    /// Makes the engine take times.
    pub(super) fn start(file: &Path, detector: &mut Detector) -> anyhow::Result<Self> {
        // The first frame compiles.
        detector.detect(&image::RgbImage::new(64, 64))?;
        let clock = detector.start_profile()?.context(
            "--profile: this engine does not show its steps; add --engine cpu, --engine gpu, or --adapter NAME for a software one",
        )?;
        let (engine, peak) = (detector.description(), detector.peak_gflops());
        let (frames, times) = (VecDeque::new(), Vec::new());
        Ok(Self { file: file.to_owned(), clock, engine, peak, begun: Instant::now(), frames, times })
    }

    /// Takes the times of the last batch, which began at `start`.
    pub(super) fn add(&mut self, start: Instant, detector: &Detector) -> anyhow::Result<()> {
        let steps = detector.profile()?;
        for (place, step) in steps.iter().enumerate() {
            // Images of another shape may have other steps.
            let is_same =
                |other: &StepTime| (&other.name, &other.shape, &other.kind) == (&step.name, &step.shape, &step.kind);
            match self.times.iter_mut().skip(place).find(|(other, _)| is_same(other)) {
                Some((_, times)) => times.push(step.duration),
                None => self.times.push((step.clone(), vec![step.duration])),
            }
        }
        if self.frames.len() == TRACED {
            self.frames.pop_front();
        }
        self.frames.push_back((start.saturating_duration_since(self.begun), steps));
        Ok(())
    }

    /// Writes the trace and gives the table of medians.
    pub(super) fn finish(&self) -> anyhow::Result<String> {
        let medians = self.times.iter().map(|(step, times)| {
            let mut times = times.clone();
            times.sort();
            StepTime { duration: times[times.len() / 2], ..step.clone() }
        });
        let table = StepTable { peak: self.peak, steps: medians.collect() };
        let events = self.frames.iter().flat_map(|(start, steps)| {
            steps.iter().map(move |step| {
                json!({
                    "name": step.name, "ph": "X", "pid": 1, "tid": 1, "cat": step.kind,
                    "ts": microseconds(*start + step.start), "dur": microseconds(step.duration),
                })
            })
        });
        let name = json!({ "name": "process_name", "ph": "M", "pid": 1, "tid": 1, "args": { "name": self.engine } });
        let events: Vec<_> = std::iter::once(name).chain(events).collect();
        let trace = json!({
            "traceEvents": events, "displayTimeUnit": "ms", "engine": self.engine, "medians": table.json(),
        });
        write_atomically(&self.file, |file| write!(file, "{trace}"))?;
        Ok(format!(
            "{} on {}, {}; medians, and a trace of the last {} batches in {}",
            table.text("median us"),
            self.engine,
            self.clock,
            self.frames.len(),
            self.file.display()
        ))
    }
}
