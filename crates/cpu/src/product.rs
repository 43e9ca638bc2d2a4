//! Convolutions as matrix products without im2col: what is multiplied is read where it lies.
//!
//! Out (positions, channels) = In (positions, depth) x W (depth, channels). A step of the depth loads `BESIDE` vectors of
//! weights (neighbouring output channels) and multiplies them by one value of each of `TILE` positions, whose sums stay in
//! registers for the whole depth. The values only have to lie equally far apart from position to position: in a feature
//! map that is a block of channels for every channel of every map, in a row of the image the stride.

use super::elementwise::activate;
use super::memory::{Aligned, Memory, units_of};
use super::touched::Touched;
use super::window::Window;
use super::windows::pool_row;
use yolo_lat_core::model::graph::Activation;
use yolo_lat_simd::{InstructionSet, Simd};

/// Filters packed for the kernels: `[group of vectors][depth][vectors of the group][lanes]`, each group of as many vectors as a tile has
/// beside each other, the last of what is left.
pub(super) struct Packed {
    weights: Aligned,
    bias: Aligned,
    /// Blocks of output channels.
    blocks: usize,
    /// Vectors of output channels.
    vectors: usize,
    /// Values in one output's filter.
    depth: usize,
}

impl Packed {
    /// `weights` (channels, depth) row-major and `bias` (channels). Output channel c goes to `slots[c]`, which is lane
    /// `slot % block` of block `slot / block`; what no channel goes to becomes zero.
    pub(super) fn new(weights: &[f32], bias: &[f32], slots: &[usize], blocks: usize, set: InstructionSet) -> Self {
        let (block, lanes, beside) = (set.block(), set.lanes(), set.beside());
        let depth = weights.len() / bias.len();
        let vectors = (blocks * block).div_ceil(lanes);
        let (mut packed, mut packed_bias) = (vec![0.0; vectors * depth * lanes], vec![0.0; vectors * lanes]);
        for ((filter, &bias), &slot) in weights.chunks_exact(depth).zip(bias).zip(slots) {
            let whole = beside * lanes;
            let group = slot / whole;
            let row = lanes * (vectors - beside * group).min(beside);
            for (k, &weight) in filter.iter().enumerate() {
                packed[group * whole * depth + k * row + slot % whole] = weight;
            }
            packed_bias[slot] = bias;
        }
        Self { weights: packed.into(), bias: packed_bias.into(), blocks, vectors, depth }
    }
}

/// What a product reads: the value of depth k at position p is `base[offsets[k] + stride * p]`, which need not exist at positions that are not
/// asked for.
#[derive(Clone, Copy)]
struct Operand<'a> {
    base: *const f32,
    offsets: &'a [usize],
    stride: usize,
}

/// Where a product's vectors go and what happens to them on the way.
pub(super) struct Epilogue<'a> {
    /// Block 0 at position 0.
    pub(super) output: *mut f32,
    /// Floats from one block to the next.
    pub(super) block_stride: usize,
    /// How many.
    pub(super) blocks: usize,
    pub(super) activation: Activation,
    /// A block each at position 0, added after the activation.
    pub(super) residual: Option<(&'a [usize], *const f32)>,
}

impl Epilogue<'_> {
    /// Activation, residual, and the blocks of `V` vectors from `vector` on at `P` positions from `at` on.
    ///
    /// # Safety
    /// The blocks exist at these positions.
    #[inline(always)]
    pub(super) unsafe fn finish<S: Simd, W: Simd, const P: usize, const V: usize>(
        &self,
        vector: usize,
        at: usize,
        mut sums: [[W::Vector; V]; P],
    ) {
        let Self { output, block_stride, blocks, activation, residual } = *self;
        // SAFETY: the caller's; the second half of a vector is stored only where there is such a block.
        unsafe {
            activate::<W, P, V>(&mut sums, activation);
            for v in 0..V {
                // Blocks of the vector: one, or two of which the second may be missing.
                let (low, high) = if W::LANES == S::LANES {
                    (vector + v, vector + v)
                } else {
                    (2 * (vector + v), 2 * (vector + v) + 1)
                };
                let is_whole = high < blocks;
                if let Some((blocks, base)) = residual {
                    let of = |block: usize| base.add(blocks[block] + at * S::LANES);
                    let (low, high) = (of(low), of(if is_whole { high } else { low }));
                    for (p, sums) in sums.iter_mut().enumerate() {
                        let residual = if W::LANES == S::LANES {
                            W::load(low.add(p * S::LANES))
                        } else {
                            W::load_halves(low.add(p * S::LANES), high.add(p * S::LANES))
                        };
                        sums[v] = W::add(sums[v], residual);
                    }
                }
                let to = |block: usize| output.add(block * block_stride + at * S::LANES);
                let mut nowhere = [0.0; 16];
                let (low, high, step) =
                    if is_whole { (to(low), to(high), S::LANES) } else { (to(low), nowhere.as_mut_ptr(), 0) };
                for (p, sums) in sums.iter().enumerate() {
                    if W::LANES == S::LANES {
                        W::store(low.add(p * S::LANES), sums[v]);
                    } else {
                        W::store_halves(low.add(p * S::LANES), high.add(p * step), sums[v]);
                    }
                }
            }
        }
    }
}

