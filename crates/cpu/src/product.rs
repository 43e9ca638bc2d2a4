//! Convolutions as matrix products without im2col: the rows of the right-hand matrix are read where they lie.
//!
//! Out (channels, positions) = W (channels, depth) x In (depth, positions). For a 1x1 convolution a row of In is a
//! channel plane. For a larger window it is a plane shifted by a tap, which with stride 2 is a row of even or of odd
//! columns. A tile of `ROWS` channels by up to `TILE_VECTORS` vectors stays in registers for the whole depth.

use super::steps::{Memory, PlaneAt, Scratch};
use super::windows::Window;
use yolo_lat_core::model::graph::Activation;
use yolo_lat_simd::{InstructionSet, Simd};

/// Filters packed for tiles: `[block][depth][row]`, the last block filled up with zeros.
#[derive(Clone, Copy)]
pub(super) struct Filters<'a> {
    pub(super) weights: &'a [f32],
    /// One value a row of every block.
    pub(super) bias: &'a [f32],
    /// Output channels.
    pub(super) channels: usize,
    /// Values in one output's filter.
    pub(super) depth: usize,
}

/// [`Filters`] that a plan owns.
pub(super) struct Packed {
    weights: Vec<f32>,
    bias: Vec<f32>,
    /// Output channels.
    channels: usize,
    /// Values in one output's filter.
    depth: usize,
}

impl Packed {
    /// `weights` (channels, depth) row-major, `bias` (channels), for tiles of `rows` channels.
    pub(super) fn new(weights: &[f32], bias: &[f32], rows: usize) -> Self {
        let channels = bias.len();
        let depth = weights.len() / channels;
        let blocks = channels.div_ceil(rows);
        let mut packed = vec![0.0; blocks * depth * rows];
        for (channel, filter) in weights.chunks_exact(depth).enumerate() {
            for (k, &weight) in filter.iter().enumerate() {
                packed[(channel / rows * depth + k) * rows + channel % rows] = weight;
            }
        }
        let mut padded = bias.to_vec();
        padded.resize(blocks * rows, 0.0);
        Self { weights: packed, bias: padded, channels, depth }
    }

    #[inline(always)]
    fn filters(&self) -> Filters<'_> {
        Filters { weights: &self.weights, bias: &self.bias, channels: self.channels, depth: self.depth }
    }
}

/// Where a product's tiles go and what happens to them on the way.
struct Epilogue<'a> {
    output: *mut f32,
    /// Floats from one output channel to the next.
    stride: usize,
    /// Columns of this row that may be written; a vector that reaches further is written in part.
    columns: usize,
    activation: Activation,
    /// One plane a channel, added after the activation, read at `residual_offset` + column.
    residual: Option<&'a [PlaneAt]>,
    residual_offset: usize,
    memory: Memory,
}

/// Multiplies blocks `blocks` of `filters` with columns `start..start + vectors * LANES` of the rows.
///
/// # Safety
/// `rows` holds `filters.depth` pointers valid for those columns; the epilogue's pointers are valid for its columns.
#[inline(always)]
unsafe fn multiply<S: Simd, const ROWS: usize>(
    filters: Filters,
    blocks: std::ops::Range<usize>,
    rows: &[*const f32],
    start: usize,
    vectors: usize,
    epilogue: &Epilogue,
) {
    for block in blocks {
        // SAFETY: the caller's.
        unsafe {
            match vectors {
                1 => tile::<S, ROWS, 1>(filters, block, rows, start, epilogue),
                3 if S::TILE_VECTORS == 3 => tile::<S, ROWS, 3>(filters, block, rows, start, epilogue),
                _ => tile::<S, ROWS, 2>(filters, block, rows, start, epilogue),
            }
        }
    }
}

