//! Associative recall: how many pairs of a key and a value a model can hold, a task without language (as MQAR of Arora et al. 2023). A
//! sequence lists `n` pairs, then asks for the values of all keys in another order. A run takes minutes and keeps no checkpoint.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::{Context, bail};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::seq::index::sample;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tch::{Kind, Tensor};
use toml::Table;
use yolo_lat::plot::{Band, Line, LineChart, save_panels};
use yolo_lat::sink::write_atomically;
use yolo_lat_lm::LmConfig;

use super::LmArguments;
use super::model::{Initialisation, LanguageModel};
use super::run::MOMENTS;
use crate::log::say;
use crate::optimizer::{AdamW, learning_rate};
use crate::run::interrupt_flag;
use crate::suite::statistics::{deviation, mean};
use crate::suite::{Run, RunConfig, Suite, settings_without};

/// Sequences that each count of pairs is measured on.
const MEASURED: usize = 256;

/// Everything that decides what a run does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecallConfig {
    /// Nothing is written there but a lock.
    output: PathBuf,
    /// Counts of pairs, the least first; all are measured. For two fifths of the steps there are no more than that, for two more one
    /// after the other joins those that a step draws from: of many pairs at once nothing is learnt at first.
    pairs: Vec<usize>,
    /// Tokens a step at most: as many sequences as fit.
    tokens: usize,
    steps: usize,
    /// Steps between two measurements.
    measure_every: usize,
    /// Peak of the learning rate, and its last value as a share of the peak.
    rate: f64,
    last_rate: f64,
    warmup_steps: usize,
    weight_decay: f64,
    clip: f64,
    balance: f64,
    seed: u64,
    /// Half of its vocabulary are keys, half values.
    model: LmConfig,
}

impl RunConfig for RecallConfig {
    fn from_table(table: Table) -> anyhow::Result<Self> {
        let config: Self = table.try_into()?;
        config.model.check().context("model")?;
        let (keys, tokens) = (config.model.vocabulary / 2, config.tokens);
        if config.pairs.is_empty() || config.steps == 0 || config.measure_every == 0 {
            bail!("pairs, steps and measure_every: expected at least one");
        }
        if let Some(pairs) = config.pairs.iter().find(|&&pairs| pairs == 0 || pairs > keys || 4 * pairs > tokens) {
            bail!(
                "pairs: expected 1 to {keys}, half of the vocabulary, and 4 tokens a pair within {tokens}, found {pairs}"
            );
        }
        Ok(config)
    }

    fn output(&mut self) -> &mut PathBuf {
        &mut self.output
    }

    fn settings(&self) -> Value {
        settings_without(self, &["output"])
    }
}

/// `rows` sequences of `pairs` pairs, (rows, 4 pairs), and the values that are asked for, (rows, pairs).
fn sequences(seed: u64, rows: usize, pairs: usize, keys: usize) -> [Tensor; 2] {
    let mut random = SmallRng::seed_from_u64(seed);
    let (mut tokens, mut answers) = (Vec::new(), Vec::new());
    for _ in 0..rows {
        let keys_and_values: Vec<(i64, i64)> = sample(&mut random, keys, pairs)
            .into_iter()
            .map(|key| (key as i64, (keys + random.random_range(0..keys)) as i64))
            .collect();
        let mut asked = keys_and_values.clone();
        asked.shuffle(&mut random);
        tokens.extend(keys_and_values.iter().chain(&asked).flat_map(|&(key, value)| [key, value]));
        answers.extend(asked.iter().map(|&(_, value)| value));
    }
    let shaped = |values: &[i64]| Tensor::from_slice(values).view([rows as i64, -1]);
    [shaped(&tokens), shaped(&answers)]
}

/// What a model says where a value is asked for: logits (rows, pairs, vocabulary), and the balance of its experts.
fn answers(model: &LanguageModel, tokens: &Tensor) -> (Tensor, Tensor) {
    let length = tokens.size()[1];
    let answer = model.forward(tokens);
    (answer.logits.slice(1, length / 2, length, 2), answer.balance)
}

/// Share of the values that a model knows, in percent, for each count of pairs.
fn accuracy(model: &LanguageModel, config: &RecallConfig) -> Vec<f64> {
    let keys = config.model.vocabulary / 2;
    let of = |&pairs: &usize| {
        // Of no seed that training sees.
        let seed = u64::MAX - pairs as u64;
        let [tokens, expected] = sequences(seed, MEASURED, pairs, keys);
        let right = |rows: i64, from: i64| {
            let (logits, _) = answers(model, &tokens.narrow(0, from, rows));
            let found = logits.argmax(-1, false).eq_tensor(&expected.narrow(0, from, rows));
            found.sum(Kind::Int64).int64_value(&[])
        };
        let together = (config.tokens / (4 * pairs)).clamp(1, MEASURED);
        let count: i64 =
            (0..MEASURED).step_by(together).map(|from| right(together.min(MEASURED - from) as i64, from as i64)).sum();
        (count as f64 / (MEASURED * pairs) as f64 * 1e5).round() / 1e3
    };
    tch::no_grad(|| config.pairs.iter().map(of).collect())
}

