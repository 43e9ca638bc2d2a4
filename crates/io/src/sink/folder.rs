//! The folder of a run's results, which knows the files that runs have written into it.

use std::collections::{BTreeSet, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::{SinkError, Target, write_atomically};

/// The list of written files: paths relative to the folder, each ended by NUL.
const LIST: &str = ".yolo-lat-files";

/// Writes files and keeps a list of them, so that a later run knows which are its own. Clones share the list.
#[derive(Clone)]
pub struct OutputFolder {
    root: PathBuf,
    list: Arc<Mutex<List>>,
}

struct List {
    file: File,
    noted: HashSet<PathBuf>,
    /// Real paths of the run's inputs, which it never writes over.
    inputs: HashSet<PathBuf>,
}

impl OutputFolder {
    /// Makes the folder if it is not there, and goes on with its list. `inputs`, real paths, are never written over.
    ///
    /// # Errors
    /// [`SinkError`] if it cannot be written to.
    pub fn open(root: &Path, inputs: HashSet<PathBuf>) -> Result<Self, SinkError> {
        let path = root.join(LIST);
        let open = || {
            std::fs::create_dir_all(root)?;
            OpenOptions::new().create(true).append(true).open(&path)
        };
        let file = open().map_err(|error| SinkError::new(root, error))?;
        let list = List { file, noted: written_files(root).into_iter().collect(), inputs };
        Ok(Self { root: root.to_owned(), list: Arc::new(Mutex::new(list)) })
    }

    /// The path of a file in the folder.
    pub fn path(&self, relative: &Path) -> PathBuf {
        self.root.join(relative)
    }

    /// Notes that a file is about to be written and gives its path.
    ///
    /// # Errors
    /// [`SinkError`] if the list cannot be written, or if the file is an input.
    pub fn note(&self, relative: &Path) -> Result<PathBuf, SinkError> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.root.join(relative);
        // A link is replaced, not what it leads to.
        if !path.is_symlink() && path.canonicalize().is_ok_and(|path| list.inputs.contains(&path)) {
            let error = std::io::Error::other("it is an input of this run; use another folder");
            return Err(SinkError::new(&path, error));
        }
        if !list.noted.contains(relative) {
            let line = [relative.as_os_str().as_encoded_bytes(), b"\0"].concat();
            list.file.write_all(&line).map_err(|error| SinkError::new(&self.root.join(LIST), error))?;
            list.noted.insert(relative.to_owned());
        }
        Ok(path)
    }

    /// Notes and writes a whole file; see [`write_atomically`].
    ///
    /// # Errors
    /// [`SinkError`] names the file; no part of it is left behind.
    pub fn write(
        &self,
        relative: &Path,
        write: impl FnOnce(&mut BufWriter<&File>) -> std::io::Result<()>,
    ) -> Result<(), SinkError> {
        write_atomically(&self.note(relative)?, write)
    }

    /// Notes a file that is written record by record.
    ///
    /// # Errors
    /// [`SinkError`] if it cannot be made.
    pub fn target(&self, relative: &str) -> Result<Target, SinkError> {
        Target::file(&self.note(Path::new(relative))?)
    }

    /// To be called when everything is written: what is changed from now on was changed by somebody else.
    pub fn close(&self) {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        // Without it, a long run's own last files would look changed: a question too many, no harm.
        let _ = list.file.set_modified(SystemTime::now());
    }
}

/// What lies in a folder from before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EarlierResults {
    /// Written by an earlier run and not touched since.
    pub own: BTreeSet<PathBuf>,
    /// Written by an earlier run and changed since, perhaps by hand.
    pub changed: BTreeSet<PathBuf>,
    /// Where this run is going to write, and from somebody else.
    pub others: BTreeSet<PathBuf>,
}

