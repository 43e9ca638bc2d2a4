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

#[test]
fn sizes_are_those_of_the_plan() {
    let parameters = |text| {
        let config = ModelConfig::parse(text, "test").unwrap();
        graph_of(&config, 320, 320).unwrap().parameters()
    };
    assert_eq!([PLAIN, N, S].map(parameters), [313_716, 317_306, 1_045_930]);
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
        error_of(S, &bytes).contains("tensor stage2.0.left.pointwise.weight has shape [24, 24, 1, 1], expected [58")
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
    assert!(error("heads = 4", "heads = 0").contains("neck.heads"));
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
