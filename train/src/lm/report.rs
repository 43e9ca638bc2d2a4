//! Table and picture of a suite's finished runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::Value;
use yolo_lat::plot::{Band, Line, LineChart, save_panels};
use yolo_lat::sink::write_atomically;

use super::evaluate::{Measured, bits_per_byte, nats_per_token};
use super::statistics::{bootstrap, deviation, holm, mean, reaches, t_test};
use super::suite::{Contrast, Suite, is_finished};

/// What the log of a finished run says.
struct Finished {
    seed: u64,
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
    fn read(path: &Path, seed: u64) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let lines = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        let [head, lines @ ..] = lines.as_slice() else { bail!("nothing in it") };
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
            seed,
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
}

/// Finished runs by variant.
type Runs = BTreeMap<String, Vec<Finished>>;

/// Writes `table.md` and `curves.png` into the results; the table.
///
/// # Errors
/// A log is damaged or of another configuration, or a file cannot be written.
pub(crate) fn report(suite: &Suite) -> anyhow::Result<String> {
    let mut runs = Runs::new();
    for run in suite.runs()? {
        if is_finished(&run, &suite.results)? {
            let path = run.result(&suite.results);
            let finished = Finished::read(&path, run.seed).with_context(|| path.display().to_string())?;
            runs.entry(run.variant).or_default().push(finished);
        }
    }
    if runs.is_empty() {
        return Ok("no run is finished".into());
    }
    let mut table = suite.note.as_ref().map_or(String::new(), |note| format!("{note}\n\n"));
    table += &variants(suite, &runs);
    if let Some(entropy) = runs.values().flatten().find_map(|run| run.pair_entropy) {
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "\nThe entropy of a token given the one before, counted in what was learnt from: {entropy:.2} nats."
        );
    }
    table.push('\n');
    table += &contrasts(suite, &runs);
    write_atomically(&suite.results.join("table.md"), |file| std::io::Write::write_all(file, table.as_bytes()))?;
    save_panels(&suite.results.join("curves.png"), &panels(suite, &runs))?;
    Ok(table)
}

