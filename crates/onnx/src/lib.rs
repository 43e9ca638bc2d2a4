//! ONNX: a network as a file that other programs run, and, with the feature `ort`, ONNX Runtime to run files here.

pub mod export;
#[cfg(feature = "ort")]
pub mod ort;
pub mod proto;
