//! What several tests need.

use std::sync::Arc;

use yolo_lat::engine::gpu::{Gpu, GpuOptions, ShaderFeatures};

/// A device of its own with what it has of `features`: on the best adapter, or the software one where that lacks 16-bit floats.
pub(crate) fn open_gpu(features: ShaderFeatures) -> Arc<Gpu> {
    let open = |adapter: Option<&str>| {
        Gpu::open(&GpuOptions { adapter: adapter.map(str::to_owned), features, ..GpuOptions::default() })
    };
    let found = open(None).ok().filter(|gpu| gpu.features().half || !features.half);
    let found = found.map_or_else(|| open(Some("llvmpipe")), Ok);
    Arc::new(found.unwrap_or_else(|error| panic!("{error}; `make test` installs Mesa's software adapter")))
}
