//! Operations that look at a window of one channel: depthwise convolution and max pooling, a block of channels at a time.

use super::elementwise::activate;
use super::memory::{Aligned, Memory, unrolled};
use super::touched::Touched;
use super::window::{Division, Window};
use yolo_lat_core::model::graph::Activation;
use yolo_lat_simd::Simd;

/// Depthwise convolution.
pub(super) struct Depthwise {
    /// `[block][tap][lane]`.
    pub(super) weights: Aligned,
    /// `[block][lane]`.
    pub(super) bias: Aligned,
    /// Of each block.
    pub(super) inputs: Vec<usize>,
    pub(super) output: usize,
    pub(super) window: Window,
    pub(super) activation: Activation,
    /// Of each block.
    pub(super) residual: Option<Vec<usize>>,
}

/// Outputs that are summed up together. Maps of images whose sides are multiples of 320 have widths of multiples of ten.
const TILE: usize = 10;

/// One row of one block.
struct Row<'a> {
    weights: *const f32,
    bias: *const f32,
    /// The block at position 0.
    input: *const f32,
    output: *mut f32,
    residual: Option<*const f32>,
    window: &'a Window,
    row: usize,
    activation: Activation,
}

impl Depthwise {
    fn division(&self) -> Division {
        let Window { kernel, .. } = self.window;
        Division::new(self.inputs.len(), self.window.output_height, self.window.output_width * kernel * kernel)
    }

    pub(super) fn units(&self) -> usize {
        self.division().units()
    }

    pub(super) fn scratch(&self) -> usize {
        0
    }

    pub(super) fn touches(&self, unit: usize, touched: &mut Touched) {
        let written = under_windows(&self.window, self.division(), unit, &self.inputs, self.output, touched);
        touched.reads(self.residual.as_deref().unwrap_or_default(), written);
    }

    #[inline(always)]
    pub(super) unsafe fn run<S: Simd, W: Simd>(&self, unit: usize, memory: Memory, _: *mut f32) {
        let window = &self.window;
        let (blocks, rows) = self.division().unit(unit);
        for block in blocks {
            for row in rows.clone() {
                let at = S::LANES * row * window.output_width;
                // SAFETY: offsets are the plan's; this unit alone writes these rows of these blocks.
                unsafe {
                    let row = Row {
                        weights: self.weights.as_ptr().add(block * window.kernel * window.kernel * S::LANES),
                        bias: self.bias.as_ptr().add(block * S::LANES),
                        input: memory.read(self.inputs[block]),
                        output: memory.write(self.output + block * S::LANES * window.outputs() + at),
                        residual: self.residual.as_ref().map(|blocks| memory.read(blocks[block] + at)),
                        window,
                        row,
                        activation: self.activation,
                    };
                    row.run::<S, W>();
                }
            }
        }
    }
}

