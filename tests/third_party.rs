//! Other people's ONNX networks: small files of every layout, as bug reports describe them, through the whole detector.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};
use yolo_lat::geometry::Fit;
use yolo_lat::onnx::{Attribute, Dimension, FLOAT16, OnnxGraph, UINT8};
use yolo_lat::preprocess::ChannelOrder;
use yolo_lat::third_party::{Layout, OnnxOptions, PreprocessingChanges};
use yolo_lat::{DetectError, Detector, DetectorOptions, ModelFile, Runtime};

fn detector_of(path: &Path, options: &DetectorOptions) -> Result<Detector, DetectError> {
    Detector::new(&ModelFile::open(path.to_str().unwrap())?, &Runtime::with_threads(1), options)
}

/// A file that gives the same numbers for every image.
struct Constant {
    outputs: Vec<(Vec<usize>, Vec<f32>)>,
    side: usize,
    metadata: Vec<(&'static str, String)>,
}

impl Constant {
    /// One output (1, rows, columns), zero but for some numbers.
    fn new(side: usize, rows: usize, columns: usize, numbers: &[(usize, usize, f32)]) -> Self {
        Self { outputs: Vec::new(), side, metadata: Vec::new() }.and(rows, columns, numbers)
    }

    fn and(mut self, rows: usize, columns: usize, numbers: &[(usize, usize, f32)]) -> Self {
        let mut values = vec![0.0; rows * columns];
        numbers.iter().for_each(|&(row, column, value)| values[row * columns + column] = value);
        self.outputs.push((vec![1, rows, columns], values));
        self
    }

    fn with(mut self, key: &'static str, value: &str) -> Self {
        self.metadata.push((key, value.into()));
        self
    }

    fn write(&self, folder: &Path, open: bool) -> PathBuf {
        let mut graph = OnnxGraph::default();
        let side = |name: &str, side| if open { Dimension::Named(name.into()) } else { Dimension::Fixed(side) };
        let shape = [side("batch", 1), Dimension::Fixed(3), side("height", self.side), side("width", self.side)];
        graph.input("images", &shape);
        for (index, (shape, values)) in self.outputs.iter().enumerate() {
            let constant = graph.floats(shape, values);
            let name = format!("output{index}");
            graph.node_named("Identity", &[&constant], &name, &[]);
            graph.output(&name, &shape.iter().map(|&side| Dimension::Fixed(side)).collect::<Vec<_>>());
        }
        self.metadata.iter().for_each(|(key, value)| graph.metadata(key, value));
        let path = folder.join("network.onnx");
        std::fs::write(&path, graph.finish("network", 17)).unwrap();
        path
    }

    fn open(&self, options: &OnnxOptions) -> Result<Detector, String> {
        let folder = tempfile::tempdir().unwrap();
        open(&self.write(folder.path(), false), options)
    }

    /// What it finds in an image of its own size: name, class, confidence, corners.
    fn found(&self, options: &OnnxOptions) -> Vec<(String, usize, f32, [f32; 4])> {
        let mut detector = self.open(options).unwrap();
        found(&mut detector, &RgbImage::new(self.side as u32, self.side as u32))
    }

    fn only(&self) -> (String, usize, f32, [f32; 4]) {
        let found = self.found(&OnnxOptions::default());
        assert_eq!(found.len(), 1, "{found:?}");
        found.into_iter().next().unwrap()
    }

