//! ONNX Runtime: the yardstick for speed, the judge of exports, and the host of other people's detectors.

mod engine;
mod foreign;
mod heads;
mod input;
mod layout;
mod library;
mod names;
mod session;

pub use engine::OrtEngine;
pub use foreign::{ForeignDetector, OnnxOptions};
pub use input::{
    InputForm, PreprocessingChanges, parse_border, parse_channels, parse_deviations, parse_fit, parse_order,
    parse_scale,
};
pub use layout::Layout;
pub use library::{Provider, load, prefer_provider};
pub use names::parse_class_names;
pub use session::{Element, OnnxSession, TensorInfo, simplify};
