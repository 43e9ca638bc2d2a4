//! Annotated video, encoded by ffmpeg in a process of its own.

use std::collections::VecDeque;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use image::RgbImage;
use tempfile::TempPath;

use super::SinkError;
use super::file::temporary;
use crate::source::{Complaints, FrameWriter, command, file_argument, has_ffmpeg, passthrough};

/// How long a frame stays that is the only one.
const USUAL: Duration = Duration::from_millis(40);
/// More bytes than ffmpeg writes at once.
const ROOM: usize = 64 << 10;
/// Most that containers are told of how long a frame stays: they let the last one stay so long, whenever it ended.
const LONGEST: Duration = Duration::from_millis(100);
/// Two frames are at least so far from each other.
const SHORTEST: Duration = Duration::from_millis(1);
/// Extensions of containers in which every frame has a time of its own. In others frames are repeated at an even rate.
const TIMED: [&str; 6] = ["mp4", "m4v", "mov", "mkv", "webm", "gif"];

/// Writes images of one size with their times as a video; the file appears under its name when it is complete.
pub struct VideoRecorder {
    path: PathBuf,
    part: Option<TempPath>,
    size: (u32, u32),
    child: Child,
    complaints: Complaints,
    input: Option<ChildStdin>,
    writer: Option<FrameWriter<BufWriter<ChildStdin>>>,
    /// The last two images: how long they stay is known when the next one comes.
    held: VecDeque<(RgbImage, Duration)>,
    /// The shortest time that one stayed: others stayed longer where frames were left out.
    shortest: Option<Duration>,
    /// What the container was told.
    told: Duration,
    /// When the first image was taken.
    began: Option<SystemTime>,
}

impl VideoRecorder {
    /// Starts a video of `size` pixels; the extension of `path` decides the container.
    ///
    /// # Errors
    /// [`SinkError`] if ffmpeg is not installed or the folder cannot be made.
    pub fn start(path: &Path, size: (u32, u32)) -> Result<Self, SinkError> {
        let fail = |error: io::Error| SinkError::new(path, error);
        if !has_ffmpeg() {
            return Err(fail(io::Error::other("videos need ffmpeg: sudo apt-get install ffmpeg, or ffmpeg.org")));
        }
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let part = temporary(path, &format!(".{extension}"))?.into_temp_path();
        let mut command = command("ffmpeg");
        // Ctrl-C in a terminal is for this program, which then completes the file.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.args(["-f", "matroska", "-i", "pipe:0"]);
        // Encoders want even sides and colour at half the resolution; frames out of order would cost the last one's time.
        command.args(["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p"]);
        if TIMED.contains(&&*extension) {
            command.args(passthrough(&AtomicBool::new(false))).args(["-enc_time_base", "1:1000000", "-bf", "0"]);
        }
        command.arg("-y").arg(file_argument(&part)).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(fail)?;
        let complaints = Complaints::listen(child.stderr.take(), format!("file:{}", part.display())).map_err(fail)?;
        let input = child.stdin.take();
        let path = path.to_owned();
        let part = Some(part);
        let (held, writer, shortest, told, began) = (VecDeque::new(), None, None, USUAL, None);
        Ok(Self { path, part, size, child, complaints, input, writer, held, shortest, told, began })
    }

    /// Adds an image that is seen from `time` on; one of another size is fitted.
    ///
    /// # Errors
    /// [`SinkError`] if ffmpeg has given up.
    pub fn push(&mut self, image: &RgbImage, time: Duration) -> Result<(), SinkError> {
        let image = if image.dimensions() == self.size {
            image.clone()
        } else {
            let filter = image::imageops::FilterType::Triangle;
            image::imageops::resize(image, self.size.0, self.size.1, filter)
        };
        // A clock may be set back, and the times of a damaged file are anything.
        let last = self.held.back().map(|(_, last)| *last);
        let time = last.map_or(time, |last| time.max(last + SHORTEST));
        self.shortest = self.shortest.into_iter().chain(last.map(|last| time - last)).min();
        self.held.push_back((image, time));
        if self.held.len() > 2 { self.write_first() } else { Ok(()) }
    }

    /// The first image was taken at this time; what was taken before counts as taken then.
    pub fn begin(&mut self, time: SystemTime) {
        self.began = Some(time);
    }

    /// Adds an image that was taken at a time of day.
    ///
    /// # Errors
    /// As [`VideoRecorder::push`].
    pub fn push_taken_at(&mut self, image: &RgbImage, time: SystemTime) -> Result<(), SinkError> {
        let began = *self.began.get_or_insert(time);
        self.push(image, time.duration_since(began).unwrap_or_default())
    }

    /// Writes the first of the images that are held.
    fn write_first(&mut self) -> Result<(), SinkError> {
        self.held.pop_front().map_or(Ok(()), |(image, time)| self.write(&image, time))
    }

    fn write(&mut self, image: &RgbImage, time: Duration) -> Result<(), SinkError> {
        let written = match (&mut self.writer, self.input.take()) {
            (Some(writer), _) => writer.write(image, time),
            (None, Some(input)) => {
                self.told = self.shortest.unwrap_or(USUAL).min(LONGEST);
                FrameWriter::new(BufWriter::new(input), self.size, self.told)
                    .and_then(|writer| self.writer.insert(writer).write(image, time))
            }
            (None, None) => Ok(()),
        };
        // That ffmpeg has closed its input says nothing; what it says tells why.
        written.or_else(|error| self.wait(Some(error)))
    }

    /// Waits for ffmpeg to end.
    fn wait(&mut self, error: Option<io::Error>) -> Result<(), SinkError> {
        drop((self.writer.take(), self.input.take()));
        let fail = |error: io::Error| SinkError::new(&self.path, error);
        let status = self.child.wait().map_err(fail)?;
        // Of a full disk ffmpeg says this or that, and some versions end with success: whether there is room is tried here.
        temporary(&self.path, ".room")?.write_all(&[0; ROOM]).map_err(fail)?;
        if status.success() && error.is_none() {
            return Ok(());
        }
        let said = self.complaints.first().unwrap_or_else(|| format!("it ended with {status}"));
        Err(fail(io::Error::other(format!("ffmpeg: {said}; is the extension that of a video?"))))
    }

    /// Completes the file; the last image is seen until `end`, or as long as one is at least.
    ///
    /// # Errors
    /// [`SinkError`] if ffmpeg failed.
    pub fn finish(mut self, end: Option<Duration>) -> Result<(), SinkError> {
        while self.held.len() > 1 {
            self.write_first()?;
        }
        if let Some((image, time)) = self.held.pop_front() {
            self.write(&image, time)?;
            // Containers take what they were told for the last frame's time: one that stays longer is shown again.
            let end = end.unwrap_or(time + self.shortest.unwrap_or(USUAL));
            let again = end.saturating_sub(self.told);
            if again > time + self.told / 2 {
                self.write(&image, again)?;
            }
        }
        self.wait(None)?;
        match self.part.take() {
            Some(part) => part.persist(&self.path).map_err(|error| SinkError::new(&self.path, error.error)),
            None => Ok(()),
        }
    }
}

impl Drop for VideoRecorder {
    fn drop(&mut self) {
        // After `finish` nothing is left to do. ffmpeg ends with its input; the unfinished file goes.
        drop((self.writer.take(), self.input.take()));
        let _ = self.child.wait();
    }
}
