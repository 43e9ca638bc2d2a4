//! yolo-lat: object detection on ordinary computers with exact linear attention.
//!
//! One description of the network ([`model::Graph`]), executed by several engines; [`Detector`] is all of it as one call.
//!
//! # Features
//! * `cpu` (default): the SIMD engine. `gpu`: compute shaders on wgpu. `ort`: ONNX Runtime, and other people's ONNX files.
//! * `builtin-models` (default): the models `n` and `s` as part of the program.
//! * `onnx`: writes ONNX files.
//! * `io`: sources, sinks, data sets, average precision; with `camera`, `plot` (charts, boxes on images) `video` (ffmpeg) and
//!   `events`.

mod by_shape;
pub mod detector;
pub mod engine;
#[cfg(feature = "gpu")]
mod fallback;
#[cfg(feature = "gpu")]
mod gpu_pipeline;
#[cfg(feature = "ort")]
mod heads;
mod look;
mod model_file;
mod options;
mod pipeline;
pub mod preprocess;
mod runtime;
mod slices;
mod staged;
#[cfg(feature = "ort")]
pub mod third_party;

pub use detector::{DetectError, Detector, DetectorOptions};
#[cfg(feature = "gpu")]
pub use gpu_pipeline::GpuPipeline;
pub use look::{AttentionLayer, AttentionView};
pub use model_file::{ModelFile, OnnxFile};
pub use runtime::{Runtime, RuntimeOptions};
pub use slices::Slices;
pub use yolo_lat_attention as attention;
pub use yolo_lat_core::input_size::InputSize;
pub use yolo_lat_core::model::Model;
pub use yolo_lat_core::postprocess::Detection;
pub use yolo_lat_core::track::Tracker;
pub use yolo_lat_core::{fingerprint, geometry, input_size, model, postprocess, track};
#[cfg(feature = "events")]
pub use yolo_lat_io::event;
#[cfg(feature = "plot")]
pub use yolo_lat_io::plot;
#[cfg(feature = "io")]
pub use yolo_lat_io::{Frame, batch, eval, follow, frame, sink, source, zones};
#[cfg(feature = "onnx")]
pub use yolo_lat_onnx::{export, proto as onnx};
