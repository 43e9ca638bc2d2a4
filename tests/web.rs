//! The page in a real browser against the CPU engine here: boxes, attention, and what it says when something is wrong. `make web`
//! builds the page; `make test-web` runs all of this, `make test` a short form.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use yolo_lat::attention::mean_of_heads;
use yolo_lat::detector::AttentionOptions;
use yolo_lat::engine::EngineKind;
use yolo_lat::model::Precision;
use yolo_lat::{AttentionLayer, Detector, DetectorOptions, Model, ModelFile, Runtime};
use yolo_lat_shaders::{Shader, ShaderFeatures};

/// What the CPU engine finds in a photograph, and what a point of it looks at in each layer of attention. The photograph goes into
/// `folder` without loss: decoders of JPEG differ by a few shades, which moves boxes by up to a pixel.
fn expected(name: &str, model: &Model, folder: &Path) -> Value {
    let image = image::open(format!("assets/{name}.jpg")).unwrap().into_rgb8();
    image.save(folder.join(format!("{name}.png"))).unwrap();
    let file = ModelFile::Native(model.clone());
    // As the page has it.
    let precision = Some(Precision::F32);
    let options = DetectorOptions { engine: EngineKind::Cpu, precision, ..DetectorOptions::of(&file) };
    let layers = AttentionLayer::all(model, &options.attention).unwrap();
    let point = (image.width() as f32 * 0.45, image.height() as f32 * 0.55);
    let (mut objects, mut looks) = (Vec::new(), Vec::new());
    for (number, layer) in layers.iter().enumerate() {
        let attention = AttentionOptions { watched: Some(number), ..AttentionOptions::default() };
        let options = DetectorOptions { attention, ..options.clone() };
        let mut detector = Detector::new(&file, &Runtime::default(), &options).unwrap();
        objects = detector
            .detect(&image)
            .unwrap()
            .iter()
            .map(|object| {
                let [left, top, right, bottom] = object.bbox.corners();
                json!({
                    "class": detector.class_name(object.class), "confidence": object.confidence,
                    "left": left, "top": top, "right": right, "bottom": bottom,
                })
            })
            .collect();
        let view = detector.look((number, layer), image.dimensions(), point).unwrap();
        looks.push(json!({
            "rows": view.grid.0, "columns": view.grid.1, "row": view.query.0, "column": view.query.1,
            "weights": mean_of_heads(&view.weights),
        }));
    }
    json!({ "name": name, "point": { "x": point.0, "y": point.1 }, "objects": objects, "looks": looks })
}

/// Every shader in every form, as a browser gets it.
fn shaders() -> Vec<Value> {
    let forms = Shader::ALL.iter().flat_map(|shader| ShaderFeatures::ALL.map(|features| (shader, features)));
    let form = |(shader, features): (&Shader, ShaderFeatures)| json!({ "name": format!("{} {features:?}", shader.name()), "half": features.half, "source": shader.source_in_browser(features) });
    forms.map(form).collect()
}

#[test]
#[ignore = "takes web/dist, node and Chromium: make test-web, make test"]
fn the_page_finds_what_the_program_finds() {
    let page = Path::new("web/dist/index.html");
    assert!(page.exists(), "{} is missing: `make web` builds it", page.display());
    let photographs = ["astronaut", "chelsea", "coffee", "rocket"];
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("web");
    std::fs::create_dir_all(&folder).unwrap();
    let of = |name: &str| {
        let model = Model::load(name).unwrap();
        let photographs: Vec<Value> = photographs.iter().map(|name| expected(name, &model, &folder)).collect();
        json!({ "model": name, "classes": model.config.classes, "photographs": photographs })
    };
    let models: Vec<Value> = ["n", "s"].map(of).into();
    assert!(models.iter().all(|model| !model["photographs"][0]["objects"].as_array().unwrap().is_empty()));
    std::fs::write(folder.join("expected.json"), serde_json::to_vec(&models).unwrap()).unwrap();
    std::fs::write(folder.join("shaders.json"), serde_json::to_vec(&shaders()).unwrap()).unwrap();
    let form = std::env::var("YOLO_LAT_WEB").unwrap_or_else(|_| "short".into());
    let status =
        Command::new("node").arg("crates/web/tests/browser.mjs").arg("web/dist").arg(&folder).arg(form).status();
    assert!(status.unwrap().success(), "the page does not do what it should: see above");
}
