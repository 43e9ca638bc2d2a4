use naga::back;
use naga::valid::{Capabilities, ValidationFlags, Validator};

use std::sync::Arc;

use image::RgbImage;
use ndarray::Array3;

use super::plan::{Job, Plan};
use super::session::Session;
use super::shaders::Kernel;
use super::{Gpu, Picture, PixelFormat, prefer_adapter};
use crate::model::config::HeadConfig;
use crate::model::graph::{Node, Op, Scale, Shape};
use crate::model::{Graph, Model};
use crate::preprocess::Preprocessor;

/// The best adapter, software ones last; says so if there is none.
fn gpu() -> Option<Arc<Gpu>> {
    let found = Gpu::shared().or_else(|_| {
        prefer_adapter(Some("llvmpipe"));
        Gpu::shared()
    });
    found.inspect_err(|error| eprintln!("skipped: {error}; `make test` installs Mesa's software adapter")).ok()
}

/// A session that has nothing but an input, which is its output.
fn letterbox_session(gpu: Arc<Gpu>, width: usize, height: usize) -> Session {
    let shape = Shape { channels: 3, height, width };
    let input = Node { name: "input".into(), op: Op::Input, inputs: Vec::new(), shape };
    // Decoding asks for the shape of an input; a view has one and moves nothing.
    let all = Node { name: "all".into(), op: Op::Slice { start: 0, step: 1 }, inputs: vec![0], shape };
    let nodes = vec![input, all];
    let scales = vec![Scale { stride: 8, class: 1, boxes: 1 }];
    let graph = Graph { name: "letterbox".into(), nodes, scales, head: HeadConfig { bins: 2, max_distance: 1.0 } };
    Session::new(gpu, Plan::new(&graph), &[]).unwrap()
}

fn random_picture(width: u32, height: u32) -> RgbImage {
    let mut seed = width * 31 + height;
    RgbImage::from_fn(width, height, |x, y| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = (seed >> 24) as u8 / 4;
        image::Rgb([noise + (x % 190) as u8, noise + (y % 190) as u8, noise + ((x / 8 + y / 8) % 2 * 190) as u8])
    })
}

#[test]
fn letterbox_agrees_with_the_cpu_in_all_sizes() {
    let Some(gpu) = gpu() else { return };
    let mut session = letterbox_session(gpu, 96, 64);
    for (width, height) in [(96, 64), (1, 1), (200, 150), (451, 300), (37, 500), (1, 300), (640, 2), (50, 20)] {
        let picture = random_picture(width, height);
        let mut expected = Array3::zeros((3, 64, 96));
        Preprocessor::default().apply(&picture, expected.view_mut());
        let view = Picture { size: (width, height), format: PixelFormat::Rgb, bytes: picture.as_raw() };
        let found = session.letterboxed(&[view]).unwrap().remove(0).remove(0);
        let steps = expected.iter().zip(&found).map(|(a, b)| ((a - b) * 255.0).abs());
        let (worst, off) = steps.fold((0.0f32, 0), |(worst, off), x| (worst.max(x), off + usize::from(x > 0.1)));
        println!("{width}x{height}: at most {worst} steps, {off} of {}", found.len());
        // A weight that f32 rounds to the other side moves few values by one step.
        assert!(worst < 1.1 && off < found.len() / 1000, "{width}x{height}: {worst} steps, {off} values");
    }
}

/// Values of the `override` constants that some pipeline uses, all combinations that matter.
fn variants(kernel: Kernel) -> Vec<Vec<(&'static str, f64)>> {
    let windows = [(3.0, 1.0), (3.0, 2.0), (5.0, 1.0), (5.0, 2.0)];
    match kernel {
        Kernel::Convolution | Kernel::Depthwise | Kernel::Separable => {
            windows.map(|(kernel, stride)| vec![("KERNEL", kernel), ("STRIDE", stride)]).to_vec()
        }
        Kernel::Pointwise => vec![vec![("GATED", 0.0)], vec![("GATED", 1.0)]],
        Kernel::AttentionState | Kernel::AttentionQuery => {
            [0.0, 1.0, 2.0].map(|similarity| vec![("SIMILARITY", similarity), ("HEAD", 16.0)]).to_vec()
        }
        Kernel::Softmax => vec![vec![("HEAD", 32.0)]],
        Kernel::Letterbox => [0.0, 1.0, 2.0, 3.0].map(|format| vec![("FORMAT", format)]).to_vec(),
        _ => vec![Vec::new()],
    }
}

