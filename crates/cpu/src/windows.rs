//! Operations that look at a window of one plane: depthwise convolution and max pooling.
//!
//! A plane is first spread into scratch with its border, and with stride 2 into even and odd columns. Then every tap
//! of the window is a contiguous row, whatever the stride.

use super::product::activate;
use super::steps::{Memory, PlaneAt, Scratch, plane_stride};
use yolo_lat_core::model::graph::Activation;
use yolo_lat_simd::Simd;

/// The geometry of a window that slides over a plane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Input rows.
    pub(super) height: usize,
    /// Input columns.
    pub(super) width: usize,
    /// Odd side of the window; the border is `kernel / 2`.
    pub(super) kernel: usize,
    /// 1 or 2.
    pub(super) stride: usize,
}

impl Window {
    pub(super) fn output_height(&self) -> usize {
        self.height.div_ceil(self.stride)
    }

    pub(super) fn output_width(&self) -> usize {
        self.width.div_ceil(self.stride)
    }

    /// Floats in one scratch row of one parity, with a vector to spare.
    fn pitch(&self) -> usize {
        (self.output_width() + self.kernel).next_multiple_of(16) + 16
    }

    /// Scratch floats for `rows` output rows of one plane.
    pub(super) fn scratch(&self, rows: usize) -> usize {
        self.input_rows(rows) * self.stride * self.pitch()
    }

    /// Input rows that `rows` output rows look at.
    fn input_rows(&self, rows: usize) -> usize {
        (rows - 1) * self.stride + self.kernel
    }

    /// Offset in scratch of what tap (`dy`, `dx`) of output (`row`, 0) reads; the next columns follow.
    #[inline(always)]
    pub(super) fn tap(&self, row: usize, dy: usize, dx: usize) -> usize {
        ((row * self.stride + dy) * self.stride + dx % self.stride) * self.pitch() + dx / self.stride
    }

    /// Spreads what output rows `first..first + rows` of `plane` need, with `border` around it.
    ///
    /// # Safety
    /// `plane` has `height * width` floats, `scratch` has `self.scratch(rows)`.
    #[inline(always)]
    pub(super) unsafe fn spread(&self, plane: *const f32, first: usize, rows: usize, border: f32, scratch: *mut f32) {
        let (reach, pitch) = (self.kernel / 2, self.pitch());
        for row in 0..self.input_rows(rows) {
            // SAFETY: each row has `stride` parities of `pitch` floats; both stay inside what the caller promised.
            unsafe {
                let target =
                    std::slice::from_raw_parts_mut(scratch.add(row * self.stride * pitch), self.stride * pitch);
                let y = (first * self.stride + row).wrapping_sub(reach);
                if y >= self.height {
                    target.fill(border);
                    continue;
                }
                let source = std::slice::from_raw_parts(plane.add(y * self.width), self.width);
                if self.stride == 1 {
                    target[..reach].fill(border);
                    target[reach..reach + self.width].copy_from_slice(source);
                    target[reach + self.width..].fill(border);
                } else {
                    let (even, odd) = target.split_at_mut(pitch);
                    spread_columns(source, reach, border, even, odd);
                }
            }
        }
    }
}

/// Divides the bordered row into columns of even and of odd index.
#[inline(always)]
fn spread_columns(source: &[f32], reach: usize, border: f32, even: &mut [f32], odd: &mut [f32]) {
    // Column x of the source is column x + reach of the bordered row.
    let (first, second) = if reach.is_multiple_of(2) { (even, odd) } else { (odd, even) };
    let (first_at, second_at) = (reach / 2, reach.div_ceil(2));
    let (pairs, rest) = source.as_chunks::<2>();
    first[..first_at].fill(border);
    second[..second_at].fill(border);
    let targets = first[first_at..].iter_mut().zip(second[second_at..].iter_mut());
    for (&[a, b], (first, second)) in pairs.iter().zip(targets) {
        (*first, *second) = (a, b);
    }
    first[first_at + pairs.len()..].fill(border);
    second[second_at + pairs.len()..].fill(border);
    if let [last] = rest {
        first[first_at + pairs.len()] = *last;
    }
}

