//! Short runs of the detector with parts of it changed: with several seeds, what each part brings, what it costs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use ndarray::Array4;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tch::Device;
use toml::Table;
use yolo_lat::Runtime;
use yolo_lat::engine::{Engine, EngineKind, create};
use yolo_lat::model::{Model, ModelConfig, graph_of};
use yolo_lat::sink::write_atomically;

use crate::config::TrainConfig;
use crate::log::say;
use crate::network::Network;
use crate::plot::Log;
use crate::run::{Accuracy, Trainer, device, fill_teachers, interrupt_flag};
use crate::suite::report::{self, Measure, Outcome};
use crate::suite::statistics::{deviation, mean};
use crate::suite::{Run, RunConfig, Suite, merge, settings_without};

const MAP50: Measure = Measure {
    name: "points of mAP50",
    title: "mAP50 on the validation photographs",
    parts: "photographs",
    rises: true,
    digits: 2,
    learnt: ["photographs", "mAP50"],
};
/// Of each network, images that are timed.
const ROUNDS: usize = 60;

/// What the experiment does not decide.
#[derive(clap::Args, Debug)]
pub(crate) struct AblateArguments {
    /// The experiment; train/configs/ has examples
    config: PathBuf,
    /// Where relative data set paths of the experiment begin
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    data: PathBuf,
    /// Make no run: table and picture of those that are finished
    #[arg(long, conflicts_with = "no_report")]
    report: bool,
    /// Only make runs: another process measures times and writes table and picture
    #[arg(long)]
    no_report: bool,
    /// Detector to learn from, for a [[teacher]] of the experiment without a file; may be given several times
    #[arg(long, value_name = "FILE")]
    teacher: Vec<PathBuf>,
    /// Threads of libtorch
    #[arg(long, default_value_t = 1)]
    threads: u16,
    /// cpu or cuda
    #[arg(long, default_value = "cpu")]
    device: String,
}

/// A run, and the network that it trains.
#[derive(Clone, Debug)]
pub(crate) struct Ablation {
    train: TrainConfig,
    model: ModelConfig,
}

impl RunConfig for Ablation {
    /// As [`TrainConfig`], but `model` is a table: `file`, and what differs from it.
    fn from_table(mut table: Table) -> anyhow::Result<Self> {
        let Some(toml::Value::Table(mut changes)) = table.remove("model") else {
            bail!("model: expected {{ file = \"...\" }}, and beside it what differs from that file");
        };
        let Some(toml::Value::String(file)) = changes.remove("file") else {
            bail!("model.file: expected the configuration of a model");
        };
        let text = std::fs::read_to_string(&file).with_context(|| format!("model.file: {file} cannot be read"))?;
        let mut model: Table = toml::from_str(&text).with_context(|| file.clone())?;
        merge(&mut model, &changes);
        let model = ModelConfig::parse(&toml::to_string(&model)?, &file)?;
        table.insert("model".into(), toml::Value::String(file));
        Ok(Self { train: TrainConfig::parse(&toml::to_string(&table)?)?, model })
    }

    fn output(&mut self) -> &mut PathBuf {
        &mut self.train.output
    }

    fn settings(&self) -> Value {
        json!({ "train": settings_without(&self.train, &["output", "model"]), "model": self.model })
    }
}

