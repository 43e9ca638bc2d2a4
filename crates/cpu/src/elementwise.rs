//! Operations on single values: gate, sum, upsampling. A unit is a channel.

use super::steps::{Memory, PlaneAt, Scratch, plane_stride};
use yolo_lat_simd::Simd;

/// `u * silu(g)`.
pub(super) struct Gate {
    pub(super) u: Vec<PlaneAt>,
    pub(super) g: Vec<PlaneAt>,
    pub(super) output: usize,
    pub(super) positions: usize,
}

impl Gate {
    pub(super) fn units(&self) -> usize {
        self.u.len()
    }

    pub(super) fn scratch(&self) -> (usize, usize) {
        (0, 0)
    }

    #[inline(always)]
    pub(super) unsafe fn run<S: Simd, const ROWS: usize>(&self, unit: usize, memory: Memory, _: &mut Scratch) {
        // SAFETY: planes have room for whole vectors.
        unsafe {
            let (u, g) = (memory.read(self.u[unit]), memory.read(self.g[unit]));
            let output = memory.write(self.output + unit * plane_stride(self.positions));
            for at in (0..self.positions).step_by(S::LANES) {
                let (u, g) = (S::load(u.add(at)), S::load(g.add(at)));
                let one = S::splat(1.0);
                let denominator = S::add(one, S::exp(S::sub(S::splat(0.0), g)));
                S::store(output.add(at), S::mul(u, S::div(g, denominator)));
            }
        }
    }
}

/// `a + b`, where `b` may have half the resolution: then each of its values counts for four positions.
pub(super) struct Sum {
    pub(super) a: Vec<PlaneAt>,
    pub(super) b: Vec<PlaneAt>,
    pub(super) b_is_half: bool,
    pub(super) output: usize,
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Sum {
    pub(super) fn units(&self) -> usize {
        self.a.len()
    }

    pub(super) fn scratch(&self) -> (usize, usize) {
        (0, 0)
    }

    #[inline(always)]
    pub(super) unsafe fn run<S: Simd, const ROWS: usize>(&self, unit: usize, memory: Memory, _: &mut Scratch) {
        let Self { height, width, .. } = *self;
        // SAFETY: each plane has as many floats as its shape says, and the output is nobody else's.
        unsafe {
            let a = std::slice::from_raw_parts(memory.read(self.a[unit]), height * width);
            let output = memory.write(self.output + unit * plane_stride(height * width));
            let output = std::slice::from_raw_parts_mut(output, height * width);
            if !self.b_is_half {
                let b = std::slice::from_raw_parts(memory.read(self.b[unit]), height * width);
                output.iter_mut().zip(a).zip(b).for_each(|((output, a), b)| *output = a + b);
                return;
            }
            let b = std::slice::from_raw_parts(memory.read(self.b[unit]), height / 2 * (width / 2));
            let rows = output.chunks_exact_mut(width).zip(a.chunks_exact(width));
            for (y, (output, a)) in rows.enumerate() {
                let b = &b[y / 2 * (width / 2)..][..width / 2];
                let pairs = output.as_chunks_mut::<2>().0.iter_mut().zip(a.as_chunks::<2>().0);
                for ((output, a), b) in pairs.zip(b) {
                    *output = [a[0] + b, a[1] + b];
                }
            }
        }
    }
}

/// Each value twice in both directions; only where no sum takes it in.
pub(super) struct Upsample {
    pub(super) inputs: Vec<PlaneAt>,
    pub(super) output: usize,
    /// Of the input.
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Upsample {
    pub(super) fn units(&self) -> usize {
        self.inputs.len()
    }

    pub(super) fn scratch(&self) -> (usize, usize) {
        (0, 0)
    }

    #[inline(always)]
    pub(super) unsafe fn run<S: Simd, const ROWS: usize>(&self, unit: usize, memory: Memory, _: &mut Scratch) {
        let Self { height, width, .. } = *self;
        // SAFETY: each plane has as many floats as its shape says, and the output is nobody else's.
        unsafe {
            let input = std::slice::from_raw_parts(memory.read(self.inputs[unit]), height * width);
            let output = memory.write(self.output + unit * plane_stride(4 * height * width));
            let output = std::slice::from_raw_parts_mut(output, 4 * height * width);
            for (y, output) in output.chunks_exact_mut(2 * width).enumerate() {
                for (x, output) in output.iter_mut().enumerate() {
                    *output = input[y / 2 * width + x / 2];
                }
            }
        }
    }
}