/// Makes a run; its log, or nothing when it is interrupted.
fn train(run: &Run<RecallConfig>, interrupted: &std::sync::atomic::AtomicBool) -> anyhow::Result<Option<Vec<u8>>> {
    let config = &run.config;
    let keys = config.model.vocabulary / 2;
    let mut model = LanguageModel::new(&config.model, Initialisation::Width, config.seed, Kind::Float);
    let mut optimizer = AdamW::new(&mut model.parameters, config.weight_decay, &BTreeMap::new())?;
    optimizer.constants = MOMENTS;
    let mut log = format!("{}\n", json!({ "config": config.settings(), "parameters": config.model.parameter_count() }));
    for step in 0..config.steps {
        if interrupted.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let seed = config.seed << 32 | step as u64;
        let count = config.pairs.len();
        let drawn_from = (1 + (5 * step * count / config.steps).saturating_sub(2 * count).div_ceil(2)).min(count);
        let pairs = config.pairs[SmallRng::seed_from_u64(seed).random_range(0..drawn_from)];
        let [tokens, expected] = sequences(seed, config.tokens / (4 * pairs), pairs, keys);
        let (logits, balance) = answers(&model, &tokens);
        let loss = logits.flatten(0, 1).cross_entropy_for_logits(&expected.flatten(0, 1));
        (&loss + balance * config.balance).backward();
        let loss = loss.double_value(&[]);
        if !loss.is_finite() {
            bail!("{}, seed {}: the loss of step {step} is {loss}", run.variant, run.seed);
        }
        let rate = learning_rate(step, config.steps, config.warmup_steps, config.rate, config.last_rate);
        optimizer.step(&model.parameters, rate, config.clip);
        if (step + 1).is_multiple_of(config.measure_every) || step + 1 == config.steps {
            let accuracy = accuracy(&model, config);
            let loss = (loss * 1e4).round() / 1e4;
            say(&format!("{}, seed {}: step {}, loss {loss}, right {accuracy:?} %", run.variant, run.seed, step + 1));
            log += &format!("{}\n", json!({ "step": step + 1, "loss": loss, "accuracy": accuracy }));
        }
    }
    Ok(Some(log.into_bytes()))
}

/// Makes all runs that are neither finished nor another process's, then writes table and picture of those that are.
///
/// # Errors
/// A configuration is wrong or a run fails.
pub(crate) fn recall(arguments: &LmArguments) -> anyhow::Result<ExitCode> {
    let suite = Suite::load::<RecallConfig>(&arguments.config)?;
    let interrupted = interrupt_flag()?;
    if !suite.make(|run| train(run, &interrupted))? {
        return Ok(ExitCode::from(130));
    }
    say(&report(&suite)?);
    Ok(ExitCode::SUCCESS)
}

/// What the log of a finished run says.
struct Finished {
    pairs: Vec<usize>,
    parameters: u64,
    /// For each count of pairs, in percent, at the end.
    accuracy: Vec<f64>,
}

impl Finished {
    fn read(lines: &[Value]) -> anyhow::Result<Self> {
        let [head, .., last] = lines else { bail!("nothing in it") };
        Ok(Self {
            pairs: serde_json::from_value(head["config"]["pairs"].clone())?,
            parameters: head["parameters"].as_u64().context("parameters")?,
            accuracy: serde_json::from_value(last["accuracy"].clone())?,
        })
    }
}

