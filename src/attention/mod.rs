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

mod exact;
mod kernel;

pub use exact::{linear, quadratic};
pub use kernel::{DiffDistance, HadamardExp, Kernel, Similarity, Softmax, SumDistance};

#[cfg(test)]
mod tests;
