use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use super::*;
use crate::sink::{Item, SinkError};
use yolo_lat_core::geometry::BBox;

/// What a sink was given, and whether it was finished.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<(Vec<Record>, bool)>>);

struct LogSink {
    log: Log,
    /// The image at which it fails, and how.
    fails: Option<(usize, std::io::ErrorKind)>,
    count: usize,
}

impl Sink for LogSink {
    fn write(&mut self, item: Item) -> Result<(), SinkError> {
        self.count += 1;
        if let Some((_, kind)) = self.fails.filter(|(at, _)| *at == self.count) {
            return Err(SinkError { path: "out".into(), source: kind.into() });
        }
        self.log.0.lock().unwrap().0.push(item.record.clone());
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.log.0.lock().unwrap().1 = true;
        Ok(())
    }
}

struct Outcome {
    summary: Summary,
    log: Log,
    failures: Vec<String>,
}

/// Runs over `count` small images one by one; `detect` is called with their number from 0.
fn run(
    count: usize,
    fails: Option<(usize, std::io::ErrorKind)>,
    stop: Arc<AtomicBool>,
    mut detect: impl FnMut(usize) -> Result<Found, DetectFailure>,
) -> Result<Outcome, Box<dyn std::any::Any + Send>> {
    let folder = tempfile::tempdir().unwrap();
    let inputs: Vec<Input> = (0..count)
        .map(|index| {
            let path = folder.path().join(format!("{index:03}.png"));
            RgbImage::new(2, 2).save(&path).unwrap();
            Input { path, stem: format!("{index:03}").into(), contents: None }
        })
        .collect();
    let (log, other) = (Log::default(), Log::default());
    let failing = LogSink { log: other.clone(), fails, count: 0 };
    let sinks: Vec<Box<dyn Sink>> =
        vec![Box::new(failing), Box::new(LogSink { log: log.clone(), fails: None, count: 0 })];
    let mut failures = Vec::new();
    let mut observer = |event: Event| {
        if let Event::Failed { name, reason } = event {
            failures.push(format!("{name}: {reason}"));
        }
    };
    let outlets = Outlets { sinks, journal: None, known: None, observer: &mut observer };
    let classes = ["cat".to_owned()];
    let options = BatchOptions {
        batch: 1,
        loaders: 2,
        // One image of four pixels at a time.
        memory: 12,
        classes: &classes,
        follow: FollowOptions::default(),
        timing: false,
        sources: SourceOptions::default(),
        max_frames: u64::MAX,
        fail_fast: false,
        stop,
    };
    let mut calls = 0;
    let mut detect = |images: &[&RgbImage]| {
        let found = images.iter().map(|_| {
            calls += 1;
            detect(calls - 1)
        });
        found.collect()
    };
    let result = catch_unwind(AssertUnwindSafe(|| run_batch(&inputs, &mut detect, outlets, &options)));
    assert!(log.0.lock().unwrap().1 && other.0.lock().unwrap().1, "every sink is finished, whatever happened");
    let summary = result?.unwrap();
    Ok(Outcome { summary, log, failures })
}

fn cat(confidence: f32) -> Found {
    let bbox = BBox { x1: 0.0, y1: 0.0, x2: 1.0, y2: 1.0 };
    Found { detections: vec![Detection { class: 0, confidence, bbox }], ..Found::default() }
}

fn written(log: &Log) -> usize {
    log.0.lock().unwrap().0.len()
}

#[test]
fn an_engine_that_fails_in_the_middle_loses_nothing_that_was_computed() {
    let outcome = run(40, None, Arc::default(), |call| if call < 23 { Ok(cat(0.5)) } else { Err("no power".into()) });
    let Outcome { summary, log, failures } = outcome.unwrap();
    assert_eq!((written(&log), summary.images, summary.objects), (23, 23, 23));
    let Ending::Network(reason) = &summary.ending else { panic!("{summary:?}") };
    assert!(reason.ends_with("023.png: no power") && failures.is_empty(), "{reason}");
}

