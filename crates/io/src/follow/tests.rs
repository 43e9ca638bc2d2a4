use super::*;
use yolo_lat_core::geometry::BBox;
use yolo_lat_core::postprocess::Detection;

const FRAME: Duration = Duration::from_millis(33);

/// A cat at `x` that was detected with a confidence.
fn cat(x: f32, confidence: f32) -> NamedDetection {
    let bbox = BBox::from_xywh([x, 10.0, 40.0, 30.0]);
    NamedDetection::new(Detection { class: 7, confidence, bbox }, "cat".into())
}

fn follower(track: bool, smooth: bool) -> Follower {
    Follower::new(FollowOptions { confidence: 0.5, track, smooth, ..Default::default() })
}

fn follow(follower: &mut Follower, frame: u32, detections: &[NamedDetection]) -> Vec<NamedDetection> {
    follower.follow(detections.to_vec(), (640, 480), frame * FRAME).detections
}

#[test]
fn without_tracks_the_least_confidence_alone_decides() {
    let mut follower = follower(false, false);
    assert_eq!(follow(&mut follower, 0, &[cat(0.0, 0.5), cat(90.0, 0.49)]), [cat(0.0, 0.5)]);
}

#[test]
fn an_object_goes_on_with_less_confidence_than_it_began_with() {
    let mut follower = follower(true, false);
    follow(&mut follower, 0, &[]);
    let confidences = [0.4, 0.6, 0.6, 0.2, 0.6, 0.04];
    let found: Vec<Vec<(u64, f32)>> = (1..)
        .zip(confidences)
        .map(|(frame, confidence)| {
            let found = follow(&mut follower, frame, &[cat(0.0, confidence)]);
            found.iter().map(|found| (found.track.as_ref().unwrap().id, found.confidence)).collect()
        })
        .collect();
    // It begins with a sure detection, is confirmed by the next, and is not found in what is too faint.
    assert_eq!(found, [vec![], vec![], vec![(1, 0.6)], vec![(1, 0.2)], vec![(1, 0.6)], vec![]]);
}

#[test]
fn results_are_as_detected_unless_smoothed_ones_are_asked_for() {
    let [mut raw, mut smooth] = [false, true].map(|smooth| follower(true, smooth));
    let xs = [0.0, 4.0, 1.0, 9.0];
    for (frame, x) in (0..).zip(xs) {
        let (raw, smooth) =
            (&follow(&mut raw, frame, &[cat(x, 0.9)])[0], &follow(&mut smooth, frame, &[cat(x, 0.9)])[0]);
        assert_eq!(raw.bbox, cat(x, 0.9).bbox);
        assert_eq!((raw.shown_box(), smooth.bbox), (smooth.bbox, smooth.shown_box()));
        assert_eq!(raw.trail().len(), frame as usize + 1);
    }
    let last = &follow(&mut smooth, 4, &[cat(3.0, 0.5)])[0];
    assert!(last.bbox != cat(3.0, 0.5).bbox && (0.5..0.9).contains(&last.confidence), "{last:?}");
}

#[test]
fn trails_are_two_seconds_long() {
    let mut follower = follower(true, false);
    let mut trail = |frame: u32| {
        let found = follow(&mut follower, frame, &[cat(frame as f32, 0.9)]);
        (found[0].track.as_ref().unwrap().id, found[0].trail().len())
    };
    assert_eq!((0..200).map(&mut trail).last(), Some((1, 61)));
    // It was not seen for longer than that, in no frame.
    assert_eq!(trail(300), (1, 1));
}

#[test]
fn a_record_has_number_age_and_speed_beside_the_box() {
    let mut follower = follower(true, false);
    for frame in 0..60 {
        follow(&mut follower, frame, &[cat(3.0 * frame as f32, 0.9)]);
    }
    let found = follow(&mut follower, 60, &[cat(180.0, 0.9)]);
    let value = serde_json::to_value(&found[0]).unwrap();
    assert_eq!((&value["id"], &value["age"], &value["name"]), (&1.into(), &1.98.into(), &"cat".into()));
    // Three pixels in 33 ms.
    assert!((value["speed"].as_f64().unwrap() - 90.9).abs() < 1.0, "{value}");
    assert!(value.get("track").is_none() && value.get("shown").is_none() && value.get("zones").is_none(), "{value}");
    let again: NamedDetection = serde_json::from_value(value).unwrap();
    assert_eq!(again.track.unwrap().id, 1);
    let untracked = serde_json::to_value(cat(0.0, 0.5)).unwrap();
    assert_eq!(untracked.as_object().unwrap().len(), 4, "{untracked}");
    assert_eq!(serde_json::from_value::<NamedDetection>(untracked).unwrap(), cat(0.0, 0.5));
}

