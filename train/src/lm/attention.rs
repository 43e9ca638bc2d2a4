//! Attention over tokens with autograd: queries, keys and values (B, h, T, D), the quadratic product, which is the fastest
//! form at the lengths that are trained on.

use tch::{Kind, Tensor};
use yolo_lat::model::config::KernelKind;
use yolo_lat_lm::{Attention, Mask, ROPE_BASE};

use crate::attention::features;

/// Largest difference between two running maxima of a key's dimension at which features stay far from the least f32.
const SPREAD: f64 = 40.0;

/// Attention of each token to those before and itself, or to all: (B, h, T, D). `log_decay` (h, 1, 1), if given, is what a token's
/// weight loses of its logarithm with each token that follows.
pub(super) fn attend([q, k, v]: [&Tensor; 3], attention: Attention, mask: Mask, log_decay: Option<&Tensor>) -> Tensor {
    let scale = (q.size()[3] as f64).powf(-0.25);
    let (q, k) = (q * scale, k * scale);
    let faded = log_decay.map(|decay| distances(q.size()[2], &q) * decay);
    let kernel = match attention {
        Attention::Softmax => return softmax(q.matmul(&k.transpose(-1, -2)), faded, mask).matmul(v),
        Attention::Hadamard if mask == Mask::Causal && spread(&k) > SPREAD => {
            // Exact for any numbers, and T D as large: w_ij = log sum_d exp(q_id + k_jd).
            let scores = (q.unsqueeze(-2) + k.unsqueeze(-3)).logsumexp(&[-1i64][..], false);
            return softmax(scores, faded, mask).matmul(v);
        }
        Attention::Hadamard => KernelKind::HadamardExp,
        Attention::Sum => KernelKind::SumDistance,
        Attention::Difference => KernelKind::DiffDistance,
        Attention::Modulated => KernelKind::ModulatedDot,
    };
    let (phi, psi) = features(&q.transpose(-1, -2), &k.transpose(-1, -2), kernel);
    let mut weights = phi.transpose(-1, -2).matmul(&psi);
    if let Some(faded) = faded {
        weights *= faded.exp();
    }
    if mask == Mask::Causal {
        weights = weights.tril(0);
    }
    let total = weights.sum_dim_intlist(&[-1i64][..], true, weights.kind());
    weights.matmul(v) / total.clamp_min(f64::from(f32::MIN_POSITIVE))
}

fn softmax(mut scores: Tensor, faded: Option<Tensor>, mask: Mask) -> Tensor {
    if let Some(faded) = faded {
        scores += faded;
    }
    if mask == Mask::Causal {
        let length = scores.size()[2];
        let later = Tensor::ones([length, length], (Kind::Bool, scores.device())).triu(1);
        scores = scores.masked_fill(&later, f64::NEG_INFINITY);
    }
    scores.softmax(-1, scores.kind())
}

/// How far the maximum of any dimension of the keys (B, h, T, D) is above the first key.
fn spread(k: &Tensor) -> f64 {
    let k = k.detach();
    (k.amax(-2, true) - k.narrow(-2, 0, 1)).max().double_value(&[])
}

/// How far back each token (row) is from each other (column): (T, T), 0 for those to come.
fn distances(length: i64, like: &Tensor) -> Tensor {
    let place = Tensor::arange(length, (like.kind(), like.device()));
    (place.unsqueeze(1) - place.unsqueeze(0)).clamp_min(0.0)
}

/// Turns the pairs (2i, 2i + 1) of `x` (B, T, h, D) by their place times `ROPE_BASE^(-2i / D)`.
pub(super) fn rotate(x: &Tensor) -> Tensor {
    let [batch, length, heads, width] = x.size()[..] else { return x.shallow_clone() };
    let options = (Kind::Double, x.device());
    let frequencies = (Tensor::arange(width / 2, options) * (-2.0 / width as f64 * ROPE_BASE.ln())).exp();
    let angles = (Tensor::arange(length, options).unsqueeze(1) * frequencies).unsqueeze(1);
    let (cos, sin) = (angles.cos().to_kind(x.kind()), angles.sin().to_kind(x.kind()));
    let pairs = x.reshape([batch, length, heads, width / 2, 2]);
    let (a, b) = (pairs.select(-1, 0), pairs.select(-1, 1));
    Tensor::stack(&[&a * &cos - &b * &sin, a * sin + b * cos], -1).reshape([batch, length, heads, width])
}
