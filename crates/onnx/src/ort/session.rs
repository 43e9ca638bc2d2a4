//! An ONNX file in ONNX Runtime.

use std::path::Path;

use half::f16;
use ndarray::{ArrayD, ArrayViewD};
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Tensor, TensorElementType, TensorRef, ValueType};

use super::library::{OnnxRuntime, Provider};
use yolo_lat_core::engine::EngineError;

/// Name, shape and numbers of an input or output; -1 stands for a size that the file leaves open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<i64>,
    /// What it holds.
    pub element: Element,
}

/// The numbers of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 32-bit floats.
    Float,
    /// 16-bit floats.
    Half,
    /// 64-bit floats.
    Double,
    /// Bytes, 0 to 255.
    Byte,
    /// Something that no input here may hold.
    Other,
}

/// A network in ONNX Runtime, with every graph optimisation on.
pub struct OnnxSession {
    session: Session,
    origin: String,
    inputs: Vec<TensorInfo>,
    outputs: Vec<TensorInfo>,
}

impl OnnxSession {
    /// Loads an ONNX file, and the weights that it keeps in files beside it, to run on `threads` threads.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] without the provider, [`EngineError::Onnx`] for a file that ONNX Runtime does not take.
    pub fn open(runtime: &OnnxRuntime, path: &Path, threads: usize) -> Result<Self, EngineError> {
        Self::load(runtime, threads, path.display().to_string(), |builder| builder.commit_from_file(path))
    }

    /// Loads the bytes of an ONNX file; `origin` names them in errors.
    ///
    /// # Errors
    /// As [`OnnxSession::open`].
    pub fn from_bytes(
        runtime: &OnnxRuntime,
        bytes: &[u8],
        threads: usize,
        origin: String,
    ) -> Result<Self, EngineError> {
        Self::load(runtime, threads, origin, |builder| builder.commit_from_memory(bytes))
    }

    fn load(
        runtime: &OnnxRuntime,
        threads: usize,
        origin: String,
        commit: impl FnOnce(&mut SessionBuilder) -> ort::Result<Session>,
    ) -> Result<Self, EngineError> {
        let fail = |reason: String| EngineError::Onnx { origin: origin.clone(), reason: one_line(&reason) };
        let session = Session::builder(&runtime.environment)
            .and_then(|builder| Ok(builder.with_optimization_level(GraphOptimizationLevel::All)?))
            .and_then(|builder| Ok(builder.with_intra_threads(threads)?))
            // After a run its threads would keep the cores from whatever comes next.
            .and_then(|builder| Ok(builder.with_config_entry("session.force_spinning_stop", "1")?))
            .map_err(|error| fail(error.to_string()))?;
        let mut builder = match runtime.provider {
            Provider::Cpu => session,
            Provider::Cuda => {
                let cuda = ort::ep::CUDA::default().build().error_on_failure();
                session.with_execution_providers([cuda]).map_err(|error| EngineError::Unavailable {
                    engine: "ort",
                    reason: format!(
                        "no CUDA provider: {} (`pip install onnxruntime-gpu`, or --ort-provider cpu)",
                        one_line(&error.to_string())
                    ),
                })?
            }
        };
        let session = commit(&mut builder).map_err(|error| fail(error.to_string()))?;
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

    /// Runs the network on its only input, given and answered in 32-bit floats whatever the file holds; bytes are rounded.
    ///
    /// # Errors
    /// [`EngineError::Onnx`] if the shape does not fit, or the input or an output holds no numbers.
    pub fn run(&mut self, input: ArrayViewD<f32>) -> Result<Vec<ArrayD<f32>>, EngineError> {
        let origin = self.origin.clone();
        let fail = |reason: String| EngineError::Onnx { origin: origin.clone(), reason: one_line(&reason) };
        let input = input.as_standard_layout();
        let value = match self.inputs.first().map(|input| input.element) {
            Some(Element::Half) => Tensor::from_array(input.mapv(f16::from_f32)).map(SessionInputValue::from),
            Some(Element::Double) => Tensor::from_array(input.mapv(f64::from)).map(SessionInputValue::from),
            Some(Element::Byte) => {
                Tensor::from_array(input.mapv(|value| value.round() as u8)).map(SessionInputValue::from)
            }
            _ => TensorRef::from_array_view(&input).map(SessionInputValue::from),
        };
        let value = value.map_err(|error| fail(error.to_string()))?;
        let outputs = self.session.run([value]).map_err(|error| fail(error.to_string()))?;
        let read = |output: &TensorInfo| {
            floats(&outputs[output.name.as_str()])
                .ok_or_else(|| fail(format!("the output {:?} holds no numbers that can be read", output.name)))
        };
        self.outputs.iter().map(read).collect()
    }
}

/// A tensor of any numbers as 32-bit floats.
fn floats(value: &DynValue) -> Option<ArrayD<f32>> {
    let ValueType::Tensor { ty, .. } = value.dtype() else { return None };
    match ty {
        TensorElementType::Float32 => Some(value.try_extract_array::<f32>().ok()?.into_owned()),
        TensorElementType::Float16 => Some(value.try_extract_array::<f16>().ok()?.mapv(f16::to_f32)),
        TensorElementType::Float64 => Some(value.try_extract_array::<f64>().ok()?.mapv(|value| value as f32)),
        TensorElementType::Int64 => Some(value.try_extract_array::<i64>().ok()?.mapv(|value| value as f32)),
        TensorElementType::Int32 => Some(value.try_extract_array::<i32>().ok()?.mapv(|value| value as f32)),
        TensorElementType::Uint8 => Some(value.try_extract_array::<u8>().ok()?.mapv(f32::from)),
        _ => None,
    }
}

/// A network with everything folded and fused that ONNX Runtime can express by standard operators.
///
/// # Errors
/// As [`OnnxSession::from_bytes`], and if no temporary file can be written.
pub fn simplify(runtime: &OnnxRuntime, bytes: &[u8]) -> Result<Vec<u8>, EngineError> {
    let fail = |reason: String| EngineError::Onnx { origin: "simplify".into(), reason: one_line(&reason) };
    let folder = tempfile::tempdir().map_err(|error| fail(error.to_string()))?;
    let path = folder.path().join("simplified.onnx");
    Session::builder(&runtime.environment)
        .and_then(|builder| Ok(builder.with_optimization_level(GraphOptimizationLevel::Level1)?))
        .and_then(|builder| Ok(builder.with_optimized_model_path(&path)?))
        .and_then(|mut builder| builder.commit_from_memory(bytes))
        .map_err(|error| fail(error.to_string()))?;
    std::fs::read(&path).map_err(|error| fail(error.to_string()))
}

fn info(name: &str, dtype: &ValueType) -> TensorInfo {
    let (shape, element) = match dtype {
        ValueType::Tensor { shape, ty, .. } => {
            let element = match ty {
                TensorElementType::Float32 => Element::Float,
                TensorElementType::Float16 => Element::Half,
                TensorElementType::Float64 => Element::Double,
                TensorElementType::Uint8 => Element::Byte,
                _ => Element::Other,
            };
            (shape.iter().copied().collect(), element)
        }
        _ => (Vec::new(), Element::Other),
    };
    TensorInfo { name: name.to_owned(), shape, element }
}

/// ONNX Runtime says what is wrong over several lines.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
