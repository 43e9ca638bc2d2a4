use arbtest::arbtest;

use super::*;

const FRAME: Duration = Duration::from_micros(33_333);

fn found(class: usize, confidence: f32, xywh: [f32; 4]) -> Detection {
    Detection { class, confidence, bbox: BBox::from_xywh(xywh) }
}

/// Numbers of what was seen, by detection.
fn ids(tracked: &[Tracked]) -> Vec<(usize, u64)> {
    tracked.iter().map(|tracked| (tracked.detection, tracked.id)).collect()
}

#[test]
fn of_all_pairs_those_with_the_largest_sum_belong_together() {
    // The greedy choice, 0.9, would leave 0.1 for the other.
    let similarity = [[0.9, 0.8], [0.8, 0.1]];
    let pairs = |least| assign(&[0, 1], &[0, 1], least, &|row, column| similarity[row][column]);
    assert_eq!(pairs(0.0), [(0, 1), (1, 0)]);
    assert_eq!(pairs(0.85), [(0, 0)]);
    assert_eq!(assign(&[5, 3, 4], &[7], 0.5, &|row, _| [0.6, 0.9, 0.0][row - 3]), [(4, 7)]);
    assert_eq!(assign(&[], &[1], 0.0, &|_, _| 1.0), []);
}

/// Numbers without order in 0..1.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 24) as f32
    }

    /// In `-most..most`.
    fn around(&mut self, most: f32) -> f32 {
        (2.0 * self.next() - 1.0) * most
    }
}

/// Six objects that pass each other on waves, each hidden for ten frames again and again and often seen faintly; beside them boxes on
/// nothing, sure ones and faint ones.
#[test]
fn in_nine_hundred_frames_no_object_changes_its_number() {
    let (mut tracker, mut noise) = (Tracker::new(TrackOptions::default()), Noise(7));
    let mut hidden = 0;
    for frame in 0..900u32 {
        let mut seen = Vec::new();
        for object in 0..6u32 {
            let turn = (frame + 25 * object) % 150;
            if frame > 10 && turn < 10 {
                hidden += 1;
                continue;
            }
            let (phase, size) = (frame as f32 / (60.0 + 9.0 * object as f32), 60.0 + 8.0 * object as f32);
            let x = 640.0 + 500.0 * (phase + object as f32).sin() + noise.around(1.5);
            let y = 90.0 * object as f32 + 30.0 * phase.cos() + noise.around(1.5);
            let confidence = if noise.next() < 0.3 && frame > 1 && turn != 10 { 0.12 } else { 0.8 };
            seen.push((found(0, confidence, [x, y, size, 1.5 * size + noise.around(2.0)]), Some(object)));
        }
        if frame > 0 {
            let mut anywhere =
                |confidence| found(0, confidence, [noise.next() * 1200.0, noise.next() * 600.0, 30.0, 30.0]);
            let alarms = [anywhere(0.6), anywhere(0.2), anywhere(0.2)];
            seen.extend(alarms.map(|alarm| (alarm, None)));
        }
        let detections: Vec<Detection> = seen.iter().map(|(detection, _)| *detection).collect();
        let tracked = tracker.update(&detections, frame * FRAME);
        let numbered: Vec<_> = tracked.iter().map(|tracked| (seen[tracked.detection].1, tracked.id)).collect();
        let expected: Vec<_> =
            seen.iter().filter_map(|(_, object)| object.map(|object| (Some(object), u64::from(object) + 1))).collect();
        assert_eq!(numbered, expected, "frame {frame}");
    }
    assert_eq!(hidden, 350);
}

#[test]
fn true_times_carry_an_object_over_long_and_short_pauses() {
    let (mut tracker, mut time) = (Tracker::new(TrackOptions::default()), 0);
    for pause in [33, 33, 33, 33, 33, 33, 33, 200, 33, 450, 10, 10, 600, 33] {
        time += pause;
        // 300 pixels a second: in 200 ms farther than its width.
        let tracked =
            tracker.update(&[found(0, 0.9, [0.3 * time as f32, 50.0, 50.0, 90.0])], Duration::from_millis(time));
        assert_eq!(ids(&tracked), [(0, 1)], "{time} ms");
        assert_eq!(tracked[0].age, Duration::from_millis(time - 33));
    }
    let tracked = tracker
        .update(&[found(0, 0.9, [0.3 * (time + 33) as f32, 50.0, 50.0, 90.0])], Duration::from_millis(time + 33));
    assert!((tracked[0].velocity.0 - 300.0).abs() < 10.0 && tracked[0].velocity.1.abs() < 1.0, "{:?}", tracked[0]);
}

