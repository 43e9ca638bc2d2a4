//! The program as users run it: options, engines, usage errors, what is told of models.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{folder_of_images, program, stderr, stdout, utf8, yolo_lat};
use serde_json::Value;

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
fn integers_that_are_not_to_be_had_are_refused_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let onnx = folder.path().join("somebody.onnx");
    std::fs::write(&onnx, "a network").unwrap();
    for (model, says) in [
        ("train/start/n-plain.toml", "yolo-lat-n has no steps for int8: take --precision f32"),
        (onnx.to_str().unwrap(), "an ONNX file has its own"),
    ] {
        let output = yolo_lat(&["detect", "assets", "-m", model, "--precision", "int8"]);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        let said = stderr(&output);
        assert!(said.contains(says) && said.trim().lines().count() == 1, "{said}");
    }
}

#[test]
fn engines_give_the_same_detections() {
    let detect = |engine: &str, precision: &str| -> Value {
        let engine = ["--engine", engine, "--precision", precision, "--size", "160"];
        let output = yolo_lat(&[&["detect", "assets", "--format", "json", "--no-timing"][..], &engine].concat());
        serde_json::from_str(&stdout(&output)).unwrap()
    };
    // What this engine computes by default is not quite the same.
    assert_ne!(detect("cpu", "f32"), detect("cpu", "auto"));
    assert_eq!(detect("cpu", "int8"), detect("cpu", "auto"));
    assert_eq!(detect("reference", "f32"), detect("reference", "auto"));
    let (cpu, reference) = (detect("cpu", "f32"), detect("reference", "f32"));
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
        let output = yolo_lat(&["detect", "assets/chelsea.jpg", "--engine", "ort", "--ort-lib", utf8(&library)]);
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains("--ort-lib") && error.contains(says) && !error.contains("panicked"), "{error}");
    }
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
    assert!(error(&["detect", "src"]).contains("no images in this folder"));
    assert!(error(&["detect", "assets", "--format", "yolo"]).contains("add -o DIR"));
    assert!(error(&["detect", "assets", "--save-images"]).contains("add -o DIR"));
    assert!(error(&["detect", "assets", "-f", "csv", "-f", "json"]).contains("one format"));
    assert!(error(&["detect", "assets", "-o", "/dev/null/x"]).contains("cannot be written"));
    assert!(error(&["eval", "src"]).contains("no data set found here"));
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
    assert!(all < count(&["--conf", "0.01", "--nms", "greedy"]));
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
    assert!(info("s")["parameters"].as_u64().unwrap() <= 1_100_000);
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
fn completions_and_manual_pages_are_generated() {
    for shell in ["bash", "zsh", "fish"] {
        let output = yolo_lat(&["completions", shell]);
        assert!(stdout(&output).contains("--save-crops") || stdout(&output).contains("save-crops"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(yolo_lat(&["man", "-o", utf8(folder.path())]).status.code(), Some(0));
    assert!(folder.path().join("yolo-lat-detect.1").exists());
    assert!(stdout(&yolo_lat(&["--help"])).contains("Exit codes:"));
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

/// An ONNX network that finds one box of class 2 in whatever it sees.
fn third_party_network(folder: &Path) -> PathBuf {
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
fn it_is_said_what_a_third_party_network_was_taken_for() {
    let folder = folder_of_images(1);
    let path = third_party_network(folder.path());
    let image = folder.path().join("000.jpg");
    let run = |model: &str, arguments: &[&str]| {
        let output = yolo_lat(&[&["detect", utf8(&image), "-m", model], arguments].concat());
        (output.status.code(), stdout(&output), stderr(&output))
    };
    let (code, _, log) = run(utf8(&path), &["-v"]);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("(yolov8 layout, 3 classes; 64x64, letterboxed (grey 114), RGB / 255)"), "{log}");
    let options = ["-q", "-f", "jsonl", "--names", "a,b,c", "--mean", "-1", "--nms", "box-voting"];
    let (code, found, error) = run(utf8(&path), &options);
    assert_eq!(code, Some(0), "{error}");
    assert!(found.contains("\"c\"") && found.contains("0.8099"), "{found}");
    let (code, _, error) = run(utf8(&path), &["--layout", "yolox-decoded"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("are not of the yolox-decoded layout"), "{error}");
    let (code, _, error) = run("n", &["--fit", "stretch"]);
    assert_eq!((code, error.as_str()), (Some(2), "yolo-lat: --fit is for ONNX files; yolo-lat-n is a model of ours\n"));
}
