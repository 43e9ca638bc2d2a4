//! What `detect` writes: formats, data sets, resumed runs, full disks.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{detect_into, files_below, folder_of_images, program, stderr, stdout, utf8, yolo_lat};
use image::Rgb;
use serde_json::Value;

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
        vec!["detect", utf8(&input), "-r", "-o", utf8(&out), "--save-images", "--save-crops", "--no-timing"];
    arguments.extend(formats.iter().flat_map(|format| ["--format", format]));
    let output = yolo_lat(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).lines().all(|line| line.contains("1 cat")), "{}", stdout(&output));
    let files = files_below(&out);
    let names: Vec<&str> = files.iter().map(|(path, _)| utf8(path)).collect();
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
fn a_closed_pipe_ends_quietly() {
    let folder = folder_of_images(400);
    let mut command = program();
    command.args(["detect", utf8(folder.path()), "--format", "jsonl"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut first = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
}

#[test]
fn an_interrupted_run_is_valid_and_resume_completes_it() {
    let folder = folder_of_images(400);
    let formats = ["-f", "json", "-f", "csv", "-f", "coco", "-f", "yolo"];
    let run = |out: &Path, more: &[&str]| {
        let mut command = program();
        command.args(["detect", utf8(folder.path()), "-o", utf8(out), "--no-timing", "--save-images", "-q"]);
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

#[cfg(target_os = "linux")]
#[test]
#[ignore = "needs root to mount a small file system"]
fn a_full_disk_is_named_and_leaves_no_broken_file() {
    let folder = folder_of_images(40);
    let disk = tempfile::tempdir().unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs", utf8(disk.path())]).status();
    assert!(mount.unwrap().success());
    let out = disk.path().join("out");
    let output = yolo_lat(&["detect", utf8(folder.path()), "-o", utf8(&out), "--save-images", "-f", "yolo", "-q"]);
    let images = files_below(&out);
    assert!(Command::new("umount").arg(disk.path()).status().unwrap().success());
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("cannot be written: No space left on device"), "{}", stderr(&output));
    assert!(images.iter().any(|(path, _)| path.extension().is_some_and(|extension| extension == "jpg")));
    for (path, bytes) in images.iter().filter(|(path, _)| path.extension().is_some_and(|extension| extension == "jpg"))
    {
        assert!(bytes.ends_with(b"\xFF\xD9"), "{} is incomplete", path.display());
    }
}

#[test]
fn yolo_labels_and_their_images_are_a_data_set() {
    let folder = tempfile::tempdir().unwrap();
    for placing in ["link", "copy"] {
        let out = folder.path().join(placing);
        detect_into(&out, 0, &["assets/chelsea.jpg", "assets/astronaut.jpg", "-f", "yolo", "--images", placing, "-q"]);
        let labels = std::fs::read_to_string(out.join("labels/chelsea.txt")).unwrap();
        assert!(!labels.is_empty() && labels.lines().all(|line| line.split(' ').count() == 5), "{labels}");
        assert_eq!(std::fs::read_to_string(out.join("classes.txt")).unwrap().lines().nth(7), Some("cat"));
        assert_eq!(out.join("images/chelsea.jpg").is_symlink(), placing == "link");
        let same = ["--conf", "0.25", "--single-label", "--json", "-q"];
        let output = yolo_lat(&[&["eval", utf8(&out)], &same[..]].concat());
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
    let (input, place) = (folder_of_images(2), tempfile::tempdir().unwrap());
    let out = place.path().join("out");
    let (one, two) = (input.path().join("000.jpg"), input.path().join("001.jpg"));
    detect_into(&out, 0, &[utf8(&one), utf8(&two), "-f", "yolo", "-f", "csv", "--save-crops"]);
    let error = detect_into(&out, 0, &[utf8(&two), "-f", "json"]);
    assert!(error.contains("files of an earlier run are replaced"), "{error}");
    let names = |files: Vec<(PathBuf, Vec<u8>)>| files.into_iter().map(|(path, _)| path).collect::<Vec<_>>();
    assert_eq!(names(files_below(&out)), [PathBuf::from("results.json")]);
    // What a person has corrected is not lost.
    let file = std::fs::OpenOptions::new().append(true).open(out.join("results.json")).unwrap();
    file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(60)).unwrap();
    let error = detect_into(&out, 2, &[utf8(&two), "-f", "json"]);
    assert!(error.contains("results.json: changed since an earlier run wrote it"), "{error}");
    detect_into(&out, 0, &[utf8(&two), "-f", "json", "--overwrite"]);
    // Nor is what somebody else has put there taken for a result.
    std::fs::create_dir(out.join("labels")).unwrap();
    std::fs::write(out.join("labels/old.txt"), "0 0.5 0.5 1 1\n").unwrap();
    let error = detect_into(&out, 2, &[utf8(&two), "-f", "yolo"]);
    assert!(error.contains("old.txt: not written by yolo-lat"), "{error}");
    assert!(out.join("labels/old.txt").exists());
    // A result is no input, and an input is never written over.
    let images = place.path().join("images");
    std::fs::create_dir(&images).unwrap();
    std::fs::copy(&one, images.join("a.jpg")).unwrap();
    let before = std::fs::read(images.join("a.jpg")).unwrap();
    let error = detect_into(place.path(), 1, &[utf8(&images), "--save-images"]);
    assert!(error.contains("it is an input of this run"), "{error}");
    assert!(std::fs::read(images.join("a.jpg")).unwrap() == before);
}

#[test]
fn coco_results_tell_images_and_categories_apart() {
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
    let said = detect_into(&out, 0, &[utf8(&set.join("images")), "-f", "coco"]);
    assert!(said.contains("category ids of -f coco: 1 to 20"), "{said}");
    let results = out.join("coco.json");
    let coco: Value = serde_json::from_slice(&std::fs::read(&results).unwrap()).unwrap();
    assert_eq!(
        (&coco[0]["image_id"], &coco[0]["file_name"]),
        (&139.into(), &utf8(&set.join("images/000139.jpg")).into())
    );
    assert_eq!((&coco[0]["category_id"], &coco[0]["category_name"]), (&8.into(), &"cat".into()));
    for (arguments, images) in [(&[][..], 2), (&["--limit", "1"][..], 1)] {
        let measure = ["eval", utf8(&set), "--detections", utf8(&results), "--json", "-q"];
        let output = yolo_lat(&[&measure[..], arguments].concat());
        let value: Value = serde_json::from_str(&stdout(&output)).unwrap_or_else(|_| panic!("{}", stderr(&output)));
        assert_eq!((&value["images"], value["map50"].as_f64()), (&images.into(), Some(100.0)), "{value}");
    }
    // Ids of a file, by name.
    let categories = folder.path().join("categories.json");
    std::fs::write(&categories, r#"{"categories": [{"id": 0, "name": "dog"}, {"id": 41, "name": "Cat"}]}"#).unwrap();
    let ids = ["-f", "coco", "--categories", utf8(&categories)];
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
            .args(["-vf", "scale=128:96", utf8(clip)])
            .status();
        assert!(made.unwrap().success());
    }
    let out = folder.path().join("out");
    let formats = ["-f", "csv", "-f", "coco", "-f", "yolo", "-f", "cvat", "--images", "copy"];
    let said = detect_into(&out, 0, &[&[utf8(&clips[0]), utf8(&clips[1])], &formats[..]].concat());
    assert!(said.contains("2 of 2 images (6 frames of videos)"), "{said}");
    let csv = std::fs::read_to_string(out.join("results.csv")).unwrap();
    assert!(csv.lines().next().unwrap().ends_with(",y2,frame,time"), "{csv}");
    assert!(csv.lines().any(|line| line.contains("b.mkv#2,") && line.ends_with(",2,0.200")), "{csv}");
    let coco: Value = serde_json::from_slice(&std::fs::read(out.join("coco.json")).unwrap()).unwrap();
    assert_eq!(
        (&coco[0]["image_id"], &coco[0]["file_name"]),
        (&"a/000000".into(), &utf8(&folder.path().join("a/000000.jpg")).into())
    );
    for name in ["labels/b/000002.txt", "images/b/000002.jpg"] {
        assert!(out.join(name).exists(), "{name}");
    }
    detect_into(&out, 0, &[utf8(&clips[0]), "-f", "cvat", "-q"]);
    let cvat = std::fs::read_to_string(out.join("cvat.xml")).unwrap();
    assert!(cvat.contains("<mode>interpolation</mode>") && cvat.contains("id=\"2\" name=\"frame_000002\""), "{cvat}");
}