impl Row<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, W: Simd>(&self) {
        let width = self.window.output_width;
        let reach = self.window.kernel / 2;
        if W::LANES == 2 * S::LANES && width >= TILE && self.window.stride == 1 {
            // SAFETY: the window is one of those.
            unsafe {
                match self.window.kernel {
                    3 => return self.run_pairs::<S, W, 3>(),
                    5 => return self.run_pairs::<S, W, 5>(),
                    _ => {}
                }
            }
        }
        let unrolled = matches!((self.window.kernel, self.window.stride), (3 | 5, 1 | 2));
        // SAFETY: tiles lie inside the row; the last one ends with it and computes some outputs again.
        unsafe {
            if width < TILE || !unrolled {
                for x in 0..width {
                    self.single::<S>(x);
                }
                return;
            }
            for x in (0..width).step_by(TILE) {
                let x = x.min(width - TILE);
                // Columns of the window that lie outside, on the left and on the right.
                let (left, right) = (reach.saturating_sub(x), (x + TILE + reach).saturating_sub(width));
                match (self.window.kernel, self.window.stride, left, right) {
                    (3, 1, 0, 0) => self.tile::<S, 3, 0, 0>(x),
                    (3, 1, 1, 0) => self.tile::<S, 3, 1, 0>(x),
                    (3, 1, 0, 1) => self.tile::<S, 3, 0, 1>(x),
                    (3, 1, 1, 1) => self.tile::<S, 3, 1, 1>(x),
                    (5, 1, 0, 0) => self.tile::<S, 5, 0, 0>(x),
                    (5, 1, 2, 0) => self.tile::<S, 5, 2, 0>(x),
                    (5, 1, 0, 2) => self.tile::<S, 5, 0, 2>(x),
                    (5, 1, 2, 2) => self.tile::<S, 5, 2, 2>(x),
                    (3, 2, ..) => self.strided::<S, 3>(x),
                    (5, 2, ..) => self.strided::<S, 5>(x),
                    // No closure, which may not be inlined: `scripts/check-kernels`.
                    _ => {
                        for x in x..x + TILE {
                            self.single::<S>(x);
                        }
                    }
                }
            }
        }
    }

    /// The rows of the window that lie inside of the map, with the first of them in the map.
    #[inline(always)]
    fn rows(&self) -> (std::ops::Range<usize>, usize) {
        let Window { height, kernel, stride, .. } = *self.window;
        let (top, reach) = (self.row * stride, kernel / 2);
        let first = reach.saturating_sub(top);
        (first..kernel.min(height + reach - top), top + first - reach)
    }

    /// `TILE` outputs from `x` at stride 1: every input is loaded once and goes into up to `K` sums. `LEFT` and `RIGHT`
    /// columns of inputs lie outside.
    #[inline(always)]
    unsafe fn tile<S: Simd, const K: usize, const LEFT: usize, const RIGHT: usize>(&self, x: usize) {
        let (rows, first) = self.rows();
        // SAFETY: inputs that lie outside are not read.
        unsafe {
            let mut sums = [S::load(self.bias); TILE];
            let row_stride = self.window.width * S::LANES;
            let mut input =
                self.input.wrapping_add((first * self.window.width + x) * S::LANES).wrapping_sub(K / 2 * S::LANES);
            let mut weights = self.weights.add(rows.start * K * S::LANES);
            for _ in rows {
                let mut taps = [S::splat(0.0); K];
                for (k, tap) in taps.iter_mut().enumerate() {
                    *tap = S::load(weights.add(k * S::LANES));
                }
                macro_rules! walk {
                    ($i:literal) => {
                        if $i >= LEFT && $i < TILE + K - 1 - RIGHT {
                            let value = S::load(input.wrapping_add($i * S::LANES));
                            macro_rules! tap {
                                ($k:literal) => {
                                    if $k < K && $i >= $k && $i - $k < TILE {
                                        let sum = &mut sums[($i - $k as usize) % TILE];
                                        *sum = S::fma(value, taps[$k % K], *sum);
                                    }
                                };
                            }
                            unrolled!(tap: 0usize 1usize 2usize 3usize 4usize);
                        }
                    };
                }
                unrolled!(walk: 0usize 1usize 2usize 3usize 4usize 5usize 6usize 7usize 8usize 9usize 10usize 11usize 12usize 13usize);
                input = input.wrapping_add(row_stride);
                weights = weights.add(K * S::LANES);
            }
            self.finish::<S, TILE>(x * S::LANES, sums);
        }
    }

    /// A row at stride 1 where a vector holds one block at two positions: twice as many outputs a tile, as long as there are so many.
    #[inline(always)]
    unsafe fn run_pairs<S: Simd, W: Simd, const K: usize>(&self) {
        let (width, reach) = (self.window.output_width, K / 2);
        let mut x = 0;
        // SAFETY: tiles lie inside the row; the last one ends with it and computes some outputs again.
        unsafe {
            while x < width {
                let outputs = if x + 2 * TILE <= width { 2 * TILE } else { TILE };
                x = x.min(width - outputs);
                macro_rules! pairs {
                    ($vectors:expr) => {
                        match (reach.saturating_sub(x), (x + outputs + reach).saturating_sub(width)) {
                            (0, 0) => self.pairs::<S, W, K, { $vectors }, false, false>(x),
                            (left, 0) if left == reach => self.pairs::<S, W, K, { $vectors }, true, false>(x),
                            (0, right) if right == reach => self.pairs::<S, W, K, { $vectors }, false, true>(x),
                            (left, right) if left == reach && right == reach => {
                                self.pairs::<S, W, K, { $vectors }, true, true>(x)
                            }
                            _ => {
                                for x in x..x + outputs {
                                    self.single::<S>(x);
                                }
                            }
                        }
                    };
                }
                if outputs == TILE {
                    pairs!(TILE / 2)
                } else {
                    pairs!(TILE)
                }
                x += outputs;
            }
        }
    }

    /// `N` vectors of two outputs each from `x` at stride 1: the inputs of two neighbours are one after the other. All columns of the window
    /// that can lie outside do so on the left (`LEFT`), on the right (`RIGHT`).
    #[inline(always)]
    unsafe fn pairs<S: Simd, W: Simd, const K: usize, const N: usize, const LEFT: bool, const RIGHT: bool>(
        &self,
        x: usize,
    ) {
        let (rows, first) = self.rows();
        let nothing = [0.0; 16];
        // SAFETY: inputs that lie outside are not read.
        unsafe {
            let mut sums = [W::load_twice(self.bias); N];
            let row_stride = self.window.width * S::LANES;
            let mut input =
                self.input.wrapping_add((first * self.window.width + x) * S::LANES).wrapping_sub(K / 2 * S::LANES);
            let mut weights = self.weights.add(rows.start * K * S::LANES);
            // Columns that lie inside: vector i holds i and i + 1.
            let (start, end) = (if LEFT { K / 2 } else { 0 }, 2 * N + K - 1 - if RIGHT { K / 2 } else { 0 });
            for _ in rows {
                let mut taps = [W::splat(0.0); K];
                for (k, tap) in taps.iter_mut().enumerate() {
                    *tap = W::load_twice(weights.add(k * S::LANES));
                }
                macro_rules! walk {
                    ($i:literal) => {
                        if $i + 1 >= start && $i < end {
                            let at = input.wrapping_add($i * S::LANES);
                            let value = if $i < start {
                                W::load_halves(nothing.as_ptr(), at.wrapping_add(S::LANES))
                            } else if $i + 1 == end {
                                W::load_halves(at, nothing.as_ptr())
                            } else {
                                W::load(at)
                            };
                            macro_rules! tap {
                                ($k:literal) => {
                                    if $k < K && $i >= $k && ($i - $k) % 2 == 0 && ($i - $k) / 2 < N {
                                        let sum = &mut sums[($i - $k as usize) / 2 % N];
                                        *sum = W::fma(value, taps[$k % K], *sum);
                                    }
                                };
                            }
                            unrolled!(tap: 0usize 1usize 2usize 3usize 4usize);
                        }
                    };
                }
                unrolled!(walk: 0usize 1usize 2usize 3usize 4usize 5usize 6usize 7usize 8usize 9usize 10usize 11usize);
                unrolled!(walk: 12usize 13usize 14usize 15usize 16usize 17usize 18usize 19usize 20usize 21usize 22usize);
                input = input.wrapping_add(row_stride);
                weights = weights.add(K * S::LANES);
            }
            self.finish::<W, N>(x * S::LANES, sums);
        }
    }

    /// `TILE` outputs from `x` at stride 2, where two outputs share few inputs.
    #[inline(always)]
    unsafe fn strided<S: Simd, const K: usize>(&self, x: usize) {
        let (rows, first) = self.rows();
        let width = self.window.width;
        // SAFETY: only the first and the last output have inputs outside, which are not read.
        unsafe {
            let mut sums = [S::load(self.bias); TILE];
            for (index, dy) in rows.enumerate() {
                let row = self.input.add((first + index) * width * S::LANES);
                for dx in 0..K {
                    let weight = S::load(self.weights.add((dy * K + dx) * S::LANES));
                    let column = (2 * x + dx).wrapping_sub(K / 2);
                    let input = row.wrapping_add(column.wrapping_mul(S::LANES));
                    if column < width {
                        sums[0] = S::fma(S::load(input), weight, sums[0]);
                    }
                    macro_rules! tap {
                        ($t:literal) => {
                            sums[$t] = S::fma(S::load(input.wrapping_add(2 * $t * S::LANES)), weight, sums[$t]);
                        };
                    }
                    unrolled!(tap: 1 2 3 4 5 6 7 8);
                    if column.wrapping_add(2 * (TILE - 1)) < width {
                        let input = input.wrapping_add(2 * (TILE - 1) * S::LANES);
                        sums[TILE - 1] = S::fma(S::load(input), weight, sums[TILE - 1]);
                    }
                }
            }
            self.finish::<S, TILE>(x * S::LANES, sums);
        }
    }

    /// One output, of any window.
    #[inline(always)]
    unsafe fn single<S: Simd>(&self, x: usize) {
        let Window { width, kernel, stride, .. } = *self.window;
        let (rows, first) = self.rows();
        // SAFETY: inputs that lie outside are not read.
        unsafe {
            let mut sum = S::load(self.bias);
            for (index, dy) in rows.enumerate() {
                for dx in 0..kernel {
                    let column = (stride * x + dx).wrapping_sub(kernel / 2);
                    if column < width {
                        let value = S::load(self.input.add(((first + index) * width + column) * S::LANES));
                        sum = S::fma(value, S::load(self.weights.add((dy * kernel + dx) * S::LANES)), sum);
                    }
                }
            }
            self.finish::<S, 1>(x * S::LANES, [sum]);
        }
    }

    /// Activation, residual, and where the outputs go: float `at` of the row and what follows.
    #[inline(always)]
    unsafe fn finish<S: Simd, const N: usize>(&self, at: usize, sums: [S::Vector; N]) {
        let mut sums = [sums];
        // SAFETY: these outputs lie inside the row.
        unsafe {
            activate::<S, 1, N>(&mut sums, self.activation);
            if let Some(residual) = self.residual {
                for (index, sum) in sums[0].iter_mut().enumerate() {
                    *sum = S::add(*sum, S::load(residual.add(at + index * S::LANES)));
                }
            }
            for (index, &sum) in sums[0].iter().enumerate() {
                S::store(self.output.add(at + index * S::LANES), sum);
            }
        }
    }
}

