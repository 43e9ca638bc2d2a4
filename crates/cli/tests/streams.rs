//! Streams and the screen: servers that are killed, hang and come back, and a photograph on a display.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use std::any::Any;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{PROGRAM, json_lines, needs_ffmpeg, text};
use serde_json::Value;

/// A process that ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lines of a session as they come.
struct Session {
    program: Running,
    lines: Receiver<Value>,
}

impl Session {
    fn start(arguments: &[&str]) -> Self {
        let mut program = Command::new(PROGRAM)
            .args(["live", "--headless", "-f", "jsonl", "--size", "32"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = std::sync::mpsc::channel();
        let output = BufReader::new(program.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        Self { program: Running(program), lines }
    }

    fn next(&self, within: Duration) -> Value {
        self.lines.recv_timeout(within).expect("a result")
    }

    /// Ends it; what it said.
    fn end(mut self) -> String {
        Command::new("kill").args(["-INT", &self.program.0.id().to_string()]).status().unwrap();
        let mut said = String::new();
        self.program.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(self.program.0.wait().unwrap().code(), Some(130), "{said}");
        said
    }
}

/// A hundred frames, then the server is killed, and comes back: frames come within five seconds, and it was said once.
fn goes_on_after_a_restart(url: &str, serve: impl Fn() -> Box<dyn Any>) {
    let server = serve();
    let session = Session::start(&[&url.replace("://", "://me:secret@")]);
    let patience = Duration::from_secs(30);
    let mut last = -1;
    for _ in 0..100 {
        let line = session.next(patience);
        let frame = line["frame"].as_i64().unwrap();
        assert!(line["source"] == *url && frame > last, "{line}");
        last = frame;
    }
    drop(server);
    // Everything that was on its way.
    while session.lines.recv_timeout(Duration::from_secs(3)).is_ok() {}
    let _server = serve();
    let line = session.next(Duration::from_secs(5));
    assert!(line["frame"].as_i64().unwrap() > last, "{line}");
    let said = session.end();
    assert_eq!(said.matches("trying again").count(), 1, "{said}");
    assert!(!said.contains("secret"), "{said}");
}

/// A port that nobody listens at.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Until a port is listened at; asking it would take the only place of a client.
fn wait_for_listener(port: u16) {
    let listens = |line: &str| line.contains(&format!(":{port:04X} ")) && line.contains(" 0A ");
    while !std::fs::read_to_string("/proc/net/tcp").unwrap().lines().any(listens) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A server of JPEGs over HTTP for one client, and its address.
fn jpegs(port: u16, rate: u32) -> (Running, String) {
    needs_ffmpeg();
    let url = format!("http://127.0.0.1:{port}/cam.mjpg");
    let source = format!("-v quiet -re -f lavfi -i testsrc=s=64x48:r={rate} -f mpjpeg -listen 1 {url}");
    let server = Running(Command::new("ffmpeg").args(source.split(' ')).spawn().unwrap());
    wait_for_listener(port);
    (server, url)
}

#[test]
fn a_stream_of_jpegs_over_http_goes_on_after_its_server_was_restarted() {
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}/cam.mjpg");
    goes_on_after_a_restart(&url, || Box::new(jpegs(port, 25)));
}

/// They have no times of their own: those of their arrival count, not 25 a second.
#[test]
fn times_of_a_stream_of_jpegs_are_those_of_their_arrival() {
    let (_server, url) = jpegs(free_port(), 8);
    let arguments = ["detect", &url, "--max-frames", "17", "-f", "jsonl", "-q", "--size", "32"];
    let output = Command::new(PROGRAM).args(arguments).output().unwrap();
    assert_eq!((output.status.code(), &*text(&output.stderr)), (Some(0), ""));
    let times: Vec<f64> = json_lines(&output).iter().map(|line| line["time_s"].as_f64().unwrap()).collect();
    assert_eq!((times.len(), times[0]), (17, 0.0));
    assert!((times[16] - 2.0).abs() < 0.3, "{times:?}");
}

/// A server that hangs is one that gives no image in time.
#[test]
fn a_stream_that_stalls_is_tried_again() {
    let port = free_port();
    let (server, url) = jpegs(port, 25);
    let session = Session::start(&[&url, "--timeout", "1s"]);
    for _ in 0..10 {
        session.next(Duration::from_secs(30));
    }
    Command::new("kill").args(["-STOP", &server.0.id().to_string()]).status().unwrap();
    while session.lines.recv_timeout(Duration::from_secs(3)).is_ok() {}
    drop(server);
    let _server = jpegs(port, 25);
    session.next(Duration::from_secs(5));
    let said = session.end();
    assert!(said.contains("no image within 1 s") && said.lines().count() == 1, "{said}");
}

/// An RTSP server of MPEG transport streams within RTP within TCP, for one client at a time; it ends when it is dropped.
struct RtspServer(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Drop for RtspServer {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.take().unwrap().join().unwrap();
    }
}

impl RtspServer {
    /// Bytes of seven packets of a transport stream, which is what a datagram holds.
    const CHUNK: usize = 7 * 188;

    fn start(port: u16, stream: Vec<u8>, length: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let stopped = stop.clone();
        let serve = move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((client, _)) => {
                        client.set_nonblocking(false).unwrap();
                        // A client that leaves is none of its business.
                        let _ = Self::play(client, &stream, length, &stopped);
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(10)),
                }
            }
        };
        Self(stop, Some(std::thread::spawn(serve)))
    }

