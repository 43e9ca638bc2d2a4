//! What `detect` is told on the command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use yolo_lat::batch::Shard;
#[cfg(feature = "plot")]
use yolo_lat::sink::DrawOptions;
use yolo_lat::sink::Placing;

use super::sinks::Format;
use crate::follow::FollowArguments;
#[cfg(feature = "plot")]
use crate::options::DrawingName;
use crate::options::{EngineArguments, LimitArguments, SourceArguments};
use crate::watch::WatchArguments;

#[derive(Args, Debug)]
pub(crate) struct DetectArguments {
    #[command(flatten)]
    pub(super) input: InputArguments,
    #[command(flatten, next_help_heading = "Model")]
    pub(super) engine: EngineArguments,
    #[command(flatten)]
    pub(super) limits: LimitArguments,
    #[command(flatten)]
    pub(super) follow: FollowArguments,
    #[command(flatten)]
    pub(super) watch: WatchArguments,
    #[command(flatten)]
    pub(super) results: ResultArguments,
    #[command(flatten)]
    pub(super) course: CourseArguments,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Sources")]
pub(super) struct InputArguments {
    /// Images, videos, folders, glob patterns, lists (list.txt: a path or address a line), addresses (rtsp://, http://), cameras
    /// (0, /dev/video0), the screen (screen, screen:1:640x480+100+50), or - for paths or an image on standard input
    #[arg(required = true, value_name = "SOURCE")]
    pub(super) sources: Vec<OsString>,
    #[command(flatten)]
    pub(super) reading: SourceArguments,
    /// Most frames of each video, stream, camera or screen
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) max_frames: Option<u64>,
    /// Only the inputs of shard I of N, for N processes or machines that share the work: each input, a video as a whole, is in one
    /// shard, by its name. Folders of their own for the results (-o); docs/RESULTS.md says how they become one
    #[arg(long, value_name = "I/N")]
    pub(super) shard: Option<Shard>,
}

/// How the images themselves get into the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Images {
    /// As symbolic links
    Link,
    /// As copies
    Copy,
}

impl From<Images> for Placing {
    fn from(images: Images) -> Self {
        match images {
            Images::Link => Self::Link,
            Images::Copy => Self::Copy,
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
    /// Write the images with boxes into DIR/images; with -f yolo or --images into DIR/annotated
    #[cfg(feature = "plot")]
    #[arg(long)]
    save_images: bool,
    /// Write each object into DIR/crops
    #[arg(long)]
    pub(crate) save_crops: bool,
    /// Put the images themselves into DIR/images, with -f voc also beside the XML files, so that DIR is a data set
    #[arg(long, alias = "pictures", value_enum, value_name = "HOW")]
    pub(crate) images: Option<Images>,
    /// -f yolo: the confidence as a sixth column
    #[arg(long)]
    pub(crate) label_conf: bool,
    /// -f coco: category ids of this COCO file, matched by name [default: COCO's own for its 80 classes, else from 1]
    #[arg(long, value_name = "FILE")]
    pub(crate) categories: Option<PathBuf>,
    /// -f label-studio: what stands before the images' names
    #[arg(long, value_name = "PREFIX", default_value = "/data/local-files/?d=images/")]
    pub(crate) image_url: String,
    /// What --save-images draws
    #[cfg(feature = "plot")]
    #[arg(long, value_enum, default_value = "box", value_name = "HOW", requires = "save_images")]
    draw: DrawingName,
    /// Draw boxes without names
    #[cfg(feature = "plot")]
    #[arg(long)]
    hide_labels: bool,
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

impl ResultArguments {
    /// Whether images are drawn on.
    #[cfg(feature = "plot")]
    pub(crate) fn draws(&self) -> bool {
        self.save_images
    }

    #[cfg(not(feature = "plot"))]
    pub(crate) fn draws(&self) -> bool {
        false
    }

    /// How images are drawn on, apart from zones and lines.
    #[cfg(feature = "plot")]
    pub(crate) fn drawing(&self) -> DrawOptions {
        DrawOptions { drawing: self.draw.into(), labels: !self.hide_labels, ..DrawOptions::default() }
    }

    #[cfg(not(feature = "plot"))]
    pub(crate) fn drawing(&self) {}
}

#[derive(Args, Debug)]
#[command(next_help_heading = "The run")]
pub(super) struct CourseArguments {
    /// Stop at the first input that fails
    #[arg(long)]
    pub(super) fail_fast: bool,
    /// No progress and no summary; with -o no text on standard output either
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Name failed inputs on standard error as JSON: {"image", "error"}
    #[arg(long)]
    pub(super) json_errors: bool,
    /// Time every step of the network on the CPU or GPU: a table on standard error, and FILE for programs, Perfetto or
    /// chrome://tracing
    #[arg(long, value_name = "FILE")]
    pub(super) profile: Option<PathBuf>,
}
