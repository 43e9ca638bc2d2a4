//! One step of a plan: what it reads, where it writes, and how it divides into units that threads can take.
//!
//! A feature map is a list of channel planes in one block of memory (the arena), so a slice, a concatenation or a
//! shuffle is another list. Every plane has room for one vector more than its positions: kernels may read and write
//! past the last position, but never past that room.

use super::attention::Attention;
use super::elementwise::{Gate, Sum, Upsample};
use super::product::{Convolution, Pointwise};
use super::windows::{Copy, Depthwise, MaxPool};
use yolo_lat_simd::InstructionSet;

/// Where a plane begins: an offset in floats, into the arena or into the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlaneAt(usize);

const IN_PICTURE: usize = 1 << (usize::BITS - 1);

impl PlaneAt {
    pub(super) fn arena(offset: usize) -> Self {
        Self(offset)
    }

    pub(super) fn picture(offset: usize) -> Self {
        Self(offset | IN_PICTURE)
    }
}

/// Floats from one plane of a buffer to the next: its positions, one vector of room, whole cache lines.
pub(super) fn plane_stride(positions: usize) -> usize {
    (positions + 15).next_multiple_of(16)
}

/// The memory of one run: an arena that the steps write and a picture that they only read.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    pub(super) arena: *mut f32,
    pub(super) picture: *const f32,
}

// SAFETY: threads that share a `Memory` write disjoint planes or tiles (each unit of a step is taken once), and a
// step starts only after the previous one is complete.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// # Safety
    /// `at` must come from the plan this memory was made for.
    #[inline(always)]
    pub(super) unsafe fn read(self, at: PlaneAt) -> *const f32 {
        // SAFETY: offsets of the plan lie inside the block they name.
        unsafe {
            if at.0 & IN_PICTURE != 0 {
                self.picture.add(at.0 & !IN_PICTURE)
            } else {
                self.arena.add(at.0).cast_const()
            }
        }
    }

    /// # Safety
    /// As [`Memory::read`]; the caller is the only one to write there.
    #[inline(always)]
    pub(super) unsafe fn write(self, offset: usize) -> *mut f32 {
        // SAFETY: offsets of the plan lie inside the arena.
        unsafe { self.arena.add(offset) }
    }
}

/// A thread's own working memory: floats for padded planes and features, pointers for the rows of a product.
pub(super) struct Scratch {
    pub(super) floats: Vec<f32>,
    pub(super) rows: Vec<*const f32>,
}

// SAFETY: the pointers are rewritten by every unit that uses them and mean nothing between units.
unsafe impl Send for Scratch {}

/// A kernel with its operands. Views of the graph are no steps.
pub(super) enum Step {
    Copy(Copy),
    Convolution(Convolution),
    Pointwise(Pointwise),
    Depthwise(Depthwise),
    MaxPool(MaxPool),
    Attention(Attention),
    Gate(Gate),
    Sum(Sum),
    Upsample(Upsample),
}

/// Calls a method of whatever kernel a step holds.
macro_rules! each_step {
    ($step:expr, $kernel:ident => $call:expr) => {
        match $step {
            Step::Copy($kernel) => $call,
            Step::Convolution($kernel) => $call,
            Step::Pointwise($kernel) => $call,
            Step::Depthwise($kernel) => $call,
            Step::MaxPool($kernel) => $call,
            Step::Attention($kernel) => $call,
            Step::Gate($kernel) => $call,
            Step::Sum($kernel) => $call,
            Step::Upsample($kernel) => $call,
        }
    };
}

impl Step {
    /// Pieces of work that do not depend on each other. Their number does not depend on the threads, and neither do
    /// the results.
    pub(super) fn units(&self) -> usize {
        each_step!(self, kernel => kernel.units())
    }

    /// Scratch a unit needs: floats and row pointers.
    pub(super) fn scratch(&self) -> (usize, usize) {
        each_step!(self, kernel => kernel.scratch())
    }

    /// Runs one unit.
    ///
    /// # Safety
    /// `memory` and `scratch` must be those of the plan, `set` must exist on this machine, `unit < units()`, and no
    /// other thread may run the same unit.
    pub(super) unsafe fn run(&self, set: InstructionSet, unit: usize, memory: Memory, scratch: &mut Scratch) {
        // SAFETY: the caller's promises are those of the functions called.
        unsafe {
            match set {
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx512 => run_avx512(self, unit, memory, scratch),
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx2 => run_avx2(self, unit, memory, scratch),
                #[cfg(target_arch = "aarch64")]
                InstructionSet::Neon => run_with::<yolo_lat_simd::Neon, 8>(self, unit, memory, scratch),
                InstructionSet::Plain => run_with::<yolo_lat_simd::Plain, 4>(self, unit, memory, scratch),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn run_avx512(step: &Step, unit: usize, memory: Memory, scratch: &mut Scratch) {
    // SAFETY: the caller's.
    unsafe { run_with::<yolo_lat_simd::Avx512, 8>(step, unit, memory, scratch) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2(step: &Step, unit: usize, memory: Memory, scratch: &mut Scratch) {
    // SAFETY: the caller's.
    unsafe { run_with::<yolo_lat_simd::Avx2, 6>(step, unit, memory, scratch) }
}

/// Inlined into one function for each instruction set; `ROWS` is [`InstructionSet::tile_rows`].
#[inline(always)]
unsafe fn run_with<S: yolo_lat_simd::Simd, const ROWS: usize>(
    step: &Step,
    unit: usize,
    memory: Memory,
    scratch: &mut Scratch,
) {
    // SAFETY: the caller's.
    unsafe { each_step!(step, kernel => kernel.run::<S, ROWS>(unit, memory, scratch)) }
}
