//! Attention on channel planes: a unit is a head. The feature maps are planes too, so every loop runs along tokens.

use super::product::{Filters, product};
use super::steps::{Memory, PlaneAt, Scratch, plane_stride};
use yolo_lat_core::model::config::{AttentionKind, KernelKind};
use yolo_lat_simd::Simd;

/// Multi-head attention, linear or softmax.
pub(super) struct Attention {
    pub(super) kind: AttentionKind,
    pub(super) kernel: KernelKind,
    pub(super) heads: usize,
    /// q, k and v of all heads: 3 * width planes.
    pub(super) inputs: Vec<PlaneAt>,
    pub(super) output: usize,
    pub(super) tokens: usize,
    /// Output channels in a tile of the matrix product.
    pub(super) tile_rows: usize,
}

/// Biases of a product that has none: one for each channel of the widest head a configuration may have.
static NO_BIAS: [f32; 4112] = [0.0; 4112];

impl Attention {
    pub(super) fn units(&self) -> usize {
        self.heads
    }

    fn width(&self) -> usize {
        self.inputs.len() / 3
    }

    /// Channels of a head.
    fn head(&self) -> usize {
        self.width() / self.heads
    }

    fn features(&self) -> usize {
        match self.kernel {
            KernelKind::HadamardExp => self.head(),
            KernelKind::SumDistance | KernelKind::DiffDistance => self.head() + 2,
            KernelKind::ModulatedDot => self.head() + 1,
        }
    }

    /// Size of the packed sums: values and denominator, in whole tiles, for each feature.
    fn packed(&self) -> usize {
        (self.head() + 1).next_multiple_of(self.tile_rows) * self.features()
    }

    pub(super) fn scratch(&self) -> (usize, usize) {
        let stride = plane_stride(self.tokens);
        match self.kind {
            AttentionKind::Softmax | AttentionKind::None => (stride, 0),
            AttentionKind::Ela => ((2 * self.features() + self.head() + 1) * stride + self.packed(), self.features()),
        }
    }

    #[inline(always)]
    pub(super) unsafe fn run<S: Simd, const ROWS: usize>(&self, unit: usize, memory: Memory, scratch: &mut Scratch) {
        // SAFETY: the caller's; scratch is as large as `scratch()` says.
        unsafe {
            match self.kind {
                AttentionKind::Softmax | AttentionKind::None => self.softmax::<S>(unit, memory, scratch),
                AttentionKind::Ela => self.linear::<S, ROWS>(unit, memory, scratch),
            }
        }
    }

    /// Plane `channel` of a head's queries (0), keys (1) or values (2).
    #[inline(always)]
    unsafe fn plane(&self, part: usize, head: usize, channel: usize, memory: Memory) -> *const f32 {
        // SAFETY: the caller's.
        unsafe { memory.read(self.inputs[part * self.width() + head * self.head() + channel]) }
    }

    #[inline(always)]
    unsafe fn output(&self, head: usize, channel: usize, memory: Memory) -> *mut f32 {
        // SAFETY: the caller's.
        unsafe { memory.write(self.output + (head * self.head() + channel) * plane_stride(self.tokens)) }
    }

    /// `S = sum psi(k) v^T`, `C = sum psi(k)`, then `y = phi(q) S / phi(q) C`.
    #[inline(always)]
    unsafe fn linear<S: Simd, const ROWS: usize>(&self, head: usize, memory: Memory, scratch: &mut Scratch) {
        let (tokens, width, features) = (self.tokens, self.head(), self.features());
        let stride = plane_stride(tokens);
        // SAFETY: scratch is divided as `scratch()` counts it; every plane has room for whole vectors.
        unsafe {
            let phi = scratch.floats.as_mut_ptr();
            let psi = phi.add(features * stride);
            let results = psi.add(features * stride);
            let packed = results.add((width + 1) * stride);
            match self.kernel {
                KernelKind::HadamardExp => self.exp_features::<S>(head, memory, phi, psi),
                KernelKind::SumDistance => self.distance_features::<S>(head, 1.0, memory, phi, psi),
                KernelKind::DiffDistance => self.distance_features::<S>(head, -1.0, memory, phi, psi),
                KernelKind::ModulatedDot => {
                    // Nothing is in the results yet: room for a factor a token.
                    self.directions::<S>(0, head, memory, phi, results);
                    self.directions::<S>(1, head, memory, psi, results);
                }
            }
            // Sums over the tokens, packed as the filters of a product: one output for each value, one for C.
            std::slice::from_raw_parts_mut(packed, self.packed()).fill(0.0);
            for feature in 0..features {
                let psi = psi.add(feature * stride);
                for channel in 0..=width {
                    let sum = if channel < width {
                        dot::<S>(psi, self.plane(2, head, channel, memory), tokens)
                    } else {
                        reduce::<S>(psi, tokens)
                    };
                    *packed.add((channel / ROWS * features + feature) * ROWS + channel % ROWS) = sum;
                }
                scratch.rows[feature] = phi.add(feature * stride);
            }
            let filters = Filters {
                weights: std::slice::from_raw_parts(packed, self.packed()),
                bias: &NO_BIAS[..(width + 1).next_multiple_of(ROWS)],
                channels: width + 1,
                depth: features,
            };
            product::<S, ROWS>(filters, &scratch.rows[..features], tokens, results, stride, memory);
            let denominators = results.add(width * stride);
            for channel in 0..width {
                let (values, output) = (results.add(channel * stride), self.output(head, channel, memory));
                for at in (0..tokens).step_by(S::LANES) {
                    let quotient = S::div(S::load(values.add(at)), S::load(denominators.add(at)));
                    S::store(output.add(at), quotient);
                }
            }
            if self.kernel != KernelKind::HadamardExp {
                self.mean_where_no_weight::<S>(head, denominators, memory);
            }
        }
    }

