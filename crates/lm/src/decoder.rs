//! A language model token by token: what it keeps of those before is one state of constant size a head.

use std::time::{Duration, Instant};

use yolo_lat_attention::{
    CausalState, DecodeState, DiffDistance, HadamardExp, KeyValueCache, ModulatedDot, SumDistance, vector_times_matrix,
};

use crate::config::{Attention, Axis, Bias, Link, LmConfig, Mask, MemoryInput, RMS_EPSILON, ROPE_BASE};
use crate::model::{Layer, LmError, Model};

type Head = dyn DecodeState + Send;

/// A head of keys and values of `width` numbers.
fn head(attention: Attention, width: usize) -> Box<Head> {
    match attention {
        Attention::Softmax => Box::new(KeyValueCache::with_capacity(width, width, 0)),
        Attention::Hadamard => Box::new(CausalState::new(HadamardExp, width, width)),
        Attention::Sum => Box::new(CausalState::new(SumDistance, width, width)),
        Attention::Difference => Box::new(CausalState::new(DiffDistance, width, width)),
        Attention::Modulated => Box::new(CausalState::new(ModulatedDot, width, width)),
    }
}

/// What a layer keeps.
struct LayerState {
    heads: Vec<Box<Head>>,
    /// Those of its Memory Lobe.
    lobe: Vec<Box<Head>>,
    /// Queries, keys and values (3 d) of the last tokens, the oldest first, for the convolution.
    last: Vec<Vec<f32>>,
}

/// A text that a model reads and goes on with.
pub struct Decoder<'a> {
    model: &'a Model,
    layers: Vec<LayerState>,
    position: usize,
    logits: Vec<f32>,
    attention_time: Duration,
}

impl<'a> Decoder<'a> {
    /// No token yet.
    ///
    /// # Errors
    /// [`LmError::SeesTheFuture`], [`LmError::MixesNoTokens`] and [`LmError::Forgets`]: models that no state of constant size decodes, or none here.
    pub fn new(model: &'a Model) -> Result<Self, LmError> {
        let LmConfig { layers, heads, width, attention, axis, memory, convolution, decay, .. } = *model.config();
        if memory.is_some_and(|memory| memory.mask == Mask::Bidirectional) {
            return Err(LmError::SeesTheFuture);
        }
        if axis == Axis::Heads {
            return Err(LmError::MixesNoTokens);
        }
        if decay {
            return Err(LmError::Forgets);
        }
        let layer = |_| LayerState {
            heads: (0..heads).map(|_| head(attention, width / heads)).collect(),
            lobe: memory.map_or(Vec::new(), |memory| {
                (0..memory.heads).map(|_| head(Attention::Hadamard, width / memory.heads)).collect()
            }),
            last: vec![vec![0.0; 3 * width]; convolution.0.saturating_sub(1)],
        };
        Ok(Self {
            model,
            layers: (0..layers).map(layer).collect(),
            position: 0,
            logits: vec![0.0; model.config().vocabulary],
            attention_time: Duration::ZERO,
        })
    }

    /// Takes `count` tokens that nobody wrote, their keys and values waves, without the cost of computing them: what a text of that
    /// length leaves, for measuring time.
    pub fn fill(&mut self, count: usize) {
        let width = self.model.config().width;
        for heads in self.layers.iter_mut().flat_map(|layer| [&mut layer.heads, &mut layer.lobe]) {
            let width = width / heads.len().max(1);
            let wave = |step: f32, token: usize| -> Vec<f32> {
                (0..width).map(|at| ((token * width + at) as f32 * step).sin()).collect()
            };
            for token in 0..count {
                let (key, value) = (wave(1.31, token), wave(0.37, token));
                heads.iter_mut().for_each(|head| head.push(&key, &value));
            }
        }
        self.position += count;
    }

    /// How long attention took in the last step, without the maps before and after it.
    pub fn attention_time(&self) -> Duration {
        self.attention_time
    }

