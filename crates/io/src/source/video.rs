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
use super::images::{SourceError, begins_image, has_extension};
use super::matroska::FrameReader;
use super::screen::ScreenRequest;
use super::stream::{Source, SourceOptions, SourceRequest, wait_until};
use super::url::{as_url, display_name, portable_url};
use crate::frame::Frame;

/// File name extensions that are taken for videos, lower case.
pub const VIDEO_EXTENSIONS: [&str; 37] = [
    "mp4", "m4v", "mov", "qt", "3gp", "3g2", "mkv", "webm", "avi", "divx", "wmv", "asf", "flv", "f4v", "mpg", "mpeg",
    "mpe", "m2v", "vob", "ts", "mts", "m2ts", "mjpeg", "mjpg", "ogv", "ogm", "mxf", "dv", "rm", "rmvb", "y4m", "ivf",
    "nut", "h264", "264", "h265", "hevc",
];
/// Frames that wait for their reader.
const QUEUE: usize = 2;
/// Without an image for this long, a network stream counts as failed.
pub const STREAM_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause between two images of an address that gives one at a time.
const SNAPSHOT: Duration = Duration::from_secs(1);

/// Whether a path is named like a video; hidden files are none.
pub fn is_video(path: &Path) -> bool {
    cfg!(feature = "video") && has_extension(path, &VIDEO_EXTENSIONS)
}

