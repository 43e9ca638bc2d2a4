//! What a model is made of: the TOML file that lies beside its weights.

use serde::{Deserialize, Serialize};

use super::ModelError;
use super::integers::Precision;
use super::op::Mixing;

/// Everything that decides a network's shape. Read from `NAME.toml`; the weights lie in `NAME.safetensors`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Short name, as in `yolo-lat-n`.
    pub name: String,
    /// Side of the square input in pixels, a multiple of 32; a user may ask for another one at run time.
    pub input: usize,
    /// Least confidence of a detection unless a user asks for another, 0 to 1: where precision and recall are balanced best
    /// (`yolo-lat eval --threshold`); 0.25 where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f32>,
    /// What its 1x1 convolutions are computed in where the engine can and a user asks for nothing else; `"f32"` where it is missing.
    #[serde(default, skip_serializing_if = "Precision::is_f32")]
    pub precision: Precision,
    /// Class names; the index is the class id.
    pub classes: Vec<String>,
    /// Activation of every convolution that has one.
    #[serde(default)]
    pub activation: ActivationConfig,
    /// The convolutional part that turns pixels into features.
    pub backbone: BackboneConfig,
    /// The part that mixes scales and positions.
    pub neck: NeckConfig,
    /// The part that reads boxes and classes off the features.
    pub head: HeadConfig,
}

/// ShuffleNetV2 (Ma et al. 2018).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackboneConfig {
    /// Channels of the stem convolution.
    pub stem: usize,
    /// Channels of the stages at strides 8, 16 and 32; each even.
    pub widths: [usize; 3],
    /// Units in each stage; the first of each halves the resolution.
    pub repeats: [usize; 3],
    /// How a unit divides its channels between the two branches.
    #[serde(default)]
    pub split: Split,
    /// Channels inside the transforming branch of each stage's units but the first; half of the stage's width unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<[usize; 3]>,
    /// The same inside the first unit of each stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_hidden: Option<[usize; 3]>,
}

/// How a shuffle unit divides its input. Both spread information over all channels, neither moves data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Even channels pass, odd channels are transformed (FastestDet).
    #[default]
    EvenOdd,
    /// The first half passes, the second is transformed, a shuffle of two groups follows (NanoDet).
    Halves,
}

/// Feature pyramid with attention at strides 16 and 32.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeckConfig {
    /// Channels of every feature map from the laterals on.
    pub width: usize,
    /// How maps of two scales are joined.
    #[serde(default)]
    pub fusion: Fusion,
    /// Channels of queries, of keys and of values; `width` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention_width: Option<usize>,
    /// Attention heads; divides the attention's width.
    pub heads: usize,
    /// Hidden channels of the gated feed-forward layer.
    pub hidden: usize,
    /// Which attention the blocks use.
    #[serde(default)]
    pub attention: AttentionKind,
    /// The kernel of exact linear attention.
    #[serde(default)]
    pub kernel: KernelKind,
    /// One residual around the whole block (true) or one around each half (false).
    #[serde(default = "yes")]
    pub hyper_link: bool,
    /// Whether a block has a second attention, whose result is added to its own (Memory Lobe), and what that reads.
    #[serde(default, skip_serializing_if = "MemoryKind::is_none")]
    pub memory: MemoryKind,
    /// Channels of that attention's queries, keys and values, and a last map from them to `width`; `width` and no map unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_width: Option<usize>,
    /// Several feed-forward layers of which each position goes through some, instead of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experts: Option<ExpertsConfig>,
    /// Side of the window of the values that is added to what attention gives.
    #[serde(default = "position_kernel", skip_serializing_if = "is_position_kernel")]
    pub position_kernel: usize,
    /// Whether each channel of the keys has a learned scale of its own behind the map that makes them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub key_scale: bool,
    /// Whether a map of the block's input gates what attention gives, `mixed * silu(map(x))`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub output_gate: bool,
}

/// Mixture of gated feed-forward layers. Engines compute them all and weigh them by gates of which most are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpertsConfig {
    /// How many, each of `hidden` channels.
    pub count: usize,
    /// Through how many of them a position goes.
    pub active: usize,
    /// What of the router's is added to their sum.
    #[serde(default)]
    pub bias: ExpertBias,
}