#[test]
fn an_engine_that_panics_loses_nothing_either() {
    // The sinks are finished, as `run` asserts, and the panic goes on.
    assert!(run(9, None, Arc::default(), |call| if call < 5 { Ok(cat(0.5)) } else { panic!("a fault") }).is_err());
}

#[test]
fn a_signal_ends_the_run_with_what_was_computed() {
    let stop = Arc::new(AtomicBool::new(false));
    let outcome = run(40, None, stop.clone(), |call| {
        stop.store(call == 7, Ordering::Relaxed);
        Ok(cat(0.5))
    });
    let Outcome { summary, log, .. } = outcome.unwrap();
    assert_eq!((summary.ending, written(&log)), (Ending::Stopped, 8));
}

#[test]
fn a_sink_that_fails_keeps_nothing_from_the_others() {
    let kind = std::io::ErrorKind::PermissionDenied;
    let Outcome { summary, log, failures } = run(9, Some((4, kind)), Arc::default(), |_| Ok(cat(0.5))).unwrap();
    assert_eq!((written(&log), summary.images, summary.failed), (9, 8, 1));
    assert_eq!((failures.len(), summary.ending), (1, Ending::Complete));
}

#[test]
fn a_full_disk_and_a_closed_pipe_end_the_run() {
    for (kind, ending, lines) in [
        (std::io::ErrorKind::StorageFull, Ending::DiskFull, 1),
        (std::io::ErrorKind::BrokenPipe, Ending::ReaderGone, 0),
    ] {
        let Outcome { summary, log, failures } = run(99, Some((4, kind)), Arc::default(), |_| Ok(cat(0.5))).unwrap();
        assert_eq!((summary.ending, written(&log), failures.len()), (ending, 4, lines));
    }
}

#[test]
fn what_is_no_number_is_no_detection_and_every_class_has_a_name() {
    let outcome = run(3, None, Arc::default(), |call| {
        let mut found = cat([f32::NAN, 0.5, f32::INFINITY][call]);
        found.detections.extend(vec![Detection { class: 7, ..cat(0.25).detections[0] }; 5000]);
        found.detections[1].bbox.x2 = f32::NEG_INFINITY;
        Ok(found)
    });
    let records = outcome.unwrap().log.0.lock().unwrap().0.clone();
    assert_eq!(records.iter().map(|record| record.detections.len()).collect::<Vec<_>>(), [4999, 5000, 4999]);
    assert_eq!(records[0].detections[0].name, "class7");
}

#[test]
fn the_rate_counts_each_image_and_each_frame_once() {
    let summary = Summary { images: 3, videos: 2, frames: 20, elapsed: Duration::from_secs(2), ..Summary::default() };
    assert_eq!(summary.rate(), 11.5);
}

#[test]
fn a_journal_of_another_version_or_of_other_settings_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let settings = |conf: &str| serde_json::json!({ "conf": conf, "model": "n" });
    assert!(Journal::resume(folder.path(), &settings("0.25")).unwrap().is_none());
    drop(Journal::start(folder.path(), &settings("0.25")).unwrap());
    assert!(Journal::resume(folder.path(), &settings("0.25")).unwrap().is_some());
    let error = |conf: &str| Journal::resume(folder.path(), &settings(conf)).map(drop).unwrap_err().to_string();
    assert!(error("0.5").contains("made with other settings: conf \"0.25\" then, \"0.5\" now;"), "{}", error("0.5"));
    let journal = folder.path().join(".yolo-lat-journal.jsonl");
    std::fs::write(&journal, "{\"yolo-lat\":\"0.1.0\",\"weights\":123}\n").unwrap();
    assert!(error("0.25").contains("another version of yolo-lat (format 1, not 2)"), "{}", error("0.25"));
    std::fs::write(&journal, "{\"journal\":2").unwrap();
    assert!(error("0.25").contains("damaged"));
}
