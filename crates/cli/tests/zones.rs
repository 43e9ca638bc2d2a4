//! Zones, lines, limits of classes, what is drawn, and the file that holds options.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{json_lines, needs_ffmpeg, text, yolo_lat};
use image::{Rgb, RgbImage};
use serde_json::Value;
use yolo_lat::sink::VideoRecorder;

const CAT: &str = "assets/chelsea.jpg";

/// What `detect` gives as JSON lines.
fn detect(arguments: &[&str]) -> Vec<Value> {
    let output = yolo_lat(&[&["detect", "-q", "-f", "jsonl", "--no-timing"], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    json_lines(&output)
}

fn names(record: &Value) -> Vec<&str> {
    record["detections"].as_array().unwrap().iter().map(|found| found["name"].as_str().unwrap()).collect()
}

/// Says in one line what is wrong, and ends with 2.
fn refused(arguments: &[&str], wanted: &str) {
    let output = yolo_lat(arguments);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    assert!(said.contains(wanted) && said.trim_end().lines().count() == 1, "{arguments:?}: {said}");
    assert!(output.stdout.is_empty());
}

fn write(folder: &Path, text: &str) -> String {
    let path = folder.join("house.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A video in which a cat moves down over the middle and up again, with its frames' size 640x480.
fn cat_video(folder: &Path) -> String {
    needs_ffmpeg();
    let cat = image::open("../../assets/chelsea.jpg").unwrap().resize(270, 180, image::imageops::Triangle).into_rgb8();
    let path: PathBuf = folder.join("cat.mp4");
    let mut recorder = VideoRecorder::start(&path, (640, 480)).unwrap();
    for frame in 0..60 {
        let mut image = RgbImage::from_pixel(640, 480, Rgb([114; 3]));
        let step = if frame < 30 { frame } else { 59 - frame };
        image::imageops::replace(&mut image, &cat, 180, 10 + 9 * step);
        recorder.push(&image, Duration::from_millis(40 * frame as u64)).unwrap();
    }
    recorder.finish(None).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn each_detection_says_in_which_zones_its_feet_are() {
    // The cat's box ends at the lower border of the photograph.
    let zones =
        ["--zone", "floor=0,0.7,1,0.7,1,1,0,1", "--zone", "shelf=0,0,1,0,1,0.5,0,0.5", "--zone", "all=0,0,1,0,1,1,0,1"];
    let found = detect(&[&[CAT][..], &zones].concat());
    assert_eq!(found[0]["detections"][0]["zones"], serde_json::json!(["floor", "all"]));
    assert!(detect(&[CAT])[0]["detections"][0].get("zones").is_none());
    let output = yolo_lat(&[&["detect", "-q", CAT, "-f", "csv"][..], &zones].concat());
    let rows: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
    assert!(rows[0].ends_with("y2,zones") && rows[1].ends_with(",floor;all"), "{rows:?}");
}

#[test]
fn classes_have_least_confidences_and_sizes_of_their_own() {
    let both = [CAT, "assets/astronaut.jpg"];
    let least = |conf: &str| detect(&[&both[..], &["--conf", conf]].concat());
    let at = |least: f64, record: &Value| -> Vec<Value> {
        let all = record["detections"].as_array().unwrap().iter();
        all.filter(|found| found["confidence"].as_f64().unwrap() >= least).cloned().collect()
    };
    let many = least("0.05");
    assert!(names(&many[0]).contains(&"cat") && names(&many[1]).contains(&"person"));
    // The detector goes down to the least of all, and each class is cut at its own: the general one is above it, and below it.
    for (conf, of_cats, of_others) in [("0.6,cat=0.05", 0.05, 0.6), ("0.05,cat=0.6", 0.6, 0.05)] {
        for (all, found) in many.iter().zip(&least(conf)) {
            let (cats, others) = (at(of_cats, all), at(of_others, all));
            let cats = cats.into_iter().filter(|found| found["name"] == "cat");
            let others = others.into_iter().filter(|found| found["name"] != "cat");
            let mut wanted: Vec<Value> = cats.chain(others).collect();
            wanted.sort_by(|a, b| b["confidence"].as_f64().unwrap().total_cmp(&a["confidence"].as_f64().unwrap()));
            assert_eq!(found["detections"].as_array().unwrap(), &wanted, "{conf}");
        }
    }
    refused(&["detect", CAT, "--conf", "kitty=0.3"], "--conf: the model knows no \"kitty\"; did you mean \"cat\"?");
    // A number, another word, two options of the same kind.
    assert!(!names(&detect(&[CAT, "--conf", "7=0.99", "--conf", "television=0.1"])[0]).contains(&"cat"));
    // The cat's box covers most of 451 x 300 pixels.
    for (size, seen) in [("0.3", true), ("0.99", false), ("40000", true), ("135000", false), ("0.99,cat=0.3", true)] {
        let found = detect(&[CAT, "--min-size", size]);
        assert_eq!(names(&found[0]).contains(&"cat"), seen, "{size}");
    }
    let live =
        yolo_lat(&["live", "--headless", "--source", CAT, "--format", "jsonl", "--frames", "1", "--conf", "cat=0.99"]);
    let live: Value = serde_json::from_str(text(&live.stdout).lines().next().unwrap()).unwrap();
    assert!(!names(&live).contains(&"cat"), "{live}");
}

#[test]
fn a_track_that_crosses_a_line_is_counted_in_both_directions() {
    let folder = tempfile::tempdir().unwrap();
    let clip = cat_video(folder.path());
    let lines = ["--line", "gate=0.1,0.6,0.9,0.6", "--line", "beside=0.8,0.6,1,0.6"];
    let found = detect(&[&[&*clip, "--classes", "cat"][..], &lines].concat());
    let counts = |record: &Value, line: &str| ["in", "out"].map(|way| record["counts"][line][way].as_u64().unwrap());
    assert_eq!(counts(&found[5], "gate"), [0, 0]);
    assert_eq!(counts(&found[32], "gate"), [1, 0]);
    assert_eq!((counts(&found[59], "gate"), counts(&found[59], "beside")), ([1, 1], [0, 0]));
    assert!(found[59]["detections"][0]["id"].is_u64(), "--line follows objects");
    let words = text(&yolo_lat(&[&["detect", "-q", &clip, "--classes", "cat"][..], &lines].concat()).stdout);
    assert!(words.lines().last().unwrap().contains("; beside 0 in 0 out, gate 1 in 1 out, "), "{words}");
    // An image has nothing that could cross, which is no reason to stop.
    let output = yolo_lat(&["detect", CAT, "--line", "gate=0.1,0.6,0.9,0.6", "-f", "jsonl"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        text(&output.stderr).contains("there is none among the inputs") && !text(&output.stdout).contains("counts")
    );
}

#[test]
fn what_is_saved_shows_boxes_or_hides_objects() {
    let folder = tempfile::tempdir().unwrap();
    let saved = |draw: &str| {
        let out = folder.path().join(draw);
        let zone = ["--zone", "left=0,0,0.5,0,0.5,1,0,1", "--draw", draw, "--save-images", "-o", out.to_str().unwrap()];
        let output = yolo_lat(&[&["detect", "-q", CAT][..], &zone].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        image::open(out.join("images/chelsea.jpg")).unwrap().into_rgb8()
    };
    let original = image::open("../../assets/chelsea.jpg").unwrap().into_rgb8();
    // Differences of neighbours, in the middle of the face.
    let detail = |image: &RgbImage| -> u32 {
        let points = (90..140).flat_map(|y| (180..280).map(move |x| (x, y)));
        points.map(|(x, y)| u32::from(image.get_pixel(x, y)[1].abs_diff(image.get_pixel(x + 1, y)[1]))).sum()
    };
    // Mean difference at the left border, beside the cat, where a zone's border is drawn.
    let border = |image: &RgbImage| -> u32 {
        (5..290).map(|y| u32::from(image.get_pixel(0, y)[1].abs_diff(original.get_pixel(0, y)[1]))).sum::<u32>() / 285
    };
    let [shown, blurred, tiles, heat] = ["box", "blur", "pixelate", "heat"].map(saved);
    assert!(detail(&shown) > 7 * detail(&original) / 10, "{} {}", detail(&shown), detail(&original));
    assert!(detail(&blurred) < detail(&original) / 3 && detail(&tiles) < detail(&original) / 3);
    assert!(
        border(&shown) > 30 && border(&blurred) < 8 && border(&tiles) < 8,
        "{} {}",
        border(&shown),
        border(&blurred)
    );
    let red = |image: &RgbImage| i32::from(image.get_pixel(240, 170)[0]) - i32::from(image.get_pixel(240, 170)[2]);
    assert!(red(&heat) > red(&original) + 40, "{} {}", red(&heat), red(&original));
    refused(
        &["detect", CAT, "--draw", "blurr"],
        "invalid value 'blurr' for '--draw <HOW>' [possible values: box, blur, pixelate, heat]",
    );
}

#[test]
fn a_file_holds_options_and_the_command_line_comes_first() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(
        folder.path(),
        r#"
        classes = ["person", "cat"]
        conf = ["0.05", "cat=0.3"]
        draw = "blur"      # for --save-images, which is not asked for here
        headless = true    # of `live`

        [zone]
        floor = [[0, 0.7], [1, 0.7], [1, 1], [0, 1]]
        "#,
    );
    let found = detect(&[CAT, "--config", &file]);
    assert_eq!(found[0]["detections"][0]["zones"], serde_json::json!(["floor"]));
    let same = ["--classes", "person,cat", "--conf", "0.05,cat=0.3", "--zone", "floor=0,0.7,1,0.7,1,1,0,1"];
    assert_eq!(found, detect(&[&[CAT][..], &same].concat()));
    let other = detect(&["--config", &file, CAT, "--classes", "dog", "--zone", "top=0,0,1,0,1,0.1"]);
    assert!(names(&other[0]).iter().all(|name| *name == "dog"), "{other:?}");
    let live = yolo_lat(&["live", "--config", &file, "--source", CAT, "--format", "jsonl", "--frames", "1"]);
    assert_eq!(live.status.code(), Some(0), "{}", text(&live.stderr));
    let live: Value = serde_json::from_str(text(&live.stdout).lines().next().unwrap()).unwrap();
    assert_eq!(live["detections"][0]["zones"], serde_json::json!(["floor"]));
}

#[test]
fn what_is_wrong_is_said_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    for (file, wanted) in [
        ("clases = ['dog']", "house.toml: no option is called \"clases\"; did you mean \"classes\"?"),
        ("conf = 3", "house.toml: invalid value '3' for '--conf <SHARE>': expected a number from 0 to 1, found 3"),
        ("[zone]\ndoor = [0, 0, 1, 1]", "house.toml: invalid value 'door=0,0,1,1' for '--zone"),
        ("[zone]\ndoor = [0, 0, 1, 0, 1, 1]\ndoor = [0, 0, 1, 0, 1, 1]", "house.toml: line 3: duplicate key"),
        ("conf = ", "house.toml: line 1: "),
        ("conf = { persn = 0.4 }", "--conf: the model knows no \"persn\"; did you mean \"person\"?"),
    ] {
        refused(&["detect", CAT, "--config", &write(folder.path(), file)], wanted);
        refused(&["live", "--headless", "--source", CAT, "--config", &write(folder.path(), file)], wanted);
    }
    let (tv, tvmonitor) = ("--conf", "tv=0.3,tvmonitor=0.4");
    for (arguments, wanted) in [
        (&["--config", "no/such.toml"][..], "--config no/such.toml: No such file"),
        (&["--zone", "door=0,0,1,1"], "door: a zone has at least 3 points, found 2"),
        (&["--zone", "door=0,0,640,0,640,480"], "door: 640 is outside of the image"),
        (&["--zone", "door"], "expected NAME=x1,y1,x2,y2,..."),
        (
            &["--zone", "a=0,0,1,0,1,1", "--zone", "a=0,0,1,0,1,1"],
            "--zone a is there twice: each needs a name of its own",
        ),
        (&["--line", "gate=0,1.2,1,1.2"], "gate: 1.2 is outside of the image"),
        (&["--line", "gate=0,0,1,0,1,1"], "gate: a line has 2 points, found 3"),
        (&["--line", "a=0,0,1,1", "--line", "a=0,1,1,0"], "--line a is there twice"),
        (&["--line", "a=0,0,1,1", "--track=false"], "--line counts tracked objects"),
        (&[tv, tvmonitor], "--conf has two values for tvmonitor"),
        (&["--conf", "0.3", "--conf", "0.4"], "--conf has two values for all classes"),
        (&["--min-size", "1.5"], "expected a share of the image's area below 1, or square pixels"),
        (&["--min-size", "persn=0.1"], "--min-size: the model knows no \"persn\""),
    ] {
        refused(&[&["detect", CAT][..], arguments].concat(), wanted);
        refused(&[&["live", "--headless", "--source", CAT][..], arguments].concat(), wanted);
    }
}
