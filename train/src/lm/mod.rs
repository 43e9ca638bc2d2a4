//! The language model: texts, training, comparison of its variants. docs/PAPER.md says what for.

mod attention;
mod config;
mod corpus;
mod evaluate;
mod model;
mod recall;
mod report;
mod run;
mod suite;
#[cfg(test)]
mod tests;
mod text;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Subcommand;

use self::config::RunConfig;
use self::run::Trainer;
use self::text::Texts;
use crate::log;
use crate::run::interrupt_flag;
use crate::suite::Suite;

/// What can be done with language models.
#[derive(Debug, Subcommand)]
pub(crate) enum LmCommand {
    /// Download the texts from Debian and check them
    Corpus {
        /// Folder for them
        #[arg(long, default_value = "data/lm", value_name = "FOLDER")]
        data: PathBuf,
    },
    /// Train as a TOML file says; goes on from the last checkpoint if there is one
    Train(LmArguments),
    /// Make all runs of an experiment that are not finished, then its table and picture; several processes share the work
    Suite(LmArguments),
    /// Make all runs of an experiment with pairs of keys and values that are not finished, then its table and picture
    Recall(LmArguments),
    /// Write a finished run's model with weights in 16 bits, as it is shipped
    Export {
        /// Folder of the run
        run: PathBuf,
        /// NAME: writes NAME.toml, NAME.safetensors and NAME.tokenizer.json
        name: PathBuf,
    },
    /// Table and picture of an experiment's finished runs
    Report {
        /// The experiment
        config: PathBuf,
    },
}

/// What the configuration does not decide.
#[derive(clap::Args, Debug)]
pub(crate) struct LmArguments {
    /// Configuration; train/configs/lm/ has examples
    config: PathBuf,
    /// Folder of the texts
    #[arg(long, default_value = "data/lm", value_name = "FOLDER")]
    data: PathBuf,
    /// Threads of libtorch
    #[arg(long, default_value_t = 1)]
    threads: u16,
}

/// Does what `command` says.
///
/// # Errors
/// A file is missing or wrong, or a run fails.
pub(crate) fn lm(command: &LmCommand) -> anyhow::Result<ExitCode> {
    match command {
        LmCommand::Corpus { data } => corpus::make(data).map(|()| ExitCode::SUCCESS),
        LmCommand::Suite(arguments) => {
            tch::set_num_threads(arguments.threads.into());
            suite::suite(arguments)
        }
        LmCommand::Recall(arguments) => {
            tch::set_num_threads(arguments.threads.into());
            recall::recall(arguments)
        }
        LmCommand::Report { config } => {
            log::say(&report::report(&Suite::load::<RunConfig>(config)?)?);
            Ok(ExitCode::SUCCESS)
        }
        LmCommand::Export { run, name } => run::export_halves(run, name).map(|()| ExitCode::SUCCESS),
        LmCommand::Train(LmArguments { config, data, threads }) => {
            tch::set_num_threads((*threads).into());
            let config = RunConfig::load(config)?;
            let texts = Texts::load(&config.texts, config.model.vocabulary, data)?;
            let mut trainer = Trainer::new(config, Arc::new(texts), interrupt_flag()?)?;
            trainer.start()?;
            trainer.run()
        }
    }
}
