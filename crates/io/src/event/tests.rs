//! Events from results to files and messages, without a clock: images have the times that they are given.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use image::RgbImage;
use serde_json::Value;
use tempfile::TempDir;
use yolo_lat_core::geometry::BBox;
use yolo_lat_core::model::classes::COCO;

use super::*;
use crate::sink::Track;
use crate::source::{Source, SourceOptions, VideoSource, has_ffmpeg};

/// Milliseconds between two images.
const STEP_MS: u64 = 40;

pub(super) fn message(kind: Kind) -> Message {
    let (camera, rule, label) = ("front".to_owned(), "person:door".to_owned(), "person".to_owned());
    let event = EventState { camera, rule, label, bbox: [10, 20, 30, 60], ..EventState::default() };
    Message { kind, before: event.clone(), after: event }
}

struct Sight {
    source: u64,
    frame: Frame,
    detections: Vec<NamedDetection>,
}

impl Seen for Sight {
    fn source(&self) -> (u64, &str) {
        (self.source, "front")
    }

    fn frame(&self) -> &Frame {
        &self.frame
    }

    fn detections(&self) -> &[NamedDetection] {
        &self.detections
    }

    fn counts(&self) -> &Counts {
        static NONE: Counts = Counts::new();
        &NONE
    }
}

/// A person with a track and zones.
fn person(id: u64, confidence: f32, zones: &[&str]) -> NamedDetection {
    let track = Some(Track { id, ..Track::default() });
    let (name, zones) = ("person".into(), zones.iter().map(|&zone| zone.to_owned()).collect());
    NamedDetection { name, class: 0, confidence, bbox: BBox { x1: 8.0, y1: 4.0, x2: 24.0, y2: 36.0 }, track, zones }
}

fn options(folder: &Path, rules: &[&str]) -> EventOptions {
    EventOptions {
        rules: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
        hold: Duration::from_secs(1),
        before: Duration::from_secs(1),
        after: Duration::from_secs(2),
        folder: folder.to_owned(),
        clips: false,
        drawing: DrawOptions::default(),
        post: None,
        mqtt: None,
        run: None,
    }
}

/// Watches `seconds` of images of one source, in which `detections` says what is there at a millisecond.
fn watch(options: EventOptions, seconds: u64, detections: impl Fn(u64) -> Vec<NamedDetection>) -> Summary {
    watch_several(options, seconds, 1, detections)
}

/// The same of several sources of one name that see the same.
fn watch_several(
    options: EventOptions,
    seconds: u64,
    sources: u64,
    detections: impl Fn(u64) -> Vec<NamedDetection>,
) -> Summary {
    let notes = Notes::default();
    let ongoing = Ongoing::of(&options.rules);
    let couriers = couriers(&options, &ongoing, &notes).unwrap();
    let monitor = Monitor::new(options, ongoing, couriers, notes);
    let (sender, receiver) = sync_channel(RESULTS);
    let thread = std::thread::spawn(move || monitor.run(&receiver));
    sender.send(Input::Classes(COCO.map(str::to_owned).to_vec())).unwrap();
    // In the future, so that nothing is overdue.
    let start = SystemTime::now() + Duration::from_secs(3600);
    for (sequence, ms) in (0..1000 * seconds).step_by(STEP_MS as usize).enumerate() {
        for source in 0..sources {
            let (pixels, captured_at) = (RgbImage::new(64, 48), start + Duration::from_millis(ms));
            let frame = Frame { pixels, sequence: sequence as u64, captured_at };
            sender.send(Input::Seen(Arc::new(Sight { source, frame, detections: detections(ms) }))).unwrap();
        }
    }
    drop(sender);
    thread.join().unwrap()
}

/// Takes requests and answers them, until `count` have come; their bodies.
fn receiver(count: usize) -> (String, JoinHandle<Vec<Value>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://me:secret@{}/hook", listener.local_addr().unwrap());
    let take = move || {
        let mut bodies = Vec::new();
        while bodies.len() < count {
            let mut reader = BufReader::new(listener.accept().unwrap().0);
            let mut length = 0;
            let lines = reader.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty());
            for line in lines.map(|line| line.to_lowercase()) {
                length = line.strip_prefix("content-length: ").map_or(length, |text| text.parse().unwrap());
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            bodies.push(serde_json::from_slice(&body).unwrap());
            reader.get_mut().write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
        }
        bodies
    };
    (url, std::thread::spawn(take))
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|other| other == extension)).collect()
}

