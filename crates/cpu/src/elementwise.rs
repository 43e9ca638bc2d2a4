//! Operations on single values: gate, sum, upsampling, and moving channels to where a kernel wants them. All are given in
//! offsets of whole blocks, but for [`Gather`].

use super::memory::{Memory, UNIT_WORK};
use super::touched::Touched;
use super::window::Division;
use yolo_lat_core::model::graph::Activation;
use yolo_lat_simd::Simd;

/// Blocks of a unit where each value costs about as much as `work` multiply-adds.
fn division(blocks: usize, positions: usize, work: usize) -> Division {
    Division::new(blocks, positions.div_ceil(POSITIONS), POSITIONS * work)
}

/// Positions that are one row of a [`Division`].
const POSITIONS: usize = 100;

/// Blocks and positions of a unit.
fn unit(division: Division, unit: usize, positions: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
    let (blocks, rows) = division.unit(unit);
    (blocks, rows.start * POSITIONS..(rows.end * POSITIONS).min(positions))
}

/// [`Activation::apply`] on the sums of a tile: one decision for all of them, where one for each vector takes longer than the sums of a short
/// filter do.
#[inline(always)]
pub(super) unsafe fn activate<S: Simd, const P: usize, const V: usize>(
    sums: &mut [[S::Vector; V]; P],
    activation: Activation,
) {
    // SAFETY: the caller has the instruction set.
    unsafe {
        match activation {
            Activation::Identity => {}
            Activation::LeakyRelu(0.0) => {
                let zero = S::splat(0.0);
                for sum in sums.as_flattened_mut() {
                    *sum = S::max(*sum, zero);
                }
            }
            Activation::LeakyRelu(slope) => {
                let slope = S::splat(slope);
                for sum in sums.as_flattened_mut() {
                    *sum = S::max(*sum, S::mul(*sum, slope));
                }
            }
        }
    }
}

/// Channels at `offsets` into planes `stride` apart, whole blocks at a time where they lie as in the map.
#[inline(always)]
pub(super) unsafe fn to_planes<S: Simd>(
    memory: Memory,
    offsets: &[usize],
    positions: usize,
    planes: *mut f32,
    stride: usize,
) {
    let whole = positions - positions % S::LANES;
    for (channel, lanes) in stretches::<S>(offsets) {
        // SAFETY: offsets are the plan's, and the caller gives room for their planes.
        unsafe {
            let (from, to) = (memory.read(offsets[channel]), planes.add(channel * stride));
            let transposed = if lanes == 1 { 0 } else { whole };
            for at in (0..transposed).step_by(S::LANES) {
                S::transpose(from.add(S::LANES * at), S::LANES, to.add(at), stride);
            }
            for (lane, at) in (0..lanes).flat_map(|lane| (transposed..positions).map(move |at| (lane, at))) {
                *to.add(lane * stride + at) = *from.add(S::LANES * at + lane);
            }
        }
    }
}

/// The reverse of [`to_planes`].
#[inline(always)]
pub(super) unsafe fn from_planes<S: Simd>(
    planes: *const f32,
    stride: usize,
    memory: Memory,
    offsets: &[usize],
    positions: usize,
) {
    let whole = positions - positions % S::LANES;
    for (channel, lanes) in stretches::<S>(offsets) {
        // SAFETY: offsets are the plan's, and the caller gives planes for them and alone writes there.
        unsafe {
            let (from, to) = (planes.add(channel * stride), memory.write(offsets[channel]));
            let transposed = if lanes == 1 { 0 } else { whole };
            for at in (0..transposed).step_by(S::LANES) {
                S::transpose(from.add(at), stride, to.add(S::LANES * at), S::LANES);
            }
            for (lane, at) in (0..lanes).flat_map(|lane| (transposed..positions).map(move |at| (lane, at))) {
                *to.add(S::LANES * at + lane) = *from.add(lane * stride + at);
            }
        }
    }
}

/// First channel and number of channels of what is moved together: the lanes of a block in its order, or one.
#[inline(always)]
fn stretches<S: Simd>(offsets: &[usize]) -> impl Iterator<Item = (usize, usize)> {
    let is_block = |channels: &[usize]| {
        channels.len() >= S::LANES
            && channels[0].is_multiple_of(S::LANES)
            && (1..S::LANES).all(|lane| channels[lane] == channels[0] + lane)
    };
    let mut channel = 0;
    std::iter::from_fn(move || {
        let start = channel;
        channel += if is_block(offsets.get(start..)?) { S::LANES } else { 1 };
        (start < offsets.len()).then_some((start, channel - start))
    })
}

