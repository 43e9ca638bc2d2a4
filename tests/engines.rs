//! Every operation over random shapes on every engine against the reference, and whole networks likewise.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[cfg(feature = "gpu")]
mod common;

#[cfg(feature = "gpu")]
use std::sync::{Arc, LazyLock};

use arbtest::arbitrary::{Result, Unstructured};
use arbtest::arbtest;
use ndarray::Array4;
use yolo_lat::engine::Engine;
use yolo_lat::engine::cpu::{CpuEngine, InstructionSet};
#[cfg(feature = "gpu")]
use yolo_lat::engine::gpu::{Gpu, GpuEngine, ShaderFeatures};
use yolo_lat::engine::reference::ReferenceEngine;
use yolo_lat::model::config::{AttentionKind, ExpertBias, ExpertsConfig, KernelKind, MemoryKind};
use yolo_lat::model::graph::{Activation, Mask, Mixing, Node, NodeId, Op, Scale, Shape};
use yolo_lat::model::{CheckedGraph, Graph, Model, ModelConfig, Network, Precision, Tensor, Weights, graph_of};

/// Searches that are made until all that a test wants to see was drawn.
const TRIES: usize = 10;

/// Every engine that must agree with the reference: the CPU's for each instruction set and thread count it has, and the
/// GPU's where there is an adapter, if only a software one.
fn engines(network: &Network, with_gpu: bool) -> Vec<Box<dyn Engine>> {
    let sets = InstructionSet::available().into_iter();
    let mut engines: Vec<Box<dyn Engine>> = sets
        .flat_map(|set| [1, 3].map(|threads| (set, threads)))
        .map(|(set, threads)| -> Box<dyn Engine> {
            Box::new(CpuEngine::with_instruction_set(network, threads, set).unwrap())
        })
        .collect();
    if with_gpu {
        engines.extend(on_gpus(network));
    }
    engines
}

#[cfg(feature = "gpu")]
fn on_gpus(network: &Network) -> Vec<Box<dyn Engine>> {
    let on = |gpu: &Arc<Gpu>| -> Box<dyn Engine> { Box::new(GpuEngine::on(gpu.clone(), network).unwrap()) };
    gpus().iter().map(on).collect()
}

#[cfg(not(feature = "gpu"))]
fn on_gpus(_: &Network) -> Vec<Box<dyn Engine>> {
    Vec::new()
}

/// Devices in 32 bits, without and with subgroups where the adapter has them.
#[cfg(feature = "gpu")]
fn gpus() -> &'static [Arc<Gpu>] {
    static GPUS: LazyLock<Vec<Arc<Gpu>>> = LazyLock::new(|| {
        let plain = ShaderFeatures { half: false, subgroups: false };
        let devices = [plain, ShaderFeatures { subgroups: true, ..plain }].into_iter().map(common::open_gpu);
        let mut devices: Vec<_> = devices.collect();
        devices.dedup_by_key(|gpu| gpu.features());
        devices
    });
    &GPUS
}

/// A value in -1..1, from a small generator: inputs are plentiful and need no shrinking.
fn noise(seed: &mut u32) -> f32 {
    *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    (*seed >> 8) as f32 / 8_388_608.0 - 1.0
}

fn with_random_weights(graph: &CheckedGraph, seed: &mut u32) -> Network {
    let mut weights = Weights::default();
    for spec in graph.weights() {
        let count: usize = spec.shape.iter().product();
        let fan_in: usize = spec.shape.iter().skip(1).product();
        let value = |noise: f32| match spec.name.rsplit('.').next() {
            Some("step") => 0.01 + 0.01 * noise.abs(),
            Some("zero") => (64.0 + 64.0 * noise).floor().min(127.0),
            _ => noise / (fan_in as f32).sqrt(),
        };
        let values = (0..count).map(|_| value(noise(seed))).collect();
        weights.insert(spec.name, Tensor { shape: spec.shape, values });
    }
    graph.with(weights).unwrap()
}

fn random_images(batch: usize, shape: Shape, scale: f32, seed: &mut u32) -> Array4<f32> {
    Array4::from_shape_simple_fn((batch, shape.channels, shape.height, shape.width), || noise(seed) * scale)
}

/// Compares all engines with the reference; differences are relative to the largest value of an output.
fn assert_engines_agree(network: &Network, images: &Array4<f32>, tolerance: f32) {
    assert_some_agree(network, images, tolerance, true);
}

fn assert_some_agree(network: &Network, images: &Array4<f32>, tolerance: f32, with_gpu: bool) {
    let mut reference = ReferenceEngine::new(network.clone());
    let expected = reference.run(images.view()).unwrap().to_vec();
    for mut engine in engines(network, with_gpu) {
        let found = engine.run(images.view()).unwrap().to_vec();
        let again = engine.run(images.view()).unwrap().to_vec();
        assert!(again == found, "{}: two runs differ", engine.description());
        assert_eq!(expected.len(), found.len());
        for (output, (expected, found)) in expected.iter().zip(&found).enumerate() {
            assert_eq!(expected.dim(), found.dim());
            let scale = expected.iter().fold(1.0f32, |scale, x| scale.max(x.abs()));
            for (at, (&a, &b)) in expected.iter().zip(found).enumerate() {
                // Not `<`: a NaN must fail.
                assert!(
                    (a - b).abs() <= tolerance * scale,
                    "{}: output {output} at {at}: expected {a}, found {b}\n{:?}",
                    engine.description(),
                    network.nodes
                );
            }
        }
    }
}