    fn refused(&self) -> String {
        let error = self.open(&OnnxOptions::default()).map(|detector| detector.description()).unwrap_err();
        assert_eq!(error.lines().count(), 1, "{error}");
        error
    }
}

fn open(path: &Path, options: &OnnxOptions) -> Result<Detector, String> {
    let options = DetectorOptions { onnx: options.clone(), ..DetectorOptions::default() };
    detector_of(path, &options).map_err(|error| error.to_string())
}

/// Rounded to thousandths.
fn found(detector: &mut Detector, image: &RgbImage) -> Vec<(String, usize, f32, [f32; 4])> {
    let found = detector.detect(image).unwrap();
    let round = |value: f32| (value * 1000.0).round() / 1000.0;
    found
        .iter()
        .map(|found| {
            let corners = [found.bbox.x1, found.bbox.y1, found.bbox.x2, found.bbox.y2].map(round);
            (detector.class_name(found.class).to_owned(), found.class, round(found.confidence), corners)
        })
        .collect()
}

/// Numbers of one box (8, 8, 40, 40) in column `at`: centre and size, then scores.
fn column(at: usize, scores: &[f32]) -> Vec<(usize, usize, f32)> {
    [&[24.0, 24.0, 32.0, 32.0], scores].concat().into_iter().enumerate().map(|(row, value)| (row, at, value)).collect()
}

/// The same in row `at`.
fn row(at: usize, numbers: &[f32]) -> Vec<(usize, usize, f32)> {
    numbers.iter().enumerate().map(|(column, &value)| (at, column, value)).collect()
}

const BOX: [f32; 4] = [8.0, 8.0, 40.0, 40.0];
/// Cells of strides 8, 16, 32 in 64 x 64 pixels.
const CELLS: usize = 84;

fn named(name: &str, class: usize, confidence: f32) -> (String, usize, f32, [f32; 4]) {
    (name.into(), class, confidence, BOX)
}

#[test]
#[ignore = "needs ONNX Runtime"]
fn classes_are_what_the_output_has() {
    let three = || Constant::new(64, 7, CELLS, &column(5, &[0.1, 0.2, 0.9]));
    assert_eq!(three().only(), named("class2", 2, 0.9));
    let mut scores = vec![0.0; 85];
    scores[83] = 0.9;
    assert_eq!(Constant::new(64, 89, CELLS, &column(5, &scores)).only(), named("class83", 83, 0.9));
    assert_eq!(Constant::new(64, 84, CELLS, &column(5, &scores[5..])).only(), named("hair drier", 78, 0.9));
    // The number decides; a missing one is numbered.
    let names = [
        ("['bolt', 'nut', 'ring']", "ring"),
        ("{2: 'ring', 0: 'bolt', 1: 'nut'}", "ring"),
        ("{\"0\": \"bolt\", \"2\": \"ring\"}", "ring"),
        ("not names", "class2"),
    ];
    for (names, name) in names {
        assert_eq!(three().with("names", names).only(), named(name, 2, 0.9), "{names}");
    }
    for (names, count) in [("['bolt', 'nut']", 2), ("['a', 'b', 'c', 'd']", 4)] {
        let wrong = three().with("names", names);
        let error = wrong.refused();
        let says = format!("{count} names of classes do not go with outputs [[7, 84]]");
        assert!(error.contains(&says) && error.contains("--layout yolov8, 3 classes"), "{error}");
        assert_eq!(error.contains("--layout yolov8-obb"), count == 2, "{error}");
        let options = OnnxOptions { layout: Some(Layout::Yolov8), ..OnnxOptions::default() };
        assert_eq!(wrong.found(&options), [named(if count == 2 { "class2" } else { "c" }, 2, 0.9)]);
        let names = Some(["x", "y", "z"].map(String::from).to_vec());
        assert_eq!(wrong.found(&OnnxOptions { names, ..OnnxOptions::default() }), [named("z", 2, 0.9)]);
    }
    let doubtful = Constant::new(64, 85, CELLS, &column(5, &[1.0, 0.9]));
    assert!(doubtful.refused().contains("81 classes (--layout yolov8) or 5 + 80"), "{}", doubtful.refused());
}

#[test]
#[ignore = "needs ONNX Runtime"]
fn shapes_that_mean_several_things_are_told_apart() {
    // One class: six columns, but a row for every cell. Cell 80 is the first of stride 32.
    let raw = row(80, &[0.75, 0.75, 0.0, 0.0, 1.0, 0.85]);
    assert_eq!(Constant::new(64, CELLS, 6, &raw).only(), named("class0", 0, 0.85));
    let pixels = row(80, &[24.0, 24.0, 32.0, 32.0, 0.9, 0.5, 1.0]);
    assert_eq!(Constant::new(64, CELLS, 7, &pixels).only(), named("class1", 1, 0.9), "decoded YOLOX");
    // With classes that are all unlikely it may be YOLOv8's output turned.
    let unlikely = Constant::new(64, CELLS, 7, &row(80, &[24.0, 24.0, 32.0, 32.0, 0.02, 0.01, 0.03])).refused();
    assert!(unlikely.contains("2 classes (--layout yolox-decoded) or 3 classes (--layout yolov8)"), "{unlikely}");
    assert_eq!(Constant::new(64, 3 * CELLS, 7, &pixels).only(), named("class1", 1, 0.9), "YOLOv5");
    let mut shares = column(5, &[0.1, 0.9]);
    shares.iter_mut().take(4).for_each(|number| number.2 /= 64.0);
    assert_eq!(Constant::new(64, 6, CELLS, &shares).only(), named("class1", 1, 0.9), "shares of the input");
    let turned = row(80, &[24.0, 24.0, 32.0, 32.0, 0.1, 0.9]);
    assert_eq!(Constant::new(64, CELLS, 6, &turned).with("names", "['a', 'b']").only(), named("b", 1, 0.9));
    let two = "{0: 'bolt', 1: 'nut'}";
    let end_to_end = Constant::new(64, 300, 6, &row(0, &[8.0, 8.0, 40.0, 40.0, 0.9, 1.0])).with("names", two);
    assert_eq!(end_to_end.only(), named("nut", 1, 0.9));
    let shares = row(0, &[0.375, 0.375, 0.5, 0.5, 0.1, 0.9]);
    assert_eq!(Constant::new(64, 300, 6, &shares).with("names", two).only(), named("nut", 1, 0.9), "RT-DETR");
    let three = row(0, &[0.375, 0.375, 0.5, 0.5, 0.1, 0.2, 0.9]);
    assert_eq!(Constant::new(64, 300, 7, &three).only(), named("class2", 2, 0.9));
    let neither = Constant::new(64, 300, 6, &row(0, &[8.0, 8.0, 40.0, 40.0, 0.1, 0.9])).with("names", two);
    assert!(neither.refused().contains("--layout end-to-end"), "{}", neither.refused());
    let unknown = Constant::new(64, 33, 3, &[]).refused();
    assert!(unknown.contains("unknown layout: outputs [[33, 3]] of each image of 64x64"), "{unknown}");
    let pose = Constant::new(64, 56, CELLS, &column(5, &[0.9, 30.0])).with("names", "{0: 'person'}");
    assert_eq!(pose.only(), named("person", 0, 0.9));
}

#[test]
#[ignore = "needs ONNX Runtime"]
fn oriented_boxes_become_upright_ones() {
    let mut numbers = column(5, &[0.1, 0.9, std::f32::consts::FRAC_PI_4]);
    (numbers[0].2, numbers[1].2, numbers[2].2, numbers[3].2) = (32.0, 32.0, 40.0, 10.0);
    let obb = Constant::new(64, 7, CELLS, &numbers).with("names", "{0: 'ship', 1: 'plane'}").with("task", "obb");
    assert_eq!(obb.only(), ("plane".into(), 1, 0.9, [14.322, 14.322, 49.678, 49.678]));
    let suppressed = row(0, &[32.0, 32.0, 40.0, 10.0, 0.9, 1.0, std::f32::consts::FRAC_PI_4]);
    let obb = Constant::new(64, 300, 7, &suppressed).with("names", "{0: 'ship', 1: 'plane'}").with("task", "obb");
    assert_eq!(obb.only(), ("plane".into(), 1, 0.9, [14.322, 14.322, 49.678, 49.678]));
}

#[test]
#[ignore = "needs ONNX Runtime"]
fn outputs_of_each_stride_are_put_together() {
    // Cell (0, 0) of stride 32, distances of half a stride on the average of bins 0 and 1.
    let half: Vec<(usize, usize, f32)> =
        (0..4).flat_map(|side| [(0, 8 * side, 50.0), (0, 8 * side + 1, 50.0)]).collect();
    let score = [(0, 1, 0.9)];
    let nanodet = Constant::new(64, 64, 2, &[])
        .and(16, 2, &[])
        .and(4, 2, &score)
        .and(64, 32, &[])
        .and(16, 32, &[])
        .and(4, 32, &half);
    assert_eq!(nanodet.only(), ("class1".into(), 1, 0.9, [0.0, 0.0, 31.5, 31.5]));
    // In turns, as others write them.
    let picodet = Constant::new(64, 64, 2, &[])
        .and(64, 32, &[])
        .and(16, 2, &[])
        .and(16, 32, &[])
        .and(4, 2, &score)
        .and(4, 32, &half)
        .and(1, 2, &[])
        .and(1, 32, &[]);
    assert_eq!(picodet.only(), ("class1".into(), 1, 0.9, [0.0, 0.0, 32.0, 32.0]));
}

#[test]
#[ignore = "needs ONNX Runtime"]
fn boxes_of_others_do_not_vote_unless_asked() {
    let lone = Constant::new(64, 6, CELLS, &column(5, &[0.9, 0.1]));
    assert_eq!(lone.only(), named("class0", 0, 0.9));
    let voting = OnnxOptions { box_voting: true, ..OnnxOptions::default() };
    assert_eq!(lone.found(&voting), [named("class0", 0, 0.81)]);
}

#[test]
#[ignore = "needs ONNX Runtime"]
fn an_open_size_is_what_the_metadata_say() {
    let folder = tempfile::tempdir().unwrap();
    let numbers = row(0, &[0.0, 0.0, 64.0, 64.0, 0.9, 0.0]);
    let network = Constant::new(64, 20, 6, &numbers).with("names", "['bolt']").with("imgsz", "[480, 640]");
    let path = network.write(folder.path(), true);
    let image = RgbImage::new(640, 480);
    let mut detector = open(&path, &OnnxOptions::default()).unwrap();
    assert_eq!(found(&mut detector, &image)[0].3, [0.0, 0.0, 64.0, 64.0]);
    let options = DetectorOptions { size: yolo_lat::InputSize::Square(Some(320)), ..DetectorOptions::default() };
    let mut detector = detector_of(&path, &options).unwrap();
    // Letterboxed with 40 pixels above.
    assert_eq!(found(&mut detector, &image)[0].3, [0.0, 0.0, 128.0, 48.0]);
}

/// A file that gives one box whose confidence is the mean of the image's first channel, of 1 or of 255.
fn mean_of_the_first_channel(path: &Path, shape: [usize; 4], kind: i64, external: bool, metadata: &[(&str, &str)]) {
    let mut graph = OnnxGraph::default();
    let channels_last = shape[3] <= 3;
    graph.input_of("images", &shape.map(Dimension::Fixed), kind);
    let float = graph.to_float("images");
    let first = graph.integer(0);
    let plane = graph.node("Gather", &[&float, &first], &[("axis", Attribute::Int(if channels_last { 3 } else { 1 }))]);
    let mean = graph.node("ReduceMean", &[&plane], &[("axes", Attribute::Ints(vec![1, 2]))]);
    let mut weights = vec![0.0; 120];
    weights[4] = if kind == UINT8 { 1.0 / 255.0 } else { 1.0 };
    let weights = if external {
        let bytes: Vec<u8> = weights.iter().flat_map(|value: &f32| value.to_le_bytes()).collect();
        std::fs::write(path.with_extension("data"), bytes).unwrap();
        let name = path.with_extension("data").file_name().unwrap().to_str().unwrap().to_owned();
        graph.floats_in_file(&[1, 20, 6], &name)
    } else {
        graph.floats(&[1, 20, 6], &weights)
    };
    let mut box_numbers = vec![0.0; 120];
    box_numbers[..4].copy_from_slice(&BOX);
    let numbers = graph.floats(&[1, 20, 6], &box_numbers);
    let confidence = graph.node("Mul", &[&weights, &mean], &[]);
    graph.node_named("Add", &[&numbers, &confidence], "output0", &[]);
    graph.output("output0", &[shape[0], 20, 6].map(Dimension::Fixed));
    graph.metadata("names", "['bolt']");
    metadata.iter().for_each(|(key, value)| graph.metadata(key, value));
    std::fs::write(path, graph.finish("network", 17)).unwrap();
}

#[test]
#[ignore = "needs ONNX Runtime"]
fn inputs_of_every_form_are_filled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("form.onnx");
    let image = |red: u8| RgbImage::from_pixel(64, 64, Rgb([red, 51, 102]));
    for shape in [[1, 3, 64, 64], [4, 3, 64, 64], [1, 64, 64, 3], [2, 64, 64, 3], [1, 1, 64, 64], [1, 64, 64, 1]] {
        for kind in [1, FLOAT16, UINT8] {
            mean_of_the_first_channel(&path, shape, kind, false, &[]);
            let mut detector = open(&path, &OnnxOptions::default()).unwrap();
            // More than fit into a batch, and an unfinished batch.
            let images: Vec<RgbImage> = [255, 204, 153, 128, 102].map(image).into();
            let found = detector.detect_batch(&images.iter().collect::<Vec<_>>()).unwrap();
            assert_eq!(found.len(), 5);
            for ((found, _), Rgb([red, green, blue])) in found.iter().zip(images.iter().map(|p| *p.get_pixel(0, 0))) {
                let grey = 0.299 * f32::from(red) + 0.587 * f32::from(green) + 0.114 * f32::from(blue);
                let is_grey = shape[1] == 1 || shape[3] == 1;
                let expected = if is_grey { grey.round() } else { f32::from(red) } / 255.0;
                assert!((found[0].confidence - expected).abs() < 1e-3, "{shape:?} {kind}: {found:?}, {expected}");
            }
        }
    }
    mean_of_the_first_channel(&path, [1, 3, 64, 64], 1, true, &[]);
    assert_eq!(found(&mut open(&path, &OnnxOptions::default()).unwrap(), &image(204)), [named("bolt", 0, 0.8)]);
    std::fs::remove_file(path.with_extension("data")).unwrap();
    let error = open(&path, &OnnxOptions::default()).map(|_| ()).unwrap_err();
    assert!(error.lines().count() == 1 && error.contains("form.data"), "{error}");
    mean_of_the_first_channel(&path, [1, 64, 5, 64], 1, false, &[]);
    let error = open(&path, &OnnxOptions::default()).map(|_| ()).unwrap_err();
    assert!(error.contains("[1, 64, 5, 64]") && error.contains("(batch, 3 or 1, height, width)"), "{error}");
}

