//! What tests of the program need.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each file of tests takes what it needs, and one that cannot go on has failed"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use image::Rgb;
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_yolo-lat");

/// The program in the repository's root, where the samples are.
pub(crate) fn program() -> Command {
    let mut command = Command::new(PROGRAM);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    command
}

pub(crate) fn yolo_lat(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    text(&output.stdout)
}

pub(crate) fn stderr(output: &Output) -> String {
    text(&output.stderr)
}

/// A folder of `count` small images in which the cat of the samples can be found.
pub(crate) fn folder_of_images(count: usize) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let cat = image::open("../../assets/chelsea.jpg").unwrap().thumbnail(96, 96).into_rgb8();
    for index in 0..count {
        let shade = Rgb([index as u8; 3]);
        let mut image = cat.clone();
        image.put_pixel(0, 0, shade);
        image.save(folder.path().join(format!("{index:03}.jpg"))).unwrap();
    }
    folder
}

pub(crate) fn utf8(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Every file below a folder with its contents, hidden ones left out.
pub(crate) fn files_below(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let visible = |entry: &walkdir::DirEntry| !entry.file_name().to_string_lossy().starts_with(".yolo-lat");
    let entries = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().filter_entry(visible);
    let files = entries.map(Result::unwrap).filter(|entry| entry.file_type().is_file());
    files
        .map(|entry| (entry.path().strip_prefix(folder).unwrap().to_owned(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

/// Runs `detect` and expects an exit code; gives standard error.
pub(crate) fn detect_into(out: &Path, code: i32, arguments: &[&str]) -> String {
    let output = yolo_lat(&[&["detect", "-o", utf8(out)], arguments].concat());
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
    stderr(&output)
}

/// What a process said.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// JSON lines of standard output.
pub(crate) fn json_lines(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn needs_ffmpeg() {
    assert!(yolo_lat::source::has_ffmpeg(), "ffmpeg is not installed; `make test` installs it");
}