/// The graph with its last node as output.
fn finished(mut graph: Graph) -> CheckedGraph {
    graph.taps.push(graph.nodes.len() - 1);
    graph.check().unwrap()
}

/// Nothing but attention: the channels of the image are queries, keys and values.
fn attention_alone(mixing: Mixing, heads: usize, shape: Shape) -> Network {
    masked_attention(mixing, heads, Mask::Full, shape)
}

fn masked_attention(mixing: Mixing, heads: usize, mask: Mask, shape: Shape) -> Network {
    let mut graph = Graph::new("attention", shape);
    graph.add("attention", Op::Attention { mixing, heads, mask }, &[0]);
    finished(graph).with(Weights::default()).unwrap()
}

fn random_shape(u: &mut Unstructured, channels: usize) -> Result<Shape> {
    let side = |u: &mut Unstructured| -> Result<usize> { Ok(if u.ratio(1, 5)? { 1 } else { u.int_in_range(1..=37)? }) };
    Ok(Shape { channels, height: side(u)?, width: side(u)? })
}

fn random_activation(u: &mut Unstructured) -> Result<Activation> {
    Ok(*u.choose(&[Activation::Identity, Activation::LeakyRelu(0.0), Activation::LeakyRelu(0.1)])?)
}

/// One operation on the image, the second input (where it has one) a pointwise copy of the right shape.
fn random_operation(u: &mut Unstructured) -> Result<CheckedGraph> {
    let channels = if u.ratio(1, 5)? { 1 } else { u.int_in_range(1..=40)? };
    let input = random_shape(u, channels)?;
    let (kernel, stride) = (*u.choose(&[1, 3, 5, 7])?, u.int_in_range(1..=2)?);
    let activation = random_activation(u)?;
    let mut graph = Graph::new("test", input);
    let wider = |factor| Graph::new("test", Shape { channels: factor * channels, ..input });
    let pointwise = |channels| Op::Conv { channels, kernel: 1, stride: 1, activation };
    match u.int_in_range(0..=12)? {
        0 => {
            let out = u.int_in_range(1..=40)?;
            let residual: &[NodeId] = if stride == 1 && out == channels && u.arbitrary()? { &[0, 0] } else { &[0] };
            graph.add("conv", Op::Conv { channels: out, kernel, stride, activation }, residual);
        }
        1 => {
            let residual: &[NodeId] = if stride == 1 && u.arbitrary()? { &[0, 0] } else { &[0] };
            graph.add("depthwise", Op::Depthwise { kernel, stride, bias: u.arbitrary()?, activation }, residual);
        }
        2 => {
            graph.add("pool", Op::MaxPool, &[0]);
        }
        3..=5 => {
            let heads = u.int_in_range(1..=4)?;
            let width = heads * u.int_in_range(1..=20)?;
            let kernels =
                [KernelKind::HadamardExp, KernelKind::SumDistance, KernelKind::DiffDistance, KernelKind::ModulatedDot];
            let mixing = if u.ratio(1, 3)? { Mixing::Softmax } else { Mixing::Linear(*u.choose(&kernels)?) };
            return Ok(attention_alone(mixing, heads, Shape { channels: 3 * width, ..input }).graph().clone());
        }
        6 => {
            graph = wider(2);
            graph.add("u", Op::Slice { start: 0, step: 2, count: channels }, &[0]);
            graph.add("g", Op::Slice { start: 1, step: 2, count: channels }, &[0]);
            graph.add("gate", Op::Gate, &[1, 2]);
        }
        7 => {
            graph.add("upsample", Op::Upsample, &[0]);
            if u.arbitrary()? {
                let fine = Op::Depthwise { kernel: 3, stride: 1, bias: true, activation };
                graph.add("fine", fine, &[1]);
                graph.add("coarse", Op::Upsample, &[0]);
                graph.add("add", Op::Add, if u.arbitrary()? { &[2, 3] } else { &[3, 2] });
            }
        }
        8 => {
            graph.add("add", Op::Add, &[0, 0]);
        }
        9 => {
            let active = u.int_in_range(1..=channels.min(6))?;
            graph.add("route", Op::Route { active, equal: u.arbitrary()? }, &[0]);
        }
        10 => {
            // What is inside experts, times their gates.
            let each = u.int_in_range(1..=9)?;
            graph.add("wide", pointwise(channels * each), &[0]);
            graph.add("scale", Op::Scale, &[1, 0]);
        }
        11 => {
            // The branch of a shuffle unit, with other widths than the network's.
            graph.add("first", pointwise(u.int_in_range(1..=110)?), &[0]);
            graph.add("window", Op::Depthwise { kernel: 3, stride: 1, bias: u.arbitrary()?, activation }, &[1]);
            graph.add("last", pointwise(u.int_in_range(1..=40)?), &[2]);
        }
        _ => {
            // Views of views, read by a convolution.
            graph.add("concat", Op::Concat, &[0, 0]);
            graph.add("shuffle", Op::Shuffle { groups: 2 }, &[1]);
            graph.add("slice", Op::Slice { start: 1, step: 2, count: channels.div_ceil(2) }, &[2]);
            graph.add("mix", pointwise(channels), &[3]);
        }
    }
    Ok(finished(graph))
}

