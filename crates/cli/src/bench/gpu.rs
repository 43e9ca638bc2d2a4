//! `yolo-lat bench gpu`: the GPU's whole pipeline, attention alone on it, and where a frame's time goes.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use image::RgbImage;
use serde_json::{Value, json};
use yolo_lat::engine::gpu::{Clock, Gpu, GpuEngine, PixelFormat, RawImage};
use yolo_lat::model::config::{AttentionKind, KernelKind};
use yolo_lat::model::graph::{Activation, Mask, Mixing, Op, Scale, Shape};
use yolo_lat::model::{CheckedGraph, Graph, GraphError, Model, Tensor, Weights};
use yolo_lat::postprocess::{Nms, PostprocessOptions};

use super::{TableArguments, Times, exponent, machine, take_turns, wave};
use crate::options::DeviceArguments;
use crate::report;

/// Width and heads of the network's attention.
const WIDTH: usize = 64;
const HEADS: usize = 4;

#[derive(Args, Debug)]
pub(super) struct GpuArguments {
    /// Models: n, s, or paths of .toml or .safetensors files; each with its linear attention and with softmax in its place
    #[arg(short, long, value_delimiter = ',', default_value = "n,s")]
    model: Vec<String>,
    /// Input sizes in pixels, multiples of 32
    #[arg(long, value_delimiter = ',', default_value = "320,640,1280", value_parser = clap::value_parser!(u16).range(32..=4096))]
    size: Vec<u16>,
    /// Images computed together
    #[arg(long, value_delimiter = ',', default_value = "1,8,32", value_parser = clap::value_parser!(u16).range(1..=256))]
    batch: Vec<u16>,
    /// Sides of the square maps on which attention alone is timed; tokens are their squares
    #[arg(long, value_delimiter = ',', default_value = "20,40,80,160,256", value_parser = clap::value_parser!(u16).range(2..=512))]
    side: Vec<u16>,
    /// Most tokens for which softmax is timed
    #[arg(long, default_value_t = 65_536)]
    softmax_tokens: usize,
    /// Seconds for each comparison
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    #[command(flatten)]
    devices: DeviceArguments,
    #[command(flatten)]
    output: TableArguments,
}

/// A network from the image's bytes to the detections.
struct Pipeline {
    model: String,
    attention: &'static str,
    size: usize,
    batch: usize,
    times: Times,
}

/// Attention alone: time of its dispatches, by the clock that there is.
struct Attention {
    tokens: usize,
    ela_ms: f64,
    softmax_ms: Option<f64>,
}

pub(super) fn run(arguments: &GpuArguments) -> anyhow::Result<ExitCode> {
    let gpu = arguments.devices.runtime(0)?.gpu()?;
    let mut pipelines = Vec::new();
    for &size in &arguments.size {
        for &batch in &arguments.batch {
            pipelines.extend(measure_pipelines(arguments, &gpu, usize::from(size), usize::from(batch))?);
        }
    }
    let mut attention = Vec::new();
    let mut clock = Clock::Gpu;
    for &side in &arguments.side {
        let (row, by) = measure_attention(arguments, &gpu, usize::from(side))?;
        attention.push(row);
        clock = by;
    }
    let dispatches = dispatches(&gpu, &arguments.model[0])?;
    let as_markdown = || as_markdown(&gpu, &pipelines, &attention, clock, &dispatches);
    arguments.output.print(|| as_json(&gpu, &pipelines, &attention, clock, &dispatches), as_markdown, as_markdown)
}

