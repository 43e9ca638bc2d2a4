//! Events of `live`, as the command line says them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use yolo_lat::event::{Address, EventOptions, Events, Note, Program, Rule, Seen};
use yolo_lat::frame::Frame;
use yolo_lat::model::classes::find_class;
use yolo_lat::sink::{DrawOptions, NamedDetection};
use yolo_lat::source::has_ffmpeg;
use yolo_lat::zones::Counts;
use yolo_lat_app::live::{LiveResult, Observer};

use super::report;

/// The longest time of an option: clips wait in memory.
const LONGEST: Duration = Duration::from_secs(3600);

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Events (docs/LIVE.md)")]
pub(super) struct EventArguments {
    /// Watch for a class, anywhere or in a zone: person, person:door; may be repeated. Each event has a snapshot and a clip in -o DIR
    #[arg(long, value_name = "CLASS[:ZONE]")]
    when: Vec<Rule>,
    /// How long something must be there before it is an event
    #[arg(long = "for", value_name = "TIME", default_value = "0s", value_parser = parse_time, requires = "when")]
    hold: Duration,
    /// How much a clip shows of what was before the event
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_time, requires = "when")]
    before: Duration,
    /// And of what was after it
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_time, requires = "when")]
    after: Duration,
    /// Send each event as JSON to http(s)://HOST/PATH
    #[arg(long, value_name = "URL", requires = "when")]
    post: Option<String>,
    /// Publish events as frigate does, and sensors for Home Assistant, to mqtt(s)://HOST/PREFIX; USER:PASSWORD@ may stand before
    /// HOST, :PORT behind it
    #[arg(long, value_name = "URL", requires = "when")]
    mqtt: Option<String>,
    /// Start a program for each event, without a shell: YOLO_LAT_EVENT is new, end or clip, its standard input the event as JSON
    #[arg(long, value_name = "COMMAND", requires = "when")]
    run: Option<String>,
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time > LONGEST { Err(format!("at most {} are possible", humantime::format_duration(LONGEST))) } else { Ok(time) }
}

impl EventArguments {
    /// Whether something is waited for.
    pub(super) fn is_empty(&self) -> bool {
        self.when.is_empty()
    }

    /// Whether a model has the classes that are waited for.
    pub(super) fn check(&self, classes: &[String]) -> anyhow::Result<()> {
        self.when.iter().try_for_each(|rule| find_class(&rule.class, classes).map(drop).context("--when"))
    }

    /// Begins to watch; nothing where nothing is waited for. `drawing` has the zones there are.
    pub(super) fn start(&self, folder: PathBuf, drawing: DrawOptions) -> anyhow::Result<Option<Arc<Watcher>>> {
        if self.is_empty() {
            return Ok(None);
        }
        let is_there = |zone: &&str| drawing.zones.iter().any(|other| other.name() == *zone);
        if let Some(zone) = self.when.iter().filter_map(|rule| rule.zone.as_deref()).find(|zone| !is_there(zone)) {
            bail!("--when: no zone is called {zone:?}; --zone {zone}=X1,Y1,... or --config FILE makes one");
        }
        // Errors do not repeat an address, which may hold a password.
        let address = |option, text: &Option<String>, parse: fn(&str) -> Result<Address, _>| {
            text.as_deref().map(parse).transpose().context(option)
        };
        let options = EventOptions {
            rules: self.when.clone(),
            hold: self.hold,
            before: self.before,
            after: self.after,
            clips: has_ffmpeg(),
            drawing,
            post: address("--post", &self.post, Address::http)?,
            mqtt: address("--mqtt", &self.mqtt, Address::mqtt)?,
            run: self.run.as_deref().map(Program::find).transpose().context("--run")?,
            folder,
        };
        if !options.clips {
            report("yolo-lat: events have no clips: they need ffmpeg (sudo apt-get install ffmpeg, or ffmpeg.org)");
        }
        std::fs::create_dir_all(&options.folder).with_context(|| options.folder.display().to_string())?;
        Ok(Some(Arc::new(Watcher(Events::start(options)?))))
    }
}

/// Watches the results of a session.
pub(super) struct Watcher(Events);

/// A result as events see it.
struct Sight(Arc<LiveResult>);

impl Seen for Sight {
    fn source(&self) -> (u64, &str) {
        (self.0.captured.source, &self.0.captured.name)
    }

    fn frame(&self) -> &Frame {
        &self.0.captured.frame
    }

    fn detections(&self) -> &[NamedDetection] {
        &self.0.detections
    }

    fn counts(&self) -> &Counts {
        &self.0.counts
    }
}

impl Observer for Watcher {
    fn classes(&self, classes: &[String]) {
        self.0.set_classes(classes);
    }

    fn result(&self, result: &Arc<LiveResult>) {
        self.0.see(Arc::new(Sight(result.clone())));
    }

    fn notes(&self) -> Vec<(bool, String)> {
        self.0.notes().into_iter().map(|Note { is_error, line }| (is_error, line)).collect()
    }
}

impl Watcher {
    /// Ends what goes on, and says what is missing; with `in_any_case`, also that nothing is.
    pub(super) fn finish(&self, in_any_case: bool) {
        let summary = self.0.finish();
        for Note { is_error, line } in self.0.notes() {
            log::log!(if is_error { log::Level::Warn } else { log::Level::Info }, "{line}");
        }
        if in_any_case || summary.has_losses() {
            report(&summary.to_string());
        }
    }
}
