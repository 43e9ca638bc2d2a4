//! Other people's images, folders and videos: everything here is made by the tests, the videos with ffmpeg.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{PROGRAM, json_lines, needs_ffmpeg, text};
use image::RgbImage;
use serde_json::Value;
use tempfile::TempDir;

/// Runs `yolo-lat detect` in a folder, with results as JSON lines.
fn detect(folder: &Path, arguments: &[&str]) -> Output {
    let usual = ["detect", "-f", "jsonl", "--no-timing", "-q", "--size", "32"];
    Command::new(PROGRAM).current_dir(folder).args(usual).args(arguments).output().unwrap()
}

/// Results come, nothing is said, and the exit code is 0.
fn frames_of(folder: &Path, arguments: &[&str]) -> Vec<Value> {
    let output = detect(folder, arguments);
    assert_eq!((output.status.code(), &*text(&output.stderr)), (Some(0), ""), "{arguments:?}");
    json_lines(&output)
}

fn images(results: &[Value]) -> Vec<&str> {
    results.iter().map(|line| line["image"].as_str().unwrap()).collect()
}

fn folder_for_videos() -> TempDir {
    needs_ffmpeg();
    tempfile::tempdir().unwrap()
}

/// Runs ffmpeg in a folder; arguments are separated by blanks.
fn ffmpeg(folder: &Path, arguments: &str) {
    assert!(try_ffmpeg(folder, arguments), "ffmpeg {arguments}");
}

fn try_ffmpeg(folder: &Path, arguments: &str) -> bool {
    let arguments = arguments.split_whitespace();
    Command::new("ffmpeg").current_dir(folder).args(["-v", "error", "-y"]).args(arguments).status().unwrap().success()
}

/// Seconds that a video lasts, by ffprobe.
fn duration(path: &Path) -> f64 {
    let show = ["-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0"];
    text(&Command::new("ffprobe").args(show).arg(path).output().unwrap().stdout).trim().parse().unwrap()
}

fn image(path: &Path) {
    RgbImage::from_fn(64, 48, |x, y| image::Rgb([x as u8, y as u8, 99])).save(path).unwrap();
}

#[test]
fn folders_are_read_by_kind_not_by_habit() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    image(&at("a.jpg"));
    for name in ["b.jfif", "c.jpe", "d.mpo", "e.PJPEG"] {
        std::fs::copy(at("a.jpg"), at(name)).unwrap();
    }
    // Contents decide what it is, the name whether it is looked at.
    image(&at("f.png"));
    std::fs::rename(at("f.png"), at("f.jpg")).unwrap();
    std::fs::write(at("._a.jpg"), b"\0\x05\x16\x07\0\x02\0\0Mac OS X").unwrap();
    std::fs::write(at("notes.txt"), "no image").unwrap();
    std::fs::create_dir_all(at(".thumbnails")).unwrap();
    image(&at(".thumbnails/a.jpg"));
    let results = frames_of(folder.path(), &["-r", "."]);
    assert_eq!(images(&results), ["./a.jpg", "./b.jfif", "./c.jpe", "./d.mpo", "./e.PJPEG", "./f.jpg"]);
    // What is named is not hidden.
    let output = detect(folder.path(), &["._a.jpg"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("not an image in a known format"), "{}", text(&output.stderr));
    std::fs::write(at("phone.heic"), b"\0\0\0\x18ftypheic\0\0\0\0mif1heic").unwrap();
    let output = detect(folder.path(), &["phone.heic"]);
    assert!(text(&output.stderr).contains("HEIC is not read: save it as JPEG"), "{}", text(&output.stderr));
    // Nor is it passed over in a folder.
    let output = detect(folder.path(), &["."]);
    assert_eq!((output.status.code(), text(&output.stdout).lines().count()), (Some(1), 6));
    assert!(text(&output.stderr).contains("phone.heic: HEIC is not read"), "{}", text(&output.stderr));
}