/// The model and its twin with softmax attention, same weights.
fn twins(name: &str) -> anyhow::Result<[(Model, &'static str); 2]> {
    let model = Model::load(name)?;
    let mut softmax = model.clone();
    softmax.config.neck.attention = AttentionKind::Softmax;
    Ok([(model, "ela"), (softmax, "softmax")])
}

fn measure_pipelines(
    arguments: &GpuArguments,
    gpu: &std::sync::Arc<Gpu>,
    size: usize,
    batch: usize,
) -> anyhow::Result<Vec<Pipeline>> {
    let image = RgbImage::from_fn(640, 480, |x, y| image::Rgb([(x / 3) as u8, (y / 2) as u8, ((x + y) / 5) as u8]));
    let view = RawImage { size: image.dimensions(), format: PixelFormat::Rgb, bytes: image.as_raw() };
    let (views, options) = (vec![view; batch], PostprocessOptions::default());
    let mut engines = Vec::new();
    for name in &arguments.model {
        for (model, attention) in twins(name)? {
            let tried = GpuEngine::on(gpu.clone(), &model.network(size, size)?)
                .and_then(|mut engine| engine.detect(&views, &options).map(|_| engine));
            match tried {
                Ok(engine) => engines.push((model.config.name.clone(), attention, engine)),
                Err(error) => report(&format!("yolo-lat: {name} at {size}, batch {batch}: {error}; left out")),
            }
        }
    }
    let mut failed = None;
    let failed_at = std::cell::RefCell::new(&mut failed);
    let mut work: Vec<Box<dyn FnMut()>> = Vec::new();
    for (_, _, engine) in &mut engines {
        let (views, options, failed_at) = (&views, &options, &failed_at);
        work.push(Box::new(move || {
            if let Err(error) = engine.detect(views, options) {
                **failed_at.borrow_mut() = Some(error);
            }
        }));
    }
    if work.is_empty() {
        return Ok(Vec::new());
    }
    let mut turns: Vec<&mut dyn FnMut()> = work.iter_mut().map(|work| &mut **work as &mut dyn FnMut()).collect();
    let times = take_turns(arguments.seconds, &mut turns);
    drop(work);
    if let Some(error) = failed {
        return Err(error.into());
    }
    let row = |((model, attention, _), times)| Pipeline { model, attention, size, batch, times };
    Ok(engines.into_iter().zip(times).map(row).collect())
}

/// `side` x `side` positions: an image becomes queries, keys and values by one product; attention; nothing is found.
fn attention_graph(side: usize, mixing: Mixing) -> Result<CheckedGraph, GraphError> {
    let mut graph = Graph::new("attention", Shape { channels: 3, height: side, width: side });
    let product = Op::Conv { channels: 3 * WIDTH, kernel: 1, stride: 1, activation: Activation::Identity };
    let product = graph.add("qkv", product, &[0]);
    let attended = graph.add("attention", Op::Attention { mixing, heads: HEADS, mask: Mask::Full }, &[product]);
    let class = graph.add("class", Op::Slice { start: 0, step: 1, count: 1 }, &[attended]);
    let boxes = graph.add("box", Op::Slice { start: 0, step: WIDTH / 8, count: 8 }, &[attended]);
    graph.scales = vec![Scale { stride: 1, class, boxes }];
    graph.check()
}

fn measure_attention(
    arguments: &GpuArguments,
    gpu: &std::sync::Arc<Gpu>,
    side: usize,
) -> anyhow::Result<(Attention, Clock)> {
    let mut weights = Weights::default();
    let ela = Mixing::Linear(KernelKind::HadamardExp);
    for spec in attention_graph(side, ela)?.weights() {
        let values = wave(spec.shape.iter().product(), 0.71, 1.0);
        weights.insert(spec.name, Tensor { shape: spec.shape, values: values.into() });
    }
    let image = RgbImage::from_fn(side as u32, side as u32, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8]));
    let view = [RawImage { size: image.dimensions(), format: PixelFormat::Rgb, bytes: image.as_raw() }];
    // Nothing reaches more than certainty.
    let options = PostprocessOptions { confidence: 1.1, nms: Nms::Greedy, ..PostprocessOptions::default() };
    let mut clock = Clock::Gpu;
    let mut measure = |mixing| -> anyhow::Result<f64> {
        let mut engine = GpuEngine::on(gpu.clone(), &attention_graph(side, mixing)?.with(weights.clone())?)?;
        engine.detect(&view, &options)?;
        clock = engine.start_profile(None)?;
        let (start, mut least) = (std::time::Instant::now(), f64::INFINITY);
        let mut rounds = 0;
        while rounds < 3 || start.elapsed().as_secs_f64() < arguments.seconds {
            engine.detect(&view, &options)?;
            let times = engine.profile()?;
            let attention =
                times.iter().filter(|time| time.name.contains("attention") || time.name.contains("softmax"));
            least = least.min(attention.map(|time| time.duration.as_secs_f64() * 1e3).sum());
            rounds += 1;
        }
        Ok(least)
    };
    let tokens = side * side;
    let ela_ms = measure(ela)?;
    let softmax_ms = (tokens <= arguments.softmax_tokens).then(|| measure(Mixing::Softmax)).transpose()?;
    Ok((Attention { tokens, ela_ms, softmax_ms }, clock))
}

/// Least time of every dispatch of a model at its own size.
fn dispatches(gpu: &std::sync::Arc<Gpu>, name: &str) -> anyhow::Result<Vec<(String, f64)>> {
    let model = Model::load(name)?;
    let size = model.config.input;
    let mut engine = GpuEngine::on(gpu.clone(), &model.network(size, size)?)?;
    let image = RgbImage::from_pixel(640, 480, image::Rgb([90, 120, 60]));
    let view = [RawImage { size: image.dimensions(), format: PixelFormat::Rgb, bytes: image.as_raw() }];
    let options = PostprocessOptions::default();
    engine.detect(&view, &options)?;
    engine.start_profile(None)?;
    let mut least: Vec<(String, f64)> = Vec::new();
    for _ in 0..10 {
        engine.detect(&view, &options)?;
        let times = engine.profile()?;
        least.resize(times.len(), (String::new(), f64::INFINITY));
        for (least, time) in least.iter_mut().zip(times) {
            *least = (time.name, least.1.min(time.duration.as_secs_f64() * 1e6));
        }
    }
    Ok(least)
}

