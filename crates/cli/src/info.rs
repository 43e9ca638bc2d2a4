//! `yolo-lat info`: what a model is made of.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use yolo_lat::input_size::rectangle;
use yolo_lat::model::graph::{Graph, Node};
use yolo_lat::model::{graph_of, load_config};

use super::options::parse_size;

/// What cameras and images have.
const USUAL_SHAPES: [(&str, (u32, u32)); 5] =
    [("1:1", (1, 1)), ("4:3", (4, 3)), ("3:2", (3, 2)), ("16:9", (16, 9)), ("9:16", (9, 16))];

#[derive(Args, Debug)]
pub(super) struct InfoArguments {
    /// Model: n, s, or the path of a .toml or .safetensors file; weights are not needed
    #[arg(default_value = "n")]
    model: String,
    /// Input size in pixels, multiples of 32: 320 for a square, or 416x256 (width x height); default: the model's
    #[arg(long, value_name = "PIXELS", value_parser = parse_size)]
    size: Option<(usize, usize)>,
    #[cfg(feature = "gpu")]
    #[command(flatten)]
    plan: super::plan::PlanArguments,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &InfoArguments) -> anyhow::Result<ExitCode> {
    let config = load_config(&arguments.model)?;
    let (width, height) = arguments.size.unwrap_or((config.input, config.input));
    let graph = graph_of(&config, width, height)?;
    if arguments.json {
        let mut value = as_json(&graph);
        value["classes"] = super::classes::as_json(&config.classes);
        let rectangles = USUAL_SHAPES.map(|(name, image)| (name.to_owned(), json!(rectangle(config.input, image))));
        value["rectangles"] = serde_json::Map::from_iter(rectangles).into();
        #[cfg(feature = "gpu")]
        arguments.plan.add_to(&mut value, &graph)?;
        return super::print(&format!("{value}\n"));
    }
    #[cfg(feature = "gpu")]
    if let Some(table) = arguments.plan.table(&graph)? {
        return super::print(&table);
    }
    let shape = |(name, image)| {
        let (width, height) = rectangle(config.input, image);
        format!("{name} {width}x{height}")
    };
    super::print(&format!(
        "{}input for images of other shapes (--size {}): {}\n\n{}",
        as_table(&graph),
        config.input,
        USUAL_SHAPES.map(shape).join(", "),
        super::classes::as_table(&config.classes)
    ))
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
