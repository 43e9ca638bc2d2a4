//! 1x1 convolutions in integers: levels of the inputs times weights of 7 bits ([`yolo_lat_core::model::integers`]).
//!
//! A unit makes levels of some positions' channels, whole blocks at a time, and multiplies them while they are in the first cache. The
//! sums of eight positions stay in registers for the whole depth, of which a step takes eight levels, or two steps at once sixteen: beside the weights of one vector of outputs
//! that leaves AVX2 registers enough, and what is loaded costs less time than what is multiplied.

use super::memory::{Aligned, Memory, units_of, unrolled};
use super::product::{GROUP, SMALL_MAP};
use yolo_lat_core::model::graph::Activation;
use yolo_lat_core::model::integers::Integers;
use yolo_lat_simd::{DEPTH, InstructionSet, Levels, LevelsWork, Simd, dispatch_levels, fit_16_bits};

/// Filters packed for the kernels, and what makes levels of their inputs.
pub(super) struct PackedIntegers {
    /// `[vector of outputs][step of the depth][DEPTH / 4][lane][4]`.
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
    /// Vectors of outputs, blocks of the result.
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
        let block = set.block();
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
        let mut packed = vec![0; blocks * block * depth];
        let mut starts = vec![0; blocks * block];
        let [mut scales, mut bias] = [vec![0.0; blocks * block], vec![0.0; blocks * block]];
        for (output, &slot) in slots.iter().enumerate() {
            let filter = &integers.weights[output * inputs.len()..][..inputs.len()];
            for (at, channel) in lanes.iter().enumerate() {
                let Some(channel) = *channel else { continue };
                // Groups of four neighbours for every lane of the block.
                let place = slot / block * block * depth + at / 4 * 4 * block + slot % block * 4 + at % 4;
                packed[place] = filter[channel];
            }
            starts[slot] = -integers.offsets[output];
            scales[slot] = integers.scales[output];
            bias[slot] = integers.bias[output];
        }
        let steps = depth / DEPTH;
        let fits = |vector: usize| {
            let of_step = |lane: usize, step: usize| {
                let row = vector * block * depth + lane * 4;
                std::array::from_fn(|k| packed[row + (step * DEPTH + k) / 4 * 4 * block + k % 4])
            };
            let fits = |lane, pair| fit_16_bits([of_step(lane, 2 * pair), of_step(lane, 2 * pair + 1)]);
            // All or none: few filters do not fit.
            (0..block).all(|lane| (0..steps / 2).all(|pair| fits(lane, pair)))
        };
        Self {
            fits: (0..blocks).map(fits).collect(),
            weights: packed,
            starts,
            scales: scales.into(),
            bias: bias.into(),
            levels: of_lanes(&integers.levels).into(),
            zeros: of_lanes(&integers.zeros).into(),
            inputs: bases,
            block,
            vectors: blocks,
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
        let work = self.positions * self.packed.steps() * DEPTH * self.packed.vectors * self.packed.block / 2;
        let most = if self.positions <= SMALL_MAP { 2 } else { self.positions.div_ceil(GROUP) };
        units_of(work, most)
    }

    /// Levels of a group of positions, four in the place of a float.
    pub(super) fn scratch(&self) -> usize {
        self.packed.steps() * GROUP * DEPTH / 4
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
        // What is multiplied by 1 stays.
        let slope = match kernel.activation {
            Activation::Identity => 1.0,
            Activation::LeakyRelu(slope) => slope,
        };
        // Whole tiles, but for the last unit.
        let groups = kernel.positions.div_ceil(24);
        let start = |unit: usize| (unit * groups / kernel.units() * 24).min(kernel.positions);
        let positions = start(unit)..start(unit + 1);
        for start in positions.clone().step_by(GROUP) {
            let count = (positions.end - start).min(GROUP);
            // SAFETY: offsets are the plan's, scratch holds the levels of a group, and this unit alone writes these positions.
            unsafe {
                self.levels::<L>(start, count);
                for vector in 0..packed.vectors {
                    let at = L::Floats::LANES * start;
                    let block = L::Floats::LANES * vector;
                    let pairs = if packed.fits[vector] { packed.steps() / 2 } else { 0 };
                    let tiles = Tiles::<L> {
                        pairs,
                        singles: packed.steps() - 2 * pairs,
                        weights: packed.weights.as_ptr().add(block * packed.steps() * DEPTH),
                        levels: scratch,
                        start: L::sums(packed.starts.as_ptr().add(block)),
                        scale: L::Floats::load(packed.scales.as_ptr().add(block)),
                        bias: L::Floats::load(packed.bias.as_ptr().add(block)),
                        slope: L::Floats::splat(slope),
                        residual: kernel.residual.as_ref().map(|blocks| memory.read(blocks[vector] + at)),
                        output: memory.write(kernel.output + block * kernel.positions + at),
                    };
                    let mut at = 0;
                    tiles.all::<8>(&mut at, count);
                    tiles.all::<4>(&mut at, count);
                    tiles.all::<1>(&mut at, count);
                }
            }
        }
    }
}

