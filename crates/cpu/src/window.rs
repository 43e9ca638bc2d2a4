//! Where windows lie, and how rows of blocks divide into units.

use super::memory::units_of;

/// The geometry of a window that slides over a map.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Input rows.
    pub(super) height: usize,
    /// Input columns.
    pub(super) width: usize,
    /// Odd side of the window; the border is `kernel / 2`.
    pub(super) kernel: usize,
    /// 1 or 2.
    pub(super) stride: usize,
    /// Output rows.
    pub(super) output_height: usize,
    /// Output columns.
    pub(super) output_width: usize,
}

impl Window {
    pub(super) fn outputs(&self) -> usize {
        self.output_height * self.output_width
    }

    /// The input rows under the windows of some output rows.
    pub(super) fn input_rows(&self, rows: std::ops::Range<usize>) -> std::ops::Range<usize> {
        let (stride, reach) = (self.stride, self.kernel / 2);
        let end = ((rows.end - 1) * stride + reach + 1).min(self.height);
        (rows.start * stride).saturating_sub(reach).min(end)..end
    }

    /// The rows under a 3x3 window at stride 2. Outside, the middle row stands in, which changes no maximum.
    #[inline(always)]
    pub(super) fn pool_rows(&self, row: usize) -> [usize; 3] {
        let middle = 2 * row;
        [middle.saturating_sub(1), middle, (middle + 1).min(self.height - 1)]
    }
}

/// How the rows of blocks divide into units: bands of rows, as the positions of a product do, so that a thread reads what it wrote.
#[derive(Clone, Copy)]
pub(super) struct Division {
    blocks: usize,
    rows: usize,
    units: usize,
}

impl Division {
    /// For `blocks` of `rows`, each row worth `work` multiply-adds of vectors.
    pub(super) fn new(blocks: usize, rows: usize, work: usize) -> Self {
        Self { blocks, rows, units: units_of(8 * blocks * rows * work, rows) }
    }

    pub(super) fn units(&self) -> usize {
        self.units
    }

    /// Blocks and rows of a unit.
    pub(super) fn unit(&self, unit: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        (0..self.blocks, unit * self.rows / self.units..(unit + 1) * self.rows / self.units)
    }
}