/// Planes of the image into blocks.
pub(super) struct Pack {
    pub(super) channels: usize,
    pub(super) output: usize,
    pub(super) positions: usize,
}

impl Pack {
    pub(super) fn units(&self) -> usize {
        self.channels
    }

    pub(super) fn scratch(&self) -> usize {
        0
    }

    pub(super) fn touches(&self, channel: usize, touched: &mut Touched) {
        let block = channel / touched.block * touched.block;
        touched.writes(self.output + block * self.positions, 1, self.positions, 0..self.positions);
    }

    #[inline(always)]
    pub(super) unsafe fn run<S: Simd>(&self, channel: usize, memory: Memory, _: *mut f32) {
        let (block, lane) = (channel / S::LANES, channel % S::LANES);
        // SAFETY: the image has `positions` floats a channel; this unit alone writes this lane.
        unsafe {
            let plane = memory.image.add(channel * self.positions);
            let output = memory.write(self.output + block * S::LANES * self.positions + lane);
            for at in 0..self.positions {
                *output.add(S::LANES * at) = *plane.add(at);
            }
        }
    }
}

/// Single channels into blocks, where an operation wants them beside each other and they are not: a unit is a block.
pub(super) struct Gather {
    /// For each lane of each output block, where its channel is; lanes without one stay as they are.
    pub(super) lanes: Vec<Option<usize>>,
    pub(super) output: usize,
    pub(super) positions: usize,
    /// Channels in a block.
    pub(super) block: usize,
}

impl Gather {
    pub(super) fn units(&self) -> usize {
        self.lanes.len() / self.block
    }

    pub(super) fn scratch(&self) -> usize {
        0
    }

    pub(super) fn touches(&self, block: usize, touched: &mut Touched) {
        let lanes = &self.lanes[block * self.block..(block + 1) * self.block];
        touched.reads(&lanes.iter().filter_map(|&from| from).collect::<Vec<_>>(), 0..self.positions);
        touched.writes(self.output + block * self.block * self.positions, 1, self.positions, 0..self.positions);
    }

    #[inline(always)]
    pub(super) unsafe fn run<S: Simd>(&self, block: usize, memory: Memory, _: *mut f32) {
        // SAFETY: offsets are the plan's; this unit alone writes this block.
        unsafe {
            let output = memory.write(self.output + block * S::LANES * self.positions);
            for (lane, from) in self.lanes[block * S::LANES..(block + 1) * S::LANES].iter().enumerate() {
                let Some(from) = *from else { continue };
                let from = memory.read(from);
                for at in 0..self.positions {
                    *output.add(S::LANES * at + lane) = *from.add(S::LANES * at);
                }
            }
        }
    }
}

/// `u * silu(g)`.
pub(super) struct Gate {
    pub(super) u: Vec<usize>,
    pub(super) g: Vec<usize>,
    pub(super) output: usize,
    pub(super) positions: usize,
}

impl Gate {
    pub(super) fn units(&self) -> usize {
        division(self.u.len(), self.positions, 30).units()
    }

    pub(super) fn scratch(&self) -> usize {
        0
    }

    pub(super) fn touches(&self, index: usize, touched: &mut Touched) {
        let (blocks, positions) = unit(division(self.u.len(), self.positions, 30), index, self.positions);
        touched.reads(&self.u[blocks.clone()], positions.clone());
        touched.reads(&self.g[blocks.clone()], positions.clone());
        touched.writes(self.output, blocks.len(), self.positions, positions);
    }

    #[inline(always)]
    pub(super) unsafe fn run<S: Simd>(&self, index: usize, memory: Memory, _: *mut f32) {
        let (blocks, positions) = unit(division(self.u.len(), self.positions, 30), index, self.positions);
        for block in blocks {
            // SAFETY: offsets are the plan's; this unit alone writes these positions of these blocks.
            unsafe {
                let (u, g) = (memory.read(self.u[block]), memory.read(self.g[block]));
                let output = memory.write(self.output + block * S::LANES * self.positions);
                for at in positions.clone().map(|at| at * S::LANES) {
                    let (u, g) = (S::load(u.add(at)), S::load(g.add(at)));
                    let one = S::splat(1.0);
                    let denominator = S::add(one, S::exp(S::sub(S::splat(0.0), g)));
                    S::store(output.add(at), S::mul(u, S::div(g, denominator)));
                }
            }
        }
    }
}