impl Unit<'_> {
    /// Makes levels of the inputs: `[step of the depth][position][DEPTH]`.
    #[inline(always)]
    unsafe fn levels<L: Levels>(&self, start: usize, count: usize) {
        let (lanes, packed) = (L::Floats::LANES, &self.kernel.packed);
        // SAFETY: the caller's.
        unsafe {
            for (index, &block) in packed.inputs.iter().enumerate() {
                let from = self.memory.read(block + lanes * start);
                let (step, within) = (index * lanes / DEPTH, index * lanes % DEPTH);
                let levels = L::Floats::load(packed.levels.as_ptr().add(index * lanes));
                let zeros = L::Floats::load(packed.zeros.as_ptr().add(index * lanes));
                L::of_floats(from, self.scratch.add(step * GROUP * DEPTH + within), count, levels, zeros);
            }
        }
    }
}

/// A vector of outputs for a group of positions.
struct Tiles<L: Levels> {
    /// Steps of the depth that are taken two at a time, then those that are not.
    pairs: usize,
    singles: usize,
    weights: *const i8,
    /// Of the first position, as [`Unit::levels`] makes them.
    levels: *const u8,
    start: L::Sums,
    scale: <L::Floats as Simd>::Vector,
    bias: <L::Floats as Simd>::Vector,
    slope: <L::Floats as Simd>::Vector,
    /// Blocks of the first position.
    residual: Option<*const f32>,
    output: *mut f32,
}

impl<L: Levels> Tiles<L> {
    /// As many whole tiles of `P` positions as fit before `end`.
    #[inline(always)]
    unsafe fn all<const P: usize>(&self, at: &mut usize, end: usize) {
        while *at + P <= end {
            // SAFETY: the caller's.
            unsafe { self.tile::<P>(*at) };
            *at += P;
        }
    }

    #[inline(always)]
    unsafe fn tile<const P: usize>(&self, at: usize) {
        let lanes = L::Floats::LANES;
        // SAFETY: weights and levels have whole vectors for every step; the rest is the caller's.
        unsafe {
            let mut sums = [self.start; P];
            let (mut weights, mut levels) = (self.weights, self.levels.add(at * DEPTH));
            for _ in 0..self.pairs {
                let second = weights.add(DEPTH * lanes);
                let filter = [
                    [L::weights(weights), L::weights(weights.add(4 * lanes))],
                    [L::weights(second), L::weights(second.add(4 * lanes))],
                ];
                for (p, sum) in sums.iter_mut().enumerate() {
                    let levels = levels.add(p * DEPTH);
                    *sum = L::add_both(*sum, [levels, levels.add(GROUP * DEPTH)], filter);
                }
                weights = weights.add(2 * DEPTH * lanes);
                levels = levels.add(2 * GROUP * DEPTH);
            }
            for _ in 0..self.singles {
                let filter = [L::weights(weights), L::weights(weights.add(4 * lanes))];
                for (p, sum) in sums.iter_mut().enumerate() {
                    *sum = L::add_products(*sum, levels.add(p * DEPTH), filter);
                }
                weights = weights.add(DEPTH * lanes);
                levels = levels.add(GROUP * DEPTH);
            }
            let output = self.output.add(at * lanes);
            macro_rules! finish {
                ($p:literal) => {
                    if $p < P {
                        // Two roundings, as everywhere.
                        let value = L::Floats::add(L::Floats::mul(L::floats(sums[$p % P]), self.scale), self.bias);
                        let mut value = L::Floats::max(value, L::Floats::mul(value, self.slope));
                        if let Some(residual) = self.residual {
                            value = L::Floats::add(value, L::Floats::load(residual.add((at + $p) * lanes)));
                        }
                        L::Floats::store(output.add($p * lanes), value);
                    }
                };
            }
            unrolled!(finish: 0 1 2 3 4 5 6 7);
        }
    }
}