#[test]
fn classes_have_least_confidences_and_sizes_of_their_own() {
    let dog = |x: f32, confidence: f32| NamedDetection { class: 3, name: "dog".into(), ..cat(x, confidence) };
    for track in [false, true] {
        let class_confidence = vec![(3, 0.2), (7, 0.8)];
        let mut follower =
            Follower::new(FollowOptions { confidence: 0.5, class_confidence, track, ..Default::default() });
        let found = [cat(0.0, 0.79), cat(100.0, 0.81), dog(200.0, 0.21), dog(300.0, 0.19)];
        follow(&mut follower, 0, &found);
        assert_eq!(
            follow(&mut follower, 1, &found).iter().map(|found| found.bbox.x1).collect::<Vec<_>>(),
            [100.0, 200.0]
        );
    }
    // The detector goes down to the least of all classes.
    let options = FollowOptions { confidence: 0.5, class_confidence: vec![(3, 0.2), (7, 0.8)], ..Default::default() };
    assert_eq!(options.detector_confidence(), 0.2);
    assert!(FollowOptions { track: true, ..options }.detector_confidence() < 0.2);
    // Boxes have 1200 square pixels, 0.0039 of the image.
    let seen = |least_size: Vec<(Option<usize>, LeastSize)>| {
        let mut follower = Follower::new(FollowOptions { least_size, ..Default::default() });
        let found = follow(&mut follower, 0, &[cat(0.0, 0.9), dog(100.0, 0.9)]);
        found.iter().map(|found| found.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(seen(vec![(None, LeastSize::Pixels(1201))]), Vec::<String>::new());
    assert_eq!(seen(vec![(None, LeastSize::Pixels(1201)), (Some(3), LeastSize::Share(0.0039))]), ["dog"]);
    assert_eq!(seen(vec![(Some(3), LeastSize::Pixels(1201))]), ["cat"]);
}

#[test]
fn zones_are_told_by_the_bottom_centre_and_lines_count_what_is_followed() {
    let zones = ["left=0,0,0.5,0,0.5,1,0,1", "right=0.5,0,1,0,1,1,0.5,1"].map(|zone| zone.parse().unwrap()).to_vec();
    let lines: Vec<Line> = vec!["middle=0.5,1,0.5,0".parse().unwrap()];
    let options = FollowOptions { track: true, zones, lines: lines.clone(), ..Default::default() };
    let mut follower = Follower::new(options.clone());
    let count = |frames: std::ops::Range<u32>, follower: &mut Follower| {
        let mut last = Followed::default();
        for frame in frames {
            let x = 200.0 + 5.0 * frame as f32;
            last = follower.follow(vec![cat(x, 0.9), cat(x - 200.0, 0.9)], (640, 480), frame * FRAME);
            for found in &last.detections {
                let zone = if found.bbox.x1 + 20.0 < 320.0 { "left" } else { "right" };
                assert!(found.zones.iter().any(|name| name == zone), "{found:?}");
            }
        }
        let crossings = last.counts["middle"];
        (crossings.entered, crossings.left)
    };
    assert_eq!(count(0..15, &mut follower), (0, 0));
    assert_eq!(count(15..40, &mut follower), (1, 0));
    // Other options change no count, another source begins anew, and images have none.
    follower.set_options(&FollowOptions { confidence: 0.3, ..options.clone() });
    assert_eq!(count(40..70, &mut follower), (2, 0));
    follower.restart();
    assert_eq!(count(0..2, &mut follower), (0, 0));
    let mut images = Follower::new(options.of_images());
    assert!(images.follow(vec![cat(0.0, 0.9)], (640, 480), FRAME).counts.is_empty());
    follower.set_options(&FollowOptions { lines: Vec::new(), ..options });
    assert!(follower.follow(vec![], (640, 480), FRAME).counts.is_empty());
}
