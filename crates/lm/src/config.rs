//! What a language model consists of, as its TOML file says, and the names and shapes of its weights.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Added to the mean square of a row before its root is taken, in every normalisation.
pub const RMS_EPSILON: f64 = 1e-6;
/// Base of the angles of rotary positions (RoPE, Su et al. 2021).
pub const ROPE_BASE: f64 = 10_000.0;

/// Where a layer adds to what comes in. `a = attention(norm1(x))` in all of them, `ffn` are the experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// Hyper-Link as the paper's text has it: `x + d`, `d = ffn(a)`.
    Hyper,
    /// As the paper's program has it: `x + d`, `d = a + ffn(a)`.
    HyperA,
    /// The usual two residuals: `y = x + a`, `y + d`, `d = ffn(norm2(y))`.
    Two,
    /// The paper's program's version of two residuals: `y = x + a`, `n = norm2(y)`, `y + d`, `d = n + ffn(n)`.
    PublishedTwo,
}

/// How queries weigh keys: softmax, or the kernels of `yolo-lat-attention` by short names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attention {
    /// `exp(q . k)`, no constant state.
    Softmax,
    /// `sum_d exp(q_d) exp(k_d)`.
    Hadamard,
    /// `|q + k|^2`.
    Sum,
    /// `|q - k|^2`.
    Difference,
    /// `(cos(q, k) + 1) (|q|^2 + 1) (|k|^2 + 1)`.
    Modulated,
}

/// What causal attention adds up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// The tokens before and the token itself, in each head.
    #[default]
    Tokens,
    /// The heads before and the head itself, in each token, as the paper's program does with its linear kernels: no token sees another.
    /// Keys and queries are not scaled by their width there either.
    Heads,
}

/// Which tokens a Memory Lobe reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mask {
    /// Those before and the token itself.
    Causal,
    /// All, those to come too, as published: no language model, for it sees what it is to predict.
    Bidirectional,
}

/// What a Memory Lobe attends over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryInput {
    /// What the layer adds, as in the paper.
    #[default]
    Delta,
    /// What comes into the layer.
    Input,
}

/// A Memory Lobe in every layer: `x + d + ela(Q d, K d, V d)` with the Hadamard kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Which tokens it reads.
    pub mask: Mask,
    /// Its heads; the paper has one.
    pub heads: usize,
    /// What it attends over.
    #[serde(default)]
    pub input: MemoryInput,
}

/// What each chosen expert e adds beside its output `f_e`, with routing score `s_e`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bias {
    /// `s_e f_e`.
    #[default]
    None,
    /// `s_e (f_e + B_e)`, `B_e` the expert's row of the router.
    Inner,
    /// `s_e f_e + B_e`, the same `B_e`.
    Outer,
    /// `s_e f_e + B_e` with `B_e` of its own.
    Free,
}

/// The mixture of gated feed-forward networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experts {
    /// How many there are; one alone is an ordinary dense network without a router.
    pub count: usize,
    /// How many a token goes through.
    pub active: usize,
    /// Hidden width of each.
    pub width: usize,
    /// Routing-score bias.
    #[serde(default)]
    pub bias: Bias,
}

/// Taps of the short convolution over tokens, where there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConvolutionTaps(pub usize);

/// A language model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LmConfig {
    /// Tokens known, V.
    pub vocabulary: usize,
    /// Numbers a token is inside, d.
    pub width: usize,
    /// Layers, L.
    pub layers: usize,
    /// Heads of attention; each has an even width d / heads.
    pub heads: usize,
    /// Where layers add.
    pub link: Link,
    /// How queries weigh keys.
    pub attention: Attention,
    /// What attention adds up.
    #[serde(default, skip_serializing_if = "is_tokens")]
    pub axis: Axis,
    /// Feed-forward part.
    pub experts: Experts,
    /// Rotary positions on queries and keys.
    #[serde(default = "yes")]
    pub rope: bool,
    /// A norm between the last layer and the logits; the paper's program has none.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub final_norm: bool,
    /// Causal depthwise convolution on queries, keys and values; 0 taps for none.
    #[serde(default)]
    pub convolution: ConvolutionTaps,
    /// A learned factor on the keys of each head.
    #[serde(default)]
    pub key_scale: bool,
    /// A learned forgetting per head: weights times `gamma^(i - j)`.
    #[serde(default)]
    pub decay: bool,
    /// Memory Lobe.
    pub memory: Option<Memory>,
}

