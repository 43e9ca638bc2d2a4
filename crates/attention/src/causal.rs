//! Causal attention as a recurrence: what a language model keeps of all tokens so far is one state of constant size.

use serde::{Deserialize, Serialize};

use super::kernel::{Kernel, Shift};
use super::linear::{Sums, add_keys};
use super::rows::{Left, Rows, multiply_add};
use yolo_lat_simd::InstructionSet;

/// What a state remembers; plain data, to be written with serde and given to [`CausalState::resume`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CausalMemory {
    /// Dimensions D of a key.
    pub dimensions: usize,
    /// Dimensions Dv of a value.
    pub width: usize,
    /// Tokens seen.
    pub tokens: u64,
    /// What the sums are relative to.
    pub shift: Shift,
    /// S and C: (F, Dv + 16), C in column Dv, zeros after it.
    sums: Vec<f32>,
    /// Sum of the values (Dv), for rows without weight.
    total: Vec<f64>,
}

/// Attention of each token to those before it and itself: `S_i, C_i` of the paper with a running shift.
///
/// The distance kernels cannot centre keys they have not seen: where all keys lie far from the origin compared with
/// their spread, they lose as many digits as `|a - b|^2` computed as `|a|^2 - 2ab + |b|^2` does.
///
/// ```
/// use yolo_lat_attention::{CausalState, HadamardExp};
///
/// let mut state = CausalState::new(HadamardExp, 2, 1);
/// state.push(&[0.0, 1.0], &[3.0]);
/// assert_eq!(state.query(&[5.0, -2.0]), [3.0]); // one token: its value
/// ```
#[derive(Clone, Debug)]
pub struct CausalState<K> {
    kernel: K,
    memory: CausalMemory,
    /// Scratch of the feature maps and of a product.
    features: Vec<f32>,
    product: Vec<f32>,
}

impl<K: Kernel> CausalState<K> {
    /// No token yet; keys have `dimensions` values, values `width`.
    pub fn new(kernel: K, dimensions: usize, width: usize) -> Self {
        let features = kernel.features(dimensions);
        let sums = Sums::new(features, width);
        let product = vec![0.0; sums.stride];
        let memory = CausalMemory {
            dimensions,
            width,
            tokens: 0,
            shift: Shift::default(),
            sums: sums.values,
            total: vec![0.0; width],
        };
        Self { kernel, memory, features: vec![0.0; features], product }
    }

    /// Goes on from what another state remembered; `None` if that was of another kernel or is damaged.
    pub fn resume(kernel: K, memory: CausalMemory) -> Option<Self> {
        let empty = Self::new(kernel, memory.dimensions, memory.width);
        let fits = |shift: &[f32]| shift.is_empty() || shift.len() == memory.dimensions;
        let sizes = memory.sums.len() == empty.memory.sums.len() && memory.total.len() == memory.width;
        let finite = memory.sums.iter().chain(&memory.shift.peak).all(|value| value.is_finite());
        (sizes && finite && fits(&memory.shift.peak) && fits(&memory.shift.center)).then_some(Self { memory, ..empty })
    }

    /// What the state remembers.
    pub fn memory(&self) -> &CausalMemory {
        &self.memory
    }

    /// Bytes that stay constant however many tokens come.
    pub fn bytes(&self) -> usize {
        let CausalMemory { sums, total, shift, .. } = &self.memory;
        4 * (sums.len() + shift.peak.len() + shift.center.len()) + 8 * total.len()
    }

    /// Takes one more token: `key` (D), `value` (Dv).
    ///
    /// # Panics
    /// If they have other lengths.
    pub fn push(&mut self, key: &[f32], value: &[f32]) {
        assert!(key.len() == self.memory.dimensions && value.len() == self.memory.width, "a token of another size");
        if let Some(shift) = self.kernel.extend(&self.memory.shift, key) {
            self.shift_to(shift);
        }
        self.kernel.psi_rows(Rows::new(key, key.len()), &self.memory.shift, &mut self.features);
        let stride = self.product.len();
        let mut sums = Sums { values: std::mem::take(&mut self.memory.sums), stride };
        add_keys(&self.features, Rows::new(value, value.len()), &mut sums);
        self.memory.sums = sums.values;
        self.memory.total.iter_mut().zip(value).for_each(|(total, &value)| *total += f64::from(value));
        self.memory.tokens += 1;
    }

