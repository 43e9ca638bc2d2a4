//! The program as users run it: arguments, outputs, exit codes, bad input.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use image::{Rgb, RgbImage};
use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_yolo-lat");

/// The program in the repository's root, where the samples are.
fn program() -> Command {
    let mut command = Command::new(PROGRAM);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    command
}

fn yolo_lat(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder of `count` small pictures in which the cat of the samples can be found.
fn folder_of_pictures(count: usize) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let cat = image::open("../../assets/chelsea.jpg").unwrap().thumbnail(96, 96).into_rgb8();
    for index in 0..count {
        let shade = Rgb([index as u8; 3]);
        let mut picture = cat.clone();
        picture.put_pixel(0, 0, shade);
        picture.save(folder.path().join(format!("{index:03}.jpg"))).unwrap();
    }
    folder
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Every file below a folder with its contents, hidden ones left out.
fn files_below(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let visible = |entry: &walkdir::DirEntry| !entry.file_name().to_string_lossy().starts_with(".yolo-lat");
    let entries = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().filter_entry(visible);
    let files = entries.map(Result::unwrap).filter(|entry| entry.file_type().is_file());
    files
        .map(|entry| (entry.path().strip_prefix(folder).unwrap().to_owned(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

#[test]
fn sample_photographs_give_the_expected_objects() {
    let output = yolo_lat(&["detect", "assets/chelsea.jpg", "assets/astronaut.jpg", "--format", "jsonl"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let lines: Vec<Value> = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    let (cat, astronaut) = (&lines[0], &lines[1]);
    assert_eq!(cat["image"], "assets/chelsea.jpg");
    assert_eq!((&cat["width"], &cat["height"]), (&451.into(), &300.into()));
    let best = &cat["detections"][0];
    assert_eq!(best["name"], "cat");
    assert!(best["confidence"].as_f64().unwrap() > 0.5);
    assert!(best["box"]["x2"].as_f64().unwrap() > best["box"]["x1"].as_f64().unwrap() + 200.0);
    for key in ["decode", "preprocess", "inference", "postprocess"] {
        assert!(cat["timing_ms"][key].as_f64().unwrap() >= 0.0, "{key}");
    }
    assert_eq!(astronaut["detections"][0]["name"], "person");
}

#[test]
fn engines_give_the_same_detections() {
    let detect = |engine: &str| -> Value {
        let output =
            yolo_lat(&["detect", "assets", "--format", "json", "--no-timing", "--engine", engine, "--size", "160"]);
        serde_json::from_str(&stdout(&output)).unwrap()
    };
    let (cpu, reference) = (detect("cpu"), detect("reference"));
    for (cpu, reference) in cpu.as_array().unwrap().iter().zip(reference.as_array().unwrap()) {
        let (a, b) = (cpu["detections"].as_array().unwrap(), reference["detections"].as_array().unwrap());
        assert_eq!(a.len(), b.len(), "{}", cpu["image"]);
        for (a, b) in a.iter().zip(b) {
            assert_eq!(a["name"], b["name"]);
            assert!((a["confidence"].as_f64().unwrap() - b["confidence"].as_f64().unwrap()).abs() < 1e-4);
        }
    }
    let output = yolo_lat(&["detect", "assets", "--adapter", "voodoo"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("engine gpu is not available: no adapter is called"), "{}", stderr(&output));
    // Where any engine will do, it is said why the GPU does not.
    let log = stderr(&yolo_lat(&["detect", "assets/chelsea.jpg", "-q", "-v"]));
    assert!(log.contains(" on gpu (") || log.contains("; the cpu engine runs instead"), "{log}");
}

#[test]
fn onnx_runtime_that_is_missing_or_no_library_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("libonnxruntime.so");
    std::fs::write(&broken, "this is no library").unwrap();
    for (library, says) in [(folder.path().join("absent.so"), "no such file"), (broken, "at least 1.17")] {
        let output =
            program().args(["detect", "assets", "--engine", "ort"]).env("ORT_DYLIB_PATH", &library).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let error = stderr(&output);
        assert!(error.contains("engine ort is not available") && error.contains(says), "{error}");
        assert!(error.contains("pip install onnxruntime"), "{error}");
    }
}

/// A library that was named is the one that is used, or the reason why nothing is: never another one.
#[test]
fn a_named_onnx_runtime_must_be_one() {
    let folder = tempfile::tempdir().unwrap();
    let build = |name: &str, code: &str| {
        let (source, library) = (folder.path().join("source.c"), folder.path().join(name));
        std::fs::write(&source, code).unwrap();
        let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status().unwrap();
        assert!(built.success());
        library
    };
    let old = "static const char* version(void) { return \"1.10.0\"; }
        static const void* api(unsigned v) { return 0; }
        static struct { const void* (*api)(unsigned); const char* (*version)(void); } base = { api, version };
        void* OrtGetApiBase(void) { return &base; }";
    for (library, says) in [
        (folder.path().join("absent.so"), "no such file"),
        (build("nothing.so", "int other(void) { return 0; }"), "at least 1.17"),
        (build("null.so", "void* OrtGetApiBase(void) { return 0; }"), "is no ONNX Runtime"),
        (build("old.so", old), "1.10.0"),
    ] {
        let output = yolo_lat(&["detect", "assets/chelsea.jpg", "--engine", "ort", "--ort-lib", text(&library)]);
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains("--ort-lib") && error.contains(says) && !error.contains("panicked"), "{error}");
    }
}

#[test]
fn every_kind_of_picture_is_read_upright_and_in_color() {
    let folder = tempfile::tempdir().unwrap();
    let cat = image::open("../../assets/chelsea.jpg").unwrap();
    let save = |name: &str, picture: &image::DynamicImage| picture.save(folder.path().join(name)).unwrap();
    save("alpha.png", &cat.to_rgba8().into());
    save("b.bmp", &cat);
    save("g.gif", &cat.to_rgba8().into());
    save("grey.png", &cat.to_luma8().into());
    save("grey16.png", &cat.to_luma16().into());
    save("rgb16.tiff", &cat.to_rgb16().into());
    save("w.webp", &cat);
    for (name, source) in [("cmyk.jpg", "../../tests/data/cmyk.jpg"), ("turned.jpg", "../../tests/data/rot.jpg")] {
        std::fs::copy(source, folder.path().join(name)).unwrap();
    }
    let output = yolo_lat(&["detect", text(folder.path()), "--format", "jsonl"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let lines = stdout(&output);
    assert_eq!(lines.lines().count(), 9);
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["detections"][0]["name"], "cat", "{}", line["image"]);
        assert_eq!((&line["width"], &line["height"]), (&451.into(), &300.into()), "{}", line["image"]);
    }
}

#[test]
fn bad_input_costs_itself_only_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    let photograph = std::fs::read("../../assets/astronaut.jpg").unwrap();
    write("empty.jpg", b"");
    write("text.jpg", b"This is no picture.");
    write("truncated.jpg", &photograph[..photograph.len() / 2]);
    write("bomb.png", &png_header(60_000, 60_000));
    write("good.jpg", &photograph);
    RgbImage::new(1, 1).save(folder.path().join("one.png")).unwrap();
    RgbImage::new(30_000, 1).save(folder.path().join("wide.png")).unwrap();
    RgbImage::new(1, 5_000).save(folder.path().join("tall.png")).unwrap();
    let missing = folder.path().join("missing.jpg");
    let sources = [text(folder.path()), text(&missing)];
    let output = yolo_lat(&[&["detect", "--format", "jsonl", "--json-errors", "-q"], &sources[..]].concat());
    assert_eq!(output.status.code(), Some(1));
    let good: Vec<String> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["image"].as_str().unwrap().to_owned())
        .collect();
    let expected =
        ["good.jpg", "one.png", "tall.png", "wide.png"].map(|name| text(&folder.path().join(name)).to_owned());
    assert_eq!(good, expected);
    let errors: Vec<Value> = stderr(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let reasons = [
        ("bomb.png", "MiB"),
        ("empty.jpg", "empty"),
        ("text.jpg", "not a picture in a known format"),
        ("truncated.jpg", "truncated"),
        ("missing.jpg", "No such file"),
    ];
    assert_eq!(errors.len(), reasons.len(), "{errors:?}");
    for ((name, reason), error) in reasons.into_iter().zip(&errors) {
        assert!(error["image"].as_str().unwrap().ends_with(name), "{error}");
        assert!(error["error"].as_str().unwrap().contains(reason), "{error}");
    }
    let stopped = yolo_lat(&[&["detect", "--fail-fast", "-q"], &sources[..]].concat());
    assert_eq!(stopped.status.code(), Some(1));
    assert_eq!(stderr(&stopped).lines().count(), 1, "{}", stderr(&stopped));
}

/// A PNG that claims a size and has no pixels.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut small = Vec::new();
    RgbImage::new(1, 1).write_with_encoder(image::codecs::png::PngEncoder::new(&mut small)).unwrap();
    // Signature 8, length 4, "IHDR" 4, then width, height, 5 bytes, and the checksum of all since "IHDR".
    small[16..20].copy_from_slice(&width.to_be_bytes());
    small[20..24].copy_from_slice(&height.to_be_bytes());
    let checksum = crc32(&small[12..29]);
    small[29..33].copy_from_slice(&checksum.to_be_bytes());
    small
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc: u32, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn a_damaged_file_among_five_hundred_costs_that_file() {
    let folder = folder_of_pictures(500);
    std::fs::write(folder.path().join("250.jpg"), b"\xFF\xD8\xFF\xE0 damaged").unwrap();
    let output = yolo_lat(&["detect", text(folder.path()), "--format", "jsonl", "--size", "64", "-q"]);
    assert_eq!(output.status.code(), Some(1));
    let names: Vec<String> =
        stdout(&output).lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["image"].to_string()).collect();
    assert_eq!(names.len(), 499);
    assert!(names.is_sorted(), "results come in input order");
    assert_eq!(stderr(&output).lines().count(), 1);
    assert!(stderr(&output).contains("250.jpg"));
}

#[test]
fn usage_errors_say_what_to_do() {
    let error = |arguments: &[&str]| {
        let output = yolo_lat(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
        stderr(&output)
    };
    assert!(error(&["detect", "assets", "--conf", "2"]).contains("expected a number from 0 to 1, found 2"));
    assert!(error(&["detect", "assets", "--classes", "persn"]).contains("did you mean \"person\"?"));
    assert!(error(&["detect", "assets", "--size", "100"]).contains("multiple of 32"));
    assert!(error(&["detect", "assets", "--model", "x"]).contains("give n or s"));
    assert!(error(&["detect", "nowhere/*.jpg"]).contains("no file matches"));
    assert!(error(&["detect", "src"]).contains("no pictures in this folder"));
    assert!(error(&["detect", "assets", "--format", "yolo"]).contains("add -o DIR"));
    assert!(error(&["detect", "assets", "--save-images"]).contains("add -o DIR"));
    assert!(error(&["detect", "assets", "-f", "csv", "-f", "json"]).contains("one format"));
    assert!(error(&["detect", "assets", "-o", "/dev/null/x"]).contains("cannot be written"));
    assert!(error(&["eval", "src"]).contains("no data set found here"));
}

#[test]
fn all_formats_are_written_and_folders_mirrored() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in");
    for place in ["a", "b"] {
        std::fs::create_dir_all(input.join(place)).unwrap();
        std::fs::copy("../../assets/chelsea.jpg", input.join(place).join("cat.jpg")).unwrap();
    }
    let out = folder.path().join("out");
    let formats = ["text", "json", "jsonl", "csv", "yolo", "voc", "coco", "label-studio", "cvat"];
    let mut arguments =
        vec!["detect", text(&input), "-r", "-o", text(&out), "--save-images", "--save-crops", "--no-timing"];
    arguments.extend(formats.iter().flat_map(|format| ["--format", format]));
    let output = yolo_lat(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).lines().all(|line| line.contains("1 cat")), "{}", stdout(&output));
    let files = files_below(&out);
    let names: Vec<&str> = files.iter().map(|(path, _)| text(path)).collect();
    let expected = [
        "annotated/a/cat.jpg",
        "annotated/b/cat.jpg",
        "classes.txt",
        "coco.json",
        "crops/cat/a/cat_0.jpg",
        "crops/cat/b/cat_0.jpg",
        "cvat.xml",
        "data.yaml",
        "label-studio.json",
        "label-studio.xml",
        "labels/a/cat.txt",
        "labels/b/cat.txt",
        "results.csv",
        "results.json",
        "results.jsonl",
        "voc/a/cat.xml",
        "voc/b/cat.xml",
    ];
    assert_eq!(names, expected);
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    let json: Value = serde_json::from_str(&read("results.json")).unwrap();
    let bbox = &json[0]["detections"][0]["box"];
    let side = |name: &str| bbox[name].as_f64().unwrap();
    let fields: Vec<f64> = read("labels/a/cat.txt").split_whitespace().map(|field| field.parse().unwrap()).collect();
    assert_eq!((fields.len(), fields[0]), (5, 7.0));
    assert!((fields[3] * 451.0 - (side("x2") - side("x1"))).abs() < 0.01);
    let csv = read("results.csv");
    assert!(csv.starts_with("image,width,height,class,name,confidence,x1,y1,x2,y2\n"));
    assert_eq!(csv.lines().count(), 3);
    assert!(read("voc/a/cat.xml").contains("<name>cat</name>"), "{}", read("voc/a/cat.xml"));
    let coco: Value = serde_json::from_str(&read("coco.json")).unwrap();
    assert_eq!(coco[0]["category_id"], 8);
    assert!((coco[0]["bbox"][2].as_f64().unwrap() - (side("x2") - side("x1"))).abs() < 0.01);
    // Boxes are drawn: pixels along the left edge have the color of the class.
    let drawn = image::open(out.join("annotated/a/cat.jpg")).unwrap().into_rgb8();
    let Rgb(edge) = *drawn.get_pixel(side("x1").round() as u32, (side("y1") + side("y2")) as u32 / 2);
    let color = yolo_lat::sink::class_color(7);
    assert!(edge.iter().zip(color).all(|(a, b)| a.abs_diff(b) < 60), "{edge:?} {color:?}");
}

#[test]
fn pictures_of_all_shapes_have_inputs_of_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let photograph = image::open("../../assets/chelsea.jpg").unwrap();
    for (name, width, height) in [("a", 160, 120), ("b", 120, 160), ("c", 160, 90), ("d", 160, 120), ("e", 100, 100)] {
        photograph
            .resize_exact(width, height, image::imageops::FilterType::Triangle)
            .save(folder.path().join(format!("{name}.png")))
            .unwrap();
    }
    let detect = |more: &[&str]| -> Vec<Value> {
        let output =
            yolo_lat(&[&["detect", text(folder.path()), "-f", "json", "--no-timing", "--conf", "0.1"], more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        serde_json::from_str(&stdout(&output)).unwrap()
    };
    let together = detect(&["--batch", "5"]);
    assert_eq!(together, detect(&["--batch", "1"]));
    assert!(together.is_sorted_by_key(|found| found["image"].as_str().unwrap().to_owned()));
    assert_eq!(together[0]["detections"], together[3]["detections"]);
    let fixed = detect(&["--size", "384x288"]);
    assert_eq!((&fixed[0], &fixed[3]), (&together[0], &together[3]));
    assert_ne!(fixed[1], together[1]);
    assert_eq!(detect(&["--square"]), detect(&["--size", "320x320"]));
    let log = stderr(&yolo_lat(&["detect", text(folder.path()), "-v"]));
    for shape in ["384x288", "288x384", "416x256", "320x320"] {
        assert!(log.contains(&format!("input of {shape} pixels")), "{log}");
    }
    let wrong = yolo_lat(&["detect", "assets", "--square", "--size", "416x256"]);
    assert!(stderr(&wrong).contains("--square takes one side"), "{}", stderr(&wrong));
}

#[test]
fn options_change_what_is_found() {
    let count = |arguments: &[&str]| -> usize {
        let output = yolo_lat(&[&["detect", "assets/rocket.jpg", "--format", "csv"], arguments].concat());
        stdout(&output).lines().count() - 1
    };
    let all = count(&["--conf", "0.01"]);
    assert!(all > count(&["--conf", "0.1"]));
    assert!(all < count(&["--conf", "0.01", "--iou", "0.9"]));
    // What no other box confirms falls below the threshold.
    assert!(all < count(&["--conf", "0.01", "--no-merge"]));
    assert_eq!(count(&["--conf", "0.01", "--max-det", "3"]), 3);
    let people = count(&["--conf", "0.01", "--classes", "Person"]);
    assert!((1..all).contains(&people), "{people} of {all}");
    assert!(count(&["--conf", "0.003", "--agnostic-nms"]) < count(&["--conf", "0.003"]));
}

#[test]
fn batches_and_threads_do_not_change_results() {
    let run = |arguments: &[&str]| {
        stdout(&yolo_lat(&[&["detect", "assets", "-f", "jsonl", "--no-timing"], arguments].concat()))
    };
    let expected = run(&["--threads", "1", "--batch", "1"]);
    assert_eq!(expected.lines().count(), 4);
    for arguments in
        [["--threads", "3", "--batch", "1"], ["--threads", "2", "--batch", "4"], ["--threads", "1", "--batch", "3"]]
    {
        assert_eq!(run(&arguments), expected, "{arguments:?}");
    }
}

#[test]
fn paths_come_from_standard_input() {
    use std::io::Write;
    for (separator, flag) in [("\n", None), ("\0", Some("-0"))] {
        let mut command = program();
        command.args(["detect", "-", "--format", "csv", "--conf", "0.5"]).args(flag);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        write!(child.stdin.take().unwrap(), "assets/chelsea.jpg{separator}assets/coffee.jpg{separator}").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains("assets/chelsea.jpg"));
    }
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let folder = folder_of_pictures(400);
    let mut command = program();
    command.args(["detect", text(folder.path()), "--format", "jsonl"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut first = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
}

#[cfg(unix)]
#[test]
fn names_that_are_not_utf8_are_read() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let name = std::ffi::OsStr::from_bytes(b"caf\xE9.jpg");
    std::fs::copy("../../assets/chelsea.jpg", folder.path().join(name)).unwrap();
    let out = folder.path().join("out");
    let output = yolo_lat(&["detect", text(folder.path()), "-o", text(&out), "--save-images", "-f", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(std::fs::read_dir(out.join("images")).unwrap().count(), 1);
}

#[test]
fn an_interrupted_run_is_valid_and_resume_completes_it() {
    let folder = folder_of_pictures(400);
    let formats = ["-f", "json", "-f", "csv", "-f", "coco", "-f", "yolo"];
    let run = |out: &Path, more: &[&str]| {
        let mut command = program();
        command.args(["detect", text(folder.path()), "-o", text(out), "--no-timing", "--save-images", "-q"]);
        command.args(formats).args(more).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let places = tempfile::tempdir().unwrap();
    let (whole, parts) = (places.path().join("whole"), places.path().join("parts"));
    assert!(run(&whole, &[]).wait_with_output().unwrap().status.success());

    let child = run(&parts, &[]);
    while std::fs::read_dir(parts.join("labels")).map_or(0, Iterator::count) < 20 {
        std::thread::yield_now();
    }
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    let partial: Value = serde_json::from_slice(&std::fs::read(parts.join("results.json")).unwrap()).unwrap();
    let done = partial.as_array().unwrap().len();
    assert!((20..400).contains(&done), "{done} of 400");
    let _: Value = serde_json::from_slice(&std::fs::read(parts.join("coco.json")).unwrap()).unwrap();

    // As after a crash in the middle of a line.
    let journal = parts.join(".yolo-lat-journal.jsonl");
    let mut bytes = std::fs::read(&journal).unwrap();
    bytes.truncate(bytes.len() - 7);
    std::fs::write(&journal, bytes).unwrap();
    let other = run(&parts, &["--resume", "--conf", "0.5"]).wait_with_output().unwrap();
    assert_eq!(other.status.code(), Some(2));
    assert!(stderr(&other).contains("made with other settings"), "{}", stderr(&other));
    assert!(run(&parts, &["--resume"]).wait_with_output().unwrap().status.success());
    assert!(files_below(&whole) == files_below(&parts), "a resumed run equals an uninterrupted one");
}

/// Runs the program as nobody, for whom permissions count.
#[cfg(target_os = "linux")]
fn as_nobody(arguments: &[&str]) -> Output {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("yolo-lat");
    std::fs::copy(PROGRAM, &program).unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", text(&program)]).args(arguments);
    command.output().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "needs root and setpriv to run as another user"]
fn missing_permissions_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder_of_pictures(2);
    let mode = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::copy(folder.path().join("000.jpg"), closed.join("x.jpg")).unwrap();
    mode(folder.path(), 0o755);
    mode(&closed, 0o000);
    let input = text(folder.path());
    let output = as_nobody(&["detect", input, "-r", "-q"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(stdout(&output).lines().count(), 2);
    assert!(stderr(&output).contains("closed: cannot be read: Permission denied"), "{}", stderr(&output));
    let output = as_nobody(&["detect", input, "-q", "-o", text(&folder.path().join("out"))]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("cannot be written: Permission denied"), "{}", stderr(&output));
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "needs root to mount a small file system"]
fn a_full_disk_is_named_and_leaves_no_broken_file() {
    let folder = folder_of_pictures(40);
    let disk = tempfile::tempdir().unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs", text(disk.path())]).status();
    assert!(mount.unwrap().success());
    let out = disk.path().join("out");
    let output = yolo_lat(&["detect", text(folder.path()), "-o", text(&out), "--save-images", "-f", "yolo", "-q"]);
    let pictures = files_below(&out);
    assert!(Command::new("umount").arg(disk.path()).status().unwrap().success());
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("cannot be written: No space left on device"), "{}", stderr(&output));
    assert!(pictures.iter().any(|(path, _)| path.extension().is_some_and(|extension| extension == "jpg")));
    for (path, bytes) in
        pictures.iter().filter(|(path, _)| path.extension().is_some_and(|extension| extension == "jpg"))
    {
        assert!(bytes.ends_with(b"\xFF\xD9"), "{} is incomplete", path.display());
    }
}

#[test]
fn info_describes_models_with_and_without_weights() {
    let info = |model: &str| -> Value {
        let output = yolo_lat(&["info", model, "--json"]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        serde_json::from_str(&stdout(&output)).unwrap()
    };
    let n = info("n");
    assert_eq!(n["model"], "yolo-lat-n");
    assert_eq!(n["parameters"], 317_306);
    assert_eq!(n["input"], serde_json::json!([320, 320]));
    let sum: u64 = n["layers"].as_array().unwrap().iter().map(|layer| layer["parameters"].as_u64().unwrap()).sum();
    assert_eq!(sum, 317_306);
    assert!(info("s")["parameters"].as_u64().unwrap() <= 1_050_000);
    assert_eq!(n["classes"][14]["name"], "person");
    assert!(stdout(&yolo_lat(&["info"])).contains("ela32.attention"));
    // Every word that `classes` lists is one that `--classes` takes.
    let listed: Value = serde_json::from_str(&stdout(&yolo_lat(&["classes", "--json"]))).unwrap();
    assert_eq!(listed, n["classes"]);
    let listed = listed.as_array().unwrap();
    let words = listed.iter().flat_map(|class| class["aliases"].as_array().unwrap()).filter_map(Value::as_str);
    let names: Vec<String> = listed.iter().map(|class| class["name"].as_str().unwrap().into()).collect();
    for word in words {
        assert!(yolo_lat::model::classes::find_class(word, &names).is_ok(), "{word}");
    }
    assert!(stdout(&yolo_lat(&["classes"])).contains("people, human"));
}

#[test]
fn classes_have_many_names() {
    let found = |classes: &str| {
        let output = yolo_lat(&[
            "detect",
            "assets/chelsea.jpg",
            "assets/astronaut.jpg",
            "-f",
            "jsonl",
            "--no-timing",
            "--classes",
            classes,
        ]);
        assert_eq!(output.status.code(), Some(0), "{classes}: {}", stderr(&output));
        stdout(&output)
    };
    let expected = found("person,cat");
    for classes in ["People,cats", "human,CAT,person", "14,7"] {
        assert_eq!(found(classes), expected, "{classes}");
    }
}

#[test]
fn data_sets_are_measured_in_the_classes_that_the_model_has() {
    let measured = |names: [&str; 3]| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy("../../assets/chelsea.jpg", folder.path().join("1.jpg")).unwrap();
        let category = |(index, name): (usize, &&str)| serde_json::json!({ "id": index + 1, "name": name });
        let object =
            |class: usize| serde_json::json!({ "image_id": 1, "category_id": class, "bbox": [80, 40, 330, 250] });
        let labels = serde_json::json!({
            "images": [{"id": 1, "file_name": "1.jpg"}], "categories": names.iter().enumerate().map(category).collect::<Vec<_>>(),
            "annotations": [object(1), object(2)],
        });
        std::fs::write(folder.path().join("annotations.json"), labels.to_string()).unwrap();
        yolo_lat(&["eval", text(folder.path()), "--json", "-q"])
    };
    // The cat is found by another word; whiskers, which no model knows, cost nothing and are named.
    let output = measured(["Cats", "whiskers", "giraffe"]);
    let found: Value = serde_json::from_str(&stdout(&output)).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    assert_eq!(found["per_class"].as_array().unwrap().len(), 1, "{found}");
    assert!(found["map50"].as_f64().unwrap() > 0.0);
    let warning = stderr(&output);
    assert!(warning.contains("left out: whiskers") && !warning.contains("giraffe"), "{warning}");
    let output = measured(["tail", "whiskers", "paw"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("no class in common"), "{}", stderr(&output));
}

#[test]
fn eval_measures_a_folder_and_a_result_file() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    std::fs::create_dir(&images).unwrap();
    std::fs::copy("../../assets/chelsea.jpg", images.join("000001.jpg")).unwrap();
    // Labelled where the model sees the cat: what is measured here is `eval`, not the model.
    let seen = stdout(&yolo_lat(&["detect", "assets/chelsea.jpg", "-q", "-f", "csv"]));
    let fields: Vec<&str> = seen.lines().nth(1).unwrap().split(',').collect();
    assert_eq!(fields[4], "cat");
    let [x1, y1, x2, y2] = [6, 7, 8, 9].map(|index| fields[index].parse::<f64>().unwrap());
    let labels = serde_json::json!({
        "images": [{"id": 1, "file_name": "000001.jpg"}],
        "categories": [{"id": 8, "name": "cat"}, {"id": 15, "name": "person"}],
        "annotations": [{"image_id": 1, "category_id": 8, "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}],
    });
    std::fs::write(folder.path().join("annotations.json"), labels.to_string()).unwrap();
    let plot = folder.path().join("pr.svg");
    let output = yolo_lat(&["eval", text(folder.path()), "--json", "--plot", text(&plot)]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let found: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(found["images"], 1);
    assert_eq!(found["map50"], 100.0);
    assert_eq!(
        found["per_class"][0],
        serde_json::json!({"name": "cat", "ap50": 100.0, "ap50_95": 100.0, "objects": 1})
    );
    assert!(found["images_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!(found["inputs"], serde_json::json!({"384x256": 1}));
    assert!(plot.exists());
    // The same folder twice has the threshold that it has once.
    let thresholds = |datasets: &[&str]| -> Value {
        let output = yolo_lat(&[&["eval", "--threshold", "--json", "-q"], datasets].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        serde_json::from_str(&stdout(&output)).unwrap()
    };
    let once = thresholds(&[text(folder.path())]);
    assert_eq!(once["datasets"][0]["best"]["f1"], 1.0, "{once}");
    let confidence = |value: &Value| value["confidence"].as_f64().unwrap();
    let curve = once["datasets"][0]["curve"].as_array().unwrap();
    assert_eq!((curve.len(), confidence(&curve[0]), confidence(&curve[90])), (91, 0.05, 0.95));
    assert!(curve.windows(2).all(|pair| pair[0]["recall"].as_f64() >= pair[1]["recall"].as_f64()));
    assert_eq!(confidence(&once), confidence(&thresholds(&[text(folder.path()), text(folder.path())])));
    let table = stdout(&yolo_lat(&["eval", text(folder.path()), "--threshold", "-q"]));
    assert!(table.contains("second boxes/image") && table.contains("<- best F1"), "{table}");
    let several = yolo_lat(&["eval", text(folder.path()), text(folder.path())]);
    assert!(stderr(&several).contains("one data set at a time"), "{}", stderr(&several));
    // The program's own COCO results measure the same.
    let out = folder.path().join("out");
    let detect = ["detect", text(&images), "-o", text(&out), "-f", "coco", "-q", "--conf", "0.001"];
    assert_eq!(yolo_lat(&detect).status.code(), Some(0));
    let results = out.join("coco.json");
    let output = yolo_lat(&["eval", text(folder.path()), "--json", "--detections", text(&results)]);
    let from_file: Value = serde_json::from_str(&stdout(&output)).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    assert_eq!(from_file["map50"], 100.0);
}

#[test]
fn parity_compares_every_engine_with_the_reference() {
    let output = yolo_lat(&["parity", "n", "assets/chelsea.jpg", "--size", "160", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let value: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(value["ok"], true);
    for engine in value["engines"].as_array().unwrap() {
        if engine["available"] == true {
            assert!(engine["max_abs_logit"].as_f64().unwrap() <= engine["tolerance"].as_f64().unwrap(), "{engine}");
            assert_eq!(engine["detections_equal"], true, "{engine}");
        } else {
            assert!(engine["why"].as_str().unwrap().len() > 10, "{engine}");
            assert!(["gpu", "ort"].contains(&engine["name"].as_str().unwrap()), "{engine}");
        }
    }
    // No engine computes exactly what the reference does: nothing fits a tolerance of zero.
    let output = yolo_lat(&["parity", "n", "--size", "64", "--tolerance", "0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("NOT within the tolerance"));
}

#[test]
fn engines_are_timed_side_by_side() {
    let bench =
        ["bench", "-m", "n", "--engine", "cpu,reference", "--size", "64,96x64", "--batch", "1,2", "--seconds", "0"];
    let output = yolo_lat(&[&bench[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let value: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let rows = value["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 8);
    for row in rows {
        let time = |name: &str| row[name].as_f64().unwrap();
        assert!(0.0 < time("min_ms") && time("min_ms") <= time("median_ms") && time("median_ms") <= time("p90_ms"));
        assert!(time("images_per_second") > 0.0);
        // The file holds a few constants besides the 317,306 weights.
        assert!((317_306..317_406).contains(&row["parameters"].as_u64().unwrap()), "{row}");
    }
    assert!(stdout(&yolo_lat(&[&bench[..], &["--markdown"]].concat())).starts_with("| model | engine | size |"));
    let folder = tempfile::tempdir().unwrap();
    let [table, chart, accuracy] = ["table.md", "chart.png", "accuracy.json"].map(|name| folder.path().join(name));
    std::fs::write(&accuracy, r#"{ "yolo-lat-n": 54.6 }"#).unwrap();
    let files = ["--markdown", text(&table), "--plot", text(&chart), "--accuracy", text(&accuracy), "--json"];
    let output = yolo_lat(&[&bench[..], &files].concat());
    serde_json::from_str::<Value>(&stdout(&output)).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    assert!(std::fs::read_to_string(&table).unwrap().starts_with("| model | engine | size |"));
    assert!(image::open(&chart).unwrap().width() > 500);
    let file = folder.path().join("x.onnx");
    std::fs::write(&file, "this is no ONNX file").unwrap();
    let output = yolo_lat(&["bench", "-m", text(&file)]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("not an ONNX file"), "{}", stderr(&output));
}

#[test]
fn attention_is_measured_as_tables_json_and_charts() {
    let folder = tempfile::tempdir().unwrap();
    let measure = |what: &[&str], chart: &str| {
        let chart = folder.path().join(chart);
        let output = yolo_lat(&[&["bench"], what, &["--json", "--plot", text(&chart)]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(chart.metadata().unwrap().len() > 1000, "{} is no chart", chart.display());
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(value["machine"]["processor"].is_string());
        value
    };
    let value = measure(
        &["attention", "--tokens", "1024,2048", "--width", "16", "--seconds", "0", "--no-ort"],
        "attention.png",
    );
    assert!(value["exponent_ela"].is_number() && value["exponent_softmax"].is_number());
    let [short, long] = [&value["rows"][0], &value["rows"][1]];
    assert_eq!([&short["tokens"], &long["tokens"], &long["width"]], [1024, 2048, 16]);
    assert!(short["ela_ms"].as_f64().unwrap() > 0.0 && short["softmax_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(short["ela_bytes"], long["ela_bytes"], "the state does not grow with the tokens");
    assert!(long["softmax_bytes"].as_u64() > short["softmax_bytes"].as_u64());

    let value = measure(&["decode", "--context", "64,256"], "decode.svg");
    let [short, long] = [&value["rows"][0], &value["rows"][1]];
    for field in ["attention_ratio", "step_ratio", "ela_us", "softmax_us"] {
        assert!(long[field].as_f64().unwrap() > 0.0, "{field}");
    }
    assert_eq!(short["state_bytes"], long["state_bytes"]);
    assert!(long["cache_bytes"].as_u64() > short["cache_bytes"].as_u64());

    let value = measure(&["gradients"], "gradients.png");
    let last = value["rows"].as_array().unwrap().last().unwrap();
    assert!(last["naive_gradient_norm"].is_null(), "f32 holds no exp(2e4)");
    assert!(last["stable_gradient_norm"].as_f64().unwrap() < 100.0 && last["stable_error"].as_f64().unwrap() < 1e-5);

    let value = measure(&["discrimination"], "discrimination.png");
    for row in value["rows"].as_array().unwrap() {
        let entropy = row["entropy_below_mean"].as_array().unwrap();
        let [short, long] = [&entropy[1], &entropy[5]].map(|value| value.as_f64().unwrap());
        assert!(long > 0.5 * short && long > 1e-3, "{row}");
    }
}

#[test]
fn completions_and_manual_pages_are_generated() {
    for shell in ["bash", "zsh", "fish"] {
        let output = yolo_lat(&["completions", shell]);
        assert!(stdout(&output).contains("--save-crops") || stdout(&output).contains("save-crops"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(yolo_lat(&["man", "-o", text(folder.path())]).status.code(), Some(0));
    assert!(folder.path().join("yolo-lat-detect.1").exists());
    assert!(stdout(&yolo_lat(&["--help"])).contains("Exit codes:"));
}

#[test]
fn the_plan_of_a_gpu_is_told_without_one() {
    let output = yolo_lat(&["info", "n", "--plan", "--json", "--gpu", "rtx-4090"]);
    let value: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let plan = value["plan"].as_array().unwrap();
    assert_eq!(value["dispatches"], plan.len());
    assert!(plan.len() <= 70);
    let sum = |key: &str| plan.iter().map(|dispatch| dispatch[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!(value["bytes_per_frame"], sum("bytes"));
    assert_eq!(value["multiply_adds"], sum("multiply_adds"));
    assert!(plan.iter().all(|dispatch| dispatch["roofline_us"].as_f64().unwrap() >= 0.0));
    assert!(stdout(&yolo_lat(&["info", "s", "--plan"])).contains("dispatches"));
    let output = yolo_lat(&["info", "n", "--plan", "--gpu", "voodoo"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("rtx-4090"), "{}", stderr(&output));
}

/// On the software adapter, if there is one: a table, and a trace that Perfetto reads.
#[test]
fn dispatches_are_profiled_into_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.json");
    let output = yolo_lat(&["detect", "assets/chelsea.jpg", "--adapter", "llvmpipe", "--profile", text(&trace)]);
    if stderr(&output).contains("no adapter is called") {
        eprintln!("skipped: {}", stderr(&output));
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains(" steps on ") && said.contains("llvmpipe"), "{said}");
    let trace: Value = serde_json::from_slice(&std::fs::read(&trace).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    assert!(events.len() > 40);
    assert!(events[1..].iter().all(|event| event["ph"] == "X" && event["dur"].as_f64().unwrap() >= 0.0));
    let output = yolo_lat(&["detect", "assets/chelsea.jpg", "--engine", "reference", "--profile", "x.json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--engine cpu"), "{}", stderr(&output));
}

/// Every step of the CPU engine with its share of what the processor could do, for pictures alone and in a batch.
#[test]
fn steps_of_the_cpu_are_profiled() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.json");
    for batch in ["1", "3"] {
        let output = yolo_lat(&[
            "detect",
            "assets",
            "--square",
            "--engine",
            "cpu",
            "--threads",
            "2",
            "--batch",
            batch,
            "--profile",
            text(&trace),
        ]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(stderr(&output).contains("GFLOP/s on cpu ("), "{}", stderr(&output));
        let trace: Value = serde_json::from_slice(&std::fs::read(&trace).unwrap()).unwrap();
        assert_profile(&trace["medians"]);
        assert!(trace["traceEvents"].as_array().unwrap().len() > 100);
    }
    let bench = yolo_lat(&["bench", "--profile", "-m", "n,s", "--seconds", "0", "--size", "64x96", "--json"]);
    let bench: Value = serde_json::from_str(&stdout(&bench)).unwrap();
    for profile in bench["profiles"].as_array().unwrap() {
        assert_profile(profile);
    }
    let output = stdout(&yolo_lat(&["bench", "--profile", "--seconds", "0", "--size", "64"]));
    assert!(output.contains("conv 3x3 /2 + max pool 3x3 /2") && output.contains("3>24 @16x16"), "{output}");
}

fn assert_profile(profile: &Value) {
    let steps = profile["steps"].as_array().unwrap();
    let of = |kind: &str| steps.iter().filter(|step| step["kind"].as_str().unwrap().contains(kind)).count();
    assert!(of("conv 1x1") > 20 && of("depthwise 3x3 /1") > 5 && of("attention") == 2, "{steps:?}");
    assert_eq!(of("gather"), 0, "{steps:?}");
    // Another program may take the core for a while: only never more than all.
    let share = profile["share_of_peak"].as_f64().unwrap();
    assert!(share > 0.0 && share < 1.2, "{share}");
    assert!(steps.iter().all(|step| step["us"].as_f64().unwrap() > 0.0), "{steps:?}");
}

/// The switch that stands for a machine without vectors gives the same objects; one that is not there is named.
#[test]
fn any_instruction_set_finds_the_same() {
    let detect = |set: &str| {
        let run = &["detect", "assets/chelsea.jpg", "-f", "json", "--no-timing", "-v"];
        program().args(run).env("YOLO_LAT_ISA", set).output().unwrap()
    };
    let output = detect("plain");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("cpu (plain"), "{}", stderr(&output));
    assert!(stdout(&output).contains("\"cat\""), "{}", stdout(&output));
    let output = detect("mmx");
    assert_eq!(output.status.code(), Some(2));
    let message = stderr(&output);
    assert!(
        message.contains("YOLO_LAT_ISA: \"mmx\" is no instruction set of this machine") && message.contains("plain"),
        "{message}"
    );
}

/// Runs `detect` and expects an exit code; gives standard error.
fn detect_into(out: &Path, code: i32, arguments: &[&str]) -> String {
    let output = yolo_lat(&[&["detect", "-o", text(out)], arguments].concat());
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
    stderr(&output)
}

#[test]
fn yolo_labels_and_their_pictures_are_a_data_set() {
    let folder = tempfile::tempdir().unwrap();
    for placing in ["link", "copy"] {
        let out = folder.path().join(placing);
        detect_into(
            &out,
            0,
            &["assets/chelsea.jpg", "assets/astronaut.jpg", "-f", "yolo", "--pictures", placing, "-q"],
        );
        let labels = std::fs::read_to_string(out.join("labels/chelsea.txt")).unwrap();
        assert!(!labels.is_empty() && labels.lines().all(|line| line.split(' ').count() == 5), "{labels}");
        assert_eq!(std::fs::read_to_string(out.join("classes.txt")).unwrap().lines().nth(7), Some("cat"));
        assert_eq!(out.join("images/chelsea.jpg").is_symlink(), placing == "link");
        let same = ["--conf", "0.25", "--single-label", "--json", "-q"];
        let output = yolo_lat(&[&["eval", text(&out)], &same[..]].concat());
        let value: Value = serde_json::from_str(&stdout(&output)).unwrap_or_else(|_| panic!("{}", stderr(&output)));
        assert_eq!((&value["images"], &value["map50"]), (&2.into(), &100.0.into()), "{value}");
    }
    let six = folder.path().join("six");
    detect_into(&six, 0, &["assets/chelsea.jpg", "-f", "yolo", "--label-conf", "-q"]);
    let labels = std::fs::read_to_string(six.join("labels/chelsea.txt")).unwrap();
    assert!(labels.lines().all(|line| line.split(' ').count() == 6), "{labels}");
    let error = detect_into(&six, 2, &["assets/chelsea.jpg", "-f", "voc", "--label-conf"]);
    assert!(error.contains("--label-conf belongs to -f yolo"), "{error}");
}

#[test]
fn a_folder_with_other_results_says_so_and_keeps_none_of_them() {
    let (input, place) = (folder_of_pictures(2), tempfile::tempdir().unwrap());
    let out = place.path().join("out");
    let (one, two) = (input.path().join("000.jpg"), input.path().join("001.jpg"));
    detect_into(&out, 0, &[text(&one), text(&two), "-f", "yolo", "-f", "csv", "--save-crops"]);
    let error = detect_into(&out, 0, &[text(&two), "-f", "json"]);
    assert!(error.contains("files of an earlier run are replaced"), "{error}");
    let names = |files: Vec<(PathBuf, Vec<u8>)>| files.into_iter().map(|(path, _)| path).collect::<Vec<_>>();
    assert_eq!(names(files_below(&out)), [PathBuf::from("results.json")]);
    // What a person has corrected is not lost.
    let file = std::fs::OpenOptions::new().append(true).open(out.join("results.json")).unwrap();
    file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(60)).unwrap();
    let error = detect_into(&out, 2, &[text(&two), "-f", "json"]);
    assert!(error.contains("results.json: changed since an earlier run wrote it"), "{error}");
    detect_into(&out, 0, &[text(&two), "-f", "json", "--overwrite"]);
    // Nor is what somebody else has put there taken for a result.
    std::fs::create_dir(out.join("labels")).unwrap();
    std::fs::write(out.join("labels/old.txt"), "0 0.5 0.5 1 1\n").unwrap();
    let error = detect_into(&out, 2, &[text(&two), "-f", "yolo"]);
    assert!(error.contains("old.txt: not written by yolo-lat"), "{error}");
    assert!(out.join("labels/old.txt").exists());
    // A result is no input, and an input is never written over.
    let pictures = place.path().join("images");
    std::fs::create_dir(&pictures).unwrap();
    std::fs::copy(&one, pictures.join("a.jpg")).unwrap();
    let before = std::fs::read(pictures.join("a.jpg")).unwrap();
    let error = detect_into(place.path(), 1, &[text(&pictures), "--save-images"]);
    assert!(error.contains("it is an input of this run"), "{error}");
    assert!(std::fs::read(pictures.join("a.jpg")).unwrap() == before);
}

#[test]
fn pictures_that_were_drawn_are_not_detected_on() {
    let folder = folder_of_pictures(3);
    let run = |out: &Path| {
        detect_into(out, 0, &[text(folder.path()), "-r", "--save-images", "--save-crops", "-f", "jsonl", "-q"]);
        std::fs::read_to_string(out.join("results.jsonl")).unwrap().lines().count()
    };
    // Into the folder itself, again, and into another below it.
    let other = folder.path().join("other");
    assert_eq!([run(folder.path()), run(folder.path()), run(&other), run(folder.path())], [3; 4]);
}

#[test]
fn coco_results_tell_pictures_and_categories_apart() {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("set");
    for name in ["images/000139.jpg", "labels/000139.txt", "images/000285.jpg", "labels/000285.txt"] {
        std::fs::create_dir_all(set.join(name).parent().unwrap()).unwrap();
        if name.ends_with(".jpg") {
            std::fs::copy("../../assets/chelsea.jpg", set.join(name)).unwrap();
        } else {
            std::fs::write(set.join(name), "0 0.5 0.5 0.9 0.9\n").unwrap();
        }
    }
    std::fs::write(set.join("classes.txt"), "cat\n").unwrap();
    let out = folder.path().join("out");
    let said = detect_into(&out, 0, &[text(&set.join("images")), "-f", "coco"]);
    assert!(said.contains("category ids of -f coco: 1 to 20"), "{said}");
    let results = out.join("coco.json");
    let coco: Value = serde_json::from_slice(&std::fs::read(&results).unwrap()).unwrap();
    assert_eq!(
        (&coco[0]["image_id"], &coco[0]["file_name"]),
        (&139.into(), &text(&set.join("images/000139.jpg")).into())
    );
    assert_eq!((&coco[0]["category_id"], &coco[0]["category_name"]), (&8.into(), &"cat".into()));
    for (arguments, images) in [(&[][..], 2), (&["--limit", "1"][..], 1)] {
        let measure = ["eval", text(&set), "--detections", text(&results), "--json", "-q"];
        let output = yolo_lat(&[&measure[..], arguments].concat());
        let value: Value = serde_json::from_str(&stdout(&output)).unwrap_or_else(|_| panic!("{}", stderr(&output)));
        assert_eq!((&value["images"], value["map50"].as_f64()), (&images.into(), Some(100.0)), "{value}");
    }
    // Ids of a file, by name.
    let categories = folder.path().join("categories.json");
    std::fs::write(&categories, r#"{"categories": [{"id": 0, "name": "dog"}, {"id": 41, "name": "Cat"}]}"#).unwrap();
    let ids = ["-f", "coco", "--categories", text(&categories)];
    let said = detect_into(&out, 0, &[&["assets/chelsea.jpg"], &ids[..]].concat());
    assert!(said.contains("leaves out classes without a category: aeroplane"), "{said}");
    let coco: Value = serde_json::from_slice(&std::fs::read(&results).unwrap()).unwrap();
    assert_eq!((&coco[0]["image_id"], &coco[0]["category_id"]), (&"chelsea".into(), &41.into()));
    std::fs::write(&categories, r#"{"categories": [{"id": 0, "name": "rust"}]}"#).unwrap();
    let said = detect_into(&out, 2, &[&["assets/chelsea.jpg"], &ids[..]].concat());
    assert!(said.contains("none of its categories (rust) is a class of the model"), "{said}");
}

#[test]
fn frames_of_videos_have_their_own_names_numbers_and_times() {
    let folder = tempfile::tempdir().unwrap();
    let clips: Vec<PathBuf> = ["a.mkv", "b.mkv"].iter().map(|name| folder.path().join(name)).collect();
    for clip in &clips {
        let made = Command::new("ffmpeg")
            .args(["-v", "error", "-loop", "1", "-i", "../../assets/chelsea.jpg", "-r", "10", "-frames:v", "3"])
            .args(["-vf", "scale=128:96", text(clip)])
            .status();
        assert!(made.unwrap().success());
    }
    let out = folder.path().join("out");
    let formats = ["-f", "csv", "-f", "coco", "-f", "yolo", "-f", "cvat", "--pictures", "copy"];
    let said = detect_into(&out, 0, &[&[text(&clips[0]), text(&clips[1])], &formats[..]].concat());
    assert!(said.contains("2 of 2 images (6 frames of videos)"), "{said}");
    let csv = std::fs::read_to_string(out.join("results.csv")).unwrap();
    assert!(csv.lines().next().unwrap().ends_with(",y2,frame,time"), "{csv}");
    assert!(csv.lines().any(|line| line.contains("b.mkv#2,") && line.ends_with(",2,0.200")), "{csv}");
    let coco: Value = serde_json::from_slice(&std::fs::read(out.join("coco.json")).unwrap()).unwrap();
    assert_eq!(
        (&coco[0]["image_id"], &coco[0]["file_name"]),
        (&"a/000000".into(), &text(&folder.path().join("a/000000.jpg")).into())
    );
    for name in ["labels/b/000002.txt", "images/b/000002.jpg"] {
        assert!(out.join(name).exists(), "{name}");
    }
    detect_into(&out, 0, &[text(&clips[0]), "-f", "cvat", "-q"]);
    let cvat = std::fs::read_to_string(out.join("cvat.xml")).unwrap();
    assert!(cvat.contains("<mode>interpolation</mode>") && cvat.contains("id=\"2\" name=\"frame_000002\""), "{cvat}");
}

#[test]
fn a_data_set_with_a_file_at_fault_is_measured_without_it_unless_strict() {
    let folder = folder_of_pictures(3);
    let write = |name: &str, rows: &str| std::fs::write(folder.path().join(name), rows).unwrap();
    write("classes.txt", "cat\n");
    for name in ["000.txt", "001.txt"] {
        write(name, "0 0.5 0.5 0.8 0.8\n0 0.5 0.5 0.8 0.8\n");
    }
    write("002.txt", "0 48 32 77 51\n");
    let eval = |more: &[&str]| yolo_lat(&[&["eval", text(folder.path()), "--json", "-q"], more].concat());
    let output = eval(&[]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let found: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&found["images"], &found["per_class"][0]["objects"]), (&2.into(), &2.into()));
    let error = stderr(&output);
    assert_eq!(error.lines().count(), 2, "{error}");
    assert!(error.contains("002.txt: line 1: 48 is no share of the picture"), "{error}");
    assert!(error.contains("2 rows that stand twice in 2 label files count once"), "{error}");
    let output = eval(&["--strict"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""));
    assert!(stderr(&output).contains("1 file at fault, and --strict was given"), "{}", stderr(&output));
    // Without labels there is no precision, rather than one of 0.
    for name in ["000.txt", "001.txt", "002.txt"] {
        std::fs::rename(folder.path().join(name), folder.path().join(format!("x{name}"))).unwrap();
    }
    let output = eval(&[]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""));
    let error = stderr(&output);
    assert!(error.contains("none of its 3 photographs has a labelled object"), "{error}");
    assert!(error.contains("3 label files belong to no picture"), "{error}");
    let missing = folder.path().join("absent");
    let error = stderr(&yolo_lat(&["eval", text(&missing)]));
    assert_eq!(error.matches("No such file").count(), 1, "{error}");
    let output = eval(&["--split", "val"]);
    assert!(output.status.code() == Some(2) && stderr(&output).contains("no \"val\""), "{}", stderr(&output));
}

/// An ONNX network that finds one box of class 2 in whatever it sees.
fn foreign_network(folder: &Path) -> PathBuf {
    use yolo_lat::onnx::{Dimension, OnnxGraph};
    let mut values = vec![0.0; 7 * 84];
    [24.0, 24.0, 32.0, 32.0, 0.1, 0.2, 0.9].iter().enumerate().for_each(|(row, value)| values[row * 84 + 5] = *value);
    let mut graph = OnnxGraph::default();
    graph.input("images", &[1, 3, 64, 64].map(Dimension::Fixed));
    let constant = graph.floats(&[1, 7, 84], &values);
    graph.node_named("Identity", &[&constant], "output0", &[]);
    graph.output("output0", &[1, 7, 84].map(Dimension::Fixed));
    let path = folder.join("network.onnx");
    std::fs::write(&path, graph.finish("network", 17)).unwrap();
    path
}

#[test]
#[ignore = "needs ONNX Runtime"]
fn it_is_said_what_a_foreign_network_was_taken_for() {
    let folder = folder_of_pictures(1);
    let path = foreign_network(folder.path());
    let picture = folder.path().join("000.jpg");
    let run = |model: &str, arguments: &[&str]| {
        let output = yolo_lat(&[&["detect", text(&picture), "-m", model], arguments].concat());
        (output.status.code(), stdout(&output), stderr(&output))
    };
    let (code, _, log) = run(text(&path), &["-v"]);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("(yolov8 layout, 3 classes; 64x64, letterboxed (grey 114), RGB / 255)"), "{log}");
    let options = ["-q", "-f", "jsonl", "--names", "a,b,c", "--mean", "-1", "--merge"];
    let (code, found, error) = run(text(&path), &options);
    assert_eq!(code, Some(0), "{error}");
    assert!(found.contains("\"c\"") && found.contains("0.8099"), "{found}");
    let (code, _, error) = run(text(&path), &["--layout", "yolox-decoded"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("are not of the yolox-decoded layout"), "{error}");
    let (code, _, error) = run("n", &["--fit", "stretch"]);
    assert_eq!((code, error.as_str()), (Some(2), "yolo-lat: --fit is for ONNX files; yolo-lat-n is a model of ours\n"));
}
