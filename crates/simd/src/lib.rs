//! One vector interface over AVX-512, AVX2, NEON, WebAssembly's simd128 and plain arrays, and the choice between them at run time.
//!
//! Kernels are generic over [`Simd`] and `inline(always)`; they are instantiated once per instruction set inside a
//! function that enables it ([`dispatch`]), so that each copy is compiled for its own machine.
#![allow(unsafe_code, reason = "intrinsics")]

mod levels;
mod rows;
#[cfg(test)]
mod tests;

pub use levels::{DEPTH, Levels, LevelsWork, dispatch_levels, fit_16_bits};
pub use rows::{RowFilter, rgb_of_rgba};

/// Instruction sets the kernels exist for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionSet {
    /// 16 lanes, 32 registers (x86-64).
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 8 lanes, 16 registers, fused multiply-add (x86-64).
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 4 lanes, 32 registers (64-bit Arm, where every processor has it).
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// 4 lanes (WebAssembly). Whether a module uses it is settled when it is compiled: one that does is refused as a whole by
    /// an engine without it. Compiled with relaxed-simd, too, it multiplies and adds in one, as AVX2 does.
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    Simd128,
    /// Arrays of 4, on any machine.
    Plain,
}

impl InstructionSet {
    /// Those this machine has, best first; the last is always [`InstructionSet::Plain`].
    #[allow(clippy::vec_init_then_push, reason = "what is pushed differs from target to target")]
    pub fn available() -> Vec<Self> {
        let mut sets = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            // The first processor with vectors of all lengths had those of bytes too.
            let vectors = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl");
            if vectors && is_x86_feature_detected!("avx512bw") {
                sets.push(Self::Avx512);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                sets.push(Self::Avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        sets.push(Self::Neon);
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        sets.push(Self::Simd128);
        sets.push(Self::Plain);
        sets
    }

    /// The best this machine has. The processor is asked once.
    pub fn best() -> Self {
        static BEST: std::sync::OnceLock<InstructionSet> = std::sync::OnceLock::new();
        *BEST.get_or_init(|| Self::available().first().copied().unwrap_or(Self::Plain))
    }

    /// Whether this machine has dot products of bytes in vectors of this set: what multiplies integers then is one instruction, not three.
    pub fn has_dot_products(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => is_x86_feature_detected!("avx512vnni"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("dotprod"),
            _ => false,
        }
    }

    /// Channels in a block of the CPU engine's feature maps. With AVX-512 they are half a register: few layers have
    /// channels in multiples of 16.
    pub fn block(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::Avx2 => 8,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => 4,
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Self::Simd128 => 4,
            Self::Plain => 4,
        }
    }

    /// The set whose vectors hold a block; a machine with this one has it.
    #[must_use]
    pub fn with_lanes_of_a_block(self) -> Self {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Self::Avx2,
            other => other,
        }
    }

    /// Vectors of weights that a tile of a matrix product has beside each other.
    pub fn beside(self) -> usize {
        match self {
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Self::Simd128 => <wasm::Simd128 as Simd>::BESIDE,
            _ => 2,
        }
    }

    /// Floats in the widest vector: output channels that a matrix product computes together.
    pub fn lanes(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => 16,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => 8,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => 4,
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Self::Simd128 => 4,
            Self::Plain => 4,
        }
    }
}

/// As people write it: `avx512`, `avx2`, `neon`, `simd128` or `relaxedsimd`, `plain`.
impl std::str::FromStr for InstructionSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |name: &str| name.to_ascii_lowercase().replace('-', "");
        let known = Self::available();
        known.iter().copied().find(|set| plain(&set.to_string()) == plain(text)).ok_or_else(|| {
            let known: Vec<String> = known.iter().map(|set| plain(&set.to_string())).collect();
            format!("{text:?} is no instruction set of this machine, which has {}", known.join(", "))
        })
    }
}

impl std::fmt::Display for InstructionSet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "AVX-512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "AVX2",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "NEON",
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Self::Simd128 if cfg!(target_feature = "relaxed-simd") => "relaxed-simd",
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Self::Simd128 => "simd128",
            Self::Plain => "plain",
        })
    }
}

