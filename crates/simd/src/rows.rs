//! Rows of pixels to shorter or longer ones, straight into planes of floats.

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use std::arch::wasm32::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use crate::InstructionSet;

/// Taps that are weighed together: of the five pixels in 16 bytes four are used.
const TAPS: usize = 4;
/// Bytes of these taps, and bytes that are read for them.
const STEP: usize = 3 * TAPS;
const READ: usize = 16;
/// Output pixels that are computed together, in two halves of a vector.
const TOGETHER: usize = 8;
const HALF: usize = TOGETHER / 2;
/// Weights of a group of taps for so many pixels: each pair of taps four times, for the three channels and one that is not there.
const GROUP: usize = TOGETHER * TAPS * 4;
/// Bits of a weight, without its sign, and the most that may stand behind the point.
const BITS: u32 = 15;
const MOST_PRECISION: u32 = 22;

/// How a row of RGB becomes one of another length: bilinear over the whole footprint of an output pixel, so antialiased when it shrinks,
/// with whole weights and rounded to bytes, as image libraries do it.
#[derive(Clone, Debug, PartialEq)]
pub struct RowFilter {
    from: usize,
    to: usize,
    /// Groups of taps a pixel.
    groups: usize,
    /// The byte where the first tap of each output pixel begins.
    starts: Vec<u32>,
    /// (blocks of 8 pixels, groups, 4, pairs of taps, halves, copies, taps of the pair): see [`place`].
    weights: Vec<i16>,
    /// Weights count in 2^-precision.
    precision: u32,
}

impl RowFilter {
    /// From `from` pixels to `to`.
    ///
    /// # Panics
    /// Either is none.
    pub fn new(from: usize, to: usize) -> Self {
        assert!(from > 0 && to > 0, "{from} to {to} pixels");
        let scale = from as f64 / to as f64;
        let radius = scale.max(1.0);
        // The first tap of an output pixel, and the weights from there.
        let taps = |pixel: usize| {
            let centre = (pixel as f64 + 0.5) * scale;
            let weight = |tap: &usize| 1.0 - ((*tap as f64 + 0.5 - centre) / radius).abs();
            let (first, end) =
                ((centre - radius).floor().max(0.0) as usize, ((centre + radius).ceil() as usize).min(from));
            let taps: Vec<usize> = (first..end).filter(|tap| weight(tap) > 0.0).collect();
            let total: f64 = taps.iter().map(weight).sum();
            (taps[0], taps.iter().map(|tap| weight(tap) / total).collect::<Vec<f64>>())
        };
        let taps: Vec<(usize, Vec<f64>)> = (0..to).map(taps).collect();
        let largest = taps.iter().flat_map(|(_, weights)| weights).copied().fold(0.0, f64::max);
        let whole = |weight: f64, precision: u32| (weight * f64::from(1 << precision)).round();
        let fits = |precision: &u32| whole(largest, precision + 1) < f64::from(1 << BITS);
        let precision = (0..MOST_PRECISION).take_while(fits).count() as u32;
        let groups = taps.iter().map(|(_, weights)| weights.len().div_ceil(TAPS)).max().unwrap_or(1);
        let mut all = vec![0; to.div_ceil(TOGETHER) * groups * GROUP];
        for (pixel, (_, weights)) in taps.iter().enumerate() {
            for (tap, &weight) in weights.iter().enumerate() {
                for copy in 0..4 {
                    all[place(groups, pixel, tap) + 2 * copy] = whole(weight, precision) as i16;
                }
            }
        }
        let starts = taps.iter().map(|(first, _)| 3 * *first as u32).collect();
        Self { from, to, groups, starts, weights: all, precision }
    }

    /// Whether this machine has vectors for it.
    pub fn is_fast() -> bool {
        match InstructionSet::best() {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 | InstructionSet::Avx2 => true,
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            InstructionSet::Simd128 => true,
            _ => false,
        }
    }

    /// Bytes from the beginning of a row that must be there, whatever they are behind its end.
    pub fn reach(&self) -> usize {
        3 * self.from + STEP * self.groups + READ
    }