/// A vector for each expert that is added where a position goes through it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpertBias {
    /// None.
    #[default]
    None,
    /// The router's weights, times the gate.
    Inner,
    /// The router's weights.
    Outer,
    /// Weights of its own.
    Free,
}

const fn yes() -> bool {
    true
}

const fn position_kernel() -> usize {
    3
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_position_kernel(side: &usize) -> bool {
    *side == position_kernel()
}

impl NeckConfig {
    /// Channels of queries, of keys and of values.
    pub fn attention_width(&self) -> usize {
        self.attention_width.unwrap_or(self.width)
    }

    /// Channels of the memory's queries, of its keys and of its values.
    pub fn memory_channels(&self) -> usize {
        self.memory_width.unwrap_or(self.width)
    }

    /// What the blocks' attention nodes compute; `None` where there are none.
    pub fn mixing(&self) -> Option<Mixing> {
        match self.attention {
            AttentionKind::Ela => Some(Mixing::Linear(self.kernel)),
            AttentionKind::Softmax => Some(Mixing::Softmax),
            AttentionKind::None => None,
        }
    }
}

/// How the neck joins maps of two scales.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fusion {
    /// Their sum, then a separable 5x5 convolution.
    #[default]
    Sum,
    /// Side by side into a ghost bottleneck (Han et al. 2020), as in NanoDet-Plus; `width` is even.
    Ghost,
}

/// Distribution focal head (Li et al. 2020): a side's distance is an expectation over bins.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadConfig {
    /// Bins for each of the four sides.
    pub bins: usize,
    /// Distance of the last bin in units of the stride; the first bin is 0.
    pub max_distance: f32,
    /// Separable convolutions whose result class and box branch share; 0 gives each branch one of its own.
    #[serde(default)]
    pub shared: usize,
}

/// What replaces the attention of a block in the baselines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentionKind {
    /// Exact linear attention, cost linear in the number of positions.
    #[default]
    Ela,
    /// Softmax attention, cost quadratic in the number of positions.
    Softmax,
    /// No mixing of distant positions: only the depthwise `position` path remains.
    None,
}

/// What the second attention of a block reads: exact linear attention of the same kernel and heads as the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryKind {
    /// There is none.
    #[default]
    None,
    /// What the block adds to its input, as in the paper.
    Flow,
    /// The block's input.
    Input,
    /// The block's result: one more attention behind it, without a feed-forward layer.
    Output,
}

impl MemoryKind {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// A kernel of exact linear attention; the formulas are with `yolo_lat_attention`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KernelKind {
    /// `sum_d exp(a_d) exp(b_d)`.
    #[default]
    HadamardExp,
    /// `|a + b|^2`.
    SumDistance,
    /// `|a - b|^2`.
    DiffDistance,
    /// `(cos(a, b) + 1) (|a|^2 + 1) (|b|^2 + 1)`.
    ModulatedDot,
}

/// Activation as written in TOML: `"relu"` or `{ leaky_relu = 0.1 }`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationConfig {
    /// `max(x, 0)`.
    #[default]
    Relu,
    /// `x` where positive, `slope * x` elsewhere.
    LeakyRelu(f32),
}

/// Least confidence of a detection where neither a user nor a model's file names one.
pub const CONFIDENCE: f32 = 0.25;

/// The strides of the three output scales in input pixels.
pub const STRIDES: [usize; 3] = [8, 16, 32];

impl ModelConfig {
    /// Parses and validates a configuration. `origin` names the file in error messages.
    ///
    /// # Errors
    /// [`ModelError::Config`] for invalid TOML, an unknown key, or values that describe no network.
    pub fn parse(text: &str, origin: &str) -> Result<Self, ModelError> {
        let fail = |reason: String| ModelError::Config { path: origin.to_owned(), reason };
        let config: Self = toml::from_str(text).map_err(|error| fail(error.to_string().trim().to_owned()))?;
        config.validate().map_err(fail)?;
        Ok(config)
    }

