//! `yolo-lat bench --profile`: every step of the CPU engine, its fastest run.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::bail;
use ndarray::Array4;
use serde_json::{Value, json};
use yolo_lat::ModelFile;
use yolo_lat::engine::Engine;
use yolo_lat::engine::cpu::CpuEngine;
use yolo_lat::model::Model;

use super::engines::{EnginesArguments, image};
use super::{in_precision, label, machine};
use crate::profile::StepTable;

/// A network, the engine that computed it, and its steps.
struct Profiled {
    model: String,
    engine: String,
    size: (usize, usize),
    table: StepTable,
}

pub(super) fn run(arguments: &EnginesArguments) -> anyhow::Result<ExitCode> {
    let mut profiled = Vec::new();
    for name in &arguments.model {
        let ModelFile::Native(model) = ModelFile::open(name)? else {
            bail!("{name}: --profile shows the steps of the CPU engine, and ONNX files run in ONNX Runtime");
        };
        let own = [(model.config.input, model.config.input)];
        for &size in if arguments.size.is_empty() { &own[..] } else { &arguments.size } {
            for (&threads, &precision) in arguments
                .threads
                .iter()
                .flat_map(|threads| arguments.precision.iter().map(move |precision| (threads, precision)))
            {
                let Some(model) = in_precision(&model, precision)? else { continue };
                let (table, engine) = profile(&model, size, usize::from(threads), arguments.seconds)?;
                profiled.push(Profiled { model: label(name, &model), engine, size, table });
            }
        }
    }
    let threads = usize::from(arguments.threads.iter().copied().max().unwrap_or(1));
    arguments.output.print(|| as_json(&profiled, threads), || as_text(&profiled, true), || as_text(&profiled, false))
}

fn profile(
    model: &Model,
    (width, height): (usize, usize),
    threads: usize,
    seconds: f64,
) -> anyhow::Result<(StepTable, String)> {
    let mut engine = CpuEngine::new(&model.network(width, height)?, threads)?;
    let input = Array4::from_shape_fn((1, 3, height, width), |(n, c, y, x)| image(n, c, y, x));
    engine.run(input.view())?;
    engine.start_profile();
    engine.run(input.view())?;
    let (mut steps, start) = (engine.profile(), Instant::now());
    while start.elapsed().as_secs_f64() < seconds {
        engine.run(input.view())?;
        for (best, step) in steps.iter_mut().zip(engine.profile()) {
            best.duration = best.duration.min(step.duration);
        }
    }
    let (engine, peak) = (engine.description(), engine.peak_gflops());
    Ok((StepTable { peak, steps }, engine))
}

fn as_json(profiled: &[Profiled], threads: usize) -> Value {
    let entry = |Profiled { model, engine, size, table }: &Profiled| {
        let mut entry = json!({ "model": model, "engine": engine, "size": [size.0, size.1] });
        if let (Value::Object(entry), Value::Object(table)) = (&mut entry, table.json()) {
            entry.extend(table);
        }
        entry
    };
    json!({ "machine": machine(threads), "profiles": profiled.iter().map(entry).collect::<Vec<_>>() })
}

fn as_text(profiled: &[Profiled], markdown: bool) -> String {
    let mut text = String::new();
    for Profiled { model, engine, size, table } in profiled {
        let (fence, table) = (if markdown { "```\n" } else { "" }, table.text("least us"));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{model}, {}x{}, {engine}\n{fence}{table}\n{fence}", size.0, size.1);
    }
    text
}
