//! The runs of an experiment with language models.

use std::process::ExitCode;
use std::sync::Arc;

use serde_json::Value;
use toml::Table;

use super::LmArguments;
use super::config::RunConfig;
use super::report::report;
use super::run::Trainer;
use super::text::Texts;
use crate::log::say;
use crate::run::interrupt_flag;
use crate::suite::{self, Suite};

impl suite::RunConfig for RunConfig {
    fn from_table(table: Table) -> anyhow::Result<Self> {
        let config: Self = table.try_into()?;
        config.check()?;
        Ok(config)
    }

    fn output(&mut self) -> &mut std::path::PathBuf {
        &mut self.output
    }

    fn settings(&self) -> Value {
        suite::settings_without(self, &["output"])
    }
}

/// Makes all runs that are neither finished nor another process's, then writes table and picture of those that are.
///
/// # Errors
/// A configuration is wrong or a run fails.
pub(crate) fn suite(arguments: &LmArguments) -> anyhow::Result<ExitCode> {
    let suite = Suite::load::<RunConfig>(&arguments.config)?;
    let interrupted = interrupt_flag()?;
    let mut texts: Option<(RunConfig, Arc<Texts>)> = None;
    let done = suite.make(|run: &mut suite::Run<RunConfig>| {
        let same = |known: &RunConfig| {
            known.texts == run.config.texts && known.model.vocabulary == run.config.model.vocabulary
        };
        let known = match texts.take().filter(|(config, _)| same(config)) {
            Some((_, known)) => known,
            None => Arc::new(Texts::load(&run.config.texts, run.config.model.vocabulary, &arguments.data)?),
        };
        texts = Some((run.config.clone(), known.clone()));
        let mut trainer = Trainer::new(run.config.clone(), known, interrupted.clone())?;
        trainer.start()?;
        if trainer.run()? != ExitCode::SUCCESS {
            return Ok(None);
        }
        Ok(Some(std::fs::read(run.config.output.join("metrics.jsonl"))?))
    })?;
    if !done {
        return Ok(ExitCode::from(130));
    }
    say(&report(&suite)?);
    Ok(ExitCode::SUCCESS)
}
