//! `yolo-lat bench attention`.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use ndarray::ArrayView;
use serde_json::json;
use yolo_lat::Runtime;
use yolo_lat::attention::{HadamardExp, Rows, linear_f32, naive_loops, softmax_f32};
use yolo_lat::engine::cpu::available_threads;
use yolo_lat::engine::ort::{OnnxRuntime, OnnxSession};
use yolo_lat::onnx::{Attribute, Dimension, OnnxGraph};
use yolo_lat::plot::{Line, LogChart};

use super::{OutputArguments, Times, exponent, machine, take_turns, wave};

/// The longest sequence for which everything is measured; beyond it only the linear forms are.
const LONGEST_SOFTMAX: usize = 16_384;

#[derive(Args, Debug)]
pub(super) struct AttentionArguments {
    /// Numbers of tokens
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1 << 20),
          default_value = "64,256,1024,4096,16384,65536")]
    tokens: Vec<u32>,
    /// Widths of a head
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=256), default_value = "16,64")]
    width: Vec<u16>,
    /// Threads; 0 means one for each core
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Seconds for each size
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Leave ONNX Runtime out
    #[arg(long)]
    no_ort: bool,
    #[command(flatten)]
    output: OutputArguments,
}

/// Times for one number of tokens and one width.
struct Row {
    tokens: usize,
    width: usize,
    ela: Times,
    naive: Times,
    softmax: Option<Times>,
    ort: Option<Times>,
}

impl Row {
    /// Bytes beside inputs and result: S and C, and the feature maps of a block for each thread.
    fn ela_bytes(&self, threads: usize) -> usize {
        4 * (self.width * (self.width + 16) * 2 + 128 * self.width) * threads
    }

    /// Bytes beside inputs and result: the transposed keys, and a tile of scores for each thread.
    fn softmax_bytes(&self, threads: usize) -> usize {
        4 * (self.tokens.next_multiple_of(64) * self.width + (32 * 64 + 32 * self.width) * threads)
    }
}

pub(super) fn run(arguments: &AttentionArguments) -> anyhow::Result<ExitCode> {
    let threads = if arguments.threads == 0 { available_threads() } else { arguments.threads };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().context("cannot start threads")?;
    let say =
        |error: &_| super::super::report(&format!("yolo-lat: {error}; going on without it (--no-ort silences this)"));
    let wanted = (!arguments.no_ort).then(|| Runtime::default().onnx_runtime().inspect_err(say).ok());
    let runtime = wanted.flatten();
    let mut rows = Vec::new();
    for &width in &arguments.width {
        for &tokens in &arguments.tokens {
            rows.push(measure(arguments, &pool, runtime.as_ref(), threads, tokens as usize, usize::from(width))?);
        }
    }
    let fit = |pick: &dyn Fn(&Row) -> Option<f64>| {
        let widest = arguments.width.iter().max().map_or(0, |&width| usize::from(width));
        let rows = rows.iter().filter(|row| row.width == widest && (1024..=LONGEST_SOFTMAX).contains(&row.tokens));
        let points: Vec<(f64, f64)> = rows.filter_map(|row| Some((row.tokens as f64, pick(row)?))).collect();
        (points.len() > 1).then(|| exponent(&points))
    };
    let (ela, softmax) = (fit(&|row| Some(row.ela.min)), fit(&|row| row.softmax.map(|times| times.min)));
    if let Some(path) = &arguments.output.plot {
        plot(path, arguments, &rows)?;
    }
    if !arguments.output.json {
        return super::super::print(&as_table(&rows, threads, ela, softmax));
    }
    let milliseconds = |times: Option<Times>| times.map(|times| times.min);
    let value = json!({
        "machine": machine(threads),
        "rows": rows.iter().map(|row| json!({
            "tokens": row.tokens, "width": row.width, "ela_ms": row.ela.min, "ela_median_ms": row.ela.median,
            "ela_naive_ms": row.naive.min, "softmax_ms": milliseconds(row.softmax),
            "softmax_median_ms": row.softmax.map(|times| times.median), "ort_softmax_ms": milliseconds(row.ort),
            "ort_softmax_median_ms": row.ort.map(|times| times.median),
            "ela_bytes": row.ela_bytes(threads), "softmax_bytes": row.softmax_bytes(threads),
        })).collect::<Vec<_>>(),
        "exponent_ela": ela, "exponent_softmax": softmax,
    });
    super::super::print(&format!("{value}\n"))
}

