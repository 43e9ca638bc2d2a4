//! Weights: named f32 tensors from a safetensors file, batch norm folded, checked before anything uses them.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use safetensors::{Dtype, SafeTensors};

use super::{Graph, ModelError, WeightsError};

/// A larger file is refused unread: the largest model here has 5 MB.
const LARGEST_FILE: u64 = 256 << 20;

/// Values in row-major order; the last dimension varies fastest.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Dimensions; for a convolution `(out, in / groups, kernel rows, kernel columns)`.
    pub shape: Vec<usize>,
    /// `shape.product()` values; shared, so that clones of a model are cheap.
    pub values: Arc<[f32]>,
}

impl Tensor {
    /// # Errors
    /// The first value that is NaN or infinite.
    pub(super) fn check_finite(&self, name: &str) -> Result<(), WeightsError> {
        match self.values.iter().position(|value| !value.is_finite()) {
            Some(index) => Err(WeightsError::NotFinite { name: name.into(), index, value: self.values[index] }),
            None => Ok(()),
        }
    }
}

/// Tensors by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights {
    tensors: BTreeMap<String, Tensor>,
}

impl Weights {
    /// Reads a safetensors file.
    ///
    /// # Errors
    /// [`ModelError`] for a file that cannot be read, is too large, is no safetensors file, or holds something
    /// other than finite 32-bit floats.
    pub fn load(path: &Path) -> Result<Self, ModelError> {
        Self::parse(&read_limited(path)?, &path.display().to_string())
    }

    /// Reads the contents of a safetensors file; `origin` names it in errors.
    ///
    /// # Errors
    /// As [`Weights::load`].
    pub fn parse(bytes: &[u8], origin: &str) -> Result<Self, ModelError> {
        // The crate checks the header's length, every offset and every size against the bytes that are there.
        let file = SafeTensors::deserialize(bytes)
            .map_err(|error| ModelError::Format { path: origin.to_owned(), reason: error.to_string() })?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            if view.dtype() != Dtype::F32 {
                let found = format!("{:?}", view.dtype());
                return Err(ModelError::Dtype { path: origin.to_owned(), name: name.to_owned(), found });
            }
            let (chunks, _) = view.data().as_chunks::<4>();
            let values: Arc<[f32]> = chunks.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
            let tensor = Tensor { shape: view.shape().to_vec(), values };
            tensor
                .check_finite(name)
                .map_err(|reason| ModelError::Weights { path: origin.to_owned(), reason: reason.into() })?;
            tensors.insert(name.to_owned(), tensor);
        }
        Ok(Self { tensors })
    }

    /// Adds or replaces a tensor.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.tensors.insert(name.into(), tensor);
    }

    /// The values of a tensor; `None` where there is none of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Names and tensors in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Those of the nodes of `graph`, which may be a part of the network that these are for.
    pub fn only(&self, graph: &Graph) -> Self {
        let own = graph.weights().into_iter().filter_map(|spec| self.tensors.get_key_value(&spec.name));
        Self { tensors: own.map(|(name, tensor)| (name.clone(), tensor.clone())).collect() }
    }
}

/// Reads a model file, but never more than a model can have: the path may be a device or something huge.
pub(super) fn read_limited(path: &Path) -> Result<Vec<u8>, ModelError> {
    let name = path.display().to_string();
    let fail = |source| ModelError::Read { path: name.clone(), source };
    let file = std::fs::File::open(path).map_err(fail)?;
    let announced = file.metadata().map_err(fail)?.len();
    let mut bytes = Vec::new();
    if announced <= LARGEST_FILE {
        file.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(fail)?;
    }
    let found = announced.max(bytes.len() as u64);
    if found > LARGEST_FILE {
        return Err(ModelError::TooLarge { path: name, bytes: found, limit: LARGEST_FILE });
    }
    Ok(bytes)
}
