//! What the window writes and takes in: snapshots, recordings, dropped files.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use eframe::egui;
use serde_json::json;

use super::LiveApp;
use crate::live::LiveResult;
use yolo_lat::ModelFile;
use yolo_lat::model::default_confidence;
use yolo_lat_io::sink::{Annotator, DrawOptions, Record, VideoRecorder, write_atomically, write_jpeg};
use yolo_lat_io::source::{SourceRequest, display_name, has_ffmpeg};

/// Results that may wait for the recorder; more are left out, the window never waits.
const QUEUE: usize = 8;

/// `yolo-lat-2026-11-25T10-20-30`, in UTC.
fn stamp() -> String {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    format!("yolo-lat-{}", now.trim_end_matches('Z').replace(':', "-"))
}

fn record(result: &LiveResult) -> Record {
    let frame = &result.captured.frame;
    Record {
        image: format!("frame {}", frame.sequence),
        frame: Some(frame.sequence),
        width: frame.width(),
        height: frame.height(),
        detections: result.detections.clone(),
        counts: result.counts.clone(),
        ..Record::default()
    }
}

/// Results on their way into a file, in a thread of its own.
pub(super) struct Recording {
    ended: Arc<OnceLock<SystemTime>>,
    sender: SyncSender<Arc<LiveResult>>,
    thread: std::thread::JoinHandle<Result<(), String>>,
    pub(super) path: PathBuf,
    pub(super) frames: usize,
    pub(super) left_out: usize,
}

impl Recording {
    /// A video where ffmpeg is installed, else JSON lines.
    fn start(folder: &Path, drawing: DrawOptions) -> std::io::Result<Self> {
        let has_ffmpeg = has_ffmpeg();
        let path = folder.join(stamp()).with_extension(if has_ffmpeg { "mp4" } else { "jsonl" });
        let (sender, receiver) = sync_channel::<Arc<LiveResult>>(QUEUE);
        let (target, began) = (path.clone(), SystemTime::now());
        let ended = Arc::new(OnceLock::new());
        let end = ended.clone();
        let thread = std::thread::Builder::new().name("record".into()).spawn(move || {
            if has_ffmpeg {
                record_video(&target, &receiver, drawing, began, &end)
            } else {
                record_lines(&target, &receiver)
            }
        })?;
        Ok(Self { ended, sender, thread, path, frames: 0, left_out: 0 })
    }

    pub(super) fn push(&mut self, result: &Arc<LiveResult>) {
        match self.sender.try_send(result.clone()) {
            Ok(()) => self.frames += 1,
            Err(_) => self.left_out += 1,
        }
    }

    /// No more results come; the file is completed by the thread.
    pub(super) fn end(self) -> Ending {
        let _ = self.ended.set(SystemTime::now());
        drop(self.sender);
        Ending { thread: self.thread, path: self.path, frames: self.frames, left_out: self.left_out }
    }
}

/// A recording that is being completed.
pub(super) struct Ending {
    thread: std::thread::JoinHandle<Result<(), String>>,
    path: PathBuf,
    frames: usize,
    left_out: usize,
}

impl Ending {
    pub(super) fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// What became of it; waits for the thread.
    pub(super) fn outcome(self) -> Result<String, String> {
        match self.thread.join() {
            Ok(Ok(())) if self.frames == 0 => Err("nothing came while recording: no file was written".into()),
            Ok(Ok(())) => {
                let (frames, left_out) = (self.frames, self.left_out);
                Ok(format!("recorded {frames} frames into {} ({left_out} left out)", self.path.display()))
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err("the recorder failed; please report this".into()),
        }
    }
}

/// From `began` on, or the first result after it, until `ended`.
fn record_video(
    path: &Path,
    results: &std::sync::mpsc::Receiver<Arc<LiveResult>>,
    drawing: DrawOptions,
    began: SystemTime,
    ended: &OnceLock<SystemTime>,
) -> Result<(), String> {
    let mut annotator = Annotator::new(drawing);
    let mut recording: Option<(VideoRecorder, SystemTime)> = None;
    for result in results {
        let mut image = result.captured.frame.pixels.clone();
        annotator.draw(&mut image, &result.detections, &result.counts);
        let taken_at = result.captured.frame.captured_at;
        let (recorder, _) = match &mut recording {
            Some(recording) => recording,
            None => {
                let mut recorder = VideoRecorder::start(path, image.dimensions()).map_err(|error| error.to_string())?;
                let began = began.max(taken_at);
                recorder.begin(began);
                recording.insert((recorder, began))
            }
        };
        recorder.push_taken_at(&image, taken_at).map_err(|error| error.to_string())?;
    }
    let Some((recorder, began)) = recording else { return Ok(()) };
    let length = ended.get().and_then(|ended| ended.duration_since(began).ok());
    recorder.finish(length).map_err(|error| error.to_string())
}

fn record_lines(path: &Path, results: &std::sync::mpsc::Receiver<Arc<LiveResult>>) -> Result<(), String> {
    let written = write_atomically(path, |file| {
        for result in results {
            let line = serde_json::to_string(&record(&result)).map_err(std::io::Error::other)?;
            writeln!(file, "{line}")?;
        }
        Ok(())
    });
    written.map_err(|error| error.to_string())
}

impl LiveApp {
    /// Where snapshots and recordings go.
    fn output_folder(&self) -> PathBuf {
        let images = self.output.clone().or_else(dirs::picture_dir).or_else(dirs::home_dir);
        images.unwrap_or_else(|| PathBuf::from("."))
    }

