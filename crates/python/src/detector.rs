//! A detector that Python's threads share.

use std::sync::{Mutex, PoisonError};

use image::RgbImage;
use numpy::{PyArray1, PyArrayMethods};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use yolo_lat::Detection;
use yolo_lat::source::{Budget, Prefetch};

use crate::errors::of_detector;
use crate::given::Given;
use crate::options::{Opened, Options};

/// One thread at a time detects with it, the others wait.
#[pyclass(frozen)]
pub(crate) struct Detector {
    /// There until it is dropped.
    opened: Option<Mutex<Opened>>,
    /// What the classes are called.
    #[pyo3(get)]
    names: Py<PyTuple>,
    /// What runs, for people.
    #[pyo3(get)]
    description: String,
    /// Its threads are in this process, and not in one that is forked off it.
    process: u32,
}

/// What was found in an image, and the image's width and height.
type Found = (Vec<Detection>, (u32, u32));

#[pymethods]
impl Detector {
    #[new]
    fn new(py: Python, model: &str, options: &Bound<'_, PyDict>) -> PyResult<Self> {
        let options: Options = options.extract().map_err(|error: PyErr| {
            let cause = error.cause(py).map(|cause| format!(": {}", cause.value(py)));
            PyTypeError::new_err(format!("{}{}", error.value(py), cause.unwrap_or_default()))
        })?;
        let opened = py.detach(|| options.open(model))?;
        Ok(Self {
            names: PyTuple::new(py, opened.detector.classes())?.unbind(),
            description: opened.detector.description(),
            opened: Some(Mutex::new(opened)),
            process: std::process::id(),
        })
    }

    /// For each image boxes (n, 4), confidences (n), classes (n), width and height; or, if they are wanted and not raised, the
    /// exception that tells why it could not be read.
    fn detect<'py>(
        &self,
        py: Python<'py>,
        images: Vec<Given>,
        return_exceptions: bool,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let Some(opened) = self.opened.as_ref().filter(|_| self.is_here()) else {
            return Err(PyRuntimeError::new_err(
                "this Detector was made in another process, from which this one was forked without its threads: make one in each \
                 process, or start processes by the method \"spawn\"",
            ));
        };
        let found = py.detach(|| run(opened, &images, return_exceptions))?;
        found.into_iter().map(|found| as_python(py, found)).collect()
    }
}

impl Detector {
    fn is_here(&self) -> bool {
        self.process == std::process::id()
    }
}

/// Threads of another process cannot be waited for.
impl Drop for Detector {
    fn drop(&mut self) {
        if !self.is_here() {
            std::mem::forget(self.opened.take());
        }
    }
}

/// Images are loaded ahead of the network, and taken together as they come, as in the program.
fn run(opened: &Mutex<Opened>, images: &[Given], return_exceptions: bool) -> PyResult<Vec<PyResult<Found>>> {
    let Opened { detector, batch, loaders } = &mut *opened.lock().unwrap_or_else(PoisonError::into_inner);
    let budget = Budget::new(Budget::bytes_for(*loaders));
    std::thread::scope(|scope| {
        // When an error ends it, none waits for its turn any longer.
        let _wanted = budget.open();
        let load = |index: usize| images[index].load(index, &budget);
        let mut loader = Prefetch::scoped(scope, images.len(), *loaders, Default::default(), load)?;
        let mut found = Vec::with_capacity(images.len());
        loop {
            let loaded = loader.next_batch(*batch);
            if loaded.is_empty() {
                return Ok(found);
            }
            let decoded: Vec<&RgbImage> = loaded.iter().filter_map(|(_, image)| image.as_deref().ok()).collect();
            let detections = if decoded.is_empty() { Ok(Vec::new()) } else { detector.detections(&decoded) };
            let mut detections = detections.map_err(|error| of_detector(&error))?.into_iter();
            for (_, image) in loaded {
                match image {
                    Ok(image) => found.extend(detections.next().map(|of_image| Ok((of_image, image.dimensions())))),
                    Err(error) if return_exceptions => found.push(Err(error)),
                    Err(error) => return Err(error),
                }
            }
            // Ctrl-C ends it between two batches.
            Python::attach(|py| py.check_signals())?;
        }
    })
}

fn as_python(py: Python<'_>, found: PyResult<Found>) -> PyResult<Bound<'_, PyAny>> {
    let (detections, (width, height)) = match found {
        Ok(found) => found,
        Err(error) => return Ok(error.into_value(py).into_bound(py).into_any()),
    };
    let corners: Vec<f32> = detections.iter().flat_map(|it| [it.bbox.x1, it.bbox.y1, it.bbox.x2, it.bbox.y2]).collect();
    let boxes = PyArray1::from_vec(py, corners).reshape([detections.len(), 4])?;
    let confidence = PyArray1::from_iter(py, detections.iter().map(|it| it.confidence));
    let class = PyArray1::from_iter(py, detections.iter().map(|it| it.class as i64));
    Ok((boxes, confidence, class, width, height).into_pyobject(py)?.into_any())
}
