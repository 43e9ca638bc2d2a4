//! `yolo-lat doctor`: what this machine has, how fast it is, and how to install what is missing. A part that is broken is a line.

mod install;
mod parts;

use std::fmt::Write;
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};
use yolo_lat::Runtime;

use super::options::DeviceArguments;

/// How long a driver or a library may take to answer; the first compilation of a GPU's shaders takes longest.
const PATIENCE: Duration = Duration::from_secs(90);

#[derive(Args, Debug)]
pub(super) struct DoctorArguments {
    #[command(flatten)]
    devices: DeviceArguments,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What was found out about one thing.
#[derive(Default)]
struct Part {
    /// For people, the first beside the part's name, the others below it.
    lines: Vec<String>,
    /// For programs; each has a `problem`, which is null where there is none.
    facts: Map<String, Value>,
    missing: Vec<Missing>,
}

/// What could be installed.
struct Missing {
    what: String,
    /// What it is needed for.
    wanted_for: &'static str,
    command: String,
}

impl Part {
    /// One line and some facts, an object.
    fn new(line: String, facts: Value) -> Self {
        let mut part = Self { lines: vec![line], ..Self::default() };
        if let Value::Object(facts) = facts {
            part.facts = facts;
        }
        part.facts.entry("problem").or_insert(Value::Null);
        part
    }

    /// Nothing but what is wrong; `facts` has the fields that would be there.
    fn problem(problem: &str, facts: Value) -> Self {
        let mut part = Self::new(problem.to_owned(), facts);
        part.facts.insert("problem".into(), problem.into());
        part
    }

    fn missing(mut self, what: &str, wanted_for: &'static str, command: String) -> Self {
        self.missing.push(Missing { what: what.to_owned(), wanted_for, command });
        self
    }
}

pub(super) fn run(arguments: &DoctorArguments) -> anyhow::Result<ExitCode> {
    let runtime = Runtime::new(arguments.devices.options(0));
    let (for_engines, for_gpu, for_library) = (runtime.clone(), runtime.clone(), runtime);
    // What is measured comes first: nothing that hangs is beside it.
    let parts = [
        ("processor", examine(parts::processor)),
        ("engines", examine(move || parts::engines(&for_engines))),
        ("gpu", examine(move || parts::gpu(&for_gpu))),
        ("onnx_runtime", examine(move || parts::onnx_runtime(&for_library))),
        ("cameras", examine(parts::cameras)),
        ("ffmpeg", examine(parts::ffmpeg)),
        ("display", examine(parts::display)),
        ("cache", examine(parts::cache)),
        ("configuration", examine(parts::configuration)),
    ];
    let (built, lacking) = features();
    let mut missing: Vec<&Missing> = parts.iter().flat_map(|(_, part)| &part.missing).collect();
    let in_full = Missing {
        what: format!("in this build: {}", lacking.join(", ")),
        wanted_for: "what they are called",
        command: "cargo install --path crates/cli".into(),
    };
    if !lacking.is_empty() {
        missing.push(&in_full);
    }
    let text = if arguments.json {
        let mut report = json!({
            "version": env!("CARGO_PKG_VERSION"), "features": built,
            "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        });
        for (name, part) in &parts {
            report[name] = Value::Object(part.facts.clone());
        }
        let missing = missing.iter().map(
            |Missing { what, wanted_for, command }| json!({ "what": what, "for": wanted_for, "command": command }),
        );
        report["missing"] = missing.collect();
        format!("{report}\n")
    } else {
        as_text(&parts, &built, &missing)
    };
    super::print(&text)
}

/// What this build has of the features that it could have, and what it lacks.
fn features() -> (Vec<&'static str>, Vec<&'static str>) {
    let all = [
        ("camera", cfg!(feature = "camera")),
        ("events", cfg!(feature = "events")),
        ("gpu", cfg!(feature = "gpu")),
        ("ort", cfg!(feature = "ort")),
        ("plot", cfg!(feature = "plot")),
        ("video", cfg!(feature = "video")),
        ("window", cfg!(feature = "window")),
    ];
    let names = |is_there: bool| all.iter().filter(|(_, built)| *built == is_there).map(|&(name, _)| name).collect();
    (names(true), names(false))
}

/// Looks in a thread of its own: a driver that panics or hangs costs its own part only.
fn examine(look: impl FnOnce() -> Part + Send + 'static) -> Part {
    let (sender, receiver) = channel();
    let thread = std::thread::Builder::new().name("doctor".into()).spawn(move || sender.send(look()));
    let problem = match thread {
        Err(error) => error.to_string(),
        Ok(_) => match receiver.recv_timeout(PATIENCE) {
            Ok(part) => return part,
            Err(RecvTimeoutError::Timeout) => format!("gives no answer within {} s", PATIENCE.as_secs()),
            Err(RecvTimeoutError::Disconnected) => "failed; standard error says where".into(),
        },
    };
    Part::problem(&problem, json!({}))
}

fn as_text(parts: &[(&str, Part)], built: &[&str], missing: &[&Missing]) -> String {
    let system = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
    let mut text = format!("yolo-lat {}, {system}, built with {}\n", env!("CARGO_PKG_VERSION"), built.join(", "));
    // Writing to a String cannot fail.
    for (name, part) in parts {
        let name = name.replace('_', " ");
        for (at, line) in part.lines.iter().enumerate() {
            let _ = writeln!(text, "{:<14} {line}", if at == 0 { &*name } else { "" });
        }
    }
    for Missing { what, wanted_for, command } in missing {
        let _ = writeln!(text, "missing        {what} (for {wanted_for}): {command}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_panics_is_a_line() {
        let part = examine(|| panic!("as a driver may"));
        assert_eq!(part.lines, ["failed; standard error says where"]);
        assert_eq!(part.facts["problem"], "failed; standard error says where");
    }
}
