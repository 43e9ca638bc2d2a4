//! Cameras by nokhwa, opened and read in the caller's thread: one that hangs hangs that thread only.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use image::RgbImage;
use nokhwa::Camera;
use nokhwa::utils::{
    ApiBackend, CameraFormat, CameraIndex, FrameFormat, RequestedFormat, RequestedFormatType, Resolution,
};

use super::images::{SourceError, decode_image};
use super::stream::Source;
use super::yuv::{rgb_from_grey, rgb_from_nv12, rgb_from_yuyv};
use crate::frame::Frame;

/// What is decoded here, in the order it is tried: compressed first, since USB has no room for many plain images.
const FORMATS: [FrameFormat; 6] = [
    FrameFormat::MJPEG,
    FrameFormat::YUYV,
    FrameFormat::NV12,
    FrameFormat::RAWRGB,
    FrameFormat::RAWBGR,
    FrameFormat::GRAY,
];
/// The size that is asked for where the user names none: more pixels only cost time before a network of 320.
const PREFERRED: (u32, u32) = (640, 480);
/// Frames in a row that may be broken before a format counts as not delivered.
const BROKEN_FRAMES_TIMEOUT: usize = 10;

/// A device that can capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CameraEntry {
    /// Number of the device.
    pub index: u32,
    /// As its driver calls it.
    pub name: String,
    /// `/dev/video0`, or the number where there are no paths.
    pub path: String,
    /// Why it cannot be opened, and what to do.
    pub problem: Option<String>,
}

/// Which camera, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CameraRequest {
    /// Number, path, or a part of the name.
    pub device: String,
    /// The only format to try.
    pub format: Option<FormatRequest>,
}

impl CameraRequest {
    /// A camera in the best format that it delivers.
    pub fn of(device: &str) -> Self {
        Self { device: device.to_owned(), format: None }
    }
}

/// `640x480@30,mjpeg`: size, then optionally rate and kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormatRequest {
    size: (u32, u32),
    rate: Option<u32>,
    kind: Option<FrameFormat>,
}

impl std::str::FromStr for FormatRequest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected a size, perhaps with rate and format, as 640x480@30,mjpeg; found {text:?}");
        let (rest, kind) = match text.split_once(',') {
            Some((rest, name)) => (rest, Some(parse_kind(name.trim())?)),
            None => (text, None),
        };
        let (size, rate) = match rest.split_once('@') {
            Some((size, rate)) => (size, Some(rate.trim().parse().map_err(|_| wrong())?)),
            None => (rest, None),
        };
        let (width, height) = size.split_once('x').ok_or_else(wrong)?;
        let side = |text: &str| text.trim().parse::<u32>().ok().filter(|&side| side > 0).ok_or_else(wrong);
        Ok(Self { size: (side(width)?, side(height)?), rate, kind })
    }
}

fn kind_name(kind: FrameFormat) -> &'static str {
    match kind {
        FrameFormat::MJPEG => "mjpeg",
        FrameFormat::YUYV => "yuyv",
        FrameFormat::NV12 => "nv12",
        FrameFormat::GRAY => "grey",
        FrameFormat::RAWRGB => "rgb",
        FrameFormat::RAWBGR => "bgr",
    }
}

fn parse_kind(name: &str) -> Result<FrameFormat, String> {
    let found = FORMATS.into_iter().find(|&kind| kind_name(kind).eq_ignore_ascii_case(name));
    found.ok_or_else(|| format!("no format {name:?}; known are {}", FORMATS.map(kind_name).join(", ")))
}

/// All devices that can capture; outputs and metadata nodes are no cameras.
pub fn cameras() -> Vec<CameraEntry> {
    let found = nokhwa::query(ApiBackend::Auto).unwrap_or_default();
    let mut cameras: Vec<CameraEntry> = found
        .iter()
        .filter_map(|info| {
            let index = info.index().as_index().ok()?;
            entry(index, info.human_name())
        })
        .collect();
    cameras.sort_by_key(|camera| camera.index);
    cameras
}

