//! Arguments that several subcommands share, and how their texts become values.

use anyhow::Context;
use clap::{Args, ValueEnum};
use yolo_lat::engine::EngineKind;
use yolo_lat::engine::gpu::Variant;
use yolo_lat::engine::ort::{Provider, prefer_provider};
use yolo_lat::model::classes::find_class;
use yolo_lat::model::config::check_side;

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum EngineName {
    /// The fastest one this machine has
    Auto,
    /// Our own CPU engine
    Cpu,
    /// Compute shaders on a GPU
    Gpu,
    /// ONNX Runtime, if it is installed
    Ort,
    /// Naive loops, the measure of the others
    Reference,
}

impl From<EngineName> for EngineKind {
    fn from(name: EngineName) -> Self {
        match name {
            EngineName::Auto => Self::Auto,
            EngineName::Cpu => Self::Cpu,
            EngineName::Gpu => Self::Gpu,
            EngineName::Ort => Self::Ort,
            EngineName::Reference => Self::Reference,
        }
    }
}

/// What runs the network.
#[derive(Args, Clone, Debug)]
pub(super) struct EngineArguments {
    /// Model: n, s, or the path of a .toml, .safetensors or (with ONNX Runtime) .onnx file
    #[arg(short, long, default_value = "n")]
    pub(super) model: String,
    /// What computes the network
    #[arg(long, value_enum, default_value = "auto")]
    pub(super) engine: EngineName,
    #[command(flatten)]
    pub(super) devices: DeviceArguments,
    /// Input size in pixels, multiples of 32: 320 or 416x320 (width x height); default: the model's
    #[arg(long, value_name = "PIXELS", value_parser = parse_size)]
    pub(super) size: Option<(usize, usize)>,
    /// Threads; 0 means one for each core
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1024))]
    pub(super) threads: u16,
    /// Pictures computed together; default: as many as threads
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) batch: Option<u16>,
}

/// Whether a model is somebody's ONNX file.
pub(super) fn is_onnx(model: &str) -> bool {
    model.to_ascii_lowercase().ends_with(".onnx")
}

/// Which devices and libraries engines use.
#[derive(Args, Clone, Debug)]
pub(super) struct DeviceArguments {
    /// The shared library of ONNX Runtime; default: ORT_DYLIB_PATH, Python's onnxruntime, the system's folders
    #[arg(long, value_name = "FILE")]
    ort_lib: Option<std::path::PathBuf>,
    /// The GPU by a part of its name, software ones too (`yolo-lat devices` lists them); default: the best hardware
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// What ONNX Runtime computes on
    #[arg(long, value_enum, default_value = "cpu", value_name = "PROVIDER")]
    ort_provider: ProviderName,
    /// Which features of the GPU beyond WebGPU's core are used, where it has them
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FEATURES", default_value = "all")]
    gpu_features: Vec<GpuFeature>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ProviderName {
    /// The processor
    Cpu,
    /// NVIDIA's GPUs, where the library was built for them
    Cuda,
}

/// What kernels may use of an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum GpuFeature {
    /// Everything it offers
    All,
    /// Nothing: 32-bit floats, no subgroups
    None,
    /// 16-bit floats within workgroups
    F16,
    /// Operations of neighbouring threads
    Subgroups,
}

impl DeviceArguments {
    /// Whether the GPU was asked for by its name.
    fn names_gpu(&self) -> bool {
        self.adapter.is_some()
    }

    /// To be called before the first engine is made. A library that was named must be one.
    pub(super) fn apply(&self) -> anyhow::Result<()> {
        if self.adapter.is_some() {
            yolo_lat::engine::gpu::prefer_adapter(self.adapter.as_deref());
        }
        let asked = |feature| self.gpu_features.iter().any(|&given| given == feature || given == GpuFeature::All);
        let variant = Variant { half: asked(GpuFeature::F16), subgroups: asked(GpuFeature::Subgroups) };
        yolo_lat::engine::gpu::allow_features(variant);
        prefer_provider(match self.ort_provider {
            ProviderName::Cpu => Provider::Cpu,
            ProviderName::Cuda => Provider::Cuda,
        });
        if let Some(path) = &self.ort_lib {
            yolo_lat::engine::ort::load(Some(path)).context("--ort-lib")?;
        }
        Ok(())
    }
}

impl EngineArguments {
    /// What computes the network: naming an adapter asks for the GPU, found or not.
    pub(super) fn kind(&self) -> EngineKind {
        match self.engine {
            EngineName::Auto if self.devices.names_gpu() => EngineKind::Gpu,
            engine => engine.into(),
        }
    }

    /// Whether nothing was asked for.
    pub(super) fn is_usual(&self) -> bool {
        self.model == "n" && self.kind() == EngineKind::Auto && self.size.is_none() && self.threads == 0
    }

    pub(super) fn threads(&self) -> usize {
        match self.threads {
            0 => yolo_lat::engine::cpu::available_threads(),
            threads => usize::from(threads),
        }
    }

    pub(super) fn batch(&self) -> usize {
        self.batch.map_or_else(|| self.threads(), usize::from)
    }
}

pub(super) fn parse_size(text: &str) -> Result<(usize, usize), String> {
    let number = |text: &str| text.trim().parse::<usize>().map_err(|_| format!("{text:?} is not a number of pixels"));
    let (width, height) = match text.split_once('x') {
        Some((width, height)) => (number(width)?, number(height)?),
        None => (number(text)?, number(text)?),
    };
    check_side(width)?;
    check_side(height)?;
    Ok((width, height))
}

/// A number in 0..=1.
pub(super) fn parse_share(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        Ok(share) => Err(format!("expected a number from 0 to 1, found {share}")),
        Err(_) => Err(format!("expected a number from 0 to 1, found {text:?}")),
    }
}

/// Indices of the classes that were asked for; `None` for all.
pub(super) fn find_classes(wanted: &[String], classes: &[String]) -> anyhow::Result<Option<Vec<usize>>> {
    let mut indices = Vec::new();
    for name in wanted {
        let index = find_class(name, classes).context("--classes")?;
        if !indices.contains(&index) {
            indices.push(index);
        }
    }
    Ok((!wanted.is_empty()).then_some(indices))
}
