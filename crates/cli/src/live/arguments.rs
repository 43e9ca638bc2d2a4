//! What `live` is told on the command line.

use std::ffi::OsString;
use std::path::Path;
#[cfg(feature = "events")]
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
#[cfg(feature = "events")]
use yolo_lat::ModelFile;
#[cfg(all(feature = "plot", feature = "video"))]
use yolo_lat::follow::FollowOptions;
#[cfg(all(feature = "plot", feature = "video"))]
use yolo_lat::sink::DrawOptions;
#[cfg(feature = "camera")]
use yolo_lat::source::{CameraRequest, FormatRequest};
use yolo_lat::source::{SourceRequest, display_name, holds_video};

#[cfg(feature = "events")]
use crate::events::EventArguments;
use crate::follow::FollowArguments;
use crate::inputs::{InputOptions, Sources};
#[cfg(all(feature = "plot", feature = "video"))]
use crate::options::DrawingName;
use crate::options::{EngineArguments, LimitArguments, SourceArguments};
use crate::watch::WatchArguments;

/// More at once would each have too little of one engine.
const MOST_SOURCES: usize = 16;

#[derive(Args, Debug)]
pub(crate) struct LiveArguments {
    /// Cameras (0, /dev/video0), addresses (rtsp://, http://), the screen (screen, screen:1:640x480+100+50), videos, images,
    /// folders, glob patterns, lists (list.txt: a path or address a line), - for paths or an image on standard input, synthetic;
    /// several at once, of which images make one slide show. Default: the first camera, else the synthetic scene
    #[arg(value_name = "SOURCE", help_heading = "Sources")]
    sources: Vec<OsString>,
    #[arg(long, hide = true, value_name = "SOURCE", conflicts_with = "sources")]
    source: Option<OsString>,
    #[cfg(feature = "camera")]
    #[arg(long, hide = true, value_name = "CAMERA", conflicts_with_all = ["sources", "source"])]
    camera: Option<String>,
    /// The only format of cameras to try: 640x480@30,mjpeg (kinds: mjpeg, yuyv, nv12, rgb, bgr, grey)
    #[cfg(feature = "camera")]
    #[arg(long, value_name = "FORMAT", help_heading = "Sources")]
    camera_format: Option<FormatRequest>,
    #[command(flatten)]
    pub(super) reading: SourceArguments,

