//! Kernels: how much a query attends to a key, and the feature maps that split this exactly.

use serde::{Deserialize, Serialize};

use super::rows::{Rows, exp_in_place};
use yolo_lat_simd::{InstructionSet, Simd, Work, dispatch};

/// Anything that weighs keys for a query. Enough for the quadratic form.
pub trait Similarity: Sync {
    /// The field's name for it.
    fn name(&self) -> &'static str;

    /// Weights of all `keys` (L, D) for one `query` (D), into `weights` (L): non-negative, and correct up to a
    /// positive factor common to the row, which the normalisation cancels. An implementation uses that freedom
    /// to avoid overflow.
    fn row(&self, query: &[f64], keys: &[f64], weights: &mut [f64]);
}

/// What the feature maps of all keys of a head share. It cancels in the result, and keeps every intermediate in range.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shift {
    /// Maximum of the keys in each dimension (D), or empty if the kernel needs none.
    pub peak: Vec<f32>,
    /// Mean of the keys (D), or empty for the origin.
    pub center: Vec<f32>,
    /// Size of the keys, a power of two; 0 before the first.
    pub radius: f32,
}

/// A similarity that splits exactly: `k(a, b) = phi(a) . psi(b)`.
///
/// A kernel of your own needs the first three methods, in f64; the others have defaults that are right for kernels
/// whose feature maps ignore `peak`, and exist for speed and for inputs near the limits of f32.
pub trait Kernel: Similarity {
    /// Number of features F of `phi` and `psi` for vectors of `dimensions` values.
    fn features(&self, dimensions: usize) -> usize;

    /// Feature map of a query. `peak` (D) is the maximum of the keys in each dimension.
    fn phi(&self, query: &[f64], peak: &[f64], features: &mut [f64]);

    /// Feature map of a key, likewise.
    fn psi(&self, key: &[f64], peak: &[f64], features: &mut [f64]);

    /// The shift for keys that are all known.
    fn shift(&self, _keys: Rows) -> Shift {
        Shift::default()
    }

    /// The shift after one more key of a sequence, or `None` if it stays the same.
    fn extend(&self, _shift: &Shift, _key: &[f32]) -> Option<Shift> {
        None
    }

    /// The shift of two sequences together.
    fn join(&self, a: &Shift, _b: &Shift) -> Shift {
        a.clone()
    }

    /// What each feature of a key (F) is multiplied by when its shift changes from `from` to `to`.
    fn factors(&self, _from: &Shift, _to: &Shift, factors: &mut [f32]) {
        factors.fill(1.0);
    }

    /// Feature maps of many queries: `features` (rows, F), each row up to a positive factor, which cancels.
    fn phi_rows(&self, queries: Rows, _shift: &Shift, features: &mut [f32]) {
        convert_rows(queries, features, |query, features| self.phi(query, &vec![0.0; query.len()], features));
    }

    /// Feature maps of many keys, likewise but without that freedom.
    fn psi_rows(&self, keys: Rows, _shift: &Shift, features: &mut [f32]) {
        convert_rows(keys, features, |key, features| self.psi(key, &vec![0.0; key.len()], features));
    }
}

