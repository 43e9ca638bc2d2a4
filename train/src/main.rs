//! `yolo-lat-train`: trains the network that the library describes and writes weights that its engines run.

mod checkpoint;
mod data;
mod loss;
mod network;
mod optimizer;
mod run;
mod teacher;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Trains YOLO-LAT with libtorch.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train as a TOML file says
    Train(TrainArguments),
}

/// What the configuration does not decide.
#[derive(clap::Args, Debug)]
pub(crate) struct TrainArguments {
    /// Configuration; train/configs/ has examples
    config: PathBuf,
    /// Where relative data set paths of the configuration begin
    #[arg(long, default_value = ".")]
    data: PathBuf,
    /// Go on from the last checkpoint
    #[arg(long)]
    resume: bool,
    /// Folded weights (safetensors) to start from, instead of the configuration's
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// NanoDet-Plus-m (ONNX) to learn from, instead of the configuration's
    #[arg(long, value_name = "FILE")]
    teacher: Option<PathBuf>,
    /// cpu or cuda
    #[arg(long, default_value = "cpu")]
    device: String,
}

fn main() -> ExitCode {
    let Arguments { command: Command::Train(arguments) } = Arguments::parse();
    match run::train(&arguments) {
        Ok(code) => code,
        Err(error) => {
            // A closed standard error is no reason to fail differently.
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("yolo-lat-train: {error:#}\n"));
            ExitCode::from(2)
        }
    }
}
