//! Products of levels, unsigned integers of 7 bits, and weights, signed ones of 7 bits, over the instruction sets.

use super::{InstructionSet, Simd};

/// Levels of a position that are multiplied at once, each with a weight for every lane.
pub const DEPTH: usize = 8;

/// Sums of products of integers in vectors of as many lanes as the widest vector of floats has, [`InstructionSet::lanes`].
///
/// Weights lie as `[DEPTH / 4][LANES][4]`: four of a lane are neighbours.
///
/// # Safety
/// Every function needs the instruction set of the implementing type.
#[allow(clippy::missing_safety_doc, reason = "one condition for all, stated above")]
pub trait Levels: Copy {
    /// Positions of a vector of outputs that a tile of a product sums up: as many chains as the units need, with a register for each, for
    /// two vectors of weights and for what comes between.
    const TILE: usize;
    /// Vectors of outputs beside each other in a tile, of eight positions where there are two: registers for all of them save loads.
    const BESIDE: usize = 1;
    /// Whether [`Levels::add_both`] takes fewer instructions than its two halves, and not only more registers.
    const ADDS_BOTH: bool = false;
    /// The vectors of floats that levels are made of: a block of channels.
    type Block: Simd;
    /// Those that sums become: a block or two.
    type Floats: Simd;
    /// A 32-bit sum a lane.
    type Sums: Copy;
    /// `LANES` times four weights.
    type Weights: Copy;

    /// `LANES` sums from memory.
    unsafe fn sums(from: *const i32) -> Self::Sums;
    /// `LANES` times four weights from memory.
    unsafe fn weights(from: *const i8) -> Self::Weights;
    /// Parts in which the products of a step are added. Where there are two, a tile adds the first to all of its sums before the second: one
    /// that took both at once would wait for itself.
    const PARTS: usize = 1;
    /// Adds to each lane its weights times part `part` of the [`DEPTH`] levels at `levels`.
    unsafe fn add_part(sums: Self::Sums, levels: *const u8, weights: [Self::Weights; 2], part: usize) -> Self::Sums;
    /// Adds all parts.
    #[inline(always)]
    unsafe fn add_products(mut sums: Self::Sums, levels: *const u8, weights: [Self::Weights; 2]) -> Self::Sums {
        for part in 0..Self::PARTS {
            // SAFETY: the caller's.
            sums = unsafe { Self::add_part(sums, levels, weights, part) };
        }
        sums
    }
    /// Adds the products of two steps of the depth, of weights that [`fit_16_bits`].
    #[inline(always)]
    unsafe fn add_both(sums: Self::Sums, levels: [*const u8; 2], weights: [[Self::Weights; 2]; 2]) -> Self::Sums {
        // SAFETY: the caller's.
        unsafe { Self::add_products(Self::add_products(sums, levels[0], weights[0]), levels[1], weights[1]) }
    }
    /// As floats, the nearest where there is none.
    unsafe fn floats(sums: Self::Sums) -> <Self::Floats as Simd>::Vector;

    /// `clamp(round(x * levels + zeros), 0, 127)` of the vectors at `from`, which lie one after the other, as bytes: those of vector `i`
    /// go to `to + DEPTH * i`. Halves go to the even level, what is no number to 0.
    #[inline(always)]
    unsafe fn of_floats(
        from: *const f32,
        to: *mut u8,
        count: usize,
        levels: <Self::Block as Simd>::Vector,
        zeros: <Self::Block as Simd>::Vector,
    ) {
        let lanes = Self::Block::LANES;
        let mut values = [0.0; 16];
        // SAFETY: the caller gives `count` vectors, and room for as many groups of bytes.
        unsafe {
            for at in 0..count {
                let x = Self::Block::load(from.add(at * lanes));
                Self::Block::store(values.as_mut_ptr(), shifted::<Self::Block>(x, levels, zeros));
                for (lane, value) in values[..lanes].iter().enumerate() {
                    *to.add(DEPTH * at + lane) = value.to_bits() as u8;
                }
            }
        }
    }
}

/// Whether [`Levels::add_both`] is right for the weights of a lane, [`DEPTH`] in each step: with any levels the products that one sum of 16 bits
/// takes in, a half of each four, fit it.
pub fn fit_16_bits(weights: [[i8; DEPTH]; 2]) -> bool {
    [0, 2].into_iter().all(|half| {
        let met = || weights.iter().flat_map(|step| step.chunks(4)).flat_map(|four| &four[half..half + 2]);
        [1, -1].iter().all(|sign| {
            let sum: i32 = met().map(|&weight| (sign * i32::from(weight)).max(0)).sum();
            127 * sum <= i32::from(i16::MAX)
        })
    })
}

