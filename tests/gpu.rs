//! The GPU's whole pipeline, from pixels to detections, against the reference engine and our letterbox on the CPU.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use std::sync::Arc;

use image::RgbImage;
use ndarray::{Array4, ArrayView3, Axis, s};
use yolo_lat::detector::AttentionOptions;
use yolo_lat::engine::gpu::{Gpu, GpuEngine, GpuOptions, PixelFormat, RawImage, ShaderFeatures, wgpu};
use yolo_lat::engine::reference::ReferenceEngine;
use yolo_lat::engine::{Engine, EngineError, EngineKind};
use yolo_lat::geometry::Letterbox;
use yolo_lat::model::Precision;
use yolo_lat::model::config::{HeadConfig, KernelKind, STRIDES};
use yolo_lat::model::graph::Mixing;
use yolo_lat::postprocess::{PostprocessOptions, decode, decode_box, suppress};
use yolo_lat::preprocess::Preprocessor;
use yolo_lat::source::open_image;
use yolo_lat::{Detection, Detector, DetectorOptions, InputSize, Model, Runtime, RuntimeOptions};

const PLAIN: ShaderFeatures = ShaderFeatures { half: false, subgroups: false };

/// Differences at which two sets of detections are the same.
struct Limits {
    pixels: f32,
    confidence: f32,
}

/// In 32 bits.
const SAME: Limits = Limits { pixels: 0.5, confidence: 0.005 };

/// Letterboxes, and detections of the reference in network pixels.
fn expected(
    reference: &mut ReferenceEngine,
    model: &Model,
    images: &[&RgbImage],
    options: &PostprocessOptions,
) -> Vec<(Letterbox, Vec<Detection>)> {
    let shape = reference.input();
    let mut input = Array4::zeros((images.len(), 3, shape.height, shape.width));
    let mut preprocessor = Preprocessor::default();
    let letterboxes: Vec<Letterbox> = images
        .iter()
        .zip(input.outer_iter_mut())
        .map(|(image, target)| preprocessor.apply(image, target).unwrap())
        .collect();
    let outputs = reference.run(input.view()).unwrap();
    letterboxes
        .into_iter()
        .enumerate()
        .map(|(index, letterbox)| {
            let at = ndarray::Axis(0);
            let scales = STRIDES
                .iter()
                .zip(outputs.chunks_exact(2))
                .map(|(&stride, output)| (stride, output[0].index_axis(at, index), output[1].index_axis(at, index)));
            (letterbox, suppress(decode(scales, model.config.head, options), options))
        })
        .collect()
}

fn views<'a>(images: &[&'a RgbImage]) -> Vec<RawImage<'a>> {
    let view =
        |image: &&'a RgbImage| RawImage { size: image.dimensions(), format: PixelFormat::Rgb, bytes: image.as_raw() };
    images.iter().map(view).collect()
}

fn assert_same(name: &str, expected: &[Detection], found: &[Detection], threshold: f32, limits: &Limits) {
    let same = |a: &Detection, b: &Detection| {
        let (p, q) = (a.bbox, b.bbox);
        let boxes = [(p.x1, q.x1), (p.y1, q.y1), (p.x2, q.x2), (p.y2, q.y2)];
        a.class == b.class
            && (a.confidence - b.confidence).abs() <= limits.confidence
            && boxes.iter().all(|(a, b)| (a - b).abs() <= limits.pixels)
    };
    // Each has a partner: two of nearly equal confidence may stand in another order. What lies as near to the threshold as
    // the confidences may differ can fall to either side of it.
    let sure = |a: &&Detection| a.confidence >= threshold + limits.confidence;
    for a in expected.iter().filter(sure) {
        assert!(found.iter().any(|b| same(a, b)), "{name}: {a:?} is not among {found:#?}");
    }
    for b in found.iter().filter(sure) {
        assert!(expected.iter().any(|a| same(a, b)), "{name}: {b:?} is not among {expected:#?}");
    }
    let count = |detections: &[Detection]| detections.iter().filter(sure).count();
    let unsure = expected.len() + found.len() - count(expected) - count(found);
    assert!(expected.len().abs_diff(found.len()) <= unsure, "{name}: {expected:#?}\n{found:#?}");
}