    /// The row of RGB that `bytes` begin with into planes of floats, `byte * factor + shift`: the same on every machine.
    ///
    /// # Panics
    /// There are fewer than [`RowFilter::reach`] bytes, or a plane has another length than the filter.
    pub fn apply(&self, bytes: &[u8], mut planes: [&mut [f32]; 3], factors: [f32; 3], shifts: [f32; 3]) {
        assert!(bytes.len() >= self.reach(), "{} bytes where {} may be read", bytes.len(), self.reach());
        assert!(planes.iter().all(|plane| plane.len() == self.to), "planes are not of {} pixels", self.to);
        #[cfg(any(target_arch = "x86_64", all(target_arch = "wasm32", target_feature = "simd128")))]
        let done = if Self::is_fast() {
            // SAFETY: the sets that are fast have AVX2, or are the module's own; lengths are those of the filter.
            unsafe { self.blocks(bytes, &mut planes, factors, shifts) };
            self.to / TOGETHER * TOGETHER
        } else {
            0
        };
        #[cfg(not(any(target_arch = "x86_64", all(target_arch = "wasm32", target_feature = "simd128"))))]
        let done = 0;
        self.pixels(done, bytes, &mut planes, factors, shifts);
    }

    /// Pixel by pixel from `begin`.
    fn pixels(&self, begin: usize, bytes: &[u8], planes: &mut [&mut [f32]; 3], factors: [f32; 3], shifts: [f32; 3]) {
        for pixel in begin..self.to {
            let mut sums = [1 << self.precision >> 1; 3];
            let taps = bytes[self.starts[pixel] as usize..].as_chunks::<3>().0;
            for (tap, bytes) in taps.iter().take(TAPS * self.groups).enumerate() {
                let weight = i32::from(self.weights[place(self.groups, pixel, tap)]);
                sums.iter_mut().zip(bytes).for_each(|(sum, byte)| *sum += weight * i32::from(*byte));
            }
            for (channel, plane) in planes.iter_mut().enumerate() {
                plane[pixel] = (sums[channel] >> self.precision) as f32 * factors[channel] + shifts[channel];
            }
        }
    }