#[test]
fn every_operation_agrees_with_the_reference() {
    const OPERATIONS: [&str; 14] = [
        "conv",
        "depthwise",
        "max",
        "exact",
        "softmax",
        "gate",
        "add",
        "upsample",
        "slice",
        "concat",
        "shuffle",
        "route",
        "equal",
        "scale",
    ];
    let mut seen = std::collections::BTreeSet::new();
    // A busy machine tries little in its time.
    for _ in 0..TRIES {
        arbtest(|u| {
            let graph = random_operation(u)?;
            seen.extend(
                graph.nodes.iter().map(|node| node.op.label().split(' ').next().unwrap_or_default().to_owned()),
            );
            let mut seed = u.arbitrary()?;
            let network = with_random_weights(&graph, &mut seed);
            // Softmax multiplies queries by keys: its exponents grow with the square of the scale.
            let softmax = |node: &Node| matches!(node.op, Op::Attention { mixing: Mixing::Softmax, .. });
            let large = if graph.nodes.iter().any(softmax) { 3.0 } else { 30.0 };
            let scale = *u.choose(&[1.0, 1.0, large])?;
            let images = random_images(u.int_in_range(1..=3)?, graph.input(), scale, &mut seed);
            // Exponents of size 30 differ by 30 * 2^-24 in f32, and so do the weights, relatively.
            assert_engines_agree(&network, &images, 2e-5);
            Ok(())
        })
        .budget_ms(15_000);
        if OPERATIONS.iter().all(|&operation| seen.contains(operation)) {
            break;
        }
    }
    for operation in OPERATIONS {
        assert!(seen.contains(operation), "{operation} was never tried: {seen:?}");
    }
}

/// Convolutions in integers, one after the other, of views and of what else rounds nothing.
fn integer_graph(u: &mut Unstructured) -> Result<CheckedGraph> {
    let channels = u.int_in_range(1..=40)?;
    let mut graph = Graph::new("integers", random_shape(u, channels)?);
    for index in 0..u.int_in_range(1..=4)? {
        let (last, activation) = (graph.nodes.len() - 1, random_activation(u)?);
        let channels = graph.nodes[last].shape.channels;
        let name = |what: &str| format!("{what}{index}");
        let read = match u.int_in_range(0..=5)? {
            0 => {
                let (start, step) = (u.int_in_range(0..=channels - 1)?, u.int_in_range(1..=3)?);
                let count = u.int_in_range(1..=(channels - start).div_ceil(step))?;
                graph.add(name("slice"), Op::Slice { start, step, count }, &[last])
            }
            1 if channels.is_multiple_of(2) => graph.add(name("shuffle"), Op::Shuffle { groups: 2 }, &[last]),
            // Every channel twice.
            2 => graph.add(name("concat"), Op::Concat, &[last, last]),
            3 => graph.add(name("pool"), Op::MaxPool, &[last]),
            _ => last,
        };
        let with_residual = u.ratio(1, 3)?;
        let channels = if with_residual { graph.nodes[read].shape.channels } else { u.int_in_range(1..=40)? };
        let inputs = if with_residual { vec![read, read] } else { vec![read] };
        graph.add(name("product"), Op::IntegerConv { channels, activation }, &inputs);
    }
    Ok(finished(graph))
}

#[test]
fn products_of_integers_are_the_references_bit_for_bit() {
    let (mut compared, mut saturated) = (0, 0);
    for _ in 0..TRIES {
        arbtest(|u| {
            let graph = integer_graph(u)?;
            let mut seed = u.arbitrary()?;
            let network = with_random_weights(&graph, &mut seed);
            // Beyond the levels, too.
            let scale = *u.choose(&[0.5, 1.0, 10.0])?;
            let mut images = random_images(u.int_in_range(1..=3)?, graph.input(), scale, &mut seed);
            // The larger of a number and none may be either.
            let pools = graph.nodes.iter().any(|node| node.op == Op::MaxPool);
            if !pools && u.ratio(1, 4)? {
                images[(0, 0, 0, 0)] = *u.choose(&[f32::INFINITY, f32::NEG_INFINITY, f32::NAN])?;
            }
            let expected = ReferenceEngine::new(network.clone()).run(images.view()).unwrap().to_vec();
            for mut engine in engines(&network, false) {
                let found = engine.run(images.view()).unwrap().to_vec();
                for (expected, found) in expected.iter().zip(&found) {
                    for (expected, found) in expected.iter().zip(found) {
                        let same = expected.to_bits() == found.to_bits() || expected.is_nan() && found.is_nan();
                        assert!(
                            same,
                            "{}: expected {expected}, found {found}\n{:?}",
                            engine.description(),
                            graph.nodes
                        );
                    }
                }
            }
            compared += 1;
            saturated += usize::from(scale > 5.0);
            Ok(())
        })
        .budget_ms(8_000);
        if compared > 50 && saturated > 5 {
            break;
        }
    }
    assert!(compared > 50 && saturated > 5, "{compared} graphs compared, too few");
}

