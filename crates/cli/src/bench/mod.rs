//! `yolo-lat bench`: measurements on this machine. What is compared takes turns in one run, so that a busy machine
//! disturbs all alike; minimum and median are given.

mod attention;
#[cfg(feature = "lm")]
mod decode;
mod engines;
#[cfg(feature = "gpu")]
mod gpu;
mod gradients;
mod steps;
mod token_dilution;
mod tracks;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use yolo_lat::engine::cpu::{InstructionSet, available_threads, chosen_instruction_set};
use yolo_lat::engine::processor_name;
use yolo_lat::model::{Model, ModelError};
use yolo_lat::sink::write_atomically;

use crate::options::PrecisionName;
use crate::report;

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct BenchArguments {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    engines: engines::EnginesArguments,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Time and memory of attention against the number of tokens: linear, softmax, ONNX Runtime's softmax
    Attention(attention::AttentionArguments),
    #[cfg(feature = "lm")]
    /// Token by token decoding of a small language model: constant state against a cache of keys and values
    Decode(decode::DecodeArguments),
    /// Entropy of the weights against the number of tokens: how far each kernel stays from the plain mean
    #[command(alias = "discrimination")]
    TokenDilution(token_dilution::TokenDilutionArguments),
    #[cfg(feature = "gpu")]
    /// The GPU's whole pipeline, attention alone on it against softmax, and the time of every dispatch
    Gpu(gpu::GpuArguments),
    /// Gradients and denominators against the scale of the inputs: naive and stable evaluation
    Gradients(gradients::GradientsArguments),
    /// Following objects from frame to frame, without the network
    Tracks(tracks::TracksArguments),
}

/// How results are given.
#[derive(Args, Clone, Debug)]
struct OutputArguments {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Draw a chart into this file (.png or .svg)
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// JSON for programs, Markdown for documents.
#[derive(Args, Clone, Debug)]
struct TableArguments {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Write a Markdown table into FILE; without FILE, print it
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    markdown: Option<Option<PathBuf>>,
}

impl TableArguments {
    /// Prints JSON or a table, and writes what goes into a file.
    fn print(
        &self,
        as_json: impl FnOnce() -> Value,
        as_markdown: impl Fn() -> String,
        as_text: impl FnOnce() -> String,
    ) -> anyhow::Result<ExitCode> {
        if let Some(Some(path)) = &self.markdown {
            write_atomically(path, |file| file.write_all(as_markdown().as_bytes()))?;
        }
        let text = match &self.markdown {
            _ if self.json => format!("{}\n", as_json()),
            Some(None) => as_markdown(),
            _ => as_text(),
        };
        super::print(&text)
    }
}

pub(super) fn run(arguments: &BenchArguments) -> anyhow::Result<ExitCode> {
    let Some(what) = &arguments.what else {
        return engines::run(&arguments.engines);
    };
    match what {
        What::Attention(arguments) => attention::run(arguments),
        #[cfg(feature = "lm")]
        What::Decode(arguments) => decode::run(arguments),
        What::TokenDilution(arguments) => token_dilution::run(arguments),
        #[cfg(feature = "gpu")]
        What::Gpu(arguments) => gpu::run(arguments),
        What::Gradients(arguments) => gradients::run(arguments),
        What::Tracks(arguments) => tracks::run(arguments),
    }
}

/// What ran this: for the head of every raw result.
fn machine(threads: usize) -> Value {
    json!({
        "processor": processor_name(), "cores": available_threads(),
        "threads": threads, "instruction_set": instruction_set().to_string(),
        "dot_products": instruction_set().has_dot_products(),
        "load": std::fs::read_to_string("/proc/loadavg").ok().and_then(|load| load.split(' ').next()?.parse::<f64>().ok()),
        "version": env!("CARGO_PKG_VERSION"),
    })
}

/// What a model is called in results: files of several networks may bear one name.
fn label(name: &str, model: &Model) -> String {
    let stem = Path::new(name).extension().and_then(|_| Path::new(name).file_stem());
    stem.map_or_else(|| model.config.name.clone(), |stem| stem.to_string_lossy().into_owned())
}

/// A model in a precision; `None` where it has no steps for that, which is said.
fn in_precision(model: &Model, precision: PrecisionName) -> anyhow::Result<Option<Model>> {
    match precision.apply(model.clone()) {
        Ok(model) => Ok(Some(model)),
        Err(error @ ModelError::NoSteps { .. }) => {
            report(&format!("yolo-lat: {error}; left out"));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// What the CPU engine computes with; it says itself if the choice is wrong.
fn instruction_set() -> InstructionSet {
    chosen_instruction_set().unwrap_or(InstructionSet::Plain)
}

/// Times of several computations in milliseconds, which take turns for so many `seconds`.
fn take_turns(seconds: f64, work: &mut [&mut dyn FnMut()]) -> Vec<Times> {
    let enough = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
    let times = yolo_lat::engine::take_turns(enough, work).into_iter();
    times.map(|times| Times::of(times.iter().map(|time| time.as_secs_f64() * 1e3).collect())).collect()
}

/// Minimum, median and nine-tenths quantile.
#[derive(Clone, Copy, Debug)]
struct Times {
    min: f64,
    median: f64,
    p90: f64,
}

impl Times {
    fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        Self { min: times[0], median: times[times.len() / 2], p90: times[times.len() * 9 / 10] }
    }
}

/// Slope of log y over log x by least squares: the exponent of a power law.
fn exponent(points: &[(f64, f64)]) -> f64 {
    let logs: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let count = logs.len() as f64;
    let (mean_x, mean_y) =
        (logs.iter().map(|p| p.0).sum::<f64>() / count, logs.iter().map(|p| p.1).sum::<f64>() / count);
    let covariance: f64 = logs.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    covariance / logs.iter().map(|(x, _)| (x - mean_x).powi(2)).sum::<f64>()
}

/// A wave of numbers in -scale..scale without a short period.
fn wave(count: usize, step: f32, scale: f32) -> Vec<f32> {
    (0..count).map(|i| scale * ((i % 65_521) as f32 * step).sin()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponent_of_a_power_law_is_found() {
        let points: Vec<(f64, f64)> = [1.0, 2.0, 8.0].iter().map(|&x: &f64| (x, 3.0 * x.powf(1.5))).collect();
        assert!((exponent(&points) - 1.5).abs() < 1e-12);
    }
}
