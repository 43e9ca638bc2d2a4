//! What a run has completed, so that `--resume` can go on: one JSON line a picture in the output folder.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use yolo_lat::sink::Record;

const NAME: &str = ".yolo-lat-journal.jsonl";

/// Appended to after everything else of a picture is written. A torn last line, from a crash, counts as not written.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Where each completed picture's line begins.
    completed: HashMap<String, u64>,
}

impl Journal {
    /// Starts a journal in `folder`, or continues the one that is there. `settings` is all that results depend on.
    pub(super) fn open(folder: &Path, settings: &str, resume: bool) -> anyhow::Result<Self> {
        let path = folder.join(NAME);
        let context = || format!("{}: cannot be written", path.display());
        std::fs::create_dir_all(folder).with_context(context)?;
        if resume && path.exists() {
            return Self::resume(path, settings);
        }
        let mut file =
            OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&path).with_context(context)?;
        writeln!(file, "{settings}").with_context(context)?;
        Ok(Self { path, file, completed: HashMap::new() })
    }

    fn resume(path: PathBuf, settings: &str) -> anyhow::Result<Self> {
        let context = || format!("{}: cannot be continued", path.display());
        let mut file = OpenOptions::new().read(true).write(true).open(&path).with_context(context)?;
        let mut completed = HashMap::new();
        let mut reader = BufReader::new(&file);
        let (mut line, mut end) = (String::new(), 0u64);
        while reader.read_line(&mut line).with_context(context)? > 0 {
            if !line.ends_with('\n') {
                break;
            }
            if end == 0 {
                if line.trim_end() != settings {
                    bail!(
                        "{}: this folder was made with other settings\n  then: {}\n  now:  {settings}\nuse another folder, or leave out --resume to start again",
                        path.display(),
                        line.trim_end()
                    );
                }
            } else if let Ok(record) = serde_json::from_str::<Record>(&line) {
                completed.insert(record.image, end);
            }
            end += line.len() as u64;
            line.clear();
        }
        drop(reader);
        if end == 0 {
            bail!("{}: this journal is damaged; leave out --resume to start again", path.display());
        }
        file.set_len(end).and_then(|()| file.seek(SeekFrom::End(0))).with_context(context)?;
        Ok(Self { path, file, completed })
    }

    /// A second handle, to look records up while the first appends.
    pub(super) fn reader(&mut self) -> anyhow::Result<JournalReader> {
        let file = File::open(&self.path).with_context(|| format!("{}: cannot be read", self.path.display()))?;
        Ok(JournalReader { file: file.into(), completed: std::mem::take(&mut self.completed) })
    }

    /// Notes that everything of a picture is written.
    pub(super) fn append(&mut self, record: &Record) -> anyhow::Result<()> {
        let mut line = serde_json::to_string(record)?;
        line.push('\n');
        self.file.write_all(line.as_bytes()).with_context(|| format!("{}: cannot be written", self.path.display()))
    }
}

/// The results of an earlier run.
pub(super) struct JournalReader {
    file: std::sync::Mutex<File>,
    completed: HashMap<String, u64>,
}

impl JournalReader {
    /// The record of a picture that was completed.
    pub(super) fn find(&self, image: &str) -> Option<Record> {
        let &start = self.completed.get(image)?;
        let mut file = self.file.lock().ok()?;
        file.seek(SeekFrom::Start(start)).ok()?;
        let mut line = String::new();
        BufReader::new(&*file).read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }
}
