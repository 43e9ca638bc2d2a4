//! Images in: formats, names, permissions, faults.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{PROGRAM, detect_into, folder_of_images, program, stderr, stdout, utf8, yolo_lat};
use image::RgbImage;
use serde_json::Value;

#[test]
fn every_kind_of_image_is_read_upright_and_in_color() {
    let folder = tempfile::tempdir().unwrap();
    let cat = image::open("../../assets/chelsea.jpg").unwrap();
    let save = |name: &str, image: &image::DynamicImage| image.save(folder.path().join(name)).unwrap();
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
    let output = yolo_lat(&["detect", utf8(folder.path()), "--format", "jsonl"]);
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
    write("text.jpg", b"This is no image.");
    write("truncated.jpg", &photograph[..photograph.len() / 2]);
    write("bomb.png", &png_header(60_000, 60_000));
    write("good.jpg", &photograph);
    RgbImage::new(1, 1).save(folder.path().join("one.png")).unwrap();
    RgbImage::new(30_000, 1).save(folder.path().join("wide.png")).unwrap();
    RgbImage::new(1, 5_000).save(folder.path().join("tall.png")).unwrap();
    let missing = folder.path().join("missing.jpg");
    let sources = [utf8(folder.path()), utf8(&missing)];
    let output = yolo_lat(&[&["detect", "--format", "jsonl", "--json-errors", "-q"], &sources[..]].concat());
    assert_eq!(output.status.code(), Some(1));
    let good: Vec<String> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["image"].as_str().unwrap().to_owned())
        .collect();
    let expected =
        ["good.jpg", "one.png", "tall.png", "wide.png"].map(|name| utf8(&folder.path().join(name)).to_owned());
    assert_eq!(good, expected);
    let errors: Vec<Value> = stderr(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let reasons = [
        ("bomb.png", "MiB"),
        ("empty.jpg", "empty"),
        ("text.jpg", "not an image in a known format"),
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
    let folder = folder_of_images(500);
    std::fs::write(folder.path().join("250.jpg"), b"\xFF\xD8\xFF\xE0 damaged").unwrap();
    let output = yolo_lat(&["detect", utf8(folder.path()), "--format", "jsonl", "--size", "64", "-q"]);
    assert_eq!(output.status.code(), Some(1));
    let names: Vec<String> =
        stdout(&output).lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["image"].to_string()).collect();
    assert_eq!(names.len(), 499);
    assert!(names.is_sorted(), "results come in input order");
    assert_eq!(stderr(&output).lines().count(), 1);
    assert!(stderr(&output).contains("250.jpg"));
}

#[test]
fn images_of_all_shapes_have_inputs_of_theirs() {
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
            yolo_lat(&[&["detect", utf8(folder.path()), "-f", "json", "--no-timing", "--conf", "0.1"], more].concat());
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
    let log = stderr(&yolo_lat(&["detect", utf8(folder.path()), "-v"]));
    for shape in ["384x288", "288x384", "416x256", "320x320"] {
        assert!(log.contains(&format!("input of {shape} pixels")), "{log}");
    }
    let wrong = yolo_lat(&["detect", "assets", "--square", "--size", "416x256"]);
    assert!(stderr(&wrong).contains("--square takes one side"), "{}", stderr(&wrong));
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

#[cfg(unix)]
#[test]
fn names_that_are_not_utf8_are_read() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let name = std::ffi::OsStr::from_bytes(b"caf\xE9.jpg");
    std::fs::copy("../../assets/chelsea.jpg", folder.path().join(name)).unwrap();
    let out = folder.path().join("out");
    let output = yolo_lat(&["detect", utf8(folder.path()), "-o", utf8(&out), "--save-images", "-f", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(std::fs::read_dir(out.join("images")).unwrap().count(), 1);
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
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", utf8(&program)]).args(arguments);
    command.output().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "needs root and setpriv to run as another user"]
fn missing_permissions_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder_of_images(2);
    let mode = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::copy(folder.path().join("000.jpg"), closed.join("x.jpg")).unwrap();
    mode(folder.path(), 0o755);
    mode(&closed, 0o000);
    let input = utf8(folder.path());
    let output = as_nobody(&["detect", input, "-r", "-q"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(stdout(&output).lines().count(), 2);
    assert!(stderr(&output).contains("closed: cannot be read: Permission denied"), "{}", stderr(&output));
    let output = as_nobody(&["detect", input, "-q", "-o", utf8(&folder.path().join("out"))]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("cannot be written: Permission denied"), "{}", stderr(&output));
}

#[test]
fn images_that_were_drawn_are_not_detected_on() {
    let folder = folder_of_images(3);
    let run = |out: &Path| {
        detect_into(out, 0, &[utf8(folder.path()), "-r", "--save-images", "--save-crops", "-f", "jsonl", "-q"]);
        std::fs::read_to_string(out.join("results.jsonl")).unwrap().lines().count()
    };
    // Into the folder itself, again, and into another below it.
    let other = folder.path().join("other");
    assert_eq!([run(folder.path()), run(folder.path()), run(&other), run(folder.path())], [3; 4]);
}
