//! The training loop of a language model.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tch::{Kind, Tensor};
use yolo_lat::sink::write_atomically;

use super::config::RunConfig;
use super::evaluate::{bits_per_byte, measure, moved, nats_per_token};
use super::model::LanguageModel;
use super::text::{Texts, pair_entropy, stretches};
use crate::checkpoint::{self, Group, write_tensors};
use crate::log::say;
use crate::optimizer::{AdamW, Moments, learning_rate};
use crate::suite::RunConfig as _;

/// What a crash may lose.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);
/// Steps between two lines of the log.
const LOG_EVERY: usize = 10;
/// Those of the paper's program.
pub(super) const MOMENTS: Moments = Moments { betas: (0.9, 0.95), epsilon: 1e-9 };

/// A run.
pub(crate) struct Trainer {
    pub(crate) config: RunConfig,
    texts: Arc<Texts>,
    pub(crate) model: LanguageModel,
    optimizer: AdamW,
    /// Steps done.
    pub(crate) step: usize,
    interrupted: Arc<AtomicBool>,
}

/// What a step brought.
struct Step {
    /// Cross-entropy, in nats a token.
    loss: f64,
    balance: f64,
    /// Norms of the gradients of each layer.
    layers: Option<Vec<f64>>,
}

impl Trainer {
    /// A run that has not begun.
    ///
    /// # Errors
    /// The texts are shorter than a stretch.
    pub(crate) fn new(config: RunConfig, texts: Arc<Texts>, interrupted: Arc<AtomicBool>) -> anyhow::Result<Self> {
        let tokens = texts.first(config.train_tokens).len();
        if tokens <= config.length {
            bail!("length = {}: of {tokens} tokens to learn from there is no such stretch", config.length);
        }
        let mut model = LanguageModel::new(&config.model, config.initialisation, config.seed, Kind::Float);
        let mut optimizer = AdamW::new(&mut model.parameters, config.weight_decay, &BTreeMap::new())?;
        optimizer.constants = MOMENTS;
        Ok(Self { config, texts, model, optimizer, step: 0, interrupted })
    }

    fn checkpoint(&self) -> PathBuf {
        self.config.output.join("checkpoint.safetensors")
    }

    fn log(&self) -> PathBuf {
        self.config.output.join("metrics.jsonl")
    }

    /// Goes on from the last checkpoint if there is one; lines of the log that came after it go.
    ///
    /// # Errors
    /// A file is wrong or of another run.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        let folder = self.config.output.clone();
        std::fs::create_dir_all(&folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
        if self.config.leaks() {
            say(&format!("{}: a bidirectional lobe sees what it is to predict: no language model", folder.display()));
        }
        let (checkpoint, log) = (self.checkpoint(), self.log());
        if !checkpoint.exists() {
            return write_atomically(&log, |file| writeln!(file, "{}", self.head())).map_err(Into::into);
        }
        let text = std::fs::read_to_string(&log).with_context(|| log.display().to_string())?;
        let mut lines = text.lines();
        if lines.next().and_then(|line| serde_json::from_str(line).ok()) != Some(self.head()) {
            bail!("{}: a run with another configuration; delete the folder or name another", folder.display());
        }
        self.load(&checkpoint)?;
        let until = |line: &&str| {
            serde_json::from_str::<Value>(line).is_ok_and(|line| line["step"].as_u64() <= Some(self.step as u64))
        };
        let kept: Vec<&str> = lines.take_while(until).collect();
        write_atomically(&log, |file| {
            writeln!(file, "{}", self.head())?;
            kept.iter().try_for_each(|line| writeln!(file, "{line}"))
        })?;
        say(&format!("{}: going on after step {}", folder.display(), self.step));
        Ok(())
    }

    /// The first line of a log: all that decides the run, and sizes.
    fn head(&self) -> Value {
        let (model, learnt) = (&self.config.model, self.texts.first(self.config.train_tokens));
        let validation = self.texts.validation.iter().map(|chapter| chapter.tokens.len() - 1).sum::<usize>();
        json!({
            "config": self.config.settings(), "parameters": model.parameter_count(), "macs_per_token": model.macs_per_token(),
            "train_tokens": learnt.len(), "pair_entropy": round(pair_entropy(learnt), 1e4), "validation_tokens": validation,
        })
    }

    /// Trains until the end; 130 after an interrupt, with a checkpoint.
    ///
    /// # Errors
    /// A file cannot be written, or the loss is no number.
    pub(crate) fn run(&mut self) -> anyhow::Result<ExitCode> {
        if self.step == 0 {
            self.measure()?;
        }
        let (mut saved, mut logged, mut tokens) = (Instant::now(), Instant::now(), 0);
        while self.step < self.config.steps {
            let step = self.one_step()?;
            tokens += self.config.batch * self.config.length;
            if let Some(layers) = &step.layers {
                let seconds = logged.elapsed().as_secs_f64();
                self.write(&json!({
                    "step": self.step, "loss": round(step.loss, 1e5), "balance": round(step.balance, 1e4),
                    "gradient_norms": layers.iter().map(|norm| round(*norm, 1e6)).collect::<Vec<_>>(),
                    "tokens_per_second": (tokens as f64 / seconds).round(),
                }))?;
                (logged, tokens) = (Instant::now(), 0);
            }
            let done = self.step == self.config.steps;
            if done || self.step.is_multiple_of(self.config.measure_every) {
                self.measure()?;
                logged = Instant::now();
            }
            let interrupted = self.interrupted.load(Ordering::Relaxed);
            if done || interrupted || saved.elapsed() > CHECKPOINT_EVERY {
                self.save()?;
                saved = Instant::now();
            }
            if interrupted && !done {
                say(&format!("{}: interrupted after step {}", self.config.output.display(), self.step));
                return Ok(ExitCode::from(130));
            }
        }
        self.export()?;
        Ok(ExitCode::SUCCESS)
    }

