//! A command for each message.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::message::{Kind, Message};
use super::outlet::{Outlet, STEP};

/// A command that takes longer is ended.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A program and its arguments, started without a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<String>,
}

/// A command that cannot be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// There is no first word, or a quotation does not end.
    #[error("{text:?} is no command: a program and its arguments, in quotation marks where they contain blanks")]
    Unreadable {
        /// As it was given.
        text: String,
    },
    /// No such file.
    #[error("no program {name:?} is found; it is started without a shell: sh -c '...' has one")]
    NotFound {
        /// The first word.
        name: String,
    },
}

impl Program {
    /// Reads a command as a shell would, without variables, patterns and pipes. A name without a folder is looked for in `PATH`.
    ///
    /// # Errors
    /// [`ProgramError`] where nothing can be started.
    pub fn find(text: &str) -> Result<Self, ProgramError> {
        let mut words = shlex::split(text).unwrap_or_default().into_iter();
        let name = words.next().ok_or_else(|| ProgramError::Unreadable { text: text.to_owned() })?;
        let path = look_up(&name).ok_or(ProgramError::NotFound { name })?;
        Ok(Self { path, arguments: words.collect() })
    }
}

/// The program's name.
impl std::fmt::Display for Program {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.path.file_name().unwrap_or_default().to_string_lossy().fmt(formatter)
    }
}

fn look_up(name: &str) -> Option<PathBuf> {
    let path = Path::new(name);
    if path.components().count() > 1 {
        return is_program(path).then(|| path.to_owned());
    }
    let name =
        if path.extension().is_some() { name.to_owned() } else { format!("{name}{}", std::env::consts::EXE_SUFFIX) };
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(&name)).find(|path| is_program(path))
}

#[cfg(unix)]
fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(path: &Path) -> bool {
    path.is_file()
}

/// Starts the program for each message, one after the other.
pub(super) struct Run {
    program: Program,
    timeout: Duration,
}

impl Run {
    pub(super) fn new(program: Program) -> Self {
        Self { program, timeout: TIMEOUT }
    }

    fn start(&self, message: &Message) -> io::Result<Child> {
        let event = &message.after;
        let mut command = Command::new(&self.program.path);
        command.args(&self.program.arguments).stdin(Stdio::piped()).stdout(Stdio::null());
        // Ctrl-C in a terminal is for this program; the last event still gets its command.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.env("YOLO_LAT_EVENT", message.kind.name());
        command.env("YOLO_LAT_ID", &event.id).env("YOLO_LAT_SOURCE", &event.camera).env("YOLO_LAT_RULE", &event.rule);
        command.env("YOLO_LAT_CLASS", &event.label).env("YOLO_LAT_CONFIDENCE", event.score.to_string());
        command.env("YOLO_LAT_BOX", event.bbox.map(|side| side.to_string()).join(","));
        command
            .env("YOLO_LAT_ZONES", event.current_zones.join(","))
            .env("YOLO_LAT_START", event.start_time.to_string());
        for (name, value) in [
            ("YOLO_LAT_END", event.end_time.map(|time| time.to_string().into())),
            ("YOLO_LAT_TRACK", event.track.map(|track| track.to_string().into())),
            ("YOLO_LAT_SNAPSHOT", event.snapshot_file.as_ref().map(|path| path.as_os_str().to_owned())),
            ("YOLO_LAT_CLIP", event.clip_file.as_ref().map(|path| path.as_os_str().to_owned())),
        ] {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let mut child = command.spawn()?;
        // The message is smaller than a pipe: this does not wait for a command that reads nothing.
        let written = child.stdin.take().map_or(Ok(()), |mut input| writeln!(input, "{}", message.json()));
        written.or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })?;
        Ok(child)
    }
}

impl Outlet for Run {
    fn takes(kind: Kind) -> bool {
        kind != Kind::Update
    }

    /// It has arrived when the command succeeds.
    fn deliver(&mut self, message: &Message, stop: &AtomicBool) -> Result<(), String> {
        let until = Instant::now() + self.timeout;
        let mut child = self.start(message).map_err(|error| error.to_string())?;
        loop {
            match child.try_wait().map_err(|error| error.to_string())? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("it failed: {status}")),
                None if Instant::now() >= until || stop.load(Ordering::Relaxed) => {
                    // One that has just ended is ended.
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(if stop.load(Ordering::Relaxed) {
                        "it was still running at the end".into()
                    } else {
                        format!("it did not end within {} s", self.timeout.as_secs())
                    });
                }
                None => std::thread::sleep(STEP),
            }
        }
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::super::tests::message;
    use super::*;

    fn deliver(command: &str, timeout: Duration) -> Result<(), String> {
        let mut run = Run { program: Program::find(command).unwrap(), timeout };
        run.deliver(&message(Kind::New), &AtomicBool::new(false))
    }

    #[test]
    fn a_command_gets_its_arguments_the_environment_and_the_message() {
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("a b");
        let script = format!("(echo \"$0\" $YOLO_LAT_EVENT $YOLO_LAT_RULE $YOLO_LAT_BOX; cat) > '{}'", file.display());
        deliver(&format!("sh -c {} '*'", shlex::try_quote(&script).unwrap()), TIMEOUT).unwrap();
        let written = std::fs::read_to_string(file).unwrap();
        let (line, json) = written.split_once('\n').unwrap();
        assert_eq!(line, "* new person:door 10,20,30,60");
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(json["after"]["box"], serde_json::json!([10, 20, 30, 60]));
    }

    #[test]
    fn a_command_that_fails_or_hangs_is_told() {
        assert_eq!(deliver("sh -c 'exit 3'", TIMEOUT), Err("it failed: exit status: 3".into()));
        assert_eq!(deliver("sleep 1000", Duration::ZERO), Err("it did not end within 0 s".into()));
        assert_eq!(deliver("true", TIMEOUT), Ok(()), "it need not read");
    }

    #[test]
    fn what_cannot_be_started_is_said() {
        let error = |text| Program::find(text).unwrap_err().to_string();
        assert!(error("no-such-program-here --x").starts_with("no program \"no-such-program-here\" is found"));
        assert!(error("./Cargo.toml").contains("is found"), "a file is no program");
        assert!(error("").contains("is no command") && error("'a").contains("is no command"));
    }
}
