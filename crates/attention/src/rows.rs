//! f32 matrices whose rows are tokens, and the one product that all attention here is made of.

use yolo_lat_simd::{InstructionSet, Simd, Work, dispatch};

/// Rows of `width` floats, `stride` apart: a head's columns of a (tokens, heads * width) matrix.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    values: &'a [f32],
    stride: usize,
    width: usize,
}

impl<'a> Rows<'a> {
    /// All of a (tokens, width) matrix.
    ///
    /// # Panics
    /// If `values` are no whole rows, or `width` is 0.
    pub fn new(values: &'a [f32], width: usize) -> Self {
        assert!(width > 0 && values.len().is_multiple_of(width), "{} values, rows of {width}", values.len());
        Self { values, stride: width, width }
    }

    /// Head `head` of a (tokens, heads * width) matrix.
    ///
    /// # Panics
    /// If `values` are no whole rows.
    pub fn head(values: &'a [f32], heads: usize, head: usize, width: usize) -> Self {
        let stride = heads * width;
        assert!(head < heads && stride > 0 && values.len().is_multiple_of(stride), "{} values", values.len());
        let values = if values.is_empty() { values } else { &values[head * width..] };
        Self { values, stride, width }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.values.len().div_ceil(self.stride)
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Floats in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Row `index`.
    pub fn row(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.stride..][..self.width]
    }

    /// All rows in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a [f32]> + use<'a> {
        let (values, stride, width) = (self.values, self.stride, self.width);
        values.chunks(stride).map(move |row| &row[..width])
    }

    /// Rows `start..end`.
    pub fn slice(&self, start: usize, end: usize) -> Self {
        let last = if end == start { start * self.stride } else { (end - 1) * self.stride + self.width };
        Self { values: &self.values[start * self.stride..last], ..*self }
    }
}

/// A matrix read as (rows, depth): element (r, d) lies at `r * row + d * depth`.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    pub(super) values: &'a [f32],
    pub(super) row: usize,
    pub(super) depth: usize,
}

/// `out (rows, width) += left (rows, depth) * right (depth, width)`.
struct Product<'a> {
    left: Left<'a>,
    right: Rows<'a>,
    out: *mut f32,
    out_stride: usize,
    rows: usize,
}

/// Adds the product of `left` (rows, depth) and `right` (depth, width) to `out` (rows, width), whose rows lie `stride`
/// apart.
pub(super) fn multiply_add(set: InstructionSet, left: Left, right: Rows, out: &mut [f32], stride: usize, rows: usize) {
    let depth = right.len();
    if rows == 0 || depth == 0 {
        return;
    }
    assert!(stride >= right.width && out.len() >= (rows - 1) * stride + right.width);
    assert!(left.values.len() > (rows - 1) * left.row + (depth - 1) * left.depth);
    let product = Product { left, right, out: out.as_mut_ptr(), out_stride: stride, rows };
    // SAFETY: sets come from `InstructionSet::available`; the product stays inside what was just checked.
    unsafe { dispatch(set, product) }
}

impl Work for Product<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let width = self.right.width;
        let whole = width / S::LANES * S::LANES;
        // SAFETY: the caller has the instruction set.
        let wide = unsafe {
            // Sixteen sums need more than the sixteen registers of AVX2.
            if S::TILE < 8 { self.wide::<S, 2>() } else { self.wide::<S, 4>() }
        };
        // SAFETY: tiles lie inside (rows, width), as `multiply_add` checked.
        unsafe {
            // A multiply-add takes four cycles and two start in each: eight sums at least, or the units wait.
            let mut row = 0;
            while row < self.rows && wide < whole {
                let eight = row + 8 <= self.rows;
                for column in (wide..whole).step_by(S::LANES) {
                    if eight { self.tile::<S, 8, 1>(row, column) } else { self.tile::<S, 1, 1>(row, column) }
                }
                row += if eight { 8 } else { 1 };
            }
        }
        for row in 0..self.rows {
            for column in whole..width {
                let terms = self.right.iter().enumerate();
                let sum: f32 = terms
                    .map(|(d, right)| self.left.values[row * self.left.row + d * self.left.depth] * right[column])
                    .sum();
                // SAFETY: inside (rows, width), as `multiply_add` checked.
                unsafe { *self.out.add(row * self.out_stride + column) += sum };
            }
        }
    }
}