/// Whether a source is to be read frame by frame: a stream, camera or screen, a file that is named like a video and does not begin
/// like an image, or one whose contents begin like a video whatever it is called. Streams of JPEGs go by their names.
pub fn holds_video(path: &Path) -> bool {
    let is_stream = !matches!(SourceRequest::of_stream(path), Ok(None));
    if is_stream || cfg!(not(feature = "video")) {
        return is_stream;
    }
    let mut head = Vec::new();
    // A pipe must not be touched: what is read here would be missing later.
    if path.is_file() {
        let _ = std::fs::File::open(path).and_then(|file| file.take(64).read_to_end(&mut head));
    }
    if begins_image(&head) { has_extension(path, &["mjpeg", "mjpg"]) } else { is_video(path) || begins_video(&head) }
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

/// What ffmpeg reads.
#[derive(Clone, Debug)]
enum Origin {
    File(PathBuf),
    /// Its scheme in small letters.
    Url(String),
    Screen(ScreenRequest),
}

/// The frames of a video, in order, each once.
pub struct VideoSource {
    origin: Origin,
    options: SourceOptions,
    /// When the first frame was shown.
    started: Option<(Instant, SystemTime)>,
    decoder: Option<Decoder>,
    /// Nothing comes any more.
    ended: bool,
    decoded: u64,
    /// Since ffmpeg was started last.
    since_start: u64,
    /// Of the first frame, as ffmpeg says it; of the last one since then.
    first: Duration,
    time: Duration,
    length: Option<Duration>,
}

impl VideoSource {
    /// A video file, or an address that ffmpeg opens (`rtsp://`, `http://` and the like). Nothing is decoded yet.
    ///
    /// # Errors
    /// [`SourceError::NoFfmpeg`] says how to install it; [`SourceError::Read`] if the file is not there.
    pub fn open(path: &Path, options: &SourceOptions) -> Result<Self, SourceError> {
        if let Some(url) = as_url(path) {
            return Self::of(Origin::Url(portable_url(url)), options);
        }
        if std::fs::metadata(path)?.is_dir() {
            return Err(SourceError::NotAFile);
        }
        Self::of(Origin::File(path.to_owned()), options)
    }

    /// A screen, or a part of it.
    ///
    /// # Errors
    /// [`SourceError::NoFfmpeg`] says how to install it.
    pub fn of_screen(screen: ScreenRequest, options: &SourceOptions) -> Result<Self, SourceError> {
        Self::of(Origin::Screen(screen), options)
    }

    fn of(origin: Origin, options: &SourceOptions) -> Result<Self, SourceError> {
        if !ffmpeg::has_ffmpeg() {
            return Err(SourceError::NoFfmpeg);
        }
        Ok(Self {
            origin,
            options: *options,
            started: None,
            decoder: None,
            ended: false,
            decoded: 0,
            since_start: 0,
            first: Duration::ZERO,
            time: Duration::ZERO,
            length: None,
        })
    }

    fn is_file(&self) -> bool {
        matches!(self.origin, Origin::File(_))
    }

    /// Starts ffmpeg; `None` soon after `stop` is set.
    fn start(&mut self, stop: &AtomicBool) -> Result<Option<Decoder>, SourceError> {
        let mut command = ffmpeg::command("ffmpeg");
        command.arg("-nostdin");
        // The first one that is not the cover of a song.
        let mut stream = "0:V:0".to_owned();
        let mut filters = Vec::new();
        match &self.origin {
            Origin::File(path) => {
                // Asking first would take from a pipe what decoding needs.
                if path.is_file() && ffmpeg::has_program("ffprobe") {
                    let Some(found) = probe(path, stop)? else { return Ok(None) };
                    let seconds = found.duration.parse().ok().filter(|&seconds: &f64| seconds > 0.0);
                    self.length = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                    stream = format!("0:{}", found.index);
                }
                command.arg("-i").arg(ffmpeg::file_argument(path));
            }
            Origin::Url(url) => {
                if url.starts_with("rtsp") {
                    // Over UDP images arrive torn.
                    command.args(["-rtsp_transport", "tcp"]);
                }
                if url.starts_with("http") {
                    // Streams of JPEGs have no times: what comes without one gets that of its arrival.
                    command.args(["-fflags", "+nofillin"]);
                    filters.push("settb=1/1000000,setpts=if(isnan(PTS)\\,RTCTIME-RTCSTART\\,PTS)".to_owned());
                }
                command.args(["-i", url]);
            }
            Origin::Screen(screen) => {
                command.args(screen.input()?);
                filters.extend(screen.filter());
            }
        }
        if self.options.stride > 1 {
            filters.push(format!("select=not(mod(n\\,{}))", self.options.stride));
        }
        if !filters.is_empty() {
            command.args(["-vf", &filters.join(",")]);
        }
        command.args(["-map", &stream, "-an", "-sn", "-dn"]).args(ffmpeg::passthrough(stop));
        command.args(["-enc_time_base", "1:1000000", "-c:v", "rawvideo", "-pix_fmt", "rgb24"]);
        command.args(["-allow_raw_vfw", "1", "-f", "matroska", "pipe:1"]);
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let mut process = Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
        let prefix = match &self.origin {
            Origin::File(path) => format!("file:{}", path.display()),
            Origin::Url(url) => url.clone(),
            Origin::Screen(_) => String::new(),
        };
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

    /// What ffmpeg's end means. Live, that of a stream is a loss.
    fn end(&mut self, failure: Option<io::Error>, stop: &AtomicBool) -> Result<Option<Frame>, SourceError> {
        self.ended = true;
        let Some(mut decoder) = self.decoder.take() else { return Ok(None) };
        let failure = failure.filter(|error| error.kind() != io::ErrorKind::UnexpectedEof);
        if failure.is_some() {
            let _ = decoder.process.0.kill();
        }
        let success = decoder.process.0.wait()?.success();
        let complaint = decoder.complaints.first().or_else(|| failure.map(|error| error.to_string()));
        let complaint = complaint.or_else(|| (!success).then(|| "ffmpeg failed".to_owned()));
        let is_file = self.is_file();
        match complaint {
            Some(complaint) if !is_file && (self.since_start == 0 || self.options.live) => {
                Err(SourceError::Stream(complaint))
            }
            Some(complaint) if self.decoded == 0 => Err(SourceError::Decode(complaint)),
            // Streams lose packets, and begin between two whole images.
            Some(complaint) if !is_file && success => {
                log::info!("{}: {complaint}", self.description());
                Ok(None)
            }
            Some(reason) => Err(SourceError::Incomplete { frames: self.decoded, reason }),
            None if self.since_start == 0 => Err(SourceError::Decode("the video has no frames".into())),
            None if is_file || !self.options.live => Ok(None),
            // An address that gives one image is asked for the next.
            None if self.since_start == 1 => {
                if wait_until(Instant::now() + SNAPSHOT, stop) {
                    self.next_frame(stop)
                } else {
                    Ok(None)
                }
            }
            None => Err(SourceError::Stream("it has ended".into())),
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

impl Source for VideoSource {
    fn description(&self) -> String {
        match &self.origin {
            Origin::File(path) => path.to_string_lossy().into_owned(),
            Origin::Url(url) => display_name(url.as_ref()),
            Origin::Screen(screen) => screen.to_string(),
        }
    }

    fn next_frame(&mut self, stop: &AtomicBool) -> Result<Option<Frame>, SourceError> {
        if self.ended && self.is_file() {
            return Ok(None);
        }
        let decoder = match self.decoder.take() {
            Some(decoder) => decoder,
            None => match self.start(stop) {
                Ok(Some(decoder)) => {
                    self.since_start = 0;
                    decoder
                }
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
                    return self.end(Some(error), stop);
                }
                // Ctrl-C in a terminal ends ffmpeg too.
                Err(RecvTimeoutError::Disconnected) if stop.load(Ordering::Relaxed) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => {
                    self.decoder = Some(decoder);
                    return self.end(None, stop);
                }
                // Files may take any time.
                Err(RecvTimeoutError::Timeout) if !self.is_file() && waiting.elapsed() > self.options.timeout => {
                    let seconds = self.options.timeout.as_secs_f64();
                    return Err(SourceError::Stream(format!("no image within {seconds} s")));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        };
        self.decoder = Some(decoder);
        let (started, began) = *self.started.get_or_insert_with(|| (Instant::now(), SystemTime::now()));
        // A stream sets its own pace.
        let paced = self.options.live && self.is_file();
        if paced && !wait_until(started + time, stop) {
            return Ok(None);
        }
        let captured_at = if paced { began + time } else { arrived };
        let sequence = self.decoded * self.options.stride;
        self.decoded += 1;
        self.since_start += 1;
        if self.since_start == 1 && !self.is_file() {
            self.first = time;
        }
        self.time = time.saturating_sub(self.first);
        Ok(Some(Frame { pixels, sequence, captured_at }))
    }

    fn time(&self) -> Option<Duration> {
        Some(self.time)
    }

    fn length(&self) -> Option<Duration> {
        self.length
    }

    /// A stream may come back, a damaged file will not be better.
    fn can_recover(&self) -> bool {
        !self.is_file()
    }
}
