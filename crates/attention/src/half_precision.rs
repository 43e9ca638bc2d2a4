//! A variant for 16-bit floats, as GPUs compute: everything that is stored fits f16, whatever the inputs.

use half::f16;

/// Hadamard exp attention on f16 inputs: `queries` (Lq, D), `keys` (L, D), `values` (L, Dv) give (Lq, Dv).
///
/// Features lie in (0, 1]. The sums over tokens would leave f16 (65,504) after some thousand tokens, so what is stored
/// are means: `S_d / C_d`, which lies among the values, and `C_d / max C`, in (0, 1]. Both cancel exactly. Sums
/// themselves are accumulated in f32, as matrix units do.
///
/// # Panics
/// If the shapes do not fit together.
pub fn linear_f16(queries: &[f16], keys: &[f16], values: &[f16], dimensions: usize) -> Vec<f16> {
    let tokens = keys.len() / dimensions;
    assert!(tokens > 0 && values.len().is_multiple_of(tokens), "keys and values do not fit");
    let width = values.len() / tokens;
    let mut peak = vec![f16::MIN; dimensions];
    for key in keys.chunks_exact(dimensions) {
        peak.iter_mut().zip(key).for_each(|(peak, key)| *peak = peak.max(*key));
    }
    let (mut sums, mut counts) = (vec![0.0f32; dimensions * width], vec![0.0f32; dimensions]);
    for (key, value) in keys.chunks_exact(dimensions).zip(values.chunks_exact(width)) {
        for d in 0..dimensions {
            let psi = f16::from_f32((f32::from(key[d]) - f32::from(peak[d])).exp()).to_f32();
            counts[d] += psi;
            let line = &mut sums[d * width..][..width];
            line.iter_mut().zip(value).for_each(|(sum, value)| *sum += psi * f32::from(*value));
        }
    }
    let largest = counts.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    let means: Vec<f16> =
        sums.iter().enumerate().map(|(index, sum)| f16::from_f32(sum / counts[index / width])).collect();
    // log C joins the exponent of the query side: a product of two small f16 would lose its digits.
    let logs: Vec<f32> = counts.iter().map(|count| (count / largest).ln()).collect();
    let mut result = Vec::with_capacity(queries.len() / dimensions * width);
    for query in queries.chunks_exact(dimensions) {
        let exponent = |d: usize| f32::from(query[d]) + f32::from(peak[d]) + logs[d];
        let row = (0..dimensions).map(exponent).fold(f32::NEG_INFINITY, f32::max);
        let phi: Vec<f32> = (0..dimensions).map(|d| f16::from_f32((exponent(d) - row).exp()).to_f32()).collect();
        let total: f32 = phi.iter().sum();
        result.extend((0..width).map(|v| {
            let sum: f32 = phi.iter().enumerate().map(|(d, phi)| phi * means[d * width + v].to_f32()).sum();
            f16::from_f32(sum / total)
        }));
    }
    result
}
