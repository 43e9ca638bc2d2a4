//! Arbitrary bytes into everything that reads files: no panic, no hang, no unbounded memory. Seconds each in
//! `make test`, ten minutes each in `make fuzz`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use arbtest::arbitrary::{Result, Unstructured};
use arbtest::arbtest;
use yolo_lat::eval::Dataset;
use yolo_lat::model::{Model, ModelConfig, Weights, graph_of};
use yolo_lat::source::{Found, decode_image, files_in, holds_video, image_size, is_picture, is_video, open_image};
use yolo_lat::{Detector, DetectorOptions};

fn budget_ms() -> u64 {
    let seconds = std::env::var("YOLO_LAT_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse::<u64>().ok());
    seconds.unwrap_or(4) * 1000
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

/// A small picture in every format.
fn pictures() -> Vec<Vec<u8>> {
    let picture = image::open("assets/chelsea.jpg").unwrap().thumbnail(40, 40);
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
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    };
    formats.into_iter().map(encode).collect()
}

/// Stray, cut and misnamed files in a folder: what is read has the size that was said, and nothing panics.
#[test]
fn fuzz_picture_files() {
    let mut seeds = pictures();
    let turned = std::fs::read("tests/data/rot.jpg").unwrap();
    let motion = [&turned[..], b"\0\0\0\x18ftypmp42\xFF\xDA\xFF\xD9"].concat();
    let without_end = turned[..turned.len() - 2].to_vec();
    let video = b"\x1A\x45\xDF\xA3\x01\0\0\0\0\0\0\x1Fwebm".to_vec();
    seeds.extend([turned, motion, without_end, video]);
    let names = ["a.jpg", "b.PNG", "c.gif", "d.mpo", "e.mp4", "f.mjpeg", "g", "._h.jpg", "i.txt", "j.tiff"];
    let mut read = 0;
    arbtest(|u| {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..u.int_in_range(1..=3)? {
            let bytes = if u.ratio(1, 3)? { u.choose(&seeds)?.clone() } else { mutate(u, &seeds)? };
            std::fs::write(folder.path().join(u.choose(&names)?), bytes).unwrap();
        }
        let Found { files, errors } = files_in(folder.path(), true, None, |path| is_picture(path) || is_video(path));
        assert!(errors.is_empty() && files.iter().all(|path| !path.ends_with("._h.jpg")));
        for path in files.iter().filter(|path| !holds_video(path)) {
            if let Ok(picture) = open_image(path) {
                read += 1;
                assert_eq!(image_size(path).ok(), Some(picture.dimensions()));
            }
        }
        Ok(())
    })
    .budget_ms(budget_ms());
    assert!(read > 0, "some files must survive, or this test looks at nothing");
}

#[test]
fn fuzz_picture_to_detections() {
    let seeds = pictures();
    let model = Model::load("n").unwrap();
    let options = DetectorOptions { size: Some((32, 32)), threads: 1, ..DetectorOptions::default() };
    let mut detector = Detector::new(&model, &options).unwrap();
    let mut decoded = 0;
    arbtest(|u| {
        if let Ok(picture) = decode_image(&mutate(u, &seeds)?) {
            decoded += 1;
            for detection in detector.detect(&picture).unwrap() {
                assert!((0.25..=1.0).contains(&detection.confidence), "{detection:?}");
                assert!(detection.bbox.x1 >= 0.0 && detection.bbox.x2 <= picture.width() as f32, "{detection:?}");
            }
        }
        Ok(())
    })
    .budget_ms(budget_ms());
    assert!(decoded > 0, "some mutations must survive, or this test looks at nothing");
}

#[test]
fn fuzz_weights() {
    let mut file = Vec::new();
    let header = br#"{"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}"#;
    file.extend((header.len() as u64).to_le_bytes());
    file.extend(header);
    file.extend([0; 12]);
    assert!(Weights::parse(&file, "seed").is_ok());
    arbtest(|u| {
        let bytes = mutate(u, std::slice::from_ref(&file))?;
        if let Ok(weights) = Weights::parse(&bytes, "fuzz") {
            for (name, tensor) in weights.iter() {
                assert_eq!(tensor.shape.iter().product::<usize>(), tensor.values.len(), "{name}");
            }
        }
        Ok(())
    })
    .budget_ms(budget_ms());
}

#[test]
fn fuzz_configuration() {
    let seeds = [
        include_bytes!("../models/yolo-lat-n.toml").to_vec(),
        include_bytes!("../models/yolo-lat-s.toml").to_vec(),
        include_bytes!("golden/bootstrap/yolo-lat-n.toml").to_vec(),
    ];
    arbtest(|u| {
        if let Ok(text) = String::from_utf8(mutate(u, &seeds)?)
            && let Ok(config) = ModelConfig::parse(&text, "fuzz")
        {
            // What is accepted describes a network.
            assert!(graph_of(&config, config.input, config.input).unwrap().parameters() > 0);
        }
        Ok(())
    })
    .budget_ms(budget_ms());
}

#[test]
fn fuzz_labels() {
    let seed = br#"{"images":[{"id":1,"file_name":"a.jpg"}],"categories":[{"id":1,"name":"cat"}],"annotations":[{"image_id":1,"category_id":1,"bbox":[1,2,3,4.5],"area":9,"iscrowd":0}]}"#;
    arbtest(|u| {
        let bytes = mutate(u, std::slice::from_ref(&seed.to_vec()))?;
        if let Ok(dataset) = Dataset::parse_coco(&String::from_utf8_lossy(&bytes), "fuzz".as_ref(), "".as_ref()) {
            for object in dataset.images.iter().flat_map(|image| &image.objects) {
                assert!(object.class < dataset.classes.len() && object.bbox.x1.is_finite());
            }
        }
        Ok(())
    })
    .budget_ms(budget_ms());
}
