//! The ONNX export, run by ONNX Runtime: the same numbers as the engines give.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use ndarray::{Array4, ArrayD, Axis, Ix3};
use yolo_lat::engine::ort::{OnnxRuntime, OnnxSession, Provider};
use yolo_lat::engine::{EngineKind, create};
use yolo_lat::export::{ExportOptions, ExportOutput, OPSETS, export_onnx};
use yolo_lat::model::config::{AttentionKind, ExpertBias, ExpertsConfig, KernelKind, MemoryKind, NeckConfig};
use yolo_lat::model::{Model, Precision, Tensor, Weights, graph_of};
use yolo_lat::postprocess::{Nms, PostprocessOptions};
use yolo_lat::preprocess::Preprocessor;
use yolo_lat::source::open_image;
use yolo_lat::{DetectError, Detector, DetectorOptions, InputSize, ModelFile, Runtime};

fn open(path: &std::path::Path, options: &DetectorOptions) -> Result<Detector, DetectError> {
    Detector::new(&ModelFile::open(path.to_str().unwrap())?, &Runtime::default(), options)
}

fn session(bytes: &[u8]) -> OnnxSession {
    let runtime = OnnxRuntime::load(None, Provider::Cpu).unwrap();
    OnnxSession::from_bytes(&runtime, bytes, 1, "export".into()).unwrap()
}

/// Reproducible images in 0..1.
fn images(batch: usize, height: usize, width: usize) -> Array4<f32> {
    Array4::from_shape_fn((batch, 3, height, width), |(n, c, y, x)| {
        0.5 + 0.5 * ((x * (3 + c) + y * 7 + n * 31) as f32 * 0.05).sin()
    })
}

fn run(bytes: &[u8], input: &Array4<f32>) -> Vec<ArrayD<f32>> {
    session(bytes).run(input.view().into_dyn()).unwrap()
}

fn largest_difference<'a>(a: impl IntoIterator<Item = &'a f32>, b: impl IntoIterator<Item = &'a f32>) -> f32 {
    a.into_iter().zip(b).fold(0.0, |worst, (a, b)| worst.max((a - b).abs()))
}

#[test]
#[ignore = "needs ONNX Runtime"]
fn logits_are_those_of_the_reference_for_every_shape_and_opset() {
    for name in ["n", "s"] {
        let model = Model::load(name).unwrap();
        for (width, height) in [(160, 160), (96, 192)] {
            let input = images(2, height, width);
            let mut reference = create(EngineKind::Reference, &model, width, height, &Runtime::default()).unwrap();
            let expected = reference.run(input.view()).unwrap();
            let mut ort = create(EngineKind::Ort, &model, width, height, &Runtime::with_threads(1)).unwrap();
            let worst = |found: Vec<ArrayD<f32>>, limit: f32, what: &str| {
                assert_eq!(found.len(), expected.len());
                for (found, expected) in found.iter().zip(expected) {
                    assert_eq!(found.shape(), expected.shape(), "{name} {what}");
                    let worst = largest_difference(found, expected);
                    assert!(worst <= limit, "{name} {width}x{height} {what}: {worst}");
                }
            };
            let found = ort.run(input.view()).unwrap().iter().map(|map| map.clone().into_dyn()).collect();
            worst(found, 2e-3, "engine");
            let base = ExportOptions { batch: None, output: ExportOutput::Logits, ..ExportOptions::default() };
            for opset in [*OPSETS.start(), *OPSETS.end()] {
                let options = ExportOptions { opset, size: (width, height), ..base.clone() };
                worst(run(&export_onnx(&model, &options).unwrap(), &input), 2e-3, &format!("opset {opset}"));
            }
            let open = ExportOptions { dynamic: true, ..base.clone() };
            worst(run(&export_onnx(&model, &open).unwrap(), &input), 2e-3, "dynamic");
            let fixed = ExportOptions { batch: Some(2), size: (width, height), ..base.clone() };
            worst(run(&export_onnx(&model, &fixed).unwrap(), &input), 2e-3, "batch of 2");
            // 11 bits of a 16-bit float, through some sixty layers.
            let half = ExportOptions { half: true, size: (width, height), ..base.clone() };
            worst(run(&export_onnx(&model, &half).unwrap(), &input), 0.5, "half");
        }
    }
}

