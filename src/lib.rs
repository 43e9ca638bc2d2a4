//! yolo-lat: object detection on ordinary computers with exact linear attention.
//!
//! One description of the network ([`model::Graph`]), executed by several engines, with data flowing one way:
//! [`source`], [`preprocess`], [`engine`], [`postprocess`], [`sink`]; [`Detector`] is all of it as one call.

pub mod app;
pub mod attention;
mod by_shape;
pub mod detector;
pub mod engine;
pub mod eval;
pub mod export;
pub mod frame;
pub mod geometry;
pub mod input_size;
pub mod live;
pub mod model;
pub mod onnx;
pub mod plot;
pub mod postprocess;
pub mod preprocess;
mod simd;
pub mod sink;
pub mod source;

pub use detector::{DetectError, Detector, DetectorOptions};
pub use frame::Frame;
pub use input_size::InputSize;
pub use model::Model;
pub use postprocess::Detection;
