//! Gradients of attention in linear form, analytic; and what the published evaluation makes of them in f32.

use super::kernel::{DiffDistance, HadamardExp, Kernel, ModulatedDot, SumDistance};

/// A kernel whose feature maps have derivatives.
pub trait Differentiable: Kernel {
    /// Adds to `d_query` (D) what `d_features` (F), the gradient with respect to `phi(query)`, means for the query.
    /// `features` are `phi(query)` without the positive factor that cancels; its derivative is not wanted either.
    fn pull_phi(&self, query: &[f64], features: &[f64], d_features: &[f64], d_query: &mut [f64]);

    /// Likewise for `psi(key)`.
    fn pull_psi(&self, key: &[f64], features: &[f64], d_features: &[f64], d_key: &mut [f64]);
}

/// The derivative of exp is exp; shifts cancel.
fn pull_exp(features: &[f64], d_features: &[f64], d_x: &mut [f64]) {
    for ((d_x, feature), d_feature) in d_x.iter_mut().zip(features).zip(d_features) {
        *d_x += feature * d_feature;
    }
}

/// `factor x` and `|x|^2`, the latter in place `norm`.
fn pull_square(factor: f64, norm: usize, x: &[f64], d_features: &[f64], d_x: &mut [f64]) {
    for ((d_x, x), d_feature) in d_x.iter_mut().zip(x).zip(d_features) {
        *d_x += factor * d_feature + 2.0 * x * d_features[norm];
    }
}

/// `m (x / |x|, 1)` with `m = 1` or `m = |x|^2 + 1`.
fn pull_direction(modulated: bool, x: &[f64], d_features: &[f64], d_x: &mut [f64]) {
    let dimensions = x.len();
    let square: f64 = x.iter().map(|x| x * x).sum();
    let norm = square.sqrt();
    if norm == 0.0 {
        return;
    }
    let factor = if modulated { square + 1.0 } else { 1.0 };
    let along: f64 = x.iter().zip(d_features).map(|(x, d)| x * d).sum::<f64>() / norm;
    for ((d_x, x), d_feature) in d_x.iter_mut().zip(x).zip(d_features) {
        *d_x += factor * (d_feature - x / norm * along) / norm;
        if modulated {
            *d_x += 2.0 * x * (along + d_features[dimensions]);
        }
    }
}

impl Differentiable for HadamardExp {
    fn pull_phi(&self, _: &[f64], features: &[f64], d_features: &[f64], d_query: &mut [f64]) {
        pull_exp(features, d_features, d_query);
    }

    fn pull_psi(&self, _: &[f64], features: &[f64], d_features: &[f64], d_key: &mut [f64]) {
        pull_exp(features, d_features, d_key);
    }
}

impl Differentiable for SumDistance {
    fn pull_phi(&self, query: &[f64], _: &[f64], d_features: &[f64], d_query: &mut [f64]) {
        pull_square(1.0, query.len(), query, d_features, d_query);
    }

    fn pull_psi(&self, key: &[f64], _: &[f64], d_features: &[f64], d_key: &mut [f64]) {
        pull_square(2.0, key.len() + 1, key, d_features, d_key);
    }
}

impl Differentiable for DiffDistance {
    fn pull_phi(&self, query: &[f64], _: &[f64], d_features: &[f64], d_query: &mut [f64]) {
        pull_square(1.0, query.len(), query, d_features, d_query);
    }

    fn pull_psi(&self, key: &[f64], _: &[f64], d_features: &[f64], d_key: &mut [f64]) {
        pull_square(-2.0, key.len() + 1, key, d_features, d_key);
    }
}

impl Differentiable for ModulatedDot {
    fn pull_phi(&self, query: &[f64], _: &[f64], d_features: &[f64], d_query: &mut [f64]) {
        pull_direction(false, query, d_features, d_query);
    }

    fn pull_psi(&self, key: &[f64], _: &[f64], d_features: &[f64], d_key: &mut [f64]) {
        pull_direction(true, key, d_features, d_key);
    }
}