    fn one_step(&mut self) -> anyhow::Result<Step> {
        let RunConfig {
            seed, batch, length, steps, rate, last_rate, warmup_steps, clip, balance, train_tokens, ..
        } = self.config;
        let (input, target) = stretches(self.texts.first(train_tokens), seed, self.step, [batch, length]);
        let answer = self.model.forward(&input);
        let loss = answer.logits.flatten(0, 1).cross_entropy_for_logits(&target.flatten(0, 1));
        (&loss + &answer.balance * balance).backward();
        let loss = loss.double_value(&[]);
        if !loss.is_finite() {
            bail!("{}: the loss of step {} is {loss}", self.config.output.display(), self.step);
        }
        let layers = (self.step + 1).is_multiple_of(LOG_EVERY).then(|| self.gradient_norms());
        let rate = learning_rate(self.step, steps, warmup_steps, rate, last_rate);
        self.optimizer.step(&self.model.parameters, rate, clip);
        self.step += 1;
        Ok(Step { loss, balance: answer.balance.double_value(&[]), layers })
    }

    /// Of each layer, the norm of the gradients of its weights.
    fn gradient_norms(&self) -> Vec<f64> {
        let norm = |layer: usize| {
            let beginning = format!("layers.{layer}.");
            let parameters = self.model.parameters.iter().filter(|(name, _)| name.starts_with(&beginning));
            let squares = parameters.map(|(_, value)| value.grad().square().sum(Kind::Double).double_value(&[]));
            squares.sum::<f64>().sqrt()
        };
        (0..self.config.model.layers).map(norm).collect()
    }

    /// Measures on the validation chapters and logs it.
    fn measure(&self) -> anyhow::Result<()> {
        let measured = measure(&self.model, &self.texts.validation, self.config.length)?;
        let (nats, bits) = (nats_per_token(&measured), bits_per_byte(&measured));
        say(&format!(
            "{}: step {}, {nats:.4} nats a token, {bits:.4} bits a byte",
            self.config.output.display(),
            self.step
        ));
        let chapters: Vec<Value> =
            measured.iter().map(|chapter| json!([round(chapter.nats, 1e3), chapter.tokens, chapter.bytes])).collect();
        let mut line = json!({
            "step": self.step, "validation": round(nats, 1e6), "bits_per_byte": round(bits, 1e6), "chapters": chapters,
        });
        if self.step == self.config.steps {
            line["moved"] = json!(moved(&self.model, self.texts.first(self.config.train_tokens), self.config.length));
        }
        self.write(&line)
    }

    fn write(&self, line: &Value) -> anyhow::Result<()> {
        let path = self.log();
        let mut file = OpenOptions::new().append(true).open(&path).with_context(|| path.display().to_string())?;
        writeln!(file, "{line}").with_context(|| path.display().to_string())
    }

    /// The groups of tensors of a checkpoint by prefix.
    fn groups(&self) -> [Group<'_>; 3] {
        [("parameters", &self.model.parameters), ("first", &self.optimizer.first), ("second", &self.optimizer.second)]
    }

    fn save(&self) -> anyhow::Result<()> {
        checkpoint::save(&self.checkpoint(), &self.groups(), self.step)
    }

    fn load(&mut self, path: &Path) -> anyhow::Result<()> {
        (self.step, _) = checkpoint::load(path, &self.groups())?;
        self.optimizer.steps = self.step as i64;
        Ok(())
    }

    /// Writes model, weights and tokeniser, as the program runs them.
    fn export(&self) -> anyhow::Result<()> {
        let folder = &self.config.output;
        let weights = self.model.parameters.iter().map(|(name, value)| (name, value.detach().contiguous()));
        write_tensors(&folder.join("model.safetensors"), &weights.collect::<Vec<_>>())?;
        let toml = toml::to_string(&self.config.model)?;
        write_atomically(&folder.join("model.toml"), |file| file.write_all(toml.as_bytes()))?;
        let tokenizer = self.texts.tokenizer.as_bytes();
        Ok(write_atomically(&folder.join("model.tokenizer.json"), |file| file.write_all(tokenizer))?)
    }
}

/// Writes the model in the folder of a finished run as `name.toml`, `name.safetensors` with weights in 16 bits, and
/// `name.tokenizer.json`.
///
/// # Errors
/// A file cannot be read or written.
pub(crate) fn export_halves(run: &Path, name: &Path) -> anyhow::Result<()> {
    let file = run.join("model.safetensors");
    let weights = Tensor::read_safetensors(&file).with_context(|| format!("{}: no finished run", file.display()))?;
    let halves: Vec<_> = weights.into_iter().map(|(name, value)| (name, value.to_kind(Kind::Half))).collect();
    write_tensors(&name.with_extension("safetensors"), &halves)?;
    for extension in ["toml", "tokenizer.json"] {
        let from = run.join("model").with_extension(extension);
        let bytes = std::fs::read(&from).with_context(|| from.display().to_string())?;
        write_atomically(&name.with_extension(extension), |file| file.write_all(&bytes))?;
    }
    Ok(())
}

fn round(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}