#[cfg(target_os = "linux")]
fn entry(index: u32, name: String) -> Option<CameraEntry> {
    use v4l::capability::Flags;

    let path = format!("/dev/video{index}");
    let camera = |name, problem| Some(CameraEntry { index, name, path: path.clone(), problem });
    match v4l::Device::new(index as usize) {
        Ok(device) => match device.query_caps() {
            Ok(found) if found.capabilities.contains(Flags::VIDEO_CAPTURE) => camera(found.card, None),
            Ok(_) => None,
            Err(error) => camera(name, Some(error.to_string())),
        },
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            camera(name, Some(explain(&format!("{path}: {error}"))))
        }
        Err(error) => camera(name, Some(error.to_string())),
    }
}

#[cfg(not(target_os = "linux"))]
fn entry(index: u32, name: String) -> Option<CameraEntry> {
    Some(CameraEntry { index, name, path: index.to_string(), problem: None })
}

/// Formats that a camera offers and that are decoded here: `640x480@30,mjpeg`.
///
/// # Errors
/// [`SourceError::Camera`] if it cannot be opened.
pub fn camera_formats(index: u32) -> Result<Vec<String>, SourceError> {
    let formats = offered(index)?;
    Ok(formats.iter().map(describe_format).collect())
}

fn describe_format(format: &CameraFormat) -> String {
    let size = format.resolution();
    format!("{}x{}@{},{}", size.width(), size.height(), format.frame_rate(), kind_name(format.format()))
}

fn fail(error: impl std::fmt::Display) -> SourceError {
    SourceError::Camera(explain(&error.to_string()))
}

/// Adds what to do about the usual reasons.
fn explain(error: &str) -> String {
    let lower = error.to_lowercase();
    let hint = if lower.contains("permission denied") {
        "; add yourself to the group video: sudo usermod -aG video $USER, then log in again"
    } else if lower.contains("busy") {
        "; another program uses it: close that (fuser -v /dev/video* names it)"
    } else {
        ""
    };
    format!("{}{hint}", error.lines().next().unwrap_or_default())
}

fn open(index: u32, format: RequestedFormatType) -> Result<Camera, SourceError> {
    let request = RequestedFormat::with_formats(format, &FORMATS);
    Camera::new(CameraIndex::Index(index), request).map_err(fail)
}

fn offered(index: u32) -> Result<Vec<CameraFormat>, SourceError> {
    let mut camera = open(index, RequestedFormatType::None)?;
    let mut formats = camera.compatible_camera_formats().map_err(fail)?;
    formats.retain(|format| FORMATS.contains(&format.format()));
    formats.sort_by_key(|format| {
        let size = format.resolution();
        let kind = FORMATS.iter().position(|&kind| kind == format.format());
        (kind, size.width(), size.height(), format.frame_rate())
    });
    formats.dedup();
    Ok(formats)
}

/// One format of each kind, those to be tried first at the front.
fn candidates(formats: &[CameraFormat], wanted: Option<FormatRequest>) -> Vec<CameraFormat> {
    let size = wanted.map_or(PREFERRED, |wanted| wanted.size);
    let distance = |found: Resolution| {
        let (width, height) = (found.width().abs_diff(size.0), found.height().abs_diff(size.1));
        u64::from(width) + u64::from(height)
    };
    let fits = |format: &&CameraFormat| {
        wanted.is_none_or(|wanted| {
            let found = format.resolution();
            (found.width(), found.height()) == wanted.size
                && wanted.rate.is_none_or(|rate| rate == format.frame_rate())
                && wanted.kind.is_none_or(|kind| kind == format.format())
        })
    };
    let best = |kind| {
        let of_kind = formats.iter().filter(fits).filter(move |format| format.format() == kind);
        of_kind.min_by_key(|format| (distance(format.resolution()), std::cmp::Reverse(format.frame_rate()))).copied()
    };
    FORMATS.into_iter().filter_map(best).collect()
}

