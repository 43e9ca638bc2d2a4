//! What engines run on: threads, a GPU, ONNX Runtime. Handed down, opened on first use, shared by all that is made with it.

#[cfg(all(feature = "cpu", feature = "gpu"))]
use std::collections::HashMap;
use std::sync::Arc;
#[cfg(feature = "gpu")]
use std::sync::MutexGuard;
#[cfg(feature = "gpu")]
use std::sync::{Mutex, PoisonError};

#[cfg(any(feature = "gpu", feature = "ort"))]
use yolo_lat_core::engine::EngineError;
#[cfg(feature = "gpu")]
use yolo_lat_gpu::{Adapter, Gpu, GpuOptions, wait};
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
    gpu: Mutex<Device>,
    #[cfg(all(feature = "cpu", feature = "gpu"))]
    measured: Mutex<HashMap<String, Measured>>,
}

/// What a network takes on this machine.
#[cfg(all(feature = "cpu", feature = "gpu"))]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Measured {
    /// Least milliseconds of an image in the CPU and in the GPU engine.
    pub(crate) times_ms: [f64; 2],
    /// When that was measured, for people.
    pub(crate) origin: String,
}

/// How far the GPU is.
#[cfg(feature = "gpu")]
#[derive(Default)]
enum Device {
    #[default]
    Unknown,
    Found(Adapter),
    Open(Arc<Gpu>),
}

impl Runtime {
    /// Nothing is opened before it is needed.
    pub fn new(options: RuntimeOptions) -> Self {
        Self(Arc::new(Opened { options, ..Opened::default() }))
    }

    /// One with so many threads, 0 for one a core, and everything else that the machine has.
    pub fn with_threads(threads: usize) -> Self {
        Self::new(RuntimeOptions { threads, ..RuntimeOptions::default() })
    }

    /// The same on a device of the caller's, as a window's.
    #[cfg(feature = "gpu")]
    pub fn with_gpu(&self, gpu: Arc<Gpu>) -> Self {
        let gpu = Mutex::new(Device::Open(gpu));
        Self(Arc::new(Opened { options: self.0.options.clone(), gpu, ..Opened::default() }))
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
    /// As [`Runtime::gpu_async`], and what [`wait`] says in a browser.
    #[cfg(feature = "gpu")]
    pub fn gpu(&self) -> Result<Arc<Gpu>, EngineError> {
        wait(self.gpu_async())
    }

    /// The same for callers that wait in their own way.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] says which adapters there are, [`EngineError::Device`] why the adapter gives no device.
    #[cfg(feature = "gpu")]
    pub async fn gpu_async(&self) -> Result<Arc<Gpu>, EngineError> {
        let options = &self.0.options.gpu;
        let known = match &mut *self.device() {
            Device::Open(gpu) if !gpu.is_lost() => return Ok(gpu.clone()),
            known => std::mem::take(known),
        };
        let gpu = match known {
            Device::Found(adapter) => Gpu::on(&adapter, options).await?,
            _ => Gpu::open_async(options).await?,
        };
        let mut device = self.device();
        // Nobody holds a lock while it waits: of two that open one at once, the first one's is taken by both.
        if let Device::Open(gpu) = &*device
            && !gpu.is_lost()
        {
            return Ok(gpu.clone());
        }
        let gpu = Arc::new(gpu);
        *device = Device::Open(gpu.clone());
        Ok(gpu)
    }

    #[cfg(feature = "gpu")]
    fn device(&self) -> MutexGuard<'_, Device> {
        self.0.gpu.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the GPU from others, with its driver, without opening it: [`Gpu::identity`].
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] says which adapters there are, and what [`wait`] says in a browser.
    #[cfg(feature = "gpu")]
    pub fn gpu_identity(&self) -> Result<String, EngineError> {
        match &*self.device() {
            Device::Open(gpu) => return Ok(gpu.identity()),
            Device::Found(adapter) => return Ok(adapter.identity()),
            Device::Unknown => {}
        }
        let adapter = wait(Adapter::find(&self.0.options.gpu))?;
        let identity = adapter.identity();
        let mut device = self.device();
        if matches!(*device, Device::Unknown) {
            *device = Device::Found(adapter);
        }
        Ok(identity)
    }

    #[cfg(all(feature = "cpu", feature = "gpu"))]
    pub(crate) fn gpu_options(&self) -> &GpuOptions {
        &self.0.options.gpu
    }

    /// What was measured so far, by machine and network.
    #[cfg(all(feature = "cpu", feature = "gpu"))]
    pub(crate) fn measured(&self) -> MutexGuard<'_, HashMap<String, Measured>> {
        self.0.measured.lock().unwrap_or_else(PoisonError::into_inner)
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
