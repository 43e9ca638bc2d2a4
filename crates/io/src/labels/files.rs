//! Files of a data set: text whatever its encoding, folders whatever the case of their names, and file names that were
//! written on other machines.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use encoding_rs::Encoding;

use super::Fault;
use crate::source::{Found, has_extension, is_hidden};

/// Folders that hold images, as data sets call them.
pub(crate) const IMAGE_FOLDERS: [&str; 6] = ["JPEGImages", "images", "data", "img", "imgs", "image"];

/// The text of a file: UTF-8, or what its byte order mark says. The mark is no part of it.
pub(crate) fn read_text(path: &Path) -> Result<String, Fault> {
    let bytes = read_bytes(path)?;
    let text = match Encoding::for_bom(&bytes) {
        None => String::from_utf8(bytes).ok(),
        Some((encoding, mark)) => {
            encoding.decode_without_bom_handling_and_without_replacement(&bytes[mark..]).map(Cow::into_owned)
        }
    };
    text.ok_or_else(|| Fault::new(path, "is not text in UTF-8"))
}

pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>, Fault> {
    std::fs::read(path).map_err(|error| Fault::unreadable(path, &error))
}

/// A file's name without folder and extension.
pub(crate) fn stem_of(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// A path below `folder`, without extension, with `/` on every system.
pub(crate) fn name_below(path: &Path, folder: &Path) -> String {
    name_of(&path.strip_prefix(folder).unwrap_or(path).with_extension(""))
}

/// A path as text, with `/` on every system.
pub(crate) fn name_of(path: &Path) -> String {
    let parts: Vec<_> = path.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    parts.join("/")
}

/// Everything in a folder that is not hidden, by name.
pub(crate) fn entries_of(folder: &Path) -> Result<Vec<PathBuf>, Fault> {
    let fail = |error| Fault::unreadable(folder, &error);
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if !is_hidden(&path) {
            entries.push(path);
        }
    }
    entries.sort();
    Ok(entries)
}

/// Files in a folder with one of the extensions, by name; none where there is no such folder.
pub(crate) fn files_in(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let entries = entries_of(folder).unwrap_or_default();
    entries.into_iter().filter(|path| has_extension(path, extensions) && path.is_file()).collect()
}

/// Files below a folder that are wanted, by name. Hidden ones are no part of it; links are followed, each folder once.
pub(crate) fn files_below(folder: &Path, wanted: impl Fn(&Path) -> bool, faults: &mut Vec<Fault>) -> Vec<PathBuf> {
    let Found { files, errors } = crate::source::files_in(folder, true, None, wanted);
    faults.extend(errors.iter().map(|(path, error)| Fault::unreadable(path, error)));
    files
}

/// The first of `names` that is a folder in `folder`, in any case of its letters.
pub(crate) fn subfolder(folder: &Path, names: &[&str]) -> Option<PathBuf> {
    let entries = entries_of(folder).ok()?;
    let is_called =
        |path: &&PathBuf, name: &str| path.file_name().is_some_and(|found| found.eq_ignore_ascii_case(name));
    names.iter().find_map(|name| entries.iter().find(|path| is_called(path, name) && path.is_dir()).cloned())
}

/// The file that a name means: in one of the folders, with as many of its own folders as are there. Names from Windows have
/// backslashes, those of servers are addresses.
pub(crate) fn find_file(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let portable = portable_name(name);
    let starts = portable.match_indices('/').map(|(at, _)| &portable[at + 1..]).filter(|tail| !tail.is_empty());
    let names = [name, portable.as_str()].into_iter().chain(starts).filter(|name| !name.is_empty());
    names.flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|path| path.is_file())
}

/// A name as it would stand here: of an address the path, without what is escaped in it; slashes as ours.
pub(crate) fn portable_name(name: &str) -> String {
    let name = name.trim();
    // Label Studio serves local files as /data/local-files/?d=folder/file.
    let local = name.split_once("?d=").map(|(_, file)| file);
    let remote = name.split_once("://").map(|(_, path)| path.split(['?', '#']).next().unwrap_or(path));
    match local.or(remote) {
        Some(path) => percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned(),
        None => name.replace('\\', "/"),
    }
}
