use safetensors::tensor::{Dtype, TensorView, serialize};

use super::graph::{Activation, Op, Shape};
use super::*;

fn weights_bytes() -> Vec<u8> {
    std::fs::read("../../tests/golden/bootstrap/yolo-lat-n.safetensors").unwrap()
}

/// A model folder with the given files; gives the error of loading it.
fn error_of(config: &str, weights: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.toml");
    std::fs::write(&path, config).unwrap();
    std::fs::write(path.with_extension("safetensors"), weights).unwrap();
    let error = Model::load(path.to_str().unwrap()).unwrap_err().to_string();
    assert!(error.contains("x."), "the message names the file: {error}");
    error
}

const N: &str = include_str!("../../../../models/yolo-lat-n.toml");
/// The network of the first n, to which the bootstrap weights belong.
const PLAIN: &str = include_str!("../../../../tests/golden/bootstrap/yolo-lat-n.toml");
const S: &str = include_str!("../../../../models/yolo-lat-s.toml");
/// The same with the classes of the bootstrap weights.
const S_VOC: &str = include_str!("../../../../models/yolo-lat-s-voc.toml");

#[test]
fn sizes_are_those_of_the_plan() {
    let parameters = |text| {
        let config = ModelConfig::parse(text, "test").unwrap();
        graph_of(&config, 320, 320).unwrap().parameters()
    };
    assert_eq!([PLAIN, N, S].map(parameters), [313_716, 317_306, 1_091_890]);
    // By hand from the table of layers, in millions: backbone 60.85, neck 44.52, heads 30.91; then 123.56, 49.36, 19.96.
    for (text, multiply_adds) in [(PLAIN, 136_288_000), (N, 192_874_400)] {
        let graph = graph_of(&ModelConfig::parse(text, "test").unwrap(), 320, 320).unwrap();
        assert_eq!(graph.multiply_adds(), multiply_adds);
        let shapes: Vec<String> = graph.outputs().map(|output| graph.nodes[output].shape.to_string()).collect();
        assert_eq!(shapes, ["20x40x40", "32x40x40", "20x20x20", "32x20x20", "20x10x10", "32x10x10"]);
    }
}

#[test]
fn published_backbone_weights_have_the_names_and_shapes_of_s() {
    // Names as listed in the published file: one of each kind.
    let graph = graph_of(&ModelConfig::parse(S, "test").unwrap(), 320, 320).unwrap();
    let shape = |name: &str| graph.weights().into_iter().find(|spec| spec.name == name).unwrap().shape;
    assert_eq!(shape("stage2.0.left.pointwise.weight"), [58, 24, 1, 1]);
    assert_eq!(shape("stage2.0.right.pointwise1.weight"), [58, 24, 1, 1]);
    assert_eq!(shape("stage2.1.right.pointwise1.weight"), [58, 58, 1, 1]);
}

#[test]
fn first_units_may_be_narrower_inside() {
    let text = S.replace("repeats", "first_hidden = [58, 48, 32]\nrepeats");
    let graph = graph_of(&ModelConfig::parse(&text, "test").unwrap(), 64, 64).unwrap();
    let shape = |name: &str| graph.weights().into_iter().find(|spec| spec.name == name).unwrap().shape;
    assert_eq!(shape("stage3.0.right.pointwise1.weight"), [48, 116, 1, 1]);
    assert_eq!(shape("stage3.0.right.depthwise.weight"), [48, 1, 3, 3]);
    assert_eq!(shape("stage3.0.right.pointwise2.weight"), [116, 48, 1, 1]);
    assert_eq!(shape("stage3.1.right.pointwise1.weight"), [116, 116, 1, 1]);
}