/// Positions for which vectors of weights are used before the next: their inputs stay in the first cache.
pub(super) const GROUP: usize = 48;

/// Positions of a map so small that a third thread would wait longer than it works.
pub(super) const SMALL_MAP: usize = 144;

/// Multiplies all filters with `positions`.
///
/// # Safety
/// The operand's values and the epilogue's blocks exist at these positions.
#[inline(always)]
unsafe fn multiply<S: Simd, W: Simd>(
    packed: &Packed,
    positions: std::ops::Range<usize>,
    operand: Operand,
    epilogue: &Epilogue,
) {
    // SAFETY: weights and bias have whole vectors for every depth; the rest is the caller's.
    unsafe {
        for start in positions.clone().step_by(GROUP) {
            let end = (start + GROUP).min(positions.end);
            for vector in (0..packed.vectors).step_by(W::BESIDE) {
                let weights = packed.weights.as_ptr().add(vector * W::LANES * packed.depth);
                let job = Job { weights, bias: packed.bias.as_ptr().add(vector * W::LANES), vector, operand, epilogue };
                let mut at = start;
                if W::BESIDE == 3 && vector + 2 < packed.vectors {
                    job.tiles::<S, W, 3, 3>(&mut at, end);
                    job.tiles::<S, W, 1, 3>(&mut at, end);
                } else if vector + 1 < packed.vectors {
                    match W::TILE {
                        8 => job.tiles::<S, W, 8, 2>(&mut at, end),
                        6 => job.tiles::<S, W, 6, 2>(&mut at, end),
                        _ => {}
                    }
                    job.tiles::<S, W, 4, 2>(&mut at, end);
                    job.tiles::<S, W, 1, 2>(&mut at, end);
                } else {
                    // A multiply-add takes four cycles and two start in each: eight sums at least, or the units wait.
                    match W::TILE {
                        3 => job.tiles::<S, W, 8, 1>(&mut at, end),
                        4 => {}
                        _ => job.tiles::<S, W, 12, 1>(&mut at, end),
                    }
                    job.tiles::<S, W, 4, 1>(&mut at, end);
                    job.tiles::<S, W, 1, 1>(&mut at, end);
                }
            }
        }
    }
}

/// One vector of output channels to three.
struct Job<'a> {
    weights: *const f32,
    bias: *const f32,
    vector: usize,
    operand: Operand<'a>,
    epilogue: &'a Epilogue<'a>,
}

impl Job<'_> {
    /// As many whole tiles of `P` positions as fit before `end`.
    #[inline(always)]
    unsafe fn tiles<S: Simd, W: Simd, const P: usize, const V: usize>(&self, at: &mut usize, end: usize) {
        while *at + P <= end {
            // SAFETY: the caller's.
            unsafe { self.tile::<S, W, P, V>(*at) };
            *at += P;
        }
    }

    // A browser's compiler gives a short function's registers away better than a long one's.
    #[cfg_attr(target_arch = "wasm32", inline(never))]
    #[cfg_attr(not(target_arch = "wasm32"), inline(always))]
    unsafe fn tile<S: Simd, W: Simd, const P: usize, const V: usize>(&self, at: usize) {
        let Operand { base, offsets, stride } = self.operand;
        // SAFETY: the caller's.
        unsafe {
            let mut bias = [W::splat(0.0); V];
            for (v, bias) in bias.iter_mut().enumerate() {
                *bias = W::load(self.bias.add(v * W::LANES));
            }
            let mut sums = [bias; P];
            let mut weights = self.weights;
            let base = base.wrapping_add(at * stride);
            for &offset in offsets {
                let input = base.wrapping_add(offset);
                let mut filter = [W::splat(0.0); V];
                for (v, filter) in filter.iter_mut().enumerate() {
                    *filter = W::load(weights.add(v * W::LANES));
                }
                for (p, sums) in sums.iter_mut().enumerate() {
                    let value = W::splat(*input.add(p * stride));
                    for (sum, &filter) in sums.iter_mut().zip(&filter) {
                        *sum = W::fma(value, filter, *sum);
                    }
                }
                weights = weights.add(V * W::LANES);
            }
            self.epilogue.finish::<S, W, P, V>(self.vector, at, sums);
        }
    }
}

