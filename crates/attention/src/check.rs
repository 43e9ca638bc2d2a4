//! The four rules of a kernel, tested on a given one.

use super::exact::{linear, quadratic};
use super::kernel::{Kernel, Similarity};

/// A rule that a kernel breaks, and inputs on which it does.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The linear form is not the quadratic form: `phi(a) . psi(b)` is not `k(a, b)`.
    #[error("{kernel}: not exactly decomposable: query {query:?} gives {linear} in linear form, {quadratic} in quadratic form, on {} keys", keys.len())]
    Decomposable {
        /// The kernel.
        kernel: &'static str,
        /// The query.
        query: Vec<f64>,
        /// The keys, one after the other.
        keys: Vec<f64>,
        /// What `sum phi psi V / sum phi psi` gives.
        linear: f64,
        /// What `sum k V / sum k` gives.
        quadratic: f64,
    },
    /// A weight is negative or no number.
    #[error("{kernel}: not non-negative: k({query:?}, {key:?}) = {weight}")]
    NonNegative {
        /// The kernel.
        kernel: &'static str,
        /// The query.
        query: Vec<f64>,
        /// The key.
        key: Vec<f64>,
        /// The weight, up to the factor of its row.
        weight: f64,
    },
    /// Weights come to be those of the mean as there are more tokens ("token dilution").
    #[error("{kernel}: not discriminative: the entropy of its weights is {short} below that of the mean for {} tokens, {long} for {}", TOKENS[0], TOKENS[1])]
    Discriminative {
        /// The kernel.
        kernel: &'static str,
        /// Nats below log L for few tokens.
        short: f64,
        /// Nats below log L for many.
        long: f64,
    },
    /// The weight of a key on a line through the query turns more than once: nothing can be read off it.
    #[error("{kernel}: no geometric ordering: along the line t * {query:?} the weight turns {turns} times")]
    Ordering {
        /// The kernel.
        kernel: &'static str,
        /// The query.
        query: Vec<f64>,
        /// How often it turns.
        turns: usize,
    },
}

const TOKENS: [usize; 2] = [64, 2048];
const DIMENSIONS: usize = 8;
const ROUNDS: u64 = 64;

/// Reproducible numbers in -1..1 (SplitMix64, Steele et al. 2014).
fn numbers(seed: u64, count: usize, scale: f64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let next = |_| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 * scale - scale
    };
    (0..count).map(next).collect()
}

/// Tests a kernel against the four rules of exact linear attention on some thousand reproducible inputs: exactly
/// decomposable, non-negative, discriminative, geometrically ordered.
///
/// # Errors
/// The first [`Violation`] found, with the inputs that show it.
pub fn check(kernel: &dyn Kernel) -> Result<(), Violation> {
    for seed in 0..ROUNDS {
        for scale in [0.1, 1.0, 3.0] {
            decomposable(kernel, seed, scale)?;
        }
        ordering(kernel, seed)?;
    }
    let [short, long] = TOKENS.map(|tokens| token_dilution(kernel, tokens));
    // Of keys drawn alike the weights' spread is a property of the kernel: it must neither vanish nor fade with length.
    if !(long > 1e-3 && long > 0.5 * short) {
        return Err(Violation::Discriminative { kernel: kernel.name(), short, long });
    }
    Ok(())
}

fn decomposable(kernel: &dyn Kernel, seed: u64, scale: f64) -> Result<(), Violation> {
    let tokens = 1 + seed as usize % 17;
    let (query, keys) = (numbers(2 * seed, DIMENSIONS, scale), numbers(2 * seed + 1, tokens * DIMENSIONS, scale));
    let values = numbers(seed + 1000, tokens, 1.0);
    let mut weights = vec![0.0; tokens];
    kernel.row(&query, &keys, &mut weights);
    let largest = weights.iter().fold(0.0f64, |largest, weight| largest.max(weight.abs()));
    for (&weight, key) in weights.iter().zip(keys.chunks_exact(DIMENSIONS)) {
        if weight.is_nan() || weight < -1e-12 * largest {
            return Err(Violation::NonNegative { kernel: kernel.name(), query, key: key.to_vec(), weight });
        }
    }
    let quadratic = quadratic(kernel, &query, &keys, &values, DIMENSIONS)[0];
    let linear = linear(kernel, &query, &keys, &values, DIMENSIONS)[0];
    // Relative to the values, which are at most 1.
    if (linear - quadratic).abs() < 1e-5 {
        return Ok(());
    }
    Err(Violation::Decomposable { kernel: kernel.name(), query, keys, linear, quadratic })
}

/// Mean over queries of `log L - H(weights)`: 0 when attention is the plain mean.
pub fn token_dilution(similarity: &dyn Similarity, tokens: usize) -> f64 {
    let keys = numbers(7, tokens * DIMENSIONS, 2.0);
    let mut weights = vec![0.0; tokens];
    let queries = numbers(8, 16 * DIMENSIONS, 2.0);
    let sharpness = queries.chunks_exact(DIMENSIONS).map(|query| {
        similarity.row(query, &keys, &mut weights);
        let total: f64 = weights.iter().sum();
        let shares = weights.iter().map(|weight| weight / total).filter(|share| *share > 0.0);
        (tokens as f64).ln() + shares.map(|share| share * share.ln()).sum::<f64>()
    });
    sharpness.sum::<f64>() / 16.0
}

/// Along `t * query`, t in -2..2, the weight falls and then rises, or the other way round, or does only one of them:
/// where a key stands on the line can be read off its weight.
fn ordering(kernel: &dyn Kernel, seed: u64) -> Result<(), Violation> {
    const STEPS: i32 = 80;
    let query = numbers(seed + 5000, DIMENSIONS, 1.5);
    let keys: Vec<f64> = (-STEPS..=STEPS)
        .flat_map(|step| query.iter().map(move |q| q * 2.0 * f64::from(step) / f64::from(STEPS)))
        .collect();
    let mut weights = vec![0.0; keys.len() / DIMENSIONS];
    kernel.row(&query, &keys, &mut weights);
    let slack = 1e-9 * weights.iter().copied().fold(0.0, f64::max);
    let mut directions: Vec<bool> =
        weights.windows(2).map(|pair| pair[1] - pair[0]).filter(|d| d.abs() > slack).map(|d| d > 0.0).collect();
    directions.dedup();
    let turns = directions.len().saturating_sub(1);
    if turns > 1 {
        return Err(Violation::Ordering { kernel: kernel.name(), query, turns });
    }
    Ok(())
}