/// Frames of one camera; opened when the first is asked for, and again after it was lost.
pub struct CameraSource {
    request: CameraRequest,
    open: Option<(Camera, CameraFormat)>,
    name: String,
    next: u64,
    /// It does not offer what was asked for, and never will.
    hopeless: bool,
}

impl CameraSource {
    /// Nothing is opened yet.
    pub fn new(request: CameraRequest) -> Self {
        Self { name: format!("camera {}", request.device), request, open: None, next: 0, hopeless: false }
    }

    fn find(&self) -> Result<CameraEntry, SourceError> {
        let cameras = cameras();
        let wanted = self.request.device.as_str();
        // Links in /dev/v4l/by-id name cameras for good.
        let real = std::fs::canonicalize(wanted).unwrap_or_default();
        let is_exact = |camera: &&CameraEntry| {
            camera.path == wanted || real == Path::new(&camera.path) || camera.index.to_string() == wanted
        };
        let exact = cameras.iter().find(is_exact);
        let named = || cameras.iter().find(|camera| camera.name.to_lowercase().contains(&wanted.to_lowercase()));
        exact.or_else(named).cloned().ok_or_else(|| {
            let names: Vec<String> =
                cameras.iter().map(|camera| format!("{} ({})", camera.path, camera.name)).collect();
            let there = if names.is_empty() { "no cameras".to_owned() } else { names.join(", ") };
            SourceError::Camera(format!("no camera {wanted:?}; there are {there}"))
        })
    }

    /// Opens the camera in the first format of which frames come, and gives the first frame.
    fn start(&mut self) -> Result<RgbImage, SourceError> {
        let camera = self.find()?;
        if let Some(problem) = camera.problem {
            return Err(SourceError::Camera(problem));
        }
        let formats = offered(camera.index)?;
        let candidates = candidates(&formats, self.request.format);
        if candidates.is_empty() {
            self.hopeless = true;
            let names: Vec<String> = formats.iter().map(describe_format).collect();
            let there = if names.is_empty() { "none that is known here".to_owned() } else { names.join(" ") };
            return Err(SourceError::Camera(format!("{} does not offer that format; it offers {there}", camera.path)));
        }
        let mut reason = None;
        for format in candidates {
            match Self::try_format(camera.index, format) {
                Ok((device, image)) => {
                    self.name = format!("{} ({}), {}", camera.name, camera.path, describe_format(&format));
                    self.open = Some((device, format));
                    return Ok(image);
                }
                Err(error) => {
                    log::info!("{}: {}: {error}", camera.path, describe_format(&format));
                    reason.get_or_insert(error);
                }
            }
        }
        Err(reason.unwrap_or_else(|| SourceError::Camera("no frames came".into())))
    }

    fn try_format(index: u32, format: CameraFormat) -> Result<(Camera, RgbImage), SourceError> {
        let mut camera = open(index, RequestedFormatType::Exact(format))?;
        camera.open_stream().map_err(fail)?;
        let mut error = SourceError::Camera("no frames came".into());
        for _ in 0..BROKEN_FRAMES_TIMEOUT {
            match read(&mut camera, format) {
                Ok(image) => return Ok((camera, image)),
                Err(broken) => error = broken,
            }
        }
        Err(error)
    }
}