#[test]
fn patterns_take_folders_with_brackets_literally() {
    let folder = tempfile::tempdir().unwrap();
    let shots = folder.path().join("shots [2026]/[a]");
    std::fs::create_dir_all(&shots).unwrap();
    for name in ["a.png", "b.png", ".c.png", "[d].png"] {
        image(&shots.join(name));
    }
    let found = |pattern: &str| -> Vec<String> {
        frames_of(folder.path(), &[pattern]).iter().map(|line| line["image"].as_str().unwrap().to_owned()).collect()
    };
    let both = ["shots [2026]/[a]/a.png", "shots [2026]/[a]/b.png"];
    assert_eq!(found("shots [2026]/[a]/?.png"), both);
    assert_eq!(found("shots [2026]/*/[ab].png"), both);
    assert_eq!(found("shots [2026]/[a]/[d].png"), ["shots [2026]/[a]/[d].png"]);
    // A pattern that a folder matches means its images, as if a shell had expanded it.
    assert_eq!(found("shots*/*").len(), 3);
    // However many links lead round in circles.
    #[cfg(unix)]
    for (link, to) in [("self", "."), ("up", ".."), ("again", "../../shots [2026]")] {
        std::os::unix::fs::symlink(to, shots.join(link)).unwrap();
    }
    assert_eq!(found("shots [2026]/**/[ab].png"), both);
    assert_eq!(found("**/[[]a]"), ["shots [2026]/[a]/[d].png", both[0], both[1]]);
    assert_eq!(found("shots*/**").len(), 3);
    let output = detect(folder.path(), &["shots [2026]/*.jpg"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("no file matches this pattern"), "{}", text(&output.stderr));
}

/// The sample's cat, found by a model that calls it otherwise.
fn model_that_says(folder: &Path, name: &str) -> String {
    let toml = std::fs::read_to_string("../../models/yolo-lat-n.toml").unwrap();
    assert!(toml.contains("\"cat\""), "the model no longer knows cats");
    std::fs::write(folder.join("m.toml"), toml.replace("\"cat\"", &serde_json::to_string(name).unwrap())).unwrap();
    std::fs::copy("../../models/yolo-lat-n.safetensors", folder.join("m.safetensors")).unwrap();
    folder.join("m.toml").display().to_string()
}

#[test]
fn no_class_and_no_name_decides_where_something_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let long = format!("{}.jpg", "x".repeat(251));
    std::fs::copy("../../assets/chelsea.jpg", folder.path().join(&long)).unwrap();
    for (class, place) in [("..", "class7"), ("../../out", "_.._.._out"), ("a/b", "a_b")] {
        let model = model_that_says(folder.path(), class);
        let arguments = ["detect", "-m", &model, &long, "-o", "o", "--save-crops", "--save-images", "-q", "-f", "yolo"];
        let output = Command::new(PROGRAM).current_dir(folder.path()).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{class:?}: {}", text(&output.stderr));
        let files = walkdir::WalkDir::new(folder.path().join("o/crops")).into_iter().map(Result::unwrap);
        let crops: Vec<_> = files.filter(|file| file.file_type().is_file()).map(walkdir::DirEntry::into_path).collect();
        assert!(!crops.is_empty());
        let expected = folder.path().join("o/crops").join(place);
        assert!(crops.iter().all(|crop| crop.parent() == Some(&expected)), "{class:?}: {crops:?}");
        let outside: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(outside.len(), 4, "{outside:?}");
        std::fs::remove_dir_all(folder.path().join("o")).unwrap();
    }
}