    /// A row whose weights are all zero gets the mean of the values.
    #[inline(always)]
    unsafe fn mean_where_no_weight<S: Simd>(&self, head: usize, denominators: *const f32, memory: Memory) {
        // SAFETY: denominators has `tokens` floats.
        unsafe {
            for token in (0..self.tokens).filter(|&token| *denominators.add(token) <= 0.0) {
                for channel in 0..self.head() {
                    let mean = reduce::<S>(self.plane(2, head, channel, memory), self.tokens) / self.tokens as f32;
                    *self.output(head, channel, memory).add(token) = mean;
                }
            }
        }
    }

    /// `psi_d = exp(k_d - m_d)` and `phi_d = exp(q_d + m_d - r)`; see `HadamardExp` of yolo-lat-attention.
    #[inline(always)]
    unsafe fn exp_features<S: Simd>(&self, head: usize, memory: Memory, phi: *mut f32, psi: *mut f32) {
        let (tokens, stride) = (self.tokens, plane_stride(self.tokens));
        // SAFETY: every plane has room for whole vectors.
        unsafe {
            let scale = S::splat(query_scale(self.head()));
            for channel in 0..self.head() {
                let keys = self.plane(1, head, channel, memory);
                let peak = S::splat(peak::<S>(keys, tokens) * query_scale(self.head()));
                let queries = self.plane(0, head, channel, memory);
                for at in (0..tokens).step_by(S::LANES) {
                    let exponent = S::sub(S::mul(S::load(keys.add(at)), scale), peak);
                    S::store(psi.add(channel * stride + at), S::exp(exponent));
                    let exponent = S::fma(S::load(queries.add(at)), scale, peak);
                    S::store(phi.add(channel * stride + at), exponent);
                }
            }
            for at in (0..tokens).step_by(S::LANES) {
                let mut row = S::load(phi.add(at));
                for channel in 1..self.head() {
                    row = S::max(row, S::load(phi.add(channel * stride + at)));
                }
                for channel in 0..self.head() {
                    let exponent = phi.add(channel * stride + at);
                    S::store(exponent, S::exp(S::sub(S::load(exponent), row)));
                }
            }
        }
    }

    /// `phi = (a, |a|^2, 1)` and `psi = (2 sign b, 1, |b|^2)` with the mean of the keys moved from b into a:
    /// `|q + k| = |(q + c) + (k - c)|`. Then no difference of large numbers is left in the denominator.
    #[inline(always)]
    unsafe fn distance_features<S: Simd>(&self, head: usize, sign: f32, memory: Memory, phi: *mut f32, psi: *mut f32) {
        let (tokens, width, stride) = (self.tokens, self.head(), plane_stride(self.tokens));
        // SAFETY: every plane has room for whole vectors.
        unsafe {
            let scale = query_scale(width);
            let (one, zero) = (S::splat(1.0), S::splat(0.0));
            let (a_norm, a_one) = (phi.add(width * stride), phi.add((width + 1) * stride));
            let (b_one, b_norm) = (psi.add(width * stride), psi.add((width + 1) * stride));
            for at in (0..tokens).step_by(S::LANES) {
                S::store(a_norm.add(at), zero);
                S::store(b_norm.add(at), zero);
                S::store(a_one.add(at), one);
                S::store(b_one.add(at), one);
            }
            for channel in 0..width {
                let (queries, keys) = (self.plane(0, head, channel, memory), self.plane(1, head, channel, memory));
                let mean = reduce::<S>(keys, tokens) / tokens as f32 * scale;
                let (shift_a, shift_b) = (S::splat(sign * mean), S::splat(-mean));
                let (scale, factor) = (S::splat(scale), S::splat(2.0 * sign));
                for at in (0..tokens).step_by(S::LANES) {
                    let a = S::fma(S::load(queries.add(at)), scale, shift_a);
                    let b = S::fma(S::load(keys.add(at)), scale, shift_b);
                    S::store(phi.add(channel * stride + at), a);
                    S::store(psi.add(channel * stride + at), S::mul(b, factor));
                    S::store(a_norm.add(at), S::fma(a, a, S::load(a_norm.add(at))));
                    S::store(b_norm.add(at), S::fma(b, b, S::load(b_norm.add(at))));
                }
            }
        }
    }