fn yes() -> bool {
    true
}

// Not written where they say nothing, so that files and logs from before they could say something are what is written today.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's")]
fn is_yes(value: &bool) -> bool {
    *value
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's")]
fn is_tokens(value: &Axis) -> bool {
    *value == Axis::Tokens
}

/// Why a configuration is not one.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{}: cannot be read: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is no TOML of a language model.
    #[error("{path}: {error}")]
    Toml {
        /// The file.
        path: String,
        /// What the parser says.
        error: Box<toml::de::Error>,
    },
    /// A count that must be at least one, or at most so many.
    #[error("{name} = {found}: expected {least} to {most}")]
    Range {
        /// The key.
        name: &'static str,
        /// What it says.
        found: usize,
        /// Least that will do.
        least: usize,
        /// Most that will do.
        most: usize,
    },
    /// Heads do not divide the width.
    #[error("{name} = {heads}: does not divide width = {width} into heads of an even width")]
    Heads {
        /// The key.
        name: &'static str,
        /// Heads asked for.
        heads: usize,
        /// Width of the model.
        width: usize,
    },
    /// Softmax or forgetting over heads, which nobody published.
    #[error("axis = \"heads\": only linear kernels add up heads, and without decay")]
    OverHeads,
    /// A bias without a router.
    #[error("experts.bias: one expert alone has no router and no bias")]
    BiasAlone,
}

/// Widest, deepest and longest that is taken for meant: what is larger is a slip of the pen.
const MOST: usize = 1 << 20;

