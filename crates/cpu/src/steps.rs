//! One step of a plan: what it reads, where it writes, and how it divides into units that threads can take.
//!
//! A feature map lies in the arena in blocks of channels: all positions of the first block, then all of the second. Within
//! a block the channels of a position are neighbours, one vector. Channel `c` at position `p` is the float
//! `offset[c] + BLOCK * p`, so a slice, a concatenation or a shuffle is another list of offsets. Matrix products read
//! such lists; kernels that compute whole vectors read blocks.

use super::attention::Attention;
use super::elementwise::{Gate, Gather, Pack, Sum, Upsample};
use super::product::{Convolution, Pointwise};
use super::windows::{Depthwise, MaxPool};
use yolo_lat_simd::{InstructionSet, Simd};

/// The memory of one run: an arena that the steps write and a picture that they only read.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    pub(super) arena: *mut f32,
    pub(super) picture: *const f32,
}

// SAFETY: threads that share a `Memory` write disjoint parts (each unit of a step is taken once), and a step starts only
// after the previous one is complete.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// # Safety
    /// `offset` must come from the plan this memory was made for.
    #[inline(always)]
    pub(super) unsafe fn read(self, offset: usize) -> *const f32 {
        // SAFETY: offsets of the plan lie inside the arena.
        unsafe { self.arena.add(offset).cast_const() }
    }

    /// # Safety
    /// As [`Memory::read`]; the caller is the only one to write there.
    #[inline(always)]
    pub(super) unsafe fn write(self, offset: usize) -> *mut f32 {
        // SAFETY: offsets of the plan lie inside the arena.
        unsafe { self.arena.add(offset) }
    }
}

/// Floats in whole cache lines, so that vectors do not straddle them.
#[derive(Clone, Default)]
pub(super) struct Aligned(Vec<CacheLine>);

#[derive(Clone, Copy)]
#[repr(align(64))]
struct CacheLine(#[expect(dead_code, reason = "read through a pointer")] [f32; 16]);

impl Aligned {
    /// Room for `floats` at least; what was there stays.
    pub(super) fn resize(&mut self, floats: usize) {
        self.0.resize(floats.div_ceil(16), CacheLine([0.0; 16]));
    }

    pub(super) fn as_ptr(&self) -> *const f32 {
        self.0.as_ptr().cast()
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.0.as_mut_ptr().cast()
    }
}

impl From<Vec<f32>> for Aligned {
    fn from(values: Vec<f32>) -> Self {
        let line = |chunk: &[f32]| {
            let mut line = [0.0; 16];
            line[..chunk.len()].copy_from_slice(chunk);
            CacheLine(line)
        };
        Self(values.chunks(16).map(line).collect())
    }
}

/// Repeats a macro for indices that are constants: of a loop the compiler would keep the sums in memory.
macro_rules! unrolled {
    ($do:ident: $($index:literal)*) => { $( $do!($index); )* };
}
pub(super) use unrolled;

/// A kernel with its operands. Views of the graph are no steps.
pub(super) enum Step {
    Pack(Pack),
    Gather(Gather),
    Convolution(Convolution),
    Pointwise(Pointwise),
    Depthwise(Depthwise),
    MaxPool(MaxPool),
    Attention(Attention),
    Gate(Gate),
    Sum(Sum),
    Upsample(Upsample),
    #[cfg(test)]
    Panic,
}

/// Calls a method of whatever kernel a step holds.
macro_rules! each_step {
    ($step:expr, $kernel:ident => $call:expr, $panic:expr) => {
        match $step {
            Step::Pack($kernel) => $call,
            Step::Gather($kernel) => $call,
            Step::Convolution($kernel) => $call,
            Step::Pointwise($kernel) => $call,
            Step::Depthwise($kernel) => $call,
            Step::MaxPool($kernel) => $call,
            Step::Attention($kernel) => $call,
            Step::Gate($kernel) => $call,
            Step::Sum($kernel) => $call,
            Step::Upsample($kernel) => $call,
            #[cfg(test)]
            Step::Panic => $panic,
        }
    };
}

/// Multiply-adds of a unit, about 10 to 20 us: long beside taking it, short beside the step. What moves data counts more
/// for each value.
pub(super) const UNIT_WORK: usize = 400_000;

impl Step {
    /// Pieces of work that do not depend on each other. Their number does not depend on the threads, and neither do
    /// the results.
    pub(super) fn units(&self) -> usize {
        each_step!(self, kernel => kernel.units(), 4)
    }

    /// Floats of scratch that a unit needs.
    pub(super) fn scratch(&self) -> usize {
        each_step!(self, kernel => kernel.scratch(), 0)
    }

    /// Runs one unit.
    ///
    /// # Safety
    /// `memory` must be that of the plan and `scratch` as large as it says, `set` must exist on this machine,
    /// `unit < units()`, and no other thread may run the same unit.
    pub(super) unsafe fn run(&self, set: InstructionSet, unit: usize, memory: Memory, scratch: *mut f32) {
        // SAFETY: the caller's promises are those of the functions called.
        unsafe {
            match set {
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx512 => run_avx512(self, unit, memory, scratch),
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx2 => run_avx2(self, unit, memory, scratch),
                #[cfg(target_arch = "aarch64")]
                InstructionSet::Neon => {
                    run_with::<yolo_lat_simd::Neon, yolo_lat_simd::Neon>(self, unit, memory, scratch)
                }
                InstructionSet::Plain => {
                    run_with::<yolo_lat_simd::Plain, yolo_lat_simd::Plain>(self, unit, memory, scratch)
                }
            }
        }
    }
}

// Blocks of 8 channels, products of 16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
unsafe fn run_avx512(step: &Step, unit: usize, memory: Memory, scratch: *mut f32) {
    // SAFETY: the caller's.
    unsafe { run_with::<yolo_lat_simd::Avx2, yolo_lat_simd::Avx512>(step, unit, memory, scratch) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2(step: &Step, unit: usize, memory: Memory, scratch: *mut f32) {
    // SAFETY: the caller's.
    unsafe { run_with::<yolo_lat_simd::Avx2, yolo_lat_simd::Avx2>(step, unit, memory, scratch) }
}

/// Inlined into one function for each instruction set: `S` holds a block of channels, `W` one block or two.
#[inline(always)]
unsafe fn run_with<S: Simd, W: Simd>(step: &Step, unit: usize, memory: Memory, scratch: *mut f32) {
    // SAFETY: the caller's.
    unsafe {
        match step {
            Step::Pack(kernel) => kernel.run::<S>(unit, memory, scratch),
            Step::Gather(kernel) => kernel.run::<S>(unit, memory, scratch),
            Step::Convolution(kernel) => kernel.run::<S, W>(unit, memory, scratch),
            Step::Pointwise(kernel) => kernel.run::<S, W>(unit, memory, scratch),
            Step::Depthwise(kernel) => kernel.run::<S>(unit, memory, scratch),
            Step::MaxPool(kernel) => kernel.run::<S>(unit, memory, scratch),
            Step::Attention(kernel) => kernel.run::<S>(unit, memory, scratch),
            Step::Gate(kernel) => kernel.run::<S>(unit, memory, scratch),
            Step::Sum(kernel) => kernel.run::<S>(unit, memory, scratch),
            Step::Upsample(kernel) => kernel.run::<S>(unit, memory, scratch),
            #[cfg(test)]
            Step::Panic => panic!("a kernel that panics"),
        }
    }
}
