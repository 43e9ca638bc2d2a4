//! An ONNX file in ONNX Runtime.

use std::path::Path;

use ndarray::{ArrayD, ArrayViewD};
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::{TensorRef, ValueType};

use super::library::{Provider, environment, provider};
use yolo_lat_core::engine::EngineError;

/// Name and shape of an input or output; -1 stands for a size that the file leaves open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<i64>,
}

/// A network in ONNX Runtime's CPU provider, with every graph optimisation on.
pub struct OnnxSession {
    session: Session,
    origin: String,
    inputs: Vec<TensorInfo>,
    outputs: Vec<TensorInfo>,
}

impl OnnxSession {
    /// Loads an ONNX file to run on `threads` threads.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] without ONNX Runtime, [`EngineError::Onnx`] for a file that it does not take.
    pub fn open(path: &Path, threads: usize) -> Result<Self, EngineError> {
        let origin = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|error| EngineError::Onnx {
            origin: origin.clone(),
            reason: format!("cannot be read: {error}"),
        })?;
        Self::from_bytes(&bytes, threads, origin)
    }

    /// Loads the bytes of an ONNX file; `origin` names them in errors.
    ///
    /// # Errors
    /// As [`OnnxSession::open`].
    pub fn from_bytes(bytes: &[u8], threads: usize, origin: String) -> Result<Self, EngineError> {
        let environment = environment(None)?;
        let fail = |reason: String| EngineError::Onnx { origin: origin.clone(), reason: first_line(&reason) };
        let session = Session::builder(&environment)
            .and_then(|builder| Ok(builder.with_optimization_level(GraphOptimizationLevel::All)?))
            .and_then(|builder| Ok(builder.with_intra_threads(threads)?))
            .map_err(|error| fail(error.to_string()))?;
        let mut session = match provider() {
            Provider::Cpu => session,
            Provider::Cuda => {
                let cuda = ort::ep::CUDA::default().build().error_on_failure();
                session.with_execution_providers([cuda]).map_err(|error| EngineError::Unavailable {
                    engine: "ort",
                    reason: format!(
                        "no CUDA provider: {} (`pip install onnxruntime-gpu`, or --ort-provider cpu)",
                        first_line(&error.to_string())
                    ),
                })?
            }
        };
        let session = session.commit_from_memory(bytes).map_err(|error| fail(error.to_string()))?;
        let inputs = session.inputs().iter().map(|outlet| info(outlet.name(), outlet.dtype())).collect();
        let outputs = session.outputs().iter().map(|outlet| info(outlet.name(), outlet.dtype())).collect();
        Ok(Self { session, origin, inputs, outputs })
    }

    /// What the network reads.
    pub fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    /// What the network gives.
    pub fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    /// A value of the file's metadata.
    pub fn metadata(&self, key: &str) -> Option<String> {
        self.session.metadata().ok()?.custom(key)
    }

    /// Runs the network on its only input.
    ///
    /// # Errors
    /// [`EngineError::Onnx`] if the shape does not fit or an output holds no 32-bit floats.
    pub fn run(&mut self, input: ArrayViewD<f32>) -> Result<Vec<ArrayD<f32>>, EngineError> {
        let origin = self.origin.clone();
        let fail =
            |error: ort::Error| EngineError::Onnx { origin: origin.clone(), reason: first_line(&error.to_string()) };
        let input = input.as_standard_layout();
        let outputs =
            self.session.run(ort::inputs![TensorRef::from_array_view(&input).map_err(fail)?]).map_err(fail)?;
        self.outputs
            .iter()
            .map(|output| Ok(outputs[output.name.as_str()].try_extract_array::<f32>().map_err(fail)?.into_owned()))
            .collect()
    }
}

/// A network with everything folded and fused that ONNX Runtime can express by standard operators.
///
/// # Errors
/// As [`OnnxSession::from_bytes`], and if no temporary file can be written.
pub fn simplify(bytes: &[u8]) -> Result<Vec<u8>, EngineError> {
    let environment = environment(None)?;
    let fail = |reason: String| EngineError::Onnx { origin: "simplify".into(), reason: first_line(&reason) };
    let folder = tempfile::tempdir().map_err(|error| fail(error.to_string()))?;
    let path = folder.path().join("simplified.onnx");
    Session::builder(&environment)
        .and_then(|builder| Ok(builder.with_optimization_level(GraphOptimizationLevel::Level1)?))
        .and_then(|builder| Ok(builder.with_optimized_model_path(&path)?))
        .and_then(|mut builder| builder.commit_from_memory(bytes))
        .map_err(|error| fail(error.to_string()))?;
    std::fs::read(&path).map_err(|error| fail(error.to_string()))
}

fn info(name: &str, dtype: &ValueType) -> TensorInfo {
    let shape = match dtype {
        ValueType::Tensor { shape, .. } => shape.iter().copied().collect(),
        _ => Vec::new(),
    };
    TensorInfo { name: name.to_owned(), shape }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