/// Two names that the program's own font lacks look different, or it is said that no font has them.
#[test]
fn names_in_any_script_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy("../../assets/chelsea.jpg", folder.path().join("a.jpg")).unwrap();
    let drawn = |name: &str| {
        let model = model_that_says(folder.path(), name);
        let arguments = ["detect", "-m", &model, "a.jpg", "-o", "o", "--save-images", "-q"];
        let output = Command::new(PROGRAM).current_dir(folder.path()).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        (std::fs::read(folder.path().join("o/images/a.jpg")).unwrap(), text(&output.stderr))
    };
    let ((cat, said), (dog, _)) = (drawn("\u{732b}"), drawn("\u{72d7}"));
    if said.is_empty() {
        assert!(cat != dog, "both are drawn as the same boxes");
    } else {
        assert!(said.contains("no font of this system has the letter") && said.lines().count() == 1, "{said}");
    }
    // No font has it: the number of the class.
    let (nothing, said) = drawn("\u{10FFFF}");
    assert!(said.contains("no font of this system has the letter"), "{said}");
    assert!(nothing != drawn("?").0);
}

#[test]
fn videos_of_every_container_and_name_give_their_frames() {
    let folder = folder_for_videos();
    let at = folder.path();
    let source = "-f lavfi -i testsrc=s=176x144:r=25:d=0.32";
    let names =
        ["a.wmv", "b.flv", "c.3gp", "D.MTS", "e.mjpeg", "f.avi", "g.webm", "12:30:00.mp4", "-dash.mkv", "h.ogv"];
    for name in names {
        ffmpeg(at, &format!("{source} -frames:v 8 file:{name}"));
    }
    for name in names {
        let results = frames_of(at, &["--", name]);
        assert_eq!(results.len(), 8, "{name}");
        for (index, line) in results.iter().enumerate() {
            assert_eq!(line["image"], format!("{name}#{index}"));
            assert_eq!(line["frame"], index);
            assert!((line["time_s"].as_f64().unwrap() - index as f64 / 25.0).abs() < 2e-3, "{line}");
            assert_eq!((&line["width"], &line["height"]), (&176.into(), &144.into()));
        }
    }
    // In a folder they are found; a video that is named like an image, or not at all, is one.
    assert_eq!(frames_of(at, &["."]).len(), 8 * names.len());
    std::fs::rename(at.join("g.webm"), at.join("g.jpg")).unwrap();
    std::fs::rename(at.join("f.avi"), at.join("f")).unwrap();
    assert_eq!(frames_of(at, &["g.jpg", "f"]).len(), 16);
    image(&at.join("p.png"));
    std::fs::rename(at.join("p.png"), at.join("p.mp4")).unwrap();
    assert_eq!(images(&frames_of(at, &["p.mp4"])), ["p.mp4"], "an image that is named like a video is one");
}

