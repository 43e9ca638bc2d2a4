//! What is reported of objects that are followed from frame to frame, as the command line says it.

use anyhow::bail;
use clap::Args;
use yolo_lat::follow::FollowOptions;

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Objects from frame to frame")]
pub(super) struct FollowArguments {
    /// Follow objects: each has a number (id), an age (seconds) and a speed (pixels a second). One is reported from the second frame
    /// on that shows it, then with less confidence too. On in the window; --track=false for off
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    track: Option<bool>,
    /// With --track: boxes and confidences of the results are smoothed, as those that are drawn
    #[arg(long)]
    smooth: bool,
}

impl FollowArguments {
    /// Whether nothing was asked for.
    #[cfg(feature = "window")]
    pub(super) fn is_usual(&self) -> bool {
        self.track.is_none() && !self.smooth
    }

    /// What was asked for; `usual` says whether objects are followed where nothing was.
    pub(super) fn options(&self, usual: bool) -> anyhow::Result<FollowOptions> {
        let track = self.track.unwrap_or(usual);
        if self.smooth && !track {
            bail!("--smooth belongs to --track");
        }
        Ok(FollowOptions { track, smooth: self.smooth, ..FollowOptions::default() })
    }
}
