//! Videos from files and from the network, decoded by ffmpeg in a process of its own.

use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use image::RgbImage;
use serde::Deserialize;

use super::ffmpeg::{self, Complaints, Running, STEP};
use super::images::{SourceError, begins_picture, has_extension};
use super::matroska::FrameReader;
use super::stream::{FrameSource, wait_until};
use super::url::{as_url, display_name};
use crate::frame::Frame;

/// File name extensions that are taken for videos, lower case.
pub const VIDEO_EXTENSIONS: [&str; 37] = [
    "mp4", "m4v", "mov", "qt", "3gp", "3g2", "mkv", "webm", "avi", "divx", "wmv", "asf", "flv", "f4v", "mpg", "mpeg",
    "mpe", "m2v", "vob", "ts", "mts", "m2ts", "mjpeg", "mjpg", "ogv", "ogm", "mxf", "dv", "rm", "rmvb", "y4m", "ivf",
    "nut", "h264", "264", "h265", "hevc",
];
/// Frames that wait for their reader.
const QUEUE: usize = 2;
/// Without a picture for this long, a network stream counts as failed.
pub const STREAM_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether a path is named like a video; hidden files are none.
pub fn is_video(path: &Path) -> bool {
    has_extension(path, &VIDEO_EXTENSIONS)
}

/// Whether a source is to be read as a video: an address, a file that is named like one and does not begin like a picture,
/// or one whose contents begin like a video whatever it is called. Streams of JPEGs go by their names.
pub fn holds_video(path: &Path) -> bool {
    if as_url(path).is_some() {
        return true;
    }
    let mut head = Vec::new();
    // A pipe must not be touched: what is read here would be missing later.
    if path.is_file() {
        let _ = std::fs::File::open(path).and_then(|file| file.take(64).read_to_end(&mut head));
    }
    if begins_picture(&head) { has_extension(path, &["mjpeg", "mjpg"]) } else { is_video(path) || begins_video(&head) }
}

/// Whether these first bytes are those of a container of videos.
fn begins_video(head: &[u8]) -> bool {
    const ASF: [u8; 8] = [0x30, 0x26, 0xB2, 0x75, 0x8E, 0x66, 0xCF, 0x11];
    match head {
        [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] => {
            !["heic", "heix", "hevc", "mif1", "msf1", "avif", "avis", "M4A "]
                .iter()
                .any(|no| brand.starts_with(no.as_bytes()))
        }
        [b'R', b'I', b'F', b'F', _, _, _, _, b'A', b'V', b'I', ..] => true,
        [0x1A, 0x45, 0xDF, 0xA3, ..] | [b'F', b'L', b'V', 1, ..] | [0, 0, 1, 0xBA | 0xB3, ..] => true,
        _ => head.starts_with(&ASF),
    }
}

/// The part of `ffprobe -of json` that matters here.
#[derive(Deserialize)]
struct Probe {
    #[serde(default)]
    streams: Vec<Stream>,
    error: Option<ProbeError>,
}

#[derive(Deserialize)]
struct ProbeError {
    string: String,
}

#[derive(Deserialize)]
struct Stream {
    index: usize,
    #[serde(default)]
    codec_type: String,
    #[serde(default)]
    width: u64,
    #[serde(default)]
    height: u64,
    #[serde(default)]
    duration: String,
    #[serde(default)]
    disposition: Disposition,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Disposition {
    default: u8,
    attached_pic: u8,
}

/// A frame with its time in the video and when it was there.
type Decoded = (RgbImage, Duration, SystemTime);

/// ffmpeg at work.
struct Decoder {
    process: Running,
    complaints: Complaints,
    frames: Receiver<io::Result<Decoded>>,
}

/// Every frame of a video, in order, each once.
pub struct VideoSource {
    path: PathBuf,
    /// Longest wait for a frame, of a network stream.
    timeout: Option<Duration>,
    paced: bool,
    /// When the first frame was shown.
    started: Option<(Instant, SystemTime)>,
    decoder: Option<Decoder>,
    /// Nothing comes any more.
    ended: bool,
    decoded: u64,
    time: Duration,
    length: Option<Duration>,
}

impl VideoSource {
    /// A video file, or an address that ffmpeg opens (`rtsp://`, `http://` and the like). Nothing is decoded yet; `paced`
    /// waits for each frame's time, as live sources do.
    ///
    /// # Errors
    /// [`SourceError::NoFfmpeg`] says how to install it; [`SourceError::Read`] if the file is not there.
    pub fn open(path: &Path, paced: bool) -> Result<Self, SourceError> {
        let is_stream = as_url(path).is_some();
        if !is_stream && std::fs::metadata(path)?.is_dir() {
            return Err(SourceError::NotAFile);
        }
        if !ffmpeg::has_ffmpeg() {
            return Err(SourceError::NoFfmpeg);
        }
        Ok(Self {
            path: path.to_owned(),
            timeout: is_stream.then_some(STREAM_TIMEOUT),
            // A stream sets its own pace.
            paced: paced && !is_stream,
            started: None,
            decoder: None,
            ended: false,
            decoded: 0,
            time: Duration::ZERO,
            length: None,
        })
    }

