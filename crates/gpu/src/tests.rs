use std::sync::Arc;

use image::RgbImage;
use ndarray::Array3;

use super::compile::{Job, Program};
use super::session::Session;
use super::{Clock, Gpu, GpuOptions, PixelFormat, RawImage, ShaderFeatures, wait};
use yolo_lat::preprocess::Preprocessor;
use yolo_lat_core::model::config::HeadConfig;
use yolo_lat_core::model::graph::{Op, Scale, Shape};
use yolo_lat_core::model::{CheckedGraph, Graph, Model};
use yolo_lat_shaders::Shader;

/// The best adapter, software ones last.
fn gpu() -> Arc<Gpu> {
    let software = GpuOptions { adapter: Some("llvmpipe".into()), ..GpuOptions::default() };
    let found = Gpu::open(&GpuOptions::default()).or_else(|_| Gpu::open(&software));
    Arc::new(found.unwrap_or_else(|error| panic!("{error}; `make test` installs Mesa's software adapter")))
}

/// A session that has nothing but an input, which is its output.
fn letterbox_session(gpu: Arc<Gpu>, width: usize, height: usize) -> Session {
    let mut graph = Graph::new("letterbox", Shape { channels: 3, height, width });
    graph.taps.push(0);
    wait(Session::new(gpu, Program::new(&graph.check().unwrap()).unwrap(), &[])).unwrap()
}

fn random_image(width: u32, height: u32) -> RgbImage {
    let mut seed = width * 31 + height;
    RgbImage::from_fn(width, height, |x, y| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = (seed >> 24) as u8 / 4;
        image::Rgb([noise + (x % 190) as u8, noise + (y % 190) as u8, noise + ((x / 8 + y / 8) % 2 * 190) as u8])
    })
}

#[test]
fn letterbox_agrees_with_the_cpu_in_all_sizes() {
    let gpu = gpu();
    let mut session = letterbox_session(gpu, 96, 64);
    for (width, height) in
        [(96, 64), (1, 1), (200, 150), (451, 300), (37, 500), (1, 300), (640, 2), (50, 20), (1920, 1080), (97, 61)]
    {
        let image = random_image(width, height);
        let mut expected = Array3::zeros((3, 64, 96));
        Preprocessor::default().apply(&image, expected.view_mut()).unwrap();
        let view = RawImage { size: (width, height), format: PixelFormat::Rgb, bytes: image.as_raw() };
        let found = wait(session.letterboxed(&[view])).unwrap().remove(0).remove(0);
        let off = expected.iter().zip(&found).filter(|(a, b)| (*a - *b).abs() > 1e-6).count();
        assert_eq!(off, 0, "{width}x{height}: {off} of {} values differ", found.len());
    }
}

#[test]
fn jobs_have_the_layout_of_the_shaders() {
    let source = Shader::Pointwise.source(ShaderFeatures::default());
    let module = naga::front::wgsl::parse_str(&source).unwrap();
    let (_, job) = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some("Job")).unwrap();
    let naga::TypeInner::Struct { members, span } = &job.inner else { panic!("Job is no struct") };
    assert_eq!(*span as usize, size_of::<Job>());
    let offset = |name: &str| members.iter().find(|m| m.name.as_deref() == Some(name)).map(|m| m.offset as usize);
    assert_eq!(offset("out_channels"), Some(std::mem::offset_of!(Job, out_channels)));
    assert_eq!(offset("window_residual"), Some(std::mem::offset_of!(Job, window_residual)));
    assert_eq!(offset("stride"), Some(std::mem::offset_of!(Job, stride)));
    assert_eq!(offset("extra_channels"), Some(std::mem::offset_of!(Job, extra_channels)));
}

