//! Many runs of one experiment: variants of a configuration, each with several seeds. A run that is finished is not made again, and
//! several processes share the work: each takes runs that no other one is at.

use std::fs::TryLockError;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;
use toml::Table;
use yolo_lat::sink::write_atomically;

use super::LmArguments;
use super::config::RunConfig;
use super::report::report;
use super::run::{Trainer, settings};
use super::text::Texts;
use crate::ablate::merge;
use crate::log::say;
use crate::run::interrupt_flag;

/// An experiment.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Suite {
    /// Folder for a log a run, the table and the picture.
    pub(crate) results: PathBuf,
    /// What must be said before anyone reads the table.
    pub(crate) note: Option<String>,
    /// Seeds of variants that name none.
    seeds: Vec<u64>,
    /// The run that all share, as [`RunConfig`] without a seed; `output` gets a folder for each.
    base: Table,
    #[serde(rename = "variant")]
    pub(crate) variants: Vec<Variant>,
    #[serde(rename = "contrast")]
    pub(crate) contrasts: Vec<Contrast>,
}

/// One of the networks or procedures that are compared.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Variant {
    pub(crate) name: String,
    seeds: Option<Vec<u64>>,
    /// What differs from the base.
    #[serde(default)]
    change: Table,
}

/// A question: what one variant brings against another.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contrast {
    /// Contrasts of a group are drawn together and corrected for each other.
    pub(crate) group: String,
    pub(crate) of: String,
    pub(crate) against: String,
}

/// A run of a suite.
pub(crate) struct Run {
    pub(crate) variant: String,
    pub(crate) seed: u64,
    pub(crate) config: RunConfig,
}

impl Run {
    /// Its log among the results.
    pub(crate) fn result(&self, results: &Path) -> PathBuf {
        results.join(format!("{}-{}.jsonl", self.variant, self.seed))
    }
}

impl Suite {
    /// Reads and checks an experiment.
    ///
    /// # Errors
    /// The file cannot be read, or asks for what cannot be.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
        let suite: Self = toml::from_str(&text).with_context(|| path.display().to_string())?;
        suite.runs().with_context(|| path.display().to_string())?;
        let known = |name: &str| suite.variants.iter().any(|variant| variant.name == name);
        for Contrast { of, against, .. } in &suite.contrasts {
            if let Some(name) = [of, against].into_iter().find(|name| !known(name)) {
                bail!("{}: contrast: no variant is called {name}", path.display());
            }
        }
        Ok(suite)
    }

    /// All runs in their order: those of the first variant, then the first seed of all others, the second, and so on.
    pub(crate) fn runs(&self) -> anyhow::Result<Vec<Run>> {
        let seeds = |variant: &Variant| variant.seeds.clone().unwrap_or_else(|| self.seeds.clone());
        let mut order = Vec::new();
        for (index, variant) in self.variants.iter().enumerate() {
            for (turn, seed) in seeds(variant).into_iter().enumerate() {
                order.push((if index == 0 { 0 } else { turn + 1 }, index, seed));
            }
        }
        order.sort();
        let run = |(_, index, seed): (usize, usize, u64)| {
            let Variant { name, change, .. } = &self.variants[index];
            let mut table = self.base.clone();
            merge(&mut table, change);
            table.insert("seed".into(), toml::Value::Integer(seed as i64));
            let mut config: RunConfig = table.try_into().with_context(|| format!("variant {name}"))?;
            config.check().with_context(|| format!("variant {name}"))?;
            config.output = config.output.join(format!("{name}-{seed}"));
            Ok(Run { variant: name.clone(), seed, config })
        };
        order.into_iter().map(run).collect()
    }
}

/// Whether a run's log is among the results.
///
/// # Errors
/// There is one, of another configuration.
pub(crate) fn is_finished(run: &Run, results: &Path) -> anyhow::Result<bool> {
    let path = run.result(results);
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(false) };
    let head: Option<Value> = text.lines().next().and_then(|line| serde_json::from_str(line).ok());
    if head.as_ref().map(|head| &head["config"]) != Some(&settings(&run.config)) {
        bail!("{}: a run with another configuration; delete it to make the run again", path.display());
    }
    Ok(true)
}

/// Makes all runs that are neither finished nor another process's, then writes table and picture of those that are.
///
/// # Errors
/// A configuration is wrong or a run fails.
pub(crate) fn suite(arguments: &LmArguments) -> anyhow::Result<ExitCode> {
    let suite = Suite::load(&arguments.config)?;
    let interrupted = interrupt_flag()?;
    std::fs::create_dir_all(&suite.results).with_context(|| suite.results.display().to_string())?;
    let mut texts: Option<(RunConfig, Arc<Texts>)> = None;
    for run in suite.runs()? {
        if is_finished(&run, &suite.results)? {
            continue;
        }
        std::fs::create_dir_all(&run.config.output).with_context(|| run.config.output.display().to_string())?;
        let path = run.config.output.join("lock");
        let lock = std::fs::File::create(&path).with_context(|| path.display().to_string())?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| path.display().to_string()),
        }
        // It may have been finished between the two questions.
        if is_finished(&run, &suite.results)? {
            continue;
        }
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
        let code = trainer.run()?;
        if code != ExitCode::SUCCESS {
            return Ok(code);
        }
        let log = std::fs::read(run.config.output.join("metrics.jsonl"))?;
        write_atomically(&run.result(&suite.results), |file| std::io::Write::write_all(file, &log))?;
    }
    let table = report(&suite)?;
    say(&table);
    Ok(ExitCode::SUCCESS)
}
