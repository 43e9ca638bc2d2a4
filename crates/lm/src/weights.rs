//! Weights of a language model: named f32 or f16 tensors from a safetensors file, checked before anything uses them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::f16;
use safetensors::{Dtype, SafeTensors};

use crate::config::LmConfig;

/// Why a file has not the weights of a model.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// It cannot be read.
    #[error("{}: cannot be read: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is no safetensors file.
    #[error("{path}: no safetensors file: {reason}")]
    Format {
        /// The file.
        path: String,
        /// What its reader says.
        reason: String,
    },
    /// A tensor that the configuration asks for is not there, or has another shape or type.
    #[error("{path}: {name}: expected floats of shape {expected:?}, found {found}; another model's weights?")]
    Tensor {
        /// The file.
        path: String,
        /// The tensor.
        name: String,
        /// Shape that the configuration gives it.
        expected: Vec<usize>,
        /// What is there.
        found: String,
    },
    /// A value that is no finite number.
    #[error("{path}: {name}: holds a value that is no finite number")]
    NotFinite {
        /// The file.
        path: String,
        /// The tensor.
        name: String,
    },
}

/// The tensors of a configuration by name, rows after one another.
pub(crate) struct Weights(BTreeMap<String, Vec<f32>>);

impl Weights {
    pub(crate) fn load(path: &Path, config: &LmConfig) -> Result<Self, WeightsError> {
        let bytes = std::fs::read(path).map_err(|error| WeightsError::Read { path: path.to_owned(), error })?;
        Self::parse(&bytes, config, &path.display().to_string())
    }

    /// From the contents of the file `path`.
    pub(crate) fn parse(bytes: &[u8], config: &LmConfig, path: &str) -> Result<Self, WeightsError> {
        let path = path.to_owned();
        let file = SafeTensors::deserialize(bytes)
            .map_err(|error| WeightsError::Format { path: path.clone(), reason: error.to_string() })?;
        let mut all = BTreeMap::new();
        for (name, expected) in config.parameters() {
            let view = file.tensor(&name).ok();
            let fits = view.as_ref().filter(|view| view.shape() == expected);
            let values: Option<Vec<f32>> = fits.and_then(|view| match view.dtype() {
                Dtype::F32 => Some(view.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect()),
                Dtype::F16 => {
                    Some(view.data().as_chunks::<2>().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect())
                }
                _ => None,
            });
            let Some(values) = values else {
                let found =
                    view.map_or("nothing".into(), |view| format!("{:?} of shape {:?}", view.dtype(), view.shape()));
                return Err(WeightsError::Tensor { path, name, expected, found });
            };
            if !values.iter().all(|value| value.is_finite()) {
                return Err(WeightsError::NotFinite { path, name });
            }
            all.insert(name, values);
        }
        Ok(Self(all))
    }

    /// A tensor that the configuration has.
    pub(crate) fn take(&mut self, name: &str) -> Vec<f32> {
        self.0.remove(name).unwrap_or_default()
    }
}

/// A matrix (outputs, inputs) turned: (inputs, outputs), as products with a row take it.
pub(crate) fn turned(matrix: &[f32], inputs: usize) -> Vec<f32> {
    let outputs = matrix.len() / inputs;
    (0..matrix.len()).map(|index| matrix[index % outputs * inputs + index / outputs]).collect()
}
