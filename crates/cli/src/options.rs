//! Arguments that several subcommands share, and how their texts become values.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use yolo_lat::engine::EngineKind;
#[cfg(feature = "gpu")]
use yolo_lat::engine::gpu::{GpuOptions, ShaderFeatures};
#[cfg(feature = "ort")]
use yolo_lat::engine::ort::Provider;
#[cfg(feature = "ort")]
use yolo_lat::geometry::Fit;
use yolo_lat::model::classes::find_class;
use yolo_lat::model::config::check_side;
use yolo_lat::model::{Model, ModelError, Precision};
use yolo_lat::postprocess::{Nms, PostprocessOptions};
#[cfg(feature = "ort")]
use yolo_lat::preprocess::ChannelOrder;
#[cfg(feature = "plot")]
use yolo_lat::sink::Drawing;
use yolo_lat::source::SourceOptions;
#[cfg(feature = "ort")]
use yolo_lat::third_party::{
    Layout, OnnxOptions, PreprocessingChanges, parse_border, parse_channels, parse_class_names, parse_deviations,
    parse_fit, parse_order, parse_scale,
};
use yolo_lat::{DetectorOptions, InputSize, ModelFile, Runtime, RuntimeOptions, Slices};

use super::for_class::{ClassLimitArguments, parse_share};

/// Overlap of two boxes of a class above which one goes.
const IOU: f32 = 0.45;
/// Detections in an image.
const MOST_DETECTIONS: usize = 300;

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum EngineName {
    /// The faster of cpu and gpu, measured on this machine when it is first used; -v says how fast
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

/// What is drawn for objects.
#[cfg(feature = "plot")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum DrawingName {
    /// Boxes with names; zones, and lines with their counts
    Box,
    /// Objects blurred beyond recognition, nothing else
    Blur,
    /// Objects as a few large tiles, nothing else
    Pixelate,
    /// A map of where objects were so far
    Heat,
}

#[cfg(feature = "plot")]
impl From<DrawingName> for Drawing {
    fn from(name: DrawingName) -> Self {
        match name {
            DrawingName::Box => Self::Box,
            DrawingName::Blur => Self::Blur,
            DrawingName::Pixelate => Self::Pixelate,
            DrawingName::Heat => Self::Heat,
        }
    }
}

/// Floats or integers, as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum PrecisionName {
    Auto,
    F32,
    Int8,
}

impl PrecisionName {
    /// `None` where the model's file decides.
    pub(super) fn chosen(self) -> Option<Precision> {
        match self {
            Self::Auto => None,
            Self::F32 => Some(Precision::F32),
            Self::Int8 => Some(Precision::Int8),
        }
    }

    /// One of our models in this precision.
    pub(super) fn apply(self, model: Model) -> Result<Model, ModelError> {
        match self.chosen() {
            Some(precision) => model.in_precision(precision),
            None => {
                let usual = model.usual_precision();
                model.in_precision(usual)
            }
        }
    }
}

/// What runs the network.
#[derive(Args, Clone, Debug)]
pub(super) struct EngineArguments {
    /// Model: n, s, or the path of a .toml, .safetensors or (with ONNX Runtime) .onnx file
    #[arg(short, long, default_value = "n")]
    pub(super) model: String,
    /// What computes the network [default: auto; gpu where --adapter names one]
    #[arg(long, value_enum)]
    engine: Option<EngineName>,
    #[command(flatten)]
    pub(super) devices: DeviceArguments,
    /// What the network's 1x1 convolutions are computed in: f32, int8 (CPU engine), auto: on the CPU engine as the model's file says, on
    /// others f32
    #[arg(long, value_enum, default_value = "auto")]
    precision: PrecisionName,
    /// Input size in pixels, multiples of 32: 320 means as many pixels as 320 x 320 in the shape of each image (16:9: 416x256, 4:3:
    /// 384x288), 416x256 (width x height) is the same for all images; default: the model's
    #[arg(long, value_name = "PIXELS", value_parser = parse_input_size)]
    size: Option<InputSize>,
    /// A square input for every image, the rest of it grey
    #[arg(long)]
    square: bool,
    /// Looks at large images in slices too, for small things: auto (where a side is more than three times the input's), a slice's size
    /// and, after a colon, the share that neighbours have in common: 320, 640x480:0.3
    #[arg(long, value_name = "SLICE", default_value = "off")]
    slice: Slices,
    /// Threads; 0 means one for each core
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1024))]
    pub(super) threads: u16,
    /// Images taken together, those of one shape computed together; default: four for each thread
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) batch: Option<u16>,
    /// What becomes of a box that a more confident one suppresses: it goes (greedy), or votes for the other's confidence and corners
    /// before it does (box-voting: what nothing confirms comes out with 0.81 for 0.9); default: box-voting for our models, whose
    /// thresholds are made for it, greedy for others
    #[arg(long, value_name = "METHOD", value_parser = nms_parser())]
    nms: Option<Nms>,
    /// As --nms greedy
    #[arg(long, hide = true, conflicts_with = "nms")]
    no_merge: bool,
    /// As --nms box-voting
    #[arg(long, hide = true, conflicts_with_all = ["nms", "no_merge"])]
    merge: bool,
    #[cfg(feature = "ort")]
    #[command(flatten)]
    onnx: OnnxArguments,
}

