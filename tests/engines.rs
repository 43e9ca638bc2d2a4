//! Every operation over random shapes on every engine against the reference, and whole networks likewise.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use std::sync::{Arc, LazyLock};

use arbtest::arbitrary::{Result, Unstructured};
use arbtest::arbtest;
use ndarray::Array4;
use yolo_lat::engine::Engine;
use yolo_lat::engine::cpu::{CpuEngine, InstructionSet};
use yolo_lat::engine::gpu::{Gpu, GpuEngine, Variant};
use yolo_lat::engine::reference::ReferenceEngine;
use yolo_lat::model::config::{AttentionKind, HeadConfig, KernelKind};
use yolo_lat::model::graph::{Activation, Node, NodeId, Op, Scale, Shape};
use yolo_lat::model::{Graph, Model, ModelConfig, Tensor, Weights, graph_of};

/// Searches that are made until all that a test wants to see was drawn.
const TRIES: usize = 10;

/// Every engine that must agree with the reference: the CPU's for each instruction set and thread count it has, and the
/// GPU's where there is an adapter, if only a software one.
fn engines(graph: &Graph, weights: &Weights) -> Vec<Box<dyn Engine>> {
    let sets = InstructionSet::available().into_iter();
    let mut engines: Vec<Box<dyn Engine>> = sets
        .flat_map(|set| [1, 3].map(|threads| (set, threads)))
        .map(|(set, threads)| -> Box<dyn Engine> {
            Box::new(CpuEngine::with_instruction_set(graph, weights, threads, set).unwrap())
        })
        .collect();
    for gpu in gpus() {
        engines.push(Box::new(GpuEngine::on(gpu.clone(), graph, weights).unwrap()));
    }
    engines
}

/// Devices in 32 bits, without and with subgroups where the adapter has them.
fn gpus() -> &'static [Arc<Gpu>] {
    static GPUS: LazyLock<Vec<Arc<Gpu>>> = LazyLock::new(|| {
        let plain = Variant { half: false, subgroups: false };
        let devices = [plain, Variant { subgroups: true, ..plain }].into_iter().filter_map(common::open_gpu);
        let mut devices: Vec<_> = devices.collect();
        devices.dedup_by_key(|gpu| gpu.variant());
        devices
    });
    &GPUS
}

/// A value in -1..1, from a small generator: inputs are plentiful and need no shrinking.
fn noise(seed: &mut u32) -> f32 {
    *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    (*seed >> 8) as f32 / 8_388_608.0 - 1.0
}

fn random_weights(graph: &Graph, seed: &mut u32) -> Weights {
    let mut weights = Weights::default();
    for spec in graph.weights() {
        let count: usize = spec.shape.iter().product();
        let fan_in: usize = spec.shape.iter().skip(1).product();
        let values = (0..count).map(|_| noise(seed) / (fan_in as f32).sqrt()).collect();
        weights.insert(spec.name, Tensor { shape: spec.shape, values });
    }
    weights
}

fn random_pictures(batch: usize, shape: Shape, scale: f32, seed: &mut u32) -> Array4<f32> {
    Array4::from_shape_simple_fn((batch, shape.channels, shape.height, shape.width), || noise(seed) * scale)
}

/// Compares all engines with the reference; differences are relative to the largest value of an output.
fn assert_engines_agree(graph: &Graph, weights: &Weights, pictures: &Array4<f32>, tolerance: f32) {
    let mut reference = ReferenceEngine::new(graph.clone(), weights.clone());
    let expected = reference.run(pictures.view()).unwrap().to_vec();
    for mut engine in engines(graph, weights) {
        let found = engine.run(pictures.view()).unwrap().to_vec();
        let again = engine.run(pictures.view()).unwrap().to_vec();
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
                    graph.nodes
                );
            }
        }
    }
}

/// A graph whose last node is its output.
fn graph_of_nodes(nodes: Vec<Node>) -> Graph {
    let last = nodes.len() - 1;
    let scales = vec![Scale { stride: 8, class: last, boxes: last }];
    Graph {
        name: "test".into(),
        nodes,
        scales,
        head: HeadConfig { bins: 2, max_distance: 1.0, shared: 0 },
        taps: Vec::new(),
    }
}

