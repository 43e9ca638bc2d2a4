//! `yolo-lat doctor`: every part is told, and none can make the report fail.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{PROGRAM, stderr, stdout};
use serde_json::Value;

fn doctor(arguments: &[&str], change: impl FnOnce(&mut Command)) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("doctor").args(arguments);
    change(&mut command);
    command.output().unwrap()
}

fn json(change: impl FnOnce(&mut Command)) -> Value {
    let output = doctor(&["--json"], change);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The command that installs something, and the problem of its part.
fn command_for<'a>(report: &'a Value, what: &str) -> Option<&'a str> {
    let missing = report["missing"].as_array().unwrap();
    missing.iter().find(|missing| missing["what"] == what).map(|missing| missing["command"].as_str().unwrap())
}

fn problem<'a>(report: &'a Value, part: &str) -> &'a str {
    report[part]["problem"].as_str().unwrap_or("none")
}

#[test]
fn every_part_has_its_fields() {
    let report = json(|_| ());
    for (part, fields) in [
        ("processor", &["name", "cores", "threads", "instruction_set", "instruction_sets", "dot_products"][..]),
        ("engines", &["size", "threads", "measured", "auto"]),
        ("gpu", &["used", "adapters"]),
        ("onnx_runtime", &["path", "version"]),
        ("cameras", &["found"]),
        ("ffmpeg", &["path", "version"]),
        ("display", &["name"]),
        ("cache", &["path", "writable"]),
        ("configuration", &["path", "writable"]),
    ] {
        for field in fields.iter().chain(&["problem"]) {
            assert!(report[part].as_object().unwrap().contains_key(*field), "{part} has no {field}: {}", report[part]);
        }
    }
    for field in ["version", "features", "system", "missing"] {
        assert!(!report[field].is_null(), "{field}");
    }
    let measured = report["engines"]["measured"].as_array().unwrap();
    assert_eq!(measured.iter().map(|row| row["engine"].as_str().unwrap()).collect::<Vec<_>>(), ["cpu", "gpu", "ort"]);
    for row in measured {
        for model in ["n", "s"] {
            // A time or a reason, never both and never neither.
            let time = row["ms"][model].as_f64();
            assert_eq!(time.is_some(), row["problem"].is_null(), "{row}");
            assert!(time.is_none_or(|time| time > 0.0), "{row}");
        }
    }
    assert!(measured[0]["problem"].is_null(), "the CPU engine runs everywhere: {}", measured[0]);
    for model in ["n", "s"] {
        let auto = &report["engines"]["auto"][model];
        assert!(["cpu", "gpu"].contains(&auto["engine"].as_str().unwrap()), "{auto}");
        assert!(!auto["why"].as_str().unwrap().is_empty());
    }
}

#[test]
fn people_read_it_on_one_screen() {
    let output = doctor(&[], |_| ());
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0));
    for name in
        ["processor", "engines", "gpu", "onnx runtime", "cameras", "ffmpeg", "display", "cache", "configuration"]
    {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name}:\n{text}");
    }
    assert!(text.lines().count() <= 30, "{text}");
}

/// Neither ffmpeg nor Python is found where PATH leads nowhere.
#[test]
fn what_is_missing_has_the_command_that_installs_it() {
    let empty = tempfile::tempdir().unwrap();
    let report = json(|command| {
        command.env("PATH", empty.path()).env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY");
    });
    assert!(problem(&report, "ffmpeg").contains("not installed"), "{}", report["ffmpeg"]);
    if cfg!(target_os = "linux") {
        assert!(command_for(&report, "ffmpeg").unwrap().ends_with("apt-get install ffmpeg"), "{}", report["missing"]);
    }
    assert!(problem(&report, "display").contains("--headless"), "{}", report["display"]);
    let output = doctor(&[], |command| {
        command.env("PATH", empty.path());
    });
    let text = stdout(&output);
    assert!(text.lines().any(|line| line.starts_with("missing        ffmpeg (for videos")), "{text}");
}

#[test]
fn a_broken_onnx_runtime_is_a_line_and_the_rest_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("libonnxruntime.so");
    std::fs::write(&broken, "this is no library").unwrap();
    let path = broken.to_str().unwrap();
    let report = json(|command| {
        command.args(["--ort-lib", path]);
    });
    let by_variable = json(|command| {
        command.env("ORT_DYLIB_PATH", path);
    });
    let absent = json(|command| {
        command.env("ORT_DYLIB_PATH", folder.path().join("absent.so"));
    });
    for (report, says) in [(&report, path), (&by_variable, path), (&absent, "no such file")] {
        assert!(problem(report, "onnx_runtime").contains(says), "{}", report["onnx_runtime"]);
        let ort = &report["engines"]["measured"][2];
        assert!(ort["ms"]["n"].is_null() && ort["problem"].as_str().unwrap().contains(says), "{ort}");
        assert!(report["engines"]["measured"][0]["ms"]["n"].as_f64().unwrap() > 0.0);
        assert!(command_for(report, "ONNX Runtime").unwrap().contains("-m pip install"), "{}", report["missing"]);
    }
}

/// What is there and does not work: an ffprobe that says nothing, an adapter and a display that are not there, an instruction set.
#[test]
fn what_does_not_work_is_told() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["ffmpeg", "ffprobe"] {
        executable(&folder.path().join(name), "#!/bin/sh\nexit 1\n");
    }
    let report = json(|command| {
        command.args(["--adapter", "voodoo"]).env("PATH", folder.path()).env("YOLO_LAT_ISA", "mmx");
        command.env("DISPLAY", ":4711").env_remove("WAYLAND_DISPLAY");
    });
    assert!(problem(&report, "ffmpeg").contains("does not tell its version"), "{}", report["ffmpeg"]);
    assert!(problem(&report, "gpu").contains("no adapter is called \"voodoo\""), "{}", report["gpu"]);
    assert!(problem(&report, "display").contains("X11 :4711 does not answer"), "{}", report["display"]);
    assert!(problem(&report, "processor").contains("YOLO_LAT_ISA"), "{}", report["processor"]);
    assert!(report["engines"]["measured"][0]["problem"].as_str().unwrap().contains("YOLO_LAT_ISA"));
}

#[test]
fn folders_that_cannot_be_written_are_told_and_none_is_made() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    let at = |cache: &Path| {
        json(|command| {
            command.env("HOME", home.path()).env("XDG_CACHE_HOME", cache).env("XDG_CONFIG_HOME", home.path());
        })
    };
    let report = at(&home.path().join("cache"));
    if cfg!(target_os = "linux") {
        assert_eq!(report["cache"]["path"], home.path().join("cache/yolo-lat").to_str().unwrap());
        assert!(
            report["cache"]["writable"].as_bool().unwrap() && report["configuration"]["writable"].as_bool().unwrap()
        );
        // A driver may keep something of its own in there.
        let entries = walkdir::WalkDir::new(home.path()).into_iter().map(Result::unwrap);
        let left: Vec<_> = entries.filter(|entry| entry.file_name().to_string_lossy().contains("yolo-lat")).collect();
        assert!(left.is_empty(), "it looks and leaves nothing behind: {left:?}");
        let report = at(&file);
        assert!(!report["cache"]["writable"].as_bool().unwrap());
        assert!(problem(&report, "cache").contains("cannot be written"), "{}", report["cache"]);
    }
}

fn executable(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    #[cfg(unix)]
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}
