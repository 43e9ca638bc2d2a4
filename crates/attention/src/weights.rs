//! The weights themselves, which linear attention never forms: for people to look at.

use ndarray::{Array2, ArrayView3, Axis};

use super::Similarity;

/// Weights w_ij = k(q_i, k_j) / sum_j k(q_i, k_j) of one query on every position, (heads, rows * columns), each row of sum 1.
/// `queries_keys_values` (3 * width, rows, columns) is what `Op::Attention` of the graph reads; `query`
/// is (row, column). A row without any weight is spread evenly, as its result is the mean of the values.
pub fn attention_weights(
    similarity: &dyn Similarity,
    queries_keys_values: ArrayView3<f32>,
    heads: usize,
    query: (usize, usize),
) -> Array2<f64> {
    let (channels, rows, columns) = queries_keys_values.dim();
    let width = channels / 3;
    let head_width = width / heads;
    let tokens = rows * columns;
    let scale = (head_width as f64).powf(-0.25);
    let value = |channel: usize, token: usize| {
        scale * f64::from(queries_keys_values[(channel, token / columns, token % columns)])
    };
    let mut weights = Array2::zeros((heads, tokens));
    let mut keys = vec![0.0; tokens * head_width];
    for (head, mut row) in weights.outer_iter_mut().enumerate() {
        let first = head * head_width;
        let of_query: Vec<f64> = (0..head_width).map(|d| value(first + d, query.0 * columns + query.1)).collect();
        for (token, key) in keys.chunks_exact_mut(head_width).enumerate() {
            key.iter_mut().enumerate().for_each(|(d, target)| *target = value(width + first + d, token));
        }
        let mut unscaled = vec![0.0; tokens];
        similarity.row(&of_query, &keys, &mut unscaled);
        let total: f64 = unscaled.iter().sum();
        let even = 1.0 / tokens as f64;
        row.iter_mut().zip(unscaled).for_each(|(weight, x)| *weight = if total > 0.0 { x / total } else { even });
    }
    weights
}

/// Mean of all heads, (rows * columns).
pub fn mean_of_heads(weights: &Array2<f64>) -> Vec<f64> {
    weights.mean_axis(Axis(0)).map(|mean| mean.to_vec()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Array3, s};

    use super::*;
    use crate::{DiffDistance, HadamardExp, Softmax, SumDistance, quadratic};

    /// The weights, applied to the values, are the quadratic form's result: the overlay shows what the network computes.
    #[test]
    fn weights_times_values_are_the_quadratic_form() {
        let (heads, head_width, rows, columns) = (4, 16, 5, 7);
        let width = heads * head_width;
        let qkv = Array3::from_shape_fn((3 * width, rows, columns), |(c, y, x)| {
            ((c * 37 + y * 11 + x * 5) as f32 * 0.7).sin() * 3.0
        });
        let scale = (head_width as f64).powf(-0.25);
        let similarities: [&dyn Similarity; 4] = [&HadamardExp, &SumDistance, &DiffDistance, &Softmax];
        for similarity in similarities {
            for head in 0..heads {
                let part = |index: usize, scale: f64| -> Array2<f64> {
                    let first = index * width + head * head_width;
                    let planes = qkv.slice(s![first..first + head_width, .., ..]);
                    Array2::from_shape_fn((rows * columns, head_width), |(token, d)| {
                        scale * f64::from(planes[(d, token / columns, token % columns)])
                    })
                };
                let (q, k, v) = (part(0, scale), part(1, scale), part(2, 1.0));
                let flat = |array: &Array2<f64>| array.iter().copied().collect::<Vec<_>>();
                let expected = quadratic(similarity, &flat(&q), &flat(&k), &flat(&v), head_width);
                for query in [(0, 0), (4, 6), (2, 3)] {
                    let weights = attention_weights(similarity, qkv.view(), heads, query);
                    let row = weights.row(head);
                    assert!((row.sum() - 1.0).abs() < 1e-12);
                    for d in 0..head_width {
                        let found: f64 = row.iter().zip(v.column(d)).map(|(w, v)| w * v).sum();
                        let expected = expected[(query.0 * columns + query.1) * head_width + d];
                        assert!((found - expected).abs() < 1e-9, "{}: {found}, {expected}", similarity.name());
                    }
                }
            }
        }
    }
}