/// The next frame as RGB.
fn read(camera: &mut Camera, format: CameraFormat) -> Result<RgbImage, SourceError> {
    let buffer = camera.frame().map_err(fail)?;
    let (bytes, size) = (buffer.buffer(), buffer.resolution());
    let (width, height) = (size.width(), size.height());
    let raw = |bgr: bool| {
        let mut image = RgbImage::from_raw(width, height, bytes.to_vec())?;
        if bgr {
            image.pixels_mut().for_each(|pixel| pixel.0.reverse());
        }
        Some(image)
    };
    let image = match format.format() {
        FrameFormat::MJPEG => return decode_image(bytes),
        FrameFormat::YUYV => rgb_from_yuyv(bytes, width, height),
        FrameFormat::NV12 => rgb_from_nv12(bytes, width, height),
        FrameFormat::GRAY => rgb_from_grey(bytes, width, height),
        FrameFormat::RAWRGB => raw(false),
        FrameFormat::RAWBGR => raw(true),
    };
    image.ok_or_else(|| {
        SourceError::Camera(format!("{} bytes are no frame of {}", bytes.len(), describe_format(&format)))
    })
}

impl Source for CameraSource {
    fn description(&self) -> String {
        self.name.clone()
    }

    fn next_frame(&mut self, stop: &AtomicBool) -> Result<Option<Frame>, SourceError> {
        let pixels = match &mut self.open {
            None => self.start()?,
            Some((camera, format)) => {
                let mut broken = 0;
                loop {
                    match read(camera, *format) {
                        Ok(pixels) => break pixels,
                        // A damaged frame now and then is life.
                        Err(SourceError::Decode(reason)) if broken < BROKEN_FRAMES_TIMEOUT => {
                            log::debug!("{}: {reason}", self.name);
                            broken += 1;
                        }
                        Err(error) => {
                            self.open = None;
                            return Err(error);
                        }
                    }
                    if stop.load(Ordering::Relaxed) {
                        return Ok(None);
                    }
                }
            }
        };
        let sequence = self.next;
        self.next += 1;
        Ok(Some(Frame { pixels, sequence, captured_at: SystemTime::now() }))
    }

    fn can_recover(&self) -> bool {
        !self.hopeless
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(width: u32, height: u32, kind: FrameFormat, rate: u32) -> CameraFormat {
        CameraFormat::new(Resolution::new(width, height), kind, rate)
    }

    #[test]
    fn formats_are_read_as_they_are_written() {
        let request: FormatRequest = "640x480@30,mjpeg".parse().unwrap();
        let expected = FormatRequest { size: (640, 480), rate: Some(30), kind: Some(FrameFormat::MJPEG) };
        assert_eq!(request, expected);
        assert_eq!("320x180".parse::<FormatRequest>().unwrap().rate, None);
        for wrong in ["", "640", "640x", "0x480", "640x480@x", "640x480,h264", "axb"] {
            assert!(wrong.parse::<FormatRequest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn compressed_formats_near_640_come_first() {
        let offered = [
            format(1920, 1080, FrameFormat::MJPEG, 30),
            format(640, 480, FrameFormat::MJPEG, 15),
            format(640, 480, FrameFormat::MJPEG, 30),
            format(640, 480, FrameFormat::YUYV, 30),
            format(320, 180, FrameFormat::GRAY, 60),
        ];
        let chosen: Vec<String> = candidates(&offered, None).iter().map(describe_format).collect();
        assert_eq!(chosen, ["640x480@30,mjpeg", "640x480@30,yuyv", "320x180@60,grey"]);
        let wanted = "320x180".parse().ok();
        assert_eq!(candidates(&offered, wanted).len(), 1);
        assert!(candidates(&offered, "1x1".parse().ok()).is_empty());
    }

    #[test]
    fn the_usual_reasons_say_what_to_do() {
        assert!(explain("Permission denied (os error 13)").contains("group video"));
        assert!(explain("Device or resource busy (os error 16)").contains("another program"));
    }

    #[test]
    fn a_camera_that_is_not_there_is_named() {
        let mut source = CameraSource::new(CameraRequest::of("no such camera"));
        let error = source.next_frame(&AtomicBool::new(false)).unwrap_err().to_string();
        assert!(error.contains("no such camera"), "{error}");
    }
}
