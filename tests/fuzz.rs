//! Arbitrary bytes into everything that reads files: no panic, no hang, no unbounded memory. Seconds each in
//! `make test`, ten minutes each in `make fuzz`, a million inputs each in `make fuzz INPUTS=1000000` (docs/TRUST.md).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use arbtest::arbitrary::{Result, Unstructured};
use arbtest::arbtest;
use yolo_lat::eval::{Dataset, Split, TrackScores, measure_tracks};
use yolo_lat::model::{Model, ModelConfig, ModelError, Weights, graph_of};
use yolo_lat::onnx::{Dimension, OnnxGraph, count_parameters};
use yolo_lat::source::{Found, decode_image, files_in, holds_video, image_size, is_image, is_video, open_image};
use yolo_lat::{Detector, DetectorOptions, InputSize, ModelFile, Runtime};

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// Tries a property with arbitrary inputs for seconds; or with as many as YOLO_LAT_FUZZ_INPUTS says, the same ones every time, of
/// which all that fail are named and counted.
fn fuzz(target: &str, mut property: impl FnMut(&mut Unstructured) -> Result<()>) {
    let Some(wanted) = variable("YOLO_LAT_FUZZ_INPUTS") else {
        arbtest(property).budget_ms(1000 * variable("YOLO_LAT_FUZZ_SECONDS").unwrap_or(4));
        return;
    };
    let start = Instant::now();
    let (mut tried, mut findings) = (0, 0);
    for number in 0u64.. {
        if tried == wanted {
            break;
        }
        let bytes = random_bytes(number);
        match catch_unwind(AssertUnwindSafe(|| property(&mut Unstructured::new(&bytes)))) {
            Ok(Ok(())) => {}
            // Too few bytes for an input.
            Ok(Err(_)) => continue,
            Err(_) => {
                findings += 1;
                eprintln!("{target}: input {number} fails");
            }
        }
        tried += 1;
    }
    println!("{target}: {tried} inputs, {findings} findings, {:.0} s", start.elapsed().as_secs_f64());
    assert_eq!(findings, 0);
}

/// 64 to 8192 bytes, always the same for a number: SplitMix64 (Steele, Lea, Flood 2014).
fn random_bytes(number: u64) -> Vec<u8> {
    let mut state = number;
    let next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    };
    std::iter::repeat_with(next).take(8 << (number % 8)).flat_map(u64::to_le_bytes).collect()
}

/// A valid file with some bytes changed, inserted or cut off; or nothing but noise.
fn mutate(u: &mut Unstructured, seeds: &[Vec<u8>]) -> Result<Vec<u8>> {
    if u.ratio(1, 10)? {
        return Ok(u.bytes(u.len().min(4096))?.to_vec());
    }
    let mut bytes = u.choose(seeds)?.clone();
    for _ in 0..u.int_in_range(1..=8)? {
        if bytes.is_empty() {
            break;
        }
        // Headers are where formats break: half of the changes go there.
        let end = if u.arbitrary()? { bytes.len().min(64) } else { bytes.len() };
        let at = u.int_in_range(0..=end - 1)?;
        match u.int_in_range(0..=4)? {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, u.arbitrary()?),
            2 => bytes[at] = *u.choose(&[0, 1, 0x7F, 0x80, 0xFF])?,
            _ => bytes[at] = u.arbitrary()?,
        }
    }
    Ok(bytes)
}

/// A small image in every format.
fn images() -> Vec<Vec<u8>> {
    let image = image::open("assets/chelsea.jpg").unwrap().thumbnail(40, 40);
    let formats = [
        image::ImageFormat::Jpeg,
        image::ImageFormat::Png,
        image::ImageFormat::WebP,
        image::ImageFormat::Bmp,
        image::ImageFormat::Tiff,
        image::ImageFormat::Gif,
    ];
    let encode = |format| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    };
    formats.into_iter().map(encode).collect()
}

/// Text of tracks: what is read is measured with shares that are shares.
#[test]
fn fuzz_tracks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("found.txt");
    let truth = "tests/golden/tracks/truth/walk/gt/gt.txt".as_ref();
    let seeds = [std::fs::read("tests/golden/tracks/found/walk.txt").unwrap(), std::fs::read(truth).unwrap()];
    let mut measured = 0;
    fuzz("tracks", |u| {
        std::fs::write(&path, mutate(u, &seeds)?).unwrap();
        if let Ok(scores) = measure_tracks(truth, &path) {
            measured += 1;
            let TrackScores { clear, identity, hota, .. } = &scores[0].1;
            let shares = [hota.hota(), hota.detection(), hota.association(), identity.idf1(), clear.motp()];
            assert!(shares.iter().all(|share| (0.0..=1.0 + 1e-9).contains(share)) && clear.mota() <= 1.0, "{scores:?}");
        }
        Ok(())
    });
    assert!(measured > 0);
}