/// `a + b`, where `b` may have half the resolution: then each of its values counts for four positions.
pub(super) struct Sum {
    pub(super) a: Vec<usize>,
    pub(super) b: Vec<usize>,
    pub(super) b_is_half: bool,
    pub(super) output: usize,
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Sum {
    fn division(&self) -> Division {
        Division::new(self.a.len(), self.height, 4 * self.width)
    }

    pub(super) fn units(&self) -> usize {
        self.division().units()
    }

    pub(super) fn scratch(&self) -> usize {
        0
    }

    pub(super) fn touches(&self, unit: usize, touched: &mut Touched) {
        let (blocks, rows) = self.division().unit(unit);
        let positions = rows.start * self.width..rows.end * self.width;
        touched.reads(&self.a[blocks.clone()], positions.clone());
        let half = rows.start / 2 * (self.width / 2)..rows.end.div_ceil(2) * (self.width / 2);
        touched.reads(&self.b[blocks.clone()], if self.b_is_half { half } else { positions.clone() });
        touched.writes(self.output, blocks.len(), self.height * self.width, positions);
    }

    #[inline(always)]
    pub(super) unsafe fn run<S: Simd>(&self, unit: usize, memory: Memory, _: *mut f32) {
        let Self { height, width, .. } = *self;
        let (blocks, rows) = self.division().unit(unit);
        for block in blocks {
            for row in rows.clone() {
                let at = S::LANES * row * width;
                // SAFETY: offsets are the plan's; this unit alone writes these rows of these blocks.
                unsafe {
                    let a = memory.read(self.a[block] + at);
                    let output = memory.write(self.output + block * S::LANES * height * width + at);
                    if self.b_is_half {
                        let b = memory.read(self.b[block] + S::LANES * (row / 2) * (width / 2));
                        for x in 0..width {
                            let sum = S::add(S::load(a.add(S::LANES * x)), S::load(b.add(S::LANES * (x / 2))));
                            S::store(output.add(S::LANES * x), sum);
                        }
                    } else {
                        let b = memory.read(self.b[block] + at);
                        for x in (0..width).map(|x| S::LANES * x) {
                            S::store(output.add(x), S::add(S::load(a.add(x)), S::load(b.add(x))));
                        }
                    }
                }
            }
        }
    }
}

/// Gates of experts, `Op::Route`. Few channels, so one at a time: a unit is a stretch of positions.
pub(super) struct Route {
    /// Where each channel of the scores is.
    pub(super) scores: Vec<usize>,
    pub(super) output: usize,
    pub(super) positions: usize,
    pub(super) active: usize,
    pub(super) equal: bool,
}

impl Route {
    pub(super) fn units(&self) -> usize {
        self.positions.div_ceil(POSITIONS)
    }

    /// Scores, and shares of the softmax.
    pub(super) fn scratch(&self) -> usize {
        2 * self.scores.len()
    }

    pub(super) fn touches(&self, unit: usize, touched: &mut Touched) {
        let positions = unit * POSITIONS..((unit + 1) * POSITIONS).min(self.positions);
        touched.reads(&self.scores, positions.clone());
        touched.writes(self.output, self.scores.len().div_ceil(touched.block), self.positions, positions);
    }

