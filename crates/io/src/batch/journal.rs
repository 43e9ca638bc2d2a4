//! What a run has completed, so that it can be resumed: one JSON line an image in the output folder.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Error, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::sink::{Record, SinkError};

const NAME: &str = ".yolo-lat-journal.jsonl";

/// Of the first line: what follows it means. Version 1 had none.
const VERSION: u64 = 2;

/// Why a run cannot be resumed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// It could not be read or written.
    #[error("{}: cannot be continued: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: Error,
    },
    /// Written by another version of the program.
    #[error("{}: this journal is of another version of yolo-lat (format {found}, not {VERSION}): leave out --resume to start again", path.display())]
    Version {
        /// Which file.
        path: PathBuf,
        /// The version of its format.
        found: u64,
    },
    /// Results would not fit together.
    #[error(
        "{}: this folder was made with other settings: {differences}; use another folder, or leave out --resume to start again",
        path.display()
    )]
    Settings {
        /// Which file.
        path: PathBuf,
        /// Each setting, then and now.
        differences: String,
    },
    /// Not even the first line is whole.
    #[error("{}: this journal is damaged; leave out --resume to start again", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
}

/// Appended to after everything else of an image is written. A torn last line, from a crash, counts as not written.
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Where each completed image's line begins.
    completed: HashMap<String, u64>,
}

impl Journal {
    /// Starts a journal in `folder`. `settings` is all that results depend on.
    ///
    /// # Errors
    /// [`SinkError`] names the file.
    pub fn start(folder: &Path, settings: &serde_json::Value) -> Result<Self, SinkError> {
        let path = folder.join(NAME);
        let start = || {
            let mut file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&path)?;
            writeln!(file, "{}", first_line(settings)).map(|()| file)
        };
        match start() {
            Ok(file) => Ok(Self { path, file, completed: HashMap::new() }),
            Err(source) => Err(SinkError { path, source }),
        }
    }

    /// Continues the journal in `folder`; `None` where there is none.
    ///
    /// # Errors
    /// [`JournalError`] if it is of other settings or of another version of the program.
    pub fn resume(folder: &Path, settings: &serde_json::Value) -> Result<Option<Self>, JournalError> {
        let path = folder.join(NAME);
        let fail = |source| JournalError::Read { path: path.clone(), source };
        let mut file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(fail)?,
        };
        let mut completed = HashMap::new();
        let mut reader = BufReader::new(&file);
        let (mut line, mut end) = (Vec::new(), 0u64);
        while reader.read_until(b'\n', &mut line).map_err(fail)? > 0 {
            if !line.ends_with(b"\n") {
                break;
            }
            if end == 0 {
                check_first_line(&path, &line, settings)?;
            } else if let Ok(record) = serde_json::from_slice::<Record>(&line)
                // Several names that are no UTF-8 may look the same.
                && !record.image.contains('\u{FFFD}')
            {
                completed.insert(record.image, end);
            }
            end += line.len() as u64;
            line.clear();
        }
        drop(reader);
        if end == 0 {
            return Err(JournalError::Damaged { path });
        }
        file.set_len(end).and_then(|()| file.seek(SeekFrom::End(0))).map_err(fail)?;
        Ok(Some(Self { path, file, completed }))
    }

    /// A second handle, to look records up while the first appends.
    ///
    /// # Errors
    /// [`JournalError::Read`].
    pub fn reader(&mut self) -> Result<JournalReader, JournalError> {
        let file = File::open(&self.path).map_err(|source| JournalError::Read { path: self.path.clone(), source })?;
        Ok(JournalReader { file: Mutex::new(file), completed: std::mem::take(&mut self.completed) })
    }

    /// Notes that everything of an image is written.
    pub(super) fn append(&mut self, record: &Record) -> Result<(), SinkError> {
        // Maps with string keys and finite numbers always encode.
        let line = serde_json::to_string(record).unwrap_or_default() + "\n";
        self.file.write_all(line.as_bytes()).map_err(|source| SinkError { path: self.path.clone(), source })
    }
}

fn first_line(settings: &serde_json::Value) -> serde_json::Value {
    serde_json::json!({ "journal": VERSION, "settings": settings })
}

fn check_first_line(path: &Path, line: &[u8], settings: &serde_json::Value) -> Result<(), JournalError> {
    let Ok(line) = serde_json::from_slice::<serde_json::Value>(line) else {
        return Err(JournalError::Damaged { path: path.to_owned() });
    };
    let found = line["journal"].as_u64().unwrap_or(1);
    if found != VERSION {
        return Err(JournalError::Version { path: path.to_owned(), found });
    }
    // As texts: a number that went through a file is the same text, not always the same type.
    let text = |value: &serde_json::Value, key: &str| value.get(key).unwrap_or(&serde_json::Value::Null).to_string();
    let then = &line["settings"];
    let keys = settings.as_object().into_iter().chain(then.as_object()).flat_map(|map| map.keys());
    let mut differences: Vec<String> = keys
        .filter(|key| text(then, key) != text(settings, key))
        .map(|key| format!("{key} {} then, {} now", text(then, key), text(settings, key)))
        .collect();
    differences.sort();
    differences.dedup();
    if differences.is_empty() {
        return Ok(());
    }
    Err(JournalError::Settings { path: path.to_owned(), differences: differences.join("; ") })
}

/// The results of an earlier run.
pub struct JournalReader {
    file: Mutex<File>,
    completed: HashMap<String, u64>,
}

impl JournalReader {
    /// The record of an image that was completed.
    pub(super) fn find(&self, image: &str) -> Option<Record> {
        let &start = self.completed.get(image)?;
        let mut file = self.file.lock().ok()?;
        file.seek(SeekFrom::Start(start)).ok()?;
        let mut line = Vec::new();
        BufReader::new(&*file).read_until(b'\n', &mut line).ok()?;
        serde_json::from_slice(&line).ok()
    }
}