/// Makes every run that is neither finished nor another process's, then `table.md` and `curves.png` among the results.
///
/// # Errors
/// The experiment is wrong, or a run fails.
pub(crate) fn ablate(arguments: &AblateArguments) -> anyhow::Result<ExitCode> {
    tch::set_num_threads(arguments.threads.into());
    let suite = Suite::load::<Ablation>(&arguments.config)?;
    let (interrupted, device) = (interrupt_flag()?, device(&arguments.device)?);
    let make = |run: &mut Run<Ablation>| {
        // Where teachers lie is no setting.
        let settings = run.config.settings();
        begin(&run.config.train.output, &settings)?;
        let Ablation { train, model } = &mut run.config;
        let count = train.teachers.iter().filter(|teacher| teacher.file.is_none()).count();
        // Not every variant has teachers.
        fill_teachers(train, &arguments.teacher[..count.min(arguments.teacher.len())])?;
        train.model = train.output.join("model.toml");
        let text = toml::to_string(model)?;
        write_atomically(&train.model, |writer| std::io::Write::write_all(writer, text.as_bytes()))?;
        let mut trainer = Trainer::new(train.clone(), device, &arguments.data, interrupted.clone())?;
        let graph = graph_of(&run.config.model, run.config.model.input, run.config.model.input)?;
        say(&format!("{}, seed {}: {} parameters", run.variant, run.seed, graph.parameters()));
        trainer.start(true)?;
        if trainer.run()? != ExitCode::SUCCESS {
            return Ok(None);
        }
        let Some(accuracy) = trainer.accuracy()? else { return Ok(None) };
        let text = std::fs::read_to_string(run.config.train.output.join("metrics.jsonl"))?;
        let head = json!({
            "config": settings, "parameters": graph.parameters(), "multiply_adds": graph.multiply_adds(),
        });
        let mut log = format!("{head}\n");
        // Without what a crash cut short.
        for line in text.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()) {
            log += &format!("{line}\n");
        }
        log += &format!("{}\n", json!({ "accuracy": accuracy }));
        Ok(Some(log.into_bytes()))
    };
    if !arguments.report && !suite.make(make)? {
        return Ok(ExitCode::from(130));
    }
    if !arguments.no_report {
        say(&report(&suite)?);
    }
    Ok(ExitCode::SUCCESS)
}

/// Sees to it that a folder's checkpoint is of this run.
fn begin(folder: &Path, settings: &Value) -> anyhow::Result<()> {
    let (path, settings) = (folder.join("settings.json"), settings.to_string());
    if folder.join("checkpoint.safetensors").exists() && std::fs::read_to_string(&path).ok().as_ref() != Some(&settings)
    {
        bail!("{}: a run with another configuration; delete the folder to make it anew", folder.display());
    }
    write_atomically(&path, |writer| std::io::Write::write_all(writer, settings.as_bytes()))?;
    Ok(())
}

/// What the log of a finished run says.
struct Finished {
    model: ModelConfig,
    parameters: u64,
    multiply_adds: u64,
    accuracy: Accuracy,
    /// Step and mAP50.
    curve: Vec<(f64, f64)>,
    images_per_second: f64,
    batch: f64,
}

impl Finished {
    fn read(lines: &[Value]) -> anyhow::Result<Self> {
        let [head, log @ .., last] = lines else { bail!("nothing in it") };
        let log = Log::new("run", log.to_vec());
        let speeds: Vec<f64> = log.points("images_per_second").into_iter().map(|(_, speed)| speed).collect();
        let count = |key: &str| head[key].as_u64().with_context(|| format!("{key} is missing"));
        Ok(Self {
            model: serde_json::from_value(head["config"]["model"].clone())?,
            parameters: count("parameters")?,
            multiply_adds: count("multiply_adds")?,
            accuracy: serde_json::from_value(last["accuracy"].clone()).context("accuracy")?,
            curve: log.points("map50"),
            images_per_second: mean(&speeds),
            batch: head["config"]["train"]["batch"].as_f64().context("batch is missing")?,
        })
    }

    fn outcome(&self, seed: u64) -> Outcome {
        let Accuracy { map50, ref without, .. } = self.accuracy;
        // What each photograph adds to the whole (Tukey's pseudo-values).
        let count = without.len() as f64;
        let parts = without.iter().map(|without| (count * map50 - (count - 1.0) * without, 1));
        Outcome { seed, value: map50, curve: self.curve.clone(), parts: parts.collect(), per_step: self.batch }
    }
}