impl Product<'_> {
    /// Tiles of four rows by VECTORS vectors, as far as they reach; gives the first column beyond them.
    #[inline(always)]
    unsafe fn wide<S: Simd, const VECTORS: usize>(&self) -> usize {
        let step = VECTORS * S::LANES;
        let wide = self.right.width / step * step;
        let mut row = 0;
        while row < self.rows {
            let four = row + 4 <= self.rows;
            for column in (0..wide).step_by(step) {
                // SAFETY: tiles lie inside (rows, width), as `multiply_add` checked.
                unsafe {
                    if four { self.tile::<S, 4, VECTORS>(row, column) } else { self.tile::<S, 1, VECTORS>(row, column) }
                }
            }
            row += if four { 4 } else { 1 };
        }
        wide
    }

    /// ROWS x (VECTORS * LANES) elements of the result, kept in registers over the whole depth.
    #[inline(always)]
    unsafe fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(&self, row: usize, column: usize) {
        let (stride, depth) = (self.out_stride, self.right.len());
        // SAFETY: the caller's tile lies inside the matrices.
        unsafe {
            let out = self.out.add(row * stride + column);
            let left = self.left.values.as_ptr().add(row * self.left.row);
            let right = self.right.values.as_ptr().add(column);
            let mut sums = [[S::splat(0.0); VECTORS]; ROWS];
            for (r, sums) in sums.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = S::load(out.add(r * stride + v * S::LANES));
                }
            }
            for d in 0..depth {
                let mut line = [S::splat(0.0); VECTORS];
                for (v, line) in line.iter_mut().enumerate() {
                    *line = S::load(right.add(d * self.right.stride + v * S::LANES));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let factor = S::splat(*left.add(r * self.left.row + d * self.left.depth));
                    for (sum, line) in sums.iter_mut().zip(line) {
                        *sum = S::fma(factor, line, *sum);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    S::store(out.add(r * stride + v * S::LANES), *sum);
                }
            }
        }
    }
}

/// `values[i] = exp(values[i])`, arguments held to -87.3..88.
pub(super) fn exp_in_place(set: InstructionSet, values: &mut [f32]) {
    struct Exp<'a>(&'a mut [f32]);
    impl Work for Exp<'_> {
        #[inline(always)]
        unsafe fn run<S: Simd>(self) {
            let whole = self.0.len() / S::LANES * S::LANES;
            let mut rest = [0.0; 16];
            let tail = self.0.len() - whole;
            rest[..tail].copy_from_slice(&self.0[whole..]);
            // SAFETY: whole vectors of the slice, then one of the array.
            unsafe {
                for at in (0..whole).step_by(S::LANES) {
                    let to = self.0.as_mut_ptr().add(at);
                    S::store(to, S::exp(S::load(to)));
                }
                if tail > 0 {
                    S::store(rest.as_mut_ptr(), S::exp(S::load(rest.as_ptr())));
                }
            }
            self.0[whole..].copy_from_slice(&rest[..tail]);
        }
    }
    // SAFETY: sets come from `InstructionSet::available`; slices are in bounds.
    unsafe { dispatch(set, Exp(values)) }
}

/// `result (n) = vector (m) * matrix (m, n)`, with the vectors and the product of the attention here: what a layer
/// around it needs to be measured fairly.
///
/// # Panics
/// If the lengths do not fit together.
pub fn vector_times_matrix(vector: &[f32], matrix: &[f32], result: &mut [f32]) {
    assert_eq!(vector.len() * result.len(), matrix.len(), "(m) * (m, n)");
    result.fill(0.0);
    let left = Left { values: vector, row: vector.len(), depth: 1 };
    let width = result.len();
    multiply_add(InstructionSet::best(), left, Rows::new(matrix, width), result, width, 1);
}
