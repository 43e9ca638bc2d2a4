//! Objects followed through videos, as results, text and measures.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{needs_ffmpeg, text, yolo_lat};
use serde_json::Value;
use tempfile::TempDir;

const FRAMES: usize = 40;

/// What a run prints that must not fail.
fn printed(arguments: &[&str]) -> String {
    let output = yolo_lat(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn values(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A cat that moves 4 pixels to the right in each of 40 frames, 30 a second.
fn moving_cat(folder: &Path) -> PathBuf {
    needs_ffmpeg();
    let clip = folder.join("cat.mkv");
    let scene = "[1]scale=300:-2[cat];[0][cat]overlay=x=20+4*n:y=100";
    let made = Command::new("ffmpeg")
        .current_dir("../..")
        .args([
            "-v",
            "error",
            "-f",
            "lavfi",
            "-i",
            "color=gray:s=640x400:r=30",
            "-loop",
            "1",
            "-i",
            "assets/chelsea.jpg",
        ])
        .args(["-filter_complex", scene, "-frames:v", &FRAMES.to_string(), "-q:v", "2", clip.to_str().unwrap()])
        .status();
    assert!(made.unwrap().success());
    clip
}

/// The cat of each frame.
fn cats(records: &[Value]) -> Vec<&Value> {
    assert_eq!(records.len(), FRAMES);
    let cats =
        records.iter().map(|record| record["detections"].as_array().unwrap().iter().find(|one| one["name"] == "cat"));
    cats.map(|cat| cat.unwrap()).collect()
}

#[test]
fn an_object_keeps_its_number_and_has_an_age_and_a_speed() {
    let folder = TempDir::new().unwrap();
    let (clip, out) = (moving_cat(folder.path()), folder.path().join("out"));
    let (clip, out) = (clip.to_str().unwrap(), out.to_str().unwrap());
    printed(&["detect", clip, "--track", "-o", out, "-f", "jsonl", "-f", "csv", "-f", "mot", "-q"]);
    let read = |name: &str| std::fs::read_to_string(Path::new(out).join(name)).unwrap();
    let records = values(&read("results.jsonl"));
    let cats = cats(&records);
    for (frame, cat) in cats.iter().enumerate() {
        let age = cat["age"].as_f64().unwrap();
        assert!(cat["id"] == cats[0]["id"] && (age - frame as f64 / 30.0).abs() < 0.002, "frame {frame}: {cat}");
    }
    let speed = cats[FRAMES - 1]["speed"].as_f64().unwrap();
    assert!((speed - 120.0).abs() < 25.0, "{speed} pixels a second");

    let csv = read("results.csv");
    assert!(csv.lines().next().unwrap().ends_with(",y2,frame,time,id,age,speed"), "{csv}");
    let id = cats[0]["id"].to_string();
    assert!(csv.lines().any(|line| line.contains(&format!(",39,1.300,{id},1.3,"))), "{csv}");

    let mot = read("mot/cat.txt");
    let rows: Vec<Vec<f64>> =
        mot.lines().map(|line| line.split(',').map(|field| field.parse().unwrap()).collect()).collect();
    let own: Vec<&Vec<f64>> = rows.iter().filter(|row| row[1].to_string() == id).collect();
    assert_eq!((own.len(), own[0].len(), own[39][0]), (FRAMES, 10, 40.0));
    let side = |name: &str| cats[39]["box"][name].as_f64().unwrap();
    assert!((own[39][2] - side("x1")).abs() < 0.01 && (own[39][4] - (side("x2") - side("x1"))).abs() < 0.01);

    // Against themselves nothing is wrong; a number that changes in the middle is.
    let changed: String = mot
        .lines()
        .map(|line| {
            let (frame, rest) = line.split_once(',').unwrap();
            let (id, rest) = rest.split_once(',').unwrap();
            let late = frame.parse::<usize>().unwrap() > FRAMES / 2;
            format!("{frame},{id}{},{rest}\n", if late { "00" } else { "" })
        })
        .collect();
    std::fs::write(folder.path().join("changed.txt"), changed).unwrap();
    let truth = format!("{out}/mot/cat.txt");
    let changed = folder.path().join("changed.txt");
    let measured = |tracks: &str| -> Value {
        serde_json::from_str(&printed(&["eval", &truth, "--tracks", tracks, "--json"])).unwrap()
    };
    let [same, changed_values] = [truth.as_str(), changed.to_str().unwrap()].map(measured);
    assert_eq!((&same["together"]["hota"], &same["sequences"]["cat"]["idf1"]), (&100.0.into(), &100.0.into()));
    let together = &changed_values["together"];
    assert_eq!(together["idf1"], 50.0);
    assert!(together["switches"].as_u64().unwrap() >= 1 && together["hota"].as_f64().unwrap() < 75.0, "{together}");
    let table = printed(&["eval", &truth, "--tracks", &format!("{out}/mot")]);
    assert!(table.starts_with("sequence   HOTA") && table.contains("\ncat       100.0"), "{table}");
}

#[test]
fn boxes_are_as_without_tracks_unless_smoothed_ones_are_asked_for() {
    let folder = TempDir::new().unwrap();
    let clip = moving_cat(folder.path());
    let of = |options: &[&str]| {
        let arguments = [&["detect", clip.to_str().unwrap(), "-f", "jsonl", "-q", "--no-timing"], options].concat();
        values(&printed(&arguments))
    };
    let (plain, tracked, smooth) = (of(&[]), of(&["--track"]), of(&["--track", "--smooth"]));
    let sides = |records: &[Value]| -> Vec<Value> { cats(records).iter().map(|cat| cat["box"].clone()).collect() };
    assert_eq!(sides(&plain), sides(&tracked));
    assert_ne!(sides(&plain)[5..], sides(&smooth)[5..]);
    assert!(plain.iter().all(|record| record["detections"][0].get("id").is_none()));
}

#[test]
fn live_follows_where_it_is_told_to() {
    let folder = TempDir::new().unwrap();
    let clip = moving_cat(folder.path());
    let of = |options: &[&str]| {
        let arguments = ["live", "--headless", "--format", "jsonl", clip.to_str().unwrap()];
        let records = values(&printed(&[&arguments, options].concat()));
        let numbers = records.iter().flat_map(|record| record["detections"].as_array().unwrap().clone());
        numbers.map(|one| one["id"].as_u64()).collect::<Vec<_>>()
    };
    let tracked = of(&["--track"]);
    assert!(!tracked.is_empty() && tracked.iter().all(|id| *id == tracked[0] && id.is_some()), "{tracked:?}");
    let plain = of(&["--track=false"]);
    assert!(!plain.is_empty() && plain.iter().all(Option::is_none), "{plain:?}");
}

#[test]
fn what_does_not_belong_together_is_said_in_a_line() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let out = out.to_str().unwrap();
    for (arguments, expected) in [
        (
            &["detect", "assets", "--track"][..],
            "--track follows objects through a video, and there is none among the inputs",
        ),
        (&["detect", "assets", "-f", "mot", "-o", out], "-f mot is for videos, and there is none among the inputs"),
        (&["detect", "assets", "-f", "mot"], "--format mot writes a file for each video: add -o DIR"),
        (&["detect", "clip.mp4", "--smooth"], "--smooth belongs to --track"),
        (&["live", "--headless", "--smooth"], "--smooth belongs to --track"),
        (&["eval", "nowhere", "--tracks", "assets"], "nowhere: cannot be read"),
        (&["eval", "README.md", "--tracks", "README.md"], "README.md: line 1: not frame,id,left,top,width,height"),
    ] {
        let output = yolo_lat(arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(expected) && said.lines().count() == 1, "{arguments:?}: {said}");
    }
    let both = yolo_lat(&["eval", "README.md", "--tracks", "README.md", "--threshold"]);
    assert_eq!(both.status.code(), Some(2));
}
