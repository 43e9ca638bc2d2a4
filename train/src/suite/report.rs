//! What contrasts of a suite's finished runs say, as a table and as curves.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use yolo_lat::plot::{Band, Line, LineChart, save_panels};
use yolo_lat::sink::write_atomically;

use super::statistics::{bootstrap, holm, mean, reaches, t_test};
use super::{Contrast, Suite};

/// How good a finished run is.
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    /// At its end.
    pub(crate) value: f64,
    /// Step and value, at all measurements.
    pub(crate) curve: Vec<(f64, f64)>,
    /// Of each part of what was measured on, its value times its weight, and its weight.
    pub(crate) parts: Vec<(f64, usize)>,
    /// What a step learns from, in the units of [`Measure::learnt`].
    pub(crate) per_step: f64,
}

/// Finished runs by variant.
type Outcomes = BTreeMap<String, Vec<Outcome>>;

/// Adds the contrasts to a table of variants, and writes it and the curves into the results as `table.md` and `curves.png`; the table.
///
/// # Errors
/// A file cannot be written.
pub(crate) fn write<T>(
    suite: &Suite,
    mut table: String,
    runs: &BTreeMap<String, Vec<(u64, T)>>,
    outcome: impl Fn(u64, &T) -> Outcome,
    measure: &Measure,
) -> anyhow::Result<String> {
    let outcomes = |runs: &Vec<(u64, T)>| runs.iter().map(|(seed, run)| outcome(*seed, run)).collect();
    let outcomes: Outcomes = runs.iter().map(|(name, runs)| (name.clone(), outcomes(runs))).collect();
    table.push('\n');
    table += &contrasts(suite, &outcomes, measure);
    write_atomically(&suite.results.join("table.md"), |file| std::io::Write::write_all(file, table.as_bytes()))?;
    save_panels(&suite.results.join("curves.png"), &panels(suite, &outcomes, measure))?;
    Ok(table)
}

/// What the value of a run is.
pub(crate) struct Measure {
    /// With its unit.
    pub(crate) name: &'static str,
    /// Over a picture of curves.
    pub(crate) title: &'static str,
    /// What it is measured on.
    pub(crate) parts: &'static str,
    /// Whether more is better.
    pub(crate) rises: bool,
    /// Digits behind the point.
    pub(crate) digits: usize,
    /// What is learnt from, and how the last value is called.
    pub(crate) learnt: [&'static str; 2],
}

/// Paired differences of a contrast.
struct Difference {
    /// Of each seed that both have.
    seeds: Vec<f64>,
    /// Of each part, mean over the seeds, with its weight.
    parts: Vec<(f64, usize)>,
    /// What was learnt from until the first had reached the other's last value, and in all.
    learnt: (Option<f64>, f64),
}

fn difference(contrast: &Contrast, runs: &Outcomes, measure: &Measure) -> Option<Difference> {
    let (of, against) = (runs.get(&contrast.of)?, runs.get(&contrast.against)?);
    let other = |run: &Outcome| against.iter().find(|other| other.seed == run.seed);
    let pairs: Vec<(&Outcome, &Outcome)> = of.iter().filter_map(|run| Some((run, other(run)?))).collect();
    let (first, _) = pairs.first()?;
    let part = |index: usize| {
        let values = pairs.iter().map(|(a, b)| a.parts[index].0 - b.parts[index].0);
        (values.sum::<f64>() / pairs.len() as f64, first.parts[index].1)
    };
    let curve: Vec<&Outcome> = pairs.iter().map(|(run, _)| *run).collect();
    let level = mean(&pairs.iter().map(|(_, other)| other.value).collect::<Vec<_>>());
    let sign = if measure.rises { -1.0 } else { 1.0 };
    let falling: Vec<(f64, f64)> = mean_curve(&curve).into_iter().map(|(step, value)| (step, sign * value)).collect();
    Some(Difference {
        seeds: pairs.iter().map(|(a, b)| a.value - b.value).collect(),
        parts: (0..first.parts.len()).map(part).collect(),
        learnt: (
            reaches(&falling, sign * level).map(|step| step * first.per_step),
            first.curve.last()?.0 * first.per_step,
        ),
    })
}

fn mean_curve(runs: &[&Outcome]) -> Vec<(f64, f64)> {
    let at = |index: usize, step: f64| (step, mean(&runs.iter().map(|run| run.curve[index].1).collect::<Vec<_>>()));
    runs[0].curve.iter().enumerate().map(|(index, &(step, _))| at(index, step)).collect()
}

/// Differences with their intervals, a row a contrast of which both variants have a finished run.
fn contrasts(suite: &Suite, runs: &Outcomes, measure: &Measure) -> String {
    let Measure { name, parts, learnt: [learnt, last], digits, .. } = measure;
    let mut table = format!(
        "| | contrast | seeds | difference, {name} | 95 % over seeds (t) | 95 % over {parts} (bootstrap) | p (Holm) | verdict | {learnt} to the other's last {last} |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    let signed = |value: f64| format!("{value:+.digits$}");
    let mut groups: Vec<&str> = suite.contrasts.iter().map(|contrast| contrast.group.as_str()).collect();
    groups.dedup();
    for group in groups {
        let members = suite.contrasts.iter().filter(|contrast| contrast.group == group);
        let found: Vec<(&Contrast, Difference)> =
            members.filter_map(|contrast| Some((contrast, difference(contrast, runs, measure)?))).collect();
        let tests: Vec<_> = found.iter().map(|(_, difference)| t_test(&difference.seeds)).collect();
        let corrected = holm(&tests.iter().map(|test| test.map_or(1.0, |test| test.p)).collect::<Vec<_>>());
        for (((contrast, difference), test), p) in found.iter().zip(tests).zip(corrected) {
            let mean = mean(&difference.seeds);
            let [low, high] = bootstrap(&difference.parts);
            let (interval, p, verdict) = match test {
                None => ("one seed".to_owned(), String::new(), "one seed: none"),
                Some(test) => {
                    let (from, to) = (mean - test.half_width, mean + test.half_width);
                    let clear = p < 0.05 && (low > 0.0 || high < 0.0);
                    let verdict = match clear {
                        false => "no difference found",
                        true if (mean > 0.0) == measure.rises => "better",
                        true => "worse",
                    };
                    (format!("{} to {}", signed(from), signed(to)), format!("{p:.3}"), verdict)
                }
            };
            let (reached, all) = difference.learnt;
            let reached =
                reached.map_or("not reached".into(), |count| format!("{:.2} of {:.2} M", count / 1e6, all / 1e6));
            // Writing to a String cannot fail.
            let _ = writeln!(
                table,
                "| {group} | {} - {} | {} | {} | {interval} | {} to {} | {p} | {verdict} | {reached} |",
                contrast.of,
                contrast.against,
                difference.seeds.len(),
                signed(mean),
                signed(low),
                signed(high),
            );
        }
    }
    table
}

/// A panel a group of contrasts: mean and band from least to most of the seeds, after the first quarter.
fn panels(suite: &Suite, runs: &Outcomes, measure: &Measure) -> Vec<LineChart> {
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
            let runs: Vec<&Outcome> = runs[name].iter().collect();
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
        let axes = ["step".to_owned(), measure.name.to_owned()];
        LineChart { title: format!("{group}: {}", measure.title), axes, lines, bands, rises: measure.rises }
    };
    panels.into_iter().filter(|(_, names)| !names.is_empty()).map(chart).collect()
}
