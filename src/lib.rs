//! yolo-lat: object detection on ordinary computers with exact linear attention.
//!
//! One description of the network ([`model::Graph`]), executed by several engines; [`Detector`] is all of it as one call.
//!
//! # Features
//! * `cpu` (default): the SIMD engine. `gpu`: compute shaders on wgpu. `ort`: ONNX Runtime, and other people's ONNX files.
//! * `builtin-models` (default): the models `n` and `s` as part of the program.
//! * `onnx`: writes ONNX files.
//! * `io`: sources, sinks, data sets, average precision.

mod by_shape;
pub mod detector;
pub mod engine;
#[cfg(feature = "ort")]
pub mod foreign;
#[cfg(feature = "ort")]
mod heads;
pub mod preprocess;

pub use detector::{DetectError, Detector, DetectorOptions};
pub use yolo_lat_attention as attention;
pub use yolo_lat_core::input_size::InputSize;
pub use yolo_lat_core::model::Model;
pub use yolo_lat_core::postprocess::Detection;
pub use yolo_lat_core::{fingerprint, geometry, input_size, model, postprocess};
#[cfg(feature = "io")]
pub use yolo_lat_io::{Frame, batch, eval, frame, plot, sink, source};
#[cfg(feature = "onnx")]
pub use yolo_lat_onnx::{export, proto as onnx};