    /// Changes how long a network stream may give no picture; [`STREAM_TIMEOUT`] at first. Files may take any time.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = self.timeout.map(|_| timeout);
    }

    /// Time of the last frame from the start.
    pub fn time(&self) -> Duration {
        self.time
    }

    /// How long the video lasts, if its file says so and a frame has come.
    pub fn length(&self) -> Option<Duration> {
        self.length
    }

    /// Starts ffmpeg; `None` soon after `stop` is set.
    fn start(&mut self, stop: &AtomicBool) -> Result<Option<Decoder>, SourceError> {
        let url = as_url(&self.path);
        // Asking first would connect twice to a stream, and take from a pipe what decoding needs.
        let can_ask = url.is_none() && self.path.is_file() && ffmpeg::has_program("ffprobe");
        let stream = match can_ask.then(|| probe(&self.path, stop)).transpose()? {
            Some(None) => return Ok(None),
            Some(Some(stream)) => {
                let seconds = stream.duration.parse().ok().filter(|&seconds: &f64| seconds > 0.0);
                self.length = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                format!("0:{}", stream.index)
            }
            // The first one that is not the cover of a song.
            None => "0:V:0".into(),
        };
        let mut command = ffmpeg::command("ffmpeg");
        command.arg("-nostdin");
        if url.is_some_and(|url| url.to_lowercase().starts_with("rtsp")) {
            // Over UDP pictures arrive torn.
            command.args(["-rtsp_transport", "tcp"]);
        }
        command.arg("-i");
        match url {
            Some(url) => command.arg(url),
            None => command.arg(ffmpeg::file_argument(&self.path)),
        };
        command.args(["-map", &stream, "-an", "-sn", "-dn"]).args(ffmpeg::passthrough(stop));
        command.args(["-enc_time_base", "1:1000000", "-c:v", "rawvideo", "-pix_fmt", "rgb24"]);
        command.args(["-allow_raw_vfw", "1", "-f", "matroska", "pipe:1"]);
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let mut process = Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
        let prefix = url.map_or_else(|| format!("file:{}", self.path.display()), str::to_owned);
        let complaints = Complaints::listen(process.0.stderr.take(), prefix)?;
        let (sender, frames) = sync_channel(QUEUE);
        let output = process.0.stdout.take().ok_or_else(|| io::Error::other("ffmpeg has no output"))?;
        std::thread::Builder::new().name("video".into()).spawn(move || {
            let mut reader = FrameReader::new(BufReader::with_capacity(1 << 16, output));
            while let Some(frame) = reader.next_frame().transpose() {
                let failed = frame.is_err();
                let stamped = frame.map(|(pixels, time)| (pixels, time, SystemTime::now()));
                if sender.send(stamped).is_err() || failed {
                    break;
                }
            }
        })?;
        Ok(Some(Decoder { process, complaints, frames }))
    }

