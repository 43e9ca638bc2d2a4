//! Files that appear complete or not at all, and standard output.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::SinkError;

/// Where a stream of results goes.
pub struct Target {
    path: PathBuf,
    stream: Stream,
}

enum Stream {
    Stdout(BufWriter<io::Stdout>),
    File(BufWriter<NamedTempFile>),
    Finished,
}

impl Target {
    /// Standard output; every record is flushed, so that a reader sees it at once.
    pub fn stdout() -> Self {
        Self { path: PathBuf::from("standard output"), stream: Stream::Stdout(BufWriter::new(io::stdout())) }
    }

    /// A file that appears under `path` when it is complete.
    ///
    /// # Errors
    /// [`SinkError`] if its folder cannot be made or written.
    pub fn file(path: &Path) -> Result<Self, SinkError> {
        let stream = Stream::File(BufWriter::new(temporary(path, ".tmp")?));
        Ok(Self { path: path.to_owned(), stream })
    }

    /// Writes part of the stream.
    ///
    /// # Errors
    /// [`SinkError`] names the file.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        let result = match &mut self.stream {
            Stream::Stdout(stdout) => stdout.write_all(bytes).and_then(|()| stdout.flush()),
            Stream::File(file) => file.write_all(bytes),
            Stream::Finished => Ok(()),
        };
        result.map_err(|error| SinkError::new(&self.path, error))
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// [`SinkError`]; the unfinished file is removed.
    pub(super) fn finish(&mut self) -> Result<(), SinkError> {
        let stream = std::mem::replace(&mut self.stream, Stream::Finished);
        match stream {
            Stream::File(file) => {
                let file = file.into_inner().map_err(|error| SinkError::new(&self.path, error.into_error()))?;
                persist(file, &self.path)
            }
            Stream::Stdout(_) | Stream::Finished => Ok(()),
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
