//! Which sources are meant, and under which names their results are written.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use yolo_lat::batch::Input;
use yolo_lat::sink::written_files;
use yolo_lat::source::{
    Found, IMAGE_EXTENSIONS, SourceRequest, VIDEO_EXTENSIONS, display_name, file_stem, files_in, holds_image, is_image,
    is_video, unknown_scheme,
};

/// The inputs of a run, with the names of their results.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    pub(super) inputs: Vec<Input>,
    /// Folders that could not be read: a line each.
    pub(super) errors: Vec<(PathBuf, String)>,
}

/// How sources are read.
#[derive(Clone, Debug, Default)]
pub(super) struct InputOptions {
    /// Sub-folders too.
    pub(super) recursive: bool,
    /// Paths on standard input end with NUL instead of a newline.
    pub(super) null: bool,
    /// A folder that is never read: the outputs.
    pub(super) except: Option<PathBuf>,
}

impl Inputs {
    /// Finds all that the sources mean, and a name for the results of each.
    pub(super) fn find(sources: &[OsString], options: &InputOptions) -> anyhow::Result<Self> {
        let Sources { paths, contents, roots, errors } = Sources::find(sources, options)?;
        let root = common_folder(&roots);
        let mut taken = folders_below(&root, &paths);
        let input = |path: PathBuf| {
            let contents = contents.clone().filter(|_| path == Path::new("-"));
            Input { stem: stem_for(&path, &root, &mut taken), path, contents }
        };
        Ok(Self { inputs: paths.into_iter().map(input).collect(), errors })
    }
}

/// What sources mean: files, addresses, cameras, screens.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// In the order given; a folder's files by name.
    pub(super) paths: Vec<PathBuf>,
    /// The image that came on standard input; its path is `-`.
    pub(super) contents: Option<Arc<[u8]>>,
    /// Folders that files were looked for in.
    roots: Vec<PathBuf>,
    /// Folders that could not be read: a line each.
    pub(super) errors: Vec<(PathBuf, String)>,
}

impl Sources {
    /// Expands files, folders, glob patterns, lists (`.txt`) and `-` (standard input).
    pub(super) fn find(sources: &[OsString], options: &InputOptions) -> anyhow::Result<Self> {
        let mut found = Self::default();
        for source in sources {
            found.add(Path::new(source), options)?;
        }
        if found.paths.is_empty() && found.errors.is_empty() {
            bail!("no input: standard input gave no paths");
        }
        Ok(found)
    }

