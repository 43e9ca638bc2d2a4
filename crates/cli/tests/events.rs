//! Events of `live` on the command line.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;

use common::{program, text};
use serde_json::Value;
use tempfile::TempDir;
use yolo_lat::source::{Source, SourceOptions, VideoSource};

/// The synthetic scene, in which a person is seen for 5 seconds, then a cat, then cups.
fn live(arguments: &[&str]) -> Command {
    let mut command = program();
    command.args(["live", "--headless", "synthetic"]).args(arguments);
    command
}

/// Ends with the test.
struct Background(Child);

impl Background {
    fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A port on which nobody listens.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|other| other == extension)).collect()
}

#[cfg(unix)]
#[test]
#[ignore = "needs mosquitto"]
fn a_broker_is_told_once_that_an_event_begins_and_once_that_it_ends() {
    let (folder, port) = (TempDir::new().unwrap(), free_port().to_string());
    let _broker = Background::start(Command::new("mosquitto").args(["-p", &port]).stderr(Stdio::null()));
    while TcpStream::connect(format!("127.0.0.1:{port}")).is_err() {}
    let mut listener = Command::new("mosquitto_sub");
    let mut listener = Background::start(listener.args(["-p", &port, "-t", "#", "-v"]).stdout(Stdio::piped()));
    let mut lines = BufReader::new(listener.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let (url, out) = (format!("mqtt://127.0.0.1:{port}/home/lat"), folder.path().join("out"));
    let rules = ["--when", "people", "--when", "cat", "--for", "1s", "--before", "1s", "--after", "1s"];
    let mut live = live(&[&rules[..], &["--mqtt", &url, "--statistics", "-o", out.to_str().unwrap()]].concat());
    let child = live.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();

    // Until the cat has come and gone, then until the program says that it is gone too.
    let is_end = |line: &String| line.contains(r#""type":"end""#) && line.contains(r#""label":"cat""#);
    let mut heard: Vec<String> = Vec::new();
    while !heard.last().is_some_and(is_end) {
        heard.push(lines.next().unwrap());
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    while heard.last().unwrap() != "home/lat/available offline" {
        heard.push(lines.next().unwrap());
    }
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(
        said.contains("; lost: 0 results, 0 clips, 0 frames of clips") && said.contains("delivered, 0 lost"),
        "{said}"
    );

    let messages: Vec<(&str, &str)> = heard.iter().map(|line| line.split_once(' ').unwrap()).collect();
    let of = |topic: &str| messages.iter().filter(|(of, _)| *of == topic).map(|&(_, text)| text).collect::<Vec<_>>();
    assert_eq!(of("home/lat/available"), ["online", "offline"]);
    let mut states = of("home/lat/cat/state");
    states.dedup();
    assert_eq!(states, ["OFF", "ON", "OFF"]);
    let json = |text: &&str| serde_json::from_str::<Value>(text).unwrap();
    let sensor = json(&of("homeassistant/binary_sensor/home_lat/cat/config")[0]);
    let topics = ["state_topic", "availability_topic"].map(|topic| sensor[topic].as_str().unwrap());
    assert_eq!(topics, ["home/lat/cat/state", "home/lat/available"]);

    let events: Vec<Value> = of("home/lat/events").iter().map(json).collect();
    let ids: BTreeSet<&str> = events.iter().map(|event| event["after"]["id"].as_str().unwrap()).collect();
    for &id in &ids {
        let told =
            |kind: &str| events.iter().filter(|event| event["after"]["id"] == id && event["type"] == kind).count();
        assert_eq!((told("new"), told("end")), (1, 1), "{id}");
    }
    assert!(ids.len() >= 2, "a person and a cat");
    let cat = events.iter().find(|event| event["after"]["label"] == "cat" && event["type"] == "end").unwrap();
    assert!(Path::new(cat["after"]["snapshot_file"].as_str().unwrap()).exists());
    let [start, end] = ["start_time", "end_time"].map(|time| cat["after"][time].as_f64().unwrap());
    let clip = Path::new(cat["after"]["clip_file"].as_str().unwrap());
    let mut video = VideoSource::open(clip, &SourceOptions::default()).unwrap();
    video.next_frame(&AtomicBool::new(false)).unwrap();
    let length = video.length().unwrap().as_secs_f64();
    assert!((length - (end - start + 2.0)).abs() < 0.2, "{length} s of an event of {} s", end - start);
}

#[test]
fn whoever_is_gone_or_hangs_costs_no_result_and_is_told_once_without_secrets() {
    let (folder, silent) = (TempDir::new().unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let post = format!("http://me:secret@{}/secret?key=secret", silent.local_addr().unwrap());
    let mqtt = format!("mqtt://me:secret@127.0.0.1:{}", free_port());
    let outlets = ["--post", &post, "--mqtt", &mqtt, "--run", "sleep 1000", "-o", folder.path().to_str().unwrap()];
    let output = live(&[&["--max-frames", "100", "--when", "person", "--statistics", "-vv"][..], &outlets].concat())
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(text(&output.stdout).lines().count(), 100);
    assert!(said.contains("; lost: 0 results, 0 clips, 0 frames of clips; --post"), "{said}");
    let summary = said.lines().last().unwrap();
    assert_eq!(summary.matches(": 0 messages delivered, ").count(), 3, "{summary}");
    assert!(!summary.contains(" 0 lost"), "{summary}");
    for name in ["--post http://127.0.0.1:", "--mqtt mqtt://127.0.0.1:"] {
        assert_eq!(
            said.lines().filter(|line| line.contains(name) && line.contains("what it misses is counted")).count(),
            1,
            "{said}"
        );
    }
    assert!(!said.contains("secret"), "{said}");
    let (snapshots, clips) = (files(folder.path(), "jpg").len(), files(folder.path(), "mp4").len());
    assert!(snapshots > 0 && snapshots == clips, "{snapshots} snapshots, {clips} clips");
}

#[test]
fn what_cannot_be_watched_is_said_before_anything_starts() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let below = file.join("events");
    for (arguments, wanted) in [
        (&["--when", "persn"][..], "--when: the model knows no \"persn\"; did you mean \"person\"?"),
        (&["--when", "person:"], "expected a class, or CLASS:ZONE"),
        (&["--when", "person:door"], "--when: no zone is called \"door\""),
        (&["--for", "2s"], "--when"),
        (&["--when", "person", "--for", "soon"], "--for"),
        (&["--when", "person", "--after", "2h"], "at most 1h"),
        (&["--when", "person", "--post", "ftp://me:secret@h"], "--post: addresses of ftp:// are not known here"),
        (&["--when", "person", "--mqtt", "secret"], "--mqtt: this is no address: mqtt://HOST:PORT/PREFIX"),
        (&["--when", "person", "--run", "no-such-program x"], "--run: no program \"no-such-program\" is found"),
        (&["--when", "person", "-o", below.to_str().unwrap()], "events"),
        (&["-o", "events"], "--when"),
    ] {
        let output = live(arguments).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(wanted) && !said.contains("secret"), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty());
    }
}