    #[command(flatten, next_help_heading = "Model")]
    pub(super) engine: EngineArguments,
    #[command(flatten)]
    pub(super) limits: LimitArguments,
    #[command(flatten)]
    pub(super) follow: FollowArguments,
    #[cfg(feature = "events")]
    #[command(flatten)]
    pub(super) events: EventArguments,
    #[command(flatten)]
    pub(super) watch: WatchArguments,
    #[command(flatten)]
    pub(super) results: LiveResultArguments,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Results")]
pub(super) struct LiveResultArguments {
    /// Snapshots and recordings of the window, and those of events, go into this folder; default: your folder for pictures, of events ./events
    #[cfg(any(feature = "window", feature = "events"))]
    #[arg(short, long, value_name = "DIR")]
    pub(super) output: Option<std::path::PathBuf>,
    /// No window: results on standard output
    #[arg(long)]
    pub(super) headless: bool,
    /// End after so many results of each source (with --headless)
    #[arg(long, alias = "frames", value_name = "N", requires = "headless", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) max_frames: Option<u64>,
    /// Format of the results (with --headless)
    #[arg(short, long, value_enum, default_value = "text", requires = "headless")]
    pub(super) format: LiveFormat,
    /// Write the frames with their boxes into a video, each at the time it was taken (needs ffmpeg); of several sources FILE-1,
    /// FILE-2 and so on
    #[cfg(all(feature = "plot", feature = "video"))]
    #[arg(long, value_name = "FILE", requires = "headless")]
    pub(super) save_video: Option<std::path::PathBuf>,
    /// What is drawn: into videos, snapshots and clips, and in the window
    #[cfg(all(feature = "plot", feature = "video"))]
    #[arg(long, value_enum, default_value = "box", value_name = "HOW")]
    pub(super) draw: DrawingName,
    /// Print percentiles of ages and the growth of memory at the end (with --headless)
    #[arg(long, requires = "headless")]
    pub(super) statistics: bool,
}

impl LiveResultArguments {
    /// How images are drawn on.
    #[cfg(all(feature = "plot", feature = "video"))]
    pub(super) fn drawing(&self, follow: &FollowOptions) -> DrawOptions {
        let (zones, lines) = (follow.zones.clone(), follow.lines.clone());
        DrawOptions { drawing: self.draw.into(), labels: true, zones, lines }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LiveFormat {
    /// A readable line a frame
    Text,
    /// One JSON object a line
    Jsonl,
    /// One row a detection
    Csv,
}

impl LiveArguments {
    /// What was asked for; of no sources a camera.
    pub(super) fn sources(&self) -> anyhow::Result<Vec<SourceRequest>> {
        #[cfg(feature = "camera")]
        if let Some(device) = &self.camera {
            let format = self.camera_format;
            return Ok(vec![SourceRequest::Camera(CameraRequest { device: device.clone(), format })]);
        }
        let given: Vec<OsString> = self.source.iter().chain(&self.sources).cloned().collect();
        let auto = given.is_empty() || given == ["auto"];
        #[cfg_attr(not(feature = "camera"), expect(unused_mut))]
        let mut sources = if auto { vec![SourceRequest::Auto] } else { self.find(&given)? };
        #[cfg(feature = "camera")]
        if let Some(format) = self.camera_format {
            let cameras = sources.iter_mut().filter_map(|source| match source {
                SourceRequest::Camera(camera) => Some(camera),
                _ => None,
            });
            if cameras.map(|camera| camera.format = Some(format)).count() == 0 {
                bail!("--camera-format is for cameras: name one, as in `yolo-lat live 0`");
            }
        }
        Ok(sources)
    }

    fn find(&self, given: &[OsString]) -> anyhow::Result<Vec<SourceRequest>> {
        let SourceArguments { recursive, null, .. } = self.reading;
        let Sources { paths, contents, errors, .. } =
            Sources::find(given, &InputOptions { recursive, null, except: None })?;
        if let Some((path, reason)) = errors.first() {
            bail!("{}: {reason}", path.display());
        }
        let mut sources = Vec::new();
        // Images, and before which of the sources they come.
        let (mut images, mut place) = (Vec::new(), None);
        for path in paths {
            match &contents {
                Some(contents) if path == Path::new("-") => sources.push(SourceRequest::Contents(contents.clone())),
                _ if path.is_file() && !holds_video(&path) => {
                    place.get_or_insert(sources.len());
                    images.push(path);
                }
                _ => {
                    let request = path.to_str().map_or_else(
                        || {
                            if path.exists() {
                                Ok(SourceRequest::Path(path.clone()))
                            } else {
                                Err("no such file".into())
                            }
                        },
                        str::parse,
                    );
                    sources.push(request.map_err(anyhow::Error::msg).with_context(|| display_name(&path))?);
                }
            }
        }
        if let Some(place) = place {
            sources.insert(place, SourceRequest::Images(images));
        }
        if sources.len() > MOST_SOURCES {
            bail!(
                "{} sources at once, where {MOST_SOURCES} are the most; `yolo-lat detect` takes any number",
                sources.len()
            );
        }
        Ok(sources)
    }

    #[cfg(any(feature = "window", feature = "events"))]
    pub(super) fn check_output(&self) -> anyhow::Result<()> {
        #[cfg(feature = "events")]
        let has_events = !self.events.is_empty();
        #[cfg(not(feature = "events"))]
        let has_events = false;
        if self.results.output.is_some() && self.results.headless && !has_events {
            bail!("-o is where snapshots and clips go: without a window, those of events (--when)");
        }
        Ok(())
    }

    /// Who waits for events, with what is known of the model's classes and the zones.
    #[cfg(feature = "events")]
    pub(super) fn watcher(
        &self,
        file: &ModelFile,
        follow: &FollowOptions,
    ) -> anyhow::Result<Option<Arc<crate::events::Watcher>>> {
        if let ModelFile::Native(model) = file {
            self.events.check(&model.config.classes)?;
        }
        let folder = self.results.output.clone().unwrap_or_else(|| std::path::PathBuf::from("events"));
        self.events.start(folder, self.results.drawing(follow))
    }
}
