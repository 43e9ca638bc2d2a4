//! `yolo-lat bench decode`: one token after the other through a language model of the paper's size.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use serde_json::json;
use yolo_lat::attention::{CausalState, DecodeState, HadamardExp, KeyValueCache, vector_times_matrix};
use yolo_lat::plot::{Line, LogChart};

use super::{OutputArguments, Times, machine, wave};

/// The paper's language model. Of four experts with 256 hidden channels two are active: one layer of 512 costs the same.
const LAYERS: usize = 4;
const WIDTH: usize = 256;
const HEADS: usize = 4;
const HEAD: usize = WIDTH / HEADS;
const HIDDEN: usize = 512;
const VOCABULARY: usize = 6400;

#[derive(Args, Debug)]
pub(super) struct DecodeArguments {
    /// Tokens that came before the measured ones
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1 << 20),
          default_value = "256,1024,4096,16384,32768")]
    context: Vec<u32>,
    /// Tokens measured at each context
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    tokens: u16,
    #[command(flatten)]
    output: OutputArguments,
}

/// Weights (in, out) of one layer.
struct Layer {
    qkv: Vec<f32>,
    proj: Vec<f32>,
    up: Vec<f32>,
    down: Vec<f32>,
}

struct Weights {
    layers: Vec<Layer>,
    /// Tied: rows are read as embeddings, columns of its transpose give the logits.
    embedding: Vec<f32>,
    unembedding: Vec<f32>,
}

impl Weights {
    fn new() -> Self {
        let matrix = |rows: usize, columns: usize, step: f32| wave(rows * columns, step, 1.0 / (rows as f32).sqrt());
        let layer = |index: usize| Layer {
            qkv: matrix(WIDTH, 3 * WIDTH, 0.71 + index as f32),
            proj: matrix(WIDTH, WIDTH, 1.13 + index as f32),
            up: matrix(WIDTH, 2 * HIDDEN, 0.53 + index as f32),
            down: matrix(HIDDEN, WIDTH, 0.97 + index as f32),
        };
        let embedding = matrix(VOCABULARY, WIDTH, 0.37);
        let transposed = (0..WIDTH * VOCABULARY).map(|i| embedding[i % VOCABULARY * WIDTH + i / VOCABULARY]).collect();
        Self { layers: (0..LAYERS).map(layer).collect(), embedding, unembedding: transposed }
    }
}

/// The model with one kind of memory.
struct Decoder<'a, M> {
    weights: &'a Weights,
    /// (layers, heads)
    memories: Vec<M>,
    position: usize,
    /// Milliseconds of the last step that attention took.
    attention_ms: f64,
}

impl<M: DecodeState> Decoder<'_, M> {
    /// Keys and values of `count` tokens, without the cost of computing them.
    fn fill(&mut self, count: usize) {
        let [keys, values] = [1.31, 0.37].map(|step| wave(count * HEAD, step, 1.0));
        for memory in &mut self.memories {
            for (key, value) in keys.chunks_exact(HEAD).zip(values.chunks_exact(HEAD)) {
                memory.push(key, value);
            }
        }
        self.position += count;
    }

    /// One token in, the most likely next one out.
    fn step(&mut self, token: usize) -> usize {
        let mut x = self.weights.embedding[token * WIDTH..][..WIDTH].to_vec();
        let mut attention_ms = 0.0;
        let (mut qkv, mut attended, mut mixed) = (vec![0.0; 3 * WIDTH], vec![0.0; WIDTH], vec![0.0; WIDTH]);
        let (mut up, mut delta) = (vec![0.0; 2 * HIDDEN], vec![0.0; WIDTH]);
        for (layer, memories) in self.weights.layers.iter().zip(self.memories.chunks_exact_mut(HEADS)) {
            vector_times_matrix(&normalize(&x), &layer.qkv, &mut qkv);
            qkv[..2 * WIDTH].chunks_exact_mut(HEAD).for_each(|head| rotate(head, self.position));
            let start = Instant::now();
            let scale = (HEAD as f32).powf(-0.25);
            qkv[..2 * WIDTH].iter_mut().for_each(|x| *x *= scale);
            for (head, memory) in memories.iter_mut().enumerate() {
                let part = |index: usize| &qkv[index * WIDTH + head * HEAD..][..HEAD];
                memory.push(part(1), part(2));
                memory.query_into(part(0), &mut attended[head * HEAD..][..HEAD]);
            }
            attention_ms += start.elapsed().as_secs_f64() * 1e3;
            vector_times_matrix(&attended, &layer.proj, &mut mixed);
            vector_times_matrix(&mixed, &layer.up, &mut up);
            let (u, g) = up.split_at_mut(HIDDEN);
            u.iter_mut().zip(g).for_each(|(u, g)| *u *= *g / (1.0 + (-*g).exp()));
            vector_times_matrix(&up[..HIDDEN], &layer.down, &mut delta);
            // Hyper-Link: one residual around the whole layer.
            x.iter_mut().zip(&delta).for_each(|(x, delta)| *x += delta);
        }
        let mut logits = vec![0.0; VOCABULARY];
        vector_times_matrix(&normalize(&x), &self.weights.unembedding, &mut logits);
        self.position += 1;
        self.attention_ms = attention_ms;
        (0..VOCABULARY).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0)
    }
}

