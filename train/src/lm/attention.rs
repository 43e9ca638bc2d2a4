//! Attention over tokens with autograd: queries, keys and values (B, h, T, D), the quadratic product, which is the fastest
//! form at the lengths that are trained on.

use tch::{Kind, Tensor};
use yolo_lat::model::config::KernelKind;
use yolo_lat_lm::{Attention, Mask, ROPE_BASE};

use crate::attention::features;

/// Largest difference between two running maxima of a key's dimension at which features stay far from the least f32.
const SPREAD: f64 = 40.0;
/// Tokens whose weights on each other [`in_chunks`] computes by logarithms.
const CHUNK: i64 = 16;

/// Attention of each token to those before and itself, or to all: (B, h, T, D). `log_decay` (h, 1, 1), if given, is what a token's
/// weight loses of its logarithm with each token that follows.
pub(super) fn attend([q, k, v]: [&Tensor; 3], attention: Attention, mask: Mask, log_decay: Option<&Tensor>) -> Tensor {
    let scale = (q.size()[3] as f64).powf(-0.25);
    let (q, k) = (q * scale, k * scale);
    let faded = log_decay.map(|decay| distances(q.size()[2], &q) * decay);
    let kernel = match attention {
        Attention::Softmax => return softmax(q.matmul(&k.transpose(-1, -2)), faded, mask).matmul(v),
        Attention::Hadamard if mask == Mask::Causal && spread(&k) > SPREAD => {
            return in_chunks([&q, &k, v], faded.as_ref());
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

/// Causal attention with the Hadamard kernel for keys of any size: features are relative to the maxima of what lies before a chunk of
/// queries, weights within the chunk are `log sum_d exp(q_id + k_jd)`.
pub(super) fn in_chunks([q, k, v]: [&Tensor; 3], faded: Option<&Tensor>) -> Tensor {
    let length = q.size()[2];
    let chunk = |start: usize| {
        let start = start as i64;
        let count = CHUNK.min(length - start);
        let (q, within) = (q.narrow(2, start, count), k.narrow(2, start, count));
        let faded = |from: i64, to: i64| faded.map(|faded| faded.narrow(1, start, count).narrow(2, from, to - from));
        let mut scores = (q.unsqueeze(-2) + within.unsqueeze(-3)).logsumexp(&[-1i64][..], false);
        // Not in place: the logarithm's gradient is made of its result.
        if let Some(faded) = faded(start, start + count) {
            scores = &scores + faded;
        }
        let later = Tensor::ones([count, count], (Kind::Bool, q.device())).triu(1);
        let scores = scores.masked_fill(&later, f64::NEG_INFINITY);
        let mut top = scores.detach().amax(-1, true);
        let weights = if start == 0 {
            (scores - top).exp()
        } else {
            let before = k.narrow(2, 0, start);
            let peak = before.detach().amax(-2, true);
            let query = q + &peak;
            top = top.maximum(&query.detach().amax(-1, true));
            let mut weights = (query - &top).exp().matmul(&(before - peak).exp().transpose(-1, -2));
            if let Some(faded) = faded(0, start) {
                weights *= faded.exp();
            }
            Tensor::cat(&[weights, (scores - top).exp()], -1)
        };
        let total = weights.sum_dim_intlist(&[-1i64][..], true, weights.kind());
        weights.matmul(&v.narrow(2, 0, start + count)) / total.clamp_min(f64::from(f32::MIN_POSITIVE))
    };
    let chunks: Vec<Tensor> = (0..length as usize).step_by(CHUNK as usize).map(chunk).collect();
    Tensor::cat(&chunks, 2)
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
