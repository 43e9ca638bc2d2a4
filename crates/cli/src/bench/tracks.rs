//! `yolo-lat bench tracks`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use yolo_lat::track::{TrackOptions, Tracker};
use yolo_lat::{Detection, geometry::BBox};

use super::{Times, machine, take_turns};

/// Frames of a round, of 1/30 s each.
const FRAMES: u32 = 90;
/// Rounds that are timed.
const SECONDS: f64 = 1.0;

#[derive(Args, Debug)]
pub(super) struct TracksArguments {
    /// Objects that are followed
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    objects: u16,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &TracksArguments) -> anyhow::Result<ExitCode> {
    let frames: Vec<Vec<Detection>> = (0..FRAMES).map(|frame| crowd(arguments.objects.into(), frame)).collect();
    let mut followed = 0;
    let mut round = || {
        let mut tracker = Tracker::new(TrackOptions::default());
        for (frame, found) in (0..).zip(&frames) {
            followed = tracker.update(found, frame * Duration::from_secs(1) / 30).len();
        }
    };
    let [Times { min, median, p90 }] = take_turns(SECONDS, &mut [&mut round])[..] else { return Ok(ExitCode::SUCCESS) };
    let [min, median, p90] = [min, median, p90].map(|round| round / f64::from(FRAMES));
    if arguments.json {
        let times = json!({ "min": min, "median": median, "p90": p90 });
        let value =
            json!({ "machine": machine(1), "objects": arguments.objects, "followed": followed, "ms_per_frame": times });
        return super::super::print(&format!("{value}\n"));
    }
    super::super::print(&format!(
        "{followed} of {} objects followed: {median:.3} ms a frame (minimum {min:.3}, p90 {p90:.3}, each the mean of {FRAMES} frames)\n",
        arguments.objects
    ))
}

/// People who walk through each other in rows; every seventh is seen faintly in turn.
fn crowd(objects: u32, frame: u32) -> Vec<Detection> {
    let person = |object: u32| {
        let (column, row) = ((object % 10) as f32, (object / 10) as f32);
        let speed = if object.is_multiple_of(2) { 2.0 } else { -2.0 };
        let bbox = BBox::from_xywh([300.0 + 60.0 * column + speed * frame as f32, 20.0 + 45.0 * row, 40.0, 90.0]);
        let confidence = if (object + frame).is_multiple_of(7) { 0.1 } else { 0.8 };
        Detection { class: 0, confidence, bbox }
    };
    (0..objects).map(person).collect()
}