/// What a unit of rows reads under windows of blocks `inputs`, and writes; the positions of it.
fn under_windows(
    window: &Window,
    division: Division,
    unit: usize,
    inputs: &[usize],
    output: usize,
    touched: &mut Touched,
) -> std::ops::Range<usize> {
    let (blocks, rows) = division.unit(unit);
    let read = window.input_rows(rows.clone());
    touched.reads(&inputs[blocks.clone()], read.start * window.width..read.end * window.width);
    let written = rows.start * window.output_width..rows.end * window.output_width;
    touched.writes(output, blocks.len(), window.outputs(), written.clone());
    written
}

/// Maximum over 3x3 windows at stride 2.
pub(super) struct MaxPool {
    /// Of each block.
    pub(super) inputs: Vec<usize>,
    pub(super) output: usize,
    pub(super) window: Window,
}

impl MaxPool {
    fn division(&self) -> Division {
        Division::new(self.inputs.len(), self.window.output_height, self.window.output_width * 9)
    }

    pub(super) fn units(&self) -> usize {
        self.division().units()
    }

    pub(super) fn scratch(&self) -> usize {
        0
    }

    pub(super) fn touches(&self, unit: usize, touched: &mut Touched) {
        under_windows(&self.window, self.division(), unit, &self.inputs, self.output, touched);
    }

