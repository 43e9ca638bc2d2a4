//! `--shard I/N`: N processes that share the work of one, whatever they are given.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{PROGRAM, stderr, stdout};
use serde_json::Value;
use tempfile::TempDir;

fn detect(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.current_dir(folder).arg("detect").args(arguments).args(["--size", "96", "--engine", "cpu", "--no-timing"]);
    command
}

fn lines(output: &Output) -> Vec<String> {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    stdout(output).lines().map(str::to_owned).collect()
}

/// Images in two folders that have the same names, some of them also the same but for their extension.
fn images() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let cat = image::open("../../assets/chelsea.jpg").unwrap().thumbnail(96, 96).into_rgb8();
    for day in ["photos/day", "photos/night"] {
        std::fs::create_dir_all(folder.path().join(day)).unwrap();
        for number in 0..6 {
            cat.save(folder.path().join(format!("{day}/{number:04}.jpg"))).unwrap();
        }
        cat.save(folder.path().join(format!("{day}/0000.png"))).unwrap();
    }
    folder
}

/// Runs each of `count` shards. Together they must be `whole`, and no two have a line in common.
fn assert_complete(whole: &[String], count: usize, mut run: impl FnMut(&str) -> Vec<String>) {
    let mut seen = BTreeSet::new();
    for index in 1..=count {
        for line in run(&format!("{index}/{count}")) {
            assert!(seen.insert(line.clone()), "twice, with {count} shards: {line}");
        }
    }
    assert_eq!(seen, whole.iter().cloned().collect(), "{count} shards");
}

#[test]
fn shards_are_disjoint_and_together_the_whole_run() {
    let folder = images();
    let run = |more: &[&str]| {
        lines(&detect(folder.path(), &[&["photos", "-r", "-f", "jsonl"], more].concat()).output().unwrap())
    };
    let whole = run(&[]);
    assert_eq!(whole.len(), 14);
    for count in 1..=5 {
        assert_complete(&whole, count, |shard| run(&["--shard", shard]));
    }
}

#[test]
fn a_image_is_in_the_same_shard_however_the_sources_are_given() {
    let folder = images();
    let name = |line: &String| {
        let image = serde_json::from_str::<Value>(line).unwrap()["image"].as_str().unwrap().to_owned();
        image[image.find("photos").unwrap()..].to_owned()
    };
    let names = |output: &Output| lines(output).iter().map(name).collect::<BTreeSet<_>>();
    let run = |sources: &[&str]| {
        let arguments = [sources, &["-f", "jsonl", "--shard", "2/3"]].concat();
        names(&detect(folder.path(), &arguments).output().unwrap())
    };
    let of_folder = run(&["photos", "-r"]);
    assert!(!of_folder.is_empty() && of_folder.len() < 14, "{of_folder:?}");
    let absolute = folder.path().join("photos");
    let mut paths: Vec<String> = walkdir::WalkDir::new(&absolute)
        .into_iter()
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.is_file())
        .map(|path| path.display().to_string())
        .collect();
    // Neither the order counts nor where the folder lies.
    paths.sort_by(|a, b| b.cmp(a));
    let list = paths.join("\n");
    std::fs::write(folder.path().join("list.txt"), &list).unwrap();
    assert_eq!(run(&[absolute.to_str().unwrap(), "-r"]), of_folder);
    assert_eq!(run(&["photos/*/*"]), of_folder);
    assert_eq!(run(&["photos/**/*.png", "photos/**/*.jpg"]), of_folder);
    assert_eq!(run(&["list.txt"]), of_folder);
    let mut piped = detect(folder.path(), &["-", "-f", "jsonl", "--shard", "2/3"]);
    let mut piped = piped.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    piped.stdin.take().unwrap().write_all(list.as_bytes()).unwrap();
    assert_eq!(names(&piped.wait_with_output().unwrap()), of_folder);
}

/// Files that are put together as docs/RESULTS.md says are those of one run: names, ids and columns too.
#[test]
fn results_of_shards_become_those_of_one_run() {
    let folder = images();
    let formats = ["-f", "csv", "-f", "coco", "-f", "yolo", "--categories", "categories.json"];
    let categories = r#"{"categories": [{"id": 17, "name": "cat"}]}"#;
    std::fs::write(folder.path().join("categories.json"), categories).unwrap();
    let run = |more: &[&str]| {
        let arguments = [&["photos", "-r", "-q"], &formats[..], more].concat();
        lines(&detect(folder.path(), &arguments).output().unwrap());
    };
    run(&["-o", "whole"]);
    for index in 1..=3 {
        run(&["-o", &format!("out/{index}"), "--shard", &format!("{index}/3")]);
    }
    let read = |path: &str| std::fs::read_to_string(folder.path().join(path)).unwrap();
    let csv = |path: &str| read(path).lines().map(str::to_owned).collect::<Vec<_>>();
    let whole = csv("whole/results.csv");
    assert!(whole.len() > 14, "a header and an object an image at least: {whole:?}");
    assert_complete(&whole[1..], 3, |shard| {
        let lines = csv(&format!("out/{}/results.csv", &shard[..1]));
        assert_eq!(lines[0], whole[0]);
        lines[1..].to_vec()
    });
    let coco = |path: &str| {
        let array: Vec<Value> = serde_json::from_str(&read(path)).unwrap();
        array.iter().map(Value::to_string).collect::<Vec<_>>()
    };
    // day/0001 and night/0001 are not both 1, though no shard may have seen both.
    let whole = coco("whole/coco.json");
    assert_complete(&whole, 3, |shard| coco(&format!("out/{}/coco.json", &shard[..1])));
    // 0000.jpg and 0000.png have a label file each.
    let labels = |root: &str| {
        let root = folder.path().join(root).join("labels");
        let entries = walkdir::WalkDir::new(&root).into_iter().map(Result::unwrap);
        let files = entries.filter(|entry| entry.file_type().is_file());
        files.map(|file| file.path().strip_prefix(&root).unwrap().display().to_string()).collect::<Vec<_>>()
    };
    assert_complete(&labels("whole"), 3, |shard| labels(&format!("out/{}", &shard[..1])));
}

