//! Curves of runs from their logs.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;
use yolo_lat::plot::{Line, LineChart, save_panels};

/// The parts of the loss in a log.
const PARTS: [&str; 4] = ["class", "box", "distribution", "teacher"];

/// What is drawn, and where.
#[derive(clap::Args, Debug)]
pub(crate) struct PlotArguments {
    /// Folders of runs, or their metrics.jsonl: one is drawn in its parts, several against each other
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Image to write (.png or .svg); curves.png beside the first log unless given
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// A run's log.
pub(crate) struct Log {
    pub(crate) name: String,
    lines: Vec<Value>,
}

impl Log {
    /// Reads `metrics.jsonl`, or that of a folder. A line that an interruption cut short is left out.
    ///
    /// # Errors
    /// The file cannot be read or has no line of a log.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let file = if path.is_dir() { path.join("metrics.jsonl") } else { path.to_owned() };
        let text = std::fs::read_to_string(&file).with_context(|| format!("{}: cannot be read", file.display()))?;
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if !lines.iter().any(|line| line["step"].is_u64()) {
            bail!("{}: not a log of the trainer", file.display());
        }
        let named = if path.is_dir() { path } else { file.parent().unwrap_or(path) };
        let own_name = file.file_name().is_some_and(|name| name != "metrics.jsonl");
        let name = if own_name { file.file_stem() } else { named.file_name() };
        Ok(Self { name: name.unwrap_or_default().to_string_lossy().into_owned(), lines })
    }

    /// Of the lines of a log.
    pub(crate) fn new(name: &str, lines: Vec<Value>) -> Self {
        Self { name: name.to_owned(), lines }
    }

    /// `key` against the step. Of a step that stands twice, after a resume, the last counts. Parts of the loss come from the
    /// lines between epochs where there are any.
    pub(crate) fn points(&self, key: &str) -> Vec<(f64, f64)> {
        let between = key != "map50" && self.lines.iter().any(|line| line["epoch"].is_null());
        let mut points: Vec<(f64, f64)> = Vec::new();
        for line in self.lines.iter().filter(|line| !between || line["epoch"].is_null()) {
            let (Some(step), Some(value)) = (line["step"].as_f64(), line[key].as_f64()) else { continue };
            points.retain(|&(known, _)| known < step);
            points.push((step, value));
        }
        points
    }
}

/// Draws the curves.
///
/// # Errors
/// A log cannot be read or the image not be written.
pub(crate) fn plot(arguments: &PlotArguments) -> anyhow::Result<()> {
    let logs = arguments.runs.iter().map(|path| Log::read(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let beside = |path: &PathBuf| {
        if path.is_dir() { path.clone() } else { path.parent().map(Path::to_owned).unwrap_or_default() }
    };
    let output = arguments.output.clone().unwrap_or_else(|| beside(&arguments.runs[0]).join("curves.png"));
    draw(&logs, &output)?;
    crate::log::say(&format!("{}", output.display()));
    Ok(())
}

/// Two panels against the step: losses, and mAP50.
pub(crate) fn draw(logs: &[Log], output: &Path) -> anyhow::Result<()> {
    let axes = |y: &str| ["step".to_owned(), y.to_owned()];
    let line = |name: &str, points: Vec<(f64, f64)>| Line { name: name.to_owned(), points };
    let map = logs.iter().map(|log| line(&log.name, log.points("map50"))).collect();
    let map = LineChart {
        title: "Accuracy on the validation images".into(),
        axes: axes("mAP50, %"),
        lines: map,
        bands: Vec::new(),
        rises: true,
    };
    let panels = match logs {
        [log] => {
            let parts = PARTS.iter().map(|part| line(part, log.points(part)));
            let parts = parts.filter(|line| line.points.iter().any(|&(_, value)| value > 0.0)).collect();
            vec![
                LineChart {
                    title: format!("{}: parts of the loss", log.name),
                    axes: axes("loss"),
                    lines: parts,
                    bands: Vec::new(),
                    rises: false,
                },
                map,
            ]
        }
        _ => {
            let each = |part: &str| logs.iter().map(|log| line(&log.name, log.points(part))).collect();
            let chart = |part: &str| LineChart {
                title: format!("Loss: {part}"),
                axes: axes("loss"),
                lines: each(part),
                bands: Vec::new(),
                rises: false,
            };
            vec![chart("class"), chart("box"), map]
        }
    };
    Ok(save_panels(output, &panels)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_becomes_a_image_and_a_resumed_step_counts_once() {
        let folder = tempfile::tempdir().unwrap();
        let lines = [
            r#"{"step":50,"class":2.0,"box":0.5,"distribution":1.0,"teacher":0.0}"#,
            r#"{"step":100,"class":1.5,"box":0.4,"distribution":0.9,"teacher":0.0}"#,
            r#"{"step":110,"class":1.7,"box":0.45,"epoch":1,"map50":20.0}"#,
            r#"{"step":100,"class":1.4,"box":0.4,"distribution":0.9,"teacher":0.0}"#,
            r#"{"step":150,"class":1.2,"box":0.4,"distribution":0.8,"teacher":0.0}"#,
            r#"{"step":220,"class":1.3,"epoch":2,"map50":30.0}"#,
            r#"{"step":250,"cla"#,
        ];
        std::fs::write(folder.path().join("metrics.jsonl"), lines.join("\n")).unwrap();
        let log = Log::read(folder.path()).unwrap();
        assert_eq!(log.points("class"), [(50.0, 2.0), (100.0, 1.4), (150.0, 1.2)]);
        assert_eq!(log.points("map50"), [(110.0, 20.0), (220.0, 30.0)]);
        let output = folder.path().join("curves.png");
        draw(&[log], &output).unwrap();
        let image = image::ImageReader::open(&output).unwrap().with_guessed_format().unwrap();
        assert_eq!(image.format(), Some(image::ImageFormat::Png));
        let other = folder.path().join("other.jsonl");
        std::fs::write(&other, "no log").unwrap();
        assert!(Log::read(&other).err().unwrap().to_string().contains("other.jsonl"));
    }
}