fn samples() -> Vec<(String, RgbImage)> {
    let mut paths: Vec<_> = std::fs::read_dir("assets").unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jpg"));
    paths.sort();
    assert!(paths.len() >= 4);
    paths.into_iter().map(|path| (path.display().to_string(), open_image(&path).unwrap())).collect()
}

/// A sample photograph cut and stretched at random: odd sizes, real contents.
fn random_crop(samples: &[(String, RgbImage)], seed: &mut u32) -> RgbImage {
    let mut next = |most: u32| {
        *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (*seed >> 8) % most
    };
    let (_, image) = &samples[next(samples.len() as u32) as usize];
    let (width, height) = image.dimensions();
    let (left, top) = (next(width / 2), next(height / 2));
    let (w, h) = (1 + next(width - left), 1 + next(height - top));
    let crop = image::imageops::crop_imm(image, left, top, w, h).to_image();
    let (w, h) = (1 + next(500), 1 + next(500));
    image::imageops::resize(&crop, w | 1, h | 1, image::imageops::FilterType::Triangle)
}

fn compare(
    gpu: &Arc<Gpu>,
    model: &Model,
    size: (usize, usize),
    images: &[(String, RgbImage)],
    limits: &Limits,
    options: &PostprocessOptions,
) -> usize {
    let network = model.network(size.0, size.1).unwrap();
    let mut reference = ReferenceEngine::new(network.clone());
    let mut engine = GpuEngine::on(gpu.clone(), &network).unwrap();
    let mut objects = 0;
    for (name, image) in images {
        let expected = expected(&mut reference, model, &[image], options);
        let found = engine.detect(&views(&[image]), options).unwrap();
        assert_eq!(expected[0].0, found[0].0, "{name}: letterbox");
        let name = format!("{name} at {}x{}", size.0, size.1);
        assert_same(&name, &expected[0].1, &found[0].1, options.confidence, limits);
        objects += found[0].1.len();
    }
    objects
}

#[test]
fn detections_are_those_of_the_reference_on_sample_photographs() {
    let gpu = common::open_gpu(PLAIN);
    for name in ["n", "s"] {
        let model = Model::load(name).unwrap();
        assert!(compare(&gpu, &model, (320, 320), &samples(), &SAME, &Default::default()) >= 3);
    }
}

#[test]
fn detections_are_those_of_the_reference_on_images_of_odd_sizes() {
    let gpu = common::open_gpu(PLAIN);
    let (samples, mut seed) = (samples(), 2);
    let images: Vec<_> = (0..50)
        .map(|index| {
            let image = random_crop(&samples, &mut seed);
            (format!("random image {index}, {}x{}", image.width(), image.height()), image)
        })
        .collect();
    assert!(compare(&gpu, &Model::load("n").unwrap(), (320, 320), &images, &SAME, &Default::default()) >= 20);
}

#[test]
fn other_input_sizes_give_the_same_too() {
    let gpu = common::open_gpu(PLAIN);
    let model = Model::load("n").unwrap();
    assert!(compare(&gpu, &model, (416, 320), &samples(), &SAME, &Default::default()) >= 2);
    assert!(compare(&gpu, &model, (640, 640), &samples()[..2], &SAME, &Default::default()) >= 1);
}

#[test]
fn a_batch_of_four_gives_what_its_images_do() {
    let gpu = common::open_gpu(PLAIN);
    let model = Model::load("n").unwrap();
    let network = model.network(320, 320).unwrap();
    let mut reference = ReferenceEngine::new(network.clone());
    let mut engine = GpuEngine::on(gpu, &network).unwrap();
    let samples = samples();
    let images: Vec<&RgbImage> = samples.iter().map(|(_, image)| image).take(4).collect();
    let options = PostprocessOptions { confidence: 0.1, ..PostprocessOptions::default() };
    let expected = expected(&mut reference, &model, &images, &options);
    // Again with another order: nothing of the last batch stays.
    for order in [[0, 1, 2, 3], [3, 1, 0, 2]] {
        let these: Vec<&RgbImage> = order.iter().map(|&index| images[index]).collect();
        let found = engine.detect(&views(&these), &options).unwrap();
        for (&index, found) in order.iter().zip(&found) {
            assert_same(&samples[index].0, &expected[index].1, &found.1, options.confidence, &SAME);
        }
    }
}