/// Copies the picture into the arena, where rows may be read past their end.
pub(super) struct Copy {
    pub(super) inputs: Vec<PlaneAt>,
    pub(super) output: usize,
    pub(super) positions: usize,
}

impl Copy {
    pub(super) fn units(&self) -> usize {
        self.inputs.len()
    }

    pub(super) fn scratch(&self) -> (usize, usize) {
        (0, 0)
    }

    #[inline(always)]
    pub(super) unsafe fn run<S: Simd, const ROWS: usize>(&self, unit: usize, memory: Memory, _: &mut Scratch) {
        // SAFETY: both planes have `positions` floats and different homes.
        unsafe {
            let output = memory.write(self.output + unit * plane_stride(self.positions));
            output.copy_from_nonoverlapping(memory.read(self.inputs[unit]), self.positions);
        }
    }
}

/// Weights of the largest window that is unrolled, 5x5.
const LARGEST_WINDOW: usize = 25;

/// Depthwise convolution: a unit is a channel.
pub(super) struct Depthwise {
    /// `(channels, kernel * kernel)`.
    pub(super) weights: Vec<f32>,
    /// One value a channel.
    pub(super) bias: Vec<f32>,
    pub(super) inputs: Vec<PlaneAt>,
    pub(super) output: usize,
    pub(super) window: Window,
    pub(super) activation: Activation,
    pub(super) residual: Option<Vec<PlaneAt>>,
}

impl Depthwise {
    pub(super) fn units(&self) -> usize {
        self.inputs.len()
    }

    pub(super) fn scratch(&self) -> (usize, usize) {
        (self.window.scratch(self.window.output_height()), 0)
    }

    #[inline(always)]
    pub(super) unsafe fn run<S: Simd, const ROWS: usize>(&self, unit: usize, memory: Memory, scratch: &mut Scratch) {
        // SAFETY: the scratch is as large as `scratch()` says.
        unsafe {
            self.window.spread(
                memory.read(self.inputs[unit]),
                0,
                self.window.output_height(),
                0.0,
                scratch.floats.as_mut_ptr(),
            );
            // Constants let the compiler unroll the window.
            match (self.window.kernel, self.window.stride) {
                (3, 1) => self.rows::<S>(Window { kernel: 3, stride: 1, ..self.window }, unit, memory, scratch),
                (3, 2) => self.rows::<S>(Window { kernel: 3, stride: 2, ..self.window }, unit, memory, scratch),
                (5, 1) => self.rows::<S>(Window { kernel: 5, stride: 1, ..self.window }, unit, memory, scratch),
                (5, 2) => self.rows::<S>(Window { kernel: 5, stride: 2, ..self.window }, unit, memory, scratch),
                _ => self.rows::<S>(self.window, unit, memory, scratch),
            }
        }
    }

    #[inline(always)]
    unsafe fn rows<S: Simd>(&self, window: Window, channel: usize, memory: Memory, scratch: &mut Scratch) {
        let taps = window.kernel * window.kernel;
        let own = &self.weights[channel * taps..(channel + 1) * taps];
        // SAFETY: as the caller promises; `taps` weights a channel.
        unsafe {
            if taps <= LARGEST_WINDOW {
                // Spread over the lanes once a channel: with 32 registers a 5x5 window stays in them.
                let mut weights = [S::splat(0.0); LARGEST_WINDOW];
                for (weight, &value) in weights.iter_mut().zip(own) {
                    *weight = S::splat(value);
                }
                self.blocks::<S>(window, |tap| weights[tap], channel, memory, scratch);
            } else {
                self.blocks::<S>(window, |tap| S::splat(own[tap]), channel, memory, scratch);
            }
        }
    }

    #[inline(always)]
    unsafe fn blocks<S: Simd>(
        &self,
        window: Window,
        weight: impl Fn(usize) -> S::Vector,
        channel: usize,
        memory: Memory,
        scratch: &mut Scratch,
    ) {
        let height = window.output_height();
        let mut row = 0;
        // SAFETY: rows below `height`.
        unsafe {
            while row + 4 <= height {
                self.block::<S, 4>(window, &weight, channel, row, memory, scratch);
                row += 4;
            }
            while row < height {
                self.block::<S, 1>(window, &weight, channel, row, memory, scratch);
                row += 1;
            }
        }
    }