/// The positions of a unit of a product: whole tiles, but for the last unit.
pub(super) fn stretch(positions: usize, unit: usize, units: usize) -> std::ops::Range<usize> {
    let tiles = positions.div_ceil(24);
    let start = |unit: usize| (unit * tiles / units * 24).min(positions);
    start(unit)..start(unit + 1)
}

/// 1x1 convolution: a unit is a stretch of positions.
pub(super) struct Pointwise {
    pub(super) packed: Packed,
    /// Of each input channel at position 0.
    pub(super) inputs: Vec<usize>,
    pub(super) output: usize,
    pub(super) positions: usize,
    pub(super) activation: Activation,
    /// Of each block of the output.
    pub(super) residual: Option<Vec<usize>>,
}

impl Pointwise {
    pub(super) fn units(&self) -> usize {
        let work = self.positions * self.packed.depth * self.packed.blocks * 8;
        let most = if self.positions <= SMALL_MAP { 2 } else { self.positions.div_ceil(GROUP) };
        units_of(work, most)
    }

    pub(super) fn scratch(&self) -> usize {
        0
    }

    pub(super) fn touches(&self, unit: usize, touched: &mut Touched) {
        let positions = stretch(self.positions, unit, self.units());
        touched.reads(&self.inputs, positions.clone());
        touched.reads(self.residual.as_deref().unwrap_or_default(), positions.clone());
        touched.writes(self.output, self.packed.blocks, self.positions, positions);
    }

    #[inline(always)]
    pub(super) unsafe fn run<S: Simd, W: Simd>(&self, unit: usize, memory: Memory, _: *mut f32) {
        // SAFETY: offsets are the plan's; this unit alone writes these positions.
        unsafe {
            let epilogue = Epilogue {
                output: memory.write(self.output),
                block_stride: S::LANES * self.positions,
                blocks: self.packed.blocks,
                activation: self.activation,
                residual: self.residual.as_ref().map(|blocks| (&blocks[..], memory.read(0))),
            };
            let operand = Operand { base: memory.read(0), offsets: &self.inputs, stride: S::LANES };
            multiply::<S, W>(&self.packed, stretch(self.positions, unit, self.units()), operand, &epilogue);
        }
    }
}

/// Where a dense convolution reads.
pub(super) enum Source {
    /// The planes of the image: in place, but for the first [`EDGE`] positions of a row and windows that reach over an edge.
    Image {
        /// Of each tap, from the first of the window.
        taps: Vec<usize>,
    },
    /// Channels in the arena.
    Arena(Vec<usize>),
}

/// Dense convolution with a window, and where it follows the maximum over 3x3 windows at stride 2 as well: a unit is
/// some rows of the output.
pub(super) struct Convolution {
    packed: Packed,
    source: Source,
    channels: usize,
    /// Of each tap in scratch.
    taps: Vec<usize>,
    window: Window,
    /// The pooling after it, where only the maxima are kept.
    pool: Option<Window>,
    result: Destination,
}

/// Where the result of a dense convolution goes, and what happens to it on the way.
pub(super) struct Destination {
    pub(super) output: usize,
    pub(super) activation: Activation,
    /// Of each block of the output.
    pub(super) residual: Option<Vec<usize>>,
}

/// Output rows of a unit, pooled ones where it pools.
const UNIT_ROWS: usize = 8;

/// Rows under a maximum, of which the last two are new.
const POOLED_ROWS: usize = 3;

/// Positions of a row that are taken out of scratch because the first windows begin outside: whole tiles of every instruction set.
const EDGE: usize = 24;

impl Convolution {
    /// `inputs` are the channels' places in the arena; without any it reads the image.
    pub(super) fn new(
        packed: Packed,
        inputs: Vec<usize>,
        channels: usize,
        window: Window,
        pool: Option<Window>,
        result: Destination,
    ) -> Self {
        let Window { height, width, kernel, .. } = window;
        // In the order of the weights: channel, row, column.
        let taps = |plane: usize, pitch: usize| -> Vec<usize> {
            let rows = (0..channels).flat_map(|channel| (0..kernel).map(move |dy| channel * plane + dy * pitch));
            rows.flat_map(|row| (0..kernel).map(move |dx| row + dx)).collect()
        };
        let source =
            if inputs.is_empty() { Source::Image { taps: taps(height * width, width) } } else { Source::Arena(inputs) };
        let mut convolution = Self { packed, source, channels, taps: Vec::new(), window, pool, result };
        convolution.taps = taps(convolution.input_rows() * convolution.pitch(), convolution.pitch());
        convolution
    }