/// Gradients of a scalar with respect to the inputs of attention.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// (Lq, D).
    pub queries: Vec<f64>,
    /// (L, D).
    pub keys: Vec<f64>,
    /// (L, Dv).
    pub values: Vec<f64>,
}

impl Gradients {
    /// Euclidean norm of all of them together.
    pub fn norm(&self) -> f64 {
        self.queries.iter().chain(&self.keys).chain(&self.values).map(|x| x * x).sum::<f64>().sqrt()
    }
}

/// Gradients in the stable linear form, cost linear in the tokens. `d_result` (Lq, Dv) is the gradient with respect to
/// the result. With `g = dY / Z` and `h = Y . g`:
///
/// ```text
/// dphi_i = S g_i - C h_i      dS = sum_i phi_i g_i^T      dC = - sum_i phi_i h_i
/// dpsi_j = dS V_j + dC        dV_j = dS^T psi_j
/// ```
///
/// A row without any weight is the mean of the values, and only they get a gradient from it.
pub fn gradients(
    kernel: &dyn Differentiable,
    queries: &[f64],
    keys: &[f64],
    values: &[f64],
    d_result: &[f64],
    dimensions: usize,
) -> Gradients {
    let tokens = keys.len() / dimensions;
    let width = values.len() / tokens;
    let count = kernel.features(dimensions);
    let mut peak = vec![f64::NEG_INFINITY; dimensions];
    for key in keys.chunks_exact(dimensions) {
        peak.iter_mut().zip(key).for_each(|(peak, key)| *peak = peak.max(*key));
    }
    let mut psi = vec![0.0; tokens * count];
    let (mut sums, mut counts) = (vec![0.0; count * width], vec![0.0; count]);
    for ((key, value), psi) in
        keys.chunks_exact(dimensions).zip(values.chunks_exact(width)).zip(psi.chunks_exact_mut(count))
    {
        kernel.psi(key, &peak, psi);
        for ((feature, sums), total) in psi.iter().zip(sums.chunks_exact_mut(width)).zip(&mut counts) {
            *total += feature;
            sums.iter_mut().zip(value).for_each(|(sum, value)| *sum += feature * value);
        }
    }
    let mut found =
        Gradients { queries: vec![0.0; queries.len()], keys: vec![0.0; keys.len()], values: vec![0.0; values.len()] };
    let (mut d_sums, mut d_counts) = (vec![0.0; count * width], vec![0.0; count]);
    let (mut phi, mut d_phi) = (vec![0.0; count], vec![0.0; count]);
    let rows = queries.chunks_exact(dimensions).zip(d_result.chunks_exact(width));
    for ((query, d_row), d_query) in rows.zip(found.queries.chunks_exact_mut(dimensions)) {
        kernel.phi(query, &peak, &mut phi);
        let total: f64 = phi.iter().zip(&counts).map(|(feature, count)| feature * count).sum();
        if total <= 0.0 {
            // The mean of the values, which depends on nothing else.
            for d_value in found.values.chunks_exact_mut(width) {
                d_value.iter_mut().zip(d_row).for_each(|(d_value, d)| *d_value += d / tokens as f64);
            }
            continue;
        }
        let g: Vec<f64> = d_row.iter().map(|d| d / total).collect();
        let h: f64 =
            (0..width).map(|v| (0..count).map(|f| phi[f] * sums[f * width + v]).sum::<f64>() / total * g[v]).sum();
        for f in 0..count {
            let line = &sums[f * width..][..width];
            d_phi[f] = line.iter().zip(&g).map(|(sum, g)| sum * g).sum::<f64>() - counts[f] * h;
            d_counts[f] -= phi[f] * h;
            d_sums[f * width..][..width].iter_mut().zip(&g).for_each(|(d_sum, g)| *d_sum += phi[f] * g);
        }
        kernel.pull_phi(query, &phi, &d_phi, d_query);
    }
    let mut d_psi = vec![0.0; count];
    for (token, psi) in psi.chunks_exact(count).enumerate() {
        let value = &values[token * width..][..width];
        for f in 0..count {
            let line = &d_sums[f * width..][..width];
            d_psi[f] = line.iter().zip(value).map(|(d_sum, value)| d_sum * value).sum::<f64>() + d_counts[f];
            let d_value = &mut found.values[token * width..][..width];
            d_value.iter_mut().zip(line).for_each(|(d_value, d_sum)| *d_value += psi[f] * d_sum);
        }
        let place = token * dimensions..(token + 1) * dimensions;
        kernel.pull_psi(&keys[place.clone()], psi, &d_psi, &mut found.keys[place]);
    }
    found
}