/// The steps of the models that come with the program.
#[test]
fn built_in_models_in_integers_find_what_they_find_in_floats() {
    for name in ["n", "s"] {
        let model = Model::load(name).unwrap();
        assert_eq!(model.precision(), Precision::F32, "a model is what its file holds until it is asked for integers");
        let integers = model.clone().in_precision(Precision::Int8).unwrap();
        let network = integers.network(96, 64).unwrap();
        assert!(network.has_integers());
        assert!(!model.network(96, 64).unwrap().has_integers());
        let images = random_images(1, network.input(), 1.0, &mut 5).mapv(|x| 0.5 + 0.5 * x);
        let floats = ReferenceEngine::new(model.network(96, 64).unwrap()).run(images.view()).unwrap().to_vec();
        let expected = ReferenceEngine::new(network.clone()).run(images.view()).unwrap().to_vec();
        let spread = |map: &Array4<f32>| (map.iter().map(|x| x * x).sum::<f32>() / map.len() as f32).sqrt();
        for (floats, integers) in floats.iter().zip(&expected) {
            // Noise is nothing that steps were measured on; still most of it comes through.
            let error = spread(&(floats - integers));
            assert!(error > 0.0 && error < 0.25 * spread(floats), "{name}: {error} of {}", spread(floats));
        }
        let runs: Vec<_> = engines(&network, false)
            .into_iter()
            .map(|mut engine| engine.run(images.view()).unwrap().to_vec())
            .collect();
        for (expected, found) in expected.iter().zip(&runs[0]) {
            // Windows sum in another order, and what lies on an edge between levels then falls to the other side.
            let error = spread(&(expected - found));
            assert!(error < 0.02 * spread(expected), "{name}: {error} of {}", spread(expected));
        }
        // Threads change nothing.
        assert!(runs.chunks(2).all(|pair| pair[0] == pair[1]), "{name}");
    }
}

/// On maps whose rows are whole quads, which are read in one go where they are narrow, and others.
#[test]
fn windows_of_every_size_agree_with_the_reference() {
    for (kernel, stride) in [1, 3, 5, 7, 9, 15].into_iter().flat_map(|kernel| [1, 2].map(|stride| (kernel, stride))) {
        for (width, height) in [(8, 13), (16, 16), (7, 5)] {
            let mut graph = Graph::new("window", Shape { channels: 9, height, width });
            let activation = Activation::LeakyRelu(0.1);
            let window = graph.add("window", Op::Depthwise { kernel, stride, bias: true, activation }, &[0]);
            graph.add("mix", Op::Conv { channels: 6, kernel: 1, stride: 1, activation }, &[window]);
            graph.taps.push(window);
            let mut seed = (kernel * stride) as u32;
            for graph in [finished(graph.clone()), finished(Graph { taps: Vec::new(), ..graph })] {
                let network = with_random_weights(&graph, &mut seed);
                let images = random_images(2, graph.input(), 1.0, &mut seed);
                assert_engines_agree(&network, &images, 1e-5);
            }
        }
    }
}

/// On images so wide that some windows are read where they lie, of (26, 7) one a row, and of (25, 7) none.
#[test]
fn windows_on_wide_images_agree_with_the_reference() {
    for (kernel, stride) in [3, 5, 15].into_iter().flat_map(|kernel| [1, 2].map(|stride| (kernel, stride))) {
        for (width, height) in [(77, 34), (64, 20), (26, 7), (25, 7)] {
            for pooled in [false, true] {
                let mut graph = Graph::new("wide", Shape { channels: 3, height, width });
                let activation = Activation::LeakyRelu(0.1);
                graph.add("dense", Op::Conv { channels: 12, kernel, stride, activation }, &[0]);
                if pooled {
                    graph.add("pool", Op::MaxPool, &[1]);
                }
                let graph = finished(graph);
                let mut seed = (kernel * stride * width) as u32;
                let network = with_random_weights(&graph, &mut seed);
                let images = random_images(2, graph.input(), 1.0, &mut seed);
                assert_engines_agree(&network, &images, 1e-5);
            }
        }
    }
}

#[test]
fn of_equal_scores_the_first_count_as_higher_everywhere() {
    for (active, equal) in [(1, false), (2, false), (3, true)] {
        let mut graph = Graph::new("ties", Shape { channels: 5, height: 6, width: 7 });
        graph.add("route", Op::Route { active, equal }, &[0]);
        let network = finished(graph).with(Weights::default()).unwrap();
        // All kinds of ties, those of 0 and -0 too.
        let mut seed = active as u32;
        let images = random_images(2, network.input(), 1.0, &mut seed).mapv(|x| {
            if x < -0.4 {
                -0.0
            } else if x < 0.2 {
                0.0
            } else {
                1.0
            }
        });
        assert_engines_agree(&network, &images, 1e-6);
    }
}

