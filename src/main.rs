//! The `yolo-lat` program: parse, log, dispatch, exit code.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    env_logger::Builder::new().filter_level(arguments.log_level()).parse_default_env().init();
    match arguments.run() {
        Ok(code) => code,
        Err(error) => {
            cli::report(&format!("yolo-lat: {}", cli::reason(&error)));
            ExitCode::from(cli::USAGE)
        }
    }
}