    /// Writes the image that the boxes belong to, and what was found in it.
    pub(super) fn snapshot(&mut self) {
        let Some(result) = self.result.clone() else {
            return self.live.note(true, "there is nothing to take a snapshot of yet");
        };
        let path = self.output_folder().join(stamp());
        let mut image = result.captured.frame.pixels.clone();
        Annotator::new(self.draw_options()).draw(&mut image, &result.detections, &result.counts);
        let (photo, data) = (path.with_extension("jpg"), path.with_extension("json"));
        let value = json!({
            "image": photo.file_name().map(|name| name.to_string_lossy()), "result": record(&result),
            "captured_at": humantime::format_rfc3339_millis(result.captured.frame.captured_at).to_string(),
            "engine": result.engine, "model": self.settings.model,
        });
        let written =
            write_jpeg(&photo, &image).and_then(|()| write_atomically(&data, |file| write!(file, "{value:#}")));
        match written {
            Ok(()) => self.live.note(false, format!("snapshot: {}", photo.display())),
            Err(error) => self.live.note(true, error.to_string()),
        }
    }

    /// Begins or ends a recording.
    pub(super) fn toggle_recording(&mut self) {
        match self.recording.take() {
            None => match Recording::start(&self.output_folder(), self.draw_options()) {
                Ok(mut recording) => {
                    // What is seen now is its beginning.
                    self.result.iter().for_each(|result| recording.push(result));
                    self.live.note(false, format!("recording into {}", recording.path.display()));
                    self.recording = Some(recording);
                }
                Err(error) => self.live.note(true, format!("no recording: {error}")),
            },
            Some(recording) => self.ending.push(recording.end()),
        }
    }

    /// Says what became of recordings that are complete.
    pub(super) fn collect_recordings(&mut self) {
        let (done, going) = std::mem::take(&mut self.ending).into_iter().partition::<Vec<_>, _>(Ending::is_done);
        self.ending = going;
        for ending in done {
            match ending.outcome() {
                Ok(line) => self.live.note(false, line),
                Err(line) => self.live.note(true, line),
            }
        }
    }

    /// Files that were dropped on the window: a model, or something to look at.
    pub(super) fn take_dropped(&mut self, ctx: &egui::Context) {
        let dropped = ctx.input(|input| input.raw.dropped_files.clone());
        if let Some(path) = dropped.into_iter().next().map(|file| file.path().to_owned()) {
            self.open_path(path);
        }
    }

    /// Another model; the slider goes to its own confidence, unless it was moved.
    pub(super) fn choose_model(&mut self, name: String) {
        let confidence = &mut self.settings.detector.postprocess.confidence;
        if *confidence == default_confidence(&self.settings.model) {
            *confidence = default_confidence(&name);
        }
        self.settings.model = name;
    }

    /// Opens a model or a source by its name.
    pub(super) fn open_path(&mut self, path: PathBuf) {
        if ModelFile::is_named(&path) {
            self.choose_model(path.to_string_lossy().into_owned());
            self.settings.classes.clear();
            return;
        }
        match SourceRequest::of_stream(&path) {
            Ok(Some(stream)) => self.set_source(stream),
            Ok(None) if path.exists() => self.set_source(SourceRequest::Path(path)),
            Ok(None) => self.live.note(true, format!("{}: no such file", display_name(&path))),
            Err(reason) => self.live.note(true, format!("{}: {reason}", display_name(&path))),
        }
    }
}
