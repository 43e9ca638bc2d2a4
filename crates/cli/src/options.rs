//! Arguments that several subcommands share, and how their texts become values.

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use yolo_lat::InputSize;
use yolo_lat::engine::EngineKind;
use yolo_lat::engine::gpu::Variant;
use yolo_lat::engine::ort::{Provider, prefer_provider};
use yolo_lat::foreign::{
    Layout, OnnxOptions, PreprocessingChanges, parse_border, parse_channels, parse_class_names, parse_deviations,
    parse_fit, parse_order, parse_scale,
};
use yolo_lat::geometry::Fit;
use yolo_lat::model::classes::find_class;
use yolo_lat::model::config::check_side;
use yolo_lat::preprocess::ChannelOrder;

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
    /// Input size in pixels, multiples of 32: 320 means as many pixels as 320 x 320 in the shape of each picture (16:9: 416x256, 4:3:
    /// 384x288), 416x256 (width x height) is the same for all pictures; default: the model's
    #[arg(long, value_name = "PIXELS", value_parser = parse_input_size)]
    size: Option<InputSize>,
    /// A square input for every picture, the rest of it grey
    #[arg(long)]
    square: bool,
    /// Threads; 0 means one for each core
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1024))]
    pub(super) threads: u16,
    /// Pictures taken together, those of one shape computed together; default: four for each thread
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) batch: Option<u16>,
    #[command(flatten)]
    onnx: OnnxArguments,
}

/// What a person says of somebody's ONNX file: a value of its metadata with an option's name counts too, and before what is
/// customary.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Other people's ONNX networks (docs/MODELS.md)")]
struct OnnxArguments {
    /// How the outputs are read; default: recognised by shapes and metadata, -v says as what
    #[arg(long, value_parser = layout_parser())]
    layout: Option<Layout>,
    /// How a picture fills the input: letterbox (centred), top-left (letterboxed from there), stretch; default: as the
    /// network's family was trained, here and below
    #[arg(long, value_parser = parse_fit)]
    fit: Option<Fit>,
    /// Grey around a letterboxed picture, 0 to 255
    #[arg(long, value_name = "GREY", value_parser = parse_border)]
    border: Option<u8>,
    /// Order of the channels: rgb or bgr
    #[arg(long, value_parser = parse_order)]
    order: Option<ChannelOrder>,
    /// A byte b becomes (b / SCALE - MEAN) / STD: 255 for numbers in 0..1, 1 for 0..255
    #[arg(long, value_parser = parse_scale)]
    scale: Option<f32>,
    /// Mean of each channel in the order of the input, or one for all: 103.53,116.28,123.675
    #[arg(long, value_parser = parse_channels, allow_hyphen_values = true)]
    mean: Option<[f32; 3]>,
    /// Deviation of each channel, or one for all
    #[arg(long, value_parser = parse_deviations)]
    std: Option<[f32; 3]>,
    /// Names of the classes: a file with a name a line, names with commas between them, or coco
    #[arg(long, value_name = "NAMES")]
    names: Option<String>,
    /// Boxes vote for the one that suppresses them, as those of our own models do unless --no-merge: an unconfirmed box of
    /// confidence 0.9 comes out with 0.81. Thresholds of other people's networks are not made for that, so theirs do not vote
    #[arg(long, conflicts_with = "no_merge")]
    merge: bool,
}

fn layout_parser() -> impl clap::builder::TypedValueParser<Value = Layout> {
    use clap::builder::{PossibleValuesParser, TypedValueParser};
    PossibleValuesParser::new(Layout::ALL.map(|(name, _)| name))
        .try_map(|name| Layout::find(&name).ok_or_else(|| format!("no layout {name:?}")))
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

    /// How somebody's ONNX file is read. An option that does nothing for a model of ours is an error.
    pub(super) fn onnx(&self) -> anyhow::Result<OnnxOptions> {
        let OnnxArguments { layout, fit, border, order, scale, mean, std, names, merge } = &self.onnx;
        let given = [
            ("--layout", layout.is_some()),
            ("--fit", fit.is_some()),
            ("--border", border.is_some()),
            ("--order", order.is_some()),
            ("--scale", scale.is_some()),
            ("--mean", mean.is_some()),
            ("--std", std.is_some()),
            ("--names", names.is_some()),
        ];
        if let Some((option, _)) = given.iter().find(|(_, given)| *given && !is_onnx(&self.model)) {
            bail!("{option} is for ONNX files; {} is a model of ours", self.model);
        }
        Ok(OnnxOptions {
            layout: *layout,
            preprocessing: PreprocessingChanges {
                fit: *fit,
                border: *border,
                order: *order,
                scale: *scale,
                mean: *mean,
                deviation: *std,
            },
            names: names.as_deref().map(parse_class_names).transpose()?,
            merge: *merge,
        })
    }

    /// Whether nothing was asked for.
    pub(super) fn is_usual(&self) -> bool {
        self.model == "n" && self.kind() == EngineKind::Auto && self.size.is_none() && !self.square && self.threads == 0
    }

    pub(super) fn threads(&self) -> usize {
        match self.threads {
            0 => yolo_lat::engine::cpu::available_threads(),
            threads => usize::from(threads),
        }
    }

    pub(super) fn batch(&self) -> usize {
        self.batch.map_or_else(|| 4 * self.threads(), usize::from)
    }

    pub(super) fn size(&self) -> anyhow::Result<InputSize> {
        match self.size {
            Some(size @ InputSize::Fixed(..)) if self.square => {
                bail!("--square takes one side: --size N instead of {size}")
            }
            Some(InputSize::Budget(side)) if self.square => Ok(InputSize::Square(side)),
            None if self.square => Ok(InputSize::Square(None)),
            size => Ok(size.unwrap_or_default()),
        }
    }
}

/// One side is a budget, two are a rectangle.
pub(super) fn parse_input_size(text: &str) -> Result<InputSize, String> {
    let (width, height) = parse_size(text)?;
    Ok(if text.contains('x') { InputSize::Fixed(width, height) } else { InputSize::Budget(Some(width)) })
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
