//! Live detection as a session of threads, and the window that shows it.

pub mod live;
#[cfg(feature = "window")]
pub mod window;
