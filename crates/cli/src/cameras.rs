//! `yolo-lat cameras`: devices that can capture.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use yolo_lat::source::{CameraEntry, camera_formats, cameras};

#[derive(Args, Debug)]
pub(super) struct CamerasArguments {
    /// Open each and list its formats
    #[arg(long)]
    formats: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A camera and, where they were asked for, its formats.
pub(super) type Found = (CameraEntry, Option<Result<Vec<String>, String>>);

/// All cameras. To list `formats` opens each.
pub(super) fn found(formats: bool) -> Vec<Found> {
    let look = |camera: CameraEntry| {
        let wanted = formats && camera.problem.is_none();
        let formats = wanted.then(|| camera_formats(camera.index).map_err(|error| error.to_string()));
        (camera, formats)
    };
    cameras().into_iter().map(look).collect()
}

pub(super) fn as_json((camera, formats): &Found) -> serde_json::Value {
    let problem = formats.as_ref().and_then(|found| found.as_ref().err()).or(camera.problem.as_ref());
    json!({
        "index": camera.index, "name": camera.name, "path": camera.path, "problem": problem,
        "formats": formats.as_ref().and_then(|found| found.as_ref().ok()),
    })
}

pub(super) fn run(arguments: &CamerasArguments) -> anyhow::Result<ExitCode> {
    let cameras = found(arguments.formats);
    if arguments.json {
        let all: Vec<_> = cameras.iter().map(as_json).collect();
        return super::print(&format!("{}\n", json!({ "cameras": all })));
    }
    if cameras.is_empty() {
        return super::print("no cameras; `yolo-lat live synthetic` shows a scene without one\n");
    }
    let mut text = String::new();
    for (camera, formats) in &cameras {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}  {}  {}", camera.index, camera.path, camera.name);
        if let Some(problem) = &camera.problem {
            let _ = writeln!(text, "    {problem}");
        }
        match formats {
            Some(Ok(formats)) => {
                for format in formats {
                    let _ = writeln!(text, "    {format}");
                }
            }
            Some(Err(error)) => {
                let _ = writeln!(text, "    {error}");
            }
            None => {}
        }
    }
    super::print(&text)
}
