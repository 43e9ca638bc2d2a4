//! Adapters and devices: the only file, with the session, that talks to wgpu.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::cache::PipelineCache;
use super::compile::Constants;
use super::wait;
use yolo_lat_core::engine::EngineError;
use yolo_lat_shaders::{Shader, ShaderFeatures};

/// Which device is opened.
#[derive(Clone, Debug)]
pub struct GpuOptions {
    /// A part of the adapter's name, driver or backend, software ones too; `None` for the best piece of hardware.
    pub adapter: Option<String>,
    /// What of the adapter's features may be used.
    pub features: ShaderFeatures,
    /// Where compiled pipelines, and which engine was the fastest, are kept for the next run of the program; `None` for nowhere.
    pub cache: Option<PathBuf>,
}

/// The best piece of hardware with all it has, pipelines kept where the user's programs keep such things.
impl Default for GpuOptions {
    fn default() -> Self {
        let features = ShaderFeatures { half: true, subgroups: true };
        Self { adapter: None, features, cache: dirs::cache_dir().map(|folder| folder.join("yolo-lat")) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a machine offers.
#[derive(Clone, Debug)]
pub struct AdapterReport {
    /// Name, driver, backend and kind.
    pub info: wgpu::AdapterInfo,
    /// Whether the engine uses it without being asked: software adapters only on request.
    pub automatic: bool,
    /// What it can do at most.
    pub limits: wgpu::Limits,
    /// 16-bit floats in shaders.
    pub f16: bool,
    /// Subgroup operations.
    pub subgroups: bool,
    /// Times of single dispatches.
    pub timestamps: bool,
    /// Storage buffers in compute shaders, as the engine needs them.
    pub suitable: bool,
}

async fn all_adapters(backends: wgpu::Backends) -> Vec<wgpu::Adapter> {
    // An instance loads the libraries of all its backends, asked or not.
    let descriptor = wgpu::InstanceDescriptor { backends, ..wgpu::InstanceDescriptor::new_without_display_handle() };
    wgpu::Instance::new(descriptor).enumerate_adapters(backends).await
}

fn is_hardware(info: &wgpu::AdapterInfo) -> bool {
    // Browsers tell of what kind an adapter is only where it is software.
    let in_browser = info.backend == wgpu::Backend::BrowserWebGpu && info.device_type == wgpu::DeviceType::Other;
    in_browser
        || matches!(
            info.device_type,
            wgpu::DeviceType::DiscreteGpu | wgpu::DeviceType::IntegratedGpu | wgpu::DeviceType::VirtualGpu
        )
}

/// Storage buffers that a shader binds.
const STORAGE_BUFFERS: u32 = 6;

fn is_suitable(limits: &wgpu::Limits) -> bool {
    limits.max_storage_buffers_per_shader_stage >= STORAGE_BUFFERS
        && limits.max_compute_invocations_per_workgroup >= 256
        && limits.max_compute_workgroup_storage_size >= 16_384
}

/// All adapters of this machine; none in a browser, which answers later than this returns.
pub fn adapters() -> Vec<AdapterReport> {
    wait(async { Ok::<_, EngineError>(adapters_async().await) }).unwrap_or_default()
}

async fn adapters_async() -> Vec<AdapterReport> {
    let report = |adapter: wgpu::Adapter| {
        let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
        AdapterReport {
            automatic: is_hardware(&info) && is_suitable(&limits),
            f16: features.contains(wgpu::Features::SHADER_F16),
            subgroups: features.contains(wgpu::Features::SUBGROUP),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            suitable: is_suitable(&limits),
            info,
            limits,
        }
    };
    all_adapters(wgpu::Backends::all()).await.into_iter().map(report).collect()
}

/// Discrete before integrated before virtual; Vulkan, Metal and DirectX before OpenGL.
fn rank(info: &wgpu::AdapterInfo) -> (usize, usize) {
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        _ => 3,
    };
    (kind, usize::from(info.backend == wgpu::Backend::Gl))
}

fn unavailable(reason: String) -> EngineError {
    EngineError::Unavailable { engine: "gpu", reason }
}

fn describe(info: &wgpu::AdapterInfo) -> String {
    // Browsers keep the name to themselves.
    match (info.name.as_str(), info.backend) {
        ("", wgpu::Backend::BrowserWebGpu) => "WebGPU".into(),
        (name, backend) => format!("{name} ({backend})"),
    }
}

/// Whether there can be hardware at all. Loading Vulkan takes a while, and some drivers talk on standard error.
fn may_have_hardware() -> bool {
    let nodes = ["/dev/dri", "/dev/nvidiactl", "/dev/dxg", "/dev/kgsl-3d0", "/dev/mali0"];
    !cfg!(target_os = "linux") || nodes.iter().any(|node| std::path::Path::new(node).exists())
}

async fn choose(name: Option<&str>) -> Result<wgpu::Adapter, EngineError> {
    #[cfg(target_arch = "wasm32")]
    if !wgpu::util::is_browser_webgpu_supported().await {
        return Err(unavailable("this browser gives no WebGPU adapter".into()));
    }
    if name.is_none() && !may_have_hardware() {
        let why = "this machine has no GPU (no /dev/dri or the like); a software adapter is used only when named with \
                   --adapter (`yolo-lat devices` lists them)";
        return Err(unavailable(why.into()));
    }
    // OpenGL is asked only for what is named: looking for it is slow, and its libraries talk on standard error.
    let backends = if name.is_some() { wgpu::Backends::all() } else { wgpu::Backends::PRIMARY };
    let mut all = all_adapters(backends).await;
    all.sort_by_key(|adapter| rank(&adapter.get_info()));
    let names: Vec<String> = all.iter().map(|adapter| describe(&adapter.get_info())).collect();
    let found = match name {
        Some(name) => all.into_iter().find(|adapter| identity(&adapter.get_info()).to_lowercase().contains(name)),
        None => all.into_iter().find(|adapter| is_hardware(&adapter.get_info()) && is_suitable(&adapter.limits())),
    };
    let there = if names.is_empty() { "none at all".to_owned() } else { names.join(", ") };
    match (found, name) {
        (Some(adapter), _) if is_suitable(&adapter.limits()) => Ok(adapter),
        (Some(adapter), _) => Err(unavailable(format!(
            "{} has too small limits for compute shaders (`yolo-lat devices` lists them)",
            describe(&adapter.get_info())
        ))),
        (None, Some(name)) => Err(unavailable(format!("no adapter is called {name:?}; there are: {there}"))),
        (None, None) if cfg!(target_arch = "wasm32") => {
            Err(unavailable("the adapter of this browser is software, which is slower than the processor".into()))
        }
        (None, None) => Err(unavailable(format!(
            "this machine has no GPU; adapters: {there}; a software one is used only when named with --adapter"
        ))),
    }
}

/// A shader, the values of its constants, and the features it uses.
type PipelineKey = (Shader, Constants, ShaderFeatures);

/// A device with the pipelines made for it so far; detectors may share one.
pub struct Gpu {
    info: wgpu::AdapterInfo,
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    /// Bind groups: of the network; of images in buffers; of images in textures; of decoding and suppression.
    pub(super) layouts: Layouts,
    /// The features that its shaders use.
    features: ShaderFeatures,
    /// Each is compiled by the first that wants it, outside of the lock: only those who want the same one wait.
    pipelines: Mutex<HashMap<PipelineKey, Arc<OnceLock<wgpu::ComputePipeline>>>>,
    /// What the driver compiled, kept on disk where it can be.
    cache: Option<PipelineCache>,
    /// Buffers and pipelines made so far.
    created: AtomicUsize,
    read: AtomicU64,
    /// What went wrong outside of any call.
    device_error: Arc<Mutex<Option<String>>>,
}

pub(super) struct Layouts {
    pub(super) network: wgpu::BindGroupLayout,
    pub(super) image: wgpu::BindGroupLayout,
    pub(super) texture: wgpu::BindGroupLayout,
    pub(super) detections: wgpu::BindGroupLayout,
}

impl Layouts {
    fn new(device: &wgpu::Device) -> Self {
        let buffer =
            |ty, dynamic| wgpu::BindingType::Buffer { ty, has_dynamic_offset: dynamic, min_binding_size: None };
        let read = buffer(wgpu::BufferBindingType::Storage { read_only: true }, false);
        let write = buffer(wgpu::BufferBindingType::Storage { read_only: false }, false);
        let uniform = |dynamic| buffer(wgpu::BufferBindingType::Uniform, dynamic);
        let texture = wgpu::BindingType::Texture {
            sample_type: wgpu::TextureSampleType::Float { filterable: false },
            view_dimension: wgpu::TextureViewDimension::D2,
            multisampled: false,
        };
        let layout = |label, types: &[wgpu::BindingType]| {
            let entries: Vec<_> = (0u32..)
                .zip(types)
                .map(|(binding, &ty)| wgpu::BindGroupLayoutEntry {
                    binding,
                    visibility: wgpu::ShaderStages::COMPUTE,
                    ty,
                    count: None,
                })
                .collect();
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(label), entries: &entries })
        };
        Self {
            network: layout("network", &[write, read, read, read, uniform(true)]),
            image: layout("image", &[uniform(true), read, read]),
            texture: layout("texture", &[uniform(true), texture, read]),
            detections: layout("detections", &[uniform(false), write, write, write]),
        }
    }
}