    /// Tokens taken.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Bytes that are kept of the tokens so far.
    pub fn bytes(&self) -> usize {
        let heads = self.layers.iter().flat_map(|layer| layer.heads.iter().chain(&layer.lobe));
        heads.map(|head| head.bytes()).sum()
    }

    /// Logits (V) of the next token; zeros before the first.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Takes a token; the logits (V) of the next one.
    ///
    /// # Errors
    /// [`LmError::Token`] for a number that the vocabulary does not have.
    pub fn step(&mut self, token: u32) -> Result<&[f32], LmError> {
        let Model { config, embedding, unembedding, norm, layers, .. } = self.model;
        let rows = token as usize * config.width..(token as usize + 1) * config.width;
        let Some(row) = embedding.get(rows) else {
            return Err(LmError::Token { token, vocabulary: config.vocabulary });
        };
        let mut x = row.to_vec();
        let mut attention_time = Duration::ZERO;
        for (layer, state) in layers.iter().zip(&mut self.layers) {
            Step { config, layer, position: self.position, attention_time: &mut attention_time }.run(&mut x, state);
        }
        self.attention_time = attention_time;
        if let Some(norm) = norm {
            x = normalized(&x, norm);
        }
        vector_times_matrix(&x, unembedding, &mut self.logits);
        self.position += 1;
        Ok(&self.logits)
    }
}

/// A token in a layer.
struct Step<'a> {
    config: &'a LmConfig,
    layer: &'a Layer,
    position: usize,
    attention_time: &'a mut Duration,
}

impl Step<'_> {
    fn run(&mut self, x: &mut [f32], state: &mut LayerState) {
        let input = x.to_owned();
        let a = self.attention(&normalized(x, &self.layer.norm1), state);
        let second = || self.layer.norm2.as_deref().unwrap_or_default();
        let delta = match self.config.link {
            Link::Hyper => self.experts(&a),
            Link::HyperA => sum(self.experts(&a), &a),
            Link::Two => {
                add(x, &a);
                self.experts(&normalized(x, second()))
            }
            Link::PublishedTwo => {
                add(x, &a);
                let n = normalized(x, second());
                sum(self.experts(&n), &n)
            }
        };
        add(x, &delta);
        if let (Some(memory), Some(maps)) = (self.config.memory, &self.layer.memory) {
            let read = if memory.input == MemoryInput::Delta { &delta } else { &input };
            let qkv = times(read, maps, 3 * self.config.width);
            add(x, &self.attended(qkv, &mut state.lobe));
        }
    }

    fn attention(&mut self, x: &[f32], state: &mut LayerState) -> Vec<f32> {
        let (width, heads) = (self.config.width, self.config.heads);
        let mut qkv = times(x, &self.layer.qkv, 3 * width);
        if let Some(taps) = &self.layer.convolution {
            let plain = qkv.clone();
            let count = self.config.convolution.0;
            for (channel, value) in qkv.iter_mut().enumerate() {
                let before = state.last.iter().map(|row| row[channel]).chain([plain[channel]]);
                *value = before.zip(&taps[channel * count..]).map(|(value, tap)| value * tap).sum();
            }
            if !state.last.is_empty() {
                state.last.rotate_left(1);
                state.last[count - 2] = plain;
            }
        }
        if self.config.rope {
            qkv[..2 * width].chunks_exact_mut(width / heads).for_each(|head| rotate(head, self.position));
        }
        if let Some(scales) = &self.layer.key_scale {
            let keys = qkv[width..2 * width].chunks_exact_mut(width / heads);
            keys.zip(scales).for_each(|(key, scale)| key.iter_mut().for_each(|key| *key *= scale));
        }
        let attended = self.attended(qkv, &mut state.heads);
        times(&attended, &self.layer.output, width)
    }

    fn attended(&mut self, qkv: Vec<f32>, heads: &mut [Box<Head>]) -> Vec<f32> {
        let start = Instant::now();
        let result = attended(qkv, heads);
        *self.attention_time += start.elapsed();
        result
    }

    /// The chosen experts' sum.
    fn experts(&self, x: &[f32]) -> Vec<f32> {
        let experts = self.config.experts;
        let Some(router) = &self.layer.router else { return self.expert(0, x) };
        let mut scores = times(x, &router.turned, experts.count);
        let peak = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        scores.iter_mut().for_each(|score| *score = (*score - peak).exp());
        let all: f32 = scores.iter().sum();
        scores.iter_mut().for_each(|score| *score /= all);
        // The highest first; of equal ones, the first.
        let mut order: Vec<usize> = (0..experts.count).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let chosen = &order[..experts.active];
        let total: f32 = if experts.active == 1 { 1.0 } else { chosen.iter().map(|&expert| scores[expert]).sum() };
        let mut result = vec![0.0; x.len()];
        for &expert in chosen {
            let gate = scores[expert] / total;
            let own = &router.biases[expert * x.len()..][..x.len()];
            let bias = if experts.bias == Bias::Inner { gate } else { 1.0 };
            let values = self.expert(expert, x).into_iter().zip(own);
            let plain = experts.bias == Bias::None;
            let terms = values.map(|(value, own)| gate * value + if plain { 0.0 } else { bias * own });
            result.iter_mut().zip(terms).for_each(|(result, term)| *result += term);
        }
        result
    }

    fn expert(&self, expert: usize, x: &[f32]) -> Vec<f32> {
        let (width, up, down) = (self.config.experts.width, &self.layer.up[expert], &self.layer.down[expert]);
        let mut hidden = times(x, up, 2 * width);
        let (u, g) = hidden.split_at_mut(width);
        u.iter_mut().zip(g).for_each(|(u, g)| *u *= *g / (1.0 + (-*g).exp()));
        times(u, down, x.len())
    }
}