fn node(name: &str, op: Op, inputs: &[NodeId], shape: Shape) -> Node {
    Node { name: name.into(), op, inputs: inputs.to_vec(), shape }
}

fn random_shape(u: &mut Unstructured, channels: usize) -> Result<Shape> {
    let side = |u: &mut Unstructured| -> Result<usize> { Ok(if u.ratio(1, 5)? { 1 } else { u.int_in_range(1..=37)? }) };
    Ok(Shape { channels, height: side(u)?, width: side(u)? })
}

fn random_activation(u: &mut Unstructured) -> Result<Activation> {
    Ok(*u.choose(&[Activation::Identity, Activation::LeakyRelu(0.0), Activation::LeakyRelu(0.1)])?)
}

/// One operation on the picture, the second input (where it has one) a pointwise copy of the right shape.
fn random_operation(u: &mut Unstructured) -> Result<Graph> {
    let channels = if u.ratio(1, 5)? { 1 } else { u.int_in_range(1..=40)? };
    let input = random_shape(u, channels)?;
    let (kernel, stride) = (*u.choose(&[1, 3, 5, 7])?, u.int_in_range(1..=2)?);
    let activation = random_activation(u)?;
    let strided =
        |channels| Shape { channels, height: input.height.div_ceil(stride), width: input.width.div_ceil(stride) };
    let mut nodes = vec![node("input", Op::Input, &[], input)];
    match u.int_in_range(0..=10)? {
        0 => {
            let out = u.int_in_range(1..=40)?;
            let residual: &[NodeId] = if stride == 1 && out == channels && u.arbitrary()? { &[0, 0] } else { &[0] };
            nodes.push(node("conv", Op::Conv { kernel, stride, activation }, residual, strided(out)));
        }
        1 => {
            let residual: &[NodeId] = if stride == 1 && u.arbitrary()? { &[0, 0] } else { &[0] };
            let op = Op::Depthwise { kernel, stride, bias: u.arbitrary()?, activation };
            nodes.push(node("depthwise", op, residual, strided(channels)));
        }
        2 => {
            let shape = Shape { channels, height: input.height.div_ceil(2), width: input.width.div_ceil(2) };
            nodes.push(node("pool", Op::MaxPool, &[0], shape));
        }
        3..=5 => {
            let heads = u.int_in_range(1..=4)?;
            let width = heads * u.int_in_range(1..=20)?;
            nodes[0].shape.channels = 3 * width;
            let kind = *u.choose(&[AttentionKind::Ela, AttentionKind::Ela, AttentionKind::Softmax])?;
            let kernel = *u.choose(&[
                KernelKind::HadamardExp,
                KernelKind::SumDistance,
                KernelKind::DiffDistance,
                KernelKind::ModulatedDot,
            ])?;
            let shape = Shape { channels: width, ..input };
            nodes.push(node("attention", Op::Attention { kind, kernel, heads }, &[0], shape));
        }
        6 => {
            nodes[0].shape.channels = 2 * channels;
            nodes.push(node("u", Op::Slice { start: 0, step: 2 }, &[0], input));
            nodes.push(node("g", Op::Slice { start: 1, step: 2 }, &[0], input));
            nodes.push(node("gate", Op::Gate, &[1, 2], input));
        }
        7 => {
            let doubled = Shape { channels, height: 2 * input.height, width: 2 * input.width };
            nodes.push(node("upsample", Op::Upsample, &[0], doubled));
            if u.arbitrary()? {
                let fine = Op::Depthwise { kernel: 3, stride: 1, bias: true, activation };
                nodes.push(node("fine", fine, &[1], doubled));
                nodes.push(node("coarse", Op::Upsample, &[0], doubled));
                nodes.push(node("add", Op::Add, &[2, 3], doubled));
            }
        }
        8 => nodes.push(node("add", Op::Add, &[0, 0], input)),
        9 => {
            // The branch of a shuffle unit, with other widths than the network's.
            let wide = Shape { channels: u.int_in_range(1..=110)?, ..input };
            nodes.push(node("first", Op::Conv { kernel: 1, stride: 1, activation }, &[0], wide));
            let bias = u.arbitrary()?;
            nodes.push(node("window", Op::Depthwise { kernel: 3, stride: 1, bias, activation }, &[1], wide));
            let out = Shape { channels: u.int_in_range(1..=40)?, ..input };
            nodes.push(node("last", Op::Conv { kernel: 1, stride: 1, activation }, &[2], out));
        }
        _ => {
            // Views of views, read by a convolution.
            let both = Shape { channels: 2 * channels, ..input };
            nodes.push(node("concat", Op::Concat, &[0, 0], both));
            nodes.push(node("shuffle", Op::Shuffle { groups: 2 }, &[1], both));
            let count = channels.div_ceil(2);
            nodes.push(node("slice", Op::Slice { start: 1, step: 2 }, &[2], Shape { channels: count, ..input }));
            nodes.push(node("mix", Op::Conv { kernel: 1, stride: 1, activation }, &[3], input));
        }
    }
    Ok(graph_of_nodes(nodes))
}