fn report(suite: &Suite) -> anyhow::Result<String> {
    let runs = suite.finished::<RecallConfig, _>(Finished::read)?;
    let Some(pairs) = runs.values().flatten().map(|(_, run)| run.pairs.clone()).next() else {
        return Ok("no run is finished".into());
    };
    let columns: Vec<String> = pairs.iter().map(|pairs| format!("{pairs} pairs")).collect();
    let mut table = format!(
        "Values known, in percent: mean (sd) over seeds.\n\n| variant | seeds | parameters | {} |\n|---|---|---|{}\n",
        columns.join(" | "),
        "---|".repeat(pairs.len())
    );
    let (mut lines, mut bands) = (Vec::new(), Vec::new());
    for variant in &suite.variants {
        let Some(runs) = runs.get(&variant.name) else { continue };
        let at = |index: usize| runs.iter().map(|(_, run)| run.accuracy[index]).collect::<Vec<_>>();
        let cell = |index: usize| {
            let spread = deviation(&at(index)).map_or(String::new(), |deviation| format!(" ({deviation:.1})"));
            format!("{:.1}{spread}", mean(&at(index)))
        };
        let cells: Vec<String> = (0..pairs.len()).map(cell).collect();
        // Writing to a String cannot fail.
        let _ =
            writeln!(table, "| {} | {} | {} | {} |", variant.name, runs.len(), runs[0].1.parameters, cells.join(" | "));
        let point = |index: usize| (pairs[index] as f64, mean(&at(index)));
        lines.push(Line {
            name: format!("{} ({})", variant.name, runs.len()),
            points: (0..pairs.len()).map(point).collect(),
        });
        let range = |index: usize| {
            let values = at(index);
            let extreme = |pick: fn(f64, f64) -> f64| values.iter().copied().reduce(pick).unwrap_or(f64::NAN);
            (pairs[index] as f64, extreme(f64::min), extreme(f64::max))
        };
        bands.push(Band((0..pairs.len()).map(range).collect()));
    }
    let chart = LineChart {
        title: "Associative recall".into(),
        axes: ["pairs".into(), "values known, %".into()],
        lines,
        bands,
        rises: false,
    };
    write_atomically(&suite.results.join("table.md"), |file| std::io::Write::write_all(file, table.as_bytes()))?;
    save_panels(&suite.results.join("curves.png"), &[chart])?;
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_ask_for_what_they_list() {
        let [tokens, answers] = sequences(7, 5, 6, 40);
        assert_eq!((tokens.size(), answers.size()), (vec![5, 24], vec![5, 6]));
        let tokens: Vec<Vec<i64>> = Vec::try_from(&tokens).unwrap();
        let answers: Vec<Vec<i64>> = Vec::try_from(&answers).unwrap();
        let mut moved = 0;
        for (tokens, answers) in tokens.iter().zip(&answers) {
            let (listed, asked) = tokens.split_at(12);
            let value_of = |key: i64| {
                let places: Vec<usize> = (0..12).step_by(2).filter(|&at| listed[at] == key).collect();
                assert_eq!(places.len(), 1, "a key stands once: {tokens:?}");
                listed[places[0] + 1]
            };
            for (pair, (question, answer)) in asked.chunks_exact(2).zip(answers).enumerate() {
                assert!((0..40).contains(&question[0]) && (40..80).contains(answer));
                assert_eq!((question[1], *answer), (value_of(question[0]), value_of(question[0])));
                moved += usize::from(listed[2 * pair] != question[0]);
            }
        }
        assert!(moved > 10, "the order is another: {moved}");
        let again = sequences(7, 5, 6, 40)[0].copy();
        assert!(again == sequences(7, 5, 6, 40)[0] && again != sequences(8, 5, 6, 40)[0]);
    }

    #[test]
    fn two_pairs_are_learnt_and_told_in_a_table() {
        let folder = tempfile::tempdir().unwrap();
        let text = std::fs::read_to_string("configs/lm/recall.toml").unwrap();
        let suite = Suite::load::<RecallConfig>("configs/lm/recall.toml".as_ref()).unwrap();
        assert_eq!(suite.runs::<RecallConfig>().unwrap().len(), 9);
        // A small one of one variant.
        let text = text
            .replace("benches/runs/lm-recall", &format!("{}/results", folder.path().display()))
            .replace("runs/lm-recall", &format!("{}/runs", folder.path().display()))
            .replace("pairs = [4, 8, 16, 32, 64]", "pairs = [1, 2]")
            .replace("steps = 3000", "steps = 300")
            .replace("tokens = 2048", "tokens = 512")
            .replace("seeds = [1, 2, 3]", "seeds = [1]")
            .replace("vocabulary = 256", "vocabulary = 8")
            .replace("width = 128", "width = 32");
        let text = text.split("[[variant]]\nname = \"linear\"").next().unwrap();
        let config = folder.path().join("recall.toml");
        std::fs::write(&config, text).unwrap();
        let arguments = LmArguments { config, data: "nowhere".into(), threads: 1 };
        assert_eq!(recall(&arguments).unwrap(), ExitCode::SUCCESS);
        let table = std::fs::read_to_string(folder.path().join("results/table.md")).unwrap();
        let row = table.lines().find(|line| line.starts_with("| softmax | 1 |")).unwrap();
        let cells: Vec<f64> = row.split('|').filter_map(|cell| cell.trim().parse().ok()).collect();
        // Chance knows a quarter.
        assert!(cells[2] > 90.0, "one pair: {table}");
        assert!(image::open(folder.path().join("results/curves.png")).unwrap().width() > 0);
        let error = RecallConfig::from_table(toml::from_str(&text.replace("pairs = [1, 2]", "pairs = [9]")).unwrap());
        assert!(error.is_err());
    }
}
