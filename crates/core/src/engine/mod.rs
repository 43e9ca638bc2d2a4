//! Engines: interpreters of a [`Graph`](crate::model::Graph) that all compute the same function.

pub mod reference;

use std::time::Duration;

use ndarray::{Array4, ArrayView4};

use crate::model::graph::{Node, Shape};
use crate::model::{ModelError, NetworkError};

/// What an engine has no kernel for.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the {engine} engine does not compute node {node:?} ({operation}): {reason}")]
pub struct Unsupported {
    /// The engine's name.
    pub engine: &'static str,
    /// The node's name.
    pub node: String,
    /// What it computes.
    pub operation: String,
    /// What is too much for it, and what would do.
    pub reason: String,
}

impl Unsupported {
    /// That `engine` cannot compute `node`.
    pub fn new(engine: &'static str, node: &Node, reason: impl Into<String>) -> Self {
        Self { engine, node: node.name.clone(), operation: node.op.label(), reason: reason.into() }
    }
}

/// Why an engine could not be made or could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The model does not fit.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A change of the network does not leave one.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The engine lacks a kernel.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// The engine is not part of this build, or its library or device is missing.
    #[error("engine {engine} is not available: {reason}")]
    Unavailable {
        /// The engine's name.
        engine: &'static str,
        /// Why, and what to do.
        reason: String,
    },
    /// The input has another shape than the graph.
    #[error("input of shape {found:?}, expected (n, {expected})")]
    Input {
        /// The shape of one image.
        expected: Shape,
        /// What was given: batch, channels, height, width.
        found: [usize; 4],
    },
    /// An image cannot be resized to the network's input.
    #[error("an image of {width}x{height} pixels cannot be resized: {reason}")]
    Resize {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
        /// What the resizer said.
        reason: String,
    },
    /// The GPU refuses, has too little memory, or was lost.
    #[error("gpu: {reason}")]
    Device {
        /// What it said, with the limit that was reached.
        reason: String,
    },
    /// ONNX Runtime does not take a file, or fails to run it.
    #[error("{origin}: {reason}")]
    Onnx {
        /// The file.
        origin: String,
        /// What ONNX Runtime says.
        reason: String,
    },
    /// A kernel of the CPU engine panicked; the message is on the standard error output.
    #[error(
        "the cpu engine failed inside a kernel: a fault of this program, please report it; --engine ort may do instead"
    )]
    Kernel,
    /// The system gave no threads.
    #[error("cannot start {threads} threads: {reason}; ask for fewer with --threads")]
    Threads {
        /// How many were wanted.
        threads: usize,
        /// What the system said.
        reason: String,
    },
}

/// What one step of an engine is, and how long it took for one image.
#[derive(Clone, Debug, PartialEq)]
pub struct StepTime {
    /// The node that it computes.
    pub name: String,
    /// Its operations: `depthwise 3x3 /1`.
    pub kind: String,
    /// Channels in and out and the size of the output: `58>58 @40x40`.
    pub shape: String,
    /// For one image, as [`Graph::multiply_adds_of`](crate::model::Graph::multiply_adds_of) counts them; 0 where they are not known.
    pub multiply_adds: u64,
    /// When it began, from the start of the run.
    pub start: Duration,
    /// How long it took.
    pub duration: Duration,
}

impl StepTime {
    /// Thousand million operations a second, two for each multiply-add.
    pub fn gflops(&self) -> f64 {
        2e-9 * self.multiply_adds as f64 / self.duration.as_secs_f64().max(1e-12)
    }
}

/// Computes the network's outputs for images of one size.
pub trait Engine: Send {
    /// What runs, for people: `cpu (AVX-512, 2 threads)`.
    fn description(&self) -> String;

    /// Shape of one image.
    fn input(&self) -> Shape;

    /// Runs the network on `images` (n, 3, height, width), RGB in 0..1, n of any size. Gives the outputs in the
    /// order of [`Graph::outputs`](crate::model::Graph::outputs), each (n, channels, height, width): raw logits.
    /// They stay valid until the next call.
    ///
    /// # Errors
    /// [`EngineError::Input`] for another shape.
    fn run(&mut self, images: ArrayView4<f32>) -> Result<&[Array4<f32>], EngineError>;

    /// Takes the time of every step from now on; `false` from an engine that cannot.
    fn start_profile(&mut self) -> bool {
        false
    }

    /// The steps of the last run with their times, zero unless they are taken; empty from an engine that cannot.
    fn profile(&self) -> Vec<StepTime> {
        Vec::new()
    }

    /// Most GFLOP/s of what this engine computes on, measured now, which takes milliseconds; `None` from an engine that does not
    /// know.
    fn peak_gflops(&self) -> Option<f64> {
        None
    }
}

/// Checks the shape of a batch of images.
///
/// # Errors
/// [`EngineError::Input`] for another shape, or no image at all.
pub fn check_input(images: &ArrayView4<f32>, expected: Shape) -> Result<(), EngineError> {
    let (batch, channels, height, width) = images.dim();
    if batch == 0 || (Shape { channels, height, width }) != expected {
        return Err(EngineError::Input { expected, found: [batch, channels, height, width] });
    }
    Ok(())
}
