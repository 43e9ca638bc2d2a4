//! The `yolo-lat` program: parse, log, dispatch, exit code. One file a subcommand.

mod arguments;
mod bench;
mod cameras;
mod classes;
mod detect;
mod devices;
mod documents;
mod eval;
mod export;
mod info;
mod inputs;
mod live;
mod options;
mod parity;
mod profile;
mod threshold;

use std::process::ExitCode;

use clap::Parser;

use self::arguments::{
    Arguments, INTERRUPTED, SOME_FAILED, USAGE, interrupt_flag, print, progress_bar, reason, report, resident_bytes,
};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    env_logger::Builder::new().filter_level(arguments.log_level()).parse_default_env().init();
    match arguments.run() {
        Ok(code) => code,
        Err(error) => {
            report(&format!("yolo-lat: {}", reason(&error)));
            ExitCode::from(USAGE)
        }
    }
}
