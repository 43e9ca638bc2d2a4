//! Files of a folder.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

use super::images::is_hidden;

/// What a folder holds.
#[derive(Debug, Default)]
pub struct Found {
    /// Files, by name.
    pub files: Vec<PathBuf>,
    /// Folders that could not be read.
    pub errors: Vec<(PathBuf, io::Error)>,
}

/// Lists the files of `folder` that are `wanted` by their names, on request with those of its sub-folders, `except` one of
/// them. What is hidden is left out. Links to folders are followed, each folder once however it is reached; a link that leads
/// nowhere is listed as a file if its name is wanted.
pub fn files_in(folder: &Path, recursive: bool, except: Option<&Path>, wanted: impl Fn(&Path) -> bool) -> Found {
    let mut found = Found::default();
    let mut seen: HashSet<PathBuf> = except.and_then(|path| path.canonicalize().ok()).into_iter().collect();
    seen.remove(&folder.canonicalize().unwrap_or_default());
    // Links come last: what can be reached without one keeps its own path.
    let mut folders = VecDeque::from([folder.to_owned()]);
    while let Some(folder) = folders.pop_front() {
        if folder.canonicalize().is_ok_and(|real| !seen.insert(real)) {
            continue;
        }
        let entries = std::fs::read_dir(&folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
        let mut paths: Vec<PathBuf> = match entries {
            Ok(paths) => paths,
            Err(error) => {
                found.errors.push((folder, error));
                continue;
            }
        };
        paths.sort();
        for path in paths.into_iter().filter(|path| !is_hidden(path)) {
            match path.metadata() {
                Ok(metadata) if metadata.is_dir() && !recursive => {}
                Ok(metadata) if metadata.is_dir() && path.is_symlink() => folders.push_back(path),
                Ok(metadata) if metadata.is_dir() => folders.push_front(path),
                Ok(metadata) if !metadata.is_file() => {}
                _ if wanted(&path) => found.files.push(path),
                _ => {}
            }
        }
    }
    found.files.sort();
    found
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::is_image;
    use super::*;

    #[test]
    fn links_are_followed_once_and_circles_end() {
        let root = tempfile::tempdir().unwrap();
        let (inside, outside) = (root.path().join("in"), root.path().join("store"));
        for folder in [&inside.join("night"), &inside.join(".hidden"), &outside] {
            std::fs::create_dir_all(folder).unwrap();
        }
        for file in ["in/b.png", "in/._b.png", "in/note.txt", "in/night/c.JPE", "in/.hidden/d.png", "store/a.png"] {
            std::fs::write(root.path().join(file), "").unwrap();
        }
        symlink(&outside, inside.join("linked")).unwrap();
        symlink(&outside, inside.join("linked again")).unwrap();
        symlink(inside.join("night"), inside.join("a link to night")).unwrap();
        symlink("..", inside.join("night/up")).unwrap();
        symlink("nowhere", inside.join("gone.jpg")).unwrap();
        let names = |recursive, except: Option<&Path>| {
            let found = files_in(&inside, recursive, except, is_image);
            assert!(found.errors.is_empty(), "{:?}", found.errors);
            let names = found.files.iter().map(|path| path.strip_prefix(&inside).unwrap().display().to_string());
            names.collect::<Vec<_>>()
        };
        assert_eq!(names(true, None), ["b.png", "gone.jpg", "linked/a.png", "night/c.JPE"]);
        assert_eq!(names(true, Some(&inside.join("night"))), ["b.png", "gone.jpg", "linked/a.png"]);
        assert_eq!(names(true, Some(&inside)), names(true, None));
        assert_eq!(names(false, None), ["b.png", "gone.jpg"]);
        assert_eq!(files_in(&inside.join("absent"), true, None, is_image).errors.len(), 1);
    }
}
