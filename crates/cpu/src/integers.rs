//! 1x1 convolutions in integers: levels of the inputs times weights of 7 bits ([`yolo_lat_core::model::integers`]).
//!
//! A unit makes levels of some positions' channels, whole blocks at a time, and multiplies them while they are in the first cache. The
//! sums of a tile's positions ([`Levels::TILE`]) stay in registers for the whole depth, of which a step takes eight levels, or two steps at once
//! sixteen. What sums become, and where that goes, is as in products of floats ([`Epilogue`]).

use super::memory::{Aligned, Memory, units_of};
use super::product::{Epilogue, GROUP, SMALL_MAP, stretch};
use super::touched::Touched;
use yolo_lat_core::model::graph::Activation;
use yolo_lat_core::model::integers::Integers;
use yolo_lat_simd::{DEPTH, InstructionSet, Levels, LevelsWork, Simd, dispatch_levels, fit_16_bits};

/// Filters packed for the kernels, and what makes levels of their inputs.
pub(super) struct PackedIntegers {
    /// `[vector of outputs][step of the depth][DEPTH / 4][lane of the vector][4]`.
    weights: Vec<i8>,
    /// Of each vector of outputs, whether every two steps may be summed up together.
    fits: Vec<bool>,
    /// What each output's sum begins with.
    starts: Vec<i32>,
    /// Of each output.
    scales: Aligned,
    bias: Aligned,
    /// The blocks that hold the inputs, at position 0.
    inputs: Vec<usize>,
    /// Levels a unit and the level of 0, of each lane of those blocks.
    levels: Aligned,
    zeros: Aligned,
    /// Channels in a block.
    block: usize,
    /// Blocks of the result, and the vectors of outputs that they are computed in.
    blocks: usize,
    vectors: usize,
}

impl PackedIntegers {
    /// Input channel k lies at `inputs[k]` at position 0, output channel c in lane `slots[c] % block` of block `slots[c] / block`
    /// of `blocks`.
    pub(super) fn new(
        integers: &Integers,
        inputs: &[usize],
        slots: &[usize],
        blocks: usize,
        set: InstructionSet,
    ) -> Self {
        let (block, width) = (set.block(), set.lanes());
        let vectors = (blocks * block).div_ceil(width);
        // A channel that is read twice needs its block twice.
        let (mut bases, mut lanes) = (Vec::new(), Vec::<Vec<Option<usize>>>::new());
        for (channel, &at) in inputs.iter().enumerate() {
            let (base, lane) = (at - at % block, at % block);
            let free = (0..bases.len()).find(|&index| bases[index] == base && lanes[index][lane].is_none());
            let index = free.unwrap_or_else(|| {
                bases.push(base);
                lanes.push(vec![None; block]);
                bases.len() - 1
            });
            lanes[index][lane] = Some(channel);
        }
        let lanes: Vec<Option<usize>> = lanes.concat();
        let of_lanes = |values: &[f32]| -> Vec<f32> {
            lanes.iter().map(|channel| channel.map_or(0.0, |channel| values[channel])).collect()
        };
        let depth = lanes.len().next_multiple_of(DEPTH);
        let mut packed = vec![0; vectors * width * depth];
        let mut starts = vec![0; vectors * width];
        let [mut scales, mut bias] = [vec![0.0; vectors * width], vec![0.0; vectors * width]];
        for (output, &slot) in slots.iter().enumerate() {
            let filter = &integers.weights[output * inputs.len()..][..inputs.len()];
            for (at, channel) in lanes.iter().enumerate() {
                let Some(channel) = *channel else { continue };
                // Groups of four neighbours for every lane of the vector.
                let place = slot / width * width * depth + at / 4 * 4 * width + slot % width * 4 + at % 4;
                packed[place] = filter[channel];
            }
            starts[slot] = -integers.offsets[output];
            scales[slot] = integers.scales[output];
            bias[slot] = integers.bias[output];
        }
        let steps = depth / DEPTH;
        let fits = |vector: usize| {
            let of_step = |lane: usize, step: usize| {
                let row = vector * width * depth + lane * 4;
                std::array::from_fn(|k| packed[row + (step * DEPTH + k) / 4 * 4 * width + k % 4])
            };
            let fits = |lane, pair| fit_16_bits([of_step(lane, 2 * pair), of_step(lane, 2 * pair + 1)]);
            // All or none: few filters do not fit.
            (0..width).all(|lane| (0..steps / 2).all(|pair| fits(lane, pair)))
        };
        Self {
            fits: (0..vectors).map(fits).collect(),
            weights: packed,
            starts,
            scales: scales.into(),
            bias: bias.into(),
            levels: of_lanes(&integers.levels).into(),
            zeros: of_lanes(&integers.zeros).into(),
            inputs: bases,
            block,
            blocks,
            vectors,
        }
    }

