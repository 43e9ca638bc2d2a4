//! The engines of this build by name, and the one place that chooses between them.

#[cfg(feature = "cpu")]
pub use yolo_lat_cpu as cpu;
#[cfg(feature = "gpu")]
pub use yolo_lat_gpu as gpu;
#[cfg(feature = "ort")]
pub use yolo_lat_onnx::ort;

pub use yolo_lat_core::engine::{Engine, EngineError, reference};
use yolo_lat_core::model::{Graph, Model};

/// The engines by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineKind {
    /// The fastest one that this machine has.
    #[default]
    Auto,
    /// Our own CPU engine.
    Cpu,
    /// Compute shaders on wgpu.
    Gpu,
    /// ONNX Runtime.
    Ort,
    /// Naive loops: slow, and the measure of the others.
    Reference,
}

impl std::fmt::Display for EngineKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
            Self::Ort => "ort",
            Self::Reference => "reference",
        })
    }
}

/// Makes an engine for pictures of `width` x `height` pixels on `threads` threads.
///
/// # Errors
/// [`EngineError`] where the engine is not available or the size does not suit the model.
pub fn create(
    kind: EngineKind,
    model: &Model,
    width: usize,
    height: usize,
    threads: usize,
) -> Result<Box<dyn Engine>, EngineError> {
    create_for(kind, model, &model.graph(width, height)?, threads)
}

/// The same for a graph made of the model's that has been changed since: ONNX Runtime only takes the model's own.
///
/// # Errors
/// As [`create`].
pub(crate) fn create_for(
    kind: EngineKind,
    model: &Model,
    graph: &Graph,
    #[cfg_attr(not(any(feature = "cpu", feature = "ort")), expect(unused_variables))] threads: usize,
) -> Result<Box<dyn Engine>, EngineError> {
    #[cfg(feature = "ort")]
    let yolo_lat_core::model::graph::Shape { width, height, .. } = graph.input();
    match kind {
        #[cfg(feature = "cpu")]
        EngineKind::Auto | EngineKind::Cpu => Ok(Box::new(cpu::CpuEngine::new(graph, &model.weights, threads)?)),
        EngineKind::Reference => Ok(Box::new(reference::ReferenceEngine::new(graph.clone(), model.weights.clone()))),
        #[cfg(feature = "gpu")]
        EngineKind::Gpu => Ok(Box::new(gpu::GpuEngine::new(graph, &model.weights)?)),
        #[cfg(feature = "ort")]
        EngineKind::Ort if *graph != model.graph(width, height)? => Err(EngineError::Unavailable {
            engine: "ort",
            reason: "ONNX Runtime keeps its attention to itself; take the cpu or gpu engine to see or change it".into(),
        }),
        #[cfg(feature = "ort")]
        EngineKind::Ort => Ok(Box::new(ort::OrtEngine::new(model, width, height, threads)?)),
        #[allow(unreachable_patterns, reason = "with all features none is missing")]
        missing => Err(not_in_build(missing)),
    }
}

/// The features of this crate decide which engines it has.
fn not_in_build(kind: EngineKind) -> EngineError {
    let engine = match kind {
        EngineKind::Auto | EngineKind::Cpu => "cpu",
        EngineKind::Gpu => "gpu",
        EngineKind::Ort => "ort",
        EngineKind::Reference => "reference",
    };
    EngineError::Unavailable { engine, reason: format!("this build of yolo-lat lacks the feature {engine:?}") }
}
