//! Our own networks in ONNX Runtime: the graph exported in memory.

use ndarray::{Array4, ArrayView4, Ix4};

use super::{OnnxRuntime, OnnxSession};
use crate::export::{ExportOptions, ExportOutput, export_onnx};
use yolo_lat_core::engine::{Engine, EngineError, check_input};
use yolo_lat_core::model::Model;
use yolo_lat_core::model::graph::Shape;

/// Runs a model's ONNX export.
pub struct OrtEngine {
    session: OnnxSession,
    input: Shape,
    description: String,
    outputs: Vec<Array4<f32>>,
}

impl OrtEngine {
    /// Exports `model` for images of `width` x `height` and loads it on `threads` threads.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] without the provider, [`EngineError::Model`] if the size does not suit the model.
    pub fn new(
        runtime: &OnnxRuntime,
        model: &Model,
        width: usize,
        height: usize,
        threads: usize,
    ) -> Result<Self, EngineError> {
        let options = ExportOptions {
            batch: None,
            size: (width, height),
            output: ExportOutput::Logits,
            ..ExportOptions::default()
        };
        let bytes = export_onnx(model, &options)?;
        let session = OnnxSession::from_bytes(runtime, &bytes, threads, format!("{} as ONNX", model.config.name))?;
        let description = format!("ort (ONNX Runtime, {}, {threads} threads)", runtime.provider);
        Ok(Self { session, input: Shape { channels: 3, height, width }, description, outputs: Vec::new() })
    }
}

impl Engine for OrtEngine {
    fn description(&self) -> String {
        self.description.clone()
    }

    fn input(&self) -> Shape {
        self.input
    }

    fn run(&mut self, images: ArrayView4<f32>) -> Result<&[Array4<f32>], EngineError> {
        check_input(&images, self.input)?;
        let outputs = self.session.run(images.into_dyn())?;
        let maps = outputs.into_iter().map(|output| output.into_dimensionality::<Ix4>());
        self.outputs = maps
            .collect::<Result<_, _>>()
            .map_err(|error| EngineError::Onnx { origin: "our own export".into(), reason: error.to_string() })?;
        Ok(&self.outputs)
    }
}
