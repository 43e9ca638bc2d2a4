//! `yolo-lat bench decode`: one token after the other through a language model, with the state of linear attention and with the cache
//! of keys and values that softmax needs.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use yolo_lat::plot::{Line, LogChart};
use yolo_lat_lm::{Attention, Decoder, LmConfig, LmError, Model};

use super::{OutputArguments, Times, machine};
use crate::lm;

#[derive(Args, Debug)]
pub(super) struct DecodeArguments {
    /// Model: the path of a .toml with a .safetensors and a .tokenizer.json beside it [default: the one that comes with yolo-lat]
    #[arg(short, long, value_name = "FILE")]
    model: Option<PathBuf>,
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
    let model = lm::load(arguments.model.as_deref())?;
    let LmConfig { vocabulary, width, layers, heads, attention, .. } = *model.config();
    let model = if attention == Attention::Softmax { model.with_attention(Attention::Hadamard) } else { model };
    let softmax = model.clone().with_attention(Attention::Softmax);
    let rows = arguments.context.iter().map(|&context| measure([&model, &softmax], context as usize, arguments.tokens));
    let rows: Vec<Row> = rows.collect::<Result<_, _>>()?;
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
            "model": { "layers": layers, "width": width, "heads": heads, "vocabulary": vocabulary },
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
        "{layers} layers, width {width}, {heads} heads of {}, vocabulary {vocabulary}; one thread; median us a token\n\
         {:>8} {:>11} {:>11} {:>7} {:>11} {:>11} {:>7} {:>11} {:>11}\n",
        width / heads,
        "context",
        "step state",
        "step cache",
        "ratio",
        "att. state",
        "att. cache",
        "ratio",
        "state B",
        "cache B"
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

/// Times of both models after so many tokens, in turns; the weights are the same.
fn measure(models: [&Model; 2], context: usize, tokens: u16) -> Result<Row, LmError> {
    let [ela, softmax] = models;
    let (mut ela, mut softmax) = (Decoder::new(ela)?, Decoder::new(softmax)?);
    ela.fill(context);
    softmax.fill(context);
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let mut times = [const { Vec::new() }; 4];
    // One before, which is not counted.
    for round in 0..=tokens {
        for (decoder, times) in [&mut ela, &mut softmax].into_iter().zip(times.as_chunks_mut::<2>().0) {
            let start = Instant::now();
            decoder.step(1)?;
            if round > 0 {
                times[0].push(ms(start.elapsed()));
                times[1].push(ms(decoder.attention_time()));
            }
        }
    }
    let [ela_step, ela_attention, softmax_step, softmax_attention] = times.map(Times::of);
    let (state_bytes, cache_bytes) = (ela.bytes(), softmax.bytes());
    Ok(Row { context, ela_step, ela_attention, softmax_step, softmax_attention, state_bytes, cache_bytes })
}
