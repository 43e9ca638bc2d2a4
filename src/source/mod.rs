//! Where pictures come from.

mod images;
mod prefetch;

pub use images::{IMAGE_EXTENSIONS, SourceError, decode_image, open_image};
pub use prefetch::Prefetch;