/// Exponents of the time in tokens, linear attention and softmax.
fn exponents(attention: &[Attention]) -> [Option<f64>; 2] {
    let fit = |pick: &dyn Fn(&Attention) -> Option<f64>| {
        let points: Vec<(f64, f64)> =
            attention.iter().filter_map(|row| Some((row.tokens as f64, pick(row)?))).collect();
        (points.len() > 1).then(|| exponent(&points))
    };
    [fit(&|row| Some(row.ela_ms)), fit(&|row| row.softmax_ms)]
}

fn clock_name(clock: Clock) -> &'static str {
    match clock {
        Clock::Gpu => "gpu",
        Clock::Wall => "wall",
    }
}

fn as_json(
    gpu: &Gpu,
    pipelines: &[Pipeline],
    attention: &[Attention],
    clock: Clock,
    dispatches: &[(String, f64)],
) -> Value {
    let [ela, softmax] = exponents(attention);
    json!({
        "machine": machine(1), "adapter": gpu.name(),
        "features": { "f16": gpu.features().half, "subgroups": gpu.features().subgroups },
        "pipelines": pipelines.iter().map(|row| json!({
            "model": row.model, "attention": row.attention, "size": row.size, "batch": row.batch,
            "min_ms": row.times.min, "median_ms": row.times.median, "p90_ms": row.times.p90,
            "images_per_second": 1e3 * row.batch as f64 / row.times.median,
        })).collect::<Vec<_>>(),
        "attention": attention.iter().map(|row| json!({
            "tokens": row.tokens, "ela_ms": row.ela_ms, "softmax_ms": row.softmax_ms,
        })).collect::<Vec<_>>(),
        "exponent_ela": ela, "exponent_softmax": softmax, "clock": clock_name(clock),
        "dispatches": dispatches.iter().map(|(name, us)| json!({ "name": name, "min_us": us })).collect::<Vec<_>>(),
    })
}

fn as_markdown(
    gpu: &Gpu,
    pipelines: &[Pipeline],
    attention: &[Attention],
    clock: Clock,
    dispatches: &[(String, f64)],
) -> String {
    let mut text = format!(
        "## Whole pipeline on {} (f16: {}, subgroups: {})\n\nA image of 640x480 in memory to detections in memory.\n\n\
         | model | attention | size | batch | min ms | median ms | p90 ms | images/s |\n|---|---|---|---|---|---|---|---|\n",
        gpu.name(),
        gpu.features().half,
        gpu.features().subgroups
    );
    // Writing to a String cannot fail.
    for Pipeline { model, attention, size, batch, times } in pipelines {
        let Times { min, median, p90 } = times;
        let rate = 1e3 * *batch as f64 / median;
        let _ = writeln!(
            text,
            "| {model} | {attention} | {size} | {batch} | {min:.3} | {median:.3} | {p90:.3} | {rate:.1} |"
        );
    }
    let _ = write!(
        text,
        "\n## Attention alone\n\nWidth {WIDTH}, {HEADS} heads; least time of its dispatches by the {} clock.\n\n\
         | tokens | linear ms | softmax ms | ratio |\n|---|---|---|---|\n",
        clock_name(clock)
    );
    for Attention { tokens, ela_ms, softmax_ms } in attention {
        let (softmax, ratio) =
            softmax_ms.map_or(("-".into(), "-".into()), |ms| (format!("{ms:.3}"), format!("{:.1}", ms / ela_ms)));
        let _ = writeln!(text, "| {tokens} | {ela_ms:.3} | {softmax} | {ratio} |");
    }
    let [ela, softmax] = exponents(attention).map(|x| x.map_or("-".into(), |x| format!("{x:.2}")));
    let _ = writeln!(text, "\nExponent of the time in tokens: linear {ela}, softmax {softmax}.\n\n## Dispatches\n");
    let _ = writeln!(text, "| least us | dispatch |\n|---|---|");
    for (name, us) in dispatches {
        let _ = writeln!(text, "| {us:.1} | {name} |");
    }
    let total: f64 = dispatches.iter().map(|(_, us)| us).sum();
    let _ = writeln!(text, "\n{} dispatches, {:.3} ms together.", dispatches.len(), total / 1e3);
    text
}
