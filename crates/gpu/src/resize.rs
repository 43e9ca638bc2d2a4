//! Weights of the antialiased resize, as integers: the same numbers that the CPU's resizer computes, so that every engine
//! sees the same image.

/// Bits of a weight at most, and of what they are kept below: 16-bit weights, 32-bit sums.
const MOST_BITS: u32 = 22;
const WEIGHT_BITS: u32 = 15;

/// How one side of an image is resized.
pub(super) struct Taps {
    /// Bits behind the point of a weight: as many as keep the largest below 2^15.
    pub(super) bits: u32,
    /// For each output pixel: its first input pixel, and where its weights begin and end in this table. The weights follow.
    pub(super) table: Vec<i32>,
}

impl Taps {
    /// Words of the table for each output pixel.
    const HEAD: usize = 3;

    /// From `input` to `output` pixels: each output pixel is the mean of the input pixels under a triangle as wide as two
    /// output pixels, or two input pixels where it grows.
    pub(super) fn new(input: u32, output: u32) -> Self {
        let scale = f64::from(input) / f64::from(output);
        let reach = scale.max(1.0);
        // As the CPU's resizer does, so that rounding is the same.
        let inverse = 1.0 / reach;
        let rows: Vec<(u32, Vec<f64>)> = (0..output)
            .map(|at| {
                let center = (f64::from(at) + 0.5) * scale;
                let first = (center - reach).floor().max(0.0) as u32;
                let end = (center + reach).ceil().min(f64::from(input)) as u32;
                let weight = |x: u32| (1.0 - ((f64::from(x) - (center - 0.5)) * inverse).abs()).max(0.0);
                let first = (first..end).find(|&x| weight(x) != 0.0).unwrap_or(first);
                let mut weights: Vec<f64> = (first..end).map(weight).collect();
                let total: f64 = weights.iter().sum();
                if total != 0.0 {
                    weights.iter_mut().for_each(|weight| *weight /= total);
                }
                (first, weights)
            })
            .collect();
        let largest = rows.iter().flat_map(|(_, weights)| weights).copied().fold(0.0, f64::max);
        let too_large = |bits: u32| (largest * f64::from(1u32 << (bits + 1))).round() >= f64::from(1 << WEIGHT_BITS);
        let bits = (0..MOST_BITS).find(|&bits| too_large(bits)).unwrap_or(MOST_BITS - 1);
        let mut table = vec![0; Self::HEAD * rows.len()];
        for (at, (first, weights)) in rows.iter().enumerate() {
            let begin = table.len();
            table.extend(weights.iter().map(|weight| (weight * f64::from(1u32 << bits)).round() as i32));
            let head = [*first as i32, begin as i32, table.len() as i32];
            table[Self::HEAD * at..Self::HEAD * (at + 1)].copy_from_slice(&head);
        }
        Self { bits, table }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_add_up_and_stay_inside() {
        for (input, output) in [(1, 1), (1, 320), (320, 1), (640, 320), (333, 320), (320, 320), (65_535, 64), (7, 5)] {
            let Taps { bits, table } = Taps::new(input, output);
            for at in 0..output as usize {
                let [first, begin, end] = *table[3 * at..].first_chunk().unwrap();
                let weights = &table[begin as usize..end as usize];
                assert!(first >= 0 && first + weights.len() as i32 <= input as i32);
                let sum: i32 = weights.iter().sum();
                // Each is rounded by half a step at most.
                assert!((sum - (1 << bits)).unsigned_abs() as usize <= weights.len().div_ceil(2), "{input} {output}");
            }
        }
    }
}