/// As [`multiply`], one block by `VECTORS` vectors.
#[inline(always)]
unsafe fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(
    filters: Filters,
    block: usize,
    rows: &[*const f32],
    start: usize,
    epilogue: &Epilogue,
) {
    // SAFETY: weights and bias have ROWS values for every block and depth; the rest is the caller's.
    unsafe {
        let mut weights = filters.weights.as_ptr().add(block * filters.depth * ROWS);
        let bias = filters.bias.as_ptr().add(block * ROWS);
        let mut sums = [[S::splat(0.0); VECTORS]; ROWS];
        for (row, sums) in sums.iter_mut().enumerate() {
            *sums = [S::splat(*bias.add(row)); VECTORS];
        }
        for &input in rows {
            let input = input.add(start);
            let mut values = [S::splat(0.0); VECTORS];
            for (vector, value) in values.iter_mut().enumerate() {
                *value = S::load(input.add(vector * S::LANES));
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let weight = S::splat(*weights.add(row));
                for (sum, &value) in sums.iter_mut().zip(&values) {
                    *sum = S::fma(weight, value, *sum);
                }
            }
            weights = weights.add(ROWS);
        }
        let first = block * ROWS;
        for (row, sums) in sums.iter().enumerate().take(filters.channels - first) {
            let channel = first + row;
            let output = epilogue.output.add(channel * epilogue.stride + start);
            for (vector, &sum) in sums.iter().enumerate() {
                let offset = vector * S::LANES;
                let mut value = activate::<S>(sum, epilogue.activation);
                if let Some(residual) = epilogue.residual {
                    let residual =
                        epilogue.memory.read(residual[channel]).add(epilogue.residual_offset + start + offset);
                    value = S::add(value, S::load(residual));
                }
                store_columns::<S>(output.add(offset), value, epilogue.columns.saturating_sub(start + offset));
            }
        }
    }
}

/// Stores the first `columns` lanes.
#[inline(always)]
unsafe fn store_columns<S: Simd>(to: *mut f32, value: S::Vector, columns: usize) {
    // SAFETY: the caller's pointer is valid for `columns` floats; the array has room for the widest vector.
    unsafe {
        if columns >= S::LANES {
            S::store(to, value);
        } else {
            let mut lanes = [0.0; 16];
            S::store(lanes.as_mut_ptr(), value);
            to.copy_from_nonoverlapping(lanes.as_ptr(), columns);
        }
    }
}

/// [`Activation::apply`] on vectors.
#[inline(always)]
pub(super) unsafe fn activate<S: Simd>(x: S::Vector, activation: Activation) -> S::Vector {
    // SAFETY: the caller has the instruction set.
    unsafe {
        match activation {
            Activation::Identity => x,
            Activation::LeakyRelu(0.0) => S::max(x, S::splat(0.0)),
            Activation::LeakyRelu(slope) => S::max(x, S::mul(x, S::splat(slope))),
        }
    }
}

/// Cuts `count` vectors into pieces of at most `most`, as even as they go: index of the first and length of piece `index`.
fn piece(count: usize, most: usize, index: usize) -> (usize, usize) {
    let pieces = count.div_ceil(most);
    let start = |index: usize| index * count / pieces;
    (start(index), start(index + 1) - start(index))
}

/// 1x1 convolution.
pub(super) struct Pointwise {
    pub(super) packed: Packed,
    pub(super) inputs: Vec<PlaneAt>,
    pub(super) output: usize,
    pub(super) positions: usize,
    pub(super) activation: Activation,
    pub(super) residual: Option<Vec<PlaneAt>>,
    /// What the plan is for.
    pub(super) set: InstructionSet,
}

impl Pointwise {
    fn vectors(&self) -> usize {
        self.positions.div_ceil(self.set.lanes())
    }

    fn blocks(&self) -> usize {
        self.packed.channels.div_ceil(self.set.tile_rows())
    }

    fn tiles(&self) -> usize {
        self.vectors().div_ceil(self.set.tile_vectors())
    }

    /// Small maps are divided over their channels too, so that no thread idles.
    fn groups(&self) -> usize {
        16usize.div_ceil(self.tiles()).min(self.blocks())
    }

    pub(super) fn units(&self) -> usize {
        self.tiles() * self.groups()
    }

    pub(super) fn scratch(&self) -> (usize, usize) {
        (0, self.packed.depth)
    }

