//! Kernels: how much a query attends to a key, and the feature maps that split this exactly.

/// Anything that weighs keys for a query. Enough for the quadratic form.
pub trait Similarity: Sync {
    /// The field's name for it.
    fn name(&self) -> &'static str;

    /// Weights of all `keys` (L, D) for one `query` (D), into `weights` (L): non-negative, and correct up to a
    /// positive factor common to the row, which the normalisation cancels. An implementation uses that freedom
    /// to avoid overflow.
    fn row(&self, query: &[f64], keys: &[f64], weights: &mut [f64]);
}

/// A similarity that splits exactly: `k(a, b) = phi(a) . psi(b)`.
pub trait Kernel: Similarity {
    /// Number of features F of `phi` and `psi` for vectors of `dimensions` values.
    fn features(&self, dimensions: usize) -> usize;

    /// Feature map of a query. `peak` (D) is the maximum of the keys in each dimension.
    fn phi(&self, query: &[f64], peak: &[f64], features: &mut [f64]);

    /// Feature map of a key, likewise.
    fn psi(&self, key: &[f64], peak: &[f64], features: &mut [f64]);
}

/// `k(a, b) = sum_d exp(a_d) exp(b_d)`: co-activation of features.
#[derive(Clone, Copy, Debug, Default)]
pub struct HadamardExp;

/// `k(a, b) = |a + b|^2`: prefers keys aligned with the query.
#[derive(Clone, Copy, Debug, Default)]
pub struct SumDistance;

/// `k(a, b) = |a - b|^2`: prefers keys opposed to the query.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiffDistance;

/// `k(a, b) = exp(a . b)`: the customary attention, which has no finite feature map.
#[derive(Clone, Copy, Debug, Default)]
pub struct Softmax;

impl Similarity for HadamardExp {
    fn name(&self) -> &'static str {
        "hadamard_exp"
    }

    fn row(&self, query: &[f64], keys: &[f64], weights: &mut [f64]) {
        let exponents = || keys.iter().zip(query.iter().cycle()).map(|(key, query)| key + query);
        let peak = exponents().fold(f64::NEG_INFINITY, f64::max);
        for (weight, key) in weights.iter_mut().zip(keys.chunks_exact(query.len())) {
            *weight = key.iter().zip(query).map(|(key, query)| (key + query - peak).exp()).sum();
        }
    }
}

impl Kernel for HadamardExp {
    fn features(&self, dimensions: usize) -> usize {
        dimensions
    }

    /// `exp(a_d + m_d - r)` with `r = max_d (a_d + m_d)`: in (0, 1], one of them 1. The factor `exp(-r)` belongs
    /// to the whole row and cancels.
    fn phi(&self, query: &[f64], peak: &[f64], features: &mut [f64]) {
        let row = query.iter().zip(peak).map(|(query, peak)| query + peak).fold(f64::NEG_INFINITY, f64::max);
        for ((feature, query), peak) in features.iter_mut().zip(query).zip(peak) {
            *feature = (query + peak - row).exp();
        }
    }

    /// `exp(b_d - m_d)`: in (0, 1], and 1 for the key that has the maximum of its dimension.
    fn psi(&self, key: &[f64], peak: &[f64], features: &mut [f64]) {
        for ((feature, key), peak) in features.iter_mut().zip(key).zip(peak) {
            *feature = (key - peak).exp();
        }
    }
}

/// Both distance kernels; `sign` is +1 for `|a + b|^2`, -1 for `|a - b|^2`.
fn distance_row(sign: f64, query: &[f64], keys: &[f64], weights: &mut [f64]) {
    for (weight, key) in weights.iter_mut().zip(keys.chunks_exact(query.len())) {
        *weight = query.iter().zip(key).map(|(query, key)| (query + sign * key).powi(2)).sum();
    }
}

/// `(a, |a|^2, 1)`.
fn distance_phi(query: &[f64], features: &mut [f64]) {
    let dimensions = query.len();
    features[..dimensions].copy_from_slice(query);
    features[dimensions] = query.iter().map(|a| a * a).sum();
    features[dimensions + 1] = 1.0;
}

/// `(2 sign b, 1, |b|^2)`.
fn distance_psi(sign: f64, key: &[f64], features: &mut [f64]) {
    let dimensions = key.len();
    for (feature, key) in features.iter_mut().zip(key) {
        *feature = 2.0 * sign * key;
    }
    features[dimensions] = 1.0;
    features[dimensions + 1] = key.iter().map(|b| b * b).sum();
}

impl Similarity for SumDistance {
    fn name(&self) -> &'static str {
        "sum_distance"
    }

    fn row(&self, query: &[f64], keys: &[f64], weights: &mut [f64]) {
        distance_row(1.0, query, keys, weights);
    }
}

impl Kernel for SumDistance {
    fn features(&self, dimensions: usize) -> usize {
        dimensions + 2
    }

    fn phi(&self, query: &[f64], _: &[f64], features: &mut [f64]) {
        distance_phi(query, features);
    }

    fn psi(&self, key: &[f64], _: &[f64], features: &mut [f64]) {
        distance_psi(1.0, key, features);
    }
}

impl Similarity for DiffDistance {
    fn name(&self) -> &'static str {
        "diff_distance"
    }

    fn row(&self, query: &[f64], keys: &[f64], weights: &mut [f64]) {
        distance_row(-1.0, query, keys, weights);
    }
}

impl Kernel for DiffDistance {
    fn features(&self, dimensions: usize) -> usize {
        dimensions + 2
    }

    fn phi(&self, query: &[f64], _: &[f64], features: &mut [f64]) {
        distance_phi(query, features);
    }

    fn psi(&self, key: &[f64], _: &[f64], features: &mut [f64]) {
        distance_psi(-1.0, key, features);
    }
}

impl Similarity for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn row(&self, query: &[f64], keys: &[f64], weights: &mut [f64]) {
        for (weight, key) in weights.iter_mut().zip(keys.chunks_exact(query.len())) {
            *weight = query.iter().zip(key).map(|(query, key)| query * key).sum();
        }
        let peak = weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        weights.iter_mut().for_each(|weight| *weight = (*weight - peak).exp());
    }
}
