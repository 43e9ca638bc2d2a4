//! ONNX Runtime: the yardstick for speed, the judge of exports, and the host of other people's networks.

mod engine;
mod library;
mod session;

pub use engine::OrtEngine;
pub use library::{Provider, load, prefer_provider};
pub use session::{Element, OnnxSession, TensorInfo, simplify};