    fn play(mut client: TcpStream, stream: &[u8], length: Duration, stop: &AtomicBool) -> std::io::Result<()> {
        let mut requests = BufReader::new(client.try_clone()?).lines();
        let mut playing = false;
        while !playing {
            let lines: Vec<String> =
                requests.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let Some(method) = lines.first().and_then(|line| line.split(' ').next()) else { return Ok(()) };
            let number = lines.iter().find_map(|line| line.strip_prefix("CSeq: ")).unwrap_or("0");
            let sdp = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nt=0 0\r\n\
                       m=video 0 RTP/AVP 33\r\nc=IN IP4 0.0.0.0\r\na=control:track\r\n";
            let (more, body) = match method {
                "DESCRIBE" => (format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n", sdp.len()), sdp),
                "SETUP" => ("Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n".into(), ""),
                "OPTIONS" => ("Public: DESCRIBE, SETUP, PLAY\r\n".into(), ""),
                _ => ("Session: 1\r\n".into(), ""),
            };
            write!(client, "RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{more}\r\n{body}")?;
            playing = method == "PLAY";
        }
        let begun = Instant::now();
        let mut sent = 0;
        for (number, chunk) in stream.chunks(Self::CHUNK).enumerate() {
            while begun.elapsed() < length.mul_f64(sent as f64 / stream.len() as f64) {
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            let ticks = (begun.elapsed().as_secs_f64() * 90_000.0) as u32;
            let mut packet = vec![b'$', 0];
            packet.extend((12 + chunk.len() as u16).to_be_bytes());
            packet.extend([0x80, 33]);
            packet.extend((number as u16).to_be_bytes());
            packet.extend(ticks.to_be_bytes());
            packet.extend([0, 0, 0, 1]);
            packet.extend(chunk);
            client.write_all(&packet)?;
            sent += chunk.len();
        }
        Ok(())
    }
}

#[test]
fn a_stream_over_rtsp_goes_on_after_its_server_was_restarted() {
    needs_ffmpeg();
    let make = "-v error -f lavfi -i testsrc=s=64x48:r=25:d=60 -g 12 -f mpegts pipe:1";
    let stream = Command::new("ffmpeg").args(make.split(' ')).output().unwrap().stdout;
    let port = free_port();
    goes_on_after_a_restart(&format!("rtsp://127.0.0.1:{port}/cam"), || {
        Box::new(RtspServer::start(port, stream.clone(), Duration::from_secs(60)))
    });
}

/// A photograph on a display without a screen.
#[test]
#[ignore = "needs Xvfb and ffplay, which scripts/setup --test installs"]
fn a_photograph_on_the_screen_is_found() {
    let mut server = Command::new("Xvfb")
        .args(["-displayfd", "1", "-screen", "0", "800x600x24", "-nolisten", "tcp"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut display = String::new();
    let output = server.stdout.take().unwrap();
    BufReader::new(output).read_line(&mut display).unwrap();
    let (_server, display) = (Running(server), format!(":{}", display.trim()));
    let photograph = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/astronaut.jpg");
    let show = ["-v", "quiet", "-loop", "0", "-left", "100", "-top", "40", "-x", "512", "-y", "512", photograph];
    let viewer = Command::new("ffplay").args(show).env("DISPLAY", &display).env("SDL_AUDIODRIVER", "dummy").spawn();
    let _viewer = Running(viewer.unwrap());
    let found = |command: &[&str]| {
        let output = Command::new(PROGRAM).args(command).env("DISPLAY", &display).output().unwrap();
        assert_eq!((output.status.code(), &*text(&output.stderr)), (Some(0), ""));
        json_lines(&output)
    };
    // Until the viewer has drawn it.
    let whole = &["detect", "-q", "-f", "jsonl", "-m", "s", "screen", "--max-frames", "3"][..];
    let is_person = |line: &Value| line["detections"][0]["name"] == "person";
    assert!((0..20).any(|_| found(whole).iter().any(is_person)), "nobody is seen");
    let part = found(&["live", "--headless", "-f", "jsonl", "-m", "s", "screen:0:520x400+100+40", "--max-frames", "3"]);
    assert_eq!((&part[0]["width"], &part[0]["source"]), (&520.into(), &"screen:0:520x400+100+40".into()));
    assert!(part.iter().any(is_person), "{part:?}");
    // Without a display it is said in a line.
    let output = Command::new(PROGRAM).args(["live", "--headless", "screen"]).env_remove("DISPLAY").output().unwrap();
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("DISPLAY is not set"), "{said}");
}
