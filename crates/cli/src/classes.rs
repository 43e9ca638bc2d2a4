//! `yolo-lat classes`: what a model can find, and what else each class may be called.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use yolo_lat::model::classes::aliases;
use yolo_lat::model::load_config;
use yolo_lat::{Detector, DetectorOptions, ModelFile, Runtime};

#[derive(Args, Debug)]
pub(super) struct ClassesArguments {
    /// Model: n, s, or the path of a .toml, .safetensors or (with ONNX Runtime) .onnx file
    #[arg(short, long, default_value = "n")]
    model: String,
    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &ClassesArguments) -> anyhow::Result<ExitCode> {
    // One of ours needs no weights for this.
    let classes = match load_config(&arguments.model) {
        Ok(config) => config.classes,
        Err(_) => {
            let file = ModelFile::open(&arguments.model)?;
            Detector::new(&file, &Runtime::default(), &DetectorOptions::default())?.classes().to_vec()
        }
    };
    super::print(&if arguments.json { format!("{}\n", as_json(&classes)) } else { as_table(&classes) })
}

/// Each class with its number, its name and the other words for it.
pub(super) fn as_json(classes: &[String]) -> serde_json::Value {
    let class = |(index, name): (usize, &String)| json!({ "class": index, "name": name, "aliases": aliases(name) });
    classes.iter().enumerate().map(class).collect()
}

/// The same, a line a class.
pub(super) fn as_table(classes: &[String]) -> String {
    let mut table = format!("{:>5}  {:<16} also understood\n", "class", "name");
    for (index, name) in classes.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = writeln!(table, "{}", format!("{index:>5}  {name:<16} {}", aliases(name).join(", ")).trim_end());
    }
    table
}