/// Feature maps in f64, rounded.
fn convert_rows(rows: Rows, features: &mut [f32], map: impl Fn(&[f64], &mut [f64])) {
    let count = features.len() / rows.len().max(1);
    let mut wide = vec![0.0; count];
    for (row, features) in rows.iter().zip(features.chunks_exact_mut(count.max(1))) {
        let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
        map(&row, &mut wide);
        features.iter_mut().zip(&wide).for_each(|(feature, &wide)| *feature = wide as f32);
    }
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

/// `k(a, b) = (cos(a, b) + 1) (|a|^2 + 1) (|b|^2 + 1)`: direction and magnitude. The cosine with a zero vector is 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct ModulatedDot;

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

    fn shift(&self, keys: Rows) -> Shift {
        let mut peak = vec![f32::MIN; keys.width()];
        for key in keys.iter() {
            peak.iter_mut().zip(key).for_each(|(peak, key)| *peak = peak.max(*key));
        }
        Shift { peak, ..Shift::default() }
    }

    fn extend(&self, shift: &Shift, key: &[f32]) -> Option<Shift> {
        if !shift.peak.is_empty() && key.iter().zip(&shift.peak).all(|(key, peak)| key <= peak) {
            return None;
        }
        Some(self.join(shift, &Shift { peak: key.to_vec(), ..Shift::default() }))
    }

    fn join(&self, a: &Shift, b: &Shift) -> Shift {
        let peak = match (a.peak.is_empty(), b.peak.is_empty()) {
            (true, _) => b.peak.clone(),
            (_, true) => a.peak.clone(),
            _ => a.peak.iter().zip(&b.peak).map(|(a, b)| a.max(*b)).collect(),
        };
        Shift { peak, ..Shift::default() }
    }

    /// `exp(m_old - m_new)`, as in online softmax.
    fn factors(&self, from: &Shift, to: &Shift, factors: &mut [f32]) {
        for ((factor, from), to) in factors.iter_mut().zip(&from.peak).zip(&to.peak) {
            *factor = (from - to).exp();
        }
    }

    fn phi_rows(&self, queries: Rows, shift: &Shift, features: &mut [f32]) {
        let set = InstructionSet::best();
        // SAFETY: sets come from `InstructionSet::available`.
        unsafe { dispatch(set, QueryExponents { queries, peak: &shift.peak, features }) };
        exp_in_place(set, features);
    }

    fn psi_rows(&self, keys: Rows, shift: &Shift, features: &mut [f32]) {
        let set = InstructionSet::best();
        // SAFETY: sets come from `InstructionSet::available`.
        unsafe { dispatch(set, KeyExponents { keys, peak: &shift.peak, features }) };
        exp_in_place(set, features);
    }
}

/// `a_d + m_d - r` with `r = max_d (a_d + m_d)`. The sum of two large numbers loses digits that the exponent needs, so
/// its rounding error is carried along (Knuth's TwoSum); in halves, since the sum may leave the range of f32.
struct QueryExponents<'a> {
    queries: Rows<'a>,
    peak: &'a [f32],
    features: &'a mut [f32],
}

impl Work for QueryExponents<'_> {
    // Plain loops: compiled for each instruction set, they become its vectors.
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let width = self.queries.width();
        let (mut errors, mut losses) = (vec![0.0f32; width], vec![0.0f32; width]);
        for (query, features) in self.queries.iter().zip(self.features.chunks_exact_mut(width)) {
            let terms = query.iter().zip(self.peak);
            for ((feature, error), (query, peak)) in features.iter_mut().zip(&mut errors).zip(terms) {
                let (a, m) = (0.5 * query, 0.5 * peak);
                let sum = a + m;
                let part = sum - a;
                *error = (a - (sum - part)) + (m - part);
                *feature = sum;
            }
            // Rounding keeps the order, so the greatest sum is among the greatest rounded ones: the one that lost most.
            let row = highest(features);
            let sums = features.iter().zip(&errors);
            for (loss, (&sum, &error)) in losses.iter_mut().zip(sums) {
                *loss = if sum == row { error } else { f32::NEG_INFINITY };
            }
            let lost = highest(&losses);
            for (feature, error) in features.iter_mut().zip(&errors) {
                *feature = 2.0 * ((*feature - row) + (error - lost));
            }
        }
    }
}

/// `b_d - m_d`.
struct KeyExponents<'a> {
    keys: Rows<'a>,
    peak: &'a [f32],
    features: &'a mut [f32],
}

impl Work for KeyExponents<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (key, features) in self.keys.iter().zip(self.features.chunks_exact_mut(self.keys.width())) {
            for ((feature, key), peak) in features.iter_mut().zip(key).zip(self.peak) {
                *feature = key - peak;
            }
        }
    }
}

/// Maximum, in sixteen lanes that the compiler turns into vectors.
#[inline(always)]
pub(super) fn highest(values: &[f32]) -> f32 {
    let (whole, rest) = values.as_chunks::<16>();
    let lanes = whole.iter().fold([f32::NEG_INFINITY; 16], |mut lanes, values| {
        lanes.iter_mut().zip(values).for_each(|(lane, value)| *lane = if value > lane { *value } else { *lane });
        lanes
    });
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |peak, &value| if value > peak { value } else { peak })
}