    fn validate(&self) -> Result<(), String> {
        const WIDEST: usize = 4096;
        let BackboneConfig { stem, widths, repeats, .. } = &self.backbone;
        let NeckConfig { width, heads, hidden, fusion, .. } = self.neck;
        let attention_width = self.neck.attention_width();
        if self.classes.is_empty() || self.classes.len() > WIDEST {
            return Err(format!("classes: expected 1 to {WIDEST} names, found {}", self.classes.len()));
        }
        for (index, class) in self.classes.iter().enumerate() {
            if class.is_empty() || self.classes[..index].contains(class) {
                return Err(format!("classes: name {index} ({class:?}) is empty or stands twice"));
            }
        }
        check_side(self.input).map_err(|reason| format!("input: {reason}"))?;
        if let Some(confidence) = self.confidence.filter(|confidence| !(0.0..=1.0).contains(confidence)) {
            return Err(format!("confidence: expected a number from 0 to 1, found {confidence}"));
        }
        let named = [
            ("backbone.stem", *stem),
            ("neck.width", width),
            ("neck.attention_width", attention_width),
            ("neck.memory_width", self.neck.memory_channels()),
            ("neck.hidden", hidden),
            ("neck.heads", heads),
        ];
        let widths = widths.iter().map(|&width| ("backbone.widths", width));
        let inner = self.backbone.hidden.iter().flatten().map(|&width| ("backbone.hidden", width));
        let first = self.backbone.first_hidden.iter().flatten().map(|&width| ("backbone.first_hidden", width));
        for (key, value) in named.into_iter().chain(widths).chain(inner).chain(first) {
            if value == 0 || value > WIDEST {
                return Err(format!("{key}: expected 1 to {WIDEST}, found {value}"));
            }
        }
        if let Some(odd) = self.backbone.widths.iter().find(|&&width| width % 2 == 1) {
            return Err(format!("backbone.widths: {odd} is odd, but a shuffle unit divides its channels in two"));
        }
        if let Some(count) = repeats.iter().find(|&&count| count == 0 || count > 64) {
            return Err(format!("backbone.repeats: expected 1 to 64 units a stage, found {count}"));
        }
        if !attention_width.is_multiple_of(heads) {
            return Err(format!("neck.heads: {heads} heads do not divide a width of {attention_width}"));
        }
        if self.neck.memory == MemoryKind::None && self.neck.memory_width.is_some() {
            return Err("neck.memory_width: there is no memory; set memory = \"flow\", \"input\" or \"output\"".into());
        }
        let memory_width = self.neck.memory_channels();
        if self.neck.memory != MemoryKind::None && !memory_width.is_multiple_of(heads) {
            return Err(format!("neck.heads: {heads} heads do not divide a memory of {memory_width} channels"));
        }
        if let Some(ExpertsConfig { count, active, .. }) = self.neck.experts {
            // Each score is compared with each other one.
            if !(2..=64).contains(&count) || count * hidden > WIDEST {
                return Err(format!(
                    "neck.experts.count: expected 2 to 64, with at most {WIDEST} hidden channels in all, found {count}"
                ));
            }
            if active == 0 || active > count {
                return Err(format!("neck.experts.active: expected 1 to {count}, found {active}"));
            }
        }
        let position = self.neck.position_kernel;
        if position.is_multiple_of(2) || position > 15 {
            return Err(format!("neck.position_kernel: expected an odd side from 1 to 15, found {position}"));
        }
        if fusion == Fusion::Ghost && width % 2 == 1 {
            return Err(format!(
                "neck.width: {width} is odd, but half of a ghost's channels follow from the other half"
            ));
        }
        let HeadConfig { bins, max_distance, shared } = self.head;
        if shared > 16 {
            return Err(format!("head.shared: expected 0 to 16 convolutions, found {shared}"));
        }
        if !((2..=64).contains(&bins) && max_distance > 0.0 && max_distance <= 1000.0) {
            return Err(format!(
                "head: expected 2 to 64 bins and a distance in (0, 1000], found {bins} and {max_distance}"
            ));
        }
        if let ActivationConfig::LeakyRelu(slope) = self.activation
            && !(slope.is_finite() && (0.0..1.0).contains(&slope))
        {
            return Err(format!("activation: the slope of leaky_relu lies in 0..1, found {slope}"));
        }
        Ok(())
    }
}

/// Checks a side of the network's input: a multiple of 32 that the engines can hold.
///
/// # Errors
/// A sentence that says what was expected.
pub fn check_side(side: usize) -> Result<(), String> {
    if side == 0 || !side.is_multiple_of(32) || side > 4096 {
        return Err(format!("expected a multiple of 32 from 32 to 4096, found {side}"));
    }
    Ok(())
}
