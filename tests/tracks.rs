//! Objects that are followed through what a network really finds.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use image::RgbImage;
use yolo_lat::follow::{FollowOptions, Follower};
use yolo_lat::sink::NamedDetection;
use yolo_lat::{Detector, DetectorOptions, ModelFile, Runtime};

const FRAMES: u32 = 90;

/// The photograph as a camera's sensor would see it in the dark: other noise in every frame.
fn noisy(photograph: &RgbImage, frame: u32) -> RgbImage {
    let mut state = u64::from(frame) + 1;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % 61) as i16 - 30
    };
    let mut image = photograph.clone();
    image.iter_mut().for_each(|byte| *byte = (i16::from(*byte) + noise()).clamp(0, 255) as u8);
    image
}

fn changes(counts: &[usize]) -> usize {
    counts.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

#[test]
fn a_noisy_still_has_as_many_tracks_in_each_frame() {
    let photograph = image::open("assets/chelsea.jpg").unwrap().into_rgb8();
    let file = ModelFile::open("n").unwrap();
    let mut options = DetectorOptions::of(&file);
    let follow = FollowOptions { confidence: options.postprocess.confidence, track: true, ..FollowOptions::default() };
    options.postprocess.confidence = follow.detector_confidence();
    let mut detector = Detector::new(&file, &Runtime::default(), &options).unwrap();
    let (mut follower, mut single) = (Follower::new(follow.clone()), Follower::new(follow.of_images()));
    let (mut tracks, mut boxes) = (Vec::new(), Vec::new());
    for frame in 0..FRAMES {
        let image = noisy(&photograph, frame);
        let found = detector.detect(&image).unwrap();
        let found: Vec<_> = found.into_iter().map(|found| NamedDetection::new(found, String::new())).collect();
        let count = |follower: &mut Follower| {
            follower.follow(found.clone(), image.dimensions(), frame * Duration::from_secs(1) / 30).detections.len()
        };
        tracks.push(count(&mut follower));
        boxes.push(count(&mut single));
    }
    println!("boxes change {} times, tracks {} times", changes(&boxes), changes(&tracks));
    assert!(changes(&boxes) >= 20, "{boxes:?}");
    assert!(changes(&tracks) <= 2 && tracks[FRAMES as usize - 1] > 0, "{tracks:?}");
}