/// A GPU that was found and is not open yet.
pub struct Adapter(wgpu::Adapter);

impl Adapter {
    /// Finds the one that is meant.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] says which adapters there are.
    pub async fn find(options: &GpuOptions) -> Result<Self, EngineError> {
        choose(options.adapter.as_deref().map(str::to_lowercase).as_deref()).await.map(Self)
    }

    /// As [`Gpu::identity`].
    pub fn identity(&self) -> String {
        identity(&self.0.get_info())
    }
}

/// Name, backend, driver and its version.
fn identity(info: &wgpu::AdapterInfo) -> String {
    format!("{} {} {}", describe(info), info.driver, info.driver_info)
}

impl Gpu {
    /// Finds a device and opens it.
    ///
    /// # Errors
    /// As [`Gpu::open_async`], and what [`wait`] says in a browser.
    pub fn open(options: &GpuOptions) -> Result<Self, EngineError> {
        wait(Self::open_async(options))
    }

    /// The same for callers that wait in their own way.
    ///
    /// # Errors
    /// As [`Adapter::find`] and [`Gpu::on`].
    pub async fn open_async(options: &GpuOptions) -> Result<Self, EngineError> {
        Self::on(&Adapter::find(options).await?, options).await
    }

    /// Opens a device on an adapter that was found with the same options.
    ///
    /// # Errors
    /// [`EngineError::Device`] says why the adapter gives no device.
    pub async fn on(Adapter(adapter): &Adapter, options: &GpuOptions) -> Result<Self, EngineError> {
        use wgpu::Features;

        let offered = adapter.limits();
        let limits = wgpu::Limits {
            // Beyond WebGPU's defaults only memory, for large batches.
            max_buffer_size: offered.max_buffer_size,
            max_storage_buffer_binding_size: offered.max_storage_buffer_binding_size,
            ..wgpu::Limits::default().or_worse_values_from(&offered)
        };
        let mut wanted = Self::useful_features();
        wanted.set(Features::SHADER_F16, options.features.half);
        wanted.set(Features::SUBGROUP, options.features.subgroups);
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("yolo-lat"),
            required_features: adapter.features() & wanted,
            required_limits: limits,
            ..wgpu::DeviceDescriptor::default()
        };
        let fail = |error| EngineError::Device { reason: format!("{}: {error}", describe(&adapter.get_info())) };
        let (device, queue) = adapter.request_device(&descriptor).await.map_err(fail)?;
        let gpu = Self::from_device(adapter.get_info(), device, queue, options.cache.as_deref());
        if !is_hardware(&gpu.info) {
            log::warn!("{} is a software adapter: correct, but slower than the cpu engine", describe(&gpu.info));
        }
        Ok(gpu)
    }

    /// What an adapter may have that makes shaders faster or tells of them; none of it is needed.
    pub fn useful_features() -> wgpu::Features {
        use wgpu::Features;
        Features::TIMESTAMP_QUERY | Features::PIPELINE_CACHE | Features::SHADER_F16 | Features::SUBGROUP
    }

    /// Works on a device that somebody else made, as a window's; `cache` as in [`GpuOptions`].
    pub fn from_device(
        info: wgpu::AdapterInfo,
        device: wgpu::Device,
        queue: wgpu::Queue,
        cache: Option<&Path>,
    ) -> Self {
        let device_error = Arc::new(Mutex::new(None));
        let note = |device_error: &Arc<Mutex<Option<String>>>| {
            let device_error = device_error.clone();
            move |text: String| {
                lock(&device_error).get_or_insert(text);
            }
        };
        let lost = note(&device_error);
        device.set_device_lost_callback(move |_, message| lost(format!("the device was lost: {message}")));
        let failed = note(&device_error);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| failed(one_line(&error.to_string()))));
        let layouts = Layouts::new(&device);
        let features = device.features();
        let features = ShaderFeatures {
            half: features.contains(wgpu::Features::SHADER_F16),
            subgroups: features.contains(wgpu::Features::SUBGROUP),
        };
        let cache = cache.and_then(|folder| PipelineCache::open(folder, &info, &device));
        let (pipelines, created, read) = (Mutex::default(), AtomicUsize::new(0), AtomicU64::new(0));
        Self { info, device, queue, layouts, features, pipelines, cache, created, read, device_error }
    }

    /// The features that its shaders use.
    pub fn features(&self) -> ShaderFeatures {
        self.features
    }

    /// Keeps what was compiled for the next run of the program.
    pub(super) fn keep_pipelines(&self) {
        if let Some(cache) = &self.cache {
            cache.keep();
        }
    }

    /// The device itself, for a window that draws with it.
    pub fn device(&self) -> &wgpu::Device {
        &self.device
    }

    /// Whether it is reached by OpenGL, for want of anything newer.
    pub(super) fn is_opengl(&self) -> bool {
        self.info.backend == wgpu::Backend::Gl
    }

    /// Whether it is a piece of hardware.
    pub fn is_hardware(&self) -> bool {
        is_hardware(&self.info)
    }

    /// Name and backend.
    pub fn name(&self) -> String {
        describe(&self.info)
    }

    /// Tells it from others: name, backend, driver and its version.
    pub fn identity(&self) -> String {
        identity(&self.info)
    }

    /// Buffers and pipelines made so far: constant once everything is warm.
    pub fn created(&self) -> usize {
        self.created.load(Ordering::Relaxed)
    }

    /// Bytes that were read back from the device so far.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    pub(super) fn count_read(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether the device failed: it then gives nothing but errors.
    pub fn is_lost(&self) -> bool {
        self.device_error().is_some()
    }

    /// Gives the device up: it hangs, or has no memory left.
    pub(super) fn give_up(&self, reason: &str) {
        lock(&self.device_error).get_or_insert(reason.to_owned());
    }

    /// What went wrong, if anything did; the device is then given up.
    pub(super) fn device_error(&self) -> Option<String> {
        lock(&self.device_error).clone()
    }

    /// Whether single dispatches can be timed.
    pub(super) fn has_timestamps(&self) -> bool {
        self.device.features().contains(wgpu::Features::TIMESTAMP_QUERY)
    }

    /// Gives the device back as a driver that crashed would.
    pub fn destroy(&self) {
        self.device.destroy();
    }

    /// Whether a storage buffer of so many bytes can be.
    ///
    /// # Errors
    /// [`EngineError::Device`] names the limit that it would break.
    pub(super) fn check_size(&self, label: &str, bytes: u64) -> Result<(), EngineError> {
        let limits = self.device.limits();
        let most = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        self.check_limit(label, bytes, "max_storage_buffer_binding_size", most)
    }

    fn check_limit(&self, label: &str, bytes: u64, limit: &str, most: u64) -> Result<(), EngineError> {
        if bytes <= most {
            return Ok(());
        }
        let name = self.name();
        let reason = format!("{bytes} bytes are too many for {label}: {limit} of {name} is {most}; use a smaller size");
        Err(EngineError::Device { reason })
    }

    /// A texture of this device for images that are both shown and looked at.
    pub fn image_texture(&self, (width, height): (u32, u32)) -> wgpu::Texture {
        self.created.fetch_add(1, Ordering::Relaxed);
        self.device.create_texture(&wgpu::TextureDescriptor {
            label: Some("image"),
            size: wgpu::Extent3d { width, height, depth_or_array_layers: 1 },
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: wgpu::TextureFormat::Rgba8Unorm,
            usage: wgpu::TextureUsages::TEXTURE_BINDING | wgpu::TextureUsages::COPY_DST,
            view_formats: &[],
        })
    }

    /// Brings pixels (rows of red, green, blue, alpha) into a texture of [`Gpu::image_texture`].
    pub fn write_texture(&self, texture: &wgpu::Texture, (width, height): (u32, u32), rgba: &[u8]) {
        let layout = wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(4 * width), rows_per_image: None };
        let size = wgpu::Extent3d { width, height, depth_or_array_layers: 1 };
        self.queue.write_texture(texture.as_image_copy(), rgba, layout, size);
    }

    /// A buffer of at least 16 bytes.
    ///
    /// # Errors
    /// [`EngineError::Device`] names the limit that it would break, or says that memory is short.
    pub(super) async fn buffer(
        &self,
        label: &str,
        bytes: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<wgpu::Buffer, EngineError> {
        if usage.contains(wgpu::BufferUsages::STORAGE) {
            self.check_size(label, bytes)?;
        } else {
            self.check_limit(label, bytes, "max_buffer_size", self.device.limits().max_buffer_size)?;
        }
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: bytes.max(16).next_multiple_of(4),
            usage,
            mapped_at_creation: false,
        });
        if let Some(error) = scope.pop().await {
            let reason = format!("no memory for {label}, {bytes} bytes: {}", one_line(&error.to_string()));
            self.give_up(&reason);
            return Err(EngineError::Device { reason });
        }
        self.created.fetch_add(1, Ordering::Relaxed);
        Ok(buffer)
    }

    /// The pipeline of a shader with some constants; compiled once.
    pub(super) fn pipeline(&self, shader: Shader, constants: &Constants) -> wgpu::ComputePipeline {
        let mut features = shader.relevant(self.features);
        // Squares of norms leave the range of 16 bits.
        features.half &= !constants.iter().any(|&(name, value)| name == "SIMILARITY" && value != 0);
        let place = lock(&self.pipelines).entry((shader, constants.clone(), features)).or_default().clone();
        place.get_or_init(|| self.compile(shader, constants, features)).clone()
    }

    fn compile(&self, shader: Shader, constants: &Constants, features: ShaderFeatures) -> wgpu::ComputePipeline {
        let in_browser = self.info.backend == wgpu::Backend::BrowserWebGpu;
        let source = if in_browser { shader.source_in_browser(features) } else { shader.source(features) };
        let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(shader.name()),
            source: wgpu::ShaderSource::Wgsl(source.into()),
        });
        let second = match shader {
            Shader::Letterbox => Some(&self.layouts.image),
            Shader::LetterboxTexture => Some(&self.layouts.texture),
            Shader::Decode | Shader::Suppress => Some(&self.layouts.detections),
            _ => None,
        };
        let groups: Vec<_> = std::iter::once(Some(&self.layouts.network)).chain(second.map(Some)).collect();
        let layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(shader.name()),
            bind_group_layouts: &groups,
            immediate_size: 0,
        });
        let constants: Vec<(&str, f64)> = constants.iter().map(|&(name, value)| (name, f64::from(value))).collect();
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(shader.name()),
            layout: Some(&layout),
            module: &module,
            entry_point: Some(shader.name()),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &constants,
                ..wgpu::PipelineCompilationOptions::default()
            },
            cache: self.cache.as_ref().map(PipelineCache::handle),
        });
        self.created.fetch_add(1, Ordering::Relaxed);
        pipeline
    }
}

/// The first line of a message that may have many.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
