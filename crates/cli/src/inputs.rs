//! Which files a run works on, and under which names their results are written.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use yolo_lat::source::{IMAGE_EXTENSIONS, VIDEO_EXTENSIONS, is_video};

/// One input.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Input {
    /// As it was given or found.
    pub(super) path: PathBuf,
    /// Relative path without extension for its outputs; unique in the run.
    pub(super) stem: PathBuf,
}

/// What the sources gave.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    pub(super) inputs: Vec<Input>,
    /// Folders that could not be read: a line each.
    pub(super) errors: Vec<(PathBuf, String)>,
}

/// How sources are read.
#[derive(Clone, Debug)]
pub(super) struct InputOptions {
    /// Sub-folders too.
    pub(super) recursive: bool,
    /// Paths on standard input end with NUL instead of a newline.
    pub(super) null: bool,
    /// A folder that is never read: the outputs.
    pub(super) except: Option<PathBuf>,
}

impl Inputs {
    /// Expands files, folders, glob patterns and `-` (paths from standard input) in the order given; a folder's files
    /// by name.
    pub(super) fn find(sources: &[OsString], options: &InputOptions) -> anyhow::Result<Self> {
        let mut found = Self::default();
        let mut roots: Vec<PathBuf> = Vec::new();
        let mut paths: Vec<PathBuf> = Vec::new();
        for source in sources {
            let path = Path::new(source);
            if source == "-" {
                for path in paths_from_stdin(options.null)? {
                    roots.push(folder_of(&path));
                    paths.push(path);
                }
            } else if path.is_dir() {
                roots.push(path.to_owned());
                let before = paths.len() + found.errors.len();
                found.walk(path, options, &mut paths);
                if paths.len() + found.errors.len() == before {
                    let hint = if options.recursive { "" } else { "; --recursive looks into sub-folders" };
                    let known = IMAGE_EXTENSIONS.iter().chain(&VIDEO_EXTENSIONS).copied().collect::<Vec<_>>();
                    bail!("{}: no pictures in this folder ({}){hint}", path.display(), known.join(", "));
                }
            } else if let Some(pattern) = glob_pattern(path) {
                let matches = glob::glob(pattern).with_context(|| format!("{pattern}: not a valid pattern"))?;
                let before = paths.len();
                for path in matches.filter_map(Result::ok).filter(|path| path.is_file()) {
                    roots.push(folder_of(&path));
                    paths.push(path);
                }
                if paths.len() == before {
                    bail!("{pattern}: no file matches this pattern");
                }
            } else {
                roots.push(folder_of(path));
                paths.push(path.to_owned());
            }
        }
        if paths.is_empty() && found.errors.is_empty() {
            bail!("no input: standard input gave no paths");
        }
        let root = common_folder(&roots);
        let mut taken = HashSet::new();
        found.inputs = paths.into_iter().map(|path| Input { stem: stem_for(&path, &root, &mut taken), path }).collect();
        Ok(found)
    }

    fn walk(&mut self, folder: &Path, options: &InputOptions, paths: &mut Vec<PathBuf>) {
        let except = options.except.as_ref().and_then(|path| path.canonicalize().ok());
        let depth = if options.recursive { usize::MAX } else { 1 };
        let entries = walkdir::WalkDir::new(folder).min_depth(1).max_depth(depth).sort_by_file_name().into_iter();
        let wanted = |entry: &walkdir::DirEntry| {
            !entry.file_type().is_dir() || except.is_none() || entry.path().canonicalize().ok() != except
        };
        for entry in entries.filter_entry(wanted) {
            match entry {
                Ok(entry) if (is_picture(entry.path()) || is_video(entry.path())) && entry.path().is_file() => {
                    paths.push(entry.into_path())
                }
                Ok(_) => {}
                Err(error) => {
                    let path = error.path().unwrap_or(folder).to_owned();
                    let reason = error.io_error().map_or_else(|| error.to_string(), ToString::to_string);
                    self.errors.push((path, format!("cannot be read: {reason}")));
                }
            }
        }
    }
}

