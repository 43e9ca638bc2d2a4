//! How a detector runs, and what its engines are made of.

use crate::by_shape::Shape;
use crate::engine::EngineKind;
use crate::model_file::ModelFile;
use crate::runtime::Runtime;
use crate::slices::Slices;
#[cfg(feature = "ort")]
use crate::third_party::OnnxOptions;
use yolo_lat_core::engine::EngineError;
use yolo_lat_core::input_size::InputSize;
use yolo_lat_core::model::graph::Mixing;
use yolo_lat_core::model::{Model, ModelError, Network, Precision};
use yolo_lat_core::postprocess::PostprocessOptions;

/// How a detector runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DetectorOptions {
    /// What computes the network; somebody's ONNX file runs in ONNX Runtime whatever this is.
    pub engine: EngineKind,
    /// How the network's input follows from an image.
    pub size: InputSize,
    /// Whether large images are looked at in slices too.
    pub slices: Slices,
    /// What the network's 1x1 convolutions are computed in. Where it is not given, on the CPU engine as the model's file says, on others in
    /// floats.
    pub precision: Option<Precision>,
    /// What counts as a detection.
    pub postprocess: PostprocessOptions,
    /// Changes of the attention, to see what it does.
    pub attention: AttentionOptions,
    /// How somebody's ONNX file is read.
    #[cfg(feature = "ort")]
    pub onnx: OnnxOptions,
}

impl DetectorOptions {
    /// The customary options with the least confidence that a model asks for.
    pub fn of(file: &ModelFile) -> Self {
        let postprocess = PostprocessOptions { confidence: file.confidence(), ..PostprocessOptions::default() };
        Self { postprocess, ..Self::default() }
    }
}

/// Looks into a network's attention, or changes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AttentionOptions {
    /// Layers by their number in the order of execution, and what takes their place: `None` turns a layer off.
    pub replaced: Vec<(usize, Option<Mixing>)>,
    /// The layer whose queries, keys and values [`Detector::queries_keys_values`](crate::Detector::queries_keys_values) gives.
    pub watched: Option<usize>,
}

/// What engines for one of our models are made of, shape by shape.
#[derive(Clone)]
pub(crate) struct Recipe {
    pub(crate) model: Model,
    pub(crate) runtime: Runtime,
    pub(crate) options: DetectorOptions,
}

impl Recipe {
    /// # Errors
    /// Integers are asked for and the model has no steps for them.
    pub(crate) fn new(model: &Model, runtime: &Runtime, options: &DetectorOptions) -> Result<Self, ModelError> {
        let usual = match options.engine {
            // The caller's own wish.
            _ if model.precision() == Precision::Int8 => Precision::Int8,
            // For which our models are made.
            EngineKind::Auto | EngineKind::Cpu => model.usual_precision(),
            EngineKind::Gpu | EngineKind::Ort | EngineKind::Reference => Precision::F32,
        };
        let model = model.clone().in_precision(options.precision.unwrap_or(usual))?;
        Ok(Self { model, runtime: runtime.clone(), options: options.clone() })
    }

    /// The model's network with the attention that is asked for, and a tap where it is watched.
    pub(crate) fn network(&self, (width, height): Shape) -> Result<Network, EngineError> {
        let attention = &self.options.attention;
        let network = self.model.network(width, height)?;
        let layers: Vec<_> = network.attention_layers().collect();
        let changed = network.edit(|graph| {
            if let Some(&layer) = attention.watched.and_then(|watched| layers.get(watched)) {
                graph.taps.push(graph.nodes[layer].inputs[0]);
            }
            for &(layer, by) in &attention.replaced {
                if let Some(&node) = layers.get(layer) {
                    graph.replace_attention(node, by);
                }
            }
        });
        log::info!("{}: input of {width}x{height} pixels", self.model.config.name);
        Ok(changed?)
    }

    /// The same for a GPU, which has no integers.
    #[cfg(feature = "gpu")]
    pub(crate) fn in_floats(&self) -> Result<Self, ModelError> {
        Ok(Self { model: self.model.clone().in_precision(Precision::F32)?, ..self.clone() })
    }

    pub(crate) fn input_size(&self, image: (u32, u32)) -> Shape {
        self.options.size.for_image(self.model.config.input, image)
    }

    pub(crate) fn watches(&self) -> bool {
        self.options.attention.watched.is_some()
    }
}
