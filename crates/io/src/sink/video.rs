//! Annotated video, encoded by ffmpeg in a process of its own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};

use ffmpeg_sidecar::command::{FfmpegCommand, ffmpeg_is_installed};
use image::RgbImage;

use super::SinkError;

/// Writes pictures of one size as a video; the file appears under its name when it is complete.
pub struct VideoRecorder {
    path: PathBuf,
    part: PathBuf,
    size: (u32, u32),
    child: Child,
    input: Option<ChildStdin>,
}

impl VideoRecorder {
    /// Starts a video of `size` pixels; the extension of `path` decides the container.
    ///
    /// # Errors
    /// [`SinkError`] if ffmpeg is not installed or the folder cannot be made.
    pub fn start(path: &Path, size: (u32, u32), frames_per_second: f64) -> Result<Self, SinkError> {
        let fail = |error: std::io::Error| SinkError::new(path, error);
        if !ffmpeg_is_installed() {
            return Err(fail(std::io::Error::other("videos need ffmpeg: sudo apt-get install ffmpeg, or ffmpeg.org")));
        }
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(fail)?;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let part = path.with_file_name(format!(".part-{name}"));
        let mut command = FfmpegCommand::new();
        command
            .args(["-f", "rawvideo", "-pix_fmt", "rgb24"])
            .args(["-s", &format!("{}x{}", size.0, size.1), "-r", &format!("{frames_per_second:.3}"), "-i", "-"])
            // Encoders want even sides and colour at half the resolution.
            .args(["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", "-y"])
            .arg(&part);
        let command = command.as_inner_mut().stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(fail)?;
        let input = child.stdin.take();
        Ok(Self { path: path.to_owned(), part, size, child, input })
    }

    /// Adds a picture; one of another size is fitted.
    ///
    /// # Errors
    /// [`SinkError`] if ffmpeg has given up.
    pub fn push(&mut self, picture: &RgbImage) -> Result<(), SinkError> {
        let fitted;
        let picture = if picture.dimensions() == self.size {
            picture
        } else {
            let filter = image::imageops::FilterType::Triangle;
            fitted = image::imageops::resize(picture, self.size.0, self.size.1, filter);
            &fitted
        };
        match &mut self.input {
            Some(input) => input.write_all(picture.as_raw()).map_err(|error| SinkError::new(&self.path, error)),
            None => Ok(()),
        }
    }

    /// Completes the file.
    ///
    /// # Errors
    /// [`SinkError`] if ffmpeg failed.
    pub fn finish(mut self) -> Result<(), SinkError> {
        drop(self.input.take());
        let status = self.child.wait().map_err(|error| SinkError::new(&self.path, error))?;
        if !status.success() {
            let error = std::io::Error::other(format!("ffmpeg failed ({status}); is the extension that of a video?"));
            return Err(SinkError::new(&self.path, error));
        }
        std::fs::rename(&self.part, &self.path).map_err(|error| SinkError::new(&self.path, error))
    }
}

impl Drop for VideoRecorder {
    fn drop(&mut self) {
        // After `finish` there is neither.
        if self.input.take().is_some() {
            let _ = self.child.wait();
        }
        let _ = std::fs::remove_file(&self.part);
    }
}