fn is_picture(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    extension.is_some_and(|extension| IMAGE_EXTENSIONS.contains(&extension.as_str()))
}

/// A source is a pattern if it looks like one and no file has that very name.
fn glob_pattern(path: &Path) -> Option<&str> {
    let text = path.to_str()?;
    (text.contains(['*', '?', '[']) && !path.exists()).then_some(text)
}

fn paths_from_stdin(null: bool) -> anyhow::Result<Vec<PathBuf>> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).context("standard input cannot be read")?;
    let separator = if null { 0 } else { b'\n' };
    let lines = bytes.split(|&byte| byte == separator);
    let lines = lines.map(|line| if null { line } else { line.strip_suffix(b"\r").unwrap_or(line) });
    lines.filter(|line| !line.is_empty()).map(path_from_bytes).collect()
}

#[cfg(unix)]
fn path_from_bytes(bytes: &[u8]) -> anyhow::Result<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    Ok(std::ffi::OsStr::from_bytes(bytes).into())
}

#[cfg(not(unix))]
fn path_from_bytes(bytes: &[u8]) -> anyhow::Result<PathBuf> {
    let text = std::str::from_utf8(bytes).context("a path on standard input is not UTF-8")?;
    Ok(text.into())
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// The real path where there is one, else the absolute one.
fn resolve(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}

/// The deepest folder that holds all of `folders`.
fn common_folder(folders: &[PathBuf]) -> PathBuf {
    let mut distinct: Vec<&PathBuf> = folders.iter().collect();
    distinct.sort();
    distinct.dedup();
    let mut folders = distinct.into_iter().map(|folder| resolve(folder));
    let first = folders.next().unwrap_or_default();
    folders.fold(first, |common, folder| {
        common.components().zip(folder.components()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
    })
}

/// The path below `root` without extension; where that is taken (a.jpg and a.png), with it; else numbered.
fn stem_for(path: &Path, root: &Path, taken: &mut HashSet<PathBuf>) -> PathBuf {
    let folder = resolve(&folder_of(path));
    let below = folder.strip_prefix(root).unwrap_or(Path::new(""));
    // Whatever the input is called, outputs stay inside their folder.
    let below: PathBuf = below.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    let name = path.file_name().unwrap_or_default();
    let candidates = [path.file_stem().unwrap_or_default().to_owned(), name.to_owned()].into_iter();
    let numbered = (2u64..).map(|number| {
        let mut name = name.to_owned();
        name.push(format!("_{number}"));
        name
    });
    let mut candidates = candidates.chain(numbered).map(|name| below.join(name));
    let stem = candidates.find(|stem| !taken.contains(stem)).unwrap_or_default();
    taken.insert(stem.clone());
    stem
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stems(paths: &[&str]) -> Vec<String> {
        let folders: Vec<PathBuf> = paths.iter().map(|path| folder_of(Path::new(path))).collect();
        let (root, mut taken) = (common_folder(&folders), HashSet::new());
        paths.iter().map(|path| stem_for(Path::new(path), &root, &mut taken).display().to_string()).collect()
    }

    #[test]
    fn folders_are_mirrored_below_the_common_one() {
        assert_eq!(stems(&["/x/a/1.jpg"]), ["1"]);
        assert_eq!(stems(&["/x/a/1.jpg", "/x/b/1.jpg"]), ["a/1", "b/1"]);
        assert_eq!(stems(&["/x/1.jpg", "/x/b/c/1.jpg"]), ["1", "b/c/1"]);
    }

    #[test]
    fn no_two_inputs_share_a_name() {
        assert_eq!(stems(&["/x/1.jpg", "/x/1.png", "/x/1.png", "/x/1.png"]), ["1", "1.png", "1.png_2", "1.png_3"]);
    }

    #[test]
    fn outputs_stay_inside_their_folder() {
        for stem in stems(&["/nowhere/a/../../1.jpg", "/nowhere/b/2.jpg"]) {
            assert!(!stem.contains("..") && !stem.starts_with('/'), "{stem}");
        }
    }
}