#[test]
#[ignore = "needs ONNX Runtime"]
fn a_process_has_one_onnx_runtime() {
    OnnxRuntime::load(None, Provider::Cpu).unwrap();
    let error =
        OnnxRuntime::load(Some("elsewhere/libonnxruntime.so".as_ref()), Provider::Cpu).err().unwrap().to_string();
    assert!(error.contains("elsewhere") && error.contains("one is all that it can load"), "{error}");
    OnnxRuntime::load(None, Provider::Cpu).unwrap();
}

#[test]
#[ignore = "needs ONNX Runtime"]
fn integers_are_exported_with_what_they_stand_for() {
    for name in ["n", "s"] {
        // In the last layers alone: what lies on an edge between levels falls to either side, and layers behind it make more of that.
        let whole = Model::load(name).unwrap();
        let is_wanted = |name: &str| {
            let is_step = [".step", ".zero", ".shift"].iter().any(|part| name.ends_with(part));
            !is_step || name.contains(".out.")
        };
        let mut weights = Weights::default();
        let kept = whole.weights.iter().filter(|(name, _)| is_wanted(name));
        kept.for_each(|(name, tensor)| weights.insert(name, tensor.clone()));
        let model = Model::new(whole.config, weights, name).unwrap();
        let image = open_image("assets/astronaut.jpg").unwrap();
        let mut input = Array4::zeros((1, 3, 224, 224));
        Preprocessor::default().apply(&image, input.index_axis_mut(Axis(0), 0)).unwrap();
        let reference = |precision| {
            let model = model.clone().in_precision(precision).unwrap();
            let mut reference = create(EngineKind::Reference, &model, 224, 224, &Runtime::default()).unwrap();
            (reference.run(input.view()).unwrap().to_vec(), model)
        };
        let ((floats, _), (integers, model)) = (reference(Precision::F32), reference(Precision::Int8));
        for half in [false, true] {
            let size = (224, 224);
            let options = ExportOptions { half, size, output: ExportOutput::Logits, ..ExportOptions::default() };
            let found = run(&export_onnx(&model, &options).unwrap(), &input);
            for ((floats, integers), found) in floats.iter().zip(&integers).zip(found) {
                let error = |a: &Array4<f32>| {
                    (a.iter().zip(&found).map(|(a, b)| (a - b).powi(2)).sum::<f32>() / a.len() as f32).sqrt()
                };
                // Halves are off by about as much as levels are.
                let share = if half { 1.0 } else { 0.05 };
                assert!(error(integers) < share * error(floats), "{name}: {} of {}", error(integers), error(floats));
            }
        }
    }
}

#[test]
#[ignore = "needs ONNX Runtime"]
fn every_attention_is_exported() {
    let trained = Model::load("n").unwrap();
    let input = images(1, 96, 128);
    for (kind, kernel) in [
        (AttentionKind::Softmax, KernelKind::HadamardExp),
        (AttentionKind::Ela, KernelKind::SumDistance),
        (AttentionKind::Ela, KernelKind::DiffDistance),
        (AttentionKind::Ela, KernelKind::ModulatedDot),
    ] {
        let mut config = trained.config.clone();
        (config.neck.attention, config.neck.kernel) = (kind, kernel);
        let model = Model::new(config, trained.weights.clone(), "n").unwrap();
        let mut reference = create(EngineKind::Reference, &model, 128, 96, &Runtime::default()).unwrap();
        let mut ort = create(EngineKind::Ort, &model, 128, 96, &Runtime::with_threads(1)).unwrap();
        let expected = reference.run(input.view()).unwrap();
        for (expected, found) in expected.iter().zip(ort.run(input.view()).unwrap()) {
            let worst = largest_difference(expected, found);
            assert!(worst <= 2e-3, "{kind:?} {kernel:?}: {worst}");
        }
    }
}