/// Stray, cut and misnamed files in a folder: what is read has the size that was said, and nothing panics.
#[test]
fn fuzz_image_files() {
    let mut seeds = images();
    let turned = std::fs::read("tests/data/rot.jpg").unwrap();
    let motion = [&turned[..], b"\0\0\0\x18ftypmp42\xFF\xDA\xFF\xD9"].concat();
    let without_end = turned[..turned.len() - 2].to_vec();
    let video = b"\x1A\x45\xDF\xA3\x01\0\0\0\0\0\0\x1Fwebm".to_vec();
    seeds.extend([turned, motion, without_end, video]);
    let names = ["a.jpg", "b.PNG", "c.gif", "d.mpo", "e.mp4", "f.mjpeg", "g", "._h.jpg", "i.txt", "j.tiff"];
    let mut read = 0;
    fuzz("image files", |u| {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..u.int_in_range(1..=3)? {
            let bytes = if u.ratio(1, 3)? { u.choose(&seeds)?.clone() } else { mutate(u, &seeds)? };
            std::fs::write(folder.path().join(u.choose(&names)?), bytes).unwrap();
        }
        let Found { files, errors } = files_in(folder.path(), true, None, |path| is_image(path) || is_video(path));
        assert!(errors.is_empty() && files.iter().all(|path| !path.ends_with("._h.jpg")));
        for path in files.iter().filter(|path| !holds_video(path)) {
            if let Ok(image) = open_image(path) {
                read += 1;
                assert_eq!(image_size(path).ok(), Some(image.dimensions()));
            }
        }
        Ok(())
    });
    assert!(read > 0, "some files must survive, or this test looks at nothing");
}

#[test]
fn fuzz_image_to_detections() {
    let seeds = images();
    let model = Model::load("n").unwrap();
    let options = DetectorOptions { size: InputSize::Fixed(32, 32), ..DetectorOptions::default() };
    let mut detector = Detector::of_model(&model, &Runtime::with_threads(1), &options).unwrap();
    let mut decoded = 0;
    fuzz("images to detections", |u| {
        if let Ok(image) = decode_image(&mutate(u, &seeds)?) {
            decoded += 1;
            for detection in detector.detect(&image).unwrap() {
                assert!((0.25..=1.0).contains(&detection.confidence), "{detection:?}");
                assert!(detection.bbox.x1 >= 0.0 && detection.bbox.x2 <= image.width() as f32, "{detection:?}");
            }
        }
        Ok(())
    });
    assert!(decoded > 0, "some mutations must survive, or this test looks at nothing");
}

#[test]
fn fuzz_weights() {
    let mut file = Vec::new();
    let header = br#"{"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}"#;
    file.extend((header.len() as u64).to_le_bytes());
    file.extend(header);
    file.extend([0; 12]);
    let mut read = 0;
    fuzz("weights", |u| {
        let bytes = mutate(u, std::slice::from_ref(&file))?;
        if let Ok(weights) = Weights::parse(&bytes, "fuzz") {
            read += 1;
            for (name, tensor) in weights.iter() {
                assert_eq!(tensor.shape.iter().product::<usize>(), tensor.values.len(), "{name}");
            }
        }
        Ok(())
    });
    assert!(read > 0, "some files must survive, or this test looks at nothing");
}

#[test]
fn fuzz_configuration() {
    let seeds = [
        include_bytes!("../models/yolo-lat-n.toml").to_vec(),
        include_bytes!("../models/yolo-lat-s.toml").to_vec(),
        include_bytes!("golden/bootstrap/yolo-lat-n.toml").to_vec(),
    ];
    let mut read = 0;
    fuzz("configuration", |u| {
        if let Ok(text) = String::from_utf8(mutate(u, &seeds)?)
            && let Ok(config) = ModelConfig::parse(&text, "fuzz")
        {
            read += 1;
            // What is accepted describes a network, or one beyond all bounds.
            match graph_of(&config, config.input, config.input) {
                Ok(graph) => assert!(graph.parameters() > 0),
                Err(error) => assert!(matches!(error, ModelError::Graph { .. }), "{error}"),
            }
        }
        Ok(())
    });
    assert!(read > 0, "some files must survive, or this test looks at nothing");
}

