//! One step of a plan: what it reads, where it writes, and how it divides into units that threads can take.

use super::attention::Attention;
use super::elementwise::{Gate, Gather, Pack, Route, Scale, Sum, Upsample};
use super::integers::IntegerPointwise;
use super::memory::Memory;
use super::product::{Convolution, Pointwise};
use super::touched::Touched;
use super::windows::{Depthwise, MaxPool};
use yolo_lat_simd::{InstructionSet, Simd};

/// A kernel with its operands. Views of the graph are no steps.
pub(super) enum Step {
    Pack(Pack),
    Gather(Gather),
    Convolution(Convolution),
    Pointwise(Pointwise),
    IntegerPointwise(IntegerPointwise),
    Depthwise(Depthwise),
    MaxPool(MaxPool),
    Attention(Attention),
    Gate(Gate),
    Sum(Sum),
    Route(Route),
    Scale(Scale),
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
            Step::IntegerPointwise($kernel) => $call,
            Step::Depthwise($kernel) => $call,
            Step::MaxPool($kernel) => $call,
            Step::Attention($kernel) => $call,
            Step::Gate($kernel) => $call,
            Step::Sum($kernel) => $call,
            Step::Route($kernel) => $call,
            Step::Scale($kernel) => $call,
            Step::Upsample($kernel) => $call,
            #[cfg(test)]
            Step::Panic => $panic,
        }
    };
}

impl Step {
    /// Pieces of work that do not depend on each other. Their number does not depend on the threads, and neither do
    /// the results.
    pub(super) fn units(&self) -> usize {
        each_step!(self, kernel => kernel.units(), 4)
    }

    /// Whether it only copies, because an operation wants its inputs in another order.
    pub(super) fn is_gather(&self) -> bool {
        matches!(self, Self::Gather(_))
    }

    /// Floats of scratch that a unit needs.
    pub(super) fn scratch(&self) -> usize {
        each_step!(self, kernel => kernel.scratch(), 0)
    }

    /// What a unit reads and writes, where blocks have `block` channels.
    pub(super) fn touches(&self, unit: usize, block: usize) -> Touched {
        let mut touched = Touched::new(block);
        each_step!(self, kernel => kernel.touches(unit, &mut touched), ());
        touched
    }

    /// Runs one unit.
    ///
    /// # Safety
    /// `memory` must be that of the plan and `scratch` as large as it says, `set` must exist on this machine,
    /// `unit < units()`, and no other thread may run the same unit, or write what it touches, or read what it writes, at that time.
    pub(super) unsafe fn run(&self, set: InstructionSet, unit: usize, memory: Memory, scratch: *mut f32) {
        // SAFETY: the caller's promises are those of the functions called.
        unsafe {
            // Dot products are instructions of their own.
            if let Self::IntegerPointwise(kernel) = self {
                return kernel.run(set, unit, memory, scratch);
            }
            match set {
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx512 => run_avx512(self, unit, memory, scratch),
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx2 => run_avx2(self, unit, memory, scratch),
                #[cfg(target_arch = "aarch64")]
                InstructionSet::Neon => {
                    run_with::<yolo_lat_simd::Neon, yolo_lat_simd::Neon>(self, unit, memory, scratch)
                }
                #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
                InstructionSet::Simd128 => {
                    run_with::<yolo_lat_simd::Simd128, yolo_lat_simd::Simd128>(self, unit, memory, scratch)
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
            Step::IntegerPointwise(_) => unreachable!("it is run before"),
            Step::Depthwise(kernel) => kernel.run::<S, W>(unit, memory, scratch),
            Step::MaxPool(kernel) => kernel.run::<S>(unit, memory, scratch),
            Step::Attention(kernel) => kernel.run::<S>(unit, memory, scratch),
            Step::Gate(kernel) => kernel.run::<S>(unit, memory, scratch),
            Step::Sum(kernel) => kernel.run::<S>(unit, memory, scratch),
            Step::Route(kernel) => kernel.run::<S>(unit, memory, scratch),
            Step::Scale(kernel) => kernel.run::<S>(unit, memory, scratch),
            Step::Upsample(kernel) => kernel.run::<S>(unit, memory, scratch),
            #[cfg(test)]
            Step::Panic => panic!("a kernel that panics"),
        }
    }
}
