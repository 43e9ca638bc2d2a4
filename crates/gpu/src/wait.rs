//! The one place where something is waited for by blocking.

use yolo_lat_core::engine::EngineError;

/// What `future` gives; blocks until it does.
///
/// # Errors
/// The future's own; in a browser, where nothing may block, [`EngineError::Unavailable`] for all that is not there at once.
pub fn wait<T, E: From<EngineError>>(future: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    #[cfg(not(target_arch = "wasm32"))]
    return pollster::block_on(future);
    #[cfg(target_arch = "wasm32")]
    {
        use std::task::{Context, Poll, Waker};

        match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => result,
            Poll::Pending => {
                let reason = "a browser's GPU answers later: this needs the async form of the call".into();
                Err(EngineError::Unavailable { engine: "gpu", reason }.into())
            }
        }
    }
}