/// Floats whose last byte is the level: of the numbers from 2^23 on every one is whole, so adding that rounds.
#[inline(always)]
unsafe fn shifted<S: Simd>(x: S::Vector, levels: S::Vector, zeros: S::Vector) -> S::Vector {
    // SAFETY: the caller has the instruction set.
    unsafe {
        let level = S::add(S::mul(x, levels), zeros);
        let level = S::min(S::max(level, S::splat(0.0)), S::splat(127.0));
        S::add(level, S::splat(8_388_608.0))
    }
}

/// A computation with integers that exists for every instruction set.
pub trait LevelsWork {
    /// Runs it; must be `inline(always)`, with everything it calls.
    ///
    /// # Safety
    /// The machine has the instruction set of `L`.
    unsafe fn run<L: Levels>(self);
}

/// Runs `work` compiled for `set`, with dot products of bytes where the machine has them besides.
///
/// # Safety
/// `set` is one of [`InstructionSet::available`], and whatever `work` itself asks.
pub unsafe fn dispatch_levels(set: InstructionSet, work: impl LevelsWork) {
    // SAFETY: the caller's.
    unsafe { dispatch_with(set, set.has_dot_products(), work) };
}

/// # Safety
/// As for [`dispatch_levels`]; `dot` only where [there are some](InstructionSet::has_dot_products).
pub(super) unsafe fn dispatch_with(set: InstructionSet, dot: bool, work: impl LevelsWork) {
    // SAFETY: the caller's.
    unsafe {
        match (set, dot) {
            #[cfg(target_arch = "x86_64")]
            (InstructionSet::Avx512, true) => x86::avx512_vnni(work),
            #[cfg(target_arch = "x86_64")]
            (InstructionSet::Avx512, false) => x86::avx512(work),
            #[cfg(target_arch = "x86_64")]
            (InstructionSet::Avx2, true) => x86::avx2_vnni(work),
            #[cfg(target_arch = "x86_64")]
            (InstructionSet::Avx2, false) => x86::avx2(work),
            #[cfg(target_arch = "aarch64")]
            (InstructionSet::Neon, true) => work.run::<arm::Bits128<true>>(),
            #[cfg(target_arch = "aarch64")]
            (InstructionSet::Neon, false) => work.run::<arm::Bits128<false>>(),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            (InstructionSet::Simd128, _) => work.run::<super::Simd128>(),
            (InstructionSet::Plain, _) => work.run::<super::Plain>(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::super::{Avx2, Avx512, Simd};
    use super::{DEPTH, Levels, LevelsWork};

    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2(work: impl LevelsWork) {
        // SAFETY: the caller's.
        unsafe { work.run::<Bits256<false>>() }
    }

    /// What Intel's processors without AVX-512 have since 2021, AMD's since Zen 5.
    #[target_feature(enable = "avx2,fma,avxvnni")]
    pub(super) unsafe fn avx2_vnni(work: impl LevelsWork) {
        // SAFETY: the caller's.
        unsafe { work.run::<Bits256<true>>() }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
    pub(super) unsafe fn avx512(work: impl LevelsWork) {
        // SAFETY: the caller's.
        unsafe { work.run::<Bits512<false>>() }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
    pub(super) unsafe fn avx512_vnni(work: impl LevelsWork) {
        // SAFETY: the caller's.
        unsafe { work.run::<Bits512<true>>() }
    }

    /// Four levels in every lane.
    #[inline(always)]
    unsafe fn four(levels: *const u8) -> __m256i {
        // SAFETY: the caller gives four bytes.
        unsafe { _mm256_set1_epi32(levels.cast::<i32>().read_unaligned()) }
    }

    /// The products of [`DEPTH`] levels, a half of each four added up.
    #[inline(always)]
    unsafe fn of_16_bits(levels: *const u8, weights: [__m256i; 2]) -> __m256i {
        // SAFETY: the caller gives as many bytes.
        unsafe {
            let low = _mm256_maddubs_epi16(four(levels), weights[0]);
            _mm256_add_epi16(low, _mm256_maddubs_epi16(four(levels.add(4)), weights[1]))
        }
    }

    /// Bytes of vectors, four at once.
    #[inline(always)]
    unsafe fn of_floats(from: *const f32, to: *mut u8, count: usize, levels: __m256, zeros: __m256) {
        // SAFETY: the caller gives `count` vectors, and room for as many groups of bytes.
        unsafe {
            // Packing ends at 0. What is too large, and what is no number, converts to the least integer: so the upper bound comes
            // before, and `min` gives its second operand where that is no number.
            macro_rules! integers {
                ($at:expr) => {{
                    let level = Avx2::add(Avx2::mul(Avx2::load(from.add($at * Avx2::LANES)), levels), zeros);
                    _mm256_cvtps_epi32(Avx2::min(_mm256_set1_ps(127.0), level))
                }};
            }
            let mut at = 0;
            while at + 4 <= count {
                let low = _mm256_packs_epi32(integers!(at), integers!(at + 1));
                let high = _mm256_packs_epi32(integers!(at + 2), integers!(at + 3));
                // Halves of registers are packed apart: lanes 0 to 3 of all four, then 4 to 7.
                let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
                let packed = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order);
                _mm256_storeu_si256(to.add(DEPTH * at).cast(), packed);
                at += 4;
            }
            while at < count {
                let one = integers!(at);
                let halves = _mm_packs_epi32(_mm256_castsi256_si128(one), _mm256_extracti128_si256::<1>(one));
                _mm_storel_epi64(to.add(DEPTH * at).cast(), _mm_packus_epi16(halves, halves));
                at += 1;
            }
        }
    }

    /// Vectors of 256 bits, with dot products or without.
    #[derive(Clone, Copy, Debug)]
    struct Bits256<const VNNI: bool>;

    // Each function is a few instructions; the trait states what callers promise.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl<const VNNI: bool> Levels for Bits256<VNNI> {
        const TILE: usize = if VNNI { 12 } else { 6 };
        const ADDS_BOTH: bool = !VNNI;
        const PARTS: usize = if VNNI { 2 } else { 1 };
        type Block = Avx2;
        type Floats = Avx2;
        type Sums = __m256i;
        type Weights = __m256i;

        #[inline(always)]
        unsafe fn sums(from: *const i32) -> __m256i {
            unsafe { _mm256_loadu_si256(from.cast()) }
        }
        #[inline(always)]
        unsafe fn weights(from: *const i8) -> __m256i {
            unsafe { _mm256_loadu_si256(from.cast()) }
        }
        #[inline(always)]
        unsafe fn add_part(sums: __m256i, levels: *const u8, weights: [__m256i; 2], part: usize) -> __m256i {
            unsafe {
                if VNNI {
                    return _mm256_dpbusd_avx_epi32(sums, four(levels.add(4 * part)), weights[part]);
                }
                let products = of_16_bits(levels, weights);
                _mm256_add_epi32(sums, _mm256_madd_epi16(products, _mm256_set1_epi16(1)))
            }
        }
        #[inline(always)]
        unsafe fn add_both(sums: __m256i, levels: [*const u8; 2], weights: [[__m256i; 2]; 2]) -> __m256i {
            unsafe {
                let products = _mm256_add_epi16(of_16_bits(levels[0], weights[0]), of_16_bits(levels[1], weights[1]));
                _mm256_add_epi32(sums, _mm256_madd_epi16(products, _mm256_set1_epi16(1)))
            }
        }
        #[inline(always)]
        unsafe fn floats(sums: __m256i) -> __m256 {
            unsafe { _mm256_cvtepi32_ps(sums) }
        }
        #[inline(always)]
        unsafe fn of_floats(from: *const f32, to: *mut u8, count: usize, levels: __m256, zeros: __m256) {
            unsafe { of_floats(from, to, count, levels, zeros) }
        }
    }

    /// Vectors of 512 bits, with dot products or without.
    #[derive(Clone, Copy, Debug)]
    struct Bits512<const VNNI: bool>;

    /// Four levels in every lane.
    #[inline(always)]
    unsafe fn four_wide(levels: *const u8) -> __m512i {
        // SAFETY: the caller gives four bytes.
        unsafe { _mm512_set1_epi32(levels.cast::<i32>().read_unaligned()) }
    }

    /// [`of_16_bits`] of twice as many lanes.
    #[inline(always)]
    unsafe fn of_16_bits_wide(levels: *const u8, weights: [__m512i; 2]) -> __m512i {
        // SAFETY: the caller gives as many bytes.
        unsafe {
            let low = _mm512_maddubs_epi16(four_wide(levels), weights[0]);
            _mm512_add_epi16(low, _mm512_maddubs_epi16(four_wide(levels.add(4)), weights[1]))
        }
    }

    // As above.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl<const VNNI: bool> Levels for Bits512<VNNI> {
        const TILE: usize = 12;
        const BESIDE: usize = if VNNI { 2 } else { 1 };
        const ADDS_BOTH: bool = !VNNI;
        const PARTS: usize = if VNNI { 2 } else { 1 };
        type Block = Avx2;
        type Floats = Avx512;
        type Sums = __m512i;
        type Weights = __m512i;

        #[inline(always)]
        unsafe fn sums(from: *const i32) -> __m512i {
            unsafe { _mm512_loadu_si512(from.cast()) }
        }
        #[inline(always)]
        unsafe fn weights(from: *const i8) -> __m512i {
            unsafe { _mm512_loadu_si512(from.cast()) }
        }
        #[inline(always)]
        unsafe fn add_part(sums: __m512i, levels: *const u8, weights: [__m512i; 2], part: usize) -> __m512i {
            unsafe {
                if VNNI {
                    return _mm512_dpbusd_epi32(sums, four_wide(levels.add(4 * part)), weights[part]);
                }
                let products = of_16_bits_wide(levels, weights);
                _mm512_add_epi32(sums, _mm512_madd_epi16(products, _mm512_set1_epi16(1)))
            }
        }
        #[inline(always)]
        unsafe fn add_both(sums: __m512i, levels: [*const u8; 2], weights: [[__m512i; 2]; 2]) -> __m512i {
            unsafe {
                let first = of_16_bits_wide(levels[0], weights[0]);
                let products = _mm512_add_epi16(first, of_16_bits_wide(levels[1], weights[1]));
                _mm512_add_epi32(sums, _mm512_madd_epi16(products, _mm512_set1_epi16(1)))
            }
        }
        #[inline(always)]
        unsafe fn floats(sums: __m512i) -> __m512 {
            unsafe { _mm512_cvtepi32_ps(sums) }
        }
        /// Two positions a register, eight at once.
        #[inline(always)]
        unsafe fn of_floats(from: *const f32, to: *mut u8, count: usize, levels: __m256, zeros: __m256) {
            unsafe {
                // Of both positions; no closure, which may not be inlined.
                let wide_levels = _mm512_castpd_ps(_mm512_broadcast_f64x4(_mm256_castps_pd(levels)));
                let wide_zeros = _mm512_castpd_ps(_mm512_broadcast_f64x4(_mm256_castps_pd(zeros)));
                let bound = _mm512_set1_ps(127.0);
                // As with half as many lanes.
                macro_rules! integers {
                    ($at:expr) => {{
                        let x = Avx512::load(from.add($at * Avx2::LANES));
                        let level = Avx512::add(Avx512::mul(x, wide_levels), wide_zeros);
                        _mm512_cvtps_epi32(Avx512::min(bound, level))
                    }};
                }
                let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
                let mut at = 0;
                while at + 8 <= count {
                    let low = _mm512_packs_epi32(integers!(at), integers!(at + 2));
                    let high = _mm512_packs_epi32(integers!(at + 4), integers!(at + 6));
                    // Quarters of registers are packed apart.
                    let packed = _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high));
                    _mm512_storeu_si512(to.add(DEPTH * at).cast(), packed);
                    at += 8;
                }
                of_floats(from.add(at * Avx2::LANES), to.add(DEPTH * at), count - at, levels, zeros);
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::*;

    use super::super::Neon;
    use super::Levels;

    /// Four of eight levels in every lane.
    #[inline(always)]
    unsafe fn four<const HALF: i32>(levels: int8x8_t) -> int8x16_t {
        // SAFETY: the caller has the instruction set.
        unsafe { vreinterpretq_s8_s32(vdupq_lane_s32::<HALF>(vreinterpret_s32_s8(levels))) }
    }

    /// Vectors of 128 bits, with the dot products that processors have since 2018 or without.
    #[derive(Clone, Copy, Debug)]
    pub(super) struct Bits128<const DOT: bool>;

    // Each function is a few instructions; the trait states what callers promise.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl<const DOT: bool> Levels for Bits128<DOT> {
        const TILE: usize = 8;
        type Block = Neon;
        type Floats = Neon;
        type Sums = int32x4_t;
        type Weights = int8x16_t;

        #[inline(always)]
        unsafe fn sums(from: *const i32) -> int32x4_t {
            unsafe { vld1q_s32(from) }
        }
        #[inline(always)]
        unsafe fn weights(from: *const i8) -> int8x16_t {
            unsafe { vld1q_s8(from) }
        }
        #[inline(always)]
        unsafe fn add_part(mut sums: int32x4_t, levels: *const u8, weights: [int8x16_t; 2], _: usize) -> int32x4_t {
            unsafe {
                let levels = vld1_s8(levels.cast());
                if DOT {
                    // The intrinsic is not stable yet.
                    std::arch::asm!(
                        ".arch_extension dotprod",
                        "sdot {sums:v}.4s, {first:v}.16b, {levels:v}.4b[0]",
                        "sdot {sums:v}.4s, {second:v}.16b, {levels:v}.4b[1]",
                        sums = inout(vreg) sums,
                        first = in(vreg) weights[0],
                        second = in(vreg) weights[1],
                        levels = in(vreg) levels,
                        options(pure, nomem, nostack, preserves_flags),
                    );
                    return sums;
                }
                let [first, second] = [four::<0>(levels), four::<1>(levels)];
                let low = vmull_s8(vget_low_s8(first), vget_low_s8(weights[0]));
                let low = vmlal_s8(low, vget_low_s8(second), vget_low_s8(weights[1]));
                let high = vmull_high_s8(first, weights[0]);
                let high = vmlal_high_s8(high, second, weights[1]);
                // Two products of 7 bits times 7 bits fit in 16 bits, and so do four.
                vpadalq_s16(sums, vpaddq_s16(low, high))
            }
        }
        #[inline(always)]
        unsafe fn floats(sums: int32x4_t) -> float32x4_t {
            unsafe { vcvtq_f32_s32(sums) }
        }
    }
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm {
    use std::arch::wasm32::*;

    use super::super::Simd128;
    use super::Levels;

    // Each function is a few instructions, for which the whole module is compiled; the trait states what callers promise.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Levels for Simd128 {
        const TILE: usize = 8;
        type Block = Self;
        type Floats = Self;
        type Sums = v128;
        type Weights = v128;

        #[inline(always)]
        unsafe fn sums(from: *const i32) -> v128 {
            unsafe { v128_load(from.cast()) }
        }
        #[inline(always)]
        unsafe fn weights(from: *const i8) -> v128 {
            unsafe { v128_load(from.cast()) }
        }
        #[inline(always)]
        unsafe fn add_part(sums: v128, levels: *const u8, weights: [v128; 2], _: usize) -> v128 {
            unsafe {
                let levels = v128_load64_zero(levels.cast());
                let first = i8x16_shuffle::<0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3>(levels, levels);
                let second = i8x16_shuffle::<4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7>(levels, levels);
                // Not relaxed-simd's dot products, of which the quick compiler of V8 11 makes other sums than its slow one.
                let low =
                    i16x8_add(i16x8_extmul_low_i8x16(first, weights[0]), i16x8_extmul_low_i8x16(second, weights[1]));
                let high =
                    i16x8_add(i16x8_extmul_high_i8x16(first, weights[0]), i16x8_extmul_high_i8x16(second, weights[1]));
                let [low, high] = [i32x4_extadd_pairwise_i16x8(low), i32x4_extadd_pairwise_i16x8(high)];
                let even = i32x4_shuffle::<0, 2, 4, 6>(low, high);
                let odd = i32x4_shuffle::<1, 3, 5, 7>(low, high);
                i32x4_add(sums, i32x4_add(even, odd))
            }
        }
        #[inline(always)]
        unsafe fn floats(sums: v128) -> v128 {
            f32x4_convert_i32x4(sums)
        }
    }
}

/// Loops over four lanes.
impl Levels for super::Plain {
    const TILE: usize = 8;
    type Block = Self;
    type Floats = Self;
    type Sums = [i32; 4];
    type Weights = [[i8; 4]; 4];

    #[inline(always)]
    unsafe fn sums(from: *const i32) -> [i32; 4] {
        // SAFETY: the caller gives four integers; no alignment is assumed.
        unsafe { from.cast::<[i32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn weights(from: *const i8) -> [[i8; 4]; 4] {
        // SAFETY: the caller gives sixteen bytes.
        unsafe { from.cast::<[[i8; 4]; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn add_part(mut sums: [i32; 4], levels: *const u8, weights: [[[i8; 4]; 4]; 2], _: usize) -> [i32; 4] {
        // SAFETY: the caller gives eight bytes.
        let levels = unsafe { levels.cast::<[[u8; 4]; 2]>().read_unaligned() };
        for (levels, weights) in levels.iter().zip(&weights) {
            for (sum, weights) in sums.iter_mut().zip(weights) {
                *sum += levels.iter().zip(weights).map(|(&a, &w)| i32::from(a) * i32::from(w)).sum::<i32>();
            }
        }
        sums
    }
    #[inline(always)]
    unsafe fn floats(sums: [i32; 4]) -> [f32; 4] {
        sums.map(|sum| sum as f32)
    }
}
