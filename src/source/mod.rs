//! Where pictures come from.

mod images;
mod prefetch;
mod yuv;

pub use images::{IMAGE_EXTENSIONS, SourceError, decode_image, open_image};
pub use prefetch::Prefetch;
pub use yuv::{rgb_from_grey, rgb_from_nv12, rgb_from_yuyv};