    /// Rows of the convolution that are computed one after the other before anything is done with them.
    fn rows(&self) -> usize {
        if self.pool.is_some() { POOLED_ROWS } else { UNIT_ROWS }
    }

    /// Rows of scratch: what is under those rows, of the image under one at a time.
    fn input_rows(&self) -> usize {
        let rows = if matches!(self.source, Source::Image { .. }) { 1 } else { self.rows() };
        (rows - 1) * self.window.stride + self.window.kernel
    }

    /// Floats in a row of scratch, which has a border.
    fn pitch(&self) -> usize {
        self.window.width + 2 * self.window.kernel
    }

    /// Floats in an output row of one block, for all blocks.
    fn row_values(&self, block: usize) -> usize {
        self.window.output_width * block * self.packed.blocks
    }

    /// Floats of scratch for inputs; vectors lie behind.
    fn input_values(&self) -> usize {
        (self.channels * self.input_rows() * self.pitch()).next_multiple_of(16)
    }

    fn final_height(&self) -> usize {
        self.pool.unwrap_or(self.window).output_height
    }

    pub(super) fn units(&self) -> usize {
        self.final_height().div_ceil(UNIT_ROWS)
    }

    pub(super) fn scratch(&self) -> usize {
        // A vector is 16 floats at most.
        self.input_values() + if self.pool.is_some() { POOLED_ROWS * self.row_values(16) } else { 0 }
    }

    /// The output rows of a unit.
    fn unit_rows(&self, unit: usize) -> std::ops::Range<usize> {
        unit * UNIT_ROWS..((unit + 1) * UNIT_ROWS).min(self.final_height())
    }

    pub(super) fn touches(&self, unit: usize, touched: &mut Touched) {
        let rows = self.unit_rows(unit);
        let result = self.pool.as_ref().unwrap_or(&self.window);
        let written = rows.start * result.output_width..rows.end * result.output_width;
        let convolved = self.pool.as_ref().map_or(rows.clone(), |pool| pool.input_rows(rows));
        if let Source::Arena(inputs) = &self.source {
            let read = self.window.input_rows(convolved);
            touched.reads(inputs, read.start * self.window.width..read.end * self.window.width);
        }
        touched.reads(self.result.residual.as_deref().unwrap_or_default(), written.clone());
        touched.writes(self.result.output, self.packed.blocks, result.outputs(), written);
    }

    #[inline(always)]
    pub(super) unsafe fn run<S: Simd, W: Simd>(&self, unit: usize, memory: Memory, scratch: *mut f32) {
        let Window { output_width: width, output_height: height, .. } = self.window;
        let Destination { output, activation, residual } = &self.result;
        let rows = self.unit_rows(unit);
        // SAFETY: scratch has room for the rows that are read, then for those that are pooled; this unit alone writes its
        // rows of the output.
        unsafe {
            let Some(pooled) = &self.pool else {
                let epilogue = |row| Epilogue {
                    output: memory.write(output + S::LANES * row * width),
                    block_stride: S::LANES * width * height,
                    blocks: self.packed.blocks,
                    activation: *activation,
                    residual: residual.as_ref().map(|blocks| (&blocks[..], memory.read(S::LANES * row * width))),
                };
                return self.convolve::<S, W>(rows, memory, scratch, epilogue);
            };
            let convolved = scratch.add(self.input_values());
            // Rows take turns in scratch, blocks lie one after the other within them.
            let place = |row: usize| convolved.add(row % POOLED_ROWS * self.row_values(S::LANES));
            for row in rows.clone() {
                // The row above has been computed for the maxima before.
                let above = if row == rows.start { (2 * row).saturating_sub(1) } else { 2 * row };
                let epilogue = |row| Epilogue {
                    output: place(row),
                    block_stride: width * S::LANES,
                    blocks: self.packed.blocks,
                    activation: *activation,
                    residual: None,
                };
                self.convolve::<S, W>(above..(2 * row + 2).min(height), memory, scratch, epilogue);
                for block in 0..self.packed.blocks {
                    let rows = pooled.pool_rows(row).map(|row| place(row).add(block * width * S::LANES).cast_const());
                    let to = output + S::LANES * (block * pooled.outputs() + row * pooled.output_width);
                    pool_row::<S>(rows, pooled, memory.write(to));
                }
            }
        }
    }

