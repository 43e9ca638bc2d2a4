//! `yolo-lat-train`: trains the network that the library describes and writes weights that its engines run.
#![allow(unsafe_code, reason = "libtorch")]

mod ablate;
mod attention;
mod batch;
mod calibrate;
mod checkpoint;
mod config;
mod data;
mod feature_distillation;
mod frozen;
mod lm;
mod log;
mod loss;
mod network;
mod optimizer;
mod plot;
mod run;
mod suite;
mod teacher;
mod tensors;
mod weight_averaging;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What jemalloc reads when it starts: freed memory is kept, in huge pages, so that each step finds its maps' places mapped.
// SAFETY: jemalloc declares `const char *malloc_conf`; a slice begins with its pointer, and the text ends with a zero.
#[unsafe(export_name = "malloc_conf")]
static ALLOCATOR_OPTIONS: &[u8] = b"dirty_decay_ms:-1,muzzy_decay_ms:-1,thp:always\0";

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
    /// Draw the curves of runs
    Plot(plot::PlotArguments),
    /// Train a network with parts of it changed, and compare; several processes share the work
    Ablate(ablate::AblateArguments),
    /// Average the weights of runs that went on from one another
    Average(weight_averaging::AverageArguments),
    /// Measure steps for int8 on photographs, and write the model with them
    Calibrate(calibrate::CalibrateArguments),
    /// Language models
    #[command(subcommand)]
    Lm(lm::LmCommand),
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
    /// Detector to learn from, for a [[teacher]] of the configuration without a file: NanoDet-Plus-m (ONNX) or a model of
    /// this project; may be given several times
    #[arg(long, value_name = "FILE")]
    teacher: Vec<PathBuf>,
    /// cpu or cuda
    #[arg(long, default_value = "cpu")]
    device: String,
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let result = match &command {
        Command::Train(arguments) => run::train(arguments),
        Command::Plot(arguments) => plot::plot(arguments).map(|()| ExitCode::SUCCESS),
        Command::Ablate(arguments) => ablate::ablate(arguments),
        Command::Calibrate(arguments) => calibrate::calibrate(arguments),
        Command::Lm(command) => lm::lm(command),
        Command::Average(arguments) => weight_averaging::average(arguments).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        log::say(&format!("yolo-lat-train: {error:#}"));
        ExitCode::from(2)
    })
}