/// No GPU takes part: the same checks and translations that drivers would ask for.
#[test]
fn shaders_are_valid_and_translate_to_every_language() {
    for &kernel in Kernel::ALL {
        let source = kernel.source();
        let name = kernel.name();
        let module = naga::front::wgsl::parse_str(&source)
            .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(&source)));
        // No capability beyond WebGPU's core.
        let info = Validator::new(ValidationFlags::all(), Capabilities::empty())
            .validate(&module)
            .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(&source)));
        assert!(module.entry_points.iter().any(|entry| entry.name == name), "{name} has no entry point of its name");
        for constants in variants(kernel) {
            let constants = constants.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            let entry = Some((naga::ShaderStage::Compute, name));
            let (module, info) = back::pipeline_constants::process_overrides(&module, &info, entry, &constants)
                .unwrap_or_else(|error| panic!("{name}: {error:?}"));
            translate(name, &module, &info);
        }
    }
}

fn translate(name: &str, module: &naga::Module, info: &naga::valid::ModuleInfo) {
    let stage = naga::ShaderStage::Compute;
    let options = back::spv::PipelineOptions { entry_point: name.into(), shader_stage: stage };
    back::spv::write_vec(module, info, &back::spv::Options::default(), Some(&options))
        .unwrap_or_else(|error| panic!("{name} as SPIR-V: {error:?}"));

    let pipeline = back::msl::PipelineOptions { entry_point: Some((stage, name.into())), ..Default::default() };
    let options = back::msl::Options { fake_missing_bindings: true, ..Default::default() };
    back::msl::write_string(module, info, &options, &pipeline)
        .unwrap_or_else(|error| panic!("{name} as Metal: {error:?}"));

    let options = back::hlsl::Options { fake_missing_bindings: true, ..Default::default() };
    let pipeline = back::hlsl::PipelineOptions { entry_point: Some((stage, name.into())) };
    let mut text = String::new();
    back::hlsl::Writer::new(&mut text, &options, &pipeline)
        .write(module, info, None)
        .unwrap_or_else(|error| panic!("{name} as HLSL: {error:?}"));

    let options = back::glsl::Options {
        version: back::glsl::Version::Embedded { version: 310, is_webgl: false },
        ..Default::default()
    };
    let pipeline = back::glsl::PipelineOptions { shader_stage: stage, entry_point: name.into(), multiview: None };
    let mut text = String::new();
    let policies = naga::proc::BoundsCheckPolicies::default();
    back::glsl::Writer::new(&mut text, module, info, &options, &pipeline, policies)
        .and_then(|mut writer| writer.write())
        .unwrap_or_else(|error| panic!("{name} as GLSL ES: {error:?}"));
}

#[test]
fn jobs_have_the_layout_of_the_shaders() {
    let source = Kernel::Pointwise.source();
    let module = naga::front::wgsl::parse_str(&source).unwrap();
    let (_, job) = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some("Job")).unwrap();
    let naga::TypeInner::Struct { members, span } = &job.inner else { panic!("Job is no struct") };
    assert_eq!(*span as usize, size_of::<Job>());
    let offset = |name: &str| members.iter().find(|m| m.name.as_deref() == Some(name)).map(|m| m.offset as usize);
    assert_eq!(offset("out_channels"), Some(std::mem::offset_of!(Job, out_channels)));
    assert_eq!(offset("window_residual"), Some(std::mem::offset_of!(Job, window_residual)));
    assert_eq!(offset("stride"), Some(std::mem::offset_of!(Job, stride)));
}

