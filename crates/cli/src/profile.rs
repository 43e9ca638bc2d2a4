//! Times of a GPU's dispatches: a table for people, a trace for Perfetto.

use std::fmt::Write;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::json;
use yolo_lat::Detector;
use yolo_lat::engine::gpu::{Clock, DispatchTime, GpuEngine};
use yolo_lat::sink::write_atomically;

/// Frames that the trace keeps: the last ones.
const TRACED: usize = 100;

/// Gathers the dispatches' times of a run.
pub(super) struct Profile {
    file: PathBuf,
    clock: Clock,
    adapter: String,
    begun: Instant,
    /// When a frame began, and its dispatches.
    frames: std::collections::VecDeque<(Duration, Vec<DispatchTime>)>,
    /// All durations of each dispatch.
    times: Vec<(String, Vec<Duration>)>,
}

impl Profile {
    /// Makes the GPU engine take times.
    pub(super) fn start(file: &Path, detector: &mut Detector) -> anyhow::Result<Self> {
        // The first frame compiles.
        detector.detect(&image::RgbImage::new(64, 64))?;
        let clock = detector.start_profile()?.context(
            "--profile times the dispatches of a GPU, and none is used; add --engine gpu, or --adapter NAME for a software one",
        )?;
        let adapter = detector.gpu_engine().map(|gpu| gpu.gpu().name()).unwrap_or_default();
        let (frames, times) = (std::collections::VecDeque::new(), Vec::new());
        Ok(Self { file: file.to_owned(), clock, adapter, begun: Instant::now(), frames, times })
    }

    /// Takes the times of the last batch, which began at `start`.
    pub(super) fn add(&mut self, start: Instant, gpu: &GpuEngine) -> anyhow::Result<()> {
        let dispatches = gpu.profile()?;
        for (place, DispatchTime { name, duration, .. }) in dispatches.iter().enumerate() {
            // Pictures of another shape may have other dispatches.
            match self.times.iter_mut().skip(place).find(|(other, _)| other == name) {
                Some((_, times)) => times.push(*duration),
                None => self.times.push((name.clone(), vec![*duration])),
            }
        }
        if self.frames.len() == TRACED {
            self.frames.pop_front();
        }
        self.frames.push_back((start.saturating_duration_since(self.begun), dispatches));
        Ok(())
    }

    /// Writes the trace and gives the table.
    pub(super) fn finish(&self) -> anyhow::Result<String> {
        let microseconds = |time: Duration| time.as_nanos() as f64 / 1e3;
        let events = self.frames.iter().flat_map(|(start, dispatches)| {
            dispatches.iter().map(move |dispatch| {
                json!({
                    "name": dispatch.name, "ph": "X", "pid": 1, "tid": 1, "cat": "gpu",
                    "ts": microseconds(*start + dispatch.start), "dur": microseconds(dispatch.duration),
                })
            })
        });
        let name = json!({ "name": "process_name", "ph": "M", "pid": 1, "tid": 1, "args": { "name": self.adapter } });
        let events: Vec<_> = std::iter::once(name).chain(events).collect();
        let trace = json!({ "traceEvents": events, "displayTimeUnit": "ms" });
        write_atomically(&self.file, |file| write!(file, "{trace}"))?;
        Ok(self.table())
    }

    fn table(&self) -> String {
        let medians: Vec<(&str, Duration)> = self
            .times
            .iter()
            .map(|(name, times)| {
                let mut times = times.clone();
                times.sort();
                (name.as_str(), times.get(times.len() / 2).copied().unwrap_or_default())
            })
            .collect();
        let total: Duration = medians.iter().map(|(_, time)| *time).sum();
        let mut table = format!("{:>9} {:>6}  dispatch\n", "median us", "share");
        for (name, time) in &medians {
            let share = 100.0 * time.as_secs_f64() / total.as_secs_f64().max(1e-12);
            // Writing to a String cannot fail.
            let _ = writeln!(table, "{:>9.1} {share:>5.1}%  {name}", time.as_secs_f64() * 1e6);
        }
        let clock = match self.clock {
            Clock::Gpu => "by its time stamps",
            Clock::Wall => "by this process's clock, each dispatch waited for: it has no time stamps",
        };
        let _ = writeln!(
            table,
            "{:.3} ms in {} dispatches on {}, {clock}; trace of the last {} batches in {}",
            total.as_secs_f64() * 1e3,
            medians.len(),
            self.adapter,
            self.frames.len(),
            self.file.display()
        );
        table
    }
}