#[test]
fn a_frame_takes_few_dispatches() {
    for (name, most, most_apart) in
        [("n", 44, 75), ("s", 54, 75), ("../../tests/golden/bootstrap/yolo-lat-n.toml", 39, 58)]
    {
        let model = Model::load(name).unwrap();
        let plan = Program::new(&model.graph(320, 320).unwrap()).unwrap();
        // And the letterbox.
        let dispatches = plan.steps.len() + 1;
        assert!(dispatches <= most, "{name}: {dispatches} dispatches");
        let graph = model.graph(320, 320).unwrap();
        let all: usize = graph.nodes.iter().filter(|node| !node.op.is_view()).map(|node| node.shape.values()).sum();
        assert!(plan.image_stride < all / 3, "{name}: feature maps do not share memory");
        let arithmetic: u64 = plan.steps.iter().map(|step| step.multiply_adds).sum();
        assert_eq!(arithmetic, graph.multiply_adds(), "{name}: something is computed twice or not at all");
        // As on OpenGL: more dispatches, the same work.
        let apart = Program::with_units(&graph, false).unwrap();
        let dispatches_apart = apart.steps.len() + 1;
        assert!(
            dispatches_apart > dispatches && dispatches_apart <= most_apart,
            "{name}: {dispatches_apart} dispatches"
        );
        assert_eq!(apart.steps.iter().map(|step| step.multiply_adds).sum::<u64>(), arithmetic);
    }
}

#[test]
fn images_of_cameras_become_the_same_input() {
    use yolo_lat_io::source::{rgb_from_nv12, rgb_from_yuyv};

    let gpu = gpu();
    let mut session = letterbox_session(gpu, 96, 64);
    for (width, height) in [(90u32, 61u32), (320, 240), (7, 3)] {
        let mut input = |format: PixelFormat, bytes: &[u8]| {
            assert_eq!(bytes.len(), format.bytes(width, height));
            wait(session.letterboxed(&[RawImage { size: (width, height), format, bytes }])).unwrap().remove(0).remove(0)
        };
        let image = random_image(width, height);
        let rgb = input(PixelFormat::Rgb, image.as_raw());
        let rgba: Vec<u8> = image.pixels().flat_map(|pixel| [pixel[0], pixel[1], pixel[2], 7]).collect();
        assert_eq!(input(PixelFormat::Rgba, &rgba), rgb);
        let noise = |count: usize| random_image(count as u32, 1).into_raw()[..count].to_vec();
        for format in [PixelFormat::Nv12, PixelFormat::Yuyv] {
            let bytes = noise(format.bytes(width, height));
            let found = input(format, &bytes);
            let twin = match format {
                PixelFormat::Nv12 => rgb_from_nv12(&bytes, width, height),
                _ => rgb_from_yuyv(&bytes, width, height),
            };
            let expected = input(PixelFormat::Rgb, twin.unwrap().as_raw());
            let steps = found.iter().zip(&expected).map(|(a, b)| ((a - b) * 255.0).abs());
            let (worst, off) = steps.fold((0.0f32, 0), |(worst, off), x| (worst.max(x), off + usize::from(x > 0.1)));
            // Colours exactly between two steps may be rounded to either.
            assert!(worst < 1.1 && off < found.len() / 500, "{format:?} {width}x{height}: {worst} steps, {off} values");
        }
    }
}

/// A graph whose outputs are planes of its input: `classes` and 4 sides of `bins` at one scale.
fn head_graph(classes: usize, bins: usize, side: usize) -> CheckedGraph {
    // Every second plane is a class or a side, the rest is nothing: views must be followed.
    let mut graph = Graph::new("head", Shape { channels: 2 * classes.max(4 * bins), height: side, width: side });
    let class = graph.add("class", Op::Slice { start: 0, step: 2, count: classes }, &[0]);
    let boxes = graph.add("box", Op::Slice { start: 1, step: 2, count: 4 * bins }, &[0]);
    graph.scales = vec![Scale { stride: 8, class, boxes }];
    graph.head = HeadConfig { bins, max_distance: 7.0, shared: 0 };
    graph.check().unwrap()
}

