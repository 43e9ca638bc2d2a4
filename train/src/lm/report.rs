//! Table and picture of a suite's finished runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, bail};
use serde_json::Value;

use super::config::RunConfig;
use super::evaluate::{Measured, bits_per_byte, nats_per_token};
use crate::suite::Suite;
use crate::suite::report::{self, Measure, Outcome};
use crate::suite::statistics::{deviation, mean};

const LOSS: Measure = Measure {
    name: "nats a token",
    title: "loss on the validation chapters",
    parts: "chapters",
    rises: false,
    digits: 4,
    learnt: ["tokens", "loss"],
};

/// What the log of a finished run says.
struct Finished {
    parameters: u64,
    macs: u64,
    /// Step and loss on the validation chapters in nats a token.
    curve: Vec<(f64, f64)>,
    chapters: Vec<Measured>,
    /// Median.
    tokens_per_second: f64,
    /// Norms of the gradients of the first and the last layer, means over the run.
    gradients: [f64; 2],
    tokens_per_step: f64,
    /// Mean loss of the last tenth of the steps, on what was learnt from.
    learnt: f64,
    /// How far logits before and behind a changed token move, in runs that measured it.
    moved: Option<[f64; 2]>,
    /// What the last token leaves unknown of the next one in what was learnt from, in runs that counted it.
    pair_entropy: Option<f64>,
}

impl Finished {
    fn read(lines: &[Value]) -> anyhow::Result<Self> {
        let [head, lines @ ..] = lines else { bail!("nothing in it") };
        let mut measured = lines.iter().filter(|line| line["validation"].is_f64());
        let point = |line: &Value| Some((line["step"].as_f64()?, line["validation"].as_f64()?));
        let curve = measured.clone().filter_map(point).collect();
        let last = measured.next_back().context("no measurement")?;
        let chapters: Vec<(f64, usize, usize)> = serde_json::from_value(last["chapters"].clone())?;
        let chapters = chapters.into_iter().map(|(nats, tokens, bytes)| Measured { nats, tokens, bytes }).collect();
        let mut speeds: Vec<f64> = lines.iter().filter_map(|line| line["tokens_per_second"].as_f64()).collect();
        speeds.sort_by(f64::total_cmp);
        let losses: Vec<f64> = lines.iter().filter_map(|line| line["loss"].as_f64()).collect();
        let norms: Vec<Vec<f64>> = lines
            .iter()
            .filter(|line| line["gradient_norms"].is_array())
            .map(|line| serde_json::from_value(line["gradient_norms"].clone()))
            .collect::<Result<_, _>>()?;
        let of =
            |pick: fn(&Vec<f64>) -> Option<&f64>| mean(&norms.iter().filter_map(pick).copied().collect::<Vec<_>>());
        let number = |value: &Value| value.as_f64().context("a size is missing");
        Ok(Self {
            parameters: number(&head["parameters"])? as u64,
            macs: number(&head["macs_per_token"])? as u64,
            curve,
            chapters,
            tokens_per_second: speeds.get(speeds.len() / 2).copied().unwrap_or(f64::NAN),
            gradients: [of(|norms| norms.first()), of(|norms| norms.last())],
            tokens_per_step: number(&head["config"]["batch"])? * number(&head["config"]["length"])?,
            learnt: mean(&losses[losses.len() - losses.len().div_ceil(10)..]),
            moved: serde_json::from_value(last["moved"].clone())?,
            pair_entropy: head["pair_entropy"].as_f64(),
        })
    }

    fn loss(&self) -> f64 {
        nats_per_token(&self.chapters)
    }

    fn outcome(&self, seed: u64) -> Outcome {
        Outcome {
            seed,
            value: self.loss(),
            curve: self.curve.clone(),
            parts: self.chapters.iter().map(|chapter| (chapter.nats, chapter.tokens)).collect(),
            per_step: self.tokens_per_step,
        }
    }
}

/// Finished runs by variant, with their seeds.
type Runs = BTreeMap<String, Vec<(u64, Finished)>>;

/// Writes `table.md` and `curves.png` into the results; the table.
///
/// # Errors
/// A log is damaged or of another configuration, or a file cannot be written.
pub(crate) fn report(suite: &Suite) -> anyhow::Result<String> {
    let runs = suite.finished::<RunConfig, _>(Finished::read)?;
    if runs.is_empty() {
        return Ok("no run is finished".into());
    }
    let mut table = suite.note.as_ref().map_or(String::new(), |note| format!("{note}\n\n"));
    table += &variants(suite, &runs);
    if let Some(entropy) = runs.values().flatten().find_map(|(_, run)| run.pair_entropy) {
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "\nThe entropy of a token given the one before, counted in what was learnt from: {entropy:.2} nats."
        );
    }
    report::write(suite, table, &runs, |seed, run| run.outcome(seed), &LOSS)
}

fn variants(suite: &Suite, runs: &Runs) -> String {
    let mut table = String::from(
        "| variant | seeds | parameters | multiply-adds a token | nats a token, mean (sd) | bits a byte | tokens/s | gradient norm, first and last layer | last tenth of training, nats | logits move before, behind a changed token |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for variant in &suite.variants {
        let Some(runs) = runs.get(&variant.name) else { continue };
        let runs: Vec<&Finished> = runs.iter().map(|(_, run)| run).collect();
        let of = |pick: &dyn Fn(&Finished) -> f64| runs.iter().map(|run| pick(run)).collect::<Vec<_>>();
        let losses = of(&|run| run.loss());
        // Of the run that moved most.
        let moved = runs.iter().filter_map(|run| run.moved).reduce(|a, b| [a[0].max(b[0]), a[1].max(b[1])]);
        let moved = moved.map_or(String::new(), |[before, behind]| format!("{before:.2}, {behind:.2}"));
        let spread = deviation(&losses).map_or(String::new(), |deviation| format!(" ({deviation:.4})"));
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {:.4}{spread} | {:.4} | {:.0} | {:.4}, {:.4} | {:.3} | {moved} |",
            variant.name,
            runs.len(),
            runs[0].parameters,
            runs[0].macs,
            mean(&losses),
            mean(&of(&|run| bits_per_byte(&run.chapters))),
            mean(&of(&|run| run.tokens_per_second)),
            mean(&of(&|run| run.gradients[0])),
            mean(&of(&|run| run.gradients[1])),
            mean(&of(&|run| run.learnt)),
        );
    }
    table
}
