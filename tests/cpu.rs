//! The CPU engine as a whole: on every instruction set of this machine, for any number of threads, size and batch.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use image::RgbImage;
use ndarray::{Array4, Axis, concatenate};
use yolo_lat::engine::cpu::{CpuEngine, InstructionSet};
use yolo_lat::engine::reference::ReferenceEngine;
use yolo_lat::engine::{Engine, EngineKind};
use yolo_lat::geometry::BBox;
use yolo_lat::model::{Model, Network, Precision};
use yolo_lat::{Detector, DetectorOptions, InputSize, Runtime};

/// n, s, and the network that n began as.
fn models() -> [Model; 3] {
    ["n", "s", "train/start/n-plain.toml"].map(|name| Model::load(name).unwrap())
}

/// An image with edges and slopes.
fn images(network: &Network, batch: usize) -> Array4<f32> {
    let shape = network.input();
    Array4::from_shape_fn((batch, shape.channels, shape.height, shape.width), |(n, c, y, x)| {
        let wave = ((x * (3 + c) + y * 7 + n * 31) as f32 * 0.05).sin();
        0.5 + 0.3 * wave + if (x / 20 + y / 16 + n) % 2 == 0 { 0.2 } else { -0.2 }
    })
}

#[test]
fn logits_of_all_models_are_those_of_the_reference() {
    for model in models() {
        let network = model.network(192, 160).unwrap();
        let images = images(&network, 1);
        let mut reference = ReferenceEngine::new(network.clone());
        let expected = reference.run(images.view()).unwrap();
        for set in InstructionSet::available() {
            let mut engine = CpuEngine::with_instruction_set(&network, 1, set).unwrap();
            let found = engine.run(images.view()).unwrap();
            let differences = expected.iter().flatten().zip(found.iter().flatten()).map(|(a, b)| (a - b).abs());
            let largest =
                differences.fold(0.0, |largest, difference| if difference <= largest { largest } else { difference });
            println!("{} on {set}: {largest}", model.config.name);
            assert!(largest <= 1e-4, "{} on {set}: {largest}", model.config.name);
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let model = Model::load("n").unwrap();
    let network = model.network(160, 128).unwrap();
    let images = images(&network, 4);
    for set in InstructionSet::available() {
        let mut alone = CpuEngine::with_instruction_set(&network, 1, set).unwrap();
        let expected = alone.run(images.view()).unwrap();
        for threads in [1, 2, 3, 8, 256] {
            let mut engine = CpuEngine::with_instruction_set(&network, threads, set).unwrap();
            assert!(engine.run(images.view()).unwrap() == expected, "{set}, {threads} threads, a batch");
            for round in 0..3 {
                for (index, image) in images.axis_chunks_iter(Axis(0), 1).enumerate() {
                    let found = engine.run(image).unwrap();
                    let same = expected
                        .iter()
                        .zip(found)
                        .all(|(a, b)| a.index_axis(Axis(0), index) == b.index_axis(Axis(0), 0));
                    assert!(same, "{set}, {threads} threads, round {round}, image {index}");
                }
            }
        }
    }
}

#[test]
fn any_size_and_batch_gives_what_the_reference_gives() {
    let model = Model::load("n").unwrap();
    for (width, height, batch) in [(32, 32, 64), (32, 160, 2), (224, 32, 1), (64, 96, 3), (352, 64, 1), (96, 448, 1)] {
        let network = model.network(width, height).unwrap();
        let images = images(&network, batch);
        let mut reference = ReferenceEngine::new(network.clone());
        let last = concatenate(Axis(0), &[images.slice(ndarray::s![batch - 1.., .., .., ..])]).unwrap();
        let expected = reference.run(last.view()).unwrap();
        for set in InstructionSet::available() {
            let mut engine = CpuEngine::with_instruction_set(&network, 2, set).unwrap();
            for (expected, found) in expected.iter().zip(engine.run(images.view()).unwrap()) {
                let found = found.index_axis(Axis(0), batch - 1);
                // Not `>`: a NaN must fail.
                let is_near = expected.index_axis(Axis(0), 0).iter().zip(found).all(|(a, b)| (a - b).abs() <= 1e-4);
                assert!(is_near, "{width}x{height}, {batch} images, {set}");
            }
        }
    }
}

/// Copies of channels would cost what views save: the order in which products lay their outputs makes them unnecessary.
#[test]
fn no_gather_remains() {
    for model in models() {
        for (width, height) in [(320, 320), (384, 288)] {
            let network = model.network(width, height).unwrap();
            for set in InstructionSet::available() {
                let engine = CpuEngine::with_instruction_set(&network, 1, set).unwrap();
                let steps = engine.profile();
                assert!(steps.len() > 50);
                let copies: Vec<_> = steps.iter().filter(|step| step.kind == "gather").collect();
                assert!(copies.is_empty(), "{} on {set}: {copies:?}", model.config.name);
                // Nothing is left out, and what is folded is counted once.
                let counted: u64 = steps.iter().map(|step| step.multiply_adds).sum();
                assert_eq!(counted, network.multiply_adds(), "{} on {set}", model.config.name);
            }
        }
    }
}

#[test]
fn images_of_any_size_are_right() {
    let model = Model::load("n").unwrap();
    let options = DetectorOptions { engine: EngineKind::Cpu, ..DetectorOptions::default() };
    let mut detector = Detector::of_model(&model, &Runtime::default(), &options).unwrap();
    for (width, height) in [(1, 1), (2, 3), (1, 8192), (8192, 1), (31, 33), (8192, 8192)] {
        let found = detector.detect(&RgbImage::from_pixel(width, height, image::Rgb([90, 120, 60]))).unwrap();
        assert_eq!(found, [], "{width}x{height}");
    }
    assert!(detector.detect(&RgbImage::new(0, 4)).unwrap_err().to_string().contains("no pixels"));
    // The cat is found wherever it lies in a large image.
    let cat = image::open("assets/chelsea.jpg").unwrap().into_rgb8();
    let cat = image::imageops::resize(&cat, 2706, 1800, image::imageops::FilterType::Triangle);
    let found = detector.detect(&cat).unwrap();
    assert_eq!(detector.class_name(found[0].class), "cat");
}

/// What a person sees does not depend on the machine.
#[test]
fn sample_photographs_give_the_objects_of_the_reference() {
    let model = Model::load("n").unwrap();
    for name in ["chelsea.jpg", "astronaut.jpg", "rocket.jpg", "coffee.jpg"] {
        let image = image::open(format!("assets/{name}")).unwrap().into_rgb8();
        let detect = |engine| {
            let (size, precision) = (InputSize::Square(Some(160)), Some(Precision::F32));
            let options = DetectorOptions { engine, size, precision, ..DetectorOptions::default() };
            Detector::of_model(&model, &Runtime::default(), &options).unwrap().detect(&image).unwrap()
        };
        let expected = detect(EngineKind::Reference);
        assert!(!expected.is_empty() || !["chelsea.jpg", "astronaut.jpg"].contains(&name), "{name}");
        let found = detect(EngineKind::Cpu);
        assert_eq!(expected.len(), found.len(), "{name}");
        for (a, b) in expected.iter().zip(&found) {
            let corners = |bbox: BBox| bbox.corners();
            let is_near = corners(a.bbox).iter().zip(corners(b.bbox)).all(|(a, b)| (a - b).abs() < 0.05);
            assert!(
                a.class == b.class && (a.confidence - b.confidence).abs() < 1e-4 && is_near,
                "{name}: {a:?}, {b:?}"
            );
        }
    }
}
