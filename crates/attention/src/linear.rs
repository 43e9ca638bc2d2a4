//! The linear form in f32: blocks of tokens, vectors, threads.

use super::kernel::{Kernel, Shift};
use super::parts::{for_each_chunk, map};
use super::rows::{Left, Rows, multiply_add};
use yolo_lat_simd::InstructionSet;

/// Tokens whose features are computed together: they stay in the first cache.
const BLOCK: usize = 128;
/// Tokens of one task: their sums are added up on their own, which also keeps rounding errors from piling up.
const TASK: usize = 1024;

/// `S = sum_j psi(B_j) V_j^T` and `C = sum_j psi(B_j)`, side by side: (F, stride), with C in column Dv.
pub(super) struct Sums {
    pub(super) values: Vec<f32>,
    pub(super) stride: usize,
}

impl Sums {
    pub(super) fn new(features: usize, width: usize) -> Self {
        // C, and zeros up to whole vectors.
        let stride = width + 16;
        Self { values: vec![0.0; features * stride], stride }
    }
}

/// One head of attention in linear form: `queries` (Lq, D), `keys` (L, D), `values` (L, Dv) give (Lq, Dv). Equal to
/// [`quadratic`](super::quadratic) up to rounding for every finite input; rows without any weight get the mean of the
/// values. With the feature `rayon` it runs on the threads of the current pool; the result does not depend on their number.
///
/// # Panics
/// If the shapes do not fit together, or there are queries but no keys.
pub fn linear_f32(kernel: &dyn Kernel, queries: Rows, keys: Rows, values: Rows) -> Vec<f32> {
    assert!(queries.width() == keys.width() && keys.len() == values.len(), "keys, queries and values do not fit");
    assert!(queries.is_empty() || !keys.is_empty(), "queries without keys");
    let result = linear_scaled(kernel, queries, keys, values, 1.0);
    if result.iter().all(|value| value.is_finite()) {
        return result;
    }
    // Sums of values near the limits of f32 left its range; those of scaled ones do not.
    const SMALL: f32 = 1.0 / (1u64 << 40) as f32;
    linear_scaled(kernel, queries, keys, values, SMALL)
}

fn linear_scaled(kernel: &dyn Kernel, queries: Rows, keys: Rows, values: Rows, scale: f32) -> Vec<f32> {
    let (dimensions, width) = (keys.width(), values.width());
    let features = kernel.features(dimensions);
    let shift = kernel.shift(keys);
    let sums = key_side(kernel, &shift, keys, values, scale);
    let mut result = vec![0.0; queries.len() * width];
    for_each_chunk(&mut result, BLOCK * width, |block, result| {
        let queries = queries.slice(block * BLOCK, (block * BLOCK + BLOCK).min(queries.len()));
        let rows = queries.len();
        let mut phi = vec![0.0; rows * features];
        kernel.phi_rows(queries, &shift, &mut phi);
        let mut products = vec![0.0; rows * sums.stride];
        let left = Left { values: &phi, row: features, depth: 1 };
        multiply_add(
            InstructionSet::best(),
            left,
            Rows::new(&sums.values, sums.stride),
            &mut products,
            sums.stride,
            rows,
        );
        for (product, result) in products.chunks_exact(sums.stride).zip(result.chunks_exact_mut(width)) {
            if product[width] > 0.0 {
                let factor = 1.0 / scale;
                result.iter_mut().zip(product).for_each(|(result, sum)| *result = sum / product[width] * factor);
            } else {
                mean(values, result);
            }
        }
    });
    result
}

/// Sums over all keys; those of a task in f32, those over tasks in f64, always in the same order.
fn key_side(kernel: &dyn Kernel, shift: &Shift, keys: Rows, values: Rows, scale: f32) -> Sums {
    let (width, features) = (values.width(), kernel.features(keys.width()));
    let task = |task: usize| {
        let end = (task * TASK + TASK).min(keys.len());
        let mut sums = Sums::new(features, width);
        let mut block_sums = Sums::new(features, width);
        let mut psi = vec![0.0; BLOCK * features];
        let mut scaled = Vec::new();
        for start in (task * TASK..end).step_by(BLOCK) {
            let (keys, values) =
                (keys.slice(start, (start + BLOCK).min(end)), values.slice(start, (start + BLOCK).min(end)));
            let psi = &mut psi[..keys.len() * features];
            kernel.psi_rows(keys, shift, psi);
            let values = if scale == 1.0 {
                values
            } else {
                scaled.clear();
                scaled.extend(values.iter().flatten().map(|value| value * scale));
                Rows::new(&scaled, width)
            };
            block_sums.values.fill(0.0);
            add_keys(psi, values, &mut block_sums);
            sums.values.iter_mut().zip(&block_sums.values).for_each(|(sum, block)| *sum += block);
        }
        sums.values
    };
    let parts: Vec<Vec<f32>> = map(keys.len().div_ceil(TASK), task);
    let mut total = Sums::new(features, width);
    for (index, total) in total.values.iter_mut().enumerate() {
        *total = parts.iter().map(|part| f64::from(part[index])).sum::<f64>() as f32;
    }
    total
}

/// Adds keys with the features `psi` (tokens, F) to the sums.
pub(super) fn add_keys(psi: &[f32], values: Rows, sums: &mut Sums) {
    let (stride, width) = (sums.stride, values.width());
    let features = sums.values.len() / stride;
    let left = Left { values: psi, row: 1, depth: features };
    multiply_add(InstructionSet::best(), left, values, &mut sums.values, stride, features);
    for psi in psi.chunks_exact(features) {
        for (sums, psi) in sums.values.chunks_exact_mut(stride).zip(psi) {
            sums[width] += psi;
        }
    }
}

/// Mean of all values.
fn mean(values: Rows, result: &mut [f32]) {
    for (column, result) in result.iter_mut().enumerate() {
        let sum: f64 = values.iter().map(|row| f64::from(row[column])).sum();
        *result = (sum / values.len() as f64) as f32;
    }
}

/// Multi-head attention: `queries` (Lq, heads * D), `keys` (L, heads * D), `values` (L, heads * Dv) give
/// (Lq, heads * Dv); heads are independent. `attend` computes one head, for example
/// `|q, k, v| linear_f32(&HadamardExp, q, k, v)`.
///
/// # Panics
/// If the shapes do not fit together.
pub fn multi_head(
    heads: usize,
    [queries, keys, values]: [&[f32]; 3],
    [dimensions, width]: [usize; 2],
    attend: impl Fn(Rows, Rows, Rows) -> Vec<f32> + Sync,
) -> Vec<f32> {
    let head = |head: usize| {
        attend(
            Rows::head(queries, heads, head, dimensions),
            Rows::head(keys, heads, head, dimensions),
            Rows::head(values, heads, head, width),
        )
    };
    let parts: Vec<Vec<f32>> = map(heads, head);
    let mut result = vec![0.0; queries.len() / dimensions * width];
    for (row, result) in result.chunks_exact_mut(heads * width).enumerate() {
        for (part, result) in parts.iter().zip(result.chunks_exact_mut(width)) {
            result.copy_from_slice(&part[row * width..][..width]);
        }
    }
    result
}