#[test]
fn decoding_and_suppression_agree_with_their_twins() {
    use yolo_lat_core::postprocess::{Nms, PostprocessOptions, decode, suppress};

    let adapter = gpu().name();
    let adapter = adapter.split(" (").next().unwrap().to_owned();
    for variant in ShaderFeatures::ALL {
        let gpu = Arc::new(
            Gpu::open(&GpuOptions { adapter: Some(adapter.clone()), features: variant, cache: None }).unwrap(),
        );
        for (round, side) in [1usize, 5, 13, 20].into_iter().enumerate() {
            let (classes, bins) = (3 + 17 * (round % 2), 8);
            let graph = head_graph(classes, bins, side);
            let mut session = wait(Session::new(gpu.clone(), Program::new(&graph).unwrap(), &[])).unwrap();
            let mut seed = round as u32;
            let mut noise = || {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 8) as f32 / 4_194_304.0 - 2.0
            };
            let images: Vec<Vec<f32>> =
                (0..2).map(|_| (0..graph.input().values()).map(|_| 1.5 * noise()).collect()).collect();
            for options in [
                PostprocessOptions::default(),
                PostprocessOptions { multi_label: true, confidence: 0.6, ..Default::default() },
                PostprocessOptions { agnostic: true, iou: 0.3, max_detections: 7, ..Default::default() },
                PostprocessOptions { classes: Some(vec![0, 2]), ..Default::default() },
                PostprocessOptions { nms: Nms::Greedy, confidence: 0.5, ..Default::default() },
                PostprocessOptions { confidence: 1.0, ..Default::default() },
            ] {
                let views: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
                let found = wait(session.decoded(&views, &options)).unwrap();
                for (image, found) in images.iter().zip(found) {
                    let planes = Array3::from_shape_vec((graph.input().channels, side, side), image.clone()).unwrap();
                    let class = planes.slice(ndarray::s![..2 * classes;2, .., ..]).as_standard_layout().into_owned();
                    let boxes = planes.slice(ndarray::s![1..8 * bins;2, .., ..]).as_standard_layout().into_owned();
                    let scales = std::iter::once((8, class.view(), boxes.view()));
                    let expected = suppress(decode(scales, graph.head, &options), &options);
                    assert_eq!(expected.len(), found.len(), "{variant:?} {side} {options:?}");
                    for (a, b) in expected.iter().zip(&found) {
                        let near = |a: f32, b: f32| (a - b).abs() < 1e-3;
                        let boxes = [
                            (a.bbox.x1, b.bbox.x1),
                            (a.bbox.y1, b.bbox.y1),
                            (a.bbox.x2, b.bbox.x2),
                            (a.bbox.y2, b.bbox.y2),
                        ];
                        assert_eq!(a.class, b.class);
                        assert!((a.confidence - b.confidence).abs() < 1e-5);
                        assert!(boxes.iter().all(|&(a, b)| near(a, b)), "{a:?} {b:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn dispatches_are_timed_by_either_clock() {
    let gpu = gpu();
    let model = Model::load("n").unwrap();
    let network = model.network(64, 64).unwrap();
    let mut engine = super::GpuEngine::on(gpu.clone(), &network).unwrap();
    let image = random_image(80, 50);
    let view = [RawImage { size: (80, 50), format: PixelFormat::Rgb, bytes: image.as_raw() }];
    let options = yolo_lat_core::postprocess::PostprocessOptions { confidence: 0.05, ..Default::default() };
    let expected = engine.detect(&view, &options).unwrap();
    for wanted in [None, Some(Clock::Wall)] {
        let clock = engine.start_profile(wanted).unwrap();
        assert!(wanted.is_none() || clock == Clock::Wall);
        assert_eq!(engine.detect(&view, &options).unwrap(), expected);
        let times = engine.profile().unwrap();
        assert_eq!(times.len(), Program::new(&network).unwrap().steps.len() + 1);
        assert_eq!(times[0].name, "letterbox");
        assert!(times.iter().any(|time| !time.duration.is_zero()));
        assert!(times.windows(2).all(|pair| pair[0].start <= pair[1].start), "{clock:?}: {times:?}");
    }
}