#[test]
#[ignore = "needs ONNX Runtime"]
fn every_part_of_a_block_is_exported() {
    let changes: [fn(&mut NeckConfig); 4] = [
        |neck| neck.memory = MemoryKind::Output,
        |neck| {
            neck.position_kernel = 7;
            neck.output_gate = true;
            neck.key_scale = true;
        },
        |neck| neck.experts = Some(ExpertsConfig { count: 4, active: 2, bias: ExpertBias::Inner }),
        |neck| {
            neck.experts = Some(ExpertsConfig { count: 4, active: 1, bias: ExpertBias::Outer });
            neck.memory = MemoryKind::Flow;
        },
    ];
    let trained = Model::load("n").unwrap();
    for (index, change) in changes.into_iter().enumerate() {
        let mut config = trained.config.clone();
        change(&mut config.neck);
        let mut weights = Weights::default();
        for (at, spec) in graph_of(&config, 96, 96).unwrap().weights().into_iter().enumerate() {
            let known = trained.weights.get(&spec.name).filter(|known| known.shape == spec.shape).cloned();
            let value = |index: usize| ((index * 7 + at) as f32).sin() * 0.2;
            let values: Vec<f32> = (0..spec.shape.iter().product()).map(value).collect();
            let tensor = known.unwrap_or(Tensor { values: values.into(), shape: spec.shape });
            weights.insert(spec.name, tensor);
        }
        let model = Model::new(config, weights, "n").unwrap();
        let (width, height) = (128, 96);
        let input = images(1, height, width);
        let mut reference = create(EngineKind::Reference, &model, width, height, &Runtime::default()).unwrap();
        let expected = reference.run(input.view()).unwrap();
        let base = ExportOptions { batch: None, output: ExportOutput::Logits, ..ExportOptions::default() };
        let open = ExportOptions { dynamic: true, ..base.clone() };
        let half = ExportOptions { half: true, size: (width, height), ..base.clone() };
        for (options, limit) in [(ExportOptions { size: (width, height), ..base }, 2e-3), (open, 2e-3), (half, 0.5)] {
            let found = run(&export_onnx(&model, &options).unwrap(), &input);
            for (expected, found) in expected.iter().zip(&found) {
                assert_eq!(found.shape(), expected.shape());
                let far = expected.iter().zip(found).filter(|(a, b)| (*a - *b).abs() > limit).count();
                // Scores of 11 bits choose other experts here and there.
                let most = if options.half && model.config.neck.experts.is_some() { expected.len() / 10 } else { 0 };
                assert!(far <= most, "{index} {options:?}: {far} of {}", expected.len());
            }
        }
    }
}

#[test]
#[ignore = "needs ONNX Runtime"]
fn the_file_alone_gives_the_detections_of_the_program() {
    for (name, nms) in [("n", Nms::BoxVoting), ("n", Nms::Greedy), ("s", Nms::BoxVoting)] {
        let postprocess = PostprocessOptions { confidence: 0.2, nms, ..PostprocessOptions::default() };
        let model = Model::load(name).unwrap();
        let precision = Some(Precision::F32);
        let options = DetectorOptions { postprocess: postprocess.clone(), precision, ..DetectorOptions::default() };
        let mut detector = Detector::of_model(&model, &Runtime::default(), &options).unwrap();
        // Of the network's own size: the letterbox is then the image itself.
        let image = open_image("assets/chelsea.jpg").unwrap();
        let image = image::imageops::thumbnail(&image, 320, 320);
        let expected = detector.detect(&image).unwrap();
        assert!(!expected.is_empty());
        let input = Array4::from_shape_fn((2, 3, 320, 320), |(_, c, y, x)| {
            f32::from(image.get_pixel(x as u32, y as u32)[c]) / 255.0
        });
        for dynamic in [false, true] {
            let output = ExportOutput::Detections { confidence: 0.2, iou: postprocess.iou, nms };
            let options = ExportOptions { batch: Some(2), dynamic, output, ..ExportOptions::default() };
            let options = ExportOptions { batch: if dynamic { None } else { options.batch }, ..options };
            let bytes = export_onnx(&model, &options).unwrap();
            let found = run(&bytes, &input).swap_remove(0).into_dimensionality::<Ix3>().unwrap();
            assert_eq!(found.dim(), (2, 300, 6));
            for rows in found.outer_iter() {
                let count = rows.axis_iter(Axis(0)).filter(|row| row[4] > 0.0).count();
                assert_eq!(count, expected.len(), "{name}, dynamic {dynamic}");
                for (row, expected) in rows.outer_iter().zip(&expected) {
                    assert_eq!(row[5] as usize, expected.class);
                    assert!((row[4] - expected.confidence).abs() < 1e-3);
                    let bbox = [expected.bbox.x1, expected.bbox.y1, expected.bbox.x2, expected.bbox.y2];
                    for (side, expected) in row.iter().zip(bbox) {
                        assert!((side.clamp(0.0, 320.0) - expected).abs() < 0.1);
                    }
                }
                assert!(rows.axis_iter(Axis(0)).skip(count).all(|row| row.iter().all(|value| *value == 0.0)));
            }
        }
        let predictions = run(
            &export_onnx(&model, &ExportOptions::default()).unwrap(),
            &input.slice_move(ndarray::s![..1, .., .., ..]),
        );
        let predictions = predictions[0].clone().into_dimensionality::<Ix3>().unwrap();
        let (_, channels, _) = predictions.dim();
        assert_eq!(channels, 4 + model.config.classes.len());
        // Without votes the most confident cell is the most confident detection.
        if nms == Nms::BoxVoting {
            continue;
        }
        let best = expected[0];
        let scores = predictions.index_axis(Axis(0), 0);
        let peak = scores.row(4 + best.class).iter().copied().fold(0.0, f32::max);
        assert!((peak - best.confidence).abs() < 1e-3);
    }
}

