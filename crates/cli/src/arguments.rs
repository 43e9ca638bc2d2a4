//! The command line: its subcommands, its exit codes, and what they share.

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[cfg(all(feature = "ort", feature = "plot"))]
use super::bench;
#[cfg(feature = "camera")]
use super::cameras;
#[cfg(feature = "gpu")]
use super::devices;
#[cfg(feature = "lm")]
use super::lm;
use super::{classes, detect, doctor, documents, eval, export, info, live, parity};

/// Some inputs failed; each was named on standard error.
pub(crate) const SOME_FAILED: u8 = 1;
/// Wrong arguments, or something is missing that the whole run needs.
pub(crate) const USAGE: u8 = 2;
/// Stopped by a signal: what was written is valid.
pub(crate) const INTERRUPTED: u8 = 130;

const EXIT_CODES: &str = "Exit codes:
  0    all inputs were processed
  1    some inputs failed; each is named on standard error, the rest was processed
  2    usage or set-up error: no such model, no input matched, an output cannot be made
  130  interrupted (Ctrl-C, SIGTERM); what was written is valid, `detect --resume` goes on";

/// Object detection on ordinary computers with exact linear attention.
#[derive(Debug, Parser)]
#[command(name = "yolo-lat", version, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    /// Say more on standard error: -v for steps, -vv for details
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Detect objects in images
    Detect(Box<detect::DetectArguments>),
    /// Detect objects live: camera, video or images, in a window or on the command line
    Live(Box<live::LiveArguments>),
    /// List the cameras of this machine
    #[cfg(feature = "camera")]
    Cameras(cameras::CamerasArguments),
    /// Measure average precision on labelled images
    Eval(Box<eval::EvalArguments>),
    /// List what a model can find, and what else each class may be called
    Classes(classes::ClassesArguments),
    /// A small language model: go on with a text, measure how well one is predicted
    #[cfg(feature = "lm")]
    Lm(lm::LmArguments),
    /// Describe a model: layers, shapes, parameters, multiply-adds, classes
    Info(info::InfoArguments),
    /// List the GPUs of this machine, their limits and features
    #[cfg(feature = "gpu")]
    Devices(devices::DevicesArguments),
    /// What this machine has, how fast each engine is here, and how to install what is missing
    Doctor(doctor::DoctorArguments),
    /// Compare all engines of this machine with the reference
    Parity(parity::ParityArguments),
    /// Write a model as ONNX
    Export(export::ExportArguments),
    /// Measure speed and numerics on this machine
    #[cfg(all(feature = "ort", feature = "plot"))]
    Bench(Box<bench::BenchArguments>),
    /// Print a completion script for a shell
    Completions(documents::CompletionsArguments),
    /// Write the manual pages
    Man(documents::ManArguments),
}

impl Arguments {
    /// How much is logged unless RUST_LOG says otherwise.
    pub(crate) fn log_level(&self) -> log::LevelFilter {
        match self.verbose {
            0 => log::LevelFilter::Warn,
            1 => log::LevelFilter::Info,
            _ => log::LevelFilter::Debug,
        }
    }

    /// Runs the subcommand. An error is a usage or set-up error.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Detect(arguments) => detect::run(*arguments),
            Command::Live(arguments) => live::run(*arguments),
            #[cfg(feature = "camera")]
            Command::Cameras(arguments) => cameras::run(&arguments),
            Command::Eval(arguments) => eval::run(*arguments),
            Command::Classes(arguments) => classes::run(&arguments),
            #[cfg(feature = "lm")]
            Command::Lm(arguments) => lm::run(&arguments),
            Command::Info(arguments) => info::run(&arguments),
            #[cfg(feature = "gpu")]
            Command::Devices(arguments) => devices::run(&arguments),
            Command::Doctor(arguments) => doctor::run(&arguments),
            Command::Parity(arguments) => parity::run(&arguments),
            Command::Export(arguments) => export::run(&arguments),
            #[cfg(all(feature = "ort", feature = "plot"))]
            Command::Bench(arguments) => bench::run(&arguments),
            Command::Completions(arguments) => documents::completions(&arguments),
            Command::Man(arguments) => documents::man(&arguments),
        }
    }
}

/// What went wrong and what caused it, each said once: many errors have their cause in their own words.
pub(crate) fn reason(error: &anyhow::Error) -> String {
    error
        .chain()
        .skip(1)
        .map(ToString::to_string)
        .fold(error.to_string(), |said, cause| if said.contains(&cause) { said } else { format!("{said}: {cause}") })
}

/// One line on standard error. A closed standard error is no reason to stop.
pub(crate) fn report(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Results on standard output; a reader that went away ends the program quietly.
pub(crate) fn print(text: &str) -> anyhow::Result<ExitCode> {
    match std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Percent with two decimals, rounded as Python does.
pub(crate) fn percent(share: f64) -> f64 {
    (share * 1e4).round_ties_even() / 1e2
}

/// Set by Ctrl-C or SIGTERM; a second signal ends the program at once.
pub(crate) fn interrupt_flag() -> anyhow::Result<std::sync::Arc<std::sync::atomic::AtomicBool>> {
    let flag = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, i32::from(INTERRUPTED), flag.clone())?;
        signal_hook::flag::register(signal, flag.clone())?;
    }
    Ok(flag)
}

/// Count, images/s and ETA on standard error; hidden where that is no terminal, or on request.
pub(crate) fn progress_bar(total: usize, hidden: bool) -> indicatif::ProgressBar {
    if hidden {
        return indicatif::ProgressBar::hidden();
    }
    let template = "{bar:30} {human_pos}/{human_len} images, {per_sec}, {eta} left {msg}";
    let style = indicatif::ProgressStyle::with_template(template);
    let style = style.unwrap_or_else(|_| indicatif::ProgressStyle::default_bar());
    indicatif::ProgressBar::new(total as u64).with_style(style)
}

/// Memory of this process, where the system tells.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