pub(super) fn nms_parser() -> impl clap::builder::TypedValueParser<Value = Nms> {
    use clap::builder::{PossibleValuesParser, TypedValueParser};
    PossibleValuesParser::new(Nms::ALL.map(|(name, _)| name))
        .map(|found| if found == Nms::Greedy.name() { Nms::Greedy } else { Nms::BoxVoting })
}

/// What a person says of somebody's ONNX file: a value of its metadata with an option's name counts too, and before what is
/// customary.
#[cfg(feature = "ort")]
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Other people's ONNX networks (docs/MODELS.md)")]
struct OnnxArguments {
    /// How the outputs are read; default: recognised by shapes and metadata, -v says as what
    #[arg(long, value_parser = layout_parser())]
    layout: Option<Layout>,
    /// How an image fills the input: letterbox (centred), top-left (letterboxed from there), stretch; default: as the
    /// network's family was trained, here and below
    #[arg(long, value_parser = parse_fit)]
    fit: Option<Fit>,
    /// Grey around a letterboxed image, 0 to 255
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
}

#[cfg(feature = "ort")]
impl OnnxArguments {
    /// How somebody's ONNX file is read. An option that does nothing for a model of ours is an error.
    fn options(&self, file: &ModelFile, nms: Option<Nms>) -> anyhow::Result<OnnxOptions> {
        let Self { layout, fit, border, order, scale, mean, std, names } = self;
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
        if let (ModelFile::Native(_), Some((option, _))) = (file, given.iter().find(|(_, given)| *given)) {
            bail!("{option} is for ONNX files; {} is a model of ours", file.name());
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
            box_voting: nms == Some(Nms::BoxVoting),
        })
    }
}

#[cfg(feature = "ort")]
fn layout_parser() -> impl clap::builder::TypedValueParser<Value = Layout> {
    use clap::builder::{PossibleValuesParser, TypedValueParser};
    PossibleValuesParser::new(Layout::ALL.map(|(name, _)| name))
        .try_map(|name| Layout::find(&name).ok_or_else(|| format!("no layout {name:?}")))
}

/// How sources are read.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Sources")]
pub(super) struct SourceArguments {
    /// Look into sub-folders
    #[arg(short, long)]
    pub(super) recursive: bool,
    /// Paths on standard input end with NUL (find -print0)
    #[arg(short = '0', long)]
    pub(super) null: bool,
    /// Only every Nth frame of videos, streams, cameras and screens, at its own time
    #[arg(long, alias = "vid-stride", default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    stride: u64,
    /// How long a network stream may give no image: 10s, 1m
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

impl SourceArguments {
    /// `live`: as things happen.
    pub(super) fn options(&self, live: bool) -> SourceOptions {
        SourceOptions { timeout: self.timeout, stride: self.stride, live }
    }
}

/// What counts as a detection.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "What counts as a detection")]
pub(super) struct LimitArguments {
    #[command(flatten)]
    pub(super) by_class: ClassLimitArguments,
    /// Of two boxes of a class that overlap more than this (IoU), the less confident goes
    #[arg(long, default_value_t = IOU, value_parser = parse_share)]
    iou: f32,
    /// Most detections in an image
    #[arg(long, default_value_t = MOST_DETECTIONS, value_name = "N")]
    max_det: usize,
    /// Only these classes, by name, another word for it or number: person,sofa,16 (`yolo-lat classes` lists them)
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(super) classes: Vec<String>,
    /// Boxes of different classes suppress each other too
    #[arg(long)]
    agnostic_nms: bool,
}

impl LimitArguments {
    /// These limits, beside those that are the model's own.
    pub(super) fn apply(&self, usual: PostprocessOptions) -> PostprocessOptions {
        PostprocessOptions {
            confidence: self.by_class.confidence().unwrap_or(usual.confidence),
            iou: self.iou,
            max_detections: self.max_det,
            agnostic: self.agnostic_nms,
            ..usual
        }
    }