#[test]
#[ignore = "needs ONNX Runtime"]
fn metadata_are_what_other_tools_look_for() {
    let model = Model::load("n").unwrap();
    let bytes = export_onnx(&model, &ExportOptions::default()).unwrap();
    let opset = ExportOptions { opset: 9, ..ExportOptions::default() };
    assert!(export_onnx(&model, &opset).unwrap_err().to_string().contains("opset 9 cannot be written: 17 to 23 can"));
    let session = session(&bytes);
    assert_eq!(session.metadata("task").as_deref(), Some("detect"));
    assert_eq!(session.metadata("stride").as_deref(), Some("32"));
    assert_eq!(session.metadata("imgsz").as_deref(), Some("[320, 320]"));
    assert!(session.metadata("names").unwrap().starts_with("{0: 'aeroplane', 1: 'bicycle'"));
    assert_eq!(session.inputs()[0].shape, [1, 3, 320, 320]);
    assert_eq!(session.outputs()[0].shape, [1, 24, 2100]);
}

#[test]
#[ignore = "needs ONNX Runtime"]
fn third_party_layouts_are_recognised_and_others_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = Model::load("n").unwrap();
    let image = open_image("assets/chelsea.jpg").unwrap();
    // The files are for squares.
    let (size, precision) = (InputSize::Square(None), Some(Precision::F32));
    let options = DetectorOptions { size, precision, ..DetectorOptions::default() };
    let expected = Detector::of_model(&model, &Runtime::default(), &options).unwrap().detect(&image).unwrap();
    assert!(!expected.is_empty());
    let write = |name: &str, output: ExportOutput| {
        let path = folder.path().join(name);
        std::fs::write(&path, export_onnx(&model, &ExportOptions { output, ..ExportOptions::default() }).unwrap())
            .unwrap();
        path
    };
    let end_to_end = ExportOutput::Detections { confidence: 0.25, iou: options.postprocess.iou, nms: Nms::BoxVoting };
    // YOLOv8's layout and the end-to-end one.
    for path in [write("predictions.onnx", ExportOutput::Predictions), write("detections.onnx", end_to_end)] {
        let mut detector = open(&path, &options).unwrap();
        assert_eq!(detector.classes(), model.config.classes, "read from the file");
        let found = detector.detect(&image).unwrap();
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found.class, expected.class);
            assert!((found.confidence - expected.confidence).abs() < 1e-3);
            assert!((found.bbox.x2 - expected.bbox.x2).abs() < 0.1, "{found:?} {expected:?}");
        }
    }
    let refused = |path: &std::path::Path| {
        let error = open(path, &options).map(|_| ()).unwrap_err().to_string();
        assert_eq!(error.lines().count(), 1, "{error}");
        error
    };
    let error = refused(&write("logits.onnx", ExportOutput::Logits));
    assert!(error.contains("unknown layout: outputs [[20, 40, 40]") && error.contains("known are yolov8"), "{error}");
    let whole = std::fs::read(folder.path().join("predictions.onnx")).unwrap();
    let broken = folder.path().join("broken.onnx");
    for bytes in [&b"this is no ONNX file"[..], &whole[..whole.len() / 2]] {
        std::fs::write(&broken, bytes).unwrap();
        assert!(refused(&broken).contains("broken.onnx"));
    }
    assert!(refused(&folder.path().join("absent.onnx")).contains("cannot be read"));
}