#[test]
fn a_frame_of_n_takes_few_dispatches() {
    for (name, most) in [("n", 60), ("s", 60)] {
        let model = Model::load(name).unwrap();
        let plan = Plan::new(&model.graph(320, 320).unwrap());
        // And the letterbox.
        let dispatches = plan.steps.len() + 1;
        assert!(dispatches <= most, "{name}: {dispatches} dispatches");
        let graph = model.graph(320, 320).unwrap();
        let all: usize = graph.nodes.iter().filter(|node| !node.op.is_view()).map(|node| node.shape.values()).sum();
        assert!(plan.image_stride < all / 3, "{name}: feature maps do not share memory");
        let arithmetic: u64 = plan.steps.iter().map(|step| step.multiply_adds).sum();
        assert_eq!(arithmetic, graph.multiply_adds(), "{name}: something is computed twice or not at all");
    }
}

#[test]
fn pictures_of_cameras_become_the_same_input() {
    let Some(gpu) = gpu() else { return };
    let mut session = letterbox_session(gpu, 96, 64);
    let (width, height) = (90u32, 61u32);
    let grey = RgbImage::from_fn(width, height, |x, y| image::Rgb([(40 + x + y) as u8; 3]));
    let luma: Vec<u8> = grey.pixels().map(|pixel| (16.0 + f32::from(pixel[0]) / 1.164_384).round() as u8).collect();
    let mut input = |format: PixelFormat, bytes: &[u8]| {
        assert_eq!(bytes.len(), format.bytes(width, height));
        session.letterboxed(&[Picture { size: (width, height), format, bytes }]).unwrap().remove(0).remove(0)
    };
    let rgb = input(PixelFormat::Rgb, grey.as_raw());
    let rgba: Vec<u8> = grey.pixels().flat_map(|pixel| [pixel[0], pixel[1], pixel[2], 7]).collect();
    assert_eq!(input(PixelFormat::Rgba, &rgba), rgb);
    let mut nv12 = luma.clone();
    nv12.resize(PixelFormat::Nv12.bytes(width, height), 128);
    let yuyv: Vec<u8> = luma.iter().flat_map(|&luma| [luma, 128]).collect();
    for (format, bytes) in [(PixelFormat::Nv12, nv12), (PixelFormat::Yuyv, yuyv)] {
        let found = input(format, &bytes);
        // Luma has fewer steps than grey: half of one, 1.16 / 2, and a rounding.
        let worst = found.iter().zip(&rgb).map(|(a, b)| (a - b).abs() * 255.0).fold(0.0, f32::max);
        assert!(worst < 2.1, "{format:?}: {worst} steps");
    }
}

#[test]
fn warm_frames_make_nothing_and_a_lost_device_is_replaced_once() {
    let Some(_) = gpu() else { return };
    let model = Model::load("n").unwrap();
    let picture = crate::source::open_image("assets/chelsea.jpg").unwrap();
    let options = crate::DetectorOptions { engine: crate::engine::EngineKind::Gpu, ..Default::default() };
    let mut detector = crate::Detector::new(&model, &options).unwrap();
    let found = detector.detect(&picture).unwrap();
    assert!(!found.is_empty());
    let device = detector.gpu_engine().unwrap().gpu().clone();
    let made = device.created();
    for _ in 0..3 {
        assert_eq!(detector.detect(&picture).unwrap(), found);
    }
    assert_eq!(device.created(), made, "a warm frame made buffers or pipelines");

    let engine = detector.gpu_engine().unwrap();
    if engine.start_profile().is_ok() {
        detector.detect(&picture).unwrap();
        let times = detector.gpu_engine().unwrap().profile().unwrap();
        let plan = Plan::new(&model.graph(320, 320).unwrap());
        assert_eq!(times.len(), plan.steps.len() + 1);
        assert!(times.iter().any(|time| !time.duration.is_zero()));
    }

    device.destroy();
    assert_eq!(detector.detect(&picture).unwrap(), found);
    let second = detector.gpu_engine().expect("a new device").gpu().clone();
    assert!(!Arc::ptr_eq(&device, &second));
    second.destroy();
    let on_cpu = detector.detect(&picture).unwrap();
    assert!(detector.gpu_engine().is_none(), "{}", detector.description());
    assert_eq!(on_cpu.len(), found.len());
}