/// A graph of a few nodes that mostly fit each other, with any parameters, and with a chance something that is wrong.
fn any_graph(u: &mut Unstructured) -> Result<Graph> {
    let channels = u.int_in_range(1..=24)?;
    let mut graph = Graph::new("any", random_shape(u, channels)?);
    let small = |u: &mut Unstructured, most: usize| if u.ratio(1, 60)? { Ok(0) } else { u.int_in_range(1..=most) };
    for index in 0..u.int_in_range(1..=9)? {
        let first = u.int_in_range(0..=graph.nodes.len() - 1)?;
        // Of a broken node it has none.
        let (shape, channels) = (graph.nodes[first].shape, graph.nodes[first].shape.channels.max(1));
        let twins: Vec<NodeId> = (0..graph.nodes.len()).filter(|&id| graph.nodes[id].shape == shape).collect();
        let second = *u.choose(&twins)?;
        let activation = random_activation(u)?;
        let (kernel, stride) = (*u.choose(&[1, 1, 1, 3, 3, 5, 7])?, u.int_in_range(1..=2)?);
        let (op, pair) = match u.int_in_range(0..=11)? {
            0..=2 => (Op::Conv { channels: small(u, 24)?, kernel, stride, activation }, false),
            3 => (Op::Conv { channels, kernel, stride: 1, activation }, true),
            4 => (Op::Depthwise { kernel, stride, bias: u.arbitrary()?, activation }, false),
            5 => (Op::Depthwise { kernel, stride: 1, bias: u.arbitrary()?, activation }, true),
            6 => (*u.choose(&[Op::MaxPool, Op::Upsample])?, false),
            7 => (*u.choose(&[Op::Gate, Op::Add, Op::Concat, Op::Scale])?, true),
            8 => {
                let divisors: Vec<usize> = (1..=channels).filter(|parts| channels.is_multiple_of(*parts)).collect();
                (Op::Shuffle { groups: if u.ratio(1, 20)? { small(u, 9)? } else { *u.choose(&divisors)? } }, false)
            }
            9 | 10 => {
                let (start, step) = (u.int_in_range(0..=channels - 1)?, small(u, 3)?);
                let most = (channels - start).div_ceil(step.max(1));
                let most = if u.ratio(1, 20)? { most + 2 } else { most };
                (Op::Slice { start, step, count: small(u, most)? }, false)
            }
            _ => {
                // The other kernels weigh by directions or differences, which are nothing but rounding near zero.
                let mixing = if u.arbitrary()? { Mixing::Softmax } else { Mixing::Linear(KernelKind::HadamardExp) };
                let mask = if u.ratio(1, 8)? { Mask::Causal } else { Mask::Full };
                let heads = if channels.is_multiple_of(6) && u.arbitrary()? { 2 } else { 1 };
                (Op::Attention { mixing, heads, mask }, false)
            }
        };
        let pair = pair && !(matches!(op, Op::Depthwise { .. } | Op::Conv { .. }) && u.arbitrary()?);
        graph.add(format!("node{index}"), op, &[first, second][..if pair { 2 } else { 1 }]);
        // What does not fit any more is dropped again, so that most graphs are whole.
        if graph.nodes[graph.nodes.len() - 1].shape == Shape::default() && !u.ratio(1, 8)? {
            graph.nodes.pop();
        }
    }
    let last = graph.nodes.len() - 1;
    graph.taps.push(last);
    graph.taps.push(u.int_in_range(0..=last)?);
    if u.ratio(1, 3)? {
        let at = u.int_in_range(0..=last)?;
        let huge = *u.choose(&[0, 1 << 20, usize::MAX >> 24, usize::MAX / 2, usize::MAX])?;
        match u.int_in_range(0..=9)? {
            0 => graph.nodes[at].name = graph.nodes[last].name.clone(),
            1 => graph.nodes[at].inputs.push(u.int_in_range(0..=last + 2)?),
            2 => {
                graph.nodes[at].inputs.pop();
            }
            3 => graph.nodes[at].shape.channels = huge,
            4 => graph.nodes[at].shape.width += 1,
            5 => graph = Graph { nodes: Graph::new("huge", Shape { height: huge, ..graph.input() }).nodes, ..graph },
            6 => graph.nodes[at].op = Op::Slice { start: huge, step: huge, count: 2 },
            7 => graph.taps = if u.arbitrary()? { vec![last + 1] } else { Vec::new() },
            8 => graph.scales.push(Scale { stride: 8, class: at, boxes: last }),
            _ => graph.nodes.swap(at, last),
        }
    }
    Ok(graph)
}

/// Weights with a chance something that is wrong.
fn any_weights(u: &mut Unstructured, graph: &CheckedGraph) -> Result<(Weights, bool)> {
    let mut weights = with_random_weights(graph, &mut u.arbitrary()?).weights().clone();
    let names: Vec<String> = weights.iter().map(|(name, _)| name.to_owned()).collect();
    if names.is_empty() || !u.ratio(1, 6)? {
        return Ok((weights, true));
    }
    let name = u.choose(&names)?;
    let mut tensor = weights.get(name).unwrap().clone();
    match u.int_in_range(0..=3)? {
        0 => tensor.shape.push(1),
        1 => tensor.values = tensor.values[1..].into(),
        2 => tensor.values = tensor.values.iter().map(|x| if *x == tensor.values[0] { f32::NAN } else { *x }).collect(),
        _ => weights.insert("stranger.weight", tensor.clone()),
    }
    weights.insert(name, tensor);
    Ok((weights, false))
}