fn variants(suite: &Suite, runs: &Runs) -> String {
    let mut table = String::from(
        "| variant | seeds | parameters | multiply-adds a token | nats a token, mean (sd) | bits a byte | tokens/s | gradient norm, first and last layer | last tenth of training, nats | logits move before, behind a changed token |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for variant in &suite.variants {
        let Some(runs) = runs.get(&variant.name) else { continue };
        let of = |pick: &dyn Fn(&Finished) -> f64| runs.iter().map(pick).collect::<Vec<_>>();
        let losses = of(&Finished::loss);
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

/// Paired differences of a contrast; negative where the first is better.
struct Difference {
    /// Of each seed that both have.
    seeds: Vec<f64>,
    /// Of each chapter, mean over the seeds, with its tokens.
    chapters: Vec<(f64, usize)>,
    /// Tokens after which the first has reached the other's last loss, and all.
    tokens: (Option<f64>, f64),
}

fn difference(contrast: &Contrast, runs: &Runs) -> Option<Difference> {
    let (of, against) = (runs.get(&contrast.of)?, runs.get(&contrast.against)?);
    let other = |run: &Finished| against.iter().find(|other| other.seed == run.seed);
    let pairs: Vec<(&Finished, &Finished)> = of.iter().filter_map(|run| Some((run, other(run)?))).collect();
    let (first, _) = pairs.first()?;
    let chapter = |index: usize| {
        let nats = pairs.iter().map(|(a, b)| a.chapters[index].nats - b.chapters[index].nats);
        (nats.sum::<f64>() / pairs.len() as f64, first.chapters[index].tokens)
    };
    let curve: Vec<&Finished> = pairs.iter().map(|(run, _)| *run).collect();
    let level = mean(&pairs.iter().map(|(_, other)| other.loss()).collect::<Vec<_>>());
    let steps = first.curve.last()?.0;
    Some(Difference {
        seeds: pairs.iter().map(|(a, b)| a.loss() - b.loss()).collect(),
        chapters: (0..first.chapters.len()).map(chapter).collect(),
        tokens: (
            reaches(&mean_curve(&curve), level).map(|step| step * first.tokens_per_step),
            steps * first.tokens_per_step,
        ),
    })
}

fn mean_curve(runs: &[&Finished]) -> Vec<(f64, f64)> {
    let at = |index: usize, step: f64| (step, mean(&runs.iter().map(|run| run.curve[index].1).collect::<Vec<_>>()));
    runs[0].curve.iter().enumerate().map(|(index, &(step, _))| at(index, step)).collect()
}

fn contrasts(suite: &Suite, runs: &Runs) -> String {
    let mut table = String::from(
        "| | contrast | seeds | difference, nats a token | 95 % over seeds (t) | 95 % over chapters (bootstrap) | p (Holm) | verdict | tokens to the other's last loss |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    let mut groups: Vec<&str> = suite.contrasts.iter().map(|contrast| contrast.group.as_str()).collect();
    groups.dedup();
    for group in groups {
        let members = suite.contrasts.iter().filter(|contrast| contrast.group == group);
        let found: Vec<(&Contrast, Difference)> =
            members.filter_map(|contrast| Some((contrast, difference(contrast, runs)?))).collect();
        let tests: Vec<_> = found.iter().map(|(_, difference)| t_test(&difference.seeds)).collect();
        let corrected = holm(&tests.iter().map(|test| test.map_or(1.0, |test| test.p)).collect::<Vec<_>>());
        for (((contrast, difference), test), p) in found.iter().zip(tests).zip(corrected) {
            let mean = mean(&difference.seeds);
            let [low, high] = bootstrap(&difference.chapters);
            let (interval, p, verdict) = match test {
                None => ("one seed".to_owned(), String::new(), "one seed: none"),
                Some(test) => {
                    let (from, to) = (mean - test.half_width, mean + test.half_width);
                    let clear = p < 0.05 && (low > 0.0 || high < 0.0);
                    let verdict = if !clear {
                        "no difference found"
                    } else if mean < 0.0 {
                        "better"
                    } else {
                        "worse"
                    };
                    (format!("{from:+.4} to {to:+.4}"), format!("{p:.3}"), verdict)
                }
            };
            let (reached, all) = difference.tokens;
            let reached =
                reached.map_or("not reached".into(), |tokens| format!("{:.2} of {:.2} M", tokens / 1e6, all / 1e6));
            let _ = writeln!(
                table,
                "| {group} | {} - {} | {} | {mean:+.4} | {interval} | {low:+.4} to {high:+.4} | {p} | {verdict} | {reached} |",
                contrast.of,
                contrast.against,
                difference.seeds.len(),
            );
        }
    }
    table
}

/// A panel a group of contrasts: mean and band from least to most of the seeds, after the first quarter.
fn panels(suite: &Suite, runs: &Runs) -> Vec<LineChart> {
    let mut panels: Vec<(&str, Vec<&str>)> = Vec::new();
    for Contrast { group, of, against } in &suite.contrasts {
        if panels.last().is_none_or(|(name, _)| name != group) {
            panels.push((group, Vec::new()));
        }
        let Some((_, names)) = panels.last_mut() else { continue };
        for name in [against, of] {
            if runs.contains_key(name) && !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
    }
    let chart = |(group, names): (&str, Vec<&str>)| {
        let (mut lines, mut bands) = (Vec::new(), Vec::new());
        for name in names {
            let runs: Vec<&Finished> = runs[name].iter().collect();
            let last = runs[0].curve.last().map_or(0.0, |point| point.0);
            let points: Vec<(usize, (f64, f64))> =
                mean_curve(&runs).into_iter().enumerate().filter(|(_, (step, _))| *step >= last / 4.0).collect();
            let range = |(index, (step, _)): &(usize, (f64, f64))| {
                let values = || runs.iter().map(|run| run.curve[*index].1);
                (*step, values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max))
            };
            bands.push(Band(points.iter().map(range).collect()));
            let name = format!("{name} ({})", runs.len());
            lines.push(Line { name, points: points.into_iter().map(|(_, point)| point).collect() });
        }
        let axes = ["step".to_owned(), "nats a token".to_owned()];
        LineChart { title: format!("{group}: loss on the validation chapters"), axes, lines, bands, rises: false }
    };
    panels.into_iter().filter(|(_, names)| !names.is_empty()).map(chart).collect()
}
