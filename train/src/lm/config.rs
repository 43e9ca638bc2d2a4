//! A run of the language model, as its TOML says.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use yolo_lat_lm::{LmConfig, Mask};

use super::model::Initialisation;
use super::text::Source;

/// Everything that decides what a run does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunConfig {
    /// Where checkpoint, weights and log go, relative to the working folder.
    pub(crate) output: PathBuf,
    /// Texts to learn from and to measure on.
    pub(crate) texts: Vec<Source>,
    /// So many of their tokens are learnt from, the first ones; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) train_tokens: Option<usize>,
    pub(crate) steps: usize,
    /// Stretches of text a step, and tokens of each.
    pub(crate) batch: usize,
    pub(crate) length: usize,
    /// Peak of the learning rate, and its last value as a share of the peak.
    pub(crate) rate: f64,
    pub(crate) last_rate: f64,
    pub(crate) warmup_steps: usize,
    /// On matrices; none on norms, the router and the embedding.
    pub(crate) weight_decay: f64,
    /// Largest norm of the gradient.
    pub(crate) clip: f64,
    /// Share of the experts' balance in the loss.
    pub(crate) balance: f64,
    /// Steps between two measurements on the validation chapters.
    pub(crate) measure_every: usize,
    pub(crate) seed: u64,
    #[serde(default)]
    pub(crate) initialisation: Initialisation,
    pub(crate) model: LmConfig,
}

impl RunConfig {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// The file cannot be read, has an unknown key, or asks for what cannot be.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
        let config: Self = toml::from_str(&text).with_context(|| path.display().to_string())?;
        config.check().with_context(|| path.display().to_string())?;
        Ok(config)
    }

    /// Whether there can be such a run.
    ///
    /// # Errors
    /// The first thing that cannot be.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let counts = [
            ("texts", self.texts.len()),
            ("steps", self.steps),
            ("batch", self.batch),
            ("length", self.length),
            ("measure_every", self.measure_every),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, count)| *count == 0) {
            bail!("{name}: expected at least one");
        }
        let numbers = [
            ("rate", self.rate),
            ("last_rate", self.last_rate),
            ("weight_decay", self.weight_decay),
            ("clip", self.clip),
            ("balance", self.balance),
        ];
        if let Some((name, value)) = numbers.iter().find(|(_, value)| !(*value >= 0.0 && value.is_finite())) {
            bail!("{name}: expected a number of at least 0, found {value}");
        }
        self.model.check().context("model")
    }

    /// Whether the model sees tokens that it is to predict.
    pub(crate) fn leaks(&self) -> bool {
        self.model.memory.is_some_and(|memory| memory.mask == Mask::Bidirectional)
    }
}