/// Most that 16-bit tiles may change a logit: 0.01 of a probability, where that is steepest.
const LOGIT: f32 = 0.04;

/// How far the edges of a cell's box move, in pixels, if each of its logits is off by `LOGIT`. A distance is the expectation E of
/// its bins, whose derivative by logit b is `p_b (b - E)`: the mean deviation of the distribution decides, so a limit in
/// pixels would be lax for the sure edges of small objects and too strict for the vague ones of large objects.
fn edge_limits(logits: &ArrayView3<f32>, (row, column): (usize, usize), stride: usize, head: HeadConfig) -> [f32; 4] {
    let step = head.max_distance / (head.bins - 1) as f32 * stride as f32;
    [0, 1, 2, 3].map(|side| {
        let weights: Vec<f32> = (0..head.bins).map(|bin| logits[(side * head.bins + bin, row, column)].exp()).collect();
        let mean = |of: &dyn Fn(f32) -> f32| {
            let sum: f32 = weights.iter().enumerate().map(|(bin, weight)| weight * of(bin as f32)).sum();
            sum / weights.iter().sum::<f32>()
        };
        let middle = mean(&|bin| bin);
        LOGIT * step * mean(&|bin| (bin - middle).abs())
    })
}

/// 16-bit tiles round what products are made of. Cells that see an object must see the same one, and the detector must
/// find what these logits say (before suppression: of two boxes as sure as each other, either may suppress the other).
#[test]
fn half_precision_finds_the_same_objects() {
    let gpu = common::open_gpu(ShaderFeatures { half: true, subgroups: true });
    assert!(gpu.features().half, "{} has no 16-bit floats", gpu.name());
    let options = PostprocessOptions { iou: 1.0, ..PostprocessOptions::default() };
    for model in ["n", "s"].map(|name| Model::load(name).unwrap()) {
        let (network, head) = (model.network(320, 320).unwrap(), model.config.head);
        let mut reference = ReferenceEngine::new(network.clone());
        let mut engine = GpuEngine::on(gpu.clone(), &network).unwrap();
        let (mut cells, mut worst) = (0, 0.0f32);
        for (name, image) in samples() {
            let mut input = Array4::zeros((1, 3, 320, 320));
            Preprocessor::default().apply(&image, input.index_axis_mut(Axis(0), 0)).unwrap();
            let expected = reference.run(input.view()).unwrap();
            let found = engine.run(input.view()).unwrap();
            let scales: Vec<_> = STRIDES
                .iter()
                .zip(found.chunks_exact(2))
                .map(|(&stride, pair)| (stride, pair[0].index_axis(Axis(0), 0), pair[1].index_axis(Axis(0), 0)))
                .collect();
            for ((stride, class, boxes), expected) in scales.iter().zip(expected.chunks_exact(2)) {
                let [wanted_class, wanted_boxes] = [0, 1].map(|index| expected[index].index_axis(Axis(0), 0));
                let (_, rows, columns) = class.dim();
                for cell in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                    let at = s![.., cell.0, cell.1];
                    let best = wanted_class.slice(at).fold(f32::NEG_INFINITY, |best, &logit| best.max(logit));
                    if 1.0 / (1.0 + (-best).exp()) < options.confidence {
                        continue;
                    }
                    cells += 1;
                    for (a, b) in wanted_class.slice(at).iter().zip(class.slice(at)) {
                        // What is impossible may be a little more or less so.
                        if *a > -5.0 {
                            worst = worst.max((a - b).abs());
                            assert!((a - b).abs() <= LOGIT, "{name}: stride {stride}, cell {cell:?}: class {a} {b}");
                        }
                    }
                    let a = decode_box(&wanted_boxes, cell.0, cell.1, *stride, head);
                    let b = decode_box(boxes, cell.0, cell.1, *stride, head);
                    let edges = [(a.x1, b.x1), (a.y1, b.y1), (a.x2, b.x2), (a.y2, b.y2)];
                    let limits = edge_limits(&wanted_boxes, cell, *stride, head);
                    for ((a, b), limit) in edges.into_iter().zip(limits) {
                        assert!(
                            (a - b).abs() <= limit,
                            "{name}: stride {stride}, cell {cell:?}: {a} {b}, limit {limit}"
                        );
                    }
                }
            }
            let expected = suppress(decode(scales.into_iter(), head, &options), &options);
            let found = engine.detect(&views(&[&image]), &options).unwrap();
            assert_same(&name, &expected, &found[0].1, options.confidence, &SAME);
        }
        eprintln!("{}: {cells} cells, largest difference of a class logit {worst}", model.config.name);
        assert!(cells >= 20);
    }
}

