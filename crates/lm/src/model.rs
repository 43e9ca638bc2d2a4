//! A language model in memory: description, weights in the order in which steps read them, tokeniser.

use std::path::Path;

use crate::config::{Attention, Bias, ConfigError, LmConfig};
use crate::tokenizer::{Tokenizer, TokenizerError};
use crate::weights::{Weights, WeightsError, turned};

/// Why a model cannot be read or run.
#[derive(Debug, thiserror::Error)]
pub enum LmError {
    /// Its description.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its weights.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Its tokeniser.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Its Memory Lobe is bidirectional.
    #[error(
        "memory.mask = \"bidirectional\": each new token changes what all before it gave, so no state can decode it; it sees what it is to predict and is no language model"
    )]
    SeesTheFuture,
    /// Its attention adds up heads.
    #[error(
        "axis = \"heads\": attention over the heads of one token, as published, mixes no tokens; only the trainer has it, to show that"
    )]
    MixesNoTokens,
    /// Its heads forget.
    #[error("decay = true: decoding by a state is not there for heads that forget")]
    Forgets,
    /// A number that is no token.
    #[error("token {token}: the vocabulary has {vocabulary}")]
    Token {
        /// The number.
        token: u32,
        /// Tokens there are.
        vocabulary: usize,
    },
}

/// Rows of the labels of experts.
#[derive(Clone)]
pub(crate) struct Router {
    /// (d, E)
    pub(crate) turned: Vec<f32>,
    /// What an expert adds, if it does (E, d).
    pub(crate) biases: Vec<f32>,
}

/// A layer's weights; matrices are (inputs, outputs).
#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) norm1: Vec<f32>,
    pub(crate) norm2: Option<Vec<f32>>,
    /// (d, 3 d)
    pub(crate) qkv: Vec<f32>,
    /// (3 d, taps)
    pub(crate) convolution: Option<Vec<f32>>,
    pub(crate) key_scale: Option<Vec<f32>>,
    /// (d, d)
    pub(crate) output: Vec<f32>,
    pub(crate) router: Option<Router>,
    /// Of each expert (d, 2 w) and (w, d).
    pub(crate) up: Vec<Vec<f32>>,
    pub(crate) down: Vec<Vec<f32>>,
    /// (d, 3 d)
    pub(crate) memory: Option<Vec<f32>>,
}

/// A language model.
#[derive(Clone)]
pub struct Model {
    pub(crate) config: LmConfig,
    /// (V, d)
    pub(crate) embedding: Vec<f32>,
    /// (d, V)
    pub(crate) unembedding: Vec<f32>,
    pub(crate) norm: Option<Vec<f32>>,
    pub(crate) layers: Vec<Layer>,
    tokenizer: Tokenizer,
}

impl Model {
    /// Reads `NAME.toml` and, beside it, `NAME.safetensors` and `NAME.tokenizer.json`.
    ///
    /// # Errors
    /// [`LmError`].
    pub fn load(path: &Path) -> Result<Self, LmError> {
        let config = LmConfig::load(path)?;
        let weights = Weights::load(&path.with_extension("safetensors"), &config)?;
        let tokenizer = Tokenizer::load(&path.with_extension("tokenizer.json"))?;
        Self::new(config, weights, tokenizer)
    }

    /// From the contents of the three files.
    ///
    /// # Errors
    /// [`LmError`].
    pub fn parse(name: &str, config: &str, weights: &[u8], tokenizer: &[u8]) -> Result<Self, LmError> {
        let config = LmConfig::parse(config, name)?;
        let weights = Weights::parse(weights, &config, name)?;
        Self::new(config, weights, Tokenizer::from_bytes(tokenizer)?)
    }

    /// The one that comes with yolo-lat.
    ///
    /// # Errors
    /// [`LmError`], which a test rules out.
    #[cfg(feature = "builtin-model")]
    pub fn builtin() -> Result<Self, LmError> {
        let yolo_lat_models::BuiltinLanguageModel { name, config, weights, tokenizer } =
            yolo_lat_models::LANGUAGE_MODEL;
        Self::parse(name, config, weights, tokenizer.as_bytes())
    }

    fn new(config: LmConfig, mut weights: Weights, tokenizer: Tokenizer) -> Result<Self, LmError> {
        tokenizer.check(config.vocabulary)?;
        let layers = (0..config.layers).map(|index| layer(&config, &mut weights, index)).collect();
        let embedding = weights.take("embedding");
        let unembedding = turned(&embedding, config.width);
        Ok(Self {
            embedding,
            unembedding,
            norm: config.final_norm.then(|| weights.take("norm")),
            layers,
            tokenizer,
            config,
        })
    }

    /// The same weights with another attention.
    #[must_use]
    pub fn with_attention(mut self, attention: Attention) -> Self {
        self.config.attention = attention;
        self
    }

    /// What it consists of.
    pub fn config(&self) -> &LmConfig {
        &self.config
    }

    /// Its tokeniser.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
}

fn layer(config: &LmConfig, weights: &mut Weights, index: usize) -> Layer {
    let (d, experts) = (config.width, config.experts);
    let mut take = |name: &str| weights.take(&format!("layers.{index}.{name}"));
    let maps = |take: &mut dyn FnMut(&str) -> Vec<f32>, part: &str| {
        let all = ["q", "k", "v"].map(|name| take(&format!("{part}.{name}.weight")));
        turned(&all.concat(), d)
    };
    let some = |values: Vec<f32>| (!values.is_empty()).then_some(values);
    let qkv = maps(&mut take, "attention");
    let memory = config.memory.map(|_| maps(&mut take, "memory"));
    let labels = some(take("router"));
    let free = take("expert_bias");
    let router = labels.map(|labels| Router {
        turned: turned(&labels, d),
        biases: if experts.bias == Bias::Free { free } else { labels },
    });
    let each = |all: Vec<f32>, inputs: usize| -> Vec<Vec<f32>> {
        all.chunks_exact(all.len() / experts.count).map(|matrix| turned(matrix, inputs)).collect()
    };
    Layer {
        norm1: take("norm1"),
        norm2: some(take("norm2")),
        qkv,
        convolution: some(take("attention.convolution")),
        key_scale: some(take("attention.key_scale")),
        output: turned(&take("attention.output.weight"), d),
        router,
        up: each(take("experts.up.weight"), d),
        down: each(take("experts.down.weight"), experts.width),
        memory,
    }
}
