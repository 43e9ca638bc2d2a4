//! `yolo-lat bench` without a subcommand: engines x models x sizes x threads x batches.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use ndarray::{Array4, ArrayD, IxDyn};
use serde_json::{Value, json};
use yolo_lat::engine::cpu::peak_gflops;
use yolo_lat::engine::ort::OnnxSession;
use yolo_lat::engine::{Engine, EngineError, EngineKind, create};
use yolo_lat::export::{ExportOptions, export_onnx};
use yolo_lat::model::{Model, Precision};
use yolo_lat::onnx::count_parameters;
use yolo_lat::plot::{Dot, ScatterChart};
use yolo_lat::third_party::InputForm;
use yolo_lat::{ModelFile, Runtime};

use super::{TableArguments, Times, in_precision, instruction_set, label, machine, steps, take_turns};
use crate::options::{DeviceArguments, EngineName, PrecisionName, parse_size};
use crate::{report, resident_bytes};

#[derive(Args, Debug)]
pub(super) struct EnginesArguments {
    /// Models: n, s, paths of .toml or .safetensors files, or of .onnx files (ONNX Runtime only)
    #[arg(short, long, value_delimiter = ',', default_value = "n")]
    pub(super) model: Vec<String>,
    /// Engines; one that this machine lacks is named and left out
    #[arg(long, value_enum, value_delimiter = ',', default_value = "cpu,ort")]
    engine: Vec<EngineName>,
    /// What our models' 1x1 convolutions are computed in; int8 on the CPU engine alone
    #[arg(long, value_enum, value_delimiter = ',', default_value = "f32")]
    pub(super) precision: Vec<PrecisionName>,
    /// Input sizes in pixels, multiples of 32: 320 or 416x320; default: each model's own
    #[arg(long, value_delimiter = ',', value_name = "PIXELS", value_parser = parse_size)]
    pub(super) size: Vec<(usize, usize)>,
    /// Numbers of threads
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) threads: Vec<u16>,
    /// Images computed together
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: Vec<u16>,
    /// Seconds for all that is compared in one size, thread count and batch
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    pub(super) seconds: f64,
    /// Show every step of the CPU engine instead: its kind, shape, least time, GFLOP/s, share of the measured peak
    #[arg(long, conflicts_with_all = ["engine", "batch", "plot"])]
    profile: bool,
    #[command(flatten)]
    devices: DeviceArguments,
    /// Draw latency against parameters into this file (.png or .svg); with --accuracy, accuracy against latency
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// mAP50 by model, as `eval` gave them: a JSON object {"yolo-lat-n": 54.6}
    #[arg(long, value_name = "FILE", requires = "plot")]
    accuracy: Option<PathBuf>,
    #[command(flatten)]
    pub(super) output: TableArguments,
}

/// Something to be timed: a network on an engine with a batch of images.
struct Candidate {
    model: String,
    engine: String,
    size: (usize, usize),
    parameters: usize,
    /// Growth of the process while it was made and ran once.
    memory: Option<u64>,
    /// Of one image on the processor; `None` where they are not known or something else computes.
    multiply_adds: Option<u64>,
    run: Box<dyn FnMut()>,
}

struct Row {
    candidate: Candidate,
    threads: usize,
    batch: usize,
    times: Times,
    /// Most GFLOP/s that as many threads reach, measured.
    peak: f64,
    /// The share of it, 0..1, at the least time.
    share_of_peak: Option<f64>,
    /// How many times faster than ONNX Runtime on the same model, size, threads and batch, by least times.
    against_ort: Option<f64>,
}

pub(super) fn run(arguments: &EnginesArguments) -> anyhow::Result<ExitCode> {
    if arguments.profile {
        return steps::run(arguments);
    }
    let mut rows: Vec<Row> = Vec::new();
    for threads in arguments.threads.iter().copied().map(usize::from) {
        let peak = peak_gflops(instruction_set(), threads);
        for batch in arguments.batch.iter().copied().map(usize::from) {
            let mut candidates = candidates(arguments, &arguments.devices.runtime(threads)?, batch)?;
            let mut work: Vec<&mut dyn FnMut()> =
                candidates.iter_mut().map(|candidate| &mut *candidate.run as &mut dyn FnMut()).collect();
            let times = take_turns(arguments.seconds, &mut work);
            let row = |(candidate, times): (Candidate, Times)| {
                let flops = candidate.multiply_adds.map(|count| 2.0 * (count * batch as u64) as f64);
                let share_of_peak = flops.map(|flops| flops / (times.min * 1e6 * peak));
                Row { candidate, threads, batch, times, peak, share_of_peak, against_ort: None }
            };
            rows.extend(candidates.into_iter().zip(times).map(row));
        }
    }
    compare_with_ort(&mut rows);
    let threads = usize::from(arguments.threads.iter().copied().max().unwrap_or(1));
    if let Some(path) = &arguments.plot {
        chart(&rows, arguments.accuracy.as_deref())?.save(path)?;
    }
    arguments.output.print(|| as_json(&rows, threads), || as_table(&rows, true), || as_table(&rows, false))
}