#[test]
fn two_detectors_in_two_threads_share_one_device() {
    let gpu = common::open_gpu(PLAIN);
    let samples = samples();
    let options = PostprocessOptions::default();
    let run = |name: &str, size: usize, rounds: usize| -> Vec<Vec<(Letterbox, Vec<Detection>)>> {
        let model = Model::load(name).unwrap();
        let mut engine = GpuEngine::on(gpu.clone(), &model.network(size, size).unwrap()).unwrap();
        (0..rounds)
            .flat_map(|_| &samples)
            .map(|(_, image)| engine.detect(&views(&[image]), &options).unwrap())
            .collect()
    };
    let alone = [run("n", 320, 1), run("s", 160, 1)];
    let together = std::thread::scope(|scope| {
        let threads = [scope.spawn(|| run("n", 320, 4)), scope.spawn(|| run("s", 160, 4))];
        threads.map(|thread| thread.join().unwrap())
    });
    for (alone, together) in alone.iter().zip(&together) {
        assert!(together.chunks(alone.len()).all(|round| round == alone), "a thread saw another's results");
    }
}

#[test]
fn a_texture_of_the_same_device_gives_the_same_detections() {
    let gpu = common::open_gpu(PLAIN);
    let model = Model::load("n").unwrap();
    let mut engine = GpuEngine::on(gpu.clone(), &model.network(320, 320).unwrap()).unwrap();
    let options = PostprocessOptions::default();
    for (name, image) in samples() {
        let expected = engine.detect(&views(&[&image]), &options).unwrap();
        let rgba = image::DynamicImage::from(image).into_rgba8();
        let size = rgba.dimensions();
        let texture = gpu.image_texture(size);
        gpu.write_texture(&texture, size, rgba.as_raw());
        let view = texture.create_view(&wgpu::TextureViewDescriptor::default());
        let (letterbox, found) = engine.detect_texture(&view, size, &options).unwrap();
        assert_eq!(letterbox, expected[0].0);
        assert_same(&name, &expected[0].1, &found, options.confidence, &Limits { pixels: 0.01, confidence: 1e-4 });
    }
}

#[test]
fn a_too_large_input_names_the_limit() {
    let gpu = common::open_gpu(PLAIN);
    let model = Model::load("n").unwrap();
    let mut engine = GpuEngine::on(gpu, &model.network(32, 32).unwrap()).unwrap();
    // More than any buffer can hold; the bytes are never touched.
    let image = RawImage { size: (65_535, 65_535), format: PixelFormat::Rgb, bytes: &[0; 4] };
    let error = engine.detect(&[image], &PostprocessOptions::default()).unwrap_err();
    let EngineError::Device { reason } = &error else { panic!("{error:?}") };
    assert!(reason.contains("max_storage_buffer_binding_size"), "{reason}");
    assert!(!engine.gpu().is_lost(), "a device is not lost for an image it cannot hold");
}

