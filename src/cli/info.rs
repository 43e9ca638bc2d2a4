//! `yolo-lat info`: what a model is made of.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use yolo_lat::model::graph::{Graph, Node};
use yolo_lat::model::{graph_of, load_config};

#[derive(Args, Debug)]
pub(super) struct InfoArguments {
    /// Model: n, s, or the path of a .toml or .safetensors file; weights are not needed
    #[arg(default_value = "n")]
    model: String,
    /// Input size in pixels, a multiple of 32; default: the model's
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &InfoArguments) -> anyhow::Result<ExitCode> {
    let config = load_config(&arguments.model)?;
    let size = arguments.size.unwrap_or(config.input);
    let graph = graph_of(&config, size, size)?;
    if arguments.json {
        return super::print(&format!("{}\n", as_json(&graph)));
    }
    super::print(&as_table(&graph))
}

fn as_json(graph: &Graph) -> serde_json::Value {
    let layer = |node: &Node| {
        let shape = [node.shape.channels, node.shape.height, node.shape.width];
        json!({
            "name": node.name, "operation": node.op.label(),
            "inputs": node.inputs.iter().map(|&input| &graph.nodes[input].name).collect::<Vec<_>>(),
            "shape": shape, "parameters": graph.parameters_of(node), "multiply_adds": graph.multiply_adds_of(node),
        })
    };
    json!({
        "model": graph.name, "parameters": graph.parameters(), "multiply_adds": graph.multiply_adds(),
        "input": [graph.input().width, graph.input().height],
        "layers": graph.nodes.iter().map(layer).collect::<Vec<_>>(),
    })
}

fn as_table(graph: &Graph) -> String {
    let mut table =
        format!("{:<28} {:<40} {:>14} {:>10} {:>14}\n", "layer", "operation", "shape", "parameters", "multiply-adds");
    for node in &graph.nodes {
        let (parameters, multiply_adds) = (graph.parameters_of(node), graph.multiply_adds_of(node));
        let (shape, label) = (node.shape.to_string(), node.op.label());
        // Writing to a String cannot fail.
        let _ = writeln!(table, "{:<28} {label:<40} {shape:>14} {parameters:>10} {multiply_adds:>14}", node.name);
    }
    let (width, height) = (graph.input().width, graph.input().height);
    let multiply_adds = graph.multiply_adds() as f64 / 1e9;
    let _ = writeln!(
        table,
        "{}: {} parameters, {multiply_adds:.3} G multiply-adds at {width}x{height}",
        graph.name,
        graph.parameters()
    );
    table
}