    /// All blocks of 8 pixels.
    ///
    /// # Safety
    /// There is AVX2; `bytes` has [`RowFilter::reach`] and each plane the filter's length.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    unsafe fn blocks(&self, bytes: &[u8], planes: &mut [&mut [f32]; 3], factors: [f32; 3], shifts: [f32; 3]) {
        const NONE: i8 = -1;
        // Both taps of a pair side by side, channel by channel, in 16 bits.
        let pairs = [
            _mm_setr_epi8(0, NONE, 3, NONE, 1, NONE, 4, NONE, 2, NONE, 5, NONE, NONE, NONE, NONE, NONE),
            _mm_setr_epi8(6, NONE, 9, NONE, 7, NONE, 10, NONE, 8, NONE, 11, NONE, NONE, NONE, NONE, NONE),
        ]
        .map(|pair| _mm256_broadcastsi128_si256(pair));
        let half = _mm256_set1_epi32(1 << self.precision >> 1);
        let precision = _mm_cvtsi32_si128(self.precision as i32);
        let blocks = self.starts.as_chunks::<TOGETHER>().0.iter().zip(self.weights.chunks_exact(self.groups * GROUP));
        for (block, (starts, weights)) in blocks.enumerate() {
            let mut sums = [half; HALF];
            for (group, weights) in weights.as_chunks::<GROUP>().0.iter().enumerate() {
                // SAFETY: a tap begins within the row, and `reach` counts what is read behind it.
                let taps = |pixel: usize| unsafe {
                    _mm_loadu_si128(bytes.as_ptr().add(starts[pixel] as usize + STEP * group).cast())
                };
                for (pixel, sum) in sums.iter_mut().enumerate() {
                    let taps = _mm256_set_m128i(taps(pixel + HALF), taps(pixel));
                    for (pair, order) in pairs.iter().enumerate() {
                        let weights = &weights[(2 * pixel + pair) * 16..][..16];
                        // SAFETY: 16 weights.
                        let weights = unsafe { _mm256_loadu_si256(weights.as_ptr().cast()) };
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_shuffle_epi8(taps, *order), weights));
                    }
                }
            }
            // Channels of a pixel to pixels of a channel.
            let [a, b, c, d] = sums;
            let (low, high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
            let (low_blue, high_blue) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
            let channels = [
                _mm256_unpacklo_epi64(low, high),
                _mm256_unpackhi_epi64(low, high),
                _mm256_unpacklo_epi64(low_blue, high_blue),
            ];
            for (channel, sums) in channels.into_iter().enumerate() {
                let bytes = _mm256_cvtepi32_ps(_mm256_sra_epi32(sums, precision));
                let scaled = _mm256_mul_ps(bytes, _mm256_set1_ps(factors[channel]));
                let values = _mm256_add_ps(scaled, _mm256_set1_ps(shifts[channel]));
                let plane = &mut planes[channel][TOGETHER * block..][..TOGETHER];
                // SAFETY: 8 floats.
                unsafe { _mm256_storeu_ps(plane.as_mut_ptr(), values) };
            }
        }
    }
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
impl RowFilter {
    /// All blocks of 8 pixels, each half of one in a vector of its own.
    ///
    /// # Safety
    /// `bytes` has [`RowFilter::reach`] and each plane the filter's length.
    unsafe fn blocks(&self, bytes: &[u8], planes: &mut [&mut [f32]; 3], factors: [f32; 3], shifts: [f32; 3]) {
        const NONE: i8 = -1;
        // Both taps of a pair side by side, channel by channel, in 16 bits.
        let pairs = [
            i8x16(0, NONE, 3, NONE, 1, NONE, 4, NONE, 2, NONE, 5, NONE, NONE, NONE, NONE, NONE),
            i8x16(6, NONE, 9, NONE, 7, NONE, 10, NONE, 8, NONE, 11, NONE, NONE, NONE, NONE, NONE),
        ];
        let half = i32x4_splat(1 << self.precision >> 1);
        let blocks = self.starts.as_chunks::<TOGETHER>().0.iter().zip(self.weights.chunks_exact(self.groups * GROUP));
        for (block, (starts, weights)) in blocks.enumerate() {
            for (part, starts) in starts.as_chunks::<HALF>().0.iter().enumerate() {
                let mut sums = [half; HALF];
                for (group, weights) in weights.as_chunks::<GROUP>().0.iter().enumerate() {
                    for (pixel, sum) in sums.iter_mut().enumerate() {
                        // SAFETY: a tap begins within the row, and `reach` counts what is read behind it.
                        let taps =
                            unsafe { v128_load(bytes.as_ptr().add(starts[pixel] as usize + STEP * group).cast()) };
                        for (pair, order) in pairs.iter().enumerate() {
                            let weights = &weights[((2 * pixel + pair) * 2 + part) * 8..][..8];
                            // SAFETY: 8 weights.
                            let weights = unsafe { v128_load(weights.as_ptr().cast()) };
                            *sum = i32x4_add(*sum, i32x4_dot_i16x8(i8x16_swizzle(taps, *order), weights));
                        }
                    }
                }
                // Channels of a pixel to pixels of a channel.
                let [a, b, c, d] = sums;
                let (low, high) = (i32x4_shuffle::<0, 4, 1, 5>(a, b), i32x4_shuffle::<0, 4, 1, 5>(c, d));
                let (low_blue, high_blue) = (i32x4_shuffle::<2, 6, 3, 7>(a, b), i32x4_shuffle::<2, 6, 3, 7>(c, d));
                let channels = [
                    i64x2_shuffle::<0, 2>(low, high),
                    i64x2_shuffle::<1, 3>(low, high),
                    i64x2_shuffle::<0, 2>(low_blue, high_blue),
                ];
                for (channel, sums) in channels.into_iter().enumerate() {
                    let bytes = f32x4_convert_i32x4(i32x4_shr(sums, self.precision));
                    let values =
                        f32x4_add(f32x4_mul(bytes, f32x4_splat(factors[channel])), f32x4_splat(shifts[channel]));
                    let plane = &mut planes[channel][TOGETHER * block + HALF * part..][..HALF];
                    // SAFETY: 4 floats.
                    unsafe { v128_store(plane.as_mut_ptr().cast(), values) };
                }
            }
        }
    }
}

