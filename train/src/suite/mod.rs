//! Many runs of one experiment: variants of a configuration, each with several seeds. A run that is finished is not made again, and
//! several processes share the work: each takes runs that no other one is at.

pub(crate) mod report;
pub(crate) mod statistics;

use std::collections::BTreeMap;
use std::fs::TryLockError;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use toml::Table;
use yolo_lat::sink::write_atomically;

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
    /// The run that all share, as a [`RunConfig`] without a seed; `output` gets a folder for each.
    base: Table,
    #[serde(rename = "variant")]
    pub(crate) variants: Vec<Variant>,
    #[serde(default, rename = "contrast")]
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

/// What a run is made from.
pub(crate) trait RunConfig: Sized {
    /// Reads and checks what the base, a variant's changes and a seed make together.
    ///
    /// # Errors
    /// It has an unknown key or asks for what cannot be.
    fn from_table(table: Table) -> anyhow::Result<Self>;

    /// Folder of checkpoint and log.
    fn output(&mut self) -> &mut PathBuf;

    /// All that decides what comes out, which is not where it is written.
    fn settings(&self) -> Value;
}

/// A run of a suite.
pub(crate) struct Run<C> {
    pub(crate) variant: String,
    pub(crate) seed: u64,
    pub(crate) config: C,
}

impl<C: RunConfig> Run<C> {
    /// Its log among the results.
    pub(crate) fn result(&self, results: &Path) -> PathBuf {
        results.join(format!("{}-{}.jsonl", self.variant, self.seed))
    }

    /// Whether its log is among the results.
    ///
    /// # Errors
    /// There is one, of another configuration.
    pub(crate) fn is_finished(&self, results: &Path) -> anyhow::Result<bool> {
        let path = self.result(results);
        let Ok(text) = std::fs::read_to_string(&path) else { return Ok(false) };
        let head: Option<Value> = text.lines().next().and_then(|line| serde_json::from_str(line).ok());
        // Numbers read from text are compared with such.
        let settings: Value = serde_json::from_str(&self.config.settings().to_string())?;
        if head.as_ref().map(|head| &head["config"]) != Some(&settings) {
            bail!("{}: a run with another configuration; delete it to make the run again", path.display());
        }
        Ok(true)
    }
}

/// The settings that a configuration is, without those that decide nothing of what comes out.
pub(crate) fn settings_without(config: &impl Serialize, keys: &[&str]) -> Value {
    let mut settings = json!(config);
    if let Some(object) = settings.as_object_mut() {
        object.retain(|key, _| !keys.contains(&key.as_str()));
    }
    settings
}

/// Puts the values of `changes` in place, table by table.
pub(crate) fn merge(into: &mut Table, changes: &Table) {
    for (key, value) in changes {
        match (into.get_mut(key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(changes)) => merge(inner, changes),
            _ => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}

impl Suite {
    /// Reads and checks an experiment, and what it begins with.
    ///
    /// # Errors
    /// The file cannot be read, or asks for what cannot be.
    pub(crate) fn load<C: RunConfig>(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
        let suite: Self = toml::from_str(&text).with_context(|| path.display().to_string())?;
        suite.runs::<C>().with_context(|| path.display().to_string())?;
        let known = |name: &str| suite.variants.iter().any(|variant| variant.name == name);
        for Contrast { of, against, .. } in &suite.contrasts {
            if let Some(name) = [of, against].into_iter().find(|name| !known(name)) {
                bail!("{}: contrast: no variant is called {name}", path.display());
            }
        }
        Ok(suite)
    }

    /// All runs in their order: those of the first variant, then the first seed of all others, the second, and so on.
    ///
    /// # Errors
    /// One that cannot be.
    pub(crate) fn runs<C: RunConfig>(&self) -> anyhow::Result<Vec<Run<C>>> {
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
            let mut config = C::from_table(table).with_context(|| format!("variant {name}"))?;
            let folder = config.output().join(format!("{name}-{seed}"));
            *config.output() = folder;
            Ok(Run { variant: name.clone(), seed, config })
        };
        order.into_iter().map(run).collect()
    }

    /// Makes all runs that are neither finished nor another process's. `make` gives a run's log, whose first line has its settings as
    /// `config`, or nothing when it was interrupted. Whether all went to their end.
    ///
    /// # Errors
    /// A run's, or a file that cannot be written.
    pub(crate) fn make<C: RunConfig>(
        &self,
        mut make: impl FnMut(&mut Run<C>) -> anyhow::Result<Option<Vec<u8>>>,
    ) -> anyhow::Result<bool> {
        std::fs::create_dir_all(&self.results).with_context(|| self.results.display().to_string())?;
        for mut run in self.runs::<C>()? {
            if run.is_finished(&self.results)? {
                continue;
            }
            let folder = run.config.output().clone();
            std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
            let path = folder.join("lock");
            let lock = std::fs::File::create(&path).with_context(|| path.display().to_string())?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(error).with_context(|| path.display().to_string()),
            }
            // It may have been finished between the two questions.
            if run.is_finished(&self.results)? {
                continue;
            }
            let Some(log) = make(&mut run)? else { return Ok(false) };
            write_atomically(&run.result(&self.results), |file| std::io::Write::write_all(file, &log))?;
        }
        Ok(true)
    }

    /// What `read` makes of the logs of the finished runs, by variant.
    ///
    /// # Errors
    /// A log is damaged or of another configuration.
    pub(crate) fn finished<C: RunConfig, T>(
        &self,
        read: impl Fn(&[Value]) -> anyhow::Result<T>,
    ) -> anyhow::Result<BTreeMap<String, Vec<(u64, T)>>> {
        let mut finished: BTreeMap<String, Vec<(u64, T)>> = BTreeMap::new();
        for run in self.runs::<C>()? {
            if run.is_finished(&self.results)? {
                let path = run.result(&self.results);
                let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                let lines = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>();
                let outcome = lines.map_err(anyhow::Error::from).and_then(|lines| read(&lines));
                let outcome = outcome.with_context(|| path.display().to_string())?;
                finished.entry(run.variant).or_default().push((run.seed, outcome));
            }
        }
        Ok(finished)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_replace_values_and_keep_their_neighbours() {
        let mut table: Table = toml::from_str("a = 1\n[neck]\nwidth = 64\nkernel = \"x\"").unwrap();
        merge(&mut table, &toml::from_str("b = 2\nneck.kernel = \"y\"").unwrap());
        assert_eq!(table, toml::from_str("a = 1\nb = 2\n[neck]\nwidth = 64\nkernel = \"y\"").unwrap());
    }
}