/// RMSNorm without learnt scales.
fn normalize(x: &[f32]) -> Vec<f32> {
    let mean = x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32;
    x.iter().map(|x| x / (mean + 1e-6).sqrt()).collect()
}

/// Rotary position of a head (Su et al. 2021).
fn rotate(head: &mut [f32], position: usize) {
    let half = head.len() / 2;
    for i in 0..half {
        let angle = position as f32 * 10_000f32.powf(-(i as f32) / half as f32);
        let (sin, cos) = angle.sin_cos();
        (head[i], head[i + half]) = (head[i] * cos - head[i + half] * sin, head[i] * sin + head[i + half] * cos);
    }
}

struct Row {
    context: usize,
    ela_step: Times,
    ela_attention: Times,
    softmax_step: Times,
    softmax_attention: Times,
    state_bytes: usize,
    cache_bytes: usize,
}

pub(super) fn run(arguments: &DecodeArguments) -> anyhow::Result<ExitCode> {
    let weights = Weights::new();
    let rows: Vec<Row> =
        arguments.context.iter().map(|&context| measure(&weights, context as usize, arguments.tokens)).collect();
    if let Some(path) = &arguments.output.plot {
        let line = |name: &str, value: fn(&Row) -> f64| Line {
            name: name.into(),
            points: rows.iter().map(|row| (row.context as f64, value(row))).collect(),
        };
        let lines = vec![
            line("whole step, state", |row| row.ela_step.median),
            line("whole step, cache", |row| row.softmax_step.median),
            line("attention alone, state", |row| row.ela_attention.median),
            line("attention alone, cache", |row| row.softmax_attention.median),
        ];
        let axes = ["tokens of context".into(), "ms a token".into()];
        LogChart { title: "Decoding: time a token".into(), axes, lines }.save(path)?;
    }
    if arguments.output.json {
        let value = json!({
            "machine": machine(1),
            "rows": rows.iter().map(|row| json!({
                "context": row.context, "attention_ratio": row.softmax_attention.median / row.ela_attention.median,
                "step_ratio": row.softmax_step.median / row.ela_step.median,
                "ela_us": row.ela_step.median * 1e3, "softmax_us": row.softmax_step.median * 1e3,
                "ela_attention_us": row.ela_attention.median * 1e3,
                "softmax_attention_us": row.softmax_attention.median * 1e3,
                "ela_min_us": row.ela_step.min * 1e3, "softmax_min_us": row.softmax_step.min * 1e3,
                "state_bytes": row.state_bytes, "cache_bytes": row.cache_bytes,
            })).collect::<Vec<_>>(),
        });
        return super::super::print(&format!("{value}\n"));
    }
    let mut table = format!(
        "{LAYERS} layers, width {WIDTH}, {HEADS} heads of {HEAD}, vocabulary {VOCABULARY}; one thread; median us a token\n\
         {:>8} {:>11} {:>11} {:>7} {:>11} {:>11} {:>7} {:>11} {:>11}\n",
        "context", "step state", "step cache", "ratio", "att. state", "att. cache", "ratio", "state B", "cache B"
    );
    for row in &rows {
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "{:>8} {:>11.0} {:>11.0} {:>7.2} {:>11.1} {:>11.1} {:>7.1} {:>11} {:>11}",
            row.context,
            row.ela_step.median * 1e3,
            row.softmax_step.median * 1e3,
            row.softmax_step.median / row.ela_step.median,
            row.ela_attention.median * 1e3,
            row.softmax_attention.median * 1e3,
            row.softmax_attention.median / row.ela_attention.median,
            row.state_bytes,
            row.cache_bytes
        );
    }
    super::super::print(&table)
}

fn measure(weights: &Weights, context: usize, tokens: u16) -> Row {
    fn decoder<M: DecodeState>(weights: &Weights, memory: impl Fn() -> M, context: usize) -> Decoder<'_, M> {
        let memories = (0..LAYERS * HEADS).map(|_| memory()).collect();
        let mut decoder = Decoder { weights, memories, position: 0, attention_ms: 0.0 };
        decoder.fill(context);
        decoder
    }
    let mut ela = decoder(weights, || CausalState::new(HadamardExp, HEAD, HEAD), context);
    let room = context + usize::from(tokens) + 1;
    let mut softmax = decoder(weights, || KeyValueCache::with_capacity(HEAD, HEAD, room), context);
    let (mut token_ela, mut token_softmax) = (ela.step(1), softmax.step(1));
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..tokens {
        let start = Instant::now();
        token_ela = ela.step(token_ela);
        times[0].push(start.elapsed().as_secs_f64() * 1e3);
        times[1].push(ela.attention_ms);
        let start = Instant::now();
        token_softmax = softmax.step(token_softmax);
        times[2].push(start.elapsed().as_secs_f64() * 1e3);
        times[3].push(softmax.attention_ms);
    }
    let bytes = |memories: &[&dyn DecodeState]| memories.iter().map(|memory| memory.bytes()).sum();
    let [ela_step, ela_attention, softmax_step, softmax_attention] = times.map(Times::of);
    Row {
        context,
        ela_step,
        ela_attention,
        softmax_step,
        softmax_attention,
        state_bytes: bytes(&ela.memories.iter().map(|memory| memory as &dyn DecodeState).collect::<Vec<_>>()),
        cache_bytes: bytes(&softmax.memories.iter().map(|memory| memory as &dyn DecodeState).collect::<Vec<_>>()),
    }
}