    #[inline(always)]
    pub(super) unsafe fn run<S: Simd>(&self, unit: usize, memory: Memory, scratch: *mut f32) {
        let (count, active) = (self.scores.len(), self.active);
        for at in unit * POSITIONS..((unit + 1) * POSITIONS).min(self.positions) {
            // SAFETY: offsets are the plan's, the scratch is this unit's and as large as `scratch` says; this unit alone writes these
            // positions.
            unsafe {
                let scores = std::slice::from_raw_parts_mut(scratch, count);
                let shares = std::slice::from_raw_parts_mut(scratch.add(count), count);
                for (score, &from) in scores.iter_mut().zip(&self.scores) {
                    *score = *memory.read(from).add(S::LANES * at);
                }
                let peak = scores.iter().fold(f32::NEG_INFINITY, |peak, &score| peak.max(score));
                let all: f32 = scores.iter().map(|score| (score - peak).exp()).sum();
                // Below 0 where a channel is not chosen.
                let mut whole = 0.0;
                for (channel, share) in shares.iter_mut().enumerate() {
                    let score = scores[channel];
                    let before = |(other, value): (usize, &f32)| *value > score || *value == score && other < channel;
                    let is_chosen = scores.iter().enumerate().filter(|&pair| before(pair)).count() < active;
                    *share = if is_chosen { (score - peak).exp() } else { -1.0 };
                    whole += share.max(0.0);
                }
                let whole = if active == 1 { all } else { whole };
                for (channel, &share) in shares.iter().enumerate() {
                    let (block, lane) = (channel / S::LANES, channel % S::LANES);
                    let output = memory.write(self.output + S::LANES * (block * self.positions + at) + lane);
                    *output = if self.equal { f32::from(u8::from(share >= 0.0)) } else { share.max(0.0) / whole };
                }
            }
        }
    }
}

/// Blocks times single channels, `Op::Scale`.
pub(super) struct Scale {
    pub(super) inputs: Vec<usize>,
    /// For each lane of each block, where the channel is that it is multiplied by.
    pub(super) factors: Vec<usize>,
    pub(super) output: usize,
    pub(super) positions: usize,
}

impl Scale {
    fn division(&self) -> Division {
        division(self.inputs.len(), self.positions, 16)
    }

    pub(super) fn units(&self) -> usize {
        self.division().units()
    }

    pub(super) fn scratch(&self) -> usize {
        0
    }

    pub(super) fn touches(&self, index: usize, touched: &mut Touched) {
        let (blocks, positions) = unit(self.division(), index, self.positions);
        touched.reads(&self.inputs[blocks.clone()], positions.clone());
        touched.reads(&self.factors, positions.clone());
        touched.writes(self.output, blocks.len(), self.positions, positions);
    }

    #[inline(always)]
    pub(super) unsafe fn run<S: Simd>(&self, index: usize, memory: Memory, _: *mut f32) {
        let (blocks, positions) = unit(self.division(), index, self.positions);
        for block in blocks {
            let factors = &self.factors[block * S::LANES..(block + 1) * S::LANES];
            // SAFETY: offsets are the plan's; this unit alone writes these positions of these blocks.
            unsafe {
                let input = memory.read(self.inputs[block]);
                let output = memory.write(self.output + block * S::LANES * self.positions);
                for at in positions.clone().map(|at| at * S::LANES) {
                    for (lane, &factor) in factors.iter().enumerate() {
                        *output.add(at + lane) = *input.add(at + lane) * *memory.read(factor).add(at);
                    }
                }
            }
        }
    }
}

/// Each value twice in both directions; only where no sum takes it in.
pub(super) struct Upsample {
    pub(super) inputs: Vec<usize>,
    pub(super) output: usize,
    /// Of the input.
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Upsample {
    fn division(&self) -> Division {
        Division::new(self.inputs.len(), self.height, 8 * self.width)
    }

    pub(super) fn units(&self) -> usize {
        self.division().units()
    }

    pub(super) fn scratch(&self) -> usize {
        0
    }

    pub(super) fn touches(&self, unit: usize, touched: &mut Touched) {
        let (blocks, rows) = self.division().unit(unit);
        touched.reads(&self.inputs[blocks.clone()], rows.start * self.width..rows.end * self.width);
        let written = 4 * rows.start * self.width..4 * rows.end * self.width;
        touched.writes(self.output, blocks.len(), 4 * self.height * self.width, written);
    }

    #[inline(always)]
    pub(super) unsafe fn run<S: Simd>(&self, unit: usize, memory: Memory, _: *mut f32) {
        let Self { height, width, .. } = *self;
        let (blocks, rows) = self.division().unit(unit);
        for block in blocks {
            for row in rows.clone() {
                // SAFETY: offsets are the plan's; this unit alone writes these rows of these blocks.
                unsafe {
                    let input = memory.read(self.inputs[block] + S::LANES * row * width);
                    let output = memory.write(self.output + S::LANES * (block * 4 * height * width + 4 * row * width));
                    for x in 0..width {
                        let value = S::load(input.add(S::LANES * x));
                        for at in [2 * x, 2 * x + 1, 2 * width + 2 * x, 2 * width + 2 * x + 1] {
                            S::store(output.add(S::LANES * at), value);
                        }
                    }
                }
            }
        }
    }
}

// A unit of what moves data is as long as one that computes.
const _: () = assert!(UNIT_WORK > 8 * POSITIONS * 30);