    /// Steps of the depth.
    fn steps(&self) -> usize {
        (self.inputs.len() * self.block).div_ceil(DEPTH)
    }
}

/// A convolution: a unit is a stretch of positions.
pub(super) struct IntegerPointwise {
    pub(super) packed: PackedIntegers,
    pub(super) output: usize,
    pub(super) positions: usize,
    pub(super) activation: Activation,
    /// Of each block of the output.
    pub(super) residual: Option<Vec<usize>>,
}

impl IntegerPointwise {
    pub(super) fn units(&self) -> usize {
        // Twice as fast as floats.
        let work = self.positions * self.packed.steps() * DEPTH * self.packed.blocks * self.packed.block / 2;
        let most = if self.positions <= SMALL_MAP { 2 } else { self.positions.div_ceil(GROUP) };
        units_of(work, most)
    }

    /// Levels of a group of positions, four in the place of a float.
    pub(super) fn scratch(&self) -> usize {
        self.packed.steps() * GROUP * DEPTH / 4
    }

    pub(super) fn touches(&self, unit: usize, touched: &mut Touched) {
        let positions = stretch(self.positions, unit, self.units());
        touched.reads(&self.packed.inputs, positions.clone());
        touched.reads(self.residual.as_deref().unwrap_or_default(), positions.clone());
        touched.writes(self.output, self.packed.blocks, self.positions, positions);
    }

    pub(super) unsafe fn run(&self, set: InstructionSet, unit: usize, memory: Memory, scratch: *mut f32) {
        // SAFETY: the caller's.
        unsafe { dispatch_levels(set, Unit { kernel: self, unit, memory, scratch: scratch.cast() }) };
    }
}

struct Unit<'a> {
    kernel: &'a IntegerPointwise,
    unit: usize,
    memory: Memory,
    scratch: *mut u8,
}

impl LevelsWork for Unit<'_> {
    #[inline(always)]
    unsafe fn run<L: Levels>(self) {
        let Self { kernel, unit, memory, scratch } = self;
        let packed = &kernel.packed;
        let positions = stretch(kernel.positions, unit, kernel.units());
        // SAFETY: offsets are the plan's, scratch holds the levels of a group, and this unit alone writes these positions.
        unsafe {
            let epilogue = Epilogue {
                output: memory.write(kernel.output),
                block_stride: L::Block::LANES * kernel.positions,
                blocks: packed.blocks,
                activation: kernel.activation,
                residual: kernel.residual.as_ref().map(|blocks| (&blocks[..], memory.read(0))),
            };
            for start in positions.clone().step_by(GROUP) {
                let end = (start + GROUP).min(positions.end);
                self.levels::<L>(start, end - start);
                for vector in (0..packed.vectors).step_by(L::BESIDE) {
                    let is_beside = L::BESIDE == 2 && vector + 1 < packed.vectors;
                    let job = Job::new::<L>(packed, vector, scratch, start, &epilogue);
                    let mut at = start;
                    if is_beside {
                        job.tiles::<L, 8, 2>(&mut at, end);
                        job.tiles::<L, 4, 2>(&mut at, end);
                        job.tiles::<L, 1, 2>(&mut at, end);
                    } else {
                        match L::TILE {
                            12 => job.tiles::<L, 12, 1>(&mut at, end),
                            6 => job.tiles::<L, 6, 1>(&mut at, end),
                            _ => job.tiles::<L, 8, 1>(&mut at, end),
                        }
                        job.tiles::<L, 4, 1>(&mut at, end);
                        job.tiles::<L, 1, 1>(&mut at, end);
                    }
                }
            }
        }
    }
}

impl Unit<'_> {
    /// Makes levels of the inputs: `[step of the depth][position][DEPTH]`.
    #[inline(always)]
    unsafe fn levels<L: Levels>(&self, start: usize, count: usize) {
        let (lanes, packed) = (L::Block::LANES, &self.kernel.packed);
        // SAFETY: the caller's.
        unsafe {
            for (index, &block) in packed.inputs.iter().enumerate() {
                let from = self.memory.read(block + lanes * start);
                let (step, within) = (index * lanes / DEPTH, index * lanes % DEPTH);
                let levels = L::Block::load(packed.levels.as_ptr().add(index * lanes));
                let zeros = L::Block::load(packed.zeros.as_ptr().add(index * lanes));
                L::of_floats(from, self.scratch.add(step * GROUP * DEPTH + within), count, levels, zeros);
            }
        }
    }
}