    /// Computes output rows `rows`, [`Convolution::rows`] of them at most.
    #[inline(always)]
    unsafe fn convolve<'a, S: Simd, W: Simd>(
        &self,
        rows: std::ops::Range<usize>,
        memory: Memory,
        scratch: *mut f32,
        epilogue: impl Fn(usize) -> Epilogue<'a>,
    ) {
        let Window { width, kernel, stride, output_width, .. } = self.window;
        // SAFETY: the caller's; windows that are read in place lie inside.
        unsafe {
            if matches!(self.source, Source::Arena(_)) {
                self.spread::<S>(rows.clone(), 0..output_width, memory, scratch);
            }
            for row in rows.clone() {
                let epilogue = epilogue(row);
                let inside = self.inside(row);
                for positions in [0..inside.start, inside.clone(), inside.end..output_width] {
                    if positions.is_empty() {
                        continue;
                    }
                    let operand = match &self.source {
                        Source::Image { taps } if positions == inside => {
                            let first = (row * stride - kernel / 2) * width;
                            let base = memory.image.wrapping_add(first).wrapping_sub(kernel / 2);
                            Operand { base, offsets: taps, stride }
                        }
                        Source::Image { .. } => {
                            self.spread::<S>(row..row + 1, positions.clone(), memory, scratch);
                            Operand { base: scratch, offsets: &self.taps, stride }
                        }
                        Source::Arena(_) => {
                            let base = scratch.add((row - rows.start) * stride * self.pitch());
                            Operand { base, offsets: &self.taps, stride }
                        }
                    };
                    // Constants for the compiler.
                    if stride == 2 {
                        multiply::<S, W>(&self.packed, positions, Operand { stride: 2, ..operand }, &epilogue);
                    } else {
                        multiply::<S, W>(&self.packed, positions, Operand { stride: 1, ..operand }, &epilogue);
                    }
                }
            }
        }
    }

    /// The positions of output row `row` whose windows are read in place.
    #[inline(always)]
    fn inside(&self, row: usize) -> std::ops::Range<usize> {
        let Window { height, width, kernel, stride, .. } = self.window;
        let (reach, top) = (kernel / 2, row * stride);
        let is_inside = matches!(self.source, Source::Image { .. }) && top >= reach && top + kernel <= height + reach;
        let end = ((width + reach).saturating_sub(kernel) / stride + 1).min(self.window.output_width);
        debug_assert!(EDGE * stride >= reach, "windows are narrower");
        if is_inside && EDGE < end { EDGE..end } else { 0..0 }
    }

    /// Copies what the windows of output rows `rows` and `columns` look at into scratch, with zeros around.
    #[inline(always)]
    unsafe fn spread<S: Simd>(
        &self,
        rows: std::ops::Range<usize>,
        columns: std::ops::Range<usize>,
        memory: Memory,
        scratch: *mut f32,
    ) {
        let Window { height, width, kernel, stride, .. } = self.window;
        let (reach, pitch) = (kernel / 2, self.pitch());
        // With the border.
        let (start, end) = (columns.start * stride, (columns.end - 1) * stride + kernel);
        let (left, right) = (start.max(reach), end.min(reach + width));
        for channel in 0..self.channels {
            for row in 0..(rows.len() - 1) * stride + kernel {
                // SAFETY: each row has `pitch` floats of scratch and `width` of its channel.
                unsafe {
                    let target = scratch.add((channel * self.input_rows() + row) * pitch);
                    let target = std::slice::from_raw_parts_mut(target, pitch);
                    let y = (rows.start * stride + row).wrapping_sub(reach);
                    if y >= height {
                        target[start..end].fill(0.0);
                        continue;
                    }
                    target[start..left].fill(0.0);
                    target[right..end].fill(0.0);
                    let target = &mut target[left..right];
                    let x = left - reach;
                    match &self.source {
                        Source::Image { .. } => {
                            let plane = memory.image.add((channel * height + y) * width + x);
                            target.copy_from_slice(std::slice::from_raw_parts(plane, right - left));
                        }
                        Source::Arena(offsets) => {
                            let plane = memory.read(offsets[channel] + S::LANES * (y * width + x));
                            for (x, target) in target.iter_mut().enumerate() {
                                *target = *plane.add(S::LANES * x);
                            }
                        }
                    }
                }
            }
        }
    }
}
