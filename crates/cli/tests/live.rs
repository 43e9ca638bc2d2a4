//! Live detection and videos on the command line.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use common::{PROGRAM, json_lines, needs_ffmpeg, program, text, yolo_lat};
use serde_json::Value;
use tempfile::TempDir;
use yolo_lat::sink::VideoRecorder;
use yolo_lat::source::{Source, SourceOptions, SyntheticSource, VideoSource};

/// A video of `frames` frames of the synthetic scene.
fn video(folder: &Path, frames: u64) -> PathBuf {
    let path = folder.join("clip.mp4");
    let mut scene = SyntheticSource::new();
    let first = scene.frame(0);
    let mut recorder = VideoRecorder::start(&path, first.dimensions()).unwrap();
    for frame in 0..frames {
        recorder.push(&scene.frame(frame), Duration::from_secs(frame) / 30).unwrap();
    }
    recorder.finish(None).unwrap();
    path
}

fn count_frames(path: &Path) -> usize {
    let mut video = VideoSource::open(path, &SourceOptions { live: false, ..SourceOptions::default() }).unwrap();
    let mut count = 0;
    while video.next_frame(&AtomicBool::new(false)).unwrap().is_some() {
        count += 1;
    }
    count
}

#[test]
fn fifty_frames_are_fifty_lines_in_order() {
    let arguments = ["live", "synthetic", "--headless", "--max-frames", "50", "-f", "jsonl"];
    let output = yolo_lat(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let lines = json_lines(&output);
    assert_eq!(lines.len(), 50);
    let mut last = -1;
    for line in &lines {
        let frame = line["frame"].as_i64().unwrap();
        assert!(frame > last, "{frame} after {last}");
        last = frame;
        assert!(line["age_ms"].as_f64().unwrap() > 0.0);
        assert!(line["captured_at"].as_str().unwrap().ends_with('Z'));
        assert!(line["timing_ms"]["inference"].as_f64().unwrap() > 0.0);
        assert!(line["detections"].is_array());
    }
    // The demo shows something real.
    assert!(lines.iter().any(|line| line["detections"][0]["name"] == "person"));
}

#[test]
fn without_a_display_the_window_names_the_way_out() {
    let output = program()
        .arg("live")
        .env_remove("DISPLAY")
        .env_remove("WAYLAND_DISPLAY")
        .env_remove("WAYLAND_SOCKET")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--headless"), "{}", text(&output.stderr));
}

#[test]
fn what_cannot_be_a_source_is_said_in_a_line() {
    for (arguments, wanted) in [
        (&["no/such/file"][..], "no such file"),
        (&["ftp://me:secret@host/a.mp4"], "ftp://host/a.mp4: addresses of ftp:// are not read; those of http"),
        (&["screen:wide"], "screen:0:640x480+100+50"),
        (&["no/such/*.mp4"], "no file matches this pattern"),
        (&["synthetic"; 17], "17 sources at once, where 16 are the most"),
        (&["synthetic", "--stride", "0"], "1..=1000000"),
        (&["synthetic", "--max-frames", "0"], "is not in 1.."),
        (&["synthetic", "--camera-format", "640x480"], "--camera-format is for cameras"),
        (&["0", "--camera-format", "large"], "640x480@30,mjpeg"),
        (&["synthetic", "--classes", "persn"], "person"),
        // As they were called until this version.
        (&["--camera", "no such camera"], "no such camera"),
        (&["--source", "no/such/file"], "no such file"),
        (&["synthetic", "--source", "0"], "cannot be used with"),
    ] {
        let output = yolo_lat(&[&["live", "--headless"], arguments].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(wanted) && output.stdout.is_empty(), "{arguments:?}: {said}");
        assert!(said.lines().count() == 1 || said.contains("For more information, try '--help'"), "{said}");
    }
    for argument in ["--max-frames=3", "--format=jsonl"] {
        let said = text(&yolo_lat(&["live", argument]).stderr);
        assert!(said.contains("--headless"), "{said}");
    }
}

#[test]
fn a_video_is_detected_frame_by_frame() {
    needs_ffmpeg();
    let folder = TempDir::new().unwrap();
    let clip = video(folder.path(), 12);
    let out = folder.path().join("out");
    let (clip, out_text) = (clip.to_str().unwrap(), out.to_str().unwrap());
    let arguments =
        ["detect", clip, "assets/chelsea.jpg", "-o", out_text, "-f", "jsonl", "-f", "coco", "--save-images"];
    let output = yolo_lat(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let lines = std::fs::read_to_string(out.join("results.jsonl")).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 13);
    for (index, line) in lines[..12].iter().enumerate() {
        assert_eq!(line["frame"], index);
        assert_eq!(line["image"], format!("{clip}#{index}"));
        assert_eq!(line["detections"][0]["name"], "person");
    }
    assert!(lines[12].get("frame").is_none(), "an image is no frame");
    let mut videos = Vec::new();
    for entry in walkdir::WalkDir::new(out.join("images")) {
        let path = entry.unwrap().into_path();
        videos.extend(path.extension().is_some_and(|extension| extension == "mp4").then_some(path));
    }
    assert_eq!(videos.len(), 1);
    assert_eq!(count_frames(&videos[0]), 12);
    let coco: Value = serde_json::from_slice(&std::fs::read(out.join("coco.json")).unwrap()).unwrap();
    let id = coco[0]["image_id"].as_str().unwrap();
    assert!(id.ends_with("clip/000000"), "{id}");
    assert!(text(&output.stderr).contains("2 of 2 images (12 frames of videos)"), "{}", text(&output.stderr));
}

#[test]
fn a_video_plays_to_its_end_and_can_be_saved() {
    needs_ffmpeg();
    let folder = TempDir::new().unwrap();
    let clip = video(folder.path(), 20);
    let saved = folder.path().join("saved/boxes.mp4");
    let arguments = ["live", "--headless", clip.to_str().unwrap(), "-f", "jsonl", "--save-video"];
    let output = yolo_lat(&[&arguments[..], &[saved.to_str().unwrap()]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let lines = json_lines(&output);
    assert!(!lines.is_empty() && lines.len() <= 20);
    // A last frame that stays long is there again.
    assert!((lines.len()..=lines.len() + 1).contains(&count_frames(&saved)));
    assert_eq!(std::fs::read_dir(saved.parent().unwrap()).unwrap().count(), 1, "nothing else is left behind");
}

#[test]
fn a_damaged_video_fails_and_the_rest_goes_on() {
    needs_ffmpeg();
    let folder = TempDir::new().unwrap();
    let broken = folder.path().join("broken.mp4");
    std::fs::write(&broken, "this is no video").unwrap();
    let output = yolo_lat(&["detect", broken.to_str().unwrap(), "assets/chelsea.jpg"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("broken.mp4"), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("cat"));
    let output = yolo_lat(&["live", "--headless", broken.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn without_ffmpeg_a_video_says_how_to_get_it() {
    let folder = TempDir::new().unwrap();
    let clip = folder.path().join("clip.mp4");
    std::fs::write(&clip, "video").unwrap();
    let output = program().arg("detect").arg(&clip).env("PATH", folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("apt-get install ffmpeg"), "{}", text(&output.stderr));
}

#[cfg(unix)]
#[test]
fn an_interrupted_session_leaves_valid_lines() {
    use std::io::BufRead;

    let mut child = program()
        .args(["live", "--headless", "synthetic", "-f", "jsonl"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        lines.next().unwrap().unwrap();
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    for line in lines {
        serde_json::from_str::<Value>(&line.unwrap()).unwrap();
    }
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

/// A source that never answers holds its own thread, not the program.
#[cfg(unix)]
#[test]
fn a_source_that_hangs_does_not_hold_the_program() {
    needs_ffmpeg();
    let folder = TempDir::new().unwrap();
    // A pipe into which nobody writes: ffmpeg waits for its first byte.
    let pipe = folder.path().join("never.mp4");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut child = program().args(["-v", "live", "--headless"]).arg(&pipe).spawn().unwrap();
    // Opens as soon as the other side reads.
    let writer = std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    // ffmpeg ends with its input.
    drop(writer);
}

#[test]
fn several_sources_name_themselves_and_each_gets_its_turns() {
    needs_ffmpeg();
    let folder = TempDir::new().unwrap();
    let clip = video(folder.path(), 60);
    let clip = clip.to_str().unwrap();
    let saved = folder.path().join("boxes.mp4");
    let arguments = ["live", "--headless", clip, "synthetic", "assets/chelsea.jpg", "assets/coffee.jpg"];
    let more = ["-f", "jsonl", "--max-frames", "2", "--size", "96", "--save-video", saved.to_str().unwrap()];
    let output = yolo_lat(&[&arguments[..], &more].concat());
    assert_eq!((output.status.code(), &*text(&output.stderr)), (Some(0), ""));
    let lines = json_lines(&output);
    let of = |source: &str| lines.iter().filter(|line| line["source"] == source).count();
    assert_eq!([of(clip), of("synthetic scene, 640x480")], [2, 2], "{}", text(&output.stdout));
    // Images make one slide show, whose results name the image.
    assert_eq!([of("assets/chelsea.jpg"), of("assets/coffee.jpg"), lines.len()], [1, 1, 6]);
    for name in ["boxes-1.mp4", "boxes-2.mp4", "boxes-3.mp4"] {
        assert!((2..=3).contains(&count_frames(&folder.path().join(name))), "{name}");
    }
    // One that is not there does not hold the others.
    let arguments = ["live", "--headless", "http://me:secret@127.0.0.1:9/x", "synthetic", "--max-frames", "3"];
    let output = yolo_lat(&arguments);
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("http://127.0.0.1:9/x: the stream cannot be read"), "{said}");
    let lines = text(&output.stdout);
    assert_eq!(lines.lines().filter(|line| line.starts_with("synthetic scene, 640x480: frame ")).count(), 3, "{lines}");
}

#[test]
fn rows_of_a_session_have_frame_and_time() {
    let output = yolo_lat(&["live", "synthetic", "--headless", "-f", "csv", "--max-frames", "4", "--max-det", "1"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let rows: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
    assert_eq!(rows[0], "image,width,height,class,name,confidence,x1,y1,x2,y2,frame,time");
    let mut last = (-1.0, -1.0);
    for row in &rows[1..] {
        assert!(row.starts_with("\"synthetic scene, 640x480#"), "{row}");
        let fields: Vec<f64> = row.rsplit(',').take(2).map(|field| field.parse().unwrap()).collect();
        let now = (fields[1], fields[0]);
        assert!(now.0 > last.0 && now.1 > last.1, "one row a frame, {row}");
        last = now;
    }
    assert_eq!(rows.len(), 5);
}

#[test]
fn without_a_camera_it_is_said_what_is_shown() {
    let cameras: Value = serde_json::from_slice(&yolo_lat(&["cameras", "--json"]).stdout).unwrap();
    let output = yolo_lat(&["live", "--headless", "--max-frames", "1", "-f", "jsonl"]);
    if cameras["cameras"] != serde_json::json!([]) {
        return;
    }
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("no camera: synthetic scene"), "{}", text(&output.stderr));
    assert_eq!(json_lines(&output)[0]["source"], "no camera: synthetic scene, 640x480");
}

/// In a virtual machine with the kernel's own virtual cameras; the long form is `make test-camera`.
#[test]
fn a_real_camera_driver_delivers_frames() {
    let output = Command::new("bash").args(["../../tests/camera/run", PROGRAM, "short"]).output().unwrap();
    let (out, errors) = (text(&output.stdout), text(&output.stderr));
    if output.status.code() == Some(77) {
        eprintln!("{errors}");
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{out}{errors}");
    assert!(out.contains("ok: 20 frames in order"), "{out}");
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "needs root to mount a small file system"]
fn a_full_disk_is_named_and_leaves_no_broken_video() {
    needs_ffmpeg();
    let (folder, disk) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let clip = video(folder.path(), 60);
    let mount = |arguments: &[&str]| assert!(Command::new("mount").args(arguments).status().unwrap().success());
    mount(&["-t", "tmpfs", "-o", "size=160k", "tmpfs", disk.path().to_str().unwrap()]);
    let at = |name: &str| disk.path().join(name).to_str().unwrap().to_owned();
    let live = |extension: &str| {
        let video = at(&format!("boxes.{extension}"));
        yolo_lat(&["live", "synthetic", "--headless", "--max-frames", "60", "--save-video", &video])
    };
    let outputs = [
        live("mp4"),
        live("mkv"),
        live("avi"),
        yolo_lat(&["detect", clip.to_str().unwrap(), "-q", "-o", &at("out"), "--save-images", "-f", "jsonl"]),
    ];
    let walk = walkdir::WalkDir::new(disk.path()).into_iter().map(|entry| entry.unwrap().into_path());
    let videos: Vec<PathBuf> = walk.filter(|path| path.is_file() && yolo_lat::source::is_video(path)).collect();
    assert!(Command::new("umount").arg(disk.path()).status().unwrap().success());
    for output in outputs {
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains("No space left on device"), "{said}");
    }
    assert!(videos.is_empty(), "{videos:?}");
}
