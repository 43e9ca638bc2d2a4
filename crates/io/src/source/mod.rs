//! Where images come from.

mod budget;
#[cfg(feature = "camera")]
mod camera;
mod ffmpeg;
mod folder;
mod images;
mod jpeg;
mod matroska;
mod prefetch;
mod screen;
mod stream;
mod synthetic;
mod url;
mod video;
mod yuv;

pub(crate) use budget::Share;
pub use budget::{Budget, Held, Open};
#[cfg(feature = "camera")]
pub use camera::{CameraEntry, CameraRequest, CameraSource, FormatRequest, camera_formats, cameras};
pub(crate) use ffmpeg::{Complaints, command, file_argument, passthrough};
pub use ffmpeg::{ffmpeg_version, find_program, has_ffmpeg};
pub use folder::{Found, files_in};
pub use images::{IMAGE_EXTENSIONS, SourceError, decode_image, holds_image, image_size, is_image, open_image};
pub(crate) use images::{has_extension, is_hidden, memory_of, read};
pub(crate) use matroska::FrameWriter;
pub use prefetch::Prefetch;
pub use screen::ScreenRequest;
pub use stream::{Source, SourceOptions, SourceRequest, open_source};
pub use synthetic::SyntheticSource;
pub use url::{as_url, display_name, file_stem, unknown_scheme};
pub use video::{STREAM_TIMEOUT, VIDEO_EXTENSIONS, VideoSource, holds_video, is_video};
pub use yuv::{rgb_from_grey, rgb_from_nv12, rgb_from_yuyv};
