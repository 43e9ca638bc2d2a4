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
    /// The best measurement so far.
    pub(crate) best: Option<Best>,
}

/// How well the averaged weights did in a measurement during training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Best {
    /// Epochs done, at least 1.
    pub(crate) epoch: usize,
    /// 0 to 1.
    pub(crate) map50: f64,
    /// How many it was measured on.
    pub(crate) photographs: usize,
}

impl Best {
    fn tensors(&self) -> BTreeMap<String, Tensor> {
        let values = [
            ("epoch", Tensor::from_slice(&[self.epoch as i64])),
            ("map50", Tensor::from_slice(&[self.map50])),
            ("photographs", Tensor::from_slice(&[self.photographs as i64])),
        ];
        values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Of a checkpoint's tensors; older ones have none.
    fn of(tensors: &BTreeMap<String, Tensor>) -> Option<Self> {
        let value = |name: &str| Some(tensors.get(&format!("{BEST}.{name}"))?.double_value(&[0]));
        let (epoch, photographs) = (value("epoch")? as usize, value("photographs")? as usize);
        Some(Self { epoch, map50: value("map50")?, photographs })
    }
}

const STEP: &str = "state.step";
/// Prefix of the best measurement's numbers.
const BEST: &str = "best";

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
        let best = self.best.as_ref().map(Best::tensors);
        let groups: Vec<Group> = self.groups().into_iter().chain(best.as_ref().map(|best| (BEST, best))).collect();
        save(path, &groups, self.step)
    }

    /// Reads what [`State::save`] wrote into a state of the same network.
    ///
    /// # Errors
    /// The file cannot be read or belongs to another network.
    pub(crate) fn load(&mut self, path: &Path) -> anyhow::Result<()> {
        let tensors;
        (self.step, tensors) = load(path, &self.groups())?;
        self.best = Best::of(&tensors);
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

/// Reads what [`save`] wrote into the same tensors; the number of steps done, and all that is in the file.
///
/// # Errors
/// The file cannot be read or belongs to another network.
pub(crate) fn load(path: &Path, groups: &[Group]) -> anyhow::Result<(usize, BTreeMap<String, Tensor>)> {
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
    Ok((step.int64_value(&[0]) as usize, tensors))
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