#[test]
fn every_frame_comes_once_at_its_own_time() {
    let folder = folder_for_videos();
    let at = folder.path();
    // As a doorbell records: a frame when something moves. As browsers do: times in milliseconds and no rate.
    let times = "setpts='if(lt(N,3),N*0.04,if(lt(N,5),1+(N-3)*0.04,2.08))/TB'";
    ffmpeg(
        at,
        &format!(
            "-f lavfi -i testsrc=s=64x48:r=25 -vf settb=1/1000,{times} -frames:v 6 -vsync passthrough -enc_time_base 1:1000 vfr.mp4"
        ),
    );
    ffmpeg(
        at,
        "-f lavfi -i testsrc=s=64x48:r=30 -frames:v 24 -vf settb=1/1000,setpts=floor(N*33.4+mod(N\\,3)) -vsync passthrough -enc_time_base 1:1000 rec.webm",
    );
    ffmpeg(at, "-f lavfi -i testsrc=s=64x48:r=1000 -frames:v 20 fast.mp4");
    let results = frames_of(at, &["vfr.mp4"]);
    let found: Vec<f64> = results.iter().map(|line| line["time_s"].as_f64().unwrap()).collect();
    let expected = [0.0, 0.04, 0.08, 1.0, 1.04, 2.08];
    assert_eq!(found.len(), expected.len(), "{found:?}");
    assert!(found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 2e-3), "{found:?}");
    assert_eq!(frames_of(at, &["rec.webm"]).len(), 24);
    assert_eq!(frames_of(at, &["fast.mp4"]).len(), 20);
    // What is written keeps frames and times.
    let output = detect(at, &["vfr.mp4", "rec.webm", "-o", "o", "--save-images"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for (name, frames) in [("vfr", 6), ("rec", 24)] {
        let written = at.join(format!("o/images/{name}.mp4"));
        let original =
            ["mp4", "webm"].map(|end| at.join(format!("{name}.{end}"))).into_iter().find(|path| path.exists());
        let (seconds, wanted) = (duration(&written), duration(&original.unwrap()));
        assert!((seconds - wanted).abs() < 0.06, "{name}: {seconds} s instead of {wanted}");
        assert_eq!(frames_of(at, &[written.to_str().unwrap()]).len(), frames, "{name}");
    }
}

#[test]
fn every_fifth_frame_keeps_its_number_and_time() {
    let folder = folder_for_videos();
    let at = folder.path();
    ffmpeg(at, "-f lavfi -i testsrc=s=64x48:r=30 -frames:v 90 ninety.mp4");
    let results = frames_of(at, &["ninety.mp4", "--stride", "5"]);
    assert_eq!(results.len(), 18);
    for (index, line) in results.iter().enumerate() {
        assert_eq!(line["frame"], 5 * index);
        assert!((line["time_s"].as_f64().unwrap() - index as f64 / 6.0).abs() < 2e-3, "{line}");
    }
    let numbers = |arguments: &[&str]| -> Vec<u64> {
        frames_of(at, arguments).iter().map(|line| line["frame"].as_u64().unwrap()).collect()
    };
    assert_eq!(
        numbers(&["ninety.mp4", "--vid-stride", "20", "--max-frames", "3", "ninety.mp4"]),
        [0, 20, 40, 0, 20, 40]
    );
    assert_eq!(numbers(&["synthetic", "--stride", "3", "--max-frames", "4"]).len(), 4);
    // A part of a video lasts as long as what was seen of it.
    let output = detect(at, &["ninety.mp4", "--max-frames", "30", "-o", "o", "--save-images"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let seconds = duration(&at.join("o/images/ninety.mp4"));
    assert!((seconds - 1.0).abs() < 0.05, "{seconds} s");
    // Live, times are those of the video too: 18 frames of 3 s.
    let live =
        ["live", "--headless", "ninety.mp4", "--stride", "5", "-f", "jsonl", "--size", "32", "--save-video", "l.mp4"];
    let output = Command::new(PROGRAM).current_dir(at).args(live).output().unwrap();
    let frames: Vec<u64> = json_lines(&output).iter().map(|line| line["frame"].as_u64().unwrap()).collect();
    assert!(frames.iter().all(|frame| frame % 5 == 0) && frames.len() <= 18, "{frames:?}");
    let (seconds, wanted) = (duration(&at.join("l.mp4")), (frames[frames.len() - 1] - frames[0]) as f64 / 30.0);
    assert!((seconds - wanted).abs() < 0.35, "{seconds} s of {wanted}");
}

/// Runs `detect` with something on standard input.
fn detect_from(folder: &Path, input: &[u8], arguments: &[&str]) -> Output {
    use std::io::Write;

    let mut child = Command::new(PROGRAM)
        .current_dir(folder)
        .args(["detect", "-f", "jsonl", "--no-timing", "-q", "--size", "32"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn lists_and_standard_input_are_sources() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::create_dir(at.join("sub")).unwrap();
    for name in ["a.png", "sub/b.png", "sub/c d.png"] {
        image(&at.join(name));
    }
    // Seen from here, or beside the list.
    std::fs::write(at.join("sub/list.txt"), "\u{feff}a.png\r\n\r\nb.png\r\nsub/c d.png\r\n").unwrap();
    let results = frames_of(at, &["sub/list.txt", "a.png"]);
    assert_eq!(images(&results), ["a.png", "sub/b.png", "sub/c d.png", "a.png"]);
    let output = detect_from(at, b"a.png\nsub/b.png\n", &["-"]);
    assert_eq!(images(&json_lines(&output)), ["a.png", "sub/b.png"]);
    // An image is told by how it begins.
    let bytes = std::fs::read(at.join("a.png")).unwrap();
    let output = detect_from(at, &bytes, &["-", "sub/b.png", "-o", "o", "--save-images"]);
    assert_eq!((output.status.code(), &*text(&output.stderr)), (Some(0), ""));
    let results = std::fs::read_to_string(at.join("o/results.jsonl")).unwrap();
    let results: Vec<Value> = results.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((images(&results), &results[0]["width"]), (vec!["-", "sub/b.png"], &64.into()));
    assert!(at.join("o/images/stdin.jpg").exists());
    for (input, arguments, code, says) in [
        (&bytes[..40], &["-"][..], 1, "-: cannot be decoded"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", &["-"], 1, "HEIC is not read"),
        (b"\x7fELF\0\0", &["-"], 2, "standard input holds neither paths nor an image"),
        (b"", &["-"], 2, "standard input gave no paths"),
        (&bytes, &["-", "-o", "p", "--images", "copy"], 2, "the image on standard input is none"),
        (b"", &["empty.txt"], 2, "empty.txt: lists no sources"),
        (b"", &["absent.txt"], 1, "absent.txt: cannot be read"),
    ] {
        std::fs::write(at.join("empty.txt"), "\n").unwrap();
        let output = detect_from(at, input, arguments);
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), said.lines().count()), (Some(code), 1), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
}

#[test]
fn streams_are_chosen_and_turned_as_players_do() {
    let folder = folder_for_videos();
    let at = folder.path();
    ffmpeg(
        at,
        "-f lavfi -i testsrc=s=64x48:d=0.2 -f lavfi -i testsrc=s=128x96:d=0.2 -f lavfi -i sine=d=0.2 -map 0 -map 1 -map 2 -disposition 0 two.mkv",
    );
    let results = frames_of(at, &["two.mkv"]);
    assert_eq!((results.len(), &results[0]["width"]), (5, &128.into()));
    ffmpeg(at, "-f lavfi -i testsrc=s=96x64:d=0.2 t.mp4");
    // The first way is that of ffmpeg 6 and later, the second that of earlier ones.
    let turn = ["-display_rotation 90 -i t.mp4 -c copy", "-i t.mp4 -c copy -metadata:s:v rotate=90"];
    assert!(turn.iter().any(|turn| try_ffmpeg(at, &format!("{turn} turned.mp4"))), "ffmpeg turns no video");
    assert_eq!(frames_of(at, &["turned.mp4"])[0]["width"], 64);
    // A stream without times of its own.
    ffmpeg(at, "-f lavfi -i testsrc=s=64x48:r=25:d=0.2 -c:v mpeg2video raw.m2v");
    assert_eq!(frames_of(at, &["raw.m2v"]).len(), 5);
    image(&at.join("cover.png"));
    ffmpeg(at, "-f lavfi -i sine=d=0.2 sound.mp4");
    ffmpeg(at, "-i sound.mp4 -i cover.png -map 0 -map 1 -c copy -disposition:v attached_pic song.m4v");
    std::fs::write(at.join("empty.mp4"), "").unwrap();
    std::fs::write(at.join("text.mp4"), "this is no video").unwrap();
    for (name, says) in [
        ("sound.mp4", "no video"),
        ("song.m4v", "no video"),
        ("empty.mp4", "Invalid data"),
        ("text.mp4", "Invalid data"),
    ] {
        let output = detect(at, &[name]);
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{name}: {said}");
        assert!(said.contains(name) && said.contains(says) && output.stdout.is_empty(), "{said}");
    }
}

#[test]
fn of_a_video_that_breaks_off_its_frames_come_and_the_exit_code_tells() {
    let folder = folder_for_videos();
    let at = folder.path();
    for name in ["a.mp4", "b.mkv", "c.avi", "d.ts", "e.flv"] {
        let flags = if name == "a.mp4" { "-movflags +faststart" } else { "" };
        ffmpeg(at, &format!("-f lavfi -i testsrc=s=176x144:r=25:d=2 {flags} {name}"));
        let bytes = std::fs::read(at.join(name)).unwrap();
        std::fs::write(at.join(name), &bytes[..bytes.len() * 6 / 10]).unwrap();
        let output = detect(at, &[name, "-o", "o", "--save-images"]);
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains(name) && said.contains("damaged or cut off"), "{said}");
        let results = std::fs::read_to_string(at.join("o/results.jsonl")).unwrap();
        assert!((5..50).contains(&results.lines().count()), "{name}: {} frames", results.lines().count());
        assert!(at.join("o/images").join(name).with_extension("mp4").exists());
        std::fs::remove_dir_all(at.join("o")).unwrap();
    }
}

/// ffmpeg and ffprobe that never answer.
#[cfg(unix)]
#[test]
fn a_signal_ends_every_wait() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("clip.mp4"), "whatever").unwrap();
    for hanging in [&["ffmpeg", "ffprobe"][..], &["ffmpeg"]] {
        let programs = folder.path().join(format!("bin{}", hanging.len()));
        std::fs::create_dir(&programs).unwrap();
        for name in hanging {
            std::fs::write(programs.join(name), "#!/bin/sh\nexec /bin/sleep 100\n").unwrap();
            std::fs::set_permissions(programs.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        for source in ["clip.mp4", "rtsp://127.0.0.1:9/x"] {
            let program = Command::new(PROGRAM)
                .args(["detect", source, "-q"])
                .current_dir(folder.path())
                // Only these: a real ffprobe would see that this is no video.
                .env("PATH", &programs)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            let mut program = program.unwrap();
            std::thread::sleep(Duration::from_millis(1500));
            assert_eq!(program.try_wait().unwrap(), None, "{source}: it ended by itself");
            let asked = Instant::now();
            Command::new("kill").args(["-TERM", &program.id().to_string()]).status().unwrap();
            assert_eq!(program.wait().unwrap().code(), Some(130), "{source}");
            assert!(asked.elapsed() < Duration::from_secs(5), "{source}: {:?}", asked.elapsed());
        }
    }
}

#[test]
fn a_recording_lasts_as_long_as_what_it_shows() {
    let folder = folder_for_videos();
    ffmpeg(folder.path(), "-f lavfi -i testsrc=s=64x48:r=5:d=3 slow.mp4");
    let run = |output: &str| {
        Command::new(PROGRAM)
            .current_dir(folder.path())
            .args(["live", "--headless", "slow.mp4", "--size", "32", "--save-video", output])
            .output()
            .unwrap()
    };
    for name in ["o.mp4", "o.avi"] {
        let output = run(name);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let seconds = duration(&folder.path().join(name));
        assert!((2.9..3.1).contains(&seconds), "{name}: {seconds} s");
    }
    let output = run("o.txt");
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("extension") && !said.contains("Broken pipe"), "{said}");
    assert!(!folder.path().join("o.txt").exists());
}

/// A network that is being loaded holds the second frame up, and nothing else.
#[test]
fn the_last_frame_stays_as_long_as_frames_do() {
    let folder = folder_for_videos();
    let path = folder.path().join("late.mp4");
    let mut recorder = yolo_lat::sink::VideoRecorder::start(&path, (64, 48)).unwrap();
    for time in std::iter::once(0.0).chain((0..40).map(|frame| 1.3 + f64::from(frame) / 12.0)) {
        recorder.push(&RgbImage::new(64, 48), Duration::from_secs_f64(time)).unwrap();
    }
    recorder.finish(None).unwrap();
    let seconds = duration(&path);
    assert!((seconds - 4.633).abs() < 0.05, "{seconds} s");
}

/// A server that answers one request with these bytes.
fn serve(answer: Vec<u8>) -> (String, std::thread::JoinHandle<()>) {
    use std::io::{BufRead, BufReader, Write};

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serve = move || {
        let (mut stream, _) = listener.accept().unwrap();
        let request = BufReader::new(stream.try_clone().unwrap()).lines();
        request.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
        let _ = stream.write_all(&answer);
        if answer.is_empty() {
            // A camera that was switched off: it answers nothing and does not hang up.
            std::thread::sleep(Duration::from_secs(8));
        }
    };
    (address, std::thread::spawn(serve))
}

#[test]
fn network_streams_are_opened_or_say_in_a_line_why_not() {
    let folder = folder_for_videos();
    ffmpeg(folder.path(), "-f lavfi -i testsrc=s=64x48:r=5:d=1 clip.mkv");
    let clip = std::fs::read(folder.path().join("clip.mkv")).unwrap();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: video/x-matroska\r\nContent-Length: {}\r\n\r\n", clip.len());
    let (address, server) = serve([head.as_bytes(), &clip].concat());
    let url = format!("http://me:secret@{address}/cam?pwd=hidden");
    let output = detect(folder.path(), &[&url, "-o", "o"]);
    server.join().unwrap();
    assert_eq!((output.status.code(), &*text(&output.stderr)), (Some(0), ""));
    let results = std::fs::read_to_string(folder.path().join("o/results.jsonl")).unwrap();
    assert_eq!(results.lines().count(), 5);
    assert!(results.contains(&format!("http://{address}/cam?pwd=...#4")), "{results}");
    assert!(!results.contains("secret") && !results.contains("hidden"), "{results}");
    // Nobody there, and somebody who never answers.
    let (silent, _server) = serve(Vec::new());
    for (address, says) in [("127.0.0.1:9", "cannot be read"), (&*silent, "no image within 2 s")] {
        for arguments in [&["detect", "-q"][..], &["live", "--headless", "--max-frames", "1"]] {
            let url = format!("http://me:secret@{address}/video.mjpg");
            if address == silent && arguments[0] == "live" {
                continue;
            }
            let begun = Instant::now();
            let output = Command::new(PROGRAM).args(arguments).args([&url, "--timeout", "2s"]).output().unwrap();
            let said = text(&output.stderr);
            assert!(matches!(output.status.code(), Some(1 | 2)), "{said}");
            assert!(said.contains(says) && !said.contains("No such file") && !said.contains("secret"), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
        }
    }
}

#[cfg(unix)]
#[test]
fn a_device_as_source_is_a_camera() {
    for source in ["/dev/null", "99"] {
        for (command, code) in [(&["live", "--headless"][..], 2), (&["detect", "-q"], 1)] {
            let output = Command::new(PROGRAM).args(command).args([source, "--max-frames", "1"]).output().unwrap();
            let said = text(&output.stderr);
            assert_eq!((output.status.code(), said.lines().count()), (Some(code), 1), "{said}");
            assert!(said.contains(&format!("no camera {source:?}")), "{said}");
        }
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_video_ends_with_its_last_frame() {
    use std::io::BufRead;

    let folder = folder_for_videos();
    ffmpeg(folder.path(), "-f lavfi -i testsrc=s=64x48:r=5:d=400 long.mkv");
    let mut child = Command::new(PROGRAM)
        .current_dir(folder.path())
        .args(["detect", "long.mkv", "-o", "o", "--save-images", "--size", "32"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..10 {
        lines.next().unwrap().unwrap();
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let frames = 10 + lines.count();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(frames < 2000, "the run was over before it was interrupted");
    let seconds = duration(&folder.path().join("o/images/long.mp4"));
    assert!((seconds - frames as f64 / 5.0).abs() < 0.5, "{seconds} s for {frames} frames");
}
