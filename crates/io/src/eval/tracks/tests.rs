use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::*;
use yolo_lat_core::geometry::BBox;
use yolo_lat_core::postprocess::Detection;
use yolo_lat_core::track::{TrackOptions, Tracked, Tracker};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/tracks");

fn golden(path: &str) -> PathBuf {
    Path::new(GOLDEN).join(path)
}

fn check(name: &str, scores: &TrackScores, expected: &Value) {
    let TrackScores { objects, tracks, clear, identity, hota } = scores;
    let shares = [
        ("hota", hota.hota()),
        ("deta", hota.detection()),
        ("assa", hota.association()),
        ("loca", hota.location()),
        ("mota", clear.mota()),
        ("motp", clear.motp()),
        ("idf1", identity.idf1()),
        ("idp", identity.precision()),
        ("idr", identity.recall()),
    ];
    for (measure, found) in shares {
        let expected = expected[measure].as_f64().unwrap();
        assert!((found - expected).abs() < 1e-6, "{name}: {measure} {found}, {expected} expected");
    }
    let counts = [
        ("switches", clear.switches),
        ("false_alarms", clear.false_alarms),
        ("missed", clear.missed),
        ("objects", *objects),
        ("tracks", *tracks),
    ];
    for (measure, found) in counts {
        assert_eq!(Some(found), expected[measure].as_u64(), "{name}: {measure}");
    }
}

#[test]
fn every_measure_is_that_of_trackeval() {
    let expected: Value = serde_json::from_str(&std::fs::read_to_string(golden("expected.json")).unwrap()).unwrap();
    let scores = measure_tracks(&golden("truth"), &golden("found")).unwrap();
    let mut sum = TrackScores::default();
    for (name, scores) in &scores {
        check(name, scores, &expected[name]);
        sum += scores;
    }
    check("together", &sum, &expected["COMBINED_SEQ"]);
    assert_eq!(scores.len(), 2);
}

/// What our tracker makes of the boxes of tests/golden/tracks.
fn followed(confidence: f32) -> TrackScores {
    let mut sum = TrackScores::default();
    for name in ["crowd", "walk"] {
        let text = std::fs::read_to_string(golden(&format!("found/{name}.txt"))).unwrap();
        let rows: Vec<Vec<f32>> =
            text.lines().map(|line| line.split(',').map(|field| field.parse().unwrap()).collect()).collect();
        let mut tracker = Tracker::new(TrackOptions { confidence, ..TrackOptions::default() });
        let mut found = Vec::new();
        for frame in 1..=60u32 {
            let rows = rows.iter().filter(|row| row[0] as u32 == frame);
            let detection = |row: &Vec<f32>| {
                let bbox = BBox::from_xywh([row[2], row[3], row[4], row[5]]);
                Detection { class: 0, confidence: row[6], bbox }
            };
            let detections: Vec<Detection> = rows.map(detection).collect();
            for Tracked { id, detection, .. } in tracker.update(&detections, frame * Duration::from_secs(1) / 30) {
                let bbox = detections[detection].bbox;
                found.push(Row { frame: frame.into(), id, bbox, unmarked: false, class: mot::MEASURED });
            }
        }
        let truth = mot::read(&golden(&format!("truth/{name}/gt/gt.txt")), true).unwrap();
        sum += &Sequence::new(&truth, &found).measure();
    }
    sum
}

/// Of the same boxes with the same confidences, see tests/golden/tracks/make.py.
#[test]
fn our_tracker_is_no_worse_than_the_published_one() {
    let expected: Value = serde_json::from_str(&std::fs::read_to_string(golden("bytetrack.json")).unwrap()).unwrap();
    let of = |scores: &TrackScores| [scores.hota.hota(), scores.identity.idf1(), scores.clear.mota()];
    let published = ["hota", "idf1", "mota"].map(|measure| expected[measure].as_f64().unwrap());
    let ours = followed(TrackOptions::default().confidence);
    println!(
        "HOTA, IDF1, MOTA: ours {:.3?}, from 0.5 on {:.3?}, published {published:.3?}",
        of(&ours),
        of(&followed(0.5))
    );
    assert!(of(&ours).iter().zip(&published).all(|(found, published)| found >= published), "{ours:?}, {published:?}");
    assert!(Some(ours.clear.switches) <= expected["switches"].as_u64(), "{ours:?}");
}

#[test]
fn a_sequence_is_its_file_or_its_folder() {
    let found = golden("found/walk.txt");
    let of = |truth: &str| measure_tracks(&golden(truth), &found).unwrap();
    let [folder, file] = [of("truth/walk"), of("truth/walk/gt/gt.txt")];
    assert_eq!(folder, file);
    assert_eq!(folder[0].0, "walk");
    // The truth as its own result: a folder of files by name.
    let perfect = measure_tracks(&golden("found"), &golden("found")).unwrap();
    assert_eq!(perfect.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["crowd", "walk"]);
    for (_, scores) in perfect {
        let measures = [scores.hota.hota(), scores.clear.mota(), scores.identity.idf1()];
        assert!(measures.iter().all(|measure| (measure - 1.0).abs() < 1e-12), "{measures:?}");
    }
}

#[test]
fn what_cannot_be_measured_is_said_with_its_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let good = file("good.txt", "1,1,0,0,10,10,1,1,1\n");
    let error = |truth: &Path, found: &Path| measure_tracks(truth, found).unwrap_err().to_string();
    for (name, text, expected) in [
        ("short", "1,1,0,0\n", "line 1: not frame,id,left,top,width,height"),
        ("word", "\n1,a,0,0,10,10\n", "line 2: not frame,id,left,top,width,height"),
        ("zero", "0,1,0,0,10,10\n", "line 1: frame 0 is no number from 1"),
        ("untracked", "1,-1,0,0,10,10,0.5,-1,-1,-1\n", "line 1: -1 is the number of no object"),
        ("gap", "1,1,0,,10,10,10\n", "line 1: not frame,id,left,top,width,height"),
        ("far", "1,1,0,0,1e30,10\n", "line 1: its box has a negative width or height, or is no box in pixels"),
        ("negative", "1,1,0,0,-10,10\n", "line 1: its box has a negative width or height"),
        ("twice", "1,1,0,0,9,9\n1,1,5,5,9,9\n", "line 2: frame 1 has object 1 twice"),
    ] {
        let path = file(&format!("{name}.txt"), text);
        let error = error(&good, &path);
        assert!(error.contains(&format!("{name}.txt: {expected}")), "{error}");
    }
    let unmarked = file("unmarked.txt", "1,1,0,0,10,10,0,1,1\n1,2,0,0,10,10,1,7,1\n");
    assert!(error(&unmarked, &good).contains("unmarked.txt: no object counts"));
    assert!(error(&good, &folder.path().join("missing.txt")).contains("missing.txt: cannot be read"));
    let empty = tempfile::tempdir().unwrap();
    assert!(error(empty.path(), &good).contains("no sequences: neither NAME/gt/gt.txt nor NAME.txt"));
    assert!(error(folder.path(), &good).contains("there are several sequences"));
}