    /// `COUNT` output rows, so that a loaded input row serves several of them.
    #[inline(always)]
    unsafe fn block<S: Simd, const COUNT: usize>(
        &self,
        window: Window,
        weight: impl Fn(usize) -> S::Vector,
        channel: usize,
        row: usize,
        memory: Memory,
        scratch: &mut Scratch,
    ) {
        let Window { kernel, stride, .. } = window;
        let width = window.output_width();
        let stride_out = plane_stride(width * window.output_height());
        // SAFETY: the last vector of a row reaches past it. Going through the columns from the right, and through the
        // rows downwards, whatever it overwrites of the next row is written again afterwards; behind the last row the
        // plane has room.
        unsafe {
            let output = memory.write(self.output + channel * stride_out + row * width);
            let bias = S::splat(self.bias[channel]);
            for vector in (0..width.div_ceil(S::LANES)).rev() {
                let column = vector * S::LANES;
                let mut sums = [bias; COUNT];
                for y in 0..(COUNT - 1) * stride + kernel {
                    for dx in 0..kernel {
                        let value = S::load(scratch.floats.as_ptr().add(window.tap(row, y, dx) + column));
                        for (index, sum) in sums.iter_mut().enumerate() {
                            let dy = y.wrapping_sub(index * stride);
                            if dy < kernel {
                                *sum = S::fma(value, weight(dy * kernel + dx), *sum);
                            }
                        }
                    }
                }
                for (index, &sum) in sums.iter().enumerate() {
                    let mut value = activate::<S>(sum, self.activation);
                    if let Some(residual) = &self.residual {
                        value =
                            S::add(value, S::load(memory.read(residual[channel]).add((row + index) * width + column)));
                    }
                    S::store(output.add(index * width + column), value);
                }
            }
        }
    }
}

/// Maximum over 3x3 windows at stride 2: a unit is a channel.
pub(super) struct MaxPool {
    pub(super) inputs: Vec<PlaneAt>,
    pub(super) output: usize,
    pub(super) window: Window,
}

impl MaxPool {
    pub(super) fn units(&self) -> usize {
        self.inputs.len()
    }

    pub(super) fn scratch(&self) -> (usize, usize) {
        // A row of maxima with a vector to spare, then its columns.
        (self.window.width + 16 + 2 * self.window.pitch(), 0)
    }

    #[inline(always)]
    pub(super) unsafe fn run<S: Simd, const ROWS: usize>(&self, unit: usize, memory: Memory, scratch: &mut Scratch) {
        let window = Window { kernel: 3, stride: 2, ..self.window };
        let (width, height) = (window.output_width(), window.output_height());
        let Scratch { floats, .. } = scratch;
        let (peaks, spread) = floats.split_at_mut(window.width + S::LANES);
        let (even, odd) = spread[..2 * window.pitch()].split_at_mut(window.pitch());
        // SAFETY: as in `Depthwise::block`; `peaks` has room for a vector past the row, planes may be read past their end.
        unsafe {
            let input = memory.read(self.inputs[unit]);
            let output = memory.write(self.output + unit * plane_stride(width * height));
            for row in 0..height {
                // Downwards first: then one row is divided into its columns instead of three. Outside, the middle row
                // stands in, which changes no maximum.
                let middle = 2 * row;
                let rows = [middle.saturating_sub(1), middle, (middle + 1).min(window.height - 1)];
                let rows = rows.map(|row| input.add(row * window.width));
                for vector in 0..window.width.div_ceil(S::LANES) {
                    let [above, at, below] = rows.map(|row| S::load(row.add(vector * S::LANES)));
                    S::store(peaks.as_mut_ptr().add(vector * S::LANES), S::max(S::max(above, at), below));
                }
                spread_columns(&peaks[..window.width], 1, f32::NEG_INFINITY, even, odd);
                for vector in (0..width.div_ceil(S::LANES)).rev() {
                    let column = vector * S::LANES;
                    let left = S::load(even.as_ptr().add(column));
                    let at = S::load(odd.as_ptr().add(column));
                    let right = S::load(even.as_ptr().add(column + 1));
                    S::store(output.add(row * width + column), S::max(S::max(left, at), right));
                }
            }
        }
    }
}
