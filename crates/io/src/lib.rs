//! Pictures in, results out: sources, sinks, label formats, data sets and average precision, whole runs.

pub mod batch;
pub mod dataset;
pub mod eval;
pub mod frame;
mod labels;
pub mod plot;
pub mod sink;
pub mod source;

pub use frame::Frame;
