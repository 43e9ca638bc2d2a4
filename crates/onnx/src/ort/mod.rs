//! ONNX Runtime: the yardstick for speed, the judge of exports, and the host of other people's networks.

mod engine;
mod library;
mod session;

pub use engine::OrtEngine;
pub use library::{LOADER_THREAD, OnnxRuntime, Provider};
pub use session::{Element, OnnxSession, TensorInfo, simplify};
