//! Zones and lines of `detect` and `live`.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use yolo_lat::follow::FollowOptions;
use yolo_lat::zones::{Line, Zone};

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Zones and lines (docs/LIVE.md)")]
pub(super) struct WatchArguments {
    /// A part of the image by its corners, three or more, in shares of the image: door=0.1,0.2,0.5,0.2,0.5,0.9. Results say of each
    /// object which zones the bottom centre of its box is in
    #[arg(long = "zone", value_name = "NAME=X1,Y1,X2,Y2,X3,Y3,...")]
    zones: Vec<Zone>,
    /// A line by its ends: gate=0.2,0.5,0.8,0.5. Tracked objects that cross it are counted; from left to right, down is `in` and up is
    /// `out` (the right and the left hand of one who walks along it). Turns --track on
    #[arg(long = "line", value_name = "NAME=X1,Y1,X2,Y2")]
    lines: Vec<Line>,
    /// TOML file with options of `detect` and `live` by their long names, zones and lines as tables; the command line wins
    #[arg(long, value_name = "FILE", help_heading = "Options in a file (docs/LIVE.md)")]
    pub(super) config: Option<PathBuf>,
}

impl WatchArguments {
    /// Whether nothing was asked for.
    #[cfg(feature = "window")]
    pub(super) fn is_usual(&self) -> bool {
        self.zones.is_empty() && self.lines.is_empty()
    }

    /// Whether there is something to count.
    pub(super) fn counts(&self) -> bool {
        !self.lines.is_empty()
    }

    /// Puts them into what is reported. Each name may be there once: results tell zones and lines apart by it.
    pub(super) fn add_to(&self, follow: &mut FollowOptions) -> anyhow::Result<()> {
        once("--zone", self.zones.iter().map(Zone::name))?;
        once("--line", self.lines.iter().map(Line::name))?;
        if self.counts() && !follow.track {
            bail!("--line counts tracked objects: it does not go with --track=false");
        }
        (follow.zones, follow.lines) = (self.zones.clone(), self.lines.clone());
        Ok(())
    }
}

fn once<'a>(option: &str, names: impl Iterator<Item = &'a str>) -> anyhow::Result<()> {
    let mut seen = std::collections::HashSet::new();
    match names.into_iter().find(|name| !seen.insert(*name)) {
        Some(name) => bail!("{option} {name} is there twice: each needs a name of its own"),
        None => Ok(()),
    }
}