    #[inline(always)]
    pub(super) unsafe fn run<S: Simd>(&self, unit: usize, memory: Memory, _: *mut f32) {
        let window = &self.window;
        let (blocks, rows) = self.division().unit(unit);
        for block in blocks {
            for row in rows.clone() {
                // SAFETY: offsets are the plan's; this unit alone writes these rows of these blocks.
                unsafe {
                    let from = window
                        .pool_rows(row)
                        .map(|row| memory.read(self.inputs[block] + row * window.width * S::LANES));
                    let to = self.output + S::LANES * (block * window.outputs() + row * window.output_width);
                    pool_row::<S>(from, window, memory.write(to));
                }
            }
        }
    }
}

/// Maxima of one output row from the three input rows under its windows.
///
/// # Safety
/// The pointers are valid for whole rows.
#[inline(always)]
pub(super) unsafe fn pool_row<S: Simd>(rows: [*const f32; 3], window: &Window, output: *mut f32) {
    let width = window.width;
    // SAFETY: columns below `width`.
    unsafe {
        let [above, at, below] = rows;
        // No closure, which may not be inlined: `scripts/check-kernels`.
        macro_rules! column {
            ($x:expr) => {{
                let x = $x * S::LANES;
                S::max(S::max(S::load(above.add(x)), S::load(at.add(x))), S::load(below.add(x)))
            }};
        }
        // Outside, the middle column stands in, which changes no maximum.
        let mut left = column!(0);
        for x in 0..window.output_width {
            let middle = column!(2 * x);
            let right = if 2 * x + 1 < width { column!(2 * x + 1) } else { middle };
            S::store(output.add(x * S::LANES), S::max(S::max(left, middle), right));
            left = right;
        }
    }
}