/// Both distance kernels; `sign` is +1 for `|a + b|^2`, -1 for `|a - b|^2`.
fn distance_row(sign: f64, query: &[f64], keys: &[f64], weights: &mut [f64]) {
    for (weight, key) in weights.iter_mut().zip(keys.chunks_exact(query.len())) {
        *weight = query.iter().zip(key).map(|(query, key)| (query + sign * key).powi(2)).sum();
    }
}

/// Largest absolute value of `x - center`, in halves so that no difference overflows, as a power of two.
fn radius(x: &[f32], center: &[f32]) -> f32 {
    let center = center.iter().copied().chain(std::iter::repeat(0.0));
    let largest = x.iter().zip(center).fold(0.0f32, |peak, (x, c)| peak.max((0.5 * x - 0.5 * c).abs()));
    if largest == 0.0 { 0.0 } else { 2.0f32.powi((f64::from(largest).log2().ceil() as i32).clamp(-120, 127)) }
}

/// Centre and radius of all keys. The distance between a query and a key does not change when both move.
fn distance_shift(keys: Rows) -> Shift {
    let mut sums = vec![0.0f64; keys.width()];
    for key in keys.iter() {
        sums.iter_mut().zip(key).for_each(|(sum, &key)| *sum += f64::from(key));
    }
    let center: Vec<f32> = sums.iter().map(|sum| (sum / keys.len().max(1) as f64) as f32).collect();
    let radius = keys.iter().map(|key| radius(key, &center)).fold(0.0, f32::max);
    Shift { center, radius, ..Shift::default() }
}

fn radius_extend(shift: &Shift, key: &[f32]) -> Option<Shift> {
    let radius = radius(key, &shift.center);
    (radius > shift.radius).then(|| Shift { radius, ..shift.clone() })
}

fn radius_join(a: &Shift, b: &Shift) -> Shift {
    Shift { radius: a.radius.max(b.radius), ..a.clone() }
}

/// Features of a key are in units of the radius, its square, and none.
fn distance_factors(from: &Shift, to: &Shift, factors: &mut [f32]) {
    let ratio = if to.radius > 0.0 { from.radius / to.radius } else { 1.0 };
    let dimensions = factors.len() - 2;
    factors[..dimensions].fill(ratio);
    factors[dimensions] = 1.0;
    factors[dimensions + 1] = ratio * ratio;
}

/// `(b/R, 1, |b|^2/R^2)` with `2 sign` on the first part; b is half the difference from the centre.
fn distance_psi_rows(sign: f32, keys: Rows, shift: &Shift, features: &mut [f32]) {
    let dimensions = keys.width();
    let scale = if shift.radius > 0.0 { 1.0 / shift.radius } else { 0.0 };
    for (key, features) in keys.iter().zip(features.chunks_exact_mut(dimensions + 2)) {
        let mut norm = 0.0;
        for (index, (feature, key)) in features.iter_mut().zip(key).enumerate() {
            let b = (0.5 * key - 0.5 * shift.center.get(index).unwrap_or(&0.0)) * scale;
            norm += b * b;
            *feature = 2.0 * sign * b;
        }
        features[dimensions] = 1.0;
        features[dimensions + 1] = norm;
    }
}