#[test]
fn any_graph_is_refused_or_runs_alike_everywhere() {
    let (mut refused, mut ran, mut lacking, mut on_gpu) = (std::collections::BTreeSet::new(), 0, 0, 0);
    let one_line = |error: &dyn std::fmt::Display| assert_eq!(error.to_string().lines().count(), 1, "{error}");
    for _ in 0..TRIES {
        arbtest(|u| {
            let graph = match any_graph(u)?.check() {
                Ok(graph) => graph,
                Err(error) => {
                    one_line(&error);
                    refused.insert(format!("{error:?}").split([' ', '{']).next().unwrap_or_default().to_owned());
                    return Ok(());
                }
            };
            let (weights, right) = any_weights(u, &graph)?;
            let network = match graph.with(weights) {
                Ok(network) => network,
                Err(error) => {
                    assert!(!right, "{error}");
                    one_line(&error);
                    return Ok(());
                }
            };
            assert!(right, "wrong weights were taken");
            let causal = |node: &Node| matches!(node.op, Op::Attention { mask: Mask::Causal, .. });
            if network.nodes.iter().any(causal) {
                one_line(&CpuEngine::new(&network, 1).err().unwrap());
                lacking += 1;
                return Ok(());
            }
            let with_gpu = u.ratio(1, 10)?;
            let images = random_images(u.int_in_range(1..=2)?, network.input(), 1.0, &mut u.arbitrary()?);
            assert_some_agree(&network, &images, 2e-4, with_gpu);
            ran += 1;
            on_gpu += usize::from(with_gpu);
            Ok(())
        })
        .budget_ms(15_000);
        if refused.len() >= 6 && ran > 100 && lacking > 0 && on_gpu > 3 {
            break;
        }
    }
    println!("refused {refused:?}, ran {ran}, {on_gpu} of them on the GPU, {lacking} that the engines lack");
    assert!(refused.len() >= 6 && ran > 100 && lacking > 0 && on_gpu > 3, "too little was tried");
}

/// 16-bit tiles: each factor of a product is off by 2^-11 of itself at most.
#[cfg(feature = "gpu")]
#[test]
fn half_precision_is_within_its_rounding() {
    let gpu = common::open_gpu(ShaderFeatures { half: true, subgroups: true });
    assert!(gpu.features().half, "{} has no 16-bit floats", gpu.name());
    let mut largest = 0.0f32;
    for _ in 0..TRIES {
        arbtest(|u| {
            let graph = random_operation(u)?;
            let mut seed = u.arbitrary()?;
            let network = with_random_weights(&graph, &mut seed);
            let images = random_images(2, graph.input(), 1.0, &mut seed);
            let mut reference = ReferenceEngine::new(network.clone());
            let expected = reference.run(images.view()).unwrap().to_vec();
            let mut engine = GpuEngine::on(gpu.clone(), &network).unwrap();
            for (a, b) in expected.iter().zip(engine.run(images.view()).unwrap()) {
                let scale = a.iter().fold(1.0f32, |scale, x| scale.max(x.abs()));
                for (a, b) in a.iter().zip(b) {
                    largest = largest.max((a - b).abs() / scale);
                    assert!((a - b).abs() <= 2e-3 * scale, "expected {a}, found {b}\n{:?}", graph.nodes);
                }
            }
            Ok(())
        })
        .budget_ms(5_000);
        // A product was among the operations.
        if largest > 1e-6 {
            break;
        }
    }
    println!("largest relative difference: {largest}");
    assert!(largest > 1e-6, "16-bit floats were not used");

    // Exponents of 80, and values that 16 bits cannot hold.
    let shape = Shape { channels: 3 * 8, height: 5, width: 7 };
    for (kernel, scale) in
        [(KernelKind::HadamardExp, 80.0), (KernelKind::HadamardExp, 1e6), (KernelKind::SumDistance, 1e6)]
    {
        let network = attention_alone(Mixing::Linear(kernel), 2, shape);
        let mut engine = GpuEngine::on(gpu.clone(), &network).unwrap();
        let images = random_images(1, shape, scale, &mut 11);
        assert!(engine.run(images.view()).unwrap()[0].iter().all(|x| x.is_finite()), "{kernel:?} at {scale}");
    }
}

#[test]
fn attention_survives_inputs_that_overflow_exp() {
    let shape = Shape { channels: 3 * 8, height: 5, width: 7 };
    for scale in [80.0, 1e4] {
        let network = attention_alone(Mixing::Linear(KernelKind::HadamardExp), 2, shape);
        let mut images = random_images(1, shape, 1.0, &mut 7);
        // Multiples of 2^(1/2) * scale / 64: the query scale 4^(-1/4) then leaves exponents nearly exact in f32.
        let step = scale / 64.0;
        images.mapv_inplace(|x| (x * 64.0).round() * step);
        assert_engines_agree(&network, &images, 2e-4);
    }
}

#[test]
fn keys_that_cancel_the_query_give_the_mean_of_the_values() {
    for (kernel, sign) in
        [(KernelKind::SumDistance, -1.0), (KernelKind::DiffDistance, 1.0), (KernelKind::ModulatedDot, -1.0)]
    {
        let shape = Shape { channels: 3, height: 1, width: 5 };
        let network = attention_alone(Mixing::Linear(kernel), 1, shape);
        let mut images = Array4::from_elem((1, 3, 1, 5), 0.75 * sign);
        for token in 0..5 {
            images[(0, 0, 0, token)] = 0.75;
            images[(0, 2, 0, token)] = token as f32;
        }
        for mut engine in engines(&network, true) {
            let found = engine.run(images.view()).unwrap()[0].clone();
            assert!(found.iter().all(|&mean| (mean - 2.0).abs() < 1e-6), "{}: {found}", engine.description());
        }
    }
}