/// What the published code computes in f32: `exp` of the inputs as they are, the denominator held above 1e-8.
#[derive(Clone, Debug, PartialEq)]
pub struct Naive {
    /// The result (Lq, Dv).
    pub result: Vec<f32>,
    /// Smallest and largest denominator.
    pub denominators: (f32, f32),
    /// Norm of the gradients with respect to queries, keys and values, for a given gradient of the result.
    pub gradient_norm: f32,
}

/// Hadamard exp attention the naive way, in f32 throughout: overflows at 88.7. For comparison only.
pub fn naive(queries: &[f32], keys: &[f32], values: &[f32], d_result: &[f32], dimensions: usize) -> Naive {
    const LEAST: f32 = 1e-8;
    let width = values.len() / (keys.len() / dimensions);
    let exp = |x: &[f32]| -> Vec<f32> { x.iter().map(|x| x.exp()).collect() };
    let (phi, psi) = (exp(queries), exp(keys));
    let (mut sums, mut counts) = (vec![0.0f32; dimensions * width], vec![0.0f32; dimensions]);
    for (psi, value) in psi.chunks_exact(dimensions).zip(values.chunks_exact(width)) {
        for (d, psi) in psi.iter().enumerate() {
            counts[d] += psi;
            sums[d * width..][..width].iter_mut().zip(value).for_each(|(sum, value)| *sum += psi * value);
        }
    }
    let mut result = Vec::new();
    let mut denominators = (f32::INFINITY, f32::NEG_INFINITY);
    let (mut d_sums, mut d_counts) = (vec![0.0f32; dimensions * width], vec![0.0f32; dimensions]);
    let mut square = 0.0f32;
    for (phi, d_row) in phi.chunks_exact(dimensions).zip(d_result.chunks_exact(width)) {
        let total: f32 = phi.iter().zip(&counts).map(|(phi, count)| phi * count).sum::<f32>();
        let total = if total < LEAST { LEAST } else { total };
        denominators = (denominators.0.min(total), denominators.1.max(total));
        let row = (0..width).map(|v| (0..dimensions).map(|d| phi[d] * sums[d * width + v]).sum::<f32>() / total);
        let row: Vec<f32> = row.collect();
        let g: Vec<f32> = d_row.iter().map(|d| d / total).collect();
        let h: f32 = row.iter().zip(&g).map(|(y, g)| y * g).sum();
        for d in 0..dimensions {
            let line = &sums[d * width..][..width];
            let d_phi = line.iter().zip(&g).map(|(sum, g)| sum * g).sum::<f32>() - counts[d] * h;
            square += (d_phi * phi[d]).powi(2);
            d_counts[d] -= phi[d] * h;
            d_sums[d * width..][..width].iter_mut().zip(&g).for_each(|(d_sum, g)| *d_sum += phi[d] * g);
        }
        result.extend(row);
    }
    for (psi, value) in psi.chunks_exact(dimensions).zip(values.chunks_exact(width)) {
        for (d, psi) in psi.iter().enumerate() {
            let line = &d_sums[d * width..][..width];
            let d_psi = line.iter().zip(value).map(|(d_sum, value)| d_sum * value).sum::<f32>() + d_counts[d];
            square += (d_psi * psi).powi(2);
        }
        for v in 0..width {
            square += psi.iter().enumerate().map(|(d, psi)| psi * d_sums[d * width + v]).sum::<f32>().powi(2);
        }
    }
    Naive { result, denominators, gradient_norm: square.sqrt() }
}
