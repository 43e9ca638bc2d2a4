//! Which files a run works on, and under which names their results are written.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use yolo_lat::batch::Input;
use yolo_lat::sink::written_files;
use yolo_lat::source::{Found, IMAGE_EXTENSIONS, VIDEO_EXTENSIONS, as_url, file_stem, files_in, is_picture, is_video};

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
                    roots.extend(as_url(&path).is_none().then(|| folder_of(&path)));
                    paths.push(path);
                }
            } else if as_url(path).is_some() {
                paths.push(path.to_owned());
            } else if path.is_dir() {
                let before = paths.len() + found.errors.len();
                found.walk(path, options, &mut roots, &mut paths);
                if paths.len() + found.errors.len() == before {
                    let hint = if options.recursive { "" } else { "; --recursive looks into sub-folders" };
                    let known = IMAGE_EXTENSIONS.iter().chain(&VIDEO_EXTENSIONS).copied().collect::<Vec<_>>();
                    bail!("{}: no pictures in this folder ({}){hint}", path.display(), known.join(", "));
                }
            } else if let Some(text) = path.to_str().filter(|text| text.contains(['*', '?', '[']) && !path.exists()) {
                let matches = matching(path).with_context(|| format!("{text}: not a valid pattern"))?;
                let before = paths.len() + found.errors.len();
                for path in matches {
                    // As a shell would, had it expanded the pattern.
                    if path.is_dir() {
                        found.walk(&path, options, &mut roots, &mut paths);
                    } else {
                        roots.push(folder_of(&path));
                        paths.push(path);
                    }
                }
                if paths.len() + found.errors.len() == before {
                    bail!("{text}: no file matches this pattern");
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
        let mut taken = folders_below(&root, &paths);
        found.inputs = paths.into_iter().map(|path| Input { stem: stem_for(&path, &root, &mut taken), path }).collect();
        Ok(found)
    }

    fn walk(&mut self, folder: &Path, options: &InputOptions, roots: &mut Vec<PathBuf>, paths: &mut Vec<PathBuf>) {
        roots.push(folder.to_owned());
        let wanted = |path: &Path| is_picture(path) || is_video(path);
        let Found { files, errors } = files_in(folder, options.recursive, options.except.as_deref(), wanted);
        paths.extend(without_results(folder, files));
        let reason = |(path, error)| (path, format!("cannot be read: {error}"));
        self.errors.extend(errors.into_iter().map(reason));
    }
}

/// What runs have written into `folder` or folders below it is no input.
fn without_results(folder: &Path, mut files: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut written: HashMap<PathBuf, HashSet<PathBuf>> = HashMap::new();
    let mut is_result = |file: &PathBuf| {
        file.ancestors().skip(1).take_while(|ancestor| ancestor.starts_with(folder)).any(|ancestor| {
            let list =
                written.entry(ancestor.to_owned()).or_insert_with(|| written_files(ancestor).into_iter().collect());
            file.strip_prefix(ancestor).is_ok_and(|relative| list.contains(relative))
        })
    };
    files.retain(|file| !is_result(file));
    files
}

/// Files and folders that match a pattern. As much of it as is there as a folder is meant literally, whatever brackets its
/// name has; hidden files match only a pattern with their dot.
fn matching(pattern: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let folder = pattern.ancestors().skip(1).find(|folder| folder.is_dir()).unwrap_or(Path::new(""));
    let rest = pattern.strip_prefix(folder)?;
    let literal = glob::Pattern::escape(&folder.to_string_lossy());
    let pattern = Path::new(&literal).join(rest);
    let options = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::new() };
    let matches = glob::glob_with(&pattern.to_string_lossy(), options)?;
    Ok(matches.filter_map(Result::ok).collect())
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

/// Folders of the inputs below `root`: a video's frames lie in a folder called as the video, and must not meet the pictures of one
/// that is called so.
fn folders_below(root: &Path, paths: &[PathBuf]) -> HashSet<PathBuf> {
    let mut folders: Vec<PathBuf> = paths.iter().map(|path| folder_of(path)).collect();
    folders.dedup();
    let below =
        folders.iter().map(|folder| resolve(folder)).filter_map(|path| Some(path.strip_prefix(root).ok()?.to_owned()));
    if paths.iter().any(|path| is_video(path)) { below.collect() } else { HashSet::new() }
}

/// The path below `root` without extension; where that is taken (a.jpg and a.png), with it; else numbered.
fn stem_for(path: &Path, root: &Path, taken: &mut HashSet<PathBuf>) -> PathBuf {
    let of_stream = as_url(path).map(|url| PathBuf::from(format!("{}.stream", file_stem(url))));
    let path = of_stream.as_deref().unwrap_or(path);
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
        let root = common_folder(&folders);
        let mut taken = folders_below(&root, &paths.iter().map(PathBuf::from).collect::<Vec<_>>());
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
    fn frames_of_a_video_do_not_meet_pictures_of_a_folder_called_as_it() {
        assert_eq!(stems(&["/x/clip.mp4", "/x/clip/000000.jpg"]), ["clip.mp4", "clip/000000"]);
        assert_eq!(stems(&["/x/clip.jpg", "/x/clip/000000.jpg"]), ["clip", "clip/000000"]);
    }

    #[test]
    fn outputs_stay_inside_their_folder() {
        for stem in stems(&["/nowhere/a/../../1.jpg", "/nowhere/b/2.jpg"]) {
            assert!(!stem.contains("..") && !stem.starts_with('/'), "{stem}");
        }
    }
}