#[test]
fn views_resolve_to_the_planes_they_name() {
    let graph = graph_of(&ModelConfig::parse(S, "test").unwrap(), 64, 64).unwrap();
    let id = |name: &str| graph.nodes.iter().position(|node| node.name == name).unwrap();
    let planes = graph.planes(id("stage2.0.shuffle"));
    let (left, right) = (id("stage2.0.left.pointwise"), id("stage2.0.right.pointwise2"));
    let expected = [(left, 0), (right, 0), (left, 1), (right, 1)].map(|(node, channel)| graph::Plane { node, channel });
    assert_eq!(planes[..4], expected);
}

#[test]
fn wrong_weights_are_named() {
    let bytes = weights_bytes();
    assert!(
        error_of(S_VOC, &bytes)
            .contains("tensor stage2.0.left.pointwise.weight has shape [24, 24, 1, 1], expected [58")
    );
    assert!(error_of(PLAIN, &bytes[..bytes.len() / 2]).contains("truncated"));
    assert!(error_of(PLAIN, b"").contains("not a readable safetensors file"));
    // A header that claims more than there is must not be believed.
    let mut huge = bytes.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(error_of(PLAIN, &huge).contains("not a readable safetensors file"));
    let mut not_a_number = bytes.clone();
    let end = not_a_number.len();
    not_a_number[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(error_of(PLAIN, &not_a_number).contains("holds NaN at index"), "{}", error_of(PLAIN, &not_a_number));
}

#[test]
fn tensors_too_many_too_few_or_of_another_type_are_named() {
    type Change = dyn Fn(&mut Vec<(String, TensorView)>);
    let changed = |change: &Change| {
        let bytes = weights_bytes();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut tensors = file.tensors();
        change(&mut tensors);
        error_of(PLAIN, &serialize(tensors, None).unwrap())
    };
    let missing = changed(&|tensors| tensors.retain(|(name, _)| name != "stem.bias"));
    assert!(missing.contains("tensor stem.bias [24] is missing"), "{missing}");
    static DATA: [u8; 8] = [0; 8];
    let unknown = changed(&|tensors| {
        tensors.push(("neck.extra".into(), TensorView::new(Dtype::F32, vec![2], &DATA).unwrap()));
    });
    assert!(unknown.contains("tensor neck.extra [2] is not part of yolo-lat-n"), "{unknown}");
    let halves = changed(&|tensors| {
        for (name, view) in tensors {
            if name == "stem.bias" {
                *view = TensorView::new(Dtype::F16, vec![4], &DATA).unwrap();
            }
        }
    });
    assert!(halves.contains("tensor stem.bias holds F16, expected F32"), "{halves}");
}

#[test]
fn wrong_configurations_are_named() {
    let error = |from: &str, to: &str| ModelConfig::parse(&PLAIN.replace(from, to), "x.toml").unwrap_err().to_string();
    assert!(error("heads = 4", "heads = 5").contains("5 heads do not divide a width of 64"));
    let memory = error("heads = 4", "heads = 4\nmemory = \"flow\"\nmemory_width = 18");
    assert!(memory.contains("4 heads do not divide a memory of 18 channels"), "{memory}");
    let memory = error("heads = 4", "heads = 4\nmemory_width = 16");
    assert!(memory.contains("neck.memory_width: there is no memory; set memory = "), "{memory}");
    assert!(error("heads = 4", "heads = 0").contains("neck.heads"));
    let experts = |text: &str| error("heads = 4", &format!("heads = 4\nexperts = {{ {text} }}"));
    assert!(experts("count = 1, active = 1").contains("neck.experts.count: expected 2 to 64"));
    assert!(experts("count = 65, active = 1").contains("neck.experts.count: expected 2 to 64"));
    assert!(experts("count = 4, active = 5").contains("neck.experts.active: expected 1 to 4, found 5"));
    assert!(experts("count = 4, active = 2, bias = \"both\"").contains("both"));
    assert!(
        error("heads = 4", "heads = 4\nposition_kernel = 4").contains("neck.position_kernel: expected an odd side")
    );
    assert!(error("input = 320", "input = 321").contains("multiple of 32"));
    assert!(error("[48, 96, 192]", "[48, 97, 192]").contains("97 is odd"));
    assert!(error("stem = 24", "stern = 24").contains("stern"));
    assert!(error("\"bicycle\"", "\"bird\"").contains("stands twice"));
    assert!(
        error("input = 320", "input = 320\nconfidence = 1.5")
            .contains("confidence: expected a number from 0 to 1, found 1.5")
    );
    assert!(
        error("input = 320", "input = 320\nconfidence = nan").contains("confidence: expected a number from 0 to 1")
    );
    assert!(error("bins = 8", "bins = 1").contains("2 to 64 bins"));
    assert!(
        error("repeats", "first_hidden = [24, 0, 96]\nrepeats")
            .contains("backbone.first_hidden: expected 1 to 4096, found 0")
    );
}

#[test]
fn a_model_has_its_own_confidence_or_the_customary_one() {
    let own = |text: &str| ModelConfig::parse(text, "x.toml").unwrap().confidence;
    assert_eq!(own(PLAIN), None);
    assert_eq!(own(&PLAIN.replace("input = 320", "input = 320\nconfidence = 0.4")), Some(0.4));
    assert_eq!(default_confidence("no such model"), 0.25);
}

/// The built-in n with some tensors changed.
fn with_tensors(changes: &[(&str, Option<Tensor>)]) -> Result<Model, ModelError> {
    let model = Model::load("n").unwrap();
    let mut weights = Weights::default();
    let kept = model.weights.iter().filter(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
    kept.for_each(|(name, tensor)| weights.insert(name, tensor.clone()));
    for (name, tensor) in changes {
        tensor.iter().for_each(|tensor| weights.insert(*name, tensor.clone()));
    }
    Model::new(model.config, weights, "x.safetensors")
}

#[test]
fn wrong_steps_are_named() {
    let tensor = |shape: &[usize], value: f32| {
        let count = shape.iter().product();
        Some(Tensor { shape: shape.to_vec(), values: vec![value; count].into() })
    };
    let (step, zero) = ("lateral8.step", "lateral8.zero");
    for (name, tensor, says) in [
        (step, tensor(&[116], 0.0), "tensor lateral8.step holds 0 at index 0, expected a number from 1e-12 to 1e12"),
        (step, tensor(&[116], 1e-40), "expected a number from 1e-12 to 1e12"),
        ("lateral8.weight", tensor(&[48, 116, 1, 1], -1e20), "expected a number of no more than 1e12 in integers"),
        (step, tensor(&[48], 1.0), "tensor lateral8.step has shape [48], expected [116]"),
        (zero, tensor(&[116], 0.5), "tensor lateral8.zero holds 0.5 at index 0, expected a whole number from 0 to 127"),
        (zero, tensor(&[116], 128.0), "expected a whole number from 0 to 127"),
        (zero, None, "tensor lateral8.zero [116] is missing"),
        ("lateral8.shift", tensor(&[48], f32::NAN), "tensor lateral8.shift holds NaN"),
        // Of a convolution that is none of 1x1.
        ("stem.step", tensor(&[3], 1.0), "tensor stem.step [3] is not part of yolo-lat-n"),
    ] {
        let error = with_tensors(&[(name, tensor)]).unwrap_err().to_string();
        assert!(error.contains(says), "{name}: {error}");
    }
}

#[test]
fn integers_need_steps() {
    let model = Model::load("n").unwrap();
    assert_eq!(model.config.precision, Precision::Int8);
    assert!(!model.graph(64, 64).unwrap().has_integers());
    let integers = model.clone().in_precision(Precision::Int8).unwrap();
    let graph = integers.graph(64, 64).unwrap();
    let count = graph.nodes.iter().filter(|node| matches!(node.op, Op::IntegerConv { .. })).count();
    let steps = model.weights.iter().filter(|(name, _)| name.ends_with(".step")).count();
    assert!(count > 60 && count == steps, "{count} of {steps}");
    assert_eq!(graph.multiply_adds(), model.graph(64, 64).unwrap().multiply_adds());
    let floats = |model: &Model| model.clone().in_precision(Precision::F32).unwrap().graph(64, 64).unwrap();
    assert_eq!(floats(&integers), floats(&model));
    let floats = Model { weights: model.weights.without_steps(), ..model };
    let error = floats.in_precision(Precision::Int8).unwrap_err().to_string();
    assert_eq!(
        error,
        "yolo-lat-n has no steps for int8: take --precision f32, or let yolo-lat-train calibrate measure them (docs/CPU.md)"
    );
    // A file that recommends what it has not.
    let error = error_of(PLAIN.replace("input =", "precision = \"int8\"\ninput =").as_str(), &weights_bytes());
    assert!(error.contains("x.toml") && error.contains("x.safetensors has none: take the line out"), "{error}");
}

#[test]
fn rounding_is_off_by_half_a_step_at_most() {
    let mut graph = Graph::new("one", Shape { channels: 3, height: 1, width: 1 });
    graph.add("product", Op::IntegerConv { channels: 2, activation: Activation::Identity }, &[0]);
    graph.taps.push(1);
    let mut weights = Weights::default();
    for (name, shape, values) in [
        ("weight", vec![2, 3, 1, 1], vec![0.5, -1.0, 2.0, 0.0, 0.0, 0.0]),
        ("bias", vec![2], vec![0.25, -1.0]),
        ("step", vec![3], vec![0.01, 0.02, 0.005]),
        ("zero", vec![3], vec![0.0, 64.0, 127.0]),
        ("shift", vec![2], vec![0.5, 0.0]),
    ] {
        weights.insert(format!("product.{name}"), Tensor { shape, values: values.into() });
    }
    let network = graph.check().unwrap().with(weights).unwrap();
    let integers = network.integers(&network.nodes[1]);
    // Channel by channel: the largest product of weight and step is 63.
    assert_eq!(integers.weights, [16, -63, 32, 0, 0, 0]);
    assert_eq!(integers.offsets, [-63 * 64 + 32 * 127, 0]);
    assert_eq!(integers.bias, [0.75, -1.0]);
    assert_eq!([0.0, 0.004, 0.006, 5.0, -1.0, f32::NAN].map(|value| integers.level(0, value)), [0, 0, 1, 127, 0, 0]);
    assert_eq!([0.0, -1.28, 1.26, 0.03].map(|value| integers.level(1, value)), [64, 0, 127, 66]);
    let levels = [100, 54, 117];
    let sum: i32 = levels.iter().zip(&integers.weights).map(|(&level, &weight)| level * i32::from(weight)).sum();
    // 1.0, -0.2 and -0.05, whose product with the weights is 0.6, and what is added.
    assert!((integers.value(0, sum) - 1.35).abs() < 0.02, "{}", integers.value(0, sum));
    assert_eq!(integers.value(1, 0), -1.0);
}

#[test]
fn weights_of_other_classes_are_named() {
    let fewer = PLAIN.replace("\"aeroplane\", ", "");
    assert_ne!(fewer, PLAIN);
    let error = error_of(&fewer, &weights_bytes());
    assert!(error.contains("these weights are for 20 classes, but yolo-lat-n lists 19"), "{error}");
}

#[test]
fn unknown_models_list_the_known_ones() {
    let error = Model::load("m").unwrap_err().to_string();
    assert!(error.contains("no model \"m\": give n or s"), "{error}");
    assert!(matches!(Model::load("n").unwrap().graph(100, 320), Err(ModelError::Size { .. })));
}

#[test]
fn broken_graphs_are_named() {
    use graph::{Activation, Mask, Mixing, Op, Scale, Shape};
    let conv = |kernel| Op::Conv { channels: 6, kernel, stride: 1, activation: Activation::Identity };
    let whole = || {
        let mut graph = Graph::new("g", Shape { channels: 3, height: 5, width: 7 });
        graph.add("a", conv(3), &[0]);
        graph.add("b", Op::Slice { start: 1, step: 2, count: 3 }, &[1]);
        graph.add("c", Op::Add, &[0, 2]);
        graph.taps.push(3);
        graph
    };
    assert_eq!(whole().check().unwrap().nodes[3].shape, Shape { channels: 3, height: 5, width: 7 });
    type Change<'a> = &'a dyn Fn(&mut Graph);
    let checks: [(Change, &str); 19] = [
        (&|graph| graph.nodes.clear(), "the first node of a graph is its input"),
        (&|graph| graph.nodes[2].name = "a".into(), "node 2: the name \"a\" is empty or another node's"),
        (&|graph| graph.nodes[1].inputs[0] = 3, "node \"a\" reads node 3, which does not come before it"),
        (&|graph| graph.nodes[1].op = conv(4), "\"a\" (conv 4x4 /1): kernel 4, expected an odd side from 1 to 15"),
        (&|graph| graph.nodes[1].op = conv(17), "kernel 17"),
        (&|graph| graph.nodes[2].inputs.push(0), "\"b\" (slice 1::2): 2 inputs, expected 1"),
        (&|graph| graph.nodes[2].op = Op::Slice { start: 2, step: 2, count: 3 }, "not all among the input's 6"),
        (&|graph| graph.nodes[2].op = Op::Slice { start: 1, step: usize::MAX, count: 3 }, "not all among"),
        (&|graph| graph.nodes[2].op = Op::Shuffle { groups: 4 }, "6 channels do not divide into 4 equal parts"),
        (
            &|graph| graph.nodes[2].op = Op::Attention { mixing: Mixing::Softmax, heads: 0, mask: Mask::Full },
            "heads 0, expected 1 or more",
        ),
        (&|graph| graph.nodes[2].op = Op::Route { active: 0, equal: false }, "active 0, expected 1 or more"),
        (&|graph| graph.nodes[2].op = Op::Route { active: 7, equal: true }, "active 7, expected at most the channels"),
        (
            &|graph| {
                (graph.nodes[3].op, graph.nodes[3].inputs) = (Op::Scale, vec![0, 1]);
            },
            "3 channels do not divide into 6 equal parts",
        ),
        (&|graph| graph.nodes[3].inputs[1] = 1, "an input of shape 6x5x7 where 3x5x7 is needed"),
        (&|graph| graph.nodes[3].shape.width = 8, "\"c\" says it has the shape 3x5x8, but its inputs make it 3x5x7"),
        (
            &|graph| *graph = Graph::new("g", Shape { channels: 3, height: 1 << 40, width: 1 << 40 }),
            "more than 2147483648 values in its feature maps",
        ),
        (&|graph| graph.taps[0] = 4, "outputs: there is no node 4"),
        (&|graph| graph.taps.clear(), "nothing is asked for"),
        (&|graph| graph.scales.push(Scale { stride: 8, class: 3, boxes: 3 }), "box logits 3x5x7, expected 3 channels"),
    ];
    for (change, expected) in checks {
        let mut graph = whole();
        change(&mut graph);
        let error = graph.check().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_network_is_changed_only_into_another_network() {
    let network = Model::load("n").unwrap().network(64, 64).unwrap();
    let layer = network.attention_layers().next().unwrap();
    let softmax = network.edit(|graph| graph.replace_attention(layer, Some(graph::Mixing::Softmax))).unwrap();
    assert_eq!(softmax.nodes[layer].op.label(), "softmax attention, 2 heads");
    let error = network.edit(|graph| graph.nodes[1].op = graph::Op::MaxPool).unwrap_err();
    assert!(matches!(error, NetworkError::Graph(GraphError::Shape { .. })), "{error}");
    let error = network.edit(|graph| graph.nodes[1].name = "root".into()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tensor root.weight [24, 3, 3, 3] is missing; these weights belong to another architecture than yolo-lat-n"
    );
}
