//! What engines run on: threads, a GPU, ONNX Runtime. Handed down, opened on first use, shared by all that is made with it.

use std::sync::Arc;
#[cfg(feature = "gpu")]
use std::sync::{Mutex, PoisonError};

#[cfg(any(feature = "gpu", feature = "ort"))]
use yolo_lat_core::engine::EngineError;
#[cfg(feature = "gpu")]
use yolo_lat_gpu::{Gpu, GpuOptions};
#[cfg(feature = "ort")]
use yolo_lat_onnx::ort::{OnnxRuntime, Provider};

/// What a [`Runtime`] may use.
#[derive(Clone, Debug, Default)]
pub struct RuntimeOptions {
    /// Threads; 0 for one a core.
    pub threads: usize,
    /// The GPU, where one is wanted.
    #[cfg(feature = "gpu")]
    pub gpu: GpuOptions,
    /// ONNX Runtime's shared library; `None` for where it usually lies.
    #[cfg(feature = "ort")]
    pub onnx_runtime: Option<std::path::PathBuf>,
    /// What ONNX Runtime computes on.
    #[cfg(feature = "ort")]
    pub provider: Provider,
}

/// Threads, devices and libraries; copies share them. [`Runtime::default`] takes what the machine has.
#[derive(Clone, Default)]
pub struct Runtime(Arc<Opened>);

#[derive(Default)]
struct Opened {
    options: RuntimeOptions,
    #[cfg(feature = "gpu")]
    gpu: Mutex<Option<Arc<Gpu>>>,
}

impl Runtime {
    /// Nothing is opened before it is needed.
    pub fn new(options: RuntimeOptions) -> Self {
        Self(Arc::new(Opened {
            options,
            #[cfg(feature = "gpu")]
            gpu: Mutex::default(),
        }))
    }

    /// One with so many threads, 0 for one a core, and everything else that the machine has.
    pub fn with_threads(threads: usize) -> Self {
        Self::new(RuntimeOptions { threads, ..RuntimeOptions::default() })
    }

    /// The same on a device of the caller's, as a window's.
    #[cfg(feature = "gpu")]
    pub fn with_gpu(&self, gpu: Arc<Gpu>) -> Self {
        Self(Arc::new(Opened { options: self.0.options.clone(), gpu: Mutex::new(Some(gpu)) }))
    }

    /// Threads of an engine, at least 1.
    pub fn threads(&self) -> usize {
        match self.0.options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }

    /// The device; a new one where the last was lost.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] says which adapters there are, [`EngineError::Device`] why the adapter gives no device.
    #[cfg(feature = "gpu")]
    pub fn gpu(&self) -> Result<Arc<Gpu>, EngineError> {
        let mut opened = self.0.gpu.lock().unwrap_or_else(PoisonError::into_inner);
        match &*opened {
            Some(gpu) if !gpu.is_lost() => Ok(gpu.clone()),
            _ => Ok(opened.insert(Arc::new(Gpu::open(&self.0.options.gpu)?)).clone()),
        }
    }

    /// ONNX Runtime. A process loads one: where another one is loaded than these options name, that is an error.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] if there is none, or it is too old, or for another machine.
    #[cfg(feature = "ort")]
    pub fn onnx_runtime(&self) -> Result<OnnxRuntime, EngineError> {
        OnnxRuntime::load(self.0.options.onnx_runtime.as_deref(), self.0.options.provider)
    }
}