#[test]
fn every_operation_agrees_with_the_reference() {
    const OPERATIONS: [&str; 11] =
        ["conv", "depthwise", "max", "exact", "softmax", "gate", "add", "upsample", "slice", "concat", "shuffle"];
    let mut seen = std::collections::BTreeSet::new();
    // A busy machine tries little in its time.
    for _ in 0..TRIES {
        arbtest(|u| {
            let graph = random_operation(u)?;
            seen.extend(
                graph.nodes.iter().map(|node| node.op.label().split(' ').next().unwrap_or_default().to_owned()),
            );
            let mut seed = u.arbitrary()?;
            let weights = random_weights(&graph, &mut seed);
            // Softmax multiplies queries by keys: its exponents grow with the square of the scale.
            let softmax = |node: &Node| matches!(node.op, Op::Attention { kind: AttentionKind::Softmax, .. });
            let large = if graph.nodes.iter().any(softmax) { 3.0 } else { 30.0 };
            let scale = *u.choose(&[1.0, 1.0, large])?;
            let pictures = random_pictures(u.int_in_range(1..=3)?, graph.input(), scale, &mut seed);
            // Exponents of size 30 differ by 30 * 2^-24 in f32, and so do the weights, relatively.
            assert_engines_agree(&graph, &weights, &pictures, 2e-5);
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

/// 16-bit tiles: each factor of a product is off by 2^-11 of itself at most.
#[test]
fn half_precision_is_within_its_rounding() {
    let Some(gpu) = common::open_gpu(Variant { half: true, subgroups: true }).filter(|gpu| gpu.variant().half) else {
        eprintln!("skipped: no adapter with 16-bit floats");
        return;
    };
    let mut largest = 0.0f32;
    for _ in 0..TRIES {
        arbtest(|u| {
            let graph = random_operation(u)?;
            let mut seed = u.arbitrary()?;
            let weights = random_weights(&graph, &mut seed);
            let pictures = random_pictures(2, graph.input(), 1.0, &mut seed);
            let mut reference = ReferenceEngine::new(graph.clone(), weights.clone());
            let expected = reference.run(pictures.view()).unwrap().to_vec();
            let mut engine = GpuEngine::on(gpu.clone(), &graph, &weights).unwrap();
            for (a, b) in expected.iter().zip(engine.run(pictures.view()).unwrap()) {
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
        let op = Op::Attention { kind: AttentionKind::Ela, kernel, heads: 2 };
        let attended = node("attention", op, &[0], Shape { channels: 8, ..shape });
        let mut engine = GpuEngine::on(
            gpu.clone(),
            &graph_of_nodes(vec![node("input", Op::Input, &[], shape), attended]),
            &Weights::default(),
        )
        .unwrap();
        let pictures = random_pictures(1, shape, scale, &mut 11);
        assert!(engine.run(pictures.view()).unwrap()[0].iter().all(|x| x.is_finite()), "{kernel:?} at {scale}");
    }
}

#[test]
fn attention_survives_inputs_that_overflow_exp() {
    let shape = Shape { channels: 3 * 8, height: 5, width: 7 };
    for scale in [80.0, 1e4] {
        let op = Op::Attention { kind: AttentionKind::Ela, kernel: KernelKind::HadamardExp, heads: 2 };
        let attended = node("attention", op, &[0], Shape { channels: 8, ..shape });
        let graph = graph_of_nodes(vec![node("input", Op::Input, &[], shape), attended]);
        let mut pictures = random_pictures(1, shape, 1.0, &mut 7);
        // Multiples of 2^(1/2) * scale / 64: the query scale 4^(-1/4) then leaves exponents nearly exact in f32.
        let step = scale / 64.0;
        pictures.mapv_inplace(|x| (x * 64.0).round() * step);
        assert_engines_agree(&graph, &Weights::default(), &pictures, 2e-4);
    }
}

#[test]
fn keys_that_cancel_the_query_give_the_mean_of_the_values() {
    for (kernel, sign) in
        [(KernelKind::SumDistance, -1.0), (KernelKind::DiffDistance, 1.0), (KernelKind::ModulatedDot, -1.0)]
    {
        let shape = Shape { channels: 3, height: 1, width: 5 };
        let op = Op::Attention { kind: AttentionKind::Ela, kernel, heads: 1 };
        let attended = node("attention", op, &[0], Shape { channels: 1, ..shape });
        let graph = graph_of_nodes(vec![node("input", Op::Input, &[], shape), attended]);
        let mut pictures = Array4::from_elem((1, 3, 1, 5), 0.75 * sign);
        for token in 0..5 {
            pictures[(0, 0, 0, token)] = 0.75;
            pictures[(0, 2, 0, token)] = token as f32;
        }
        for mut engine in engines(&graph, &Weights::default()) {
            let found = engine.run(pictures.view()).unwrap()[0].clone();
            assert!(found.iter().all(|&mean| (mean - 2.0).abs() < 1e-6), "{}: {found}", engine.description());
        }
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
    let changes: [fn(&mut ModelConfig); 8] = [
        |_| {},
        |config| config.neck.attention = AttentionKind::Softmax,
        |config| config.neck.attention = AttentionKind::None,
        |config| config.neck.kernel = KernelKind::SumDistance,
        |config| config.neck.kernel = KernelKind::ModulatedDot,
        |config| config.neck.hyper_link = false,
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
            let weights = random_weights(&graph, &mut seed);
            let pictures = random_pictures(2, graph.input(), 1.0, &mut seed);
            assert_engines_agree(&graph, &weights, &pictures, 1e-5);
        }
    }
}

#[test]
fn a_batch_equals_its_pictures_one_by_one_bit_for_bit() {
    let model = Model::load("n").unwrap();
    let graph = model.graph(96, 64).unwrap();
    let pictures = random_pictures(3, graph.input(), 1.0, &mut 3);
    let mut together = CpuEngine::new(&graph, &model.weights, 2).unwrap();
    let mut alone = CpuEngine::new(&graph, &model.weights, 1).unwrap();
    let batch = together.run(pictures.view()).unwrap();
    for (index, picture) in pictures.outer_iter().enumerate() {
        let single = alone.run(picture.insert_axis(ndarray::Axis(0))).unwrap();
        for (batch, single) in batch.iter().zip(single) {
            assert!(batch.index_axis(ndarray::Axis(0), index) == single.index_axis(ndarray::Axis(0), 0));
        }
    }
}

#[test]
fn a_wrong_input_shape_is_refused() {
    let model = Model::load("n").unwrap();
    let graph = model.graph(64, 64).unwrap();
    let mut engine = CpuEngine::new(&graph, &model.weights, 1).unwrap();
    for dim in [(1, 3, 64, 32), (1, 1, 64, 64), (0, 3, 64, 64)] {
        let error = engine.run(Array4::zeros(dim).view()).unwrap_err().to_string();
        assert!(error.contains("3x64x64"), "{error}");
    }
}

#[test]
fn the_golden_logits_are_reproduced_by_every_engine() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("golden/yolo-lat-n.json")).unwrap();
    let model = Model::load("tests/golden/bootstrap/yolo-lat-n.toml").unwrap();
    let graph = model.graph(64, 64).unwrap();
    let formula = |(_, c, y, x): (usize, usize, usize, usize)| {
        let i = (c * 64 + y) * 64 + x;
        (0.5 + 0.5 * (0.37 * i as f64).sin()) as f32
    };
    let picture = Array4::from_shape_fn((1, 3, 64, 64), formula);
    let mut all = engines(&graph, &model.weights);
    all.push(Box::new(ReferenceEngine::new(graph.clone(), model.weights.clone())));
    for mut engine in all {
        let outputs = engine.run(picture.view()).unwrap().to_vec();
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
