//! The network as data: its description and weights, proved to fit each other; its lowering to what engines run; boxes, the head,
//! suppression and tracks; images resampled, and what every engine promises.
//!
//! Nothing here knows an image format, a device or a thread; the [`reference`](engine::reference) engine is the oracle of
//! every test.

pub mod engine;
pub mod fingerprint;
pub mod geometry;
pub mod input_size;
pub mod lower;
pub mod model;
pub mod postprocess;
pub mod resample;
pub mod time;
pub mod track;