/// What a position sees behind a causal mask is the image that ends with it.
#[test]
fn causal_attention_sees_what_came_before() {
    let kernels =
        [KernelKind::HadamardExp, KernelKind::SumDistance, KernelKind::DiffDistance, KernelKind::ModulatedDot];
    for mixing in kernels.map(Mixing::Linear).into_iter().chain([Mixing::Softmax]) {
        let shape = Shape { channels: 3 * 6, height: 1, width: 7 };
        let images = random_images(1, shape, 1.0, &mut 5);
        let network = masked_attention(mixing, 2, Mask::Causal, shape);
        let causal = ReferenceEngine::new(network.clone()).run(images.view()).unwrap()[0].clone();
        for width in 1..=shape.width {
            let network = attention_alone(mixing, 2, Shape { width, ..shape });
            let mut engine = ReferenceEngine::new(network);
            let seen = engine.run(images.slice(ndarray::s![.., .., .., ..width])).unwrap();
            for channel in 0..6 {
                let at = (0, channel, 0, width - 1);
                assert!((seen[0][at] - causal[at]).abs() < 1e-6, "{mixing:?}, {width} positions");
            }
        }
        let error = CpuEngine::new(&network, 1).err().unwrap().to_string();
        assert!(error.contains("the cpu engine does not compute node \"attention\" (causal "), "{error}");
    }
}

/// A small network of the same shape as the real ones.
fn small_config(change: impl Fn(&mut ModelConfig)) -> ModelConfig {
    let mut config = ModelConfig::parse(include_str!("golden/bootstrap/yolo-lat-n.toml"), "n").unwrap();
    config.backbone.stem = 8;
    config.backbone.widths = [12, 20, 28];
    config.backbone.repeats = [1, 2, 2];
    config.neck.width = 12;
    config.neck.heads = 2;
    config.neck.hidden = 10;
    change(&mut config);
    config
}

#[test]
fn whole_networks_agree_with_the_reference() {
    use yolo_lat::model::config::{ActivationConfig, Fusion, Split};
    let changes: [fn(&mut ModelConfig); 15] = [
        |_| {},
        |config| config.neck.attention = AttentionKind::Softmax,
        |config| config.neck.attention = AttentionKind::None,
        |config| config.neck.kernel = KernelKind::SumDistance,
        |config| config.neck.kernel = KernelKind::ModulatedDot,
        |config| config.neck.hyper_link = false,
        |config| config.neck.memory = MemoryKind::Flow,
        |config| {
            config.neck.hyper_link = false;
            config.neck.memory = MemoryKind::Input;
            config.neck.memory_width = Some(6);
        },
        |config| config.neck.memory = MemoryKind::Output,
        |config| {
            config.neck.position_kernel = 7;
            config.neck.output_gate = true;
        },
        |config| config.neck.key_scale = true,
        |config| config.neck.experts = Some(ExpertsConfig { count: 4, active: 2, bias: ExpertBias::Inner }),
        |config| {
            config.neck.experts = Some(ExpertsConfig { count: 3, active: 1, bias: ExpertBias::Free });
            config.neck.memory = MemoryKind::Flow;
        },
        |config| {
            config.backbone.split = Split::Halves;
            config.activation = ActivationConfig::LeakyRelu(0.1);
        },
        // As in the built-in models.
        |config| {
            config.backbone.split = Split::Halves;
            config.backbone.hidden = Some([6, 9, 5]);
            config.backbone.first_hidden = Some([6, 7, 4]);
            config.activation = ActivationConfig::LeakyRelu(0.1);
            config.neck.fusion = Fusion::Ghost;
            config.neck.attention_width = Some(8);
            config.head.shared = 2;
        },
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let config = small_config(change);
        for (width, height) in [(64, 96), (32, 32)] {
            let graph = graph_of(&config, width, height).unwrap();
            let mut seed = index as u32;
            let network = with_random_weights(&graph, &mut seed);
            let images = random_images(2, graph.input(), 1.0, &mut seed);
            assert_engines_agree(&network, &images, 1e-5);
        }
    }
}

/// Ghosts before a product and beside one, of windows that the shaders make on the way and of such that they do not, and what is
/// upsampled before products and windows, on maps whose rows are no whole quads.
#[test]
fn ghosts_and_upsampled_maps_agree_with_the_reference() {
    let activation = Activation::LeakyRelu(0.1);
    let pointwise = |channels| Op::Conv { channels, kernel: 1, stride: 1, activation };
    let window = |kernel, stride| Op::Depthwise { kernel, stride, bias: true, activation };
    for (round, (kernel, (width, height))) in
        [3, 5].into_iter().flat_map(|kernel| [(7, 5), (8, 3), (1, 1)].map(|size| (kernel, size))).enumerate()
    {
        let mut graph = Graph::new("ghosts", Shape { channels: 5, height, width });
        let up = graph.add("up", Op::Upsample, &[0]);
        let own = graph.add("own", pointwise(3), &[up]);
        let joined = graph.add("joined", Op::Concat, &[up, own]);
        let first = graph.add("first", pointwise(6), &[joined]);
        let cheap = graph.add("cheap", window(kernel, 1), &[first]);
        let ghost = graph.add("ghost", Op::Concat, &[first, cheap]);
        let second = graph.add("second", pointwise(4), &[ghost]);
        let cheap2 = graph.add("cheap2", window(kernel, 1), &[second]);
        let ghost2 = graph.add("ghost2", Op::Concat, &[second, cheap2]);
        let shortcut = graph.add("shortcut", window(5, 1), &[joined]);
        let sum = graph.add("sum", pointwise(8), &[shortcut, ghost2]);
        // Where the shortcut has no window, and where a window with stride reads what is upsampled.
        let third = graph.add("third", pointwise(4), &[joined]);
        let cheap3 = graph.add("cheap3", window(kernel, 1), &[third]);
        let ghost3 = graph.add("ghost3", Op::Concat, &[third, cheap3]);
        let plain = graph.add("plain", pointwise(8), &[joined, ghost3]);
        let again = graph.add("again", Op::Upsample, &[sum]);
        let strided = graph.add("strided", window(kernel, 2), &[again]);
        graph.taps = vec![plain, strided];
        let graph = graph.check().unwrap();
        let mut seed = round as u32;
        let network = with_random_weights(&graph, &mut seed);
        let images = random_images(2, graph.input(), 1.0, &mut seed);
        assert_engines_agree(&network, &images, 1e-5);
    }
}

