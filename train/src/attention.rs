//! Attention with autograd.

use tch::{IndexOp, Kind, Tensor};
use yolo_lat::model::config::KernelKind;
use yolo_lat::model::graph::{Mask, Mixing};

use crate::tensors::{in_order, size4};

/// Attention as in `yolo_lat::attention`: the shifts cancel, so no gradient passes through them.
pub(crate) fn attention(x: &Tensor, mixing: Mixing, heads: i64, mask: Mask) -> Tensor {
    let (batch, channels, height, width) = size4(x);
    let head = channels / 3 / heads;
    let tokens = x.contiguous().reshape([batch, 3, heads, head, height * width]);
    let scale = (head as f64).powf(-0.25);
    let (q, k, v) = (tokens.i((.., 0)) * scale, tokens.i((.., 1)) * scale, tokens.i((.., 2)));
    let attended = match mixing {
        Mixing::Softmax => {
            let scores = q.transpose(-1, -2).matmul(&k);
            let scores = match mask {
                Mask::Full => scores,
                Mask::Causal => scores.masked_fill(&scores.ones_like().triu(1).to_kind(Kind::Bool), f64::NEG_INFINITY),
            };
            scores.softmax(-1, Kind::Float).matmul(&v.transpose(-1, -2)).transpose(-1, -2)
        }
        Mixing::Linear(kernel) => {
            let (phi, psi) = features(&q, &k, kernel);
            let (numerator, denominator) = match mask {
                Mask::Full => {
                    let sums = psi.matmul(&v.transpose(-1, -2));
                    let counts = psi.sum_dim_intlist(&[-1i64][..], true, Kind::Float);
                    let denominator = (&phi * counts).sum_dim_intlist(&[-2i64][..], true, Kind::Float);
                    (sums.transpose(-1, -2).matmul(&phi), denominator)
                }
                // (keys, queries): the quadratic form, of which the lower half is nothing.
                Mask::Causal => {
                    let weights = psi.transpose(-1, -2).matmul(&phi).triu(0);
                    (v.matmul(&weights), weights.sum_dim_intlist(&[-2i64][..], true, Kind::Float))
                }
            };
            numerator / denominator.clamp_min(1e-12)
        }
    };
    in_order(&attended.reshape([batch, channels / 3, height, width]))
}

/// phi(q) and psi(k), features in the second but last dimension.
pub(crate) fn features(q: &Tensor, k: &Tensor, kernel: KernelKind) -> (Tensor, Tensor) {
    match kernel {
        KernelKind::HadamardExp => {
            let peak = k.detach().amax(-1, true);
            let query = q + &peak;
            let row = query.detach().amax(-2, true);
            ((query - row).exp(), (k - peak).exp())
        }
        KernelKind::SumDistance | KernelKind::DiffDistance => {
            let sign = if kernel == KernelKind::SumDistance { 1.0 } else { -1.0 };
            let mean = k.mean_dim(&[-1i64][..], true, k.kind());
            let (a, b) = (q + &mean * sign, k - mean);
            let norm = |x: &Tensor| x.square().sum_dim_intlist(&[-2i64][..], true, x.kind());
            let (a_norm, b_norm) = (norm(&a), norm(&b));
            let one = a_norm.ones_like();
            (Tensor::cat(&[&a, &a_norm, &one], -2), Tensor::cat(&[&(b * (2.0 * sign)), &one, &b_norm], -2))
        }
        KernelKind::ModulatedDot => {
            let square = |x: &Tensor| x.square().sum_dim_intlist(&[-2i64][..], true, x.kind());
            let direction = |x: &Tensor| x / square(x).clamp_min(1e-24).sqrt();
            // The queries' factor |a|^2 + 1 cancels.
            let factor = square(k) + 1.0;
            let phi = Tensor::cat(&[&direction(q), &square(q).ones_like()], -2);
            (phi, Tensor::cat(&[&(direction(k) * &factor), &factor], -2))
        }
    }
}
