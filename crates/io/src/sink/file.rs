//! Files that appear complete or not at all, and standard output.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::SinkError;

/// Bytes that are gathered before a file is written to.
const BUFFER: usize = 1 << 16;

/// Where a stream of records goes.
pub struct Target {
    path: PathBuf,
    stream: Stream,
}

enum Stream {
    Stdout(io::Stdout),
    File(Records),
    Finished,
}

/// A file under a temporary name whose first `written` bytes are whole records, whatever happens after them.
struct Records {
    file: NamedTempFile,
    buffer: Vec<u8>,
    written: u64,
    /// Why records are missing: none may follow then.
    failure: Option<io::Error>,
}

impl Records {
    fn flush(&mut self) -> io::Result<()> {
        if let Some(failure) = &self.failure {
            return Err(failure.kind().into());
        }
        let result = self.file.write_all(&self.buffer);
        match &result {
            Ok(()) => self.written += self.buffer.len() as u64,
            Err(error) => {
                self.failure = Some(error.raw_os_error().map_or(error.kind().into(), io::Error::from_raw_os_error));
                // What cannot be cut off is found by `finish`.
                let _ = self.cut();
            }
        }
        self.buffer.clear();
        result
    }

    /// Takes half a record away.
    fn cut(&mut self) -> io::Result<()> {
        self.file.as_file().set_len(self.written)?;
        self.file.seek(SeekFrom::Start(self.written)).map(drop)
    }
}

impl Target {
    /// Standard output; every record is flushed, so that a reader sees it at once.
    pub fn stdout() -> Self {
        Self { path: PathBuf::from("standard output"), stream: Stream::Stdout(io::stdout()) }
    }

    /// A file that appears under `path` when it is complete.
    ///
    /// # Errors
    /// [`SinkError`] if its folder cannot be made or written.
    pub fn file(path: &Path) -> Result<Self, SinkError> {
        let file = temporary(path, ".tmp")?;
        let records = Records { file, buffer: Vec::with_capacity(BUFFER), written: 0, failure: None };
        Ok(Self { path: path.to_owned(), stream: Stream::File(records) })
    }

    /// Adds a record.
    ///
    /// # Errors
    /// [`SinkError`] names the file; records that are in it stay.
    pub(super) fn write(&mut self, record: &[u8]) -> Result<(), SinkError> {
        let result = match &mut self.stream {
            Stream::Stdout(stdout) => stdout.write_all(record).and_then(|()| stdout.flush()),
            Stream::File(records) => {
                records.buffer.extend_from_slice(record);
                if records.buffer.len() < BUFFER { Ok(()) } else { records.flush() }
            }
            Stream::Finished => Ok(()),
        };
        result.map_err(|error| SinkError::new(&self.path, error))
    }

    /// Adds `end` and gives the file its name; where no record could be written, the file holds only `nothing`.
    ///
    /// # Errors
    /// [`SinkError`] if records are missing; those that could be written are in the file, which ends as it should. If not
    /// even that is possible, there is no file.
    pub(super) fn finish(&mut self, end: &[u8], nothing: &[u8]) -> Result<(), SinkError> {
        let fail = |error| SinkError::new(&self.path, error);
        match std::mem::replace(&mut self.stream, Stream::Finished) {
            Stream::File(mut records) => {
                // A failure is reported at the end; before it, what can be saved is saved.
                let result = records.flush();
                if records.failure.is_some() {
                    records.cut().map_err(fail)?;
                }
                let end = if records.written == 0 { nothing } else { end };
                records.file.write_all(end).map_err(fail)?;
                persist(records.file, &self.path)?;
                result.map_err(fail)
            }
            Stream::Stdout(mut stdout) => stdout.write_all(end).and_then(|()| stdout.flush()).map_err(fail),
            Stream::Finished => Ok(()),
        }
    }
}

/// Writes a whole file under a temporary name and renames it; makes the folder it lies in.
///
/// # Errors
/// [`SinkError`] names the file; no part of it is left behind.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> Result<(), SinkError> {
    let file = temporary(path, ".tmp")?;
    let mut writer = BufWriter::new(file.as_file());
    write(&mut writer).and_then(|()| writer.flush()).map_err(|error| SinkError::new(path, error))?;
    drop(writer);
    persist(file, path)
}

/// A file beside `path`, which it makes the folder for; it goes unless it is given its name.
pub(super) fn temporary(path: &Path, suffix: &str) -> Result<NamedTempFile, SinkError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".yolo-lat-").suffix(suffix);
    // Readable by others, as the user's umask allows; temporary files are private by default.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    std::fs::create_dir_all(folder)
        .and_then(|()| builder.tempfile_in(folder))
        .map_err(|error| SinkError::new(path, error))
}

fn persist(file: NamedTempFile, path: &Path) -> Result<(), SinkError> {
    file.persist(path).map(drop).map_err(|error| SinkError::new(path, error.error))
}