    #[inline(always)]
    pub(super) unsafe fn run<S: Simd, const ROWS: usize>(&self, unit: usize, memory: Memory, scratch: &mut Scratch) {
        let (tile, group, groups) = (unit / self.groups(), unit % self.groups(), self.groups());
        let blocks = group * self.blocks() / groups..(group + 1) * self.blocks() / groups;
        let (first, vectors) = piece(self.vectors(), S::TILE_VECTORS, tile);
        // SAFETY: planes have room for whole vectors; this unit alone writes these columns of these channels.
        unsafe {
            let rows = &mut scratch.rows[..self.packed.depth];
            for (row, &input) in rows.iter_mut().zip(&self.inputs) {
                *row = memory.read(input);
            }
            let epilogue = Epilogue {
                output: memory.write(self.output),
                stride: super::steps::plane_stride(self.positions),
                columns: usize::MAX,
                activation: self.activation,
                residual: self.residual.as_deref(),
                residual_offset: 0,
                memory,
            };
            multiply::<S, ROWS>(self.packed.filters(), blocks, rows, first * S::LANES, vectors, &epilogue);
        }
    }
}

/// Dense convolution with a window: the stem.
pub(super) struct Convolution {
    pub(super) packed: Packed,
    pub(super) inputs: Vec<PlaneAt>,
    pub(super) window: Window,
    pub(super) output: usize,
    pub(super) activation: Activation,
    pub(super) residual: Option<Vec<PlaneAt>>,
}

/// Output rows of a convolution that one unit computes.
const UNIT_ROWS: usize = 4;

impl Convolution {
    pub(super) fn units(&self) -> usize {
        self.window.output_height().div_ceil(UNIT_ROWS)
    }

    pub(super) fn scratch(&self) -> (usize, usize) {
        (self.inputs.len() * self.window.scratch(UNIT_ROWS), self.packed.depth)
    }

    #[inline(always)]
    pub(super) unsafe fn run<S: Simd, const ROWS: usize>(&self, unit: usize, memory: Memory, scratch: &mut Scratch) {
        let window = &self.window;
        let (width, height) = (window.output_width(), window.output_height());
        let first_row = unit * UNIT_ROWS;
        let count = UNIT_ROWS.min(height - first_row);
        let size = window.scratch(UNIT_ROWS);
        let vectors = width.div_ceil(S::LANES);
        // SAFETY: scratch has room for every channel's rows; this unit alone writes these rows of the output.
        unsafe {
            for (channel, &input) in self.inputs.iter().enumerate() {
                window.spread(
                    memory.read(input),
                    first_row,
                    count,
                    0.0,
                    scratch.floats.as_mut_ptr().add(channel * size),
                );
            }
            for row in 0..count {
                let taps = window.kernel * window.kernel;
                for (k, pointer) in scratch.rows[..self.packed.depth].iter_mut().enumerate() {
                    let (channel, tap) = (k / taps, k % taps);
                    let offset = window.tap(row, tap / window.kernel, tap % window.kernel);
                    *pointer = scratch.floats.as_ptr().add(channel * size + offset);
                }
                let offset = (first_row + row) * width;
                let epilogue = Epilogue {
                    output: memory.write(self.output + offset),
                    stride: super::steps::plane_stride(width * height),
                    columns: width,
                    activation: self.activation,
                    residual: self.residual.as_deref(),
                    residual_offset: offset,
                    memory,
                };
                for tile in 0..vectors.div_ceil(S::TILE_VECTORS) {
                    let (first, vectors) = piece(vectors, S::TILE_VECTORS, tile);
                    let blocks = 0..self.packed.channels.div_ceil(ROWS);
                    let rows = &scratch.rows[..self.packed.depth];
                    multiply::<S, ROWS>(self.packed.filters(), blocks, rows, first * S::LANES, vectors, &epilogue);
                }
            }
        }
    }
}

/// A matrix product on its own: `output` (channels, columns) = `filters` x `rows`, used by attention.
///
/// # Safety
/// Rows and output are valid for `columns` rounded up to whole vectors.
#[inline(always)]
pub(super) unsafe fn product<S: Simd, const ROWS: usize>(
    filters: Filters,
    rows: &[*const f32],
    columns: usize,
    output: *mut f32,
    stride: usize,
    memory: Memory,
) {
    let activation = Activation::Identity;
    let epilogue =
        Epilogue { output, stride, columns: usize::MAX, activation, residual: None, residual_offset: 0, memory };
    let vectors = columns.div_ceil(S::LANES);
    for index in 0..vectors.div_ceil(S::TILE_VECTORS) {
        let (first, count) = piece(vectors, S::TILE_VECTORS, index);
        // SAFETY: the caller's.
        unsafe {
            multiply::<S, ROWS>(filters, 0..filters.channels.div_ceil(ROWS), rows, first * S::LANES, count, &epilogue)
        }
    }
}
