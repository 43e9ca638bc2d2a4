//! The two forms of kernel attention: quadratic (the oracle) and linear. Both in f64; tokens are rows.

use super::kernel::{Kernel, Similarity};

/// Quadratic form: `queries` (Lq, D), `keys` (L, D), `values` (L, Dv), result (Lq, Dv). Where every weight of a row
/// is zero, as a distance kernel can have it, the result is the mean of the values.
pub fn quadratic(
    similarity: &dyn Similarity,
    queries: &[f64],
    keys: &[f64],
    values: &[f64],
    dimensions: usize,
) -> Vec<f64> {
    let tokens = keys.len() / dimensions;
    let width = values.len() / tokens;
    let mut weights = vec![0.0; tokens];
    let mut result = vec![0.0; queries.len() / dimensions * width];
    for (query, output) in queries.chunks_exact(dimensions).zip(result.chunks_exact_mut(width)) {
        similarity.row(query, keys, &mut weights);
        let total: f64 = weights.iter().sum();
        if total > 0.0 {
            weights.iter_mut().for_each(|weight| *weight /= total);
        } else {
            weights.fill(1.0 / tokens as f64);
        }
        for (weight, value) in weights.iter().zip(values.chunks_exact(width)) {
            output.iter_mut().zip(value).for_each(|(output, value)| *output += weight * value);
        }
    }
    result
}

/// Linear form of the same value: `S = sum_j psi(B_j) V_j^T` and `C = sum_j psi(B_j)` once, then one product a query.
pub fn linear(kernel: &dyn Kernel, queries: &[f64], keys: &[f64], values: &[f64], dimensions: usize) -> Vec<f64> {
    let tokens = keys.len() / dimensions;
    let width = values.len() / tokens;
    let count = kernel.features(dimensions);
    let mut peak = vec![f64::NEG_INFINITY; dimensions];
    for key in keys.chunks_exact(dimensions) {
        peak.iter_mut().zip(key).for_each(|(peak, key)| *peak = peak.max(*key));
    }
    let (mut sums, mut counts, mut features) = (vec![0.0; count * width], vec![0.0; count], vec![0.0; count]);
    for (key, value) in keys.chunks_exact(dimensions).zip(values.chunks_exact(width)) {
        kernel.psi(key, &peak, &mut features);
        for ((feature, sums), count) in features.iter().zip(sums.chunks_exact_mut(width)).zip(&mut counts) {
            *count += feature;
            sums.iter_mut().zip(value).for_each(|(sum, value)| *sum += feature * value);
        }
    }
    let mut result = vec![0.0; queries.len() / dimensions * width];
    for (query, output) in queries.chunks_exact(dimensions).zip(result.chunks_exact_mut(width)) {
        kernel.phi(query, &peak, &mut features);
        let total: f64 = features.iter().zip(&counts).map(|(feature, count)| feature * count).sum();
        if total > 0.0 {
            for (feature, sums) in features.iter().zip(sums.chunks_exact(width)) {
                output.iter_mut().zip(sums).for_each(|(output, sum)| *output += feature * sum / total);
            }
        } else {
            for value in values.chunks_exact(width) {
                output.iter_mut().zip(value).for_each(|(output, value)| *output += value / tokens as f64);
            }
        }
    }
    result
}

/// Hadamard exp attention in linear form as plain f32 loops: what a first translation of the formula gives, stable but
/// neither blocked nor vectorised by hand. `queries`, `keys` and `values` (L, width) give (L, width). A baseline.
pub fn naive_loops(queries: &[f32], keys: &[f32], values: &[f32], width: usize) -> Vec<f32> {
    let mut peak = vec![f32::MIN; width];
    for key in keys.chunks_exact(width) {
        peak.iter_mut().zip(key).for_each(|(peak, key)| *peak = peak.max(*key));
    }
    let (mut sums, mut counts) = (vec![0.0f32; width * width], vec![0.0f32; width]);
    for (key, value) in keys.chunks_exact(width).zip(values.chunks_exact(width)) {
        for d in 0..width {
            let psi = (key[d] - peak[d]).exp();
            counts[d] += psi;
            sums[d * width..][..width].iter_mut().zip(value).for_each(|(sum, value)| *sum += psi * value);
        }
    }
    let mut result = vec![0.0; queries.len()];
    for (query, result) in queries.chunks_exact(width).zip(result.chunks_exact_mut(width)) {
        let row = query.iter().zip(&peak).map(|(query, peak)| query + peak).fold(f32::MIN, f32::max);
        let mut total = 0.0;
        for d in 0..width {
            let phi = (query[d] + peak[d] - row).exp();
            total += phi * counts[d];
            result.iter_mut().zip(&sums[d * width..]).for_each(|(result, sum)| *result += phi * sum);
        }
        result.iter_mut().for_each(|result| *result /= total);
    }
    result
}