impl LmConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = std::fs::read_to_string(path);
        let text = read.map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// As [`LmConfig::load`], from text; `path` is for messages.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(text: &str, path: &str) -> Result<Self, ConfigError> {
        let toml = toml::from_str(text);
        let config: Self = toml.map_err(|error| ConfigError::Toml { path: path.to_owned(), error: Box::new(error) })?;
        config.check()?;
        Ok(config)
    }

    /// Whether there can be such a model.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let Experts { count, active, width, bias } = self.experts;
        let ranges = [
            ("vocabulary", self.vocabulary, 1, MOST),
            ("width", self.width, 2, MOST),
            ("layers", self.layers, 1, 1000),
            ("experts.count", count, 1, 1000),
            ("experts.active", active, 1, count),
            ("experts.width", width, 1, MOST),
            ("convolution", self.convolution.0, 0, 64),
        ];
        if let Some(&(name, found, least, most)) = ranges.iter().find(|(_, n, least, most)| n < least || n > most) {
            return Err(ConfigError::Range { name, found, least, most });
        }
        let memory = self.memory.map(|memory| ("memory.heads", memory.heads, 1));
        for (name, heads, multiple) in [("heads", self.heads, 2)].into_iter().chain(memory) {
            if heads == 0 || !self.width.is_multiple_of(heads * multiple) {
                return Err(ConfigError::Heads { name, heads, width: self.width });
            }
        }
        if self.axis == Axis::Heads && (self.attention == Attention::Softmax || self.decay) {
            return Err(ConfigError::OverHeads);
        }
        if count == 1 && bias != Bias::None { Err(ConfigError::BiasAlone) } else { Ok(()) }
    }

    /// Names and shapes of all weights. Matrices are (outputs, inputs); names of those that weight decay is for end in `.weight`.
    pub fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let (d, Experts { count, width, bias, .. }) = (self.width, self.experts);
        let mut all = vec![("embedding".to_owned(), vec![self.vocabulary, d])];
        if self.final_norm {
            all.push(("norm".to_owned(), vec![d]));
        }
        for layer in 0..self.layers {
            let mut add = |name: &str, shape: &[usize]| all.push((format!("layers.{layer}.{name}"), shape.to_vec()));
            add("norm1", &[d]);
            if matches!(self.link, Link::Two | Link::PublishedTwo) {
                add("norm2", &[d]);
            }
            ["q", "k", "v", "output"].iter().for_each(|name| add(&format!("attention.{name}.weight"), &[d, d]));
            if self.convolution.0 > 0 {
                add("attention.convolution", &[3 * d, self.convolution.0]);
            }
            if self.key_scale {
                add("attention.key_scale", &[self.heads]);
            }
            if self.decay {
                add("attention.decay", &[self.heads]);
            }
            if count > 1 {
                add("router", &[count, d]);
            }
            if bias == Bias::Free {
                add("expert_bias", &[count, d]);
            }
            add("experts.up.weight", &[count, 2 * width, d]);
            add("experts.down.weight", &[count, d, width]);
            if self.memory.is_some() {
                ["q", "k", "v"].iter().for_each(|name| add(&format!("memory.{name}.weight"), &[d, d]));
            }
        }
        all
    }

    /// Numbers in all weights.
    pub fn parameter_count(&self) -> usize {
        self.parameters().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// Multiplications with weights that a token takes, attention over other tokens left out.
    pub fn macs_per_token(&self) -> usize {
        let (d, Experts { count, active, width, .. }) = (self.width, self.experts);
        let router = if count > 1 { count * d } else { 0 };
        let memory = if self.memory.is_some() { 3 * d * d } else { 0 };
        let layer = 4 * d * d + 3 * d * self.convolution.0 + router + active * 3 * d * width + memory;
        self.layers * layer + self.vocabulary * d
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paper() -> LmConfig {
        let experts = Experts { count: 4, active: 2, width: 256, bias: Bias::None };
        LmConfig {
            vocabulary: 6400,
            width: 256,
            layers: 4,
            heads: 4,
            link: Link::Hyper,
            attention: Attention::Hadamard,
            axis: Axis::Tokens,
            experts,
            rope: true,
            final_norm: true,
            convolution: ConvolutionTaps(0),
            key_scale: false,
            decay: false,
            memory: None,
        }
    }

    fn small() -> LmConfig {
        let experts = Experts { width: 128, ..paper().experts };
        LmConfig { vocabulary: 2048, width: 128, experts, ..paper() }
    }

    #[test]
    fn counts_are_those_of_the_formulas() {
        for (config, [hyper, two, lobe, wide]) in
            [(paper(), [5_838_080, 5_839_104, 6_624_512, 320]), (small(), [1_313_408, 1_313_920, 1_510_016, 160])]
        {
            assert_eq!(config.parameter_count(), hyper);
            assert_eq!(LmConfig { link: Link::HyperA, ..config.clone() }.parameter_count(), hyper);
            assert_eq!(LmConfig { link: Link::Two, ..config.clone() }.parameter_count(), two);
            let memory = Some(Memory { mask: Mask::Causal, heads: 4, input: MemoryInput::Delta });
            assert_eq!(LmConfig { memory, ..config.clone() }.parameter_count(), lobe);
            // The control of the same size: wider experts instead of a lobe.
            let experts = Experts { width: wide, ..config.experts };
            assert_eq!(LmConfig { experts, ..config.clone() }.parameter_count(), lobe);
            let dense = Experts { count: 1, active: 1, width: 4 * config.experts.width, bias: Bias::None };
            let router = 4 * config.layers * config.width;
            assert_eq!(LmConfig { experts: dense, ..config.clone() }.parameter_count(), hyper - router);
            let free = Experts { bias: Bias::Free, ..config.experts };
            assert_eq!(LmConfig { experts: free, ..config.clone() }.parameter_count(), hyper + router);
            let taps = LmConfig { convolution: ConvolutionTaps(4), ..config.clone() };
            assert_eq!(taps.parameter_count(), hyper + 12 * config.width * config.layers);
        }
        assert_eq!(paper().macs_per_token(), 4_263_936);
        assert_eq!(small().macs_per_token(), 919_552);
    }

    #[test]
    fn what_cannot_be_is_refused_in_a_line() {
        let text = toml::to_string(&small()).unwrap();
        assert_eq!(LmConfig::parse(&text, "s.toml").unwrap(), small());
        let refused = |from: &str, to: &str| {
            let text = text.replacen(from, to, 1);
            LmConfig::parse(&text, "s.toml").unwrap_err().to_string()
        };
        assert_eq!(
            refused("heads = 4", "heads = 5"),
            "heads = 5: does not divide width = 128 into heads of an even width"
        );
        assert!(refused("heads = 4", "heads = 0").starts_with("heads = 0: "));
        assert_eq!(refused("active = 2", "active = 5"), "experts.active = 5: expected 1 to 4");
        assert!(refused("heads = 4", "head = 4").contains("unknown field"));
        assert!(refused("hyper", "hypr").contains("hypr"));
        assert_eq!(
            refused("attention = \"hadamard\"", "attention = \"softmax\"\naxis = \"heads\""),
            "axis = \"heads\": only linear kernels add up heads, and without decay"
        );
        let dense = Experts { count: 1, active: 1, width: 8, bias: Bias::Outer };
        assert!(LmConfig { experts: dense, ..small() }.check().is_err());
    }
}
