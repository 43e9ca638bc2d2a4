//! What of the Python module `yolo_lat` is Rust: images in, arrays out, the GIL free in between. Python programs see it through
//! `python/yolo_lat`, which has the defaults, the types and the documentation.

mod detector;
mod errors;
mod given;
mod options;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use pyo3::prelude::*;
use yolo_lat::source::{Found, files_in, is_image};

#[pymodule]
mod _native {
    #[pymodule_export]
    use super::{detector::Detector, images_in, main};
}

/// Files of a folder, on request with those of its sub-folders, that are named like images, by name: those that the program finds.
///
/// Raises FileNotFoundError, PermissionError or another OSError of a folder that cannot be read.
#[pyfunction]
#[pyo3(signature = (folder, recursive=false))]
fn images_in(py: Python, folder: PathBuf, recursive: bool) -> PyResult<Vec<PathBuf>> {
    let Found { files, errors } = py.detach(|| files_in(&folder, recursive, None, is_image));
    match errors.into_iter().next() {
        Some((folder, error)) => Err(errors::of_system(&folder.display(), &error)),
        None => Ok(files),
    }
}

/// The program: arguments with its name first, and its exit code.
#[pyfunction]
fn main(py: Python, arguments: Vec<OsString>) -> u8 {
    let code = py.detach(|| yolo_lat_cli::run(arguments));
    // A code can be compared, but not read.
    (0..=u8::MAX).find(|&number| ExitCode::from(number) == code).unwrap_or(u8::MAX)
}