#[test]
fn an_event_is_posted_when_it_begins_and_when_it_ends() {
    let folder = TempDir::new().unwrap();
    let (url, receiver) = receiver(2);
    let post = Some(Address::http(&url).unwrap());
    let options = EventOptions { post, ..options(folder.path(), &["human:door", "dog"]) };
    let summary = watch(options, 12, |ms| match ms {
        2000..6000 => vec![person(7, if ms == 2400 { 0.9 } else { 0.6 }, &["door", "yard"])],
        6000..8000 => vec![person(7, 0.6, &["yard"])],
        _ => vec![],
    });
    let messages = receiver.join().unwrap();
    let told: Vec<_> = messages.iter().map(|message| message["type"].as_str().unwrap()).collect();
    assert_eq!(told, ["new", "end"]);
    let [new, end] = [0, 1].map(|index| &messages[index]["after"]);
    assert_eq!(
        (&new["camera"], &new["rule"], &new["label"]),
        (&"front".into(), &"human:door".into(), &"person".into())
    );
    assert_eq!((&new["box"], &new["area"], &new["track"]), (&[8, 4, 24, 36].into(), &512.into(), &7.into()));
    assert_eq!((&new["current_zones"], &new["end_time"]), (&["door", "yard"].into(), &Value::Null));
    assert_eq!(new["id"], end["id"]);
    assert!((new["top_score"].as_f64().unwrap() - 0.9).abs() < 1e-6, "that of the snapshot");
    let length = end["end_time"].as_f64().unwrap() - end["start_time"].as_f64().unwrap();
    assert!((length - 3.96).abs() < 1e-3, "{length}");
    let snapshots = files(folder.path(), "jpg");
    assert_eq!(snapshots.len(), 1);
    assert_eq!(new["snapshot_file"].as_str().unwrap(), snapshots[0].to_str().unwrap());
    assert_eq!((summary.events, summary.clips, summary.has_losses()), (1, 0, false));
    assert!(
        summary.to_string().contains("--post http://127.0.0.1:") && !summary.to_string().contains("secret"),
        "{summary}"
    );
}

#[test]
fn an_event_that_goes_on_at_the_end_is_ended() {
    let folder = TempDir::new().unwrap();
    let (url, receiver) = receiver(2);
    let options = EventOptions { post: Some(Address::http(&url).unwrap()), ..options(folder.path(), &["person"]) };
    watch(options, 4, |ms| if ms >= 1000 { vec![person(1, 0.5, &[])] } else { vec![] });
    let messages = receiver.join().unwrap();
    let end = &messages[1]["after"];
    assert_eq!(messages[1]["type"], "end");
    let length = end["end_time"].as_f64().unwrap() - end["start_time"].as_f64().unwrap();
    assert!((length - 2.96).abs() < 1e-3, "{length}");
}

#[test]
fn a_clip_is_as_long_as_its_event_and_what_is_around_it() {
    assert!(has_ffmpeg(), "ffmpeg is not installed; `make test` installs it");
    let folder = TempDir::new().unwrap();
    let options = EventOptions { clips: true, ..options(folder.path(), &["person"]) };
    // One of 3 s, and one so early that little was before it.
    let summary = watch(options, 25, |ms| match ms {
        400..1600 | 10_000..13_000 => vec![person(1, 0.5, &[])],
        _ => vec![],
    });
    assert_eq!((summary.events, summary.clips, summary.lost_clips), (2, 2, 0));
    let mut clips = files(folder.path(), "mp4");
    clips.sort();
    for (clip, wanted) in clips.iter().zip([0.4 + 1.16 + 2.0, 1.0 + 2.96 + 2.0]) {
        let mut video = VideoSource::open(clip, &SourceOptions::default()).unwrap();
        video.next_frame(&AtomicBool::new(false)).unwrap();
        let length = video.length().unwrap().as_secs_f64();
        assert!((length - wanted).abs() < 0.2, "{length} instead of {wanted} s");
    }
    assert_eq!(clips.len(), 2);
}

#[test]
fn sources_of_one_name_have_events_of_their_own() {
    let folder = TempDir::new().unwrap();
    let options = options(folder.path(), &["person"]);
    let summary = watch_several(options, 4, 2, |_| vec![person(1, 0.5, &[])]);
    assert_eq!((summary.events, files(folder.path(), "jpg").len()), (2, 2));
}

#[test]
fn clips_that_find_no_room_beside_others_are_counted() {
    let folder = TempDir::new().unwrap();
    let rules = ["person", "person:a", "person:b", "person:c", "person:d"];
    let options = EventOptions { clips: true, ..options(folder.path(), &rules) };
    let summary = watch(options, 4, |_| vec![person(1, 0.5, &["a", "b", "c", "d"])]);
    assert_eq!((summary.events, summary.clips, summary.lost_clips), (5, CLIPS as u64, 1));
}

#[test]
fn a_result_that_cannot_be_taken_in_time_is_counted() {
    let (sender, _receiver) = sync_channel(1);
    let events = Events {
        sender: Mutex::new(Some(sender)),
        lost: AtomicU64::new(0),
        notes: Notes::default(),
        thread: Mutex::new(None),
    };
    let frame = Frame { pixels: RgbImage::new(8, 8), sequence: 0, captured_at: SystemTime::now() };
    let sight: Arc<dyn Seen> = Arc::new(Sight { source: 0, frame, detections: vec![] });
    (0..3).for_each(|_| events.see(sight.clone()));
    assert_eq!(events.finish().lost_results, 2);
}
