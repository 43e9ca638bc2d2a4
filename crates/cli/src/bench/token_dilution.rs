//! `yolo-lat bench token-dilution`.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use yolo_lat::attention::{DiffDistance, HadamardExp, ModulatedDot, Similarity, Softmax, SumDistance, token_dilution};
use yolo_lat::plot::{Line, LogChart};

use super::{OutputArguments, machine};

const TOKENS: [usize; 6] = [16, 64, 256, 1024, 4096, 16384];
const KERNELS: [&dyn Similarity; 5] = [&HadamardExp, &SumDistance, &DiffDistance, &ModulatedDot, &Softmax];

#[derive(Args, Debug)]
pub(super) struct TokenDilutionArguments {
    #[command(flatten)]
    output: OutputArguments,
}

pub(super) fn run(arguments: &TokenDilutionArguments) -> anyhow::Result<ExitCode> {
    let rows = KERNELS.map(|kernel| (kernel.name(), TOKENS.map(|tokens| token_dilution(kernel, tokens))));
    if let Some(path) = &arguments.output.plot {
        let points = |below: &[f64; 6]| TOKENS.iter().zip(below).map(|(&x, &y)| (x as f64, y)).collect();
        let lines = rows.iter().map(|(name, below)| Line { name: (*name).into(), points: points(below) }).collect();
        let axes = ["tokens".into(), "entropy below the mean's, nats".into()];
        LogChart { title: "How far attention is from the plain mean".into(), axes, lines }.save(path)?;
    }
    if arguments.output.json {
        let row = |(name, below): &(&str, [f64; 6])| json!({"kernel": name, "entropy_below_mean": below});
        let value = json!({
            "machine": machine(1), "tokens": TOKENS, "rows": rows.iter().map(row).collect::<Vec<_>>(),
        });
        return super::super::print(&format!("{value}\n"));
    }
    let line = |name: &str, cells: Vec<String>| format!("{name:<15}{}\n", cells.concat());
    let mut table = String::from("log L - H(weights) in nats: 0 is the plain mean\n");
    table += &line("tokens", TOKENS.map(|tokens| format!("{tokens:>9}")).into());
    for (name, below) in &rows {
        table += &line(name, below.map(|below| format!("{below:>9.4}")).into());
    }
    super::super::print(&table)
}