#[test]
#[ignore = "needs ONNX Runtime"]
fn a_network_sees_as_its_metadata_or_a_person_say() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sees.onnx");
    // Twice as wide as high.
    let image = RgbImage::from_pixel(128, 64, Rgb([204, 51, 102]));
    let see = |metadata: &[(&str, &str)], preprocessing: PreprocessingChanges| {
        mean_of_the_first_channel(&path, [1, 3, 64, 64], 1, false, metadata);
        let mut detector = open(&path, &OnnxOptions { preprocessing, ..OnnxOptions::default() }).unwrap();
        let found = found(&mut detector, &image);
        (found[0].2, found[0].3)
    };
    let none = PreprocessingChanges::default();
    // Half of the input is border.
    let usual = see(&[], none);
    assert_eq!(usual, (0.624, [16.0, 0.0, 80.0, 48.0]));
    let stretched = [("fit", "stretch")];
    assert_eq!(see(&stretched, none), (0.8, [16.0, 8.0, 80.0, 40.0]));
    assert_eq!(
        see(&stretched, PreprocessingChanges { fit: Some(Fit::Letterbox), ..none }),
        usual,
        "a person comes first"
    );
    assert_eq!(see(&[("fit", "top-left"), ("border", "0")], none), (0.4, [16.0, 16.0, 80.0, 64.0]));
    let blue = PreprocessingChanges { order: Some(ChannelOrder::Bgr), ..none };
    assert_eq!(see(&stretched, blue).0, 0.4);
    let scaled =
        PreprocessingChanges { scale: Some(1.0), mean: Some([4.0, 0.0, 0.0]), deviation: Some([400.0; 3]), ..none };
    assert_eq!(see(&stretched, scaled).0, 0.5);
    assert_eq!(see(&[("fit", "stretch"), ("mean", "[0.3, 0, 0]"), ("order", "RGB")], none).0, 0.5);
    mean_of_the_first_channel(&path, [1, 3, 64, 64], 1, false, &[("mean", "grey")]);
    let error = open(&path, &OnnxOptions::default()).map(|_| ()).unwrap_err();
    assert!(error.contains("metadata mean: expected three numbers"), "{error}");
    mean_of_the_first_channel(&path, [1, 3, 64, 64], UINT8, false, &[]);
    let error = open(&path, &OnnxOptions { preprocessing: scaled, ..OnnxOptions::default() }).map(|_| ()).unwrap_err();
    assert!(error.contains("takes bytes as they are"), "{error}");
}
