//! Images in, results out: sources, sinks, label formats, data sets and average precision, whole runs.
//!
//! # Features
//! All are on by default. `camera`: cameras. `plot`: charts, and boxes drawn on images. `video`: videos and network streams, by
//! a process of ffmpeg. `events`: what is seen is told by HTTP, MQTT and commands, and kept as clips.

pub mod batch;
pub mod dataset;
pub mod eval;
#[cfg(feature = "events")]
pub mod event;
pub mod follow;
pub mod frame;
mod labels;
#[cfg(feature = "plot")]
pub mod plot;
pub mod sink;
pub mod source;
pub mod zones;

pub use frame::Frame;