#[test]
fn faint_detections_go_on_with_a_track_and_begin_none() {
    let mut tracker = Tracker::new(TrackOptions { confidence: 0.5, ..TrackOptions::default() });
    let mut see = |frame: u32, confidence: f32| {
        ids(&tracker.update(&[found(0, confidence, [10.0, 10.0, 40.0, 40.0])], frame * FRAME))
    };
    for frame in 0..30 {
        assert_eq!(see(frame, 0.4), []);
    }
    // Begun, confirmed, gone on with; what is fainter still is nothing, and a lost object takes a sure detection.
    let confidences = [0.6, 0.6, 0.4, 0.05, 0.04, 0.4, 0.6, 0.4];
    let seen: Vec<usize> = (30..).zip(confidences).map(|(frame, confidence)| see(frame, confidence).len()).collect();
    assert_eq!(seen, [0, 1, 1, 1, 0, 0, 1, 1]);
    assert_eq!(see(38, 0.6), [(0, 1)]);
}

#[test]
fn what_is_seen_once_is_not_told_unless_it_was_there_first() {
    let mut tracker = Tracker::new(TrackOptions::default());
    let here = found(0, 0.9, [10.0, 10.0, 40.0, 40.0]);
    let there = |x: f32| found(0, 0.9, [x, 200.0, 40.0, 40.0]);
    assert_eq!(ids(&tracker.update(&[here], FRAME)), [(0, 1)]);
    for frame in 2..20u32 {
        assert_eq!(ids(&tracker.update(&[there(50.0 * frame as f32), here], frame * FRAME)), [(1, 1)]);
    }
    assert_eq!(ids(&tracker.update(&[there(950.0), here], 20 * FRAME)), [(0, 2), (1, 1)]);
}

#[test]
fn who_was_away_for_long_is_somebody_else() {
    let mut tracker = Tracker::new(TrackOptions::default());
    let here = [found(0, 0.9, [10.0, 10.0, 40.0, 40.0])];
    let mut away_for = |start: u32, frames: u32| {
        (start..start + frames).for_each(|frame| drop(tracker.update(&[], frame * FRAME)));
        (start + frames..start + frames + 5).map(|frame| tracker.update(&here, frame * FRAME)).last().unwrap()[0].id
    };
    assert_eq!([away_for(0, 0), away_for(5, 25), away_for(35, 40)], [1, 1, 2]);
}

#[test]
fn a_track_is_of_the_class_that_it_was_most() {
    let mut tracker = Tracker::new(TrackOptions::default());
    let classes = [6, 6, 5, 6, 5, 6, 6];
    let told: Vec<(u64, usize)> = (0..)
        .zip(classes)
        .map(|(frame, class)| {
            let tracked = tracker.update(&[found(class, 0.8, [10.0 + frame as f32, 10.0, 90.0, 60.0])], frame * FRAME);
            (tracked[0].id, tracked[0].class)
        })
        .collect();
    assert_eq!(told, [(1, 6); 7]);
}

#[test]
fn a_rider_and_the_horse_stay_two() {
    let mut tracker = Tracker::new(TrackOptions::default());
    for frame in 0..60u32 {
        let x = 4.0 * frame as f32;
        let (rider, horse) = (found(14, 0.8, [x + 10.0, 10.0, 80.0, 110.0]), found(12, 0.8, [x, 30.0, 100.0, 100.0]));
        // The rider's box is that of the horse, now and then.
        let rider = if frame % 10 == 9 { Detection { bbox: horse.bbox, ..rider } } else { rider };
        let pair = if frame % 2 == 0 { [rider, horse] } else { [horse, rider] };
        let tracked = tracker.update(&pair, frame * FRAME);
        let told: Vec<_> = tracked.iter().map(|tracked| (pair[tracked.detection].class, tracked.id)).collect();
        assert!(told.contains(&(14, 1)) && told.contains(&(12, 2)), "frame {frame}: {told:?}");
    }
}