impl EarlierResults {
    /// Looks into `root`. Of what earlier runs did not write, only `places` count: files, and folders with all that is in
    /// them. `inputs`, real paths, are nobody's results.
    pub fn find(root: &Path, places: &[&str], inputs: &HashSet<PathBuf>) -> Self {
        let mut found = Self::default();
        let modified = |path: &Path| path.symlink_metadata().and_then(|metadata| metadata.modified()).ok();
        let noted = written_files(root);
        // However coarse the file system's clock is: what was written before the list was closed has no later time.
        let listed = modified(&root.join(LIST));
        for relative in &noted {
            // A file may have been deleted since.
            if let Some(time) = modified(&root.join(relative)) {
                let is_changed = listed.is_some_and(|listed| time > listed);
                (if is_changed { &mut found.changed } else { &mut found.own }).insert(relative.clone());
            }
        }
        let noted: HashSet<PathBuf> = noted.into_iter().collect();
        for place in places {
            for entry in walkdir::WalkDir::new(root.join(place)).into_iter().filter_map(Result::ok) {
                let relative = entry.path().strip_prefix(root).unwrap_or(entry.path());
                let is_input = || entry.path().canonicalize().is_ok_and(|path| inputs.contains(&path));
                if !entry.file_type().is_dir() && !is_hidden(relative) && !noted.contains(relative) && !is_input() {
                    found.others.insert(relative.to_owned());
                }
            }
        }
        found
    }

    /// Removes what earlier runs wrote, and then begins a new list.
    ///
    /// # Errors
    /// [`SinkError`] names the file that cannot be removed.
    pub fn remove_own(&self, root: &Path) -> Result<(), SinkError> {
        for path in self.own.iter().chain(&self.changed).map(|relative| root.join(relative)) {
            std::fs::remove_file(&path).map_err(|error| SinkError::new(&path, error))?;
            // Folders that are empty now go too; others refuse.
            for folder in path.ancestors().skip(1).take_while(|folder| *folder != root) {
                if std::fs::remove_dir(folder).is_err() {
                    break;
                }
            }
        }
        match std::fs::remove_file(root.join(LIST)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(SinkError::new(&root.join(LIST), error)),
            _ => Ok(()),
        }
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// The files that runs have written into a folder, relative to it; none where no run ever wrote. The list is a file that
/// anybody may have written: what leads out of the folder does not count.
pub fn written_files(root: &Path) -> Vec<PathBuf> {
    let Ok(list) = std::fs::read(root.join(LIST)) else { return Vec::new() };
    let inside = |path: &PathBuf| path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    // Without its NUL the last one is torn.
    let mut names: Vec<&[u8]> = list.split(|&byte| byte == 0).collect();
    names.pop();
    let mut seen = HashSet::new();
    let paths = names.into_iter().filter(|name| !name.is_empty()).map(path_from_bytes);
    paths.filter(inside).filter(|path| seen.insert(path.clone())).collect()
}

#[cfg(unix)]
fn path_from_bytes(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::OsStr::from_bytes(bytes).into()
}

#[cfg(not(unix))]
fn path_from_bytes(bytes: &[u8]) -> PathBuf {
    String::from_utf8_lossy(bytes).into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_knows_its_own_files_and_those_changed_since() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("out");
        let output = OutputFolder::open(&root, HashSet::new()).unwrap();
        for name in ["labels/a/1.txt", "labels/2.txt", "labels/2.txt", "coco.json"] {
            output.write(Path::new(name), |file| writeln!(file, "x")).unwrap();
        }
        output.close();
        assert_eq!(written_files(&root).len(), 3);
        std::fs::write(root.join("labels/hand.txt"), "y").unwrap();
        std::fs::write(root.join("labels/photo.jpg"), "y").unwrap();
        let later = SystemTime::now() + std::time::Duration::from_secs(60);
        OpenOptions::new().append(true).open(root.join("labels/2.txt")).unwrap().set_modified(later).unwrap();
        let inputs = HashSet::from([root.join("labels/photo.jpg").canonicalize().unwrap()]);
        let found = EarlierResults::find(&root, &["labels", "voc"], &inputs);
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<BTreeSet<_>>();
        let expected = EarlierResults {
            own: paths(&["labels/a/1.txt", "coco.json"]),
            changed: paths(&["labels/2.txt"]),
            others: paths(&["labels/hand.txt"]),
        };
        assert_eq!(found, expected);
        found.remove_own(&root).unwrap();
        assert!(!root.join("labels/a").exists() && !root.join("coco.json").exists());
        assert!(root.join("labels/hand.txt").exists() && written_files(&root).is_empty());
    }

    #[test]
    fn a_list_from_elsewhere_removes_nothing_outside() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("precious"), "x").unwrap();
        let root = folder.path().join("out");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join(LIST), b"../precious\0/etc/passwd\0torn").unwrap();
        assert!(written_files(&root).is_empty());
        EarlierResults::find(&root, &[], &HashSet::new()).remove_own(&root).unwrap();
        assert!(folder.path().join("precious").exists());
    }
}
