//! What several tests need.

use std::sync::Arc;

use yolo_lat::engine::gpu::{Gpu, Variant, adapters};

/// A device of its own on the best adapter, software ones last, with what it has of `variant`; says so if there is none.
pub(crate) fn open_gpu(variant: Variant) -> Option<Arc<Gpu>> {
    let found = Gpu::open(None, variant).or_else(|_| Gpu::open(Some("llvmpipe"), variant));
    let message = |error: &yolo_lat::engine::EngineError| {
        let there: Vec<String> = adapters().into_iter().map(|adapter| adapter.info.name).collect();
        eprintln!("skipped: {error}; adapters: {there:?}; `make test` installs Mesa's software adapter");
    };
    found.inspect_err(message).ok().map(Arc::new)
}
