use naga::back;
use naga::valid::{Capabilities, ValidationFlags, Validator};

use super::{BLOCK_TILES, Shader, ShaderFeatures, UNIT_TILES};

/// Values of the `override` constants that some pipeline uses, all combinations that matter.
fn constants_of(shader: Shader) -> Vec<Vec<(&'static str, f64)>> {
    let windows = [(3.0, 1.0), (3.0, 2.0), (5.0, 1.0), (5.0, 2.0), (7.0, 1.0), (7.0, 2.0)];
    match shader {
        Shader::Convolution => windows.map(|(kernel, stride)| vec![("KERNEL", kernel), ("STRIDE", stride)]).to_vec(),
        Shader::Depthwise => {
            with_either("DOUBLED", windows.map(|(kernel, stride)| vec![("KERNEL", kernel), ("STRIDE", stride)]))
        }
        Shader::Separable => {
            let windows = windows.map(|(kernel, stride)| vec![("KERNEL", kernel), ("STRIDE", stride)]);
            with_either("GHOST", with_either("DOUBLED", windows))
        }
        Shader::Unit => {
            let tiles = UNIT_TILES.map(|(x, y)| vec![("TILE_WIDTH", x as f64), ("TILE_HEIGHT", y as f64)]);
            with_either("GHOST", with_either("DOUBLED", tiles))
        }
        Shader::Pointwise => with_either("DOUBLED", with_either("GATED", [Vec::new()])),
        Shader::Block => BLOCK_TILES
            .into_iter()
            .flat_map(|tile| {
                [0.0, 1.0, 2.0, 3.0]
                    .map(|similarity| vec![("TILE", tile as f64), ("SIMILARITY", similarity), ("HEAD", 16.0)])
            })
            .collect(),
        Shader::AttentionState | Shader::AttentionQuery => {
            [0.0, 1.0, 2.0, 3.0].map(|similarity| vec![("SIMILARITY", similarity), ("HEAD", 16.0)]).to_vec()
        }
        Shader::Softmax => vec![vec![("HEAD", 32.0)]],
        Shader::Route => with_either("EQUAL", [1.0, 2.0].map(|active| vec![("ACTIVE", active)])),
        Shader::Letterbox => [0.0, 1.0, 2.0, 3.0].map(|format| vec![("FORMAT", format)]).to_vec(),
        _ => vec![Vec::new()],
    }
}

/// The same with a constant that is 0, and with one that is 1.
fn with_either(
    name: &'static str,
    constants: impl IntoIterator<Item = Vec<(&'static str, f64)>>,
) -> Vec<Vec<(&'static str, f64)>> {
    let with = |constants: Vec<_>| [0.0, 1.0].map(|value| [constants.clone(), vec![(name, value)]].concat());
    constants.into_iter().flat_map(with).collect()
}

/// No GPU takes part: the same checks and translations that drivers would ask for.
#[test]
fn shaders_are_valid_and_translate_to_every_language() {
    for &shader in Shader::ALL {
        for features in ShaderFeatures::ALL.into_iter().filter(|&features| shader.relevant(features) == features) {
            let source = shader.source(features);
            let name = shader.name();
            let module = naga::front::wgsl::parse_str(&source)
                .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(&source)));
            // No capability beyond WebGPU's core, but what the features name.
            let mut capabilities = Capabilities::empty();
            capabilities.set(Capabilities::SHADER_FLOAT16, features.half);
            capabilities.set(Capabilities::SUBGROUP, features.subgroups);
            let info = Validator::new(ValidationFlags::all(), capabilities)
                .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
                .subgroup_operations(naga::valid::SubgroupOperationSet::all())
                .validate(&module)
                .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(&source)));
            assert!(
                module.entry_points.iter().any(|entry| entry.name == name),
                "{name} has no entry point of its name"
            );
            for constants in constants_of(shader) {
                let constants = constants.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
                let entry = Some((naga::ShaderStage::Compute, name));
                let (module, info) = back::pipeline_constants::process_overrides(&module, &info, entry, &constants)
                    .unwrap_or_else(|error| panic!("{name}: {error:?}"));
                translate(name, &module, &info, features);
            }
        }
    }
}

#[test]
fn every_shader_is_listed_and_every_import_is_used() {
    let names = |folder: &str| -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let wgsl = entries.filter(|path| path.extension().is_some_and(|extension| extension == "wgsl"));
        wgsl.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
    };
    for name in names(".") {
        assert!(Shader::ALL.iter().any(|shader| shader.name() == name), "shaders/{name}.wgsl is not in the table");
    }
    let text = include_str!("lib.rs");
    for name in names("shared") {
        assert!(text.contains(&format!("{name:?}")), "shaders/shared/{name}.wgsl is never imported");
    }
}

fn translate(name: &str, module: &naga::Module, info: &naga::valid::ModuleInfo, features: ShaderFeatures) {
    let stage = naga::ShaderStage::Compute;
    let pipeline = back::spv::PipelineOptions { entry_point: name.into(), shader_stage: stage };
    // Vulkan 1.1 has subgroups, as wgpu asks for them.
    let options = back::spv::Options { lang_version: (1, 3), ..Default::default() };
    back::spv::write_vec(module, info, &options, Some(&pipeline))
        .unwrap_or_else(|error| panic!("{name} as SPIR-V: {error:?}"));

    let pipeline = back::msl::PipelineOptions { entry_point: Some((stage, name.into())), ..Default::default() };
    let options = back::msl::Options { fake_missing_bindings: true, lang_version: (2, 4), ..Default::default() };
    back::msl::write_string(module, info, &options, &pipeline)
        .unwrap_or_else(|error| panic!("{name} as Metal: {error:?}"));

    let shader_model = if features == ShaderFeatures::default() {
        back::hlsl::ShaderModel::V5_1
    } else {
        back::hlsl::ShaderModel::V6_2
    };
    let options = back::hlsl::Options { fake_missing_bindings: true, shader_model, ..Default::default() };
    let pipeline = back::hlsl::PipelineOptions { entry_point: Some((stage, name.into())) };
    let mut text = String::new();
    back::hlsl::Writer::new(&mut text, &options, &pipeline)
        .write(module, info, None)
        .unwrap_or_else(|error| panic!("{name} as HLSL: {error:?}"));

    if features != ShaderFeatures::default() {
        // OpenGL ES offers neither feature.
        return;
    }
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
