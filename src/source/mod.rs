//! Where pictures come from.

mod images;

pub use images::{IMAGE_EXTENSIONS, SourceError, decode_image, open_image};
