//! The language model with autograd.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};
use yolo_lat_lm::{Attention, Axis, Bias, Experts, Link, LmConfig, Mask, Memory, MemoryInput, RMS_EPSILON};

use super::attention::{attend, rotate};
use crate::tensors::{choose, seed_for};

/// How weights begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Initialisation {
    /// Normal with deviation 0.02, maps into the residual `0.02 / sqrt(2 L)`.
    #[default]
    Small,
    /// Normal with deviation `1 / sqrt(inputs)`, maps into the residual that divided by `sqrt(2 L)`, the embedding 0.02. What passes
    /// through a map keeps its size at any width; with [`Self::Small`] experts that see what attention says without a norm get
    /// next to nothing at width 128, and answer with its square.
    Width,
    /// As the paper's program: embedding normal with deviation 1, maps uniform within `1 / sqrt(inputs)`.
    Published,
}

/// A model: its description and its weights by name.
pub(crate) struct LanguageModel {
    pub(crate) config: LmConfig,
    pub(crate) parameters: BTreeMap<String, Tensor>,
}

/// What a model says about tokens.
pub(crate) struct Answer {
    /// Logits of the next token: (B, T, V).
    pub(crate) logits: Tensor,
    /// Balance of the experts, summed over the layers: 1 a layer if all are used alike.
    pub(crate) balance: Tensor,
}

impl LanguageModel {
    /// Random weights. Those that two models both have are the same in both for the same seed.
    pub(crate) fn new(config: &LmConfig, initialisation: Initialisation, seed: u64, kind: Kind) -> Self {
        let new = |(name, shape): (String, Vec<usize>)| {
            let shape: Vec<i64> = shape.iter().map(|&side| side as i64).collect();
            seed_for(&name, seed);
            let value = first_value(config, initialisation, &name, &shape).to_kind(kind);
            (name, value.set_requires_grad(true))
        };
        Self { config: config.clone(), parameters: config.parameters().into_iter().map(new).collect() }
    }

    fn get(&self, name: &str) -> &Tensor {
        &self.parameters[name]
    }

    /// What the model says about `tokens` (B, T), int64.
    pub(crate) fn forward(&self, tokens: &Tensor) -> Answer {
        let embedding = self.get("embedding");
        let mut x = Tensor::embedding(embedding, tokens, -1, false, false);
        let mut balance = Tensor::zeros([], (x.kind(), x.device()));
        for index in 0..self.config.layers {
            let layer = Layer { model: self, prefix: format!("layers.{index}.") };
            let share;
            (x, share) = layer.forward(&x);
            balance += share;
        }
        if self.config.final_norm {
            x = norm(&x, self.get("norm"));
        }
        Answer { logits: x.linear::<Tensor>(embedding, None), balance }
    }
}

/// Root-mean-square normalisation (Zhang and Sennrich 2019).
fn norm(x: &Tensor, gain: &Tensor) -> Tensor {
    let square = x.square().mean_dim(&[-1i64][..], true, x.kind());
    x * (square + RMS_EPSILON).rsqrt() * gain
}

/// A layer's weights by the ends of their names.
struct Layer<'a> {
    model: &'a LanguageModel,
    prefix: String,
}