/// Vector arithmetic on f32.
///
/// # Safety
/// Every function needs the instruction set of the implementing type; `load` and `store` touch `LANES` floats, of any
/// alignment, at the pointer.
#[allow(clippy::missing_safety_doc, reason = "one condition for all, stated above")]
pub trait Simd: Copy {
    /// Floats in a vector.
    const LANES: usize;
    /// Rows of [`Simd::BESIDE`] vectors that a tile of a matrix product sums up: with as many vectors and a value beside them, a
    /// register or more stays free. Of tiles that need every register the compiler keeps a sum on the stack, and the product runs at
    /// half its speed; it also does so with 12 x 2 of the 32 that AVX-512 has (`scripts/check-kernels` finds such loops).
    const TILE: usize;
    /// Vectors beside each other in such a tile: [`InstructionSet::beside`].
    const BESIDE: usize = 2;
    /// One register.
    type Vector: Copy;

    /// `x` in every lane.
    unsafe fn splat(x: f32) -> Self::Vector;
    /// `LANES` floats from memory.
    unsafe fn load(from: *const f32) -> Self::Vector;
    /// `LANES` floats to memory.
    unsafe fn store(to: *mut f32, x: Self::Vector);
    /// The first half of the lanes from `low`, the second from `high`.
    #[inline(always)]
    unsafe fn load_halves(low: *const f32, high: *const f32) -> Self::Vector {
        let mut lanes = [0.0; 16];
        // SAFETY: the caller gives half a vector at each.
        unsafe {
            lanes.as_mut_ptr().copy_from_nonoverlapping(low, Self::LANES / 2);
            lanes.as_mut_ptr().add(Self::LANES / 2).copy_from_nonoverlapping(high, Self::LANES / 2);
            Self::load(lanes.as_ptr())
        }
    }

    /// The same half of a vector twice.
    #[inline(always)]
    unsafe fn load_twice(from: *const f32) -> Self::Vector {
        // SAFETY: the caller gives half a vector.
        unsafe { Self::load_halves(from, from) }
    }

    /// The first half of the lanes to `low`, the second to `high`.
    #[inline(always)]
    unsafe fn store_halves(low: *mut f32, high: *mut f32, x: Self::Vector) {
        let mut lanes = [0.0; 16];
        // SAFETY: as for `load_halves`.
        unsafe {
            Self::store(lanes.as_mut_ptr(), x);
            low.copy_from_nonoverlapping(lanes.as_ptr(), Self::LANES / 2);
            high.copy_from_nonoverlapping(lanes.as_ptr().add(Self::LANES / 2), Self::LANES / 2);
        }
    }

