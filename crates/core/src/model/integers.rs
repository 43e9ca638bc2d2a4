//! Products of small integers: what a 1x1 convolution becomes with `--precision int8`. Every engine that computes them computes
//! the same, bit for bit.
//!
//! A channel `k` of the input has 128 levels, `a = clamp(round(x / step + zero), 0, 127)`, which stand for
//! `step (a - zero)`; step and zero are measured on photographs and lie with the weights. The filters follow: `w step` of an
//! output channel is divided by the 63rd part of its largest value and rounded. Levels of 7 bits times weights of 7 bits fit, four of
//! them added up, in 16 bits, so one format serves AVX2 (`vpmaddubsw`), VNNI, NEON's dot product, which has no mixed signs, and
//! WebAssembly. What is left is `scale (sum - offset) + bias` in floats, a multiplication and an addition that round each.

use serde::{Deserialize, Serialize};

use super::check::Network;
use super::graph::{Graph, Node, Op};
use super::weights::Weights;

/// The highest level of an input.
pub const HIGHEST_LEVEL: f32 = 127.0;
/// The largest weight of a filter.
pub const LARGEST_WEIGHT: f32 = 63.0;

/// What a network's 1x1 convolutions are computed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Floats of 32 bits.
    #[default]
    F32,
    /// Integers of 7 bits, where the weights' file has steps for them.
    Int8,
}

impl Precision {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
    pub(super) fn is_f32(&self) -> bool {
        *self == Self::F32
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(match self {
            Self::F32 => "f32",
            Self::Int8 => "int8",
        })
    }
}

/// The name of the tensor with the steps of what `node` reads, one a channel.
pub fn step_name(node: &str) -> String {
    format!("{node}.step")
}

/// The name of the tensor with what is added to each output besides the bias.
pub fn shift_name(node: &str) -> String {
    format!("{node}.shift")
}

/// The name of the tensor with the levels that stand for 0 there.
pub fn zero_name(node: &str) -> String {
    format!("{node}.zero")
}

impl Weights {
    /// Whether there are steps for any integers.
    pub fn has_steps(&self) -> bool {
        self.iter().any(|(name, _)| name.ends_with(&step_name("")))
    }

    /// Without what only integers need.
    #[must_use]
    pub fn without_steps(&self) -> Self {
        let parts = [step_name(""), zero_name(""), shift_name("")];
        let mut floats = Self::default();
        for (name, tensor) in self.iter().filter(|(name, _)| !parts.iter().any(|part| name.ends_with(part))) {
            floats.insert(name, tensor.clone());
        }
        floats
    }
}

impl Graph {
    /// Computes in integers every 1x1 convolution that `weights` have steps for.
    pub fn use_integers(&mut self, weights: &Weights) {
        for node in &mut self.nodes {
            if let Op::Conv { channels, kernel: 1, stride: 1, activation } = node.op
                && weights.get(&step_name(&node.name)).is_some()
            {
                node.op = Op::IntegerConv { channels, activation };
            }
        }
    }

    /// Whether anything is computed in integers.
    pub fn has_integers(&self) -> bool {
        self.nodes.iter().any(|node| matches!(node.op, Op::IntegerConv { .. }))
    }
}

/// A 1x1 convolution in integers.
#[derive(Clone, Debug, PartialEq)]
pub struct Integers {
    /// Of each input channel, levels a unit.
    pub levels: Vec<f32>,
    /// Of each input channel, the level that stands for 0.
    pub zeros: Vec<f32>,
    /// (outputs, inputs), -63 to 63.
    pub weights: Vec<i8>,
    /// Of each output, what is taken from its sum.
    pub offsets: Vec<i32>,
    /// Of each output, what its sum is multiplied by.
    pub scales: Vec<f32>,
    /// Of each output, what is added then.
    pub bias: Vec<f32>,
}

impl Integers {
    /// The level of a value of input channel `channel`; of what is no number, 0.
    pub fn level(&self, channel: usize, value: f32) -> u8 {
        let level = value * self.levels[channel] + self.zeros[channel];
        level.clamp(0.0, HIGHEST_LEVEL).round_ties_even() as u8
    }

    /// Output `channel` of its sum of products, before the activation.
    pub fn value(&self, channel: usize, sum: i32) -> f32 {
        (sum - self.offsets[channel]) as f32 * self.scales[channel] + self.bias[channel]
    }
}

impl Network {
    /// The integers of an [`Op::IntegerConv`].
    pub fn integers(&self, node: &Node) -> Integers {
        let mut tensors = self.tensors(node).map(|tensor| &tensor.values);
        let mut next = || tensors.next().map_or(&[][..], |values| values);
        let (filters, bias, steps, zeros, shifts) = (next(), next(), next(), next(), next());
        let bias = bias.iter().zip(shifts).map(|(&bias, &shift)| bias + shift).collect();
        let (mut weights, mut offsets, mut scales) = (Vec::with_capacity(filters.len()), Vec::new(), Vec::new());
        for filter in filters.chunks_exact(steps.len()) {
            let scaled = filter.iter().zip(steps).map(|(&weight, &step)| weight * step);
            let largest = scaled.clone().fold(0.0, |largest: f32, weight| largest.max(weight.abs()));
            // A filter so small that its parts have no reciprocal is none.
            let scale = if largest >= f32::MIN_POSITIVE * 1e6 { largest / LARGEST_WEIGHT } else { 1.0 };
            let row: Vec<i8> = scaled.map(|weight| (weight / scale).round_ties_even() as i8).collect();
            offsets.push(row.iter().zip(zeros).map(|(&weight, &zero)| i32::from(weight) * zero as i32).sum());
            scales.push(scale);
            weights.extend(row);
        }
        let levels = steps.iter().map(|step| 1.0 / step).collect();
        Integers { levels, zeros: zeros.to_vec(), weights, offsets, scales, bias }
    }
}