#[test]
fn fuzz_labels() {
    let seed = br#"{"images":[{"id":1,"file_name":"a.jpg"}],"categories":[{"id":1,"name":"cat"}],"annotations":[{"image_id":1,"category_id":1,"bbox":[1,2,3,4.5],"area":9,"iscrowd":0}]}"#;
    let mut read = 0;
    fuzz("COCO JSON", |u| {
        let bytes = mutate(u, std::slice::from_ref(&seed.to_vec()))?;
        if let Ok(dataset) = Dataset::parse_coco(&String::from_utf8_lossy(&bytes), "fuzz".as_ref(), "".as_ref()) {
            read += 1;
            for object in dataset.images.iter().flat_map(|image| &image.objects) {
                assert!(object.class < dataset.classes.len() && object.bbox.x1.is_finite());
            }
        }
        Ok(())
    });
    assert!(read > 0, "some files must survive, or this test looks at nothing");
}

/// Labels of one image in a data set that is right for the rest.
fn fuzz_label_file(target: &str, files: &[(&str, &[u8])], labels: &str, seeds: &[&[u8]]) {
    let root = tempfile::tempdir().unwrap();
    for (name, contents) in files {
        let path = root.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, contents).unwrap();
    }
    let path = root.path().join(labels);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let seeds: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.to_vec()).collect();
    let (mut read, mut refused) = (0, 0);
    fuzz(target, |u| {
        std::fs::write(&path, mutate(u, &seeds)?).unwrap();
        match Dataset::load(root.path(), Split::Prefer("val")) {
            Ok(dataset) => {
                read += usize::from(dataset.images.iter().any(|image| !image.objects.is_empty()));
                refused += dataset.faults.len();
                for object in dataset.images.iter().flat_map(|image| &image.objects) {
                    assert!(object.class < dataset.classes.len() && object.bbox.x1.is_finite(), "{object:?}");
                }
                let lines = dataset.faults.iter().map(ToString::to_string);
                lines.for_each(|line| assert!(!line.contains('\n'), "one line each: {line}"));
            }
            Err(error) => assert_eq!(error.to_string().lines().count(), 1, "{error}"),
        }
        Ok(())
    });
    assert!(read > 0 && refused > 0, "some files must be right and some wrong, or this test looks at nothing");
}

fn png() -> Vec<u8> {
    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(8, 6).write_to(&mut png, image::ImageFormat::Png).unwrap();
    png.into_inner()
}

#[test]
fn fuzz_yolo_labels() {
    let seeds: [&[u8]; 3] = [
        b"0 0.5 0.5 0.5 0.5\n1 0.1 0.1 0.2 0.2\n",
        b"0 0.5 0.5 0.5 0.5 0.9\r\n",
        b"\xEF\xBB\xBF1 0.1 0.1 0.3 0.1 0.3 0.3\r\n",
    ];
    let files: [(&str, &[u8]); 2] = [("images/a.png", &png()), ("classes.txt", b"cat\ndog\n")];
    fuzz_label_file("YOLO txt", &files, "labels/a.txt", &seeds);
}

#[test]
fn fuzz_voc_labels() {
    let seeds: [&[u8]; 2] = [
        b"<annotation><filename>a.png</filename><object><name>cat</name><difficult/><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></object></annotation>",
        b"<?xml version=\"1.0\" encoding=\"utf-8\"?><annotation><size><width>8</width><height>6</height></size><object><name>dog</name><difficult>1</difficult><bndbox><xmax>3.5</xmax><ymax>3</ymax><xmin>1</xmin><ymin>1</ymin></bndbox></object></annotation>",
    ];
    fuzz_label_file("VOC XML", &[("JPEGImages/a.png", &png())], "Annotations/a.xml", &seeds);
}

