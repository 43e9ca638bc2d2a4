//! Softmax attention, the baseline: blocked so that no L x L matrix is ever stored (Dao et al. 2022), and with a cache
//! of keys and values for decoding. Same product and exponential as the linear form, so that the comparison is fair.

use super::kernel::highest;
use super::parts::for_each_chunk;
use super::rows::{Left, Rows, exp_in_place, multiply_add};
use yolo_lat_simd::{InstructionSet, Simd, Work, dispatch};

/// Queries and keys of a tile.
const QUERIES: usize = 64;
const KEYS: usize = 128;

/// Keys and values of all tokens so far. Keys lie transposed in blocks, so that the scores of neighbouring tokens share
/// vectors; memory grows with every token.
#[derive(Clone, Debug)]
pub struct KeyValueCache {
    dimensions: usize,
    width: usize,
    tokens: usize,
    /// (blocks, D, 64).
    keys: Vec<f32>,
    /// (tokens, Dv).
    values: Vec<f32>,
    /// Scratch: scores of all tokens.
    scores: Vec<f32>,
}

impl KeyValueCache {
    /// No token yet, with room for `capacity`; keys have `dimensions` values, values `width`.
    pub fn with_capacity(dimensions: usize, width: usize, capacity: usize) -> Self {
        let capacity = capacity.next_multiple_of(KEYS);
        Self {
            dimensions,
            width,
            tokens: 0,
            keys: Vec::with_capacity(capacity * dimensions),
            values: Vec::with_capacity(capacity * width),
            scores: Vec::with_capacity(capacity),
        }
    }

    /// Bytes of the tokens so far.
    pub fn bytes(&self) -> usize {
        4 * self.tokens * (self.dimensions + self.width)
    }

    /// Takes one more token: `key` (D), `value` (Dv).
    ///
    /// # Panics
    /// If they have other lengths.
    pub fn push(&mut self, key: &[f32], value: &[f32]) {
        assert!(key.len() == self.dimensions && value.len() == self.width, "a token of another size");
        let (block, place) = (self.tokens / KEYS, self.tokens % KEYS);
        if place == 0 {
            self.keys.resize((block + 1) * KEYS * self.dimensions, 0.0);
            self.scores.resize((block + 1) * KEYS, 0.0);
        }
        for (line, key) in self.keys[block * KEYS * self.dimensions..].chunks_exact_mut(KEYS).zip(key) {
            line[place] = *key;
        }
        self.values.extend_from_slice(value);
        self.tokens += 1;
    }

    /// Forgets all but the first `tokens`.
    pub fn truncate(&mut self, tokens: usize) {
        self.tokens = self.tokens.min(tokens);
        self.values.truncate(self.tokens * self.width);
        self.keys.truncate(self.tokens.div_ceil(KEYS) * KEYS * self.dimensions);
        self.scores.truncate(self.tokens.div_ceil(KEYS) * KEYS);
    }

    /// Attention of `query` (D) to all tokens so far, into `result` (Dv); zeros before the first token.
    ///
    /// # Panics
    /// If one of them has another length.
    pub fn query_into(&mut self, query: &[f32], result: &mut [f32]) {
        assert!(query.len() == self.dimensions && result.len() == self.width, "a query of another size");
        result.fill(0.0);
        if self.tokens == 0 {
            return;
        }
        let set = InstructionSet::best();
        self.scores.fill(0.0);
        let left = Left { values: query, row: query.len(), depth: 1 };
        let blocks = self.keys.chunks_exact(KEYS * self.dimensions);
        for (keys, scores) in blocks.zip(self.scores.chunks_exact_mut(KEYS)) {
            multiply_add(set, left, Rows::new(keys, KEYS), scores, KEYS, 1);
        }
        let scores = &mut self.scores[..self.tokens];
        let peak = highest(scores);
        scores.iter_mut().for_each(|score| *score -= peak);
        exp_in_place(set, scores);
        let total = sum(scores);
        let left = Left { values: scores, row: scores.len(), depth: 1 };
        multiply_add(set, left, Rows::new(&self.values, self.width), result, self.width, 1);
        result.iter_mut().for_each(|result| *result /= total);
    }
}

/// Sum, in sixteen lanes that the compiler turns into vectors.
fn sum(values: &[f32]) -> f32 {
    let (whole, rest) = values.as_chunks::<16>();
    let lanes = whole.iter().fold([0.0; 16], |mut lanes, values| {
        lanes.iter_mut().zip(values).for_each(|(lane, value)| *lane += value);
        lanes
    });
    lanes.iter().chain(rest).sum()
}

