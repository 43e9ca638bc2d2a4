//! The `yolo-lat` program: parse, log, dispatch, exit code. One file a subcommand. A library for the two that call it: the program
//! itself, and the Python wheel, which has it as a script.

mod arguments;
#[cfg(all(feature = "ort", feature = "plot"))]
mod bench;
#[cfg(feature = "camera")]
mod cameras;
mod classes;
mod config;
mod detect;
#[cfg(feature = "gpu")]
mod devices;
mod doctor;
mod documents;
mod eval;
#[cfg(feature = "events")]
mod events;
mod export;
mod follow;
mod for_class;
mod info;
mod inputs;
mod live;
#[cfg(feature = "lm")]
mod lm;
mod options;
mod parity;
#[cfg(feature = "gpu")]
mod plan;
mod profile;
mod threshold;
mod tracks;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use self::arguments::{
    Arguments, INTERRUPTED, SOME_FAILED, USAGE, interrupt_flag, percent, print, progress_bar, reason, report,
    resident_bytes,
};

/// Runs the program with these arguments, of which the first is its name. Help, and what is wrong with the arguments, end the process.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    #[cfg(feature = "ort")]
    silence_loader();
    let arguments = match Arguments::read(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return failed(&error),
    };
    let mut log = env_logger::Builder::new();
    log.filter_level(arguments.log_level());
    // What a driver cannot do is said once, by whoever asked for it.
    if arguments.log_level() < log::LevelFilter::Info {
        log.filter_module("wgpu_hal", log::LevelFilter::Off);
    }
    log.parse_default_env();
    // Addresses may hold what is secret.
    for module in ["ureq", "ureq_proto", "rumqttc", "rustls"] {
        log.filter_module(module, log::LevelFilter::Warn);
    }
    log.init();
    match arguments.run() {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

/// One line about what cannot be done at all.
fn failed(error: &anyhow::Error) -> ExitCode {
    report(&format!("yolo-lat: {}", reason(error)));
    ExitCode::from(USAGE)
}

/// A file that only looks like ONNX Runtime panics in the thread that loads it, which comes back as an error.
#[cfg(feature = "ort")]
fn silence_loader() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() != Some(yolo_lat::engine::ort::LOADER_THREAD) {
            usual(panic);
        }
    }));
}