    fn add(&mut self, path: &Path, options: &InputOptions) -> anyhow::Result<()> {
        let before = self.paths.len() + self.errors.len();
        let stream = SourceRequest::of_stream(path).map_err(anyhow::Error::msg)?;
        if path == Path::new("-") {
            self.add_standard_input(options.null)?;
        } else if stream.is_some() {
            self.paths.push(path.to_owned());
        } else if path.is_dir() {
            self.walk(path, options);
            if self.paths.len() + self.errors.len() == before {
                let hint = if options.recursive { "" } else { "; --recursive looks into sub-folders" };
                let known = IMAGE_EXTENSIONS.iter().chain(&VIDEO_EXTENSIONS).copied().collect::<Vec<_>>();
                bail!("{}: no images in this folder ({}){hint}", path.display(), known.join(", "));
            }
        } else if let Some(text) = path.to_str().filter(|text| text.contains(['*', '?', '[']) && !path.exists()) {
            let matches = self.matching(path, options).with_context(|| format!("{text}: not a valid pattern"))?;
            for path in matches {
                // As a shell would, had it expanded the pattern.
                if path.is_dir() { self.walk(&path, options) } else { self.push(path) }
            }
            if self.paths.len() + self.errors.len() == before {
                bail!("{text}: no file matches this pattern");
            }
        } else if path.is_file() && path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("txt")) {
            self.add_list(path)?;
        } else if let Some(reason) = unknown_scheme(path) {
            bail!("{}: {reason}", display_name(path));
        } else {
            self.push(path.to_owned());
        }
        Ok(())
    }

    /// A file, which need not be there, or a line of a list.
    fn push(&mut self, path: PathBuf) {
        if matches!(SourceRequest::of_stream(&path), Ok(None)) {
            self.roots.push(folder_of(&path));
        }
        self.paths.push(path);
    }

    /// Paths and addresses, or one image.
    fn add_standard_input(&mut self, null: bool) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).context("standard input cannot be read")?;
        if holds_image(&bytes) {
            self.paths.push("-".into());
            self.contents = Some(bytes.into());
            return Ok(());
        }
        if !null && bytes.contains(&0) {
            bail!(
                "standard input holds neither paths nor an image in a known format (--null: paths that end with NUL)"
            );
        }
        lines_of(&bytes, if null { 0 } else { b'\n' })?.into_iter().for_each(|path| self.push(path));
        Ok(())
    }

    /// A path or address a line; what is not found from here is looked for beside the list.
    fn add_list(&mut self, list: &Path) -> anyhow::Result<()> {
        let bytes = std::fs::read(list).with_context(|| format!("{}: cannot be read", list.display()))?;
        let lines = if bytes.contains(&0) { Vec::new() } else { lines_of(&bytes, b'\n')? };
        if lines.is_empty() {
            bail!("{}: lists no sources; a list has a path or an address a line", list.display());
        }
        for line in lines {
            let beside = folder_of(list).join(&line);
            self.push(if !line.exists() && beside.exists() { beside } else { line });
        }
        Ok(())
    }

    fn walk(&mut self, folder: &Path, options: &InputOptions) {
        self.roots.push(folder.to_owned());
        let wanted = |path: &Path| is_image(path) || is_video(path);
        let Found { files, errors } = files_in(folder, options.recursive, options.except.as_deref(), wanted);
        self.paths.extend(without_results(folder, files));
        self.errors.extend(errors.into_iter().map(unreadable));
    }

    /// Files and folders that match a pattern. As much of it as is there as a folder is meant literally, whatever brackets its
    /// name has; hidden files match only a pattern with their dot.
    fn matching(&mut self, pattern: &Path, options: &InputOptions) -> anyhow::Result<Vec<PathBuf>> {
        let folder = pattern.ancestors().skip(1).find(|folder| folder.is_dir()).unwrap_or(Path::new(""));
        let rest = pattern.strip_prefix(folder)?;
        let dots = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::new() };
        if !rest.components().any(|part| part.as_os_str() == "**") {
            let literal = glob::Pattern::escape(&folder.to_string_lossy());
            let matches = glob::glob_with(&Path::new(&literal).join(rest).to_string_lossy(), dots)?;
            return Ok(matches.filter_map(Result::ok).collect());
        }
        // Any number of folders: each once, however many links lead to it.
        let pattern = glob::Pattern::new(&rest.to_string_lossy())?;
        let dots = glob::MatchOptions { require_literal_separator: true, ..dots };
        let matches = |path: &Path| pattern.matches_path_with(path, dots);
        let anything = rest.ends_with("**");
        let depth = if options.recursive { usize::MAX } else { 1 };
        let root = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let found = files_in(root, true, options.except.as_deref(), |path| {
            let below = path.strip_prefix(root).unwrap_or(path);
            let listed = is_image(path) || is_video(path);
            // A folder that matches means its images.
            (matches(below) && (listed || !anything)) || (listed && below.ancestors().skip(1).take(depth).any(matches))
        });
        self.errors.extend(found.errors.into_iter().map(unreadable));
        Ok(found.files.into_iter().map(|path| path.strip_prefix("./").map(Path::to_owned).unwrap_or(path)).collect())
    }
}

fn unreadable((path, error): (PathBuf, std::io::Error)) -> (PathBuf, String) {
    (path, format!("cannot be read: {error}"))
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

fn lines_of(bytes: &[u8], separator: u8) -> anyhow::Result<Vec<PathBuf>> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let lines = bytes.split(|&byte| byte == separator);
    let lines = lines.map(|line| if separator == 0 { line } else { line.strip_suffix(b"\r").unwrap_or(line) });
    lines.filter(|line| !line.is_empty()).map(path_from_bytes).collect()
}

#[cfg(unix)]
fn path_from_bytes(bytes: &[u8]) -> anyhow::Result<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    Ok(std::ffi::OsStr::from_bytes(bytes).into())
}

#[cfg(not(unix))]
fn path_from_bytes(bytes: &[u8]) -> anyhow::Result<PathBuf> {
    let text = std::str::from_utf8(bytes).context("a path in the list is not UTF-8")?;
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

/// Folders of the inputs below `root`: a video's frames lie in a folder called as the video, and must not meet the images of one
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
    let of_stream = match SourceRequest::of_stream(path) {
        _ if path == Path::new("-") => Some("stdin".into()),
        Ok(None) => None,
        Ok(Some(request)) => Some(file_stem(&request.to_string())),
        Err(_) => Some("stream".into()),
    };
    let of_stream = of_stream.map(|name| PathBuf::from(format!("{name}.stream")));
    let path = of_stream.as_deref().unwrap_or(path);
    let folder = resolve(&folder_of(path));
    // An address lies in no folder.
    let below = folder.strip_prefix(root).ok().filter(|_| of_stream.is_none()).unwrap_or(Path::new(""));
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
    fn frames_of_a_video_do_not_meet_images_of_a_folder_called_as_it() {
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
