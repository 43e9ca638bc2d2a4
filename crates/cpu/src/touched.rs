//! What a unit reads and writes.

use std::ops::Range;

/// What a unit reads and writes of the arena, as floats. What it reads of the image nobody writes.
pub(super) struct Touched {
    /// Channels in a block.
    pub(super) block: usize,
    pub(super) reads: Vec<Range<usize>>,
    pub(super) writes: Vec<Range<usize>>,
}

impl Touched {
    pub(super) fn new(block: usize) -> Self {
        Self { block, reads: Vec::new(), writes: Vec::new() }
    }

    /// It reads `positions` of the blocks that hold the channels at `offsets`.
    pub(super) fn reads(&mut self, offsets: &[usize], positions: Range<usize>) {
        let start = |offset: &usize| offset - offset % self.block;
        let mut blocks: Vec<usize> = offsets.iter().map(start).collect();
        blocks.dedup();
        let range = |at: usize| at + self.block * positions.start..at + self.block * positions.end;
        self.reads.extend(blocks.into_iter().map(range));
    }

    /// It writes `positions` of the `blocks` blocks from `output` on, which have `all` positions.
    pub(super) fn writes(&mut self, output: usize, blocks: usize, all: usize, positions: Range<usize>) {
        let range = |block: usize| {
            let at = output + self.block * all * block;
            at + self.block * positions.start..at + self.block * positions.end
        };
        self.writes.extend((0..blocks).map(range));
    }

    /// It writes `positions` of channels at `offsets`, of whose blocks other units of its step may write the other channels.
    pub(super) fn writes_channels(&mut self, offsets: &[usize], positions: Range<usize>) {
        let reads = self.reads.len();
        self.reads(offsets, positions);
        self.writes.extend(self.reads.drain(reads..));
    }

    /// With what another unit touches.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.reads.extend(other.reads);
        self.writes.extend(other.writes);
        self
    }

    /// In order, without overlaps.
    pub(super) fn sorted(mut self) -> Self {
        for ranges in [&mut self.reads, &mut self.writes] {
            ranges.sort_unstable_by_key(|range| range.start);
            ranges.dedup_by(|next, range| {
                let meets = next.start <= range.end;
                if meets {
                    range.end = range.end.max(next.end);
                }
                meets
            });
        }
        self
    }

    /// Whether one of the two writes what the other touches. Both are sorted.
    pub(super) fn conflicts(&self, other: &Self) -> bool {
        overlap(&self.writes, &other.writes)
            || overlap(&self.writes, &other.reads)
            || overlap(&self.reads, &other.writes)
    }
}

/// Whether two lists of ranges in order have a number in common.
fn overlap(a: &[Range<usize>], b: &[Range<usize>]) -> bool {
    let (mut i, mut j) = (0, 0);
    while let (Some(a), Some(b)) = (a.get(i), b.get(j)) {
        if a.start < b.end && b.start < a.end {
            return true;
        }
        if a.end <= b.end { i += 1 } else { j += 1 }
    }
    false
}
