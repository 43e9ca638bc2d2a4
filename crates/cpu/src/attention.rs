//! Attention: a unit is a head. Its queries, keys and values are copied into planes, so that every loop runs along tokens.

use super::elementwise::{from_planes, to_planes};
use super::memory::Memory;
use super::touched::Touched;
use yolo_lat_core::model::config::KernelKind;
use yolo_lat_core::model::graph::Mixing;
use yolo_lat_simd::Simd;

/// Multi-head attention, linear or softmax.
pub(super) struct Attention {
    pub(super) mixing: Mixing,
    pub(super) heads: usize,
    /// q, k and v of all heads, 3 * width channels at token 0.
    pub(super) inputs: Vec<usize>,
    /// Of each channel at token 0.
    pub(super) outputs: Vec<usize>,
    pub(super) tokens: usize,
}

/// Floats from one plane to the next: its tokens, one vector of room, whole cache lines.
fn plane_stride(tokens: usize) -> usize {
    (tokens + 15).next_multiple_of(16)
}

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

    pub(super) fn scratch(&self) -> usize {
        let stride = plane_stride(self.tokens);
        // Queries, keys, values and the output of a head, and a row more.
        let planes = (4 * self.head() + 1) * stride;
        match self.mixing {
            Mixing::Softmax => planes,
            Mixing::Linear(kernel) => {
                let features = kernel.features(self.head());
                planes + 2 * features * stride + features * (self.head() + 1)
            }
        }
    }

    pub(super) fn touches(&self, head: usize, touched: &mut Touched) {
        let channels =
            |part: usize| part * self.width() + head * self.head()..part * self.width() + (head + 1) * self.head();
        for part in 0..3 {
            touched.reads(&self.inputs[channels(part)], 0..self.tokens);
        }
        touched.writes_channels(&self.outputs[channels(0)], 0..self.tokens);
    }

    #[inline(always)]
    pub(super) unsafe fn run<S: Simd>(&self, head: usize, memory: Memory, scratch: *mut f32) {
        let (width, stride) = (self.head(), plane_stride(self.tokens));
        // SAFETY: the caller's; scratch is as large as `scratch()` says.
        unsafe {
            let planes = Planes { parts: scratch, stride, width };
            for part in 0..3 {
                let inputs = &self.inputs[part * self.width() + head * width..][..width];
                to_planes::<S>(memory, inputs, self.tokens, planes.plane(part, 0), stride);
            }
            let rest = planes.plane(3, width);
            match self.mixing {
                Mixing::Softmax => self.softmax::<S>(planes, rest),
                Mixing::Linear(kernel) => self.linear::<S>(kernel, planes, rest),
            }
            from_planes::<S>(planes.plane(3, 0), stride, memory, &self.outputs[head * width..][..width], self.tokens);
        }
    }

    /// `S = sum psi(k) v^T`, `C = sum psi(k)`, then `y = phi(q) S / phi(q) C`.
    #[inline(always)]
    unsafe fn linear<S: Simd>(&self, kernel: KernelKind, planes: Planes, rest: *mut f32) {
        let (tokens, width, features) = (self.tokens, self.head(), kernel.features(self.head()));
        let stride = plane_stride(tokens);
        // SAFETY: scratch is divided as `scratch()` counts it; every plane has room for whole vectors.
        unsafe {
            let denominators = rest;
            let phi = denominators.add(stride);
            let psi = phi.add(features * stride);
            let sums = psi.add(features * stride);
            match kernel {
                KernelKind::HadamardExp => self.exp_features::<S>(planes, phi, psi),
                KernelKind::SumDistance => self.distance_features::<S>(1.0, planes, phi, psi),
                KernelKind::DiffDistance => self.distance_features::<S>(-1.0, planes, phi, psi),
                KernelKind::ModulatedDot => {
                    // Nothing is in the denominators yet: room for a factor a token.
                    self.directions::<S>(0, planes, phi, denominators);
                    self.directions::<S>(1, planes, psi, denominators);
                }
            }
            // (head + 1, features): one row for each value, one for C.
            for feature in 0..features {
                let (psi, sums) = (psi.add(feature * stride), sums.add(feature));
                dots::<S>(psi, planes, tokens, |channel, sum| *sums.add(channel * features) = sum);
                *sums.add(width * features) = reduce::<S>(psi, tokens);
            }
            // Values in 3, and behind them the denominators: eight rows of results at a time, for the adders' latency.
            let mut channel = 0;
            while channel < width + 1 {
                let rows = if channel + 8 <= width + 1 { 8 } else { 1 };
                for at in (0..tokens).step_by(S::LANES) {
                    let (sums, phi) = (sums.add(channel * features), phi.add(at));
                    let to = planes.plane(3, channel).add(at);
                    match rows {
                        8 => weigh::<S, 8>(sums, phi, features, stride, to),
                        _ => weigh::<S, 1>(sums, phi, features, stride, to),
                    }
                }
                channel += rows;
            }
            for channel in 0..width {
                let values = planes.plane(3, channel);
                for at in (0..tokens).step_by(S::LANES) {
                    S::store(values.add(at), S::div(S::load(values.add(at)), S::load(denominators.add(at))));
                }
            }
            if kernel != KernelKind::HadamardExp {
                self.mean_where_no_weight::<S>(denominators, planes);
            }
        }
    }

    /// A row whose weights are all zero gets the mean of the values.
    #[inline(always)]
    unsafe fn mean_where_no_weight<S: Simd>(&self, denominators: *const f32, planes: Planes) {
        // SAFETY: denominators has `tokens` floats.
        unsafe {
            for token in (0..self.tokens).filter(|&token| *denominators.add(token) <= 0.0) {
                for channel in 0..self.head() {
                    let mean = reduce::<S>(planes.plane(2, channel), self.tokens) / self.tokens as f32;
                    *planes.plane(3, channel).add(token) = mean;
                }
            }
        }
    }

    /// `psi_d = exp(k_d - m_d)` and `phi_d = exp(q_d + m_d - r)`; see [`yolo_lat_attention::HadamardExp`].
    #[inline(always)]
    unsafe fn exp_features<S: Simd>(&self, planes: Planes, phi: *mut f32, psi: *mut f32) {
        let (tokens, stride) = (self.tokens, plane_stride(self.tokens));
        // SAFETY: every plane has room for whole vectors.
        unsafe {
            let scale = S::splat(query_scale(self.head()));
            for channel in 0..self.head() {
                let keys = planes.plane(1, channel);
                let peak = S::splat(peak::<S>(keys, tokens) * query_scale(self.head()));
                let queries = planes.plane(0, channel);
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
    unsafe fn distance_features<S: Simd>(&self, sign: f32, planes: Planes, phi: *mut f32, psi: *mut f32) {
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
                let (queries, keys) = (planes.plane(0, channel), planes.plane(1, channel));
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
    unsafe fn directions<S: Simd>(&self, part: usize, planes: Planes, features: *mut f32, factors: *mut f32) {
        let (tokens, width, stride) = (self.tokens, self.head(), plane_stride(self.tokens));
        // SAFETY: every plane has room for whole vectors, `factors` for one plane.
        unsafe {
            let (scale, squares) = (S::splat(query_scale(width)), features.add(width * stride));
            for at in (0..tokens).step_by(S::LANES) {
                S::store(squares.add(at), S::splat(0.0));
            }
            for channel in 0..width {
                let source = planes.plane(part, channel);
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
    unsafe fn softmax<S: Simd>(&self, planes: Planes, weights: *mut f32) {
        let (tokens, width) = (self.tokens, self.head());
        // SAFETY: scratch has a plane of tokens; every plane has room for whole vectors.
        unsafe {
            let scale = query_scale(width) * query_scale(width);
            for query in 0..tokens {
                for at in (0..tokens).step_by(S::LANES) {
                    let mut sum = S::splat(0.0);
                    for channel in 0..width {
                        let q = S::splat(*planes.plane(0, channel).add(query) * scale);
                        sum = S::fma(q, S::load(planes.plane(1, channel).add(at)), sum);
                    }
                    S::store(weights.add(at), sum);
                }
                let row = S::splat(peak::<S>(weights, tokens));
                for at in (0..tokens).step_by(S::LANES) {
                    S::store(weights.add(at), S::exp(S::sub(S::load(weights.add(at)), row)));
                }
                let total = reduce::<S>(weights, tokens);
                dots::<S>(weights, planes, tokens, |channel, sum| *planes.plane(3, channel).add(query) = sum / total);
            }
        }
    }
}

/// The planes of one head in scratch: queries (0), keys (1), values (2) and the output (3).
#[derive(Clone, Copy)]
struct Planes {
    parts: *mut f32,
    stride: usize,
    width: usize,
}

impl Planes {
    #[inline(always)]
    unsafe fn plane(self, part: usize, channel: usize) -> *mut f32 {
        // SAFETY: the caller's channel exists.
        unsafe { self.parts.add((part * self.width + channel) * self.stride) }
    }
}

/// `ROWS` rows of `sums` (rows, features) times a vector of tokens of the features, into rows `stride` apart.
#[inline(always)]
unsafe fn weigh<S: Simd, const ROWS: usize>(
    sums: *const f32,
    phi: *const f32,
    features: usize,
    stride: usize,
    to: *mut f32,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut totals = [S::splat(0.0); ROWS];
        for feature in 0..features {
            let phi = S::load(phi.add(feature * stride));
            for (row, total) in totals.iter_mut().enumerate() {
                *total = S::fma(S::splat(*sums.add(row * features + feature)), phi, *total);
            }
        }
        for (row, &total) in totals.iter().enumerate() {
            S::store(to.add(row * stride), total);
        }
    }
}

/// `head^(-1/4)`, on queries and on keys.
fn query_scale(head: usize) -> f32 {
    (head as f64).powf(-0.25) as f32
}

/// Calls `take` with each channel and the sum of `weights` times its values, over `count` tokens: eight channels at a time, for the
/// adders' latency.
#[inline(always)]
unsafe fn dots<S: Simd>(weights: *const f32, planes: Planes, count: usize, take: impl Fn(usize, f32)) {
    let mut channel = 0;
    while channel < planes.width {
        // SAFETY: the caller gives `count` floats at each.
        unsafe {
            if channel + 8 <= planes.width {
                let sums = dots_of::<S, 8>(weights, planes.plane(2, channel), planes.stride, count);
                for (index, &sum) in sums.iter().enumerate() {
                    take(channel + index, sum);
                }
                channel += 8;
            } else {
                let [sum] = dots_of::<S, 1>(weights, planes.plane(2, channel), planes.stride, count);
                take(channel, sum);
                channel += 1;
            }
        }
    }
}

/// Sums of `a` times each of `ROWS` rows, `stride` apart from `b` on, over `count` values.
#[inline(always)]
unsafe fn dots_of<S: Simd, const ROWS: usize>(
    a: *const f32,
    b: *const f32,
    stride: usize,
    count: usize,
) -> [f32; ROWS] {
    // SAFETY: the caller gives `count` floats at each.
    unsafe {
        let whole = count / S::LANES * S::LANES;
        let mut sums = [S::splat(0.0); ROWS];
        for at in (0..whole).step_by(S::LANES) {
            let a = S::load(a.add(at));
            for (row, sum) in sums.iter_mut().enumerate() {
                *sum = S::fma(a, S::load(b.add(row * stride + at)), *sum);
            }
        }
        let mut totals = [0.0; ROWS];
        for (row, total) in totals.iter_mut().enumerate() {
            let start = S::sum(sums[row]);
            *total = (whole..count).fold(start, |sum, at| sum + *a.add(at) * *b.add(row * stride + at));
        }
        totals
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