/// Folders with files of all formats, some broken, misnamed, in wrong places or linked in circles.
#[test]
fn fuzz_data_set_folders() {
    let xml = b"<annotation><filename>a.png</filename><object><name>cat</name><difficult/><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></object></annotation>";
    let json = br#"{"images":[{"id":1,"file_name":"images/a.png"},{"id":"b","coco_url":"http://x/a.png"}],"categories":[{"id":1,"name":"cat"}],"annotations":[{"image_id":1,"category_id":1,"bbox":[1,2,3,4.5],"area":NaN,"iscrowd":false}]}"#;
    let png = png();
    let seeds: [&[u8]; 11] = [
        xml,
        json,
        &png,
        b"0 0.5 0.5 0.5 0.5\n1.0 0.1 0.1 0.2 0.2 0.9\n",
        b"\xEF\xBB\xBF1 0.1 0.1 0.3 0.1 0.3 0.3\r\n",
        b"path: .\nval: images\ntrain: [train.txt, images/train]\nnames: {0: cat, 1: no}\nkpt_shape: [2, 3]\n",
        b"names:\n- cat\n- dog\nval: ../valid/images\n",
        b"classes = 2\ntrain = data/train.txt\nnames = classes.txt\n",
        b"cat\ndog\n",
        b"images/a.png\n./b.png\n\n../images/train/a.png 1\n",
        b"",
    ];
    let seeds = seeds.map(<[u8]>::to_vec);
    let folders = [
        "",
        "images",
        "labels",
        "Annotations",
        "JPEGImages",
        "annotations",
        "images/train",
        "labels/train",
        "valid",
        "valid/images",
        "ImageSets/Main",
    ];
    let names = [
        "a.png",
        "a.txt",
        "a.xml",
        "b.jpg",
        "b.txt",
        "data.yaml",
        "x.yml",
        "classes.txt",
        "obj.data",
        "obj.names",
        "train.txt",
        "val.txt",
        "annotations.json",
        "_annotations.coco.json",
        "instances_val.json",
        "._a.png",
        ".txt",
        "a.png.txt",
        "\u{1F408}.png",
    ];
    let mut read = 0;
    fuzz("data set folders", |u| {
        let root = tempfile::tempdir().unwrap();
        for _ in 0..u.int_in_range(1..=14)? {
            let folder = root.path().join(u.choose(&folders)?);
            let path = folder.join(u.choose(&names)?);
            if std::fs::create_dir_all(&folder).is_err() {
                continue;
            }
            // Mostly what belongs under that name, so that the readers get far.
            let usual = match path.extension().and_then(|extension| extension.to_str()) {
                Some("xml") => 0,
                Some("json") => 1,
                Some("png" | "jpg") => 2,
                Some("txt") => u.int_in_range(3..=4)?,
                Some("yaml" | "yml") => u.int_in_range(5..=6)?,
                Some("data") => 7,
                _ => 8,
            };
            let _ = match u.int_in_range(0..=15)? {
                0 => std::fs::create_dir(&path),
                #[cfg(unix)]
                1 => std::os::unix::fs::symlink(root.path(), &path),
                2 => std::fs::write(&path, u.choose(&seeds)?),
                3..=5 => std::fs::write(&path, mutate(u, &seeds[usual..=usual])?),
                _ => std::fs::write(&path, &seeds[usual]),
            };
        }
        let list = root.path().join("train.txt").to_string_lossy().into_owned();
        let split =
            *u.choose(&[Split::Prefer("val"), Split::Prefer("train"), Split::Only("val"), Split::Only(&list)])?;
        let path = root.path().join(u.choose(&[
            "",
            "",
            "",
            "valid",
            "data.yaml",
            "obj.data",
            "train.txt",
            "annotations.json",
            "a.xml",
        ])?);
        match Dataset::load(&path, split) {
            Ok(dataset) => {
                read += usize::from(dataset.images.iter().any(|image| !image.objects.is_empty()));
                read += 1;
                for object in dataset.images.iter().flat_map(|image| &image.objects) {
                    assert!(object.class < dataset.classes.len() && object.bbox.x1.is_finite(), "{object:?}");
                }
                dataset
                    .notes
                    .iter()
                    .chain(&dataset.faults.iter().map(ToString::to_string).collect::<Vec<_>>())
                    .for_each(|line| {
                        assert!(!line.is_empty() && !line.contains('\n'), "one line each: {line}");
                    });
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        Ok(())
    });
    assert!(read > 0, "some folders must hold a data set, or this test looks at nothing");
}

/// Damaged ONNX files: our reader, and ONNX Runtime behind it.
#[test]
fn fuzz_onnx_files() {
    let runtime = Runtime::with_threads(1);
    let with_runtime = runtime.onnx_runtime().inspect_err(|error| eprintln!("without ONNX Runtime: {error}")).is_ok();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fuzz.onnx");
    let seeds = [vec![1, 84, 21], vec![1, 300, 6]].map(|sides| {
        let mut graph = OnnxGraph::default();
        graph.input("images", &[1, 3, 32, 32].map(Dimension::Fixed));
        let values = graph.floats(&sides, &vec![0.5; sides.iter().product()]);
        graph.node_named("Identity", &[&values], "output", &[]);
        graph.output("output", &sides.iter().copied().map(Dimension::Fixed).collect::<Vec<_>>());
        graph.metadata("names", "{0: 'a'}");
        graph.finish("fuzz", 17)
    });
    let (mut counted, mut opened) = (0, 0);
    fuzz("ONNX files", |u| {
        let bytes = mutate(u, &seeds)?;
        counted += usize::from(count_parameters(&bytes).is_some());
        if with_runtime {
            std::fs::write(&path, bytes).unwrap();
            let file = ModelFile::open(path.to_str().unwrap());
            match file.map(|file| Detector::new(&file, &runtime, &DetectorOptions::default())) {
                Ok(Ok(_)) => opened += 1,
                Ok(Err(error)) => assert_eq!(error.to_string().lines().count(), 1, "{error}"),
                Err(error) => assert_eq!(error.to_string().lines().count(), 1, "{error}"),
            }
        }
        Ok(())
    });
    assert!(counted > 0 && (opened > 0 || !with_runtime), "some files must be read, or this test looks at nothing");
}

/// What a foreign ONNX file says of itself, and the shapes of its outputs: read or refused in one line.
#[test]
fn fuzz_onnx_headers() {
    let runtime = Runtime::with_threads(1);
    let with_runtime = runtime.onnx_runtime().inspect_err(|error| eprintln!("without ONNX Runtime: {error}")).is_ok();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fuzz.onnx");
    let image = image::RgbImage::from_pixel(40, 30, image::Rgb([200, 100, 50]));
    let metadata = [
        ("names", "{0: 'a', 1: \"b\"}"),
        ("imgsz", "[32, 32]"),
        ("task", "obb"),
        ("kpt_shape", "[17, 3]"),
        ("end2end", "True"),
        ("mean", "[0.5, 1, 2]"),
        ("std", "1"),
        ("fit", "stretch"),
        ("border", "114"),
    ];
    let mut opened = 0;
    fuzz("ONNX headers", |u| {
        let mut graph = OnnxGraph::default();
        let side = |u: &mut Unstructured| Ok(*u.choose(&[1, 2, 3, 4, 6, 7, 21, 22, 32, 34, 63, 84, 85, 112, 300])?);
        let shape = if u.ratio(1, 4)? { [1, 32, 32, 3] } else { [*u.choose(&[1, 2])?, 3, 32, 32] };
        graph.input("images", &shape.map(Dimension::Fixed));
        for output in 0..*u.choose(&[1, 1, 1, 2, 6, 8])? {
            let mut sides = vec![shape[0]];
            for _ in 0..*u.choose(&[1, 2, 2, 2, 2, 3])? {
                sides.push(side(u)?);
            }
            let value = *u.choose(&[0.0, 0.5, 1.0, 3.0, -1.0, f32::NAN, f32::INFINITY])?;
            let values = graph.floats(&sides, &vec![value; sides.iter().product()]);
            graph.node_named("Identity", &[&values], &format!("output{output}"), &[]);
            graph.output(&format!("output{output}"), &sides.iter().copied().map(Dimension::Fixed).collect::<Vec<_>>());
        }
        for (key, value) in metadata {
            if u.ratio(1, 3)? {
                let value = mutate(u, std::slice::from_ref(&value.as_bytes().to_vec()))?;
                // ONNX Runtime hands texts over up to their first NUL.
                graph.metadata(key, &String::from_utf8_lossy(&value).replace('\0', " "));
            }
        }
        let bytes = graph.finish("fuzz", 17);
        count_parameters(&mutate(u, std::slice::from_ref(&bytes))?);
        if with_runtime {
            std::fs::write(&path, bytes).unwrap();
            let file = ModelFile::open(path.to_str().unwrap()).unwrap();
            let found = match Detector::new(&file, &runtime, &DetectorOptions::default()) {
                Ok(mut detector) => detector.detect(&image),
                Err(error) => Err(error),
            };
            match found {
                Ok(found) => {
                    opened += 1;
                    assert!(found.iter().all(|found| (0.25..=1.0).contains(&found.confidence)), "{found:?}");
                }
                Err(error) => assert_eq!(error.to_string().lines().count(), 1, "{error}"),
            }
        }
        Ok(())
    });
    assert!(opened > 0 || !with_runtime, "some files must be read, or this test looks at nothing");
}