/// One head of softmax attention: `queries` (Lq, D), `keys` (L, D), `values` (L, Dv) give (Lq, Dv), with weights
/// `exp(a . b)`. Memory grows with L, not with its square. With the feature `rayon` it runs on
/// the threads of the current pool.
///
/// # Panics
/// If the shapes do not fit together, or there are queries but no keys.
pub fn softmax_f32(queries: Rows, keys: Rows, values: Rows) -> Vec<f32> {
    assert!(queries.width() == keys.width() && keys.len() == values.len(), "keys, queries and values do not fit");
    assert!(queries.is_empty() || !keys.is_empty(), "queries without keys");
    let (dimensions, width) = (keys.width(), values.width());
    // (blocks, D, KEYS): the right side of the product of scores.
    let mut transposed = vec![0.0; keys.len().div_ceil(KEYS) * KEYS * dimensions];
    for_each_chunk(&mut transposed, KEYS * dimensions, |block, transposed| {
        let end = (block * KEYS + KEYS).min(keys.len());
        for (place, key) in keys.slice(block * KEYS, end).iter().enumerate() {
            for (line, key) in transposed.chunks_exact_mut(KEYS).zip(key) {
                line[place] = *key;
            }
        }
    });
    let mut result = vec![0.0; queries.len() * width];
    for_each_chunk(&mut result, QUERIES * width, |block, result| {
        let queries = queries.slice(block * QUERIES, (block * QUERIES + QUERIES).min(queries.len()));
        attend(queries, &transposed, values, result);
    });
    result
}

/// Scores of some queries (rows, KEYS) that become weights, with what the rows have summed so far.
struct Tile<'a> {
    scores: &'a mut [f32; QUERIES * KEYS],
    rows: usize,
    /// Keys that exist; the places after them never weigh anything.
    count: usize,
    peaks: &'a mut [f32; QUERIES],
    totals: &'a mut [f32; QUERIES],
    /// (rows, Dv)
    result: &'a mut [f32],
}

impl Work for Tile<'_> {
    // Plain loops: compiled for each instruction set, they become its vectors.
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let width = self.result.len() / self.rows;
        for (row, scores) in self.scores.as_chunks_mut::<KEYS>().0.iter_mut().take(self.rows).enumerate() {
            scores[self.count..].fill(f32::NEG_INFINITY);
            // SAFETY: KEYS is a multiple of every vector's lanes.
            let peak = unsafe {
                let mut peak = S::splat(self.peaks[row]);
                for place in (0..KEYS).step_by(S::LANES) {
                    peak = S::max(S::load(scores.as_ptr().add(place)), peak);
                }
                let mut lanes = [f32::NEG_INFINITY; KEYS];
                S::store(lanes.as_mut_ptr(), peak);
                lanes[..S::LANES].iter().fold(f32::NEG_INFINITY, |peak, &lane| peak.max(lane))
            };
            if peak > self.peaks[row] {
                let factor = (self.peaks[row] - peak).exp();
                self.totals[row] *= factor;
                self.result[row * width..][..width].iter_mut().for_each(|result| *result *= factor);
                self.peaks[row] = peak;
            }
            // SAFETY: KEYS is a multiple of every vector's lanes.
            let total = unsafe {
                let (at, peak) = (scores.as_mut_ptr(), S::splat(peak));
                let mut total = S::splat(0.0);
                for place in (0..KEYS).step_by(S::LANES) {
                    let weight = S::exp(S::sub(S::load(at.add(place)), peak));
                    S::store(at.add(place), weight);
                    total = S::add(total, weight);
                }
                S::sum(total)
            };
            self.totals[row] += total;
        }
    }
}

/// All keys for a few queries, block by block with a running maximum and total (Milakov and Gimelshein 2018).
fn attend(queries: Rows, transposed: &[f32], values: Rows, result: &mut [f32]) {
    let set = InstructionSet::best();
    let (rows, width, dimensions) = (queries.len(), values.width(), queries.width());
    let dense: Vec<f32> = queries.iter().flatten().copied().collect();
    let mut scores = [0.0f32; QUERIES * KEYS];
    let (mut peaks, mut totals) = ([f32::NEG_INFINITY; QUERIES], [0.0f32; QUERIES]);
    for (block, keys) in transposed.chunks_exact(KEYS * dimensions).enumerate() {
        let values = values.slice(block * KEYS, (block * KEYS + KEYS).min(values.len()));
        let count = values.len();
        scores.fill(0.0);
        let left = Left { values: &dense, row: dimensions, depth: 1 };
        multiply_add(set, left, Rows::new(keys, KEYS), &mut scores, KEYS, rows);
        let tile = Tile { scores: &mut scores, rows, count, peaks: &mut peaks, totals: &mut totals, result };
        // SAFETY: sets come from `InstructionSet::available`; the tile checks its own bounds.
        unsafe { dispatch(set, tile) };
        let left = Left { values: &scores, row: KEYS, depth: 1 };
        multiply_add(set, left, values, result, width, rows);
    }
    for (result, total) in result.chunks_exact_mut(width).zip(totals) {
        result.iter_mut().for_each(|result| *result /= total);
    }
}