/// One vector of outputs or two.
struct Job<'a> {
    vector: usize,
    weights: *const i8,
    /// From the weights of one vector to those of the next.
    whole: usize,
    /// Steps of the depth that are taken two at a time, then those that are not.
    pairs: usize,
    singles: usize,
    starts: *const i32,
    scales: *const f32,
    bias: *const f32,
    /// As [`Unit::levels`] makes them, of the positions from `start` on.
    levels: *const u8,
    start: usize,
    epilogue: &'a Epilogue<'a>,
}

impl<'a> Job<'a> {
    #[inline(always)]
    unsafe fn new<L: Levels>(
        packed: &PackedIntegers,
        vector: usize,
        levels: *const u8,
        start: usize,
        epilogue: &'a Epilogue<'a>,
    ) -> Self {
        let (steps, lane) = (packed.steps(), vector * L::Floats::LANES);
        let pairs = if L::ADDS_BOTH && packed.fits[vector] { steps / 2 } else { 0 };
        // SAFETY: there are whole vectors of all of them.
        unsafe {
            Self {
                vector,
                weights: packed.weights.as_ptr().add(lane * steps * DEPTH),
                whole: L::Floats::LANES * steps * DEPTH,
                pairs,
                singles: steps - 2 * pairs,
                starts: packed.starts.as_ptr().add(lane),
                scales: packed.scales.as_ptr().add(lane),
                bias: packed.bias.as_ptr().add(lane),
                levels,
                start,
                epilogue,
            }
        }
    }

    /// As many whole tiles of `P` positions as fit before `end`.
    #[inline(always)]
    unsafe fn tiles<L: Levels, const P: usize, const V: usize>(&self, at: &mut usize, end: usize) {
        while *at + P <= end {
            // SAFETY: the caller's.
            unsafe { self.tile::<L, P, V>(*at) };
            *at += P;
        }
    }

    #[inline(always)]
    unsafe fn tile<L: Levels, const P: usize, const V: usize>(&self, at: usize) {
        let lanes = L::Floats::LANES;
        let (step, whole) = (DEPTH * lanes, self.whole);
        // SAFETY: weights and levels have whole vectors for every step; the rest is the caller's.
        unsafe {
            let mut start = [L::sums(self.starts); V];
            for (v, start) in start.iter_mut().enumerate() {
                *start = L::sums(self.starts.add(v * lanes));
            }
            let mut sums = [start; P];
            let mut weights = self.weights;
            let mut levels = self.levels.add((at - self.start) * DEPTH);
            macro_rules! filter {
                ($from:expr) => {
                    [L::weights($from), L::weights($from.add(4 * lanes))]
                };
            }
            for _ in 0..self.pairs {
                let mut filters = [[filter!(weights), filter!(weights.add(step))]; V];
                if V > 1 {
                    let weights = weights.add(whole);
                    filters[V - 1] = [filter!(weights), filter!(weights.add(step))];
                }
                for (p, sums) in sums.iter_mut().enumerate() {
                    let levels = levels.add(p * DEPTH);
                    for (sum, &filter) in sums.iter_mut().zip(&filters) {
                        *sum = L::add_both(*sum, [levels, levels.add(GROUP * DEPTH)], filter);
                    }
                }
                weights = weights.add(2 * step);
                levels = levels.add(2 * GROUP * DEPTH);
            }
            for _ in 0..self.singles {
                let mut filters = [filter!(weights); V];
                if V > 1 {
                    filters[V - 1] = filter!(weights.add(whole));
                }
                for part in 0..L::PARTS {
                    for (p, sums) in sums.iter_mut().enumerate() {
                        for (sum, &filter) in sums.iter_mut().zip(&filters) {
                            *sum = L::add_part(*sum, levels.add(p * DEPTH), filter, part);
                        }
                    }
                }
                weights = weights.add(step);
                levels = levels.add(GROUP * DEPTH);
            }
            let mut floats = [[L::Floats::splat(0.0); V]; P];
            for v in 0..V {
                let scale = L::Floats::load(self.scales.add(v * lanes));
                let bias = L::Floats::load(self.bias.add(v * lanes));
                for (float, sums) in floats.iter_mut().zip(&sums) {
                    // Two roundings, as everywhere.
                    float[v] = L::Floats::add(L::Floats::mul(L::floats(sums[v]), scale), bias);
                }
            }
            self.epilogue.finish::<L::Block, L::Floats, P, V>(self.vector, at, floats);
        }
    }
}
