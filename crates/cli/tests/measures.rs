//! What is measured: accuracy, parity, times, profiles.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use common::{folder_of_images, stderr, stdout, utf8, yolo_lat};
use serde_json::Value;

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
        yolo_lat(&["eval", utf8(folder.path()), "--json", "-q"])
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
    let output = yolo_lat(&["eval", utf8(folder.path()), "--json", "--plot", utf8(&plot)]);
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
    let once = thresholds(&[utf8(folder.path())]);
    assert_eq!(once["datasets"][0]["best"]["f1"], 1.0, "{once}");
    let confidence = |value: &Value| value["confidence"].as_f64().unwrap();
    let curve = once["datasets"][0]["curve"].as_array().unwrap();
    assert_eq!((curve.len(), confidence(&curve[0]), confidence(&curve[90])), (91, 0.05, 0.95));
    assert!(curve.windows(2).all(|pair| pair[0]["recall"].as_f64() >= pair[1]["recall"].as_f64()));
    assert_eq!(confidence(&once), confidence(&thresholds(&[utf8(folder.path()), utf8(folder.path())])));
    let table = stdout(&yolo_lat(&["eval", utf8(folder.path()), "--threshold", "-q"]));
    assert!(table.contains("second boxes/image") && table.contains("<- best F1"), "{table}");
    let several = yolo_lat(&["eval", utf8(folder.path()), utf8(folder.path())]);
    assert!(stderr(&several).contains("one data set at a time"), "{}", stderr(&several));
    // The program's own COCO results measure the same.
    let out = folder.path().join("out");
    let detect = ["detect", utf8(&images), "-o", utf8(&out), "-f", "coco", "-q", "--conf", "0.001"];
    assert_eq!(yolo_lat(&detect).status.code(), Some(0));
    let results = out.join("coco.json");
    let output = yolo_lat(&["eval", utf8(folder.path()), "--json", "--detections", utf8(&results)]);
    let from_file: Value = serde_json::from_str(&stdout(&output)).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    assert_eq!(from_file["map50"], 100.0);
}

#[test]
fn a_data_set_with_a_file_at_fault_is_measured_without_it_unless_strict() {
    let folder = folder_of_images(3);
    let write = |name: &str, rows: &str| std::fs::write(folder.path().join(name), rows).unwrap();
    write("classes.txt", "cat\n");
    for name in ["000.txt", "001.txt"] {
        write(name, "0 0.5 0.5 0.8 0.8\n0 0.5 0.5 0.8 0.8\n");
    }
    write("002.txt", "0 48 32 77 51\n");
    let eval = |more: &[&str]| yolo_lat(&[&["eval", utf8(folder.path()), "--json", "-q"], more].concat());
    let output = eval(&[]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let found: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&found["images"], &found["per_class"][0]["objects"]), (&2.into(), &2.into()));
    let error = stderr(&output);
    assert_eq!(error.lines().count(), 2, "{error}");
    assert!(error.contains("002.txt: line 1: 48 is no share of the image"), "{error}");
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
    assert!(error.contains("none of its 3 images has a labelled object"), "{error}");
    assert!(error.contains("3 label files belong to no image"), "{error}");
    let missing = folder.path().join("absent");
    let error = stderr(&yolo_lat(&["eval", utf8(&missing)]));
    assert_eq!(error.matches("No such file").count(), 1, "{error}");
    let output = eval(&["--split", "val"]);
    assert!(output.status.code() == Some(2) && stderr(&output).contains("no \"val\""), "{}", stderr(&output));
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
    let files = ["--markdown", utf8(&table), "--plot", utf8(&chart), "--accuracy", utf8(&accuracy), "--json"];
    let output = yolo_lat(&[&bench[..], &files].concat());
    serde_json::from_str::<Value>(&stdout(&output)).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    assert!(std::fs::read_to_string(&table).unwrap().starts_with("| model | engine | size |"));
    assert!(image::open(&chart).unwrap().width() > 500);
    let file = folder.path().join("x.onnx");
    std::fs::write(&file, "this is no ONNX file").unwrap();
    let output = yolo_lat(&["bench", "-m", utf8(&file)]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("not an ONNX file"), "{}", stderr(&output));
}

#[test]
fn attention_is_measured_as_tables_json_and_charts() {
    let folder = tempfile::tempdir().unwrap();
    let measure = |what: &[&str], chart: &str| {
        let chart = folder.path().join(chart);
        let output = yolo_lat(&[&["bench"], what, &["--json", "--plot", utf8(&chart)]].concat());
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

    let value = measure(&["token-dilution"], "token-dilution.png");
    for row in value["rows"].as_array().unwrap() {
        let entropy = row["entropy_below_mean"].as_array().unwrap();
        let [short, long] = [&entropy[1], &entropy[5]].map(|value| value.as_f64().unwrap());
        assert!(long > 0.5 * short && long > 1e-3, "{row}");
    }
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

/// On the software adapter, which the set-up installs on Linux: a table, and a trace that Perfetto reads.
#[cfg(target_os = "linux")]
#[test]
fn dispatches_are_profiled_into_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.json");
    let output = yolo_lat(&["detect", "assets/chelsea.jpg", "--adapter", "llvmpipe", "--profile", utf8(&trace)]);
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

/// Every step of the CPU engine with its share of what the processor could do, for images alone and in a batch.
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
            utf8(&trace),
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
