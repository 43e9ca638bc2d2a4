//! The programs `ffmpeg` and `ffprobe`, which run beside this one: how they are started, waited for and understood.
//!
//! Nothing here reads how their messages are worded: frames come in a container, facts as JSON, and of a message it
//! only counts that there is one.

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::images::SourceError;

/// How often a waiting thread looks whether it shall stop.
pub(super) const STEP: Duration = Duration::from_millis(20);
/// A question to ffmpeg about itself is answered in this time, or not at all.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether ffmpeg can be started: videos and network streams need it.
pub fn has_ffmpeg() -> bool {
    cfg!(feature = "video") && has_program("ffmpeg")
}

pub(super) fn has_program(name: &str) -> bool {
    find_program(name).is_some()
}

/// Where the system finds a program.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let name = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(&name)).find(|file| file.is_file())
}

/// The version of ffmpeg, as the ffprobe that comes with it says.
///
/// # Errors
/// One of the two is missing, cannot be started, or does not answer.
pub fn ffmpeg_version() -> Result<String, SourceError> {
    #[derive(Deserialize)]
    struct About {
        program_version: ProgramVersion,
    }
    #[derive(Deserialize)]
    struct ProgramVersion {
        version: String,
    }
    if !has_program("ffmpeg") || !has_program("ffprobe") {
        return Err(SourceError::NoFfmpeg);
    }
    let mut command = command("ffprobe");
    command.args(["-show_program_version", "-of", "json"]);
    let answer = answer(&mut command, &AtomicBool::new(false), Some(ANSWER_TIMEOUT))?;
    let output = answer.map(|(_, output)| output).unwrap_or_default();
    let about: About = serde_json::from_slice(&output)
        .map_err(|_| SourceError::Decode("ffprobe is there and does not tell its version".into()))?;
    Ok(about.program_version.version)
}

/// A command that says only what went wrong and reads nothing from this program's input.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["-hide_banner", "-v", "error"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// `file:NAME`, so that no part of a name is taken for a protocol or an option.
pub(crate) fn file_argument(path: &Path) -> std::ffi::OsString {
    let mut argument = std::ffi::OsString::from("file:");
    argument.push(path);
    argument
}

/// The option that lets frames pass as they come: neither repeated nor left out. Its name changed with version 5.1.
pub(crate) fn passthrough(stop: &AtomicBool) -> [&'static str; 2] {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    let names = [["-vsync", "passthrough"], ["-fps_mode", "passthrough"]];
    if let Some(&new) = KNOWN.get() {
        return names[usize::from(new)];
    }
    let mut test = command("ffmpeg");
    test.args(["-f", "lavfi", "-i", "color=size=2x2", "-frames:v", "1"]).args(names[1]).args(["-f", "null", "-"]);
    match answer(&mut test, stop, Some(ANSWER_TIMEOUT)) {
        Ok(Some((success, _))) => names[usize::from(*KNOWN.get_or_init(|| success))],
        _ => names[1],
    }
}

/// Whether a program succeeds, and its output; `None` soon after `stop` is set.
///
/// # Errors
/// It cannot be started, or does not end within `limit`.
pub(super) fn answer(
    command: &mut Command,
    stop: &AtomicBool,
    limit: Option<Duration>,
) -> io::Result<Option<(bool, Vec<u8>)>> {
    let mut child = Running(command.stdout(Stdio::piped()).spawn()?);
    let (sender, receiver) = channel();
    if let Some(mut output) = child.0.stdout.take() {
        std::thread::Builder::new().name("ffprobe".into()).spawn(move || {
            let mut bytes = Vec::new();
            let read = output.read_to_end(&mut bytes);
            let _ = sender.send(read.map(|_| bytes));
        })?;
    }
    let started = Instant::now();
    loop {
        match receiver.recv_timeout(STEP) {
            Ok(bytes) => return Ok(Some((child.0.wait()?.success(), bytes?))),
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("its output cannot be read")),
            Err(RecvTimeoutError::Timeout) if stop.load(Ordering::Relaxed) => return Ok(None),
            Err(RecvTimeoutError::Timeout) if limit.is_some_and(|limit| started.elapsed() > limit) => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer"));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// A process that ends with its owner.
pub(super) struct Running(pub(super) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a process complains of, read by a thread so that it never waits.
pub(crate) struct Complaints(Option<JoinHandle<Option<String>>>);

impl Complaints {
    /// Listens; `prefix` at the beginning of a line, such as the file's name, is left out.
    pub(crate) fn listen(stderr: Option<ChildStderr>, prefix: String) -> io::Result<Self> {
        let Some(stderr) = stderr else { return Ok(Self(None)) };
        let listen = move || {
            let mut first = None;
            // Lines need not be UTF-8; the last one often tells only that there were errors.
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                let line = plain(&line).replace(&prefix, "");
                let line = line.trim_start_matches(": ").trim();
                if first.is_none() && !line.is_empty() {
                    first = Some(line.to_owned());
                }
            }
            first
        };
        Ok(Self(Some(std::thread::Builder::new().name("ffmpeg says".into()).spawn(listen)?)))
    }

    /// The first one, once the process has ended.
    pub(crate) fn first(&mut self) -> Option<String> {
        self.0.take()?.join().ok().flatten()
    }
}

/// A line without the part in brackets that names the reporter and its address.
fn plain(line: &str) -> &str {
    let line = line.trim();
    match line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((_, rest)) => rest.trim(),
        None => line,
    }
}
