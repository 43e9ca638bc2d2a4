//! Exact linear attention (ELA, arXiv 2605.18848): the mathematics, usable on its own.
//!
//! Attention is a row-normalised average of values `V` (L, Dv) with weights from a kernel `k(a, b) >= 0`:
//!
//! ```text
//! Y_i = sum_j k(A_i, B_j) V_j / sum_j k(A_i, B_j)
//! ```
//!
//! When `k(a, b) = phi(a) . psi(b)` *exactly*, both sums over `j` are independent of `i` and are computed once:
//! the cost is linear in the number of tokens, and the result equals the quadratic form up to rounding.
//!
//! The feature `rayon` (default) takes several threads.
#![allow(unsafe_code, reason = "vectors")]

mod causal;
mod check;
mod decoding;
mod exact;
mod gradient;
mod half_precision;
mod kernel;
mod linear;
mod parts;
mod rows;
mod softmax;
mod weights;

pub use causal::{CausalMemory, CausalState, causal_f32};
pub use check::{Violation, check, token_dilution};
pub use decoding::DecodeState;
pub use exact::{linear, naive_loops, quadratic};
pub use gradient::{Differentiable, Gradients, Naive, gradients, naive};
pub use half_precision::linear_f16;
pub use kernel::{DiffDistance, HadamardExp, Kernel, ModulatedDot, Shift, Similarity, Softmax, SumDistance};
pub use linear::{linear_f32, multi_head};
pub use rows::{Rows, vector_times_matrix};
pub use softmax::{KeyValueCache, softmax_f32};
pub use weights::{attention_weights, mean_of_heads};

#[cfg(test)]
mod tests;