/// `(a R, |a|^2, R^2)` over the square of the larger of R and |a|: nothing leaves 0..D.
fn distance_phi_rows(sign: f32, queries: Rows, shift: &Shift, features: &mut [f32]) {
    let dimensions = queries.width();
    for (query, features) in queries.iter().zip(features.chunks_exact_mut(dimensions + 2)) {
        for (index, (feature, query)) in features.iter_mut().zip(query).enumerate() {
            // |a + b| = |(a + c) + (b - c)|, |a - b| = |(a - c) - (b - c)|
            *feature = 0.5 * query + sign * 0.5 * shift.center.get(index).unwrap_or(&0.0);
        }
        let largest = radius(&features[..dimensions], &[]) * 2.0;
        let unit = largest.min(f32::MAX).max(shift.radius).max(f32::MIN_POSITIVE);
        let ratio = shift.radius / unit;
        let mut norm = 0.0;
        for feature in &mut features[..dimensions] {
            let a = *feature / unit;
            norm += a * a;
            *feature = a * ratio;
        }
        features[dimensions] = norm;
        features[dimensions + 1] = ratio * ratio;
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

    fn shift(&self, keys: Rows) -> Shift {
        distance_shift(keys)
    }

    fn extend(&self, shift: &Shift, key: &[f32]) -> Option<Shift> {
        radius_extend(shift, key)
    }

    fn join(&self, a: &Shift, b: &Shift) -> Shift {
        radius_join(a, b)
    }

    fn factors(&self, from: &Shift, to: &Shift, factors: &mut [f32]) {
        distance_factors(from, to, factors);
    }

    fn phi_rows(&self, queries: Rows, shift: &Shift, features: &mut [f32]) {
        distance_phi_rows(1.0, queries, shift, features);
    }

    fn psi_rows(&self, keys: Rows, shift: &Shift, features: &mut [f32]) {
        distance_psi_rows(1.0, keys, shift, features);
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

    fn shift(&self, keys: Rows) -> Shift {
        distance_shift(keys)
    }

    fn extend(&self, shift: &Shift, key: &[f32]) -> Option<Shift> {
        radius_extend(shift, key)
    }

    fn join(&self, a: &Shift, b: &Shift) -> Shift {
        radius_join(a, b)
    }

    fn factors(&self, from: &Shift, to: &Shift, factors: &mut [f32]) {
        distance_factors(from, to, factors);
    }

    fn phi_rows(&self, queries: Rows, shift: &Shift, features: &mut [f32]) {
        distance_phi_rows(-1.0, queries, shift, features);
    }

    fn psi_rows(&self, keys: Rows, shift: &Shift, features: &mut [f32]) {
        distance_psi_rows(-1.0, keys, shift, features);
    }
}

fn square(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum()
}

/// `factor (x / |x|, 1)`.
fn direction(x: &[f64], factor: f64, features: &mut [f64]) {
    let norm = square(x).sqrt();
    for (feature, x) in features.iter_mut().zip(x) {
        *feature = if norm > 0.0 { factor * x / norm } else { 0.0 };
    }
    features[x.len()] = factor;
}

impl Similarity for ModulatedDot {
    fn name(&self) -> &'static str {
        "modulated_dot"
    }

    fn row(&self, query: &[f64], keys: &[f64], weights: &mut [f64]) {
        let length = square(query).sqrt();
        for (weight, key) in weights.iter_mut().zip(keys.chunks_exact(query.len())) {
            let dot: f64 = query.iter().zip(key).map(|(query, key)| query * key).sum();
            let lengths = length * square(key).sqrt();
            let cosine = if lengths > 0.0 { (dot / lengths).clamp(-1.0, 1.0) } else { 0.0 };
            // |a|^2 + 1 belongs to the whole row and cancels.
            *weight = (cosine + 1.0) * (square(key) + 1.0);
        }
    }
}

impl Kernel for ModulatedDot {
    fn features(&self, dimensions: usize) -> usize {
        dimensions + 1
    }

    /// `(a / |a|, 1)`; the factor `|a|^2 + 1` cancels.
    fn phi(&self, query: &[f64], _: &[f64], features: &mut [f64]) {
        direction(query, 1.0, features);
    }

    /// `(|b|^2 + 1) (b / |b|, 1)`.
    fn psi(&self, key: &[f64], _: &[f64], features: &mut [f64]) {
        direction(key, square(key) + 1.0, features);
    }

    fn shift(&self, keys: Rows) -> Shift {
        let radius = keys.iter().map(|key| radius(key, &[])).fold(1.0, f32::max);
        Shift { radius, ..Shift::default() }
    }

    fn extend(&self, shift: &Shift, key: &[f32]) -> Option<Shift> {
        let radius = radius(key, &[]).max(1.0);
        (radius > shift.radius).then(|| Shift { radius, ..Shift::default() })
    }

    fn join(&self, a: &Shift, b: &Shift) -> Shift {
        radius_join(a, b)
    }

    fn factors(&self, from: &Shift, to: &Shift, factors: &mut [f32]) {
        factors.fill((from.radius / to.radius).powi(2));
    }

    /// As [`Kernel::psi`], over the square of the radius.
    fn psi_rows(&self, keys: Rows, shift: &Shift, features: &mut [f32]) {
        let unit = f64::from(shift.radius).powi(2);
        convert_rows(keys, features, |key, features| direction(key, (square(key) + 1.0) / unit, features));
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