fn compare_with_ort(rows: &mut [Row]) {
    let key = |row: &Row| (row.candidate.model.clone(), row.candidate.size, row.threads, row.batch);
    let ort = rows.iter().filter(|row| row.candidate.engine == "ort").map(|row| (key(row), row.times.min));
    let ort: HashMap<_, _> = ort.collect();
    for row in rows.iter_mut().filter(|row| row.candidate.engine != "ort") {
        row.against_ort = ort.get(&key(row)).map(|ort| ort / row.times.min);
    }
}

/// A point for each row; of a model that is measured several times, each with its engine, size, threads and batch.
fn chart(rows: &[Row], accuracy: Option<&Path>) -> anyhow::Result<ScatterChart> {
    let accuracy: Option<HashMap<String, f64>> = match accuracy {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            let wanted = || format!("{}: expected an object of numbers, {{\"yolo-lat-n\": 54.6}}", path.display());
            Some(serde_json::from_str(&text).with_context(wanted)?)
        }
    };
    let point = |row: &Row| {
        let Row { candidate, threads, batch, times, .. } = row;
        let million = candidate.parameters as f64 / 1e6;
        let y = match &accuracy {
            None => million,
            Some(accuracy) => *accuracy.get(&candidate.model)?,
        };
        let more = if rows.iter().any(|other| other.threads != *threads || other.batch != *batch) {
            format!(", {threads} threads, batch {batch}")
        } else {
            String::new()
        };
        let name = format!("{} ({}, {}{more})", candidate.model, candidate.engine, candidate.size.0);
        Some(Dot { name, at: (times.median, y), area: million })
    };
    let points: Vec<Dot> = rows.iter().filter_map(point).collect();
    let y = if accuracy.is_some() { "mAP50, %" } else { "parameters, millions" };
    Ok(ScatterChart {
        title: "Latency of the network alone".into(),
        axes: ["median ms a batch".into(), y.into()],
        area: "area: parameters".into(),
        points,
    })
}

fn as_json(rows: &[Row], threads: usize) -> Value {
    let row = |row: &Row| {
        let Row { candidate, threads, batch, times, .. } = row;
        json!({
            "model": candidate.model, "engine": candidate.engine, "size": [candidate.size.0, candidate.size.1],
            "batch": batch, "threads": threads, "min_ms": times.min, "median_ms": times.median,
            "p90_ms": times.p90, "images_per_second": 1e3 * *batch as f64 / times.median,
            "parameters": candidate.parameters, "memory_bytes": candidate.memory,
            "peak_gflops": row.peak, "share_of_peak": row.share_of_peak, "against_ort": row.against_ort,
        })
    };
    json!({ "machine": machine(threads), "rows": rows.iter().map(row).collect::<Vec<_>>() })
}

fn as_table(rows: &[Row], markdown: bool) -> String {
    let head = [
        "model",
        "engine",
        "size",
        "threads",
        "batch",
        "min ms",
        "median",
        "p90",
        "images/s",
        "of peak",
        "x ort",
        "parameters",
    ];
    let mut table = if markdown {
        format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()))
    } else {
        head.iter().map(|name| format!("{name:>12}")).collect::<String>() + "\n"
    };
    for Row { candidate, threads, batch, times, share_of_peak, against_ort, .. } in rows {
        let cells = [
            candidate.model.clone(),
            candidate.engine.clone(),
            format!("{}x{}", candidate.size.0, candidate.size.1),
            threads.to_string(),
            batch.to_string(),
            format!("{:.2}", times.min),
            format!("{:.2}", times.median),
            format!("{:.2}", times.p90),
            format!("{:.1}", 1e3 * *batch as f64 / times.median),
            share_of_peak.map_or_else(String::new, |share| format!("{:.0}%", 100.0 * share)),
            against_ort.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            candidate.parameters.to_string(),
        ];
        // Writing to a String cannot fail.
        let _ = if markdown {
            writeln!(table, "| {} |", cells.join(" | "))
        } else {
            writeln!(table, "{}", cells.iter().map(|cell| format!("{cell:>12}")).collect::<String>())
        };
    }
    table
}