#[test]
fn warm_frames_make_nothing_and_a_lost_device_is_replaced_once() {
    let gpu = common::open_gpu(PLAIN);
    // A new device is opened as the options say.
    let adapter = gpu.name().split(" (").next().map(str::to_owned);
    let gpu = GpuOptions { adapter, ..GpuOptions::default() };
    let runtime = Runtime::new(RuntimeOptions { gpu, ..RuntimeOptions::default() });
    let model = Model::load("n").unwrap();
    let image = open_image("assets/chelsea.jpg").unwrap();
    let options = DetectorOptions { engine: EngineKind::Gpu, ..Default::default() };
    let mut detector = Detector::of_model(&model, &runtime, &options).unwrap();
    let found = detector.detect(&image).unwrap();
    assert!(!found.is_empty());
    let device = detector.gpu().unwrap().device().clone();
    let made = device.created();
    for _ in 0..3 {
        assert_eq!(detector.detect(&image).unwrap(), found);
    }
    assert_eq!(device.created(), made, "a warm frame made buffers or pipelines");

    device.destroy();
    assert_eq!(detector.detect(&image).unwrap(), found);
    let second = detector.gpu().expect("a new device").device().clone();
    assert!(!Arc::ptr_eq(&device, &second));
    second.destroy();
    let on_cpu = detector.detect(&image).unwrap();
    assert!(detector.gpu().is_none(), "{}", detector.description());
    assert_eq!(on_cpu.len(), found.len());
}

/// Of a frame, the detections are read back; where attention is watched, its queries, keys and values besides.
#[test]
fn only_what_is_asked_for_is_read_back() {
    let runtime = Runtime::default().with_gpu(common::open_gpu(PLAIN));
    let (model, image) = (Model::load("n").unwrap(), open_image("assets/chelsea.jpg").unwrap());
    let read_of_a_frame = |watched: Option<usize>| {
        let attention = AttentionOptions { watched, ..AttentionOptions::default() };
        let size = InputSize::Fixed(160, 160);
        let options = DetectorOptions { engine: EngineKind::Gpu, attention, size, ..DetectorOptions::default() };
        let mut detector = Detector::of_model(&model, &runtime, &options).unwrap();
        let device = detector.gpu().unwrap().device().clone();
        let before = device.bytes_read();
        detector.detect(&image).unwrap();
        if watched.is_some() {
            assert_eq!(detector.queries_keys_values().unwrap().dim(), (96, 10, 10));
        }
        device.bytes_read() - before
    };
    let detections = read_of_a_frame(None);
    // Room for 300 detections of 8 words, and for their number.
    assert_eq!(detections, 4 * 8 * 301);
    assert_eq!(read_of_a_frame(Some(1)), detections + 4 * 96 * 10 * 10);
}

/// What the window shows of attention is what the engines compute, whichever runs.
#[test]
fn engines_agree_on_attention_that_is_watched_or_changed() {
    let gpu = common::open_gpu(PLAIN);
    let runtime = Runtime::default().with_gpu(gpu);
    let model = Model::load("n").unwrap();
    let image = open_image("assets/chelsea.jpg").unwrap();
    let changes = [
        vec![],
        vec![(1, None)],
        vec![(0, Some(Mixing::Softmax))],
        vec![(0, Some(Mixing::Linear(KernelKind::SumDistance))), (1, None)],
    ];
    let mut first = None;
    for replaced in changes {
        let mut outcomes = Vec::new();
        for engine in [EngineKind::Cpu, EngineKind::Gpu] {
            let attention = AttentionOptions { replaced: replaced.clone(), watched: Some(1) };
            let (size, precision) = (InputSize::Fixed(160, 160), Some(Precision::F32));
            let options = DetectorOptions { engine, attention, size, precision, ..DetectorOptions::default() };
            let mut detector = Detector::of_model(&model, &runtime, &options).unwrap();
            let found = detector.detect(&image).unwrap();
            outcomes.push((found, detector.queries_keys_values().unwrap().clone()));
        }
        let [(found_cpu, cpu), (found_gpu, gpu)] = &outcomes[..] else { panic!("two engines") };
        assert_eq!((cpu.dim(), gpu.dim()), ((96, 10, 10), (96, 10, 10)));
        for (a, b) in cpu.iter().zip(gpu) {
            assert!((a - b).abs() < 1e-3, "{replaced:?}: {a}, {b}");
        }
        assert_eq!(found_cpu.len(), found_gpu.len(), "{replaced:?}");
        match &first {
            None => first = Some(cpu.clone()),
            // A change of the first layer is seen by the second.
            Some(first) if replaced.iter().any(|&(layer, _)| layer == 0) => assert_ne!(first, cpu),
            Some(first) => assert_eq!(first, cpu),
        }
    }
}
