//! Which exception tells what went wrong, in a sentence.

use std::fmt::Display;
use std::io;
use std::path::Path;

use pyo3::PyErr;
use pyo3::exceptions::{PyFileNotFoundError, PyIsADirectoryError, PyRuntimeError, PyValueError};
use yolo_lat::engine::EngineError;
use yolo_lat::model::ModelError;
use yolo_lat::source::SourceError;
use yolo_lat::{DetectError, ModelFile};

/// Of the system about a file: FileNotFoundError, PermissionError, another OSError.
pub(crate) fn of_system(path: &dyn Display, error: &io::Error) -> PyErr {
    io::Error::new(error.kind(), format!("{path}: {error}")).into()
}

/// Of an image, called `name`.
pub(crate) fn of_image(name: &dyn Display, error: &SourceError) -> PyErr {
    match error {
        SourceError::Read(error) => of_system(name, error),
        SourceError::NotAFile => {
            PyIsADirectoryError::new_err(format!("{name}: not a file; yolo_lat.images_in lists the images of a folder"))
        }
        error => PyValueError::new_err(format!("{name}: {error}")),
    }
}

/// Of a model.
pub(crate) fn of_model(error: &ModelError) -> PyErr {
    match error {
        ModelError::Read { path, source } => of_system(path, source),
        ModelError::NoWeights { .. } => PyFileNotFoundError::new_err(error.to_string()),
        ModelError::Unknown { name, .. } if ModelFile::is_named(Path::new(name)) => {
            PyFileNotFoundError::new_err(format!("{name}: there is no such model file on this machine"))
        }
        error => PyValueError::new_err(error.to_string()),
    }
}

/// Of a detector: ValueError for what was asked of it, RuntimeError for what this machine lacks or fails at.
pub(crate) fn of_detector(error: &DetectError) -> PyErr {
    match error {
        DetectError::Model(error) | DetectError::Engine(EngineError::Model(error)) => of_model(error),
        DetectError::Engine(error) => PyRuntimeError::new_err(error.to_string()),
        error => PyValueError::new_err(error.to_string()),
    }
}