    /// Attention of `query` (D) to all tokens so far: (Dv). Zeros before the first token.
    ///
    /// # Panics
    /// If the query has another length.
    pub fn query(&mut self, query: &[f32]) -> Vec<f32> {
        let width = self.memory.width;
        let mut result = vec![0.0; width];
        self.query_into(query, &mut result);
        result
    }

    /// As [`CausalState::query`], into `result` (Dv).
    ///
    /// # Panics
    /// If one of them has another length.
    pub fn query_into(&mut self, query: &[f32], result: &mut [f32]) {
        let (width, stride) = (self.memory.width, self.product.len());
        assert!(query.len() == self.memory.dimensions && result.len() == width, "a query of another size");
        if self.memory.tokens == 0 {
            result.fill(0.0);
            return;
        }
        self.kernel.phi_rows(Rows::new(query, query.len()), &self.memory.shift, &mut self.features);
        self.product.fill(0.0);
        let left = Left { values: &self.features, row: self.features.len(), depth: 1 };
        multiply_add(InstructionSet::best(), left, Rows::new(&self.memory.sums, stride), &mut self.product, stride, 1);
        let weight = self.product[width];
        if weight > 0.0 {
            result.iter_mut().zip(&self.product).for_each(|(result, sum)| *result = sum / weight);
        } else {
            let tokens = self.memory.tokens as f64;
            result.iter_mut().zip(&self.memory.total).for_each(|(result, total)| *result = (total / tokens) as f32);
        }
    }

    fn shift_to(&mut self, shift: Shift) {
        if self.memory.tokens > 0 {
            self.kernel.factors(&self.memory.shift, &shift, &mut self.features);
            for (sums, factor) in self.memory.sums.chunks_exact_mut(self.product.len()).zip(&self.features) {
                sums.iter_mut().for_each(|sum| *sum *= factor);
            }
        }
        self.memory.shift = shift;
    }
}

impl<K: Kernel + Clone> CausalState<K> {
    /// Adds the tokens of another state, as if they had been pushed here: sequences can be summed in pieces, in
    /// parallel, in any order.
    ///
    /// # Panics
    /// If the states have other dimensions.
    pub fn merge(&mut self, other: &Self) {
        let same = (self.memory.dimensions, self.memory.width) == (other.memory.dimensions, other.memory.width);
        assert!(same, "states of other sizes");
        if other.memory.tokens == 0 {
            return;
        }
        if self.memory.tokens == 0 {
            self.memory = other.memory.clone();
            return;
        }
        let shift = self.kernel.join(&self.memory.shift, &other.memory.shift);
        let mut other = other.clone();
        other.shift_to(shift.clone());
        self.shift_to(shift);
        self.memory.sums.iter_mut().zip(&other.memory.sums).for_each(|(sum, other)| *sum += other);
        self.memory.total.iter_mut().zip(&other.memory.total).for_each(|(total, other)| *total += other);
        self.memory.tokens += other.memory.tokens;
    }
}

/// Causal attention of a whole sequence, token by token: `queries` (L, D), `keys` (L, D), `values` (L, Dv) give (L, Dv).
///
/// # Panics
/// If the shapes do not fit together.
pub fn causal_f32<K: Kernel>(kernel: K, queries: Rows, keys: Rows, values: Rows) -> Vec<f32> {
    assert!(queries.len() == keys.len() && keys.len() == values.len(), "queries, keys and values do not fit");
    let mut state = CausalState::new(kernel, keys.width(), values.width());
    let mut result = Vec::with_capacity(queries.len() * values.width());
    for ((query, key), value) in queries.iter().zip(keys.iter()).zip(values.iter()) {
        state.push(key, value);
        result.extend(state.query(query));
    }
    result
}