    /// `(|b|^2 + 1) (b / |b|, 1)` of the keys (part 1); of the queries (part 0) without the factor, which cancels. The
    /// direction of zero is zero.
    #[inline(always)]
    unsafe fn directions<S: Simd>(
        &self,
        part: usize,
        head: usize,
        memory: Memory,
        features: *mut f32,
        factors: *mut f32,
    ) {
        let (tokens, width, stride) = (self.tokens, self.head(), plane_stride(self.tokens));
        // SAFETY: every plane has room for whole vectors, `factors` for one plane.
        unsafe {
            let (scale, squares) = (S::splat(query_scale(width)), features.add(width * stride));
            for at in (0..tokens).step_by(S::LANES) {
                S::store(squares.add(at), S::splat(0.0));
            }
            for channel in 0..width {
                let source = self.plane(part, head, channel, memory);
                for at in (0..tokens).step_by(S::LANES) {
                    let x = S::mul(S::load(source.add(at)), scale);
                    S::store(features.add(channel * stride + at), x);
                    S::store(squares.add(at), S::fma(x, x, S::load(squares.add(at))));
                }
            }
            for token in 0..tokens {
                let square = *squares.add(token);
                let factor = if part == 0 { 1.0 } else { square + 1.0 };
                *factors.add(token) = if square > 0.0 { factor / square.sqrt() } else { 0.0 };
                *squares.add(token) = factor;
            }
            for channel in 0..width {
                for at in (0..tokens).step_by(S::LANES) {
                    let x = features.add(channel * stride + at);
                    S::store(x, S::mul(S::load(x), S::load(factors.add(at))));
                }
            }
        }
    }

    /// The customary attention, one query after the other.
    #[inline(always)]
    unsafe fn softmax<S: Simd>(&self, head: usize, memory: Memory, scratch: &mut Scratch) {
        let (tokens, width) = (self.tokens, self.head());
        // SAFETY: scratch has a plane of tokens; every plane has room for whole vectors.
        unsafe {
            let weights = scratch.floats.as_mut_ptr();
            let scale = query_scale(width) * query_scale(width);
            for query in 0..tokens {
                for at in (0..tokens).step_by(S::LANES) {
                    let mut sum = S::splat(0.0);
                    for channel in 0..width {
                        let q = S::splat(*self.plane(0, head, channel, memory).add(query) * scale);
                        sum = S::fma(q, S::load(self.plane(1, head, channel, memory).add(at)), sum);
                    }
                    S::store(weights.add(at), sum);
                }
                let row = S::splat(peak::<S>(weights, tokens));
                for at in (0..tokens).step_by(S::LANES) {
                    S::store(weights.add(at), S::exp(S::sub(S::load(weights.add(at)), row)));
                }
                let total = reduce::<S>(weights, tokens);
                for channel in 0..width {
                    let sum = dot::<S>(weights, self.plane(2, head, channel, memory), tokens);
                    *self.output(head, channel, memory).add(query) = sum / total;
                }
            }
        }
    }
}

/// `head^(-1/4)`, on queries and on keys.
fn query_scale(head: usize) -> f32 {
    (head as f64).powf(-0.25) as f32
}

/// Sum of `a * b` over `count` values.
#[inline(always)]
unsafe fn dot<S: Simd>(a: *const f32, b: *const f32, count: usize) -> f32 {
    // SAFETY: the caller gives `count` floats at each.
    unsafe {
        let whole = count / S::LANES * S::LANES;
        let mut sum = S::splat(0.0);
        for at in (0..whole).step_by(S::LANES) {
            sum = S::fma(S::load(a.add(at)), S::load(b.add(at)), sum);
        }
        (whole..count).fold(S::sum(sum), |sum, at| sum + *a.add(at) * *b.add(at))
    }
}

/// Sum of `count` values.
#[inline(always)]
unsafe fn reduce<S: Simd>(a: *const f32, count: usize) -> f32 {
    // SAFETY: the caller gives `count` floats.
    unsafe {
        let whole = count / S::LANES * S::LANES;
        let mut sum = S::splat(0.0);
        for at in (0..whole).step_by(S::LANES) {
            sum = S::add(S::load(a.add(at)), sum);
        }
        (whole..count).fold(S::sum(sum), |sum, at| sum + *a.add(at))
    }
}

/// Maximum of `count` values.
#[inline(always)]
unsafe fn peak<S: Simd>(a: *const f32, count: usize) -> f32 {
    // SAFETY: the caller gives `count` floats; the array has room for the widest vector.
    unsafe {
        let whole = count / S::LANES * S::LANES;
        let mut lanes = [f32::NEG_INFINITY; 16];
        if whole > 0 {
            let mut peak = S::load(a);
            for at in (S::LANES..whole).step_by(S::LANES) {
                peak = S::max(peak, S::load(a.add(at)));
            }
            S::store(lanes.as_mut_ptr(), peak);
        }
        let rest = (whole..count).map(|at| *a.add(at));
        rest.chain(lanes).fold(f32::NEG_INFINITY, f32::max)
    }
}