    /// What ffmpeg's end means.
    fn end(&mut self, failure: Option<io::Error>) -> Result<Option<Frame>, SourceError> {
        self.ended = true;
        let Some(mut decoder) = self.decoder.take() else { return Ok(None) };
        let failure = failure.filter(|error| error.kind() != io::ErrorKind::UnexpectedEof);
        if failure.is_some() {
            let _ = decoder.process.0.kill();
        }
        let success = decoder.process.0.wait()?.success();
        let complaint = decoder.complaints.first().or_else(|| failure.map(|error| error.to_string()));
        let complaint = complaint.or_else(|| (!success).then(|| "ffmpeg failed".to_owned()));
        let is_stream = self.timeout.is_some();
        match (complaint, self.decoded) {
            (Some(complaint), 0) if is_stream => Err(SourceError::Stream(complaint)),
            (Some(complaint), 0) => Err(SourceError::Decode(complaint)),
            (None, 0) => Err(SourceError::Decode("the video has no frames".into())),
            // Streams lose packets, and begin between two whole pictures.
            (Some(complaint), _) if is_stream && success => {
                log::info!("{}: {complaint}", self.description());
                Ok(None)
            }
            (Some(complaint), frames) => Err(SourceError::Incomplete { frames, reason: complaint }),
            (None, _) => Ok(None),
        }
    }
}

/// Asks ffprobe for the stream that is the video, as ffmpeg would choose: marked as default, then the largest. `None` soon
/// after `stop` is set.
fn probe(path: &Path, stop: &AtomicBool) -> Result<Option<Stream>, SourceError> {
    let mut command = ffmpeg::command("ffprobe");
    let entries = "stream=index,codec_type,width,height,duration:stream_disposition=default,attached_pic";
    command.args(["-show_error", "-show_entries", entries, "-of", "json", "-i"]).arg(ffmpeg::file_argument(path));
    let Some((_, output)) = ffmpeg::answer(&mut command, stop, None)? else { return Ok(None) };
    let probe: Probe = serde_json::from_slice(&output).map_err(|error| SourceError::Decode(error.to_string()))?;
    if let Some(error) = probe.error {
        return Err(SourceError::Decode(error.string));
    }
    let holds_sound = probe.streams.iter().any(|stream| stream.codec_type == "audio");
    let is_video = |stream: &Stream| stream.codec_type == "video" && stream.disposition.attached_pic == 0;
    let rank =
        |stream: &Stream| (stream.disposition.default, stream.width * stream.height, std::cmp::Reverse(stream.index));
    let found = probe.streams.into_iter().filter(is_video).max_by_key(rank);
    let nothing = if holds_sound { "it holds sound and no video" } else { "it holds no video" };
    found.map(Some).ok_or_else(|| SourceError::Decode(nothing.into()))
}

impl FrameSource for VideoSource {
    fn description(&self) -> String {
        display_name(&self.path)
    }

    fn next_frame(&mut self, stop: &AtomicBool) -> Result<Option<Frame>, SourceError> {
        if self.ended && self.timeout.is_none() {
            return Ok(None);
        }
        let decoder = match self.decoder.take() {
            Some(decoder) => decoder,
            None => match self.start(stop) {
                Ok(Some(decoder)) => decoder,
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.ended = true;
                    return Err(error);
                }
            },
        };
        let waiting = Instant::now();
        let (pixels, time, arrived) = loop {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            match decoder.frames.recv_timeout(STEP) {
                Ok(Ok(decoded)) => break decoded,
                Ok(Err(error)) => {
                    self.decoder = Some(decoder);
                    return self.end(Some(error));
                }
                // Ctrl-C in a terminal ends ffmpeg too.
                Err(RecvTimeoutError::Disconnected) if stop.load(Ordering::Relaxed) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => {
                    self.decoder = Some(decoder);
                    return self.end(None);
                }
                Err(RecvTimeoutError::Timeout) => match self.timeout {
                    Some(timeout) if waiting.elapsed() > timeout => {
                        return Err(SourceError::Stream(format!("no picture within {timeout:?}")));
                    }
                    _ => {}
                },
            }
        };
        self.decoder = Some(decoder);
        let (started, began) = *self.started.get_or_insert_with(|| (Instant::now(), SystemTime::now()));
        if self.paced && !wait_until(started + time, stop) {
            return Ok(None);
        }
        let captured_at = if self.paced { began + time } else { arrived };
        let sequence = self.decoded;
        self.decoded += 1;
        self.time = time;
        Ok(Some(Frame { pixels, sequence, captured_at }))
    }

    /// A stream may come back, a damaged file will not be better.
    fn can_recover(&self) -> bool {
        self.timeout.is_some()
    }
}
