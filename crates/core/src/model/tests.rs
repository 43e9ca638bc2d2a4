use safetensors::tensor::{Dtype, TensorView, serialize};

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