    /// Whether nothing was asked for.
    #[cfg(feature = "window")]
    pub(super) fn is_usual(&self) -> bool {
        let Self { by_class, iou, max_det, classes, agnostic_nms } = self;
        (*iou, *max_det) == (IOU, MOST_DETECTIONS) && by_class.is_usual() && classes.is_empty() && !*agnostic_nms
    }
}

/// Which devices and libraries engines use.
#[derive(Args, Clone, Debug)]
pub(super) struct DeviceArguments {
    /// The shared library of ONNX Runtime; default: ORT_DYLIB_PATH, Python's onnxruntime, the system's folders
    #[cfg(feature = "ort")]
    #[arg(long, value_name = "FILE")]
    ort_lib: Option<std::path::PathBuf>,
    /// The GPU by a part of its name, software ones too (`yolo-lat devices` lists them); default: the best hardware
    #[cfg(feature = "gpu")]
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// What ONNX Runtime computes on
    #[cfg(feature = "ort")]
    #[arg(long, value_enum, default_value = "cpu", value_name = "PROVIDER")]
    ort_provider: ProviderName,
    /// Which features of the GPU beyond WebGPU's core are used, where it has them
    #[cfg(feature = "gpu")]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FEATURES", default_value = "all")]
    gpu_features: Vec<GpuFeature>,
}

#[cfg(feature = "ort")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ProviderName {
    /// The processor
    Cpu,
    /// NVIDIA's GPUs, where the library was built for them
    Cuda,
}

/// What kernels may use of an adapter.
#[cfg(feature = "gpu")]
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
    /// Devices and libraries for engines of so many threads, 0 for one a core.
    pub(super) fn options(&self, threads: usize) -> RuntimeOptions {
        RuntimeOptions {
            threads,
            #[cfg(feature = "gpu")]
            gpu: {
                let asked =
                    |feature| self.gpu_features.iter().any(|&given| given == feature || given == GpuFeature::All);
                let features = ShaderFeatures { half: asked(GpuFeature::F16), subgroups: asked(GpuFeature::Subgroups) };
                GpuOptions { adapter: self.adapter.clone(), features, ..GpuOptions::default() }
            },
            #[cfg(feature = "ort")]
            onnx_runtime: self.ort_lib.clone(),
            #[cfg(feature = "ort")]
            provider: match self.ort_provider {
                ProviderName::Cpu => Provider::Cpu,
                ProviderName::Cuda => Provider::Cuda,
            },
        }
    }

    /// The same, ready. A library that was named must be one.
    pub(super) fn runtime(&self, threads: usize) -> anyhow::Result<Runtime> {
        let runtime = Runtime::new(self.options(threads));
        #[cfg(feature = "ort")]
        if self.ort_lib.is_some() {
            runtime.onnx_runtime().context("--ort-lib")?;
        }
        Ok(runtime)
    }
}

impl EngineArguments {
    /// What computes the network: naming an adapter and no engine asks for the GPU, found or not.
    pub(super) fn kind(&self) -> EngineKind {
        match self.engine {
            Some(engine) => engine.into(),
            #[cfg(feature = "gpu")]
            None if self.devices.adapter.is_some() => EngineKind::Gpu,
            None => EngineKind::Auto,
        }
    }

    fn nms(&self) -> Option<Nms> {
        match (self.no_merge, self.merge) {
            (true, _) => Some(Nms::Greedy),
            (_, true) => Some(Nms::BoxVoting),
            _ => self.nms,
        }
    }

    /// The model, and how it is run, with its customary limits.
    pub(super) fn open(&self) -> anyhow::Result<(ModelFile, DetectorOptions)> {
        let file = ModelFile::open(&self.model)?;
        let nms = self.nms();
        let usual = DetectorOptions::of(&file);
        let options = DetectorOptions {
            engine: self.kind(),
            size: self.size()?,
            slices: self.slice,
            precision: self.precision.chosen(),
            #[cfg(feature = "ort")]
            onnx: self.onnx.options(&file, nms)?,
            postprocess: PostprocessOptions { nms: nms.unwrap_or(usual.postprocess.nms), ..usual.postprocess },
            ..usual
        };
        Ok((file, options))
    }

    /// Whether nothing was asked for.
    #[cfg(feature = "window")]
    pub(super) fn is_usual(&self) -> bool {
        self.model == "n"
            && self.kind() == EngineKind::Auto
            && self.size.is_none()
            && !self.square
            && self.slice == Slices::Off
            && self.precision == PrecisionName::Auto
            && self.nms().is_none()
            && self.threads == 0
    }

    pub(super) fn runtime(&self) -> anyhow::Result<Runtime> {
        self.devices.runtime(self.threads.into())
    }

    /// Images that are taken together, for so many threads.
    pub(super) fn batch(&self, threads: usize) -> usize {
        self.batch.map_or(4 * threads, usize::from)
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