/// Pixels of four bytes without their last.
///
/// # Panics
/// There are not as many of one as of the other.
pub fn rgb_of_rgba(rgba: &[[u8; 4]], rgb: &mut [[u8; 3]]) {
    assert_eq!(rgba.len(), rgb.len(), "pixels");
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    let (rgba, rgb) = {
        let (whole, rest) = rgba.as_chunks::<16>();
        let (to, to_rest) = rgb.as_chunks_mut::<16>();
        for (rgba, rgb) in whole.iter().zip(to) {
            let (from, to): (*const v128, *mut v128) = (rgba.as_ptr().cast(), rgb.as_mut_ptr().cast());
            // SAFETY: 16 pixels are 4 vectors on one side, 3 on the other.
            unsafe {
                let [a, b, c, d] = [0, 1, 2, 3].map(|at| v128_load(from.add(at)));
                v128_store(to, i8x16_shuffle::<0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 16, 17, 18, 20>(a, b));
                v128_store(
                    to.add(1),
                    i8x16_shuffle::<5, 6, 8, 9, 10, 12, 13, 14, 16, 17, 18, 20, 21, 22, 24, 25>(b, c),
                );
                v128_store(
                    to.add(2),
                    i8x16_shuffle::<10, 12, 13, 14, 16, 17, 18, 20, 21, 22, 24, 25, 26, 28, 29, 30>(c, d),
                );
            }
        }
        (rest, to_rest)
    };
    for (rgb, [red, green, blue, _]) in rgb.iter_mut().zip(rgba) {
        *rgb = [*red, *green, *blue];
    }
}

/// Where the first copy of a tap's weight lies. The vectors want pixels `k` and `k + 4` side by side, each pair of taps once a channel.
fn place(groups: usize, pixel: usize, tap: usize) -> usize {
    let (block, half, pixel) = (pixel / TOGETHER, pixel % TOGETHER / HALF, pixel % HALF);
    let (group, pair, odd) = (tap / TAPS, tap % TAPS / 2, tap % 2);
    (block * groups + group) * GROUP + ((2 * pixel + pair) * 2 + half) * 8 + odd
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(bytes: usize) -> Vec<u8> {
        (0..bytes as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
    }

    fn planes(filter: &RowFilter, apply: impl FnOnce([&mut [f32]; 3])) -> [Vec<f32>; 3] {
        let mut planes = [(); 3].map(|()| vec![f32::NAN; filter.to]);
        apply(planes.each_mut().map(Vec::as_mut_slice));
        planes
    }

    #[test]
    fn vectors_give_what_pixel_by_pixel_gives() {
        for (from, to) in [(640, 384), (1920, 416), (100, 320), (7, 33), (1, 1), (1, 40), (5000, 8), (33, 33), (9, 8)] {
            let filter = RowFilter::new(from, to);
            let bytes = row(filter.reach());
            let (factors, shifts) = ([1.0 / 255.0, 0.5, 2.0], [0.0, -1.0, 3.0]);
            let one = planes(&filter, |mut planes| filter.pixels(0, &bytes, &mut planes, factors, shifts));
            let all = planes(&filter, |planes| filter.apply(&bytes, planes, factors, shifts));
            assert_eq!(one, all, "{from} to {to}");
        }
    }

    #[test]
    fn a_fourth_byte_is_left_out() {
        for pixels in [0, 1, 15, 16, 17, 50] {
            let rgba = row(4 * pixels);
            let mut rgb = vec![[0; 3]; pixels];
            rgb_of_rgba(rgba.as_chunks().0, &mut rgb);
            for (at, pixel) in rgb.iter().enumerate() {
                assert_eq!(pixel[..], rgba[4 * at..4 * at + 3], "pixel {at} of {pixels}");
            }
        }
    }

    #[test]
    fn a_row_of_its_own_length_stays() {
        let filter = RowFilter::new(19, 19);
        let bytes = row(filter.reach());
        let planes = planes(&filter, |planes| filter.apply(&bytes, planes, [1.0; 3], [0.0; 3]));
        for (at, byte) in bytes[..57].iter().enumerate() {
            assert_eq!(planes[at % 3][at / 3], f32::from(*byte));
        }
    }

    #[test]
    fn white_stays_white_and_what_lies_behind_a_row_does_not_count() {
        for (from, to) in [(640, 384), (1999, 32), (3, 64), (1, 9)] {
            let filter = RowFilter::new(from, to);
            let mut bytes = vec![255; 3 * from];
            bytes.resize(filter.reach(), 0);
            let planes = planes(&filter, |planes| filter.apply(&bytes, planes, [1.0; 3], [0.0; 3]));
            assert!(planes.iter().flatten().all(|value| *value == 255.0), "{from} to {to}");
        }
    }
}