impl Layer<'_> {
    fn get(&self, name: &str) -> &Tensor {
        self.model.get(&format!("{}{name}", self.prefix))
    }

    /// What leaves the layer (B, T, d), and the balance of its experts.
    fn forward(&self, x: &Tensor) -> (Tensor, Tensor) {
        let LmConfig { link, memory, .. } = self.model.config;
        let a = self.attention(&norm(x, self.get("norm1")));
        let (x, (delta, balance), input) = match link {
            Link::Hyper => (x.shallow_clone(), self.experts(&a), x.shallow_clone()),
            Link::HyperA => {
                let (delta, balance) = self.experts(&a);
                (x.shallow_clone(), (delta + a, balance), x.shallow_clone())
            }
            Link::Two => {
                let y = x + a;
                let n = norm(&y, self.get("norm2"));
                (y, self.experts(&n), x.shallow_clone())
            }
            Link::PublishedTwo => {
                let y = x + a;
                let n = norm(&y, self.get("norm2"));
                let (delta, balance) = self.experts(&n);
                (y, (delta + n, balance), x.shallow_clone())
            }
        };
        let out = x + &delta;
        match memory {
            Some(memory) => {
                (out + self.lobe(memory, if memory.input == MemoryInput::Delta { &delta } else { &input }), balance)
            }
            None => (out, balance),
        }
    }

    fn attention(&self, x: &Tensor) -> Tensor {
        let LmConfig { heads, attention, axis, rope, convolution, key_scale, decay, .. } = self.model.config;
        let maps = ["q", "k", "v"].map(|name| x.linear::<Tensor>(self.get(&format!("attention.{name}.weight")), None));
        let maps = if convolution.0 > 0 { self.convolve(&maps, convolution.0 as i64) } else { maps };
        let [mut q, mut k, v] = maps.map(|map| in_heads(&map, heads));
        if rope {
            (q, k) = (rotate(&q), rotate(&k));
        }
        if key_scale {
            k *= self.get("attention.key_scale").unsqueeze(-1);
        }
        let fade = decay.then(|| self.get("attention.decay").log_sigmoid().reshape([-1, 1, 1]));
        if axis == Axis::Heads {
            // The sums run over what stands where tokens should; the paper's program does not scale, so undo what `attend` does.
            let scale = (q.size()[3] as f64).powf(0.25);
            let y = attend([&(q * scale), &(k * scale), &v], attention, Mask::Causal, None);
            return y.flatten(2, 3).linear::<Tensor>(self.get("attention.output.weight"), None);
        }
        let [q, k, v] = [q, k, v].map(|map| map.transpose(1, 2));
        let y = attend([&q, &k, &v], attention, Mask::Causal, fade.as_ref());
        together(&y).linear::<Tensor>(self.get("attention.output.weight"), None)
    }

    /// Each channel of queries, keys and values becomes a weighted sum of its last `taps` tokens.
    fn convolve(&self, maps: &[Tensor; 3], taps: i64) -> [Tensor; 3] {
        let x = Tensor::cat(maps, -1).transpose(1, 2).constant_pad_nd([taps - 1, 0]);
        let weight = self.get("attention.convolution").unsqueeze(1);
        let channels = weight.size()[0];
        let y = x.conv1d::<Tensor>(&weight, None, [1], [0], [1], channels).transpose(1, 2);
        let third = channels / 3;
        [0, 1, 2].map(|part| y.narrow(-1, part * third, third))
    }

    fn lobe(&self, memory: Memory, x: &Tensor) -> Tensor {
        let map = |name: &str| {
            let map = x.linear::<Tensor>(self.get(&format!("memory.{name}.weight")), None);
            in_heads(&map, memory.heads).transpose(1, 2)
        };
        let (q, k, v) = (map("q"), map("k"), map("v"));
        together(&attend([&q, &k, &v], Attention::Hadamard, memory.mask, None))
    }

    /// The experts' sum (B, T, d), and their balance `E sum_e f_e g_e`: `f_e` the share of the places that went to expert e, `g_e` its
    /// mean probability (Fedus et al. 2021).
    fn experts(&self, x: &Tensor) -> (Tensor, Tensor) {
        let (shape, Experts { count, active, bias, .. }) = (x.size(), self.model.config.experts);
        let x = x.reshape([-1, shape[2]]);
        if count == 1 {
            return (self.expert(0, &x).reshape(&shape), Tensor::zeros([], (x.kind(), x.device())));
        }
        let router = self.get("router");
        let scores = x.linear::<Tensor>(router, None).softmax(-1, x.kind());
        let chosen = choose(&scores, active, -1);
        let gates = &scores * &chosen;
        let gates = if active == 1 { gates } else { &gates / gates.sum_dim_intlist(&[-1i64][..], true, x.kind()) };
        let mut sum = x.zeros_like();
        for expert in 0..count as i64 {
            let rows = chosen.select(1, expert).nonzero().squeeze_dim(-1);
            let y = self.expert(expert, &x.index_select(0, &rows));
            sum = sum.index_add(0, &rows, &(y * gates.select(1, expert).index_select(0, &rows).unsqueeze(-1)));
        }
        sum = match bias {
            Bias::None => sum,
            Bias::Inner => sum + gates.matmul(router),
            Bias::Outer => sum + chosen.matmul(router),
            Bias::Free => sum + chosen.matmul(self.get("expert_bias")),
        };
        let mean = |of: &Tensor| of.mean_dim(&[0i64][..], false, x.kind());
        let balance = (mean(&chosen) * mean(&scores)).sum(x.kind()) * (count as f64 / active as f64);
        (sum.reshape(&shape), balance)
    }

    /// `W_down (silu(g) u)` with `(u, g) = W_up x` (SwiGLU, Shazeer 2020): rows (n, d).
    fn expert(&self, expert: i64, x: &Tensor) -> Tensor {
        let up = x.linear::<Tensor>(&self.get("experts.up.weight").select(0, expert), None).chunk(2, -1);
        (up[1].silu() * &up[0]).linear::<Tensor>(&self.get("experts.down.weight").select(0, expert), None)
    }
}