#[test]
fn a_shard_is_resumed_as_that_shard() {
    let folder = images();
    let run = |shard: &str, more: &[&str]| {
        let arguments = [&["photos", "-r", "-q", "-f", "jsonl", "-o", "out", "--shard", shard], more].concat();
        detect(folder.path(), &arguments).output().unwrap()
    };
    lines(&run("1/2", &[]));
    let results = folder.path().join("out/results.jsonl");
    let first = std::fs::read_to_string(&results).unwrap();
    // What was completed is not computed again: the journal has it though the image is gone.
    let journal = folder.path().join("out/.yolo-lat-journal.jsonl");
    let completed = std::fs::read_to_string(&journal).unwrap();
    let kept: Vec<&str> = completed.lines().take(3).collect();
    std::fs::write(&journal, kept.join("\n") + "\n").unwrap();
    lines(&run("1/2", &["--resume"]));
    assert_eq!(std::fs::read_to_string(&results).unwrap(), first);
    assert_eq!(std::fs::read_to_string(&journal).unwrap(), completed);
    for (shard, now) in [("2/2", "\"2/2\""), ("1/3", "\"1/3\"")] {
        let refused = run(shard, &["--resume"]);
        let error = stderr(&refused);
        assert_eq!((refused.status.code(), error.lines().count()), (Some(2), 1), "{error}");
        assert!(error.contains(&format!("shard \"1/2\" then, {now} now")), "{error}");
    }
}

#[test]
fn a_video_is_in_one_shard_as_a_whole() {
    assert!(yolo_lat::source::has_ffmpeg(), "ffmpeg is not installed; `make test` installs it");
    let folder = images();
    for name in ["a", "b", "c"] {
        let clip = folder.path().join(format!("photos/{name}.mp4"));
        let source = ["-v", "error", "-f", "lavfi", "-i", "testsrc=size=96x96:rate=5:duration=1"];
        assert!(Command::new("ffmpeg").args(source).arg(&clip).status().unwrap().success());
    }
    let run = |more: &[&str]| {
        lines(&detect(folder.path(), &[&["photos", "-r", "-f", "jsonl"], more].concat()).output().unwrap())
    };
    let whole = run(&[]);
    assert_eq!(whole.len(), 14 + 3 * 5);
    assert_complete(&whole, 2, |shard| {
        let lines = run(&["--shard", shard]);
        for name in ["a", "b", "c"] {
            let frames = lines.iter().filter(|line| line.contains(&format!("{name}.mp4"))).count();
            assert!([0, 5].contains(&frames), "{frames} frames of {name}.mp4");
        }
        lines
    });
    // A shard without a video is none of the reasons to refuse what is for videos.
    for index in 1..=9 {
        let out = format!("mot/{index}");
        let shard = format!("{index}/9");
        let arguments = ["photos", "-r", "-q", "--track", "-f", "mot", "-o", &out, "--shard", &shard];
        lines(&detect(folder.path(), &arguments).output().unwrap());
    }
}

/// More shards than inputs: some have nothing to do, and say so in files that are as they should be.
#[test]
fn a_shard_without_inputs_is_an_empty_run() {
    let folder = images();
    let mut found = 0;
    for index in 1..=40 {
        let shard = format!("{index}/40");
        let arguments = ["photos/day", "-q", "-f", "json", "--shard", &shard];
        let output = detect(folder.path(), &arguments).output().unwrap();
        let array: Vec<Value> = serde_json::from_str(&lines(&output).join("")).unwrap();
        found += array.len();
    }
    assert_eq!(found, 7);
}

#[test]
fn what_is_no_shard_is_one_line_and_a_usage_error() {
    let folder = images();
    for (shard, says) in [
        ("3/2", "of 2 shards there is none with the number 3"),
        ("0/2", "expected a shard and how many there are, 1/4 to 4/4; found \"0/2\""),
        ("a/b", "found \"a/b\""),
        ("2", "found \"2\""),
        ("1/99999999999999999999", "found \"1/9"),
    ] {
        let output = detect(folder.path(), &["photos", "-r", "--shard", shard]).output().unwrap();
        let error = stderr(&output);
        assert_eq!((output.status.code(), error.lines().count(), output.stdout.len()), (Some(2), 1, 0), "{error}");
        assert!(error.contains("--shard") && error.contains(says), "{error}");
    }
}
