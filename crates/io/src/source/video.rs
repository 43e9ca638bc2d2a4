//! Video files, decoded by ffmpeg in a process of its own.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

use ffmpeg_sidecar::child::FfmpegChild;
use ffmpeg_sidecar::command::{FfmpegCommand, ffmpeg_is_installed};
use ffmpeg_sidecar::event::{FfmpegEvent, LogLevel};
use ffmpeg_sidecar::iter::FfmpegIterator;
use image::RgbImage;

use super::images::SourceError;
use super::stream::{FrameSource, wait_until};
use crate::frame::Frame;

/// File name extensions that are taken for videos, lower case.
pub const VIDEO_EXTENSIONS: [&str; 9] = ["mp4", "mkv", "webm", "mov", "avi", "m4v", "mpg", "mpeg", "ts"];

/// Whether a path is named like a video.
pub fn is_video(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    extension.is_some_and(|extension| VIDEO_EXTENSIONS.contains(&extension.as_str()))
}

/// Every frame of a video, in order.
pub struct VideoSource {
    path: PathBuf,
    child: FfmpegChild,
    events: FfmpegIterator,
    /// What ffmpeg complained of last.
    complaint: Option<String>,
    /// When playing at the video's own speed began.
    paced: Option<Instant>,
    decoded: u64,
    rate: Option<f64>,
}

impl VideoSource {
    /// Starts decoding; `paced` waits for each frame's time, as live sources do.
    ///
    /// # Errors
    /// [`SourceError::NoFfmpeg`] says how to install it; [`SourceError::Read`] if the file is not there.
    pub fn open(path: &Path, paced: bool) -> Result<Self, SourceError> {
        std::fs::metadata(path)?;
        if !ffmpeg_is_installed() {
            return Err(SourceError::NoFfmpeg);
        }
        let mut command = FfmpegCommand::new();
        command.input(path).args(["-an", "-sn"]).rawvideo();
        let mut child = command.spawn()?;
        let events = child.iter().map_err(|error| SourceError::Decode(error.to_string()))?;
        let paced = paced.then(Instant::now);
        Ok(Self { path: path.to_owned(), child, events, complaint: None, paced, decoded: 0, rate: None })
    }
}

impl VideoSource {
    /// Frames a second, once a frame has come.
    pub fn rate(&self) -> Option<f64> {
        self.rate
    }
}

impl FrameSource for VideoSource {
    fn description(&self) -> String {
        self.path.display().to_string()
    }

    fn next_frame(&mut self, stop: &AtomicBool) -> Result<Option<Frame>, SourceError> {
        for event in self.events.by_ref() {
            match event {
                FfmpegEvent::OutputFrame(frame) => {
                    if let Some(started) = self.paced
                        && !wait_until(started + Duration::from_secs_f32(frame.timestamp.max(0.0)), stop)
                    {
                        return Ok(None);
                    }
                    let pixels = RgbImage::from_raw(frame.width, frame.height, frame.data)
                        .ok_or_else(|| SourceError::Decode("ffmpeg gave a frame of another size".into()))?;
                    let sequence = self.decoded;
                    self.decoded += 1;
                    return Ok(Some(Frame { pixels, sequence, captured_at: SystemTime::now() }));
                }
                FfmpegEvent::ParsedOutputStream(stream) => {
                    self.rate = stream.video_data().map(|video| f64::from(video.fps)).filter(|&rate| rate > 0.0);
                }
                FfmpegEvent::Log(LogLevel::Error | LogLevel::Fatal, line) | FfmpegEvent::Error(line) => {
                    // The last line tells only that there were errors.
                    self.complaint.get_or_insert(line);
                }
                _ => {}
            }
        }
        match self.complaint.take() {
            Some(complaint) if self.decoded == 0 => Err(SourceError::Decode(complaint)),
            Some(complaint) => {
                log::warn!("{}: {complaint}", self.path.display());
                Ok(None)
            }
            None if self.decoded == 0 => Err(SourceError::Decode("the video has no frames".into())),
            None => Ok(None),
        }
    }
}

impl Drop for VideoSource {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
