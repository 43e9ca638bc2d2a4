//! Where pictures come from.

mod camera;
mod images;
mod prefetch;
mod stream;
mod synthetic;
mod video;
mod yuv;

pub use camera::{CameraEntry, CameraRequest, CameraSource, FormatRequest, camera_formats, cameras};
pub use images::{IMAGE_EXTENSIONS, SourceError, decode_image, image_size, open_image};
pub use prefetch::Prefetch;
pub use stream::{FrameSource, SourceRequest, open_source};
pub use synthetic::SyntheticSource;
pub use video::{VIDEO_EXTENSIONS, VideoSource, is_video};
pub use yuv::{rgb_from_grey, rgb_from_nv12, rgb_from_yuyv};