/// Attention of the queries among `qkv` (3 d) to all tokens so far and this one: (d).
fn attended(mut qkv: Vec<f32>, heads: &mut [Box<Head>]) -> Vec<f32> {
    let width = qkv.len() / 3;
    let size = width / heads.len();
    let scale = (size as f32).powf(-0.25);
    qkv[..2 * width].iter_mut().for_each(|value| *value *= scale);
    let mut result = vec![0.0; width];
    for (index, (head, result)) in heads.iter_mut().zip(result.chunks_exact_mut(size)).enumerate() {
        let part = |of: usize| &qkv[of * width + index * size..][..size];
        head.push(part(1), part(2));
        head.query_into(part(0), result);
    }
    result
}

/// `vector (m) * matrix (m, n)`.
fn times(vector: &[f32], matrix: &[f32], outputs: usize) -> Vec<f32> {
    let mut result = vec![0.0; outputs];
    vector_times_matrix(vector, matrix, &mut result);
    result
}

/// Root-mean-square normalisation.
fn normalized(x: &[f32], gain: &[f32]) -> Vec<f32> {
    let square = x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32;
    let scale = 1.0 / (square + RMS_EPSILON as f32).sqrt();
    x.iter().zip(gain).map(|(x, gain)| x * scale * gain).collect()
}

/// Turns the pairs (2i, 2i + 1) by the place times `ROPE_BASE^(-2i / D)`.
fn rotate(head: &mut [f32], position: usize) {
    let width = head.len() as f64;
    for (index, pair) in head.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let (sin, cos) = (position as f64 * ROPE_BASE.powf(-2.0 * index as f64 / width)).sin_cos();
        let [a, b] = *pair;
        *pair = [a * cos as f32 - b * sin as f32, a * sin as f32 + b * cos as f32];
    }
}

fn add(x: &mut [f32], more: &[f32]) {
    x.iter_mut().zip(more).for_each(|(x, more)| *x += more);
}

fn sum(mut x: Vec<f32>, more: &[f32]) -> Vec<f32> {
    add(&mut x, more);
    x
}
