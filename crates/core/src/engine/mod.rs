//! Engines: interpreters of a [`Graph`](crate::model::Graph) that all compute the same function.

pub mod allocator;
pub mod reference;

use ndarray::{Array4, ArrayView4};

use crate::model::ModelError;
use crate::model::graph::Shape;

/// Why an engine could not be made or could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The model does not fit.
    #[error(transparent)]
    Model(#[from] ModelError),
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
        /// The shape of one picture.
        expected: Shape,
        /// What was given: batch, channels, height, width.
        found: [usize; 4],
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

/// Computes the network's outputs for pictures of one size.
pub trait Engine: Send {
    /// What runs, for people: `cpu (AVX-512, 2 threads)`.
    fn description(&self) -> String;

    /// Shape of one picture.
    fn input(&self) -> Shape;

    /// Runs the network on `pictures` (n, 3, height, width), RGB in 0..1, n of any size. Gives the outputs in the
    /// order of [`Graph::outputs`](crate::model::Graph::outputs), each (n, channels, height, width): raw logits.
    /// They stay valid until the next call.
    ///
    /// # Errors
    /// [`EngineError::Input`] for another shape.
    fn run(&mut self, pictures: ArrayView4<f32>) -> Result<&[Array4<f32>], EngineError>;
}

/// Checks the shape of a batch of pictures.
///
/// # Errors
/// [`EngineError::Input`] for another shape, or no picture at all.
pub fn check_input(pictures: &ArrayView4<f32>, expected: Shape) -> Result<(), EngineError> {
    let (batch, channels, height, width) = pictures.dim();
    if batch == 0 || (Shape { channels, height, width }) != expected {
        return Err(EngineError::Input { expected, found: [batch, channels, height, width] });
    }
    Ok(())
}
