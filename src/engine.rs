//! The engines of this build by name, and the one place that chooses between them.

mod fastest;

#[cfg(feature = "cpu")]
pub use yolo_lat_cpu as cpu;
#[cfg(feature = "gpu")]
pub use yolo_lat_gpu as gpu;
#[cfg(feature = "ort")]
pub use yolo_lat_onnx::ort;

pub use self::fastest::{Fastest, fastest, least_times, take_turns};
pub use yolo_lat_core::engine::{Engine, EngineError, StepTime, reference};
use yolo_lat_core::model::{Model, Network};

use crate::runtime::Runtime;

/// The engines by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineKind {
    /// The faster of CPU and GPU as it was measured here: [`fastest`].
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

/// Makes an engine for images of `width` x `height` pixels on what a runtime has.
///
/// # Errors
/// [`EngineError`] where the engine is not available or the size does not suit the model.
pub fn create(
    kind: EngineKind,
    model: &Model,
    width: usize,
    height: usize,
    runtime: &Runtime,
) -> Result<Box<dyn Engine>, EngineError> {
    create_for(kind, model, &model.network(width, height)?, runtime)
}

/// The same for a network made of the model's that has been changed since: ONNX Runtime only takes the model's own.
///
/// # Errors
/// As [`create`].
pub(crate) fn create_for(
    kind: EngineKind,
    #[cfg_attr(not(feature = "ort"), expect(unused_variables))] model: &Model,
    network: &Network,
    #[cfg_attr(not(any(feature = "cpu", feature = "gpu", feature = "ort")), expect(unused_variables))]
    runtime: &Runtime,
) -> Result<Box<dyn Engine>, EngineError> {
    #[cfg(feature = "ort")]
    let yolo_lat_core::model::graph::Shape { width, height, .. } = network.input();
    match kind {
        #[cfg(feature = "cpu")]
        EngineKind::Auto | EngineKind::Cpu => Ok(Box::new(cpu::CpuEngine::new(network, runtime.threads())?)),
        EngineKind::Reference => Ok(Box::new(reference::ReferenceEngine::new(network.clone()))),
        #[cfg(feature = "gpu")]
        EngineKind::Gpu => Ok(Box::new(gpu::GpuEngine::on(runtime.gpu()?, network)?)),
        #[cfg(feature = "ort")]
        EngineKind::Ort if *network.graph() != model.graph(width, height)? => Err(EngineError::Unavailable {
            engine: "ort",
            reason: "ONNX Runtime keeps its attention to itself; take the cpu or gpu engine to see or change it".into(),
        }),
        #[cfg(feature = "ort")]
        EngineKind::Ort => {
            let runtime_library = runtime.onnx_runtime()?;
            Ok(Box::new(ort::OrtEngine::new(&runtime_library, model, width, height, runtime.threads())?))
        }
        #[allow(unreachable_patterns, reason = "with all features none is missing")]
        missing => Err(not_in_build(missing)),
    }
}

/// The features of this crate decide which engines it has.
pub(crate) fn not_in_build(kind: EngineKind) -> EngineError {
    let engine = match kind {
        EngineKind::Auto | EngineKind::Cpu => "cpu",
        EngineKind::Gpu => "gpu",
        EngineKind::Ort => "ort",
        EngineKind::Reference => "reference",
    };
    EngineError::Unavailable { engine, reason: format!("this build of yolo-lat lacks the feature {engine:?}") }
}

/// What the processor calls itself; where the system does not tell, its architecture.
pub fn processor_name() -> String {
    let of_system = if cfg!(windows) {
        std::env::var("PROCESSOR_IDENTIFIER").ok()
    } else if cfg!(target_os = "macos") {
        let output = std::process::Command::new("sysctl").args(["-n", "machdep.cpu.brand_string"]).output().ok();
        output.and_then(|output| String::from_utf8(output.stdout).ok())
    } else {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = |line: &str| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.to_owned());
        text.lines().find_map(model)
    };
    let name = of_system.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    name.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}