#[test]
fn classes_have_limits_of_their_own() {
    let class_confidence = vec![(3, 0.9)];
    let mut tracker = Tracker::new(TrackOptions { class_confidence, ..TrackOptions::default() });
    let both = [found(3, 0.8, [0.0, 0.0, 20.0, 20.0]), found(4, 0.8, [90.0, 0.0, 20.0, 20.0])];
    assert_eq!(ids(&tracker.update(&both, FRAME)), [(1, 1)]);
}

#[test]
fn what_is_shown_trembles_less_than_what_was_seen() {
    let (mut tracker, mut noise) = (Tracker::new(TrackOptions::default()), Noise(3));
    let (mut seen, mut shown) = (0.0, 0.0);
    for frame in 0..300u32 {
        let detection = found(0, 0.7 + noise.around(0.2), [100.0 + noise.around(4.0), 100.0, 60.0, 90.0]);
        let tracked = &tracker.update(&[detection], frame * FRAME)[0];
        if frame >= 30 {
            seen += (detection.bbox.x1 - 100.0).powi(2);
            shown += (tracked.bbox.x1 - 100.0).powi(2);
            assert!((tracked.confidence - 0.7).abs() < 0.12, "{tracked:?}");
        }
    }
    assert!(shown < 0.7 * seen, "{shown} of {seen}");
}

#[test]
fn whatever_comes_each_detection_has_one_number_and_each_number_one_detection() {
    arbtest(|u| {
        let mut tracker = Tracker::new(TrackOptions::default());
        let sides = [0.0, 1.0, 30.0, 31.0, 70.0, -5.0, 1e9, f32::NAN, f32::INFINITY];
        for _ in 0..u.int_in_range(1..=12)? {
            let time = Duration::from_millis(u.int_in_range(0..=2_000)?);
            let mut detections = Vec::new();
            for _ in 0..u.int_in_range(0..=6)? {
                let [x1, y1, x2, y2] = [*u.choose(&sides)?, *u.choose(&sides)?, *u.choose(&sides)?, *u.choose(&sides)?];
                let confidence = *u.choose(&[0.0, 0.02, 0.2, 0.25, 0.9, f32::NAN])?;
                detections.push(Detection { class: u.int_in_range(0..=2)?, confidence, bbox: BBox { x1, y1, x2, y2 } });
            }
            let tracked = tracker.update(&detections, time);
            assert!(tracked.is_sorted_by(|a, b| a.detection < b.detection));
            let mut numbers: Vec<u64> = tracked.iter().map(|tracked| tracked.id).collect();
            numbers.sort_unstable();
            assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
            for tracked in &tracked {
                let sides = tracked.bbox.corners();
                assert!(detections[tracked.detection].confidence >= 0.2 && sides.iter().all(|side| side.is_finite()));
            }
        }
        Ok(())
    });
}

/// Of supervision's ByteTrack, by a matrix of eight dimensions: see tests/golden/tracks/make.py.
#[test]
fn the_filter_is_the_published_one() {
    let steps = include_str!("../../../../tests/golden/tracks/kalman.json");
    let steps: Vec<serde_json::Value> = serde_json::from_str(steps).unwrap();
    let numbers = |value: &serde_json::Value| -> Vec<f64> {
        value.as_array().into_iter().flatten().map(|number| number.as_f64().unwrap()).collect()
    };
    let mut motion: Option<Motion> = None;
    for (frame, step) in steps.iter().enumerate() {
        let (seen, expected) = (numbers(&step["seen"]), numbers(&step["state"]));
        let bbox = || {
            let [x, y, aspect, height] = seen[..] else { return None };
            let [x, y, width, height] = [x, y, aspect * height, height].map(|side| side as f32);
            Some(BBox { x1: x - width / 2.0, y1: y - height / 2.0, x2: x + width / 2.0, y2: y + height / 2.0 })
        };
        match (&mut motion, bbox()) {
            (None, seen) => motion = seen.map(|seen| Motion::new(&seen)),
            (Some(motion), seen) => {
                motion.predict(1.0);
                seen.iter().for_each(|seen| motion.correct(seen));
            }
        }
        for (place, (found, expected)) in motion.as_ref().unwrap().state().into_iter().zip(expected).enumerate() {
            assert!((found - expected).abs() < 1e-4, "frame {frame}, place {place}: {found}, {expected} expected");
        }
    }
}