/// Writes `table.md` and `curves.png` into the results; the table.
fn report(suite: &Suite) -> anyhow::Result<String> {
    let runs = suite.finished::<Ablation, _>(Finished::read)?;
    if runs.is_empty() {
        return Ok("no run is finished".into());
    }
    let times = Times::load_or_measure(suite, &runs)?;
    let mut table = suite.note.as_ref().map_or(String::new(), |note| format!("{note}\n\n"));
    table += "| variant | seeds | parameters | multiply-adds, M | ms, our engine | ms, ONNX Runtime | mAP50, mean (sd) | mAP50-95, mean (sd) | images/s of training |\n|---|---|---|---|---|---|---|---|---|\n";
    for variant in &suite.variants {
        let Some(runs) = runs.get(&variant.name) else { continue };
        let of = |pick: fn(&Finished) -> f64| runs.iter().map(|(_, run)| pick(run)).collect::<Vec<_>>();
        let with_spread = |values: Vec<f64>| {
            let spread = deviation(&values).map_or(String::new(), |deviation| format!(" ({deviation:.2})"));
            format!("{:.2}{spread}", mean(&values))
        };
        let first = &runs[0].1;
        let milliseconds = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.2}"));
        let [ours, onnx_runtime] = times.variants[&variant.name];
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "| {} | {} | {} | {:.1} | {} | {} | {} | {} | {:.0} |",
            variant.name,
            runs.len(),
            first.parameters,
            first.multiply_adds as f64 / 1e6,
            milliseconds(ours),
            milliseconds(onnx_runtime),
            with_spread(of(|run| run.accuracy.map50)),
            with_spread(of(|run| run.accuracy.map50_95)),
            mean(&of(|run| run.images_per_second)),
        );
    }
    let _ = writeln!(
        table,
        "\nTimes: one thread, {}, least of {ROUNDS} images of the model's own size, all networks in turns.",
        times.engine
    );
    report::write(suite, table, &runs, |seed, run| run.outcome(seed), &MAP50)
}

/// Our engine and ONNX Runtime, where it is installed.
type Engines = [Option<Box<dyn Engine>>; 2];

/// Milliseconds an image, by variant: our engine's and ONNX Runtime's, where it is installed.
#[derive(Serialize, Deserialize)]
struct Times {
    /// What ours says of itself.
    engine: String,
    variants: BTreeMap<String, [Option<f64>; 2]>,
}

impl Times {
    /// Those of `times.json` among the results if it has all variants, else measured now and written there.
    fn load_or_measure(suite: &Suite, runs: &BTreeMap<String, Vec<(u64, Finished)>>) -> anyhow::Result<Self> {
        let path = suite.results.join("times.json");
        let known = std::fs::read_to_string(&path).ok().and_then(|text| serde_json::from_str::<Self>(&text).ok());
        if let Some(known) = known.filter(|known| runs.keys().all(|variant| known.variants.contains_key(variant))) {
            return Ok(known);
        }
        let times = Self::measure(runs)?;
        let text = serde_json::to_string_pretty(&times)?;
        write_atomically(&path, |file| std::io::Write::write_all(file, text.as_bytes()))?;
        Ok(times)
    }

    fn measure(runs: &BTreeMap<String, Vec<(u64, Finished)>>) -> anyhow::Result<Self> {
        let runtime = Runtime::with_threads(1);
        let mut engines: Vec<(&str, Engines)> = Vec::new();
        for (variant, runs) in runs {
            let config = &runs[0].1.model;
            let side = config.input;
            // Times do not depend on weights.
            let weights = Network::new(graph_of(config, side, side)?, Device::Cpu).fold()?;
            let model = Model::new(config.clone(), weights, variant)?;
            let make = |kind| create(kind, &model, side, side, &runtime);
            engines.push((variant, [Some(make(EngineKind::Cpu)?), make(EngineKind::Ort).ok()]));
        }
        let engine = engines.iter().find_map(|(_, [ours, _])| ours.as_ref()).map(|engine| engine.description());
        let mut variants: BTreeMap<String, [Option<f64>; 2]> = BTreeMap::new();
        for _ in 0..ROUNDS {
            for (variant, engines) in &mut engines {
                let least = variants.entry((*variant).to_owned()).or_default();
                for (engine, least) in engines.iter_mut().zip(least) {
                    let Some(engine) = engine else { continue };
                    let input = engine.input();
                    let image = Array4::from_elem((1, input.channels, input.height, input.width), 0.5);
                    let start = Instant::now();
                    engine.run(image.view())?;
                    let time = start.elapsed().as_secs_f64() * 1e3;
                    *least = Some(least.map_or(time, |least| least.min(time)));
                }
            }
        }
        Ok(Self { engine: engine.unwrap_or_default(), variants })
    }
}

#[cfg(test)]
mod tests;