fn measure(
    arguments: &AttentionArguments,
    pool: &rayon::ThreadPool,
    runtime: Option<&OnnxRuntime>,
    threads: usize,
    tokens: usize,
    width: usize,
) -> anyhow::Result<Row> {
    let [q, k, v] = [0.71, 1.31, 0.37].map(|step| wave(tokens * width, step, 1.0));
    let rows = [&q, &k, &v].map(|values| Rows::new(values, width));
    let mut ela = || drop(pool.install(|| linear_f32(&HadamardExp, rows[0], rows[1], rows[2])));
    let mut naive = || drop(naive_loops(&q, &k, &v, width));
    if tokens > LONGEST_SOFTMAX {
        let times = take_turns(arguments.seconds, &mut [&mut ela, &mut naive]);
        return Ok(Row { tokens, width, ela: times[0], naive: times[1], softmax: None, ort: None });
    }
    let mut softmax = || drop(pool.install(|| softmax_f32(rows[0], rows[1], rows[2])));
    let open = |runtime: &OnnxRuntime| {
        OnnxSession::from_bytes(runtime, &softmax_onnx(tokens, width), threads, "softmax attention".into())
    };
    let mut session = runtime.map(open).transpose()?;
    let stacked: Vec<f32> = [&q, &k, &v].into_iter().flatten().copied().collect();
    let input = ArrayView::from_shape((3, tokens, width), &stacked)?.into_dyn();
    let mut failed = None;
    let mut ort = || {
        if let Some(session) = &mut session {
            failed = session.run(input.view()).err().or(failed.take());
        }
    };
    // The slow ones more seldom would be unfair to nobody, but long: three rounds are the least.
    let times = take_turns(arguments.seconds, &mut [&mut ela, &mut naive, &mut softmax, &mut ort]);
    if let Some(error) = failed {
        return Err(error.into());
    }
    let ort = session.is_some().then_some(times[3]);
    Ok(Row { tokens, width, ela: times[0], naive: times[1], softmax: Some(times[2]), ort })
}

/// `softmax(q k^T) v` of an input (3, tokens, width), as exporters write it; `k` is transposed by the graph, which ONNX
/// Runtime fuses into the product.
fn softmax_onnx(tokens: usize, width: usize) -> Vec<u8> {
    let mut graph = OnnxGraph::default();
    let shape = [3, tokens, width].map(Dimension::Fixed);
    graph.input("qkv", &shape);
    let mut part = |index: i64| {
        let index = graph.integers(&[index]);
        graph.node("Gather", &["qkv", &index], &[("axis", Attribute::Int(0))])
    };
    let [q, k, v] = [0, 1, 2].map(&mut part);
    let k = graph.node("Transpose", &[&k], &[("perm", Attribute::Ints(vec![0, 2, 1]))]);
    let scores = graph.node("MatMul", &[&q, &k], &[]);
    let weights = graph.node("Softmax", &[&scores], &[("axis", Attribute::Int(-1))]);
    graph.node_named("MatMul", &[&weights, &v], "attended", &[]);
    graph.output("attended", &[1, tokens, width].map(Dimension::Fixed));
    graph.finish("softmax_attention", 17)
}

fn as_table(rows: &[Row], threads: usize, ela: Option<f64>, softmax: Option<f64>) -> String {
    let mut table = format!(
        "one head, {threads} thread(s), minimum (median) in ms\n{:>7} {:>6} {:>20} {:>10} {:>22} {:>22} {:>9} {:>10} {:>12}\n",
        "tokens", "width", "linear", "naive", "softmax", "softmax (ORT)", "ratio", "linear B", "softmax B"
    );
    let pair =
        |times: Option<Times>| times.map_or("-".into(), |times| format!("{:.3} ({:.3})", times.min, times.median));
    for row in rows {
        let ratio = row.softmax.map_or("-".into(), |softmax| format!("{:.1}", softmax.min / row.ela.min));
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "{:>7} {:>6} {:>20} {:>10.3} {:>22} {:>22} {ratio:>9} {:>10} {:>12}",
            row.tokens,
            row.width,
            pair(Some(row.ela)),
            row.naive.min,
            pair(row.softmax),
            pair(row.ort),
            row.ela_bytes(threads),
            row.softmax_bytes(threads)
        );
    }
    let number = |x: Option<f64>| x.map_or("-".into(), |x| format!("{x:.2}"));
    let _ = writeln!(
        table,
        "exponent of the time in tokens, 1024 to {LONGEST_SOFTMAX}, widest head: linear {}, softmax {}",
        number(ela),
        number(softmax)
    );
    table
}

fn plot(path: &std::path::Path, arguments: &AttentionArguments, rows: &[Row]) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    for &width in &arguments.width {
        let mut line = |name: &str, pick: &dyn Fn(&Row) -> Option<Times>| {
            let rows = rows.iter().filter(|row| row.width == usize::from(width));
            let points: Vec<_> = rows.filter_map(|row| Some((row.tokens as f64, pick(row)?.min))).collect();
            if !points.is_empty() {
                lines.push(Line { name: format!("{name}, width {width}"), points });
            }
        };
        line("linear", &|row| Some(row.ela));
        line("softmax", &|row| row.softmax);
        line("softmax, ONNX Runtime", &|row| row.ort);
    }
    let chart =
        LogChart { title: "Attention: time against tokens".into(), axes: ["tokens".into(), "ms".into()], lines };
    Ok(chart.save(path)?)
}
