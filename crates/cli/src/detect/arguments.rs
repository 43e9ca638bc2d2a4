//! What `detect` is told on the command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use yolo_lat::sink::Placing;

use super::sinks::Format;
use crate::options::{EngineArguments, parse_share};

#[derive(Args, Debug)]
pub(crate) struct DetectArguments {
    #[command(flatten)]
    pub(super) input: InputArguments,
    #[command(flatten, next_help_heading = "Model")]
    pub(super) engine: EngineArguments,
    #[command(flatten)]
    pub(super) limits: LimitArguments,
    #[command(flatten)]
    pub(super) results: ResultArguments,
    #[command(flatten)]
    pub(super) course: CourseArguments,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Inputs")]
pub(super) struct InputArguments {
    /// Pictures, videos, folders, glob patterns, addresses (rtsp://, http://), or - for paths on standard input
    #[arg(required = true, value_name = "SOURCE")]
    pub(super) sources: Vec<OsString>,
    /// Look into sub-folders
    #[arg(short, long)]
    pub(super) recursive: bool,
    /// Paths on standard input end with NUL (find -print0)
    #[arg(short = '0', long)]
    pub(super) null: bool,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "What counts as a detection")]
pub(super) struct LimitArguments {
    /// Least confidence of a detection, 0 to 1; default: the model's (`confidence` in its file), else 0.25
    #[arg(long, value_parser = parse_share)]
    pub(super) conf: Option<f32>,
    /// Of two boxes of a class that overlap more than this (IoU), the less confident goes
    #[arg(long, default_value_t = 0.45, value_parser = parse_share)]
    pub(super) iou: f32,
    /// Boxes do not vote for the more confident one that suppresses them: its confidence and corners stay the network's own.
    /// Those of other people's ONNX networks do not anyway (--merge)
    #[arg(long)]
    pub(super) no_merge: bool,
    /// Most detections in a picture
    #[arg(long, default_value_t = 300, value_name = "N")]
    pub(super) max_det: usize,
    /// Only these classes, by name, another word for it or number: person,sofa,16 (`yolo-lat classes` lists them)
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(super) classes: Vec<String>,
    /// Boxes of different classes suppress each other too
    #[arg(long)]
    pub(super) agnostic_nms: bool,
}

/// How the pictures themselves get into the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pictures {
    /// As symbolic links
    Link,
    /// As copies
    Copy,
}

impl From<Pictures> for Placing {
    fn from(pictures: Pictures) -> Self {
        match pictures {
            Pictures::Link => Self::Link,
            Pictures::Copy => Self::Copy,
        }
    }
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Results (docs/RESULTS.md has a table)")]
pub(crate) struct ResultArguments {
    /// Write files into this folder, sub-folders of the inputs mirrored
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// Format of the results; may be repeated with -o [default: text]
    #[arg(short, long, value_enum)]
    pub(crate) format: Vec<Format>,
    /// Write the pictures with boxes into DIR/images; with -f yolo or --pictures into DIR/annotated
    #[arg(long)]
    pub(crate) save_images: bool,
    /// Write each object into DIR/crops
    #[arg(long)]
    pub(crate) save_crops: bool,
    /// Put the pictures themselves into DIR/images, with -f voc also beside the XML files, so that DIR is a data set
    #[arg(long, value_enum, value_name = "HOW")]
    pub(crate) pictures: Option<Pictures>,
    /// -f yolo: the confidence as a sixth column
    #[arg(long)]
    pub(crate) label_conf: bool,
    /// -f coco: category ids of this COCO file, matched by name [default: COCO's own for its 80 classes, else from 1]
    #[arg(long, value_name = "FILE")]
    pub(crate) categories: Option<PathBuf>,
    /// -f label-studio: what stands before the pictures' names
    #[arg(long, value_name = "PREFIX", default_value = "/data/local-files/?d=images/")]
    pub(crate) image_url: String,
    /// Draw boxes without names
    #[arg(long)]
    pub(crate) hide_labels: bool,
    /// Leave out timing_ms, so that results are equal from run to run
    #[arg(long)]
    pub(crate) no_timing: bool,
    /// Go on where an earlier run into the same folder stopped
    #[arg(long, requires = "output")]
    pub(crate) resume: bool,
    /// Replace results in DIR also where they were changed since or are not this program's
    #[arg(long, requires = "output", conflicts_with = "resume")]
    pub(crate) overwrite: bool,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "The run")]
pub(super) struct CourseArguments {
    /// How long a network stream may give no picture: 10s, 1m
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) timeout: Duration,
    /// Stop at the first input that fails
    #[arg(long)]
    pub(super) fail_fast: bool,
    /// No progress and no summary; with -o no text on standard output either
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Name failed inputs on standard error as JSON: {"image", "error"}
    #[arg(long)]
    pub(super) json_errors: bool,
    /// Time every dispatch of the GPU: a table on standard error, and FILE for Perfetto or chrome://tracing
    #[arg(long, value_name = "FILE")]
    pub(super) profile: Option<PathBuf>,
}
