//! What is said of a run, and its exit code.

use std::path::Path;
use std::process::ExitCode;

use indicatif::ProgressBar;
use yolo_lat::batch::{Ending, Event, Summary};

use crate::{INTERRUPTED, SOME_FAILED, USAGE, report};

/// Names what failed on standard error, above the progress bar.
pub(super) struct Errors {
    pub(super) progress: ProgressBar,
    pub(super) json: bool,
}

impl Errors {
    pub(super) fn hear(&self, event: Event) {
        if let Event::Failed { name, reason } = event {
            self.failed(Some(name), reason);
        }
        self.progress.inc(1);
    }

    /// What belongs to no input has no name.
    pub(super) fn failed(&self, name: Option<&str>, reason: &str) {
        let line = match name {
            name if self.json => serde_json::json!({ "image": name, "error": reason }).to_string(),
            Some(name) => format!("yolo-lat: {name}: {reason}"),
            None => format!("yolo-lat: {reason}"),
        };
        self.progress.suspend(|| report(&line));
    }
}

/// One line about the whole run.
pub(super) fn line(summary: &Summary, output: Option<&Path>) -> String {
    let done = summary.images + summary.videos;
    let frames = if summary.frames > 0 { format!(" ({} frames of videos)", summary.frames) } else { String::new() };
    let failed = if summary.failed > 0 { format!(", {} failed", summary.failed) } else { String::new() };
    let early = if summary.ending == Ending::Complete { "" } else { ", stopped early" };
    let place = output.map(|folder| format!(", results in {}", folder.display())).unwrap_or_default();
    let (inputs, objects, rate) = (summary.inputs, summary.objects, summary.rate());
    format!("{done} of {inputs} images{frames}, {objects} objects, {rate:.1} images/s{failed}{early}{place}")
}

/// `failed` counts what went wrong beside the run.
pub(super) fn exit_code(summary: &Summary, failed: usize) -> ExitCode {
    match &summary.ending {
        Ending::ReaderGone => ExitCode::SUCCESS,
        Ending::Network(_) if summary.images + summary.frames == 0 => ExitCode::from(USAGE),
        Ending::Network(_) => ExitCode::from(SOME_FAILED),
        _ if summary.failed + failed > 0 => ExitCode::from(SOME_FAILED),
        Ending::Stopped => ExitCode::from(INTERRUPTED),
        _ => ExitCode::SUCCESS,
    }
}
