//! `yolo-lat bench gradients`.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use yolo_lat::attention::{HadamardExp, Rows, gradients, linear_f32, naive, quadratic};
use yolo_lat::plot::{Line, LogChart};

use super::{OutputArguments, machine, wave};

const TOKENS: usize = 256;
const DIMENSIONS: usize = 16;
const SCALES: [f32; 13] = [0.1, 0.3, 1.0, 3.0, 10.0, 20.0, 30.0, 40.0, 60.0, 100.0, 300.0, 1e3, 1e4];

#[derive(Args, Debug)]
pub(super) struct GradientsArguments {
    #[command(flatten)]
    output: OutputArguments,
}

/// What one scale of queries and keys gives.
struct Row {
    scale: f32,
    naive_norm: f32,
    naive_denominators: (f32, f32),
    stable_norm: f64,
    /// Largest difference of the stable f32 result from the quadratic form in f64, values being at most 1.
    stable_error: f64,
}

pub(super) fn run(arguments: &GradientsArguments) -> anyhow::Result<ExitCode> {
    let rows: Vec<Row> = SCALES.map(measure).into();
    if let Some(path) = &arguments.output.plot {
        let line = |name: &str, value: fn(&Row) -> f64| Line {
            name: name.into(),
            points: rows.iter().map(|row| (f64::from(row.scale), value(row))).collect(),
        };
        let lines = vec![
            line("gradient norm, naive f32", |row| f64::from(row.naive_norm)),
            line("gradient norm, stable", |row| row.stable_norm),
            line("largest denominator, naive f32", |row| f64::from(row.naive_denominators.1)),
        ];
        let axes = ["largest query and key".into(), "value".into()];
        LogChart { title: "Gradients against the scale of the inputs".into(), axes, lines }.save(path)?;
    }
    if arguments.output.json {
        // JSON knows no infinity: null stands for a number that f32 could not hold.
        let value = json!({
            "machine": machine(1), "tokens": TOKENS, "dimensions": DIMENSIONS,
            "rows": rows.iter().map(|row| json!({
                "scale": row.scale, "naive_gradient_norm": row.naive_norm,
                "naive_denominator_min": row.naive_denominators.0, "naive_denominator_max": row.naive_denominators.1,
                "stable_gradient_norm": row.stable_norm, "stable_error": row.stable_error,
            })).collect::<Vec<_>>(),
        });
        return super::super::print(&format!("{value}\n"));
    }
    let mut table = format!(
        "Hadamard exp, {TOKENS} tokens of {DIMENSIONS} values\n{:>8} {:>14} {:>24} {:>14} {:>14}\n",
        "scale", "naive norm", "naive denominators", "stable norm", "stable error"
    );
    for row in &rows {
        let (low, high) = row.naive_denominators;
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "{:>8} {:>14.4e} {:>24} {:>14.4e} {:>14.1e}",
            row.scale,
            row.naive_norm,
            format!("{low:.2e} .. {high:.2e}"),
            row.stable_norm,
            row.stable_error
        );
    }
    super::super::print(&table)
}

fn measure(scale: f32) -> Row {
    let [q, k] = [0.71, 1.31].map(|step| wave(TOKENS * DIMENSIONS, step, scale));
    let v = wave(TOKENS * DIMENSIONS, 0.37, 1.0);
    let d_result = wave(TOKENS * DIMENSIONS, 0.53, 1.0);
    let plain = naive(&q, &k, &v, &d_result, DIMENSIONS);
    let wide = |x: &[f32]| -> Vec<f64> { x.iter().map(|&x| f64::from(x)).collect() };
    let stable = gradients(&HadamardExp, &wide(&q), &wide(&k), &wide(&v), &wide(&d_result), DIMENSIONS);
    let expected = quadratic(&HadamardExp, &wide(&q), &wide(&k), &wide(&v), DIMENSIONS);
    let [q, k, v] = [&q, &k, &v].map(|values| Rows::new(values, DIMENSIONS));
    let found = linear_f32(&HadamardExp, q, k, v);
    let error = expected.iter().zip(&found).fold(0.0, |worst, (a, b)| f64::max(worst, (a - f64::from(*b)).abs()));
    Row {
        scale,
        naive_norm: plain.gradient_norm,
        naive_denominators: plain.denominators,
        stable_norm: stable.norm(),
        stable_error: error,
    }
}