fn candidates(arguments: &EnginesArguments, runtime: &Runtime, batch: usize) -> anyhow::Result<Vec<Candidate>> {
    let mut candidates = Vec::new();
    for name in &arguments.model {
        let model = match ModelFile::open(name)? {
            ModelFile::Native(model) => model,
            ModelFile::Onnx(file) => {
                let sizes = arguments.size.iter().copied().map(Some);
                let sizes = if arguments.size.is_empty() { vec![None] } else { sizes.collect() };
                for size in sizes {
                    candidates.extend(third_party(file.path(), size, runtime, batch)?);
                }
                continue;
            }
        };
        let own = vec![(model.config.input, model.config.input)];
        for &size in if arguments.size.is_empty() { &own } else { &arguments.size } {
            for (&engine, &precision) in arguments
                .engine
                .iter()
                .flat_map(|engine| arguments.precision.iter().map(move |precision| (engine, precision)))
            {
                let kind = engine.into();
                // Only the CPU engine has integers.
                let is_usual = precision == PrecisionName::Auto && kind != EngineKind::Cpu;
                let precision = if is_usual { PrecisionName::F32 } else { precision };
                let Some(model) = in_precision(&model, precision)? else { continue };
                if model.precision() == Precision::F32 || kind == EngineKind::Cpu {
                    candidates.extend(native((&label(name, &model), &model), kind, size, runtime, batch)?);
                }
            }
        }
    }
    if candidates.is_empty() {
        bail!("nothing to measure: no engine of these is available");
    }
    Ok(candidates)
}

/// One of our models; `None` where the engine is not available, which is said.
fn native(
    (label, model): (&str, &Model),
    kind: EngineKind,
    (width, height): (usize, usize),
    runtime: &Runtime,
    batch: usize,
) -> anyhow::Result<Option<Candidate>> {
    let multiply_adds = model.graph(width, height)?.multiply_adds();
    let before = resident_bytes();
    let mut engine: Box<dyn Engine> = match create(kind, model, width, height, runtime) {
        Ok(engine) => engine,
        Err(error @ EngineError::Unavailable { .. }) => {
            report(&format!("yolo-lat: {error}; left out"));
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let input = Array4::from_shape_fn((batch, 3, height, width), |(n, c, y, x)| image(n, c, y, x));
    engine.run(input.view())?;
    let memory = resident_bytes().zip(before).map(|(after, before)| after.saturating_sub(before));
    // Counted in the file, as for everybody's networks.
    let floats = model.clone().in_precision(Precision::F32)?;
    let parameters =
        count_parameters(&export_onnx(&floats, &ExportOptions { dynamic: true, ..ExportOptions::default() })?);
    Ok(Some(Candidate {
        model: label.to_owned(),
        engine: if model.precision() == Precision::Int8 { format!("{kind} int8") } else { kind.to_string() },
        size: (width, height),
        parameters: parameters.context("our own export cannot be read")?,
        memory,
        multiply_adds: (kind != EngineKind::Gpu).then_some(multiply_adds),
        // The first run succeeded; its result does not matter here.
        run: Box::new(move || drop(engine.run(input.view()).map(<[_]>::len))),
    }))
}

/// Somebody's ONNX file with one image as its input in ONNX Runtime; `None` where it takes no such batch or size, which is said.
fn third_party(
    path: &Path,
    size: Option<(usize, usize)>,
    runtime: &Runtime,
    batch: usize,
) -> anyhow::Result<Option<Candidate>> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let parameters = count_parameters(&bytes).with_context(|| format!("{}: not an ONNX file", path.display()))?;
    let before = resident_bytes();
    let mut session = OnnxSession::open(&runtime.onnx_runtime()?, path, runtime.threads())?;
    let form = match InputForm::of(&session, size) {
        Ok(form) if form.batch.is_none_or(|fixed| fixed == batch) => form,
        Ok(form) => {
            let fixed = form.batch.unwrap_or(1);
            report(&format!("yolo-lat: {}: takes {fixed} images at once; left out", path.display()));
            return Ok(None);
        }
        Err(reason) => {
            report(&format!("yolo-lat: {}: {reason}; left out", path.display()));
            return Ok(None);
        }
    };
    let (width, height) = (form.width, form.height);
    let input = ArrayD::from_shape_fn(IxDyn(&form.shape(batch)), |at| image(at[0], at[1], at[2], at[3]));
    session.run(input.view())?;
    let memory = resident_bytes().zip(before).map(|(after, before)| after.saturating_sub(before));
    Ok(Some(Candidate {
        model: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        engine: "ort".into(),
        size: (width, height),
        parameters,
        memory,
        multiply_adds: None,
        run: Box::new(move || drop(session.run(input.view()).map(|outputs| outputs.len()))),
    }))
}

pub(super) fn image(n: usize, c: usize, y: usize, x: usize) -> f32 {
    0.5 + 0.5 * ((x * (3 + c) + y * 7 + n * 31) as f32 * 0.05).sin()
}
