//! An image as Python gives it.

use std::path::PathBuf;

use image::RgbImage;
use numpy::{PyArray3, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use yolo_lat::source::{decode_image, open_image};

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
    /// Its pixels: a copy, so that Python may change an array meanwhile. `index` counts images from 0.
    ///
    /// # Errors
    /// The exception that names the image.
    pub(crate) fn load(&self, index: usize) -> PyResult<RgbImage> {
        match self {
            Self::Pixels(array) => Python::attach(|py| {
                let array = array.bind(py).try_readonly()?;
                let [height, width, _] = array.shape() else { unreachable!("an array of three dimensions") };
                let image = RgbImage::from_raw(*width as u32, *height as u32, array.as_slice()?.to_vec());
                image.ok_or_else(|| {
                    PyValueError::new_err(format!("image {index}: {width}x{height} are too many pixels"))
                })
            }),
            Self::Encoded(bytes) => decode_image(bytes).map_err(|error| of_image(&format!("image {index}"), &error)),
            Self::File(path) => open_image(path).map_err(|error| of_image(&path.display(), &error)),
        }
    }
}
