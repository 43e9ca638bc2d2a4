//! The memory of a run, and what all kernels share.
//!
//! A feature map lies in the arena in blocks of channels: all positions of the first block, then all of the second. Within
//! a block the channels of a position are neighbours, one vector. Channel `c` at position `p` is the float
//! `offset[c] + BLOCK * p`, so a slice, a concatenation or a shuffle is another list of offsets. Matrix products read
//! such lists; kernels that compute whole vectors read blocks.

/// The memory of one run: an arena that the steps write and an image that they only read.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    pub(super) arena: *mut f32,
    pub(super) image: *const f32,
}

// SAFETY: threads that share a `Memory` write disjoint parts (each unit of a step is taken once), and a unit starts only
// after those of earlier steps that write what it touches, or touch what it writes (`Order`).
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

/// Multiply-adds of a unit, about 10 to 20 us: long beside taking it, short beside the step. What moves data counts more
/// for each value.
pub(super) const UNIT_WORK: usize = 400_000;

/// Units of a step of `work` multiply-adds, `most` at most: two where a second thread gains more than it waits. More than two are fours, of
/// which two threads and four have equal parts, the same rows from step to step.
pub(super) fn units_of(work: usize, most: usize) -> usize {
    let least = if work > UNIT_WORK / 4 { 2 } else { 1 };
    let units = work.div_ceil(UNIT_WORK).max(least);
    (if units > 2 { units.next_multiple_of(4) } else { units }).clamp(1, most.max(1))
}
