//! An image as Python gives it.

use std::path::PathBuf;
use std::sync::Arc;

use image::RgbImage;
use numpy::{PyArray3, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use yolo_lat::source::{Budget, Held};

use crate::errors::of_image;

/// What `yolo_lat._images` makes of everything that a detector takes.
#[derive(FromPyObject)]
pub(crate) enum Given {
    /// RGB (height, width, 3), in one piece.
    Pixels(Py<PyArray3<u8>>),
    /// As a file holds it.
    Encoded(PyBackedBytes),
    /// A file.
    File(PathBuf),
}

impl Given {
    /// Its pixels, of an array a copy, so that Python may change it meanwhile. `index` counts images from 0.
    ///
    /// # Errors
    /// The exception that names the image.
    pub(crate) fn load(&self, index: usize, budget: &Arc<Budget>) -> PyResult<Held> {
        match self {
            Self::Pixels(array) => {
                let bytes = Python::attach(|py| array.bind(py).len()) as u64;
                budget.hold(index, bytes, || Python::attach(|py| copied(array.bind(py), index)))
            }
            Self::Encoded(bytes) => {
                budget.decode_image(index, bytes).map_err(|error| of_image(&format!("image {index}"), &error))
            }
            Self::File(path) => budget.open_image(index, path).map_err(|error| of_image(&path.display(), &error)),
        }
    }
}

fn copied(array: &Bound<'_, PyArray3<u8>>, index: usize) -> PyResult<RgbImage> {
    let array = array.try_readonly()?;
    let [height, width, _] = array.shape() else { unreachable!("an array of three dimensions") };
    let image = RgbImage::from_raw(*width as u32, *height as u32, array.as_slice()?.to_vec());
    image.ok_or_else(|| PyValueError::new_err(format!("image {index}: {width}x{height} are too many pixels")))
}