    /// `a + b`.
    unsafe fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a - b`.
    unsafe fn sub(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a * b`.
    unsafe fn mul(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a / b`.
    unsafe fn div(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The greater of each pair; `b` where one is NaN.
    unsafe fn max(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The lesser of each pair; `b` where one is NaN.
    unsafe fn min(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a * b + c`.
    unsafe fn fma(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// `2^n` for integral `n` in -126..=127.
    unsafe fn exp2_integral(n: Self::Vector) -> Self::Vector;

    /// `exp(x)`, relative error below 2e-7; arguments are held to -87.3..88, so the result is never 0, inf or NaN.
    /// Cody and Waite's reduction to |r| <= ln(2) / 2, then a Taylor polynomial of degree 7.
    #[inline(always)]
    unsafe fn exp(x: Self::Vector) -> Self::Vector {
        // SAFETY: the caller has the instruction set; no memory is touched.
        unsafe {
            let x = Self::min(Self::max(x, Self::splat(-87.3)), Self::splat(88.0));
            // Adding 1.5 * 2^23 leaves no bits for a fraction: this rounds to the nearest integer.
            let magic = Self::splat(12_582_912.0);
            let n = Self::sub(Self::fma(x, Self::splat(std::f32::consts::LOG2_E), magic), magic);
            let r = Self::fma(n, Self::splat(-0.693_359_4), x);
            let r = Self::fma(n, Self::splat(2.121_944_4e-4), r);
            let mut sum = Self::splat(1.0 / 5040.0);
            for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
                sum = Self::fma(sum, r, Self::splat(coefficient));
            }
            Self::mul(sum, Self::exp2_integral(n))
        }
    }

    /// `LANES` rows of as many floats, `from_row` apart, as columns, in rows `to_row` apart.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        for column in 0..Self::LANES {
            for row in 0..Self::LANES {
                // SAFETY: the caller gives as many rows, and room for as many.
                unsafe { *to.add(to_row * column + row) = *from.add(from_row * row + column) };
            }
        }
    }

    /// Sum of the lanes, always in the same order.
    #[inline(always)]
    unsafe fn sum(x: Self::Vector) -> f32 {
        let mut lanes = [0.0; 16];
        // SAFETY: the array has room for the widest vector.
        unsafe { Self::store(lanes.as_mut_ptr(), x) };
        lanes[..Self::LANES].iter().sum()
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Simd;

    /// 512-bit registers of x86-64.
    #[derive(Clone, Copy, Debug)]
    pub struct Avx512;

    // Each function is one instruction; the trait states what callers promise.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Simd for Avx512 {
        const LANES: usize = 16;
        const TILE: usize = 8;
        type Vector = __m512;

        #[inline(always)]
        unsafe fn splat(x: f32) -> __m512 {
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m512 {
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, x: __m512) {
            unsafe { _mm512_storeu_ps(to, x) }
        }
        #[inline(always)]
        unsafe fn load_halves(low: *const f32, high: *const f32) -> __m512 {
            unsafe {
                let low = _mm512_castpd256_pd512(_mm256_castps_pd(_mm256_loadu_ps(low)));
                _mm512_castpd_ps(_mm512_insertf64x4::<1>(low, _mm256_castps_pd(_mm256_loadu_ps(high))))
            }
        }
        #[inline(always)]
        unsafe fn load_twice(from: *const f32) -> __m512 {
            unsafe { _mm512_castpd_ps(_mm512_broadcast_f64x4(_mm256_castps_pd(_mm256_loadu_ps(from)))) }
        }
        #[inline(always)]
        unsafe fn store_halves(low: *mut f32, high: *mut f32, x: __m512) {
            unsafe {
                _mm256_storeu_ps(low, _mm512_castps512_ps256(x));
                _mm256_storeu_ps(high, _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(x))));
            }
        }
        #[inline(always)]
        unsafe fn add(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_sub_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn div(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_div_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn max(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_max_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn min(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_min_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn exp2_integral(n: __m512) -> __m512 {
            unsafe {
                let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
                _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
            }
        }
    }

    /// 256-bit registers of x86-64.
    #[derive(Clone, Copy, Debug)]
    pub struct Avx2;

    // As above, but for `transpose`.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Simd for Avx2 {
        const LANES: usize = 8;
        const TILE: usize = 6;
        type Vector = __m256;

        #[inline(always)]
        unsafe fn splat(x: f32) -> __m256 {
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m256 {
            unsafe { _mm256_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, x: __m256) {
            unsafe { _mm256_storeu_ps(to, x) }
        }
        #[inline(always)]
        unsafe fn add(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_sub_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn div(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_div_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn max(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_max_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn min(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_min_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn exp2_integral(n: __m256) -> __m256 {
            unsafe {
                let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
            }
        }
        #[inline(always)]
        unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
            // Four columns of all eight rows at a time: the upper half of a register holds those of the rows from the fifth on.
            for half in 0..2 {
                unsafe {
                    let from = from.add(4 * half);
                    // No closure, which may not be inlined: `scripts/check-kernels`.
                    macro_rules! rows {
                        ($row:literal) => {{
                            let low = _mm_loadu_ps(from.add(from_row * $row));
                            let high = _mm_loadu_ps(from.add(from_row * ($row + 4)));
                            _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(low), high)
                        }};
                    }
                    let (a, b, c, d) = (rows!(0), rows!(1), rows!(2), rows!(3));
                    let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
                    let to = to.add(to_row * 4 * half);
                    _mm256_storeu_ps(to, _mm256_shuffle_ps::<0x44>(ab, cd));
                    _mm256_storeu_ps(to.add(to_row), _mm256_shuffle_ps::<0xEE>(ab, cd));
                    let (ab, cd) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
                    _mm256_storeu_ps(to.add(2 * to_row), _mm256_shuffle_ps::<0x44>(ab, cd));
                    _mm256_storeu_ps(to.add(3 * to_row), _mm256_shuffle_ps::<0xEE>(ab, cd));
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::*;

    use super::Simd;

    /// 128-bit registers of 64-bit Arm.
    #[derive(Clone, Copy, Debug)]
    pub struct Neon;

    // Each function is one instruction; the trait states what callers promise.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Simd for Neon {
        const LANES: usize = 4;
        const TILE: usize = 8;
        type Vector = float32x4_t;

        #[inline(always)]
        unsafe fn splat(x: f32) -> float32x4_t {
            unsafe { vdupq_n_f32(x) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> float32x4_t {
            unsafe { vld1q_f32(from) }
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, x: float32x4_t) {
            unsafe { vst1q_f32(to, x) }
        }
        #[inline(always)]
        unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            unsafe { vaddq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            unsafe { vsubq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            unsafe { vmulq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn div(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            unsafe { vdivq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            // `vmaxq` gives NaN for either.
            unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
        }
        #[inline(always)]
        unsafe fn min(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            unsafe { vbslq_f32(vcltq_f32(a, b), a, b) }
        }
        #[inline(always)]
        unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
            unsafe { vfmaq_f32(c, a, b) }
        }
        #[inline(always)]
        unsafe fn exp2_integral(n: float32x4_t) -> float32x4_t {
            unsafe {
                let exponent = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
                vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent))
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub use arm::Neon;

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm {
    use std::arch::wasm32::*;

    use super::Simd;

    /// 128-bit vectors of WebAssembly.
    #[derive(Clone, Copy, Debug)]
    pub struct Simd128;

    // Each function is one instruction or two, for which the whole module is compiled; the trait states what callers promise.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Simd for Simd128 {
        const LANES: usize = 4;
        // Of the 16 registers that x86-64 has, browsers' compilers leave 15, and LLVM has all values of a step of the depth in some at once: 9
        // sums, 3 values and a vector of weights. Tiles of 10 sums or 12 take 1.5 times as long, 4 x 2, with too few sums for two units that
        // take four cycles each, 1.15 times.
        const TILE: usize = 3;
        const BESIDE: usize = 3;
        type Vector = v128;

        #[inline(always)]
        unsafe fn splat(x: f32) -> v128 {
            f32x4_splat(x)
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> v128 {
            unsafe { v128_load(from.cast()) }
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, x: v128) {
            unsafe { v128_store(to.cast(), x) }
        }
        #[inline(always)]
        unsafe fn add(a: v128, b: v128) -> v128 {
            f32x4_add(a, b)
        }
        #[inline(always)]
        unsafe fn sub(a: v128, b: v128) -> v128 {
            f32x4_sub(a, b)
        }
        #[inline(always)]
        unsafe fn mul(a: v128, b: v128) -> v128 {
            f32x4_mul(a, b)
        }
        #[inline(always)]
        unsafe fn div(a: v128, b: v128) -> v128 {
            f32x4_div(a, b)
        }
        // `b < a ? a : b`, where `f32x4_max` would cost several instructions more for NaN and zeros. With relaxed-simd the compiler takes
        // `f32x4_relaxed_max` for either form, which leaves open what NaN gives; of this one browsers on x86-64 make an instruction that gives `b`.
        #[inline(always)]
        unsafe fn max(a: v128, b: v128) -> v128 {
            if cfg!(target_feature = "relaxed-simd") { v128_bitselect(a, b, f32x4_gt(a, b)) } else { f32x4_pmax(b, a) }
        }
        #[inline(always)]
        unsafe fn min(a: v128, b: v128) -> v128 {
            if cfg!(target_feature = "relaxed-simd") { v128_bitselect(a, b, f32x4_lt(a, b)) } else { f32x4_pmin(b, a) }
        }
        #[inline(always)]
        unsafe fn fma(a: v128, b: v128, c: v128) -> v128 {
            #[cfg(target_feature = "relaxed-simd")]
            {
                f32x4_relaxed_madd(a, b, c)
            }
            #[cfg(not(target_feature = "relaxed-simd"))]
            {
                f32x4_add(f32x4_mul(a, b), c)
            }
        }
        #[inline(always)]
        unsafe fn exp2_integral(n: v128) -> v128 {
            // The sum with 1.5 * 2^23 holds the integer in its last bits; a conversion would hold it to the range of i32 first.
            i32x4_shl(f32x4_add(n, f32x4_splat(12_582_912.0 + 127.0)), 23)
        }
    }
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub use wasm::Simd128;

/// Arrays of four: no intrinsics, the safe twin of the others.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

#[inline(always)]
fn each(a: [f32; 4], b: [f32; 4], f: impl Fn(f32, f32) -> f32) -> [f32; 4] {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

impl Simd for Plain {
    const LANES: usize = 4;
    const TILE: usize = 4;
    type Vector = [f32; 4];

    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; 4] {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 4] {
        // SAFETY: the caller gives four floats; no alignment is assumed.
        unsafe { from.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: [f32; 4]) {
        // SAFETY: as for `load`.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn add(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        each(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        each(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        each(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        each(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn max(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        each(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        each(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        each(each(a, b, |a, b| a * b), c, |product, c| product + c)
    }
    #[inline(always)]
    unsafe fn exp2_integral(n: [f32; 4]) -> [f32; 4] {
        n.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23))
    }
}

/// A computation that exists for every instruction set.
pub trait Work {
    /// Runs it; must be `inline(always)`, with everything it calls.
    ///
    /// # Safety
    /// The machine has the instruction set of `S`.
    unsafe fn run<S: Simd>(self);
}

/// Runs `work` compiled for `set`.
///
/// # Safety
/// `set` is one of [`InstructionSet::available`], and whatever `work` itself asks.
pub unsafe fn dispatch(set: InstructionSet, work: impl Work) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512vl,fma")]
    unsafe fn avx512(work: impl Work) {
        // SAFETY: the caller's.
        unsafe { work.run::<Avx512>() }
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2(work: impl Work) {
        // SAFETY: the caller's.
        unsafe { work.run::<Avx2>() }
    }
    // SAFETY: the caller's.
    unsafe {
        match set {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => avx512(work),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => avx2(work),
            #[cfg(target_arch = "aarch64")]
            InstructionSet::Neon => work.run::<Neon>(),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            InstructionSet::Simd128 => work.run::<Simd128>(),
            InstructionSet::Plain => work.run::<Plain>(),
        }
    }
}

/// Bytes of three channels a pixel into a plane of floats for each: `byte * factor + shift`. As many pixels as the shortest of
/// all has; the same on every instruction set.
pub fn planes_of_pixels(pixels: &[[u8; 3]], planes: [&mut [f32]; 3], factors: [f32; 3], shifts: [f32; 3]) {
    /// No vectors of its own: compiled for wide registers, the loop becomes shuffles.
    struct Planes<'a>(&'a [[u8; 3]], [&'a mut [f32]; 3], [f32; 3], [f32; 3]);
    impl Work for Planes<'_> {
        #[inline(always)]
        unsafe fn run<S: Simd>(self) {
            let Self(pixels, [a, b, c], factors, shifts) = self;
            for (((pixel, a), b), c) in pixels.iter().zip(a).zip(b).zip(c) {
                *a = f32::from(pixel[0]) * factors[0] + shifts[0];
                *b = f32::from(pixel[1]) * factors[1] + shifts[1];
                *c = f32::from(pixel[2]) * factors[2] + shifts[2];
            }
        }
    }
    // SAFETY: the best set is there.
    unsafe { dispatch(InstructionSet::best(), Planes(pixels, planes, factors, shifts)) };
}