/// (B, T, d) as (B, T, h, D).
fn in_heads(x: &Tensor, heads: usize) -> Tensor {
    let [batch, length, width] = x.size()[..] else { return x.shallow_clone() };
    x.reshape([batch, length, heads as i64, width / heads as i64])
}

/// (B, h, T, D) as (B, T, d).
fn together(x: &Tensor) -> Tensor {
    x.transpose(1, 2).flatten(2, 3)
}

/// How the weight of that name begins.
fn first_value(config: &LmConfig, initialisation: Initialisation, name: &str, shape: &[i64]) -> Tensor {
    let options = (Kind::Double, Device::Cpu);
    let normal = |deviation: f64| Tensor::randn(shape, options) * deviation;
    let end = name.rsplit_once("layers.").map_or(name, |(_, rest)| rest.split_once('.').map_or(rest, |(_, end)| end));
    match end {
        "norm" | "norm1" | "norm2" | "attention.key_scale" => return Tensor::ones(shape, options),
        // Half-lives of 22 tokens and more, each head's twice as long as the last one's, as in RetNet (Sun et al. 2023).
        "attention.decay" => {
            let keeps: Vec<f64> = (0..shape[0]).map(|head| 1.0 - 2f64.powi(-5 - head as i32)).collect();
            return Tensor::from_slice(&keeps).logit(None);
        }
        "attention.convolution" => {
            // Only the token itself.
            let taps = Tensor::zeros(shape, options);
            let _ = taps.select(-1, shape[1] - 1).fill_(1.0);
            return taps;
        }
        "expert_bias" => return Tensor::zeros(shape, options),
        _ => {}
    }
    if initialisation == Initialisation::Published {
        let bound = (shape[shape.len() - 1] as f64).powf(-0.5);
        return if name == "embedding" { normal(1.0) } else { (Tensor::rand(shape, options) * 2.0 - 1.0) * bound };
    }
    let into_residual = end == "attention.output.weight" || end == "experts.down.weight" || end.starts_with("memory.");
    let deviation = match initialisation {
        Initialisation::Width if name != "embedding" => (shape[shape.len() - 1] as f64).powf(-0.5),
        _ => 0.02,
    };
    normal(if into_residual { deviation / (2.0 * config.layers as f64).sqrt() } else { deviation })
}
