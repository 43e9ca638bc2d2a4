//! All that a run needs to go on, in one safetensors file that is replaced atomically.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use tch::{Kind, Tensor};

use crate::network::Network;
use crate::optimizer::{AdamW, Ema};

/// The parts of a run that change.
pub(crate) struct State {
    pub(crate) network: Network,
    /// Moving average of the parameters.
    pub(crate) ema: Ema,
    pub(crate) optimizer: AdamW,
    /// Batches done.
    pub(crate) step: usize,
}

const STEP: &str = "state.step";

impl State {
    /// The groups of tensors by prefix.
    fn groups(&self) -> [Group<'_>; 5] {
        [
            ("parameters", &self.network.parameters),
            ("buffers", &self.network.buffers),
            ("average", &self.ema.parts),
            ("first", &self.optimizer.first),
            ("second", &self.optimizer.second),
        ]
    }

    /// Writes the state beside `path` and renames it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn save(&self, path: &Path) -> anyhow::Result<()> {
        save(path, &self.groups(), self.step)
    }

    /// Reads what [`State::save`] wrote into a state of the same network.
    ///
    /// # Errors
    /// The file cannot be read or belongs to another network.
    pub(crate) fn load(&mut self, path: &Path) -> anyhow::Result<()> {
        self.step = load(path, &self.groups())?;
        self.optimizer.steps = self.step as i64;
        Ok(())
    }
}

/// Tensors by name, with the prefix of their names in a file.
pub(crate) type Group<'a> = (&'static str, &'a BTreeMap<String, Tensor>);

/// Writes groups of tensors and the number of steps done beside `path` and renames the file.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn save(path: &Path, groups: &[Group], step: usize) -> anyhow::Result<()> {
    let all = groups.iter().flat_map(|(prefix, tensors)| {
        tensors.iter().map(move |(name, value)| (format!("{prefix}.{name}"), value.detach().contiguous()))
    });
    let step = (STEP.to_owned(), Tensor::from_slice(&[step as i64]));
    write_tensors(path, &all.chain([step]).collect::<Vec<_>>())
}

/// Reads what [`save`] wrote into the same tensors; the number of steps done.
///
/// # Errors
/// The file cannot be read or belongs to another network.
pub(crate) fn load(path: &Path, groups: &[Group]) -> anyhow::Result<usize> {
    let tensors = Tensor::read_safetensors(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let tensors: BTreeMap<String, Tensor> = tensors.into_iter().collect();
    let missing = |name: &str| format!("{}: no tensor {name}; another network's checkpoint?", path.display());
    for (prefix, group) in groups {
        for (name, value) in *group {
            let name = format!("{prefix}.{name}");
            let saved = tensors.get(&name).filter(|saved| saved.size() == value.size());
            let saved = saved.with_context(|| missing(&name))?;
            tch::no_grad(|| value.shallow_clone().copy_(saved));
        }
    }
    let step = tensors.get(STEP).with_context(|| missing(STEP))?.to_kind(Kind::Int64);
    Ok(step.int64_value(&[0]) as usize)
}

/// Writes tensors beside `path` and renames the file, so that there is always a whole one.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn write_tensors<N: AsRef<str>>(path: &Path, tensors: &[(N, Tensor)]) -> anyhow::Result<()> {
    let unfinished = path.with_extension("part");
    Tensor::write_safetensors(tensors, &unfinished)
        .map_err(anyhow::Error::from)
        .and_then(|()| Ok(std::fs::rename(&unfinished, path)?))
        .with_context(|| format!("{}: cannot be written", path.display()))
}