/// Its last map: that of its result, or else its values.
#[test]
fn a_memory_whose_last_map_is_zero_changes_no_bit() {
    for memory_width in [None, Some(8)] {
        let config = small_config(|_| {});
        let graph = graph_of(&config, 64, 96).unwrap();
        let plain = with_random_weights(&graph, &mut 8);
        let config = small_config(|config| {
            config.neck.memory = MemoryKind::Flow;
            config.neck.memory_width = memory_width;
        });
        let graph = graph_of(&config, 64, 96).unwrap();
        let mut weights = Weights::default();
        for (name, tensor) in with_random_weights(&graph, &mut 9).weights().iter() {
            let mut values = tensor.values.to_vec();
            let kept = values.len() / 3 * 2;
            match plain.weights().get(name) {
                Some(same) => values = same.values.to_vec(),
                None if name.contains(".memory.proj") => values.fill(0.0),
                None if memory_width.is_none() => values[kept..].fill(0.0),
                None => {}
            }
            weights.insert(name.to_owned(), Tensor { shape: tensor.shape.clone(), values: values.into() });
        }
        let with_memory = graph.with(weights).unwrap();
        let images = random_images(2, plain.input(), 1.0, &mut 10);
        for (mut plain, mut with_memory) in engines(&plain, true).into_iter().zip(engines(&with_memory, true)) {
            let expected = plain.run(images.view()).unwrap().to_vec();
            assert!(expected == with_memory.run(images.view()).unwrap(), "{memory_width:?} {}", plain.description());
        }
    }
}

#[test]
fn a_batch_equals_its_images_one_by_one_bit_for_bit() {
    let model = Model::load("n").unwrap();
    let network = model.network(96, 64).unwrap();
    let images = random_images(3, network.input(), 1.0, &mut 3);
    let mut together = CpuEngine::new(&network, 2).unwrap();
    let mut alone = CpuEngine::new(&network, 1).unwrap();
    let batch = together.run(images.view()).unwrap();
    for (index, image) in images.outer_iter().enumerate() {
        let single = alone.run(image.insert_axis(ndarray::Axis(0))).unwrap();
        for (batch, single) in batch.iter().zip(single) {
            assert!(batch.index_axis(ndarray::Axis(0), index) == single.index_axis(ndarray::Axis(0), 0));
        }
    }
}

#[test]
fn a_wrong_input_shape_is_refused() {
    let model = Model::load("n").unwrap();
    let mut engine = CpuEngine::new(&model.network(64, 64).unwrap(), 1).unwrap();
    for dim in [(1, 3, 64, 32), (1, 1, 64, 64), (0, 3, 64, 64)] {
        let error = engine.run(Array4::zeros(dim).view()).unwrap_err().to_string();
        assert!(error.contains("3x64x64"), "{error}");
    }
}

#[test]
fn the_golden_logits_are_reproduced_by_every_engine() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("golden/yolo-lat-n.json")).unwrap();
    let model = Model::load("tests/golden/bootstrap/yolo-lat-n.toml").unwrap();
    let network = model.network(64, 64).unwrap();
    let formula = |(_, c, y, x): (usize, usize, usize, usize)| {
        let i = (c * 64 + y) * 64 + x;
        (0.5 + 0.5 * (0.37 * i as f64).sin()) as f32
    };
    let image = Array4::from_shape_fn((1, 3, 64, 64), formula);
    let mut all = engines(&network, true);
    all.push(Box::new(ReferenceEngine::new(network)));
    for mut engine in all {
        let outputs = engine.run(image.view()).unwrap().to_vec();
        // Row r of the golden file is anchor r: finest scale first, rows of cells first.
        let anchor = |kind: usize, row: usize| -> Vec<f32> {
            let mut row = row;
            for scale in outputs.chunks_exact(2) {
                let (_, channels, height, width) = scale[kind].dim();
                if row < height * width {
                    return (0..channels).map(|c| scale[kind][(0, c, row / width, row % width)]).collect();
                }
                row -= height * width;
            }
            panic!("no such anchor");
        };
        let rows = golden["rows"].as_array().unwrap();
        for (index, row) in rows.iter().enumerate() {
            for (kind, key) in ["class_logits", "box_logits"].into_iter().enumerate() {
                let expected = golden[key][index].as_array().unwrap();
                let found = anchor(kind, row.as_u64().unwrap() as usize);
                assert_eq!(expected.len(), found.len());
                for (expected, found) in expected.iter().zip(found) {
                    let expected = expected.as_f64().unwrap() as f32;
                    assert!(
                        (expected - found).abs() < 1e-3,
                        "{}: {key} of {row}: {expected}, {found}",
                        engine.description()
                    );
                }
            }
        }
    }
}
