//! `yolo-lat completions` and `yolo-lat man`: generated from the same definitions as `--help`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Arguments;

#[derive(Args, Debug)]
pub(super) struct CompletionsArguments {
    /// The shell, as in: yolo-lat completions bash > ~/.local/share/bash-completion/completions/yolo-lat
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Args, Debug)]
pub(super) struct ManArguments {
    /// Where the pages go: one for the program and one for each subcommand
    #[arg(short, long, value_name = "DIR", default_value = "man")]
    output: PathBuf,
}

pub(super) fn completions(arguments: &CompletionsArguments) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "yolo-lat", &mut script);
    super::print(&String::from_utf8(script)?)
}

pub(super) fn man(arguments: &ManArguments) -> anyhow::Result<ExitCode> {
    let folder = &arguments.output;
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Arguments::command(), folder))
        .with_context(|| format!("{}: cannot be written", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}
