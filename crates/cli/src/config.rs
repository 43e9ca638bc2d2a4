//! `--config FILE`: a TOML file that holds options by their long names. The command line comes before the file, the file before
//! what is customary.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, Parser};
use toml::{Table, Value};

use super::Arguments;

/// The subcommands that have it.
const SUBCOMMANDS: [&str; 2] = ["detect", "live"];

impl Arguments {
    /// What was given on the command line, and in the file that it names. Ends the program as clap does where the command line is
    /// no possible one.
    ///
    /// # Errors
    /// A value that an option does not take, or what is wrong with the file.
    pub(crate) fn read(given: Vec<OsString>) -> anyhow::Result<Self> {
        let Some((subcommand, matches, path)) = config_of(&given) else {
            return Self::try_parse_from(given).map_err(told);
        };
        let text = std::fs::read_to_string(&path).with_context(|| format!("--config {}", path.display()))?;
        let options = options_of(&text, &subcommand, &matches).with_context(|| path.display().to_string())?;
        let place = given.iter().position(|argument| *argument == *subcommand).map_or(given.len(), |at| at + 1);
        match together(&given, place, &options) {
            Ok(arguments) => Ok(arguments),
            Err(Fault::CommandLine(error)) => Err(told(error)),
            Err(Fault::File(error)) => bail!("{}: {}", path.display(), in_a_line(&error)),
        }
    }
}

/// A value that an option does not take, in a line; everything else clap tells itself, with its help, and ends the program.
fn told(error: clap::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => anyhow!("{}", in_a_line(&error)),
        _ => error.exit(),
    }
}

/// Where something is wrong.
enum Fault {
    CommandLine(clap::Error),
    File(clap::Error),
}

/// The command line with a file's options at `place`. One that does not go with the command line, or needs what is not there, gives
/// way; one that does not go with the others of the file is an error.
fn together(given: &[OsString], place: usize, options: &[Vec<String>]) -> Result<Arguments, Fault> {
    let parse = |options: &[&Vec<String>]| {
        let mut line = given.to_vec();
        line.splice(place..place, options.iter().flat_map(|option| option.iter()).map(OsString::from));
        Arguments::try_parse_from(line)
    };
    let (mut taken, mut left): (Vec<_>, Vec<_>) = (Vec::new(), options.iter().collect());
    if parse(&left).is_ok() {
        taken.append(&mut left);
    }
    loop {
        let before = left.len();
        left.retain(|&option| {
            taken.push(option);
            let fits = parse(&taken).is_ok();
            if !fits {
                taken.pop();
            }
            !fits
        });
        if left.len() == before {
            break;
        }
    }
    let conflict = |options: &[_]| parse(options).err().filter(|error| error.kind() == ErrorKind::ArgumentConflict);
    for option in left.into_iter().filter(|&option| conflict(&[option]).is_none()) {
        if let Some(error) = conflict(&[&taken[..], &[option]].concat()) {
            return Err(Fault::File(error));
        }
    }
    parse(&taken).map_err(Fault::CommandLine)
}

/// The subcommand, what was given to it, and its `--config`. A command line that is wrong elsewhere is told so later.
fn config_of(given: &[OsString]) -> Option<(String, ArgMatches, PathBuf)> {
    let matches = Arguments::command().ignore_errors(true).try_get_matches_from(given).ok()?;
    let (subcommand, matches) = matches.subcommand().filter(|(name, _)| SUBCOMMANDS.contains(name))?;
    let path = matches.get_one::<PathBuf>("config")?.clone();
    Some((subcommand.to_owned(), matches.clone(), path))
}

/// A file's options as they would stand on a command line, without those that `matches` has from the real one.
fn options_of(text: &str, subcommand: &str, matches: &ArgMatches) -> anyhow::Result<Vec<Vec<String>>> {
    let text = text.trim_start_matches('\u{FEFF}');
    let table: Table = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        anyhow!("line {line}: {}", error.message().replace('\n', " "))
    })?;
    let mut command = Arguments::command();
    command.build();
    let mut options = Vec::new();
    for (key, value) in &table {
        let found = SUBCOMMANDS.map(|name| command.find_subcommand(name).and_then(|command| option(command, key)));
        let Some(other) = found.iter().flatten().next() else { return Err(unknown(&command, key)) };
        // One file serves both: what only the other one knows is read and passed over.
        let own = found[usize::from(subcommand == SUBCOMMANDS[1])];
        let as_given = given_as(own.unwrap_or(other), key, value)?;
        let name = if own.is_some() { subcommand } else { SUBCOMMANDS[usize::from(subcommand != SUBCOMMANDS[1])] };
        check(&as_given, name)?;
        let is_overruled =
            |option: &Arg| matches.value_source(option.get_id().as_str()) == Some(ValueSource::CommandLine);
        if own.is_some_and(|option| !is_overruled(option)) {
            options.push(as_given);
        }
    }
    Ok(options)
}

/// The option with a long name that a file may hold.
fn option<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    let is_option =
        |option: &&Arg| !matches!(option.get_action(), ArgAction::Help | ArgAction::HelpShort | ArgAction::Version);
    command.get_arguments().filter(is_option).find(|option| option.get_long() == Some(name) && name != "config")
}

fn unknown(command: &Command, key: &str) -> anyhow::Error {
    let options = SUBCOMMANDS.iter().filter_map(|name| command.find_subcommand(name));
    let names = options.flat_map(Command::get_arguments).filter_map(Arg::get_long);
    let similar = names.map(|name| (strsim::jaro_winkler(name, key), name));
    match similar.max_by(|(a, _), (b, _)| a.total_cmp(b)) {
        Some((similarity, name)) if similarity > 0.8 => anyhow!("no option is called {key:?}; did you mean {name:?}?"),
        _ => anyhow!("no option is called {key:?}; `yolo-lat detect --help` and `yolo-lat live --help` list them"),
    }
}

/// A key and its value as they would stand on the command line.
fn given_as(option: &Arg, key: &str, value: &Value) -> anyhow::Result<Vec<String>> {
    let one = |value: &Value| Ok::<_, anyhow::Error>(format!("--{key}={}", text_of(key, value)?));
    match (option.get_action(), value) {
        (ArgAction::SetTrue | ArgAction::Count, Value::Boolean(is_set)) => {
            Ok(is_set.then(|| format!("--{key}")).into_iter().collect())
        }
        (ArgAction::SetTrue | ArgAction::Count, _) => bail!("{key} is true or false, found {value}"),
        (ArgAction::Append, Value::Table(values)) => {
            values.iter().map(|(name, value)| Ok(format!("--{key}={name}={}", text_of(name, value)?))).collect()
        }
        (ArgAction::Append, Value::Array(values)) => values.iter().map(one).collect(),
        _ => Ok(vec![one(value)?]),
    }
}

/// A value as text: lists with commas, however they are nested.
fn text_of(key: &str, value: &Value) -> anyhow::Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Array(values) => {
            let texts = values.iter().map(|value| text_of(key, value)).collect::<Result<Vec<_>, _>>()?;
            Ok(texts.join(","))
        }
        Value::Table(_) => bail!("{key}: expected a value or a list, found a table"),
        number => Ok(number.to_string()),
    }
}

/// Whether values are such that the option takes them; what else a command line needs is of no interest yet.
fn check(options: &[String], subcommand: &str) -> anyhow::Result<()> {
    let line = ["yolo-lat", subcommand].into_iter().chain(options.iter().map(String::as_str));
    match Arguments::command().try_get_matches_from(line) {
        Err(error) if !matches!(error.kind(), ErrorKind::MissingRequiredArgument | ErrorKind::ArgumentConflict) => {
            bail!("{}", in_a_line(&error))
        }
        _ => Ok(()),
    }
}

/// What clap says in several lines.
fn in_a_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines =
        text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more "));
    let line = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    line.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: [&str; 2] = ["--config", "unread.toml"];

    /// What comes of a file and a command line for a subcommand.
    fn options(text: &str, given: &[&str]) -> Result<Vec<String>, String> {
        let line = ["yolo-lat"].iter().chain(given).chain(&CONFIG).map(OsString::from);
        let (subcommand, matches, _) = config_of(&line.collect::<Vec<_>>()).unwrap();
        let options = options_of(text, &subcommand, &matches).map_err(|error| error.to_string())?;
        Ok(options.concat())
    }

    #[test]
    fn every_kind_of_option_is_read_and_the_command_line_comes_first() {
        let file = r#"
            model = "s"
            threads = 2
            iou = 0.5
            save-crops = true
            square = false
            classes = ["person", "cell phone"]
            mean = [103.53, 116.28, 123.675]
            conf = [0.3, "bus=0.2"]
            timeout = "20s"
            headless = true

            [zone]
            door = [0.1, 0.2, 0.5, 0.2, 0.5, 0.9]
            yard = [[0, 0], [1, 0], [1, 1]]
        "#;
        let detect = [
            "--model=s",
            "--threads=2",
            "--iou=0.5",
            "--save-crops",
            "--classes=person",
            "--classes=cell phone",
            "--mean=103.53,116.28,123.675",
            "--conf=0.3",
            "--conf=bus=0.2",
            "--timeout=20s",
            "--zone=door=0.1,0.2,0.5,0.2,0.5,0.9",
            "--zone=yard=0,0,1,0,1,1",
        ];
        let sorted = |options: Vec<String>| -> std::collections::BTreeSet<String> { options.into_iter().collect() };
        assert_eq!(sorted(options(file, &["detect", "a.jpg"]).unwrap()), detect.map(str::to_owned).into());
        // What was given replaces what the file says of the same option, lists too; other subcommands' options are passed over.
        let given = ["live", "-m", "n", "--classes", "dog", "--zone", "z=0,0,1,0,1,1"];
        let live = detect.into_iter().filter(|option| {
            !["--model", "--classes", "--zone", "--save-crops"].iter().any(|given| option.starts_with(given))
        });
        let live: Vec<String> = live.into_iter().chain(["--headless"]).map(str::to_owned).collect();
        assert_eq!(sorted(options(file, &given).unwrap()), sorted(live));
    }

    #[test]
    fn what_does_not_go_with_the_command_line_gives_way_to_it() {
        let read = |text: &str, given: &[&str]| {
            let line: Vec<OsString> = ["yolo-lat"].iter().chain(given).chain(&CONFIG).map(OsString::from).collect();
            let (subcommand, matches, _) = config_of(&line).unwrap();
            let options = options_of(text, &subcommand, &matches).unwrap();
            match together(&line, 2, &options) {
                Ok(arguments) => format!("{arguments:?}"),
                Err(Fault::CommandLine(error)) => format!("command line: {}", in_a_line(&error)),
                Err(Fault::File(error)) => format!("file: {}", in_a_line(&error)),
            }
        };
        // `resume` needs `output`, wherever that stands; it does not go with --overwrite.
        let file = "resume = true\noutput = 'out'";
        assert!(read(file, &["detect", "a.jpg"]).contains("resume: true"));
        assert!(read("resume = true", &["detect", "a.jpg"]).contains("resume: false"));
        assert!(read(file, &["detect", "a.jpg", "--overwrite"]).contains("resume: false, overwrite: true"));
        assert!(read("output = 'out'", &["detect", "a.jpg", "--resume"]).contains("output: Some(\"out\")"));
        let both = read("resume = true\noutput = 'out'\noverwrite = true", &["detect", "a.jpg"]);
        assert!(both.starts_with("file: ") && both.contains("cannot be used with"), "{both}");
        assert!(read(file, &["detect"]).starts_with("command line: the following required arguments"));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_in_a_line() {
        for (file, wrong) in [
            ("clases = 'dog'", "no option is called \"clases\"; did you mean \"classes\"?"),
            ("min_size = 0.1", "no option is called \"min_size\"; did you mean \"min-size\"?"),
            ("qqq = 1", "no option is called \"qqq\"; `yolo-lat detect --help` and `yolo-lat live --help` list them"),
            ("help = true", "no option is called \"help\""),
            ("config = 'other.toml'", "no option is called \"config\""),
            ("conf = 2", "invalid value '2' for '--conf <SHARE>': expected a number from 0 to 1, found 2"),
            (
                "draw = 'blurr'",
                "invalid value 'blurr' for '--draw <HOW>' [possible values: box, blur, pixelate, heat] tip:",
            ),
            ("zone.door = [0, 0, 1, 1]", "door: a zone has at least 3 points, found 2"),
            ("recursive = 'yes'", "recursive is true or false, found \"yes\""),
            ("conf = true", "invalid value 'true' for '--conf <SHARE>': expected a number from 0 to 1, found \"true\""),
            ("model = { a = 1 }", "model: expected a value or a list, found a table"),
            ("model = 'n'\nmodel = 's'", "line 2: duplicate key"),
            ("model = ", "line 1: "),
            // Of an option that only `live` has.
            ("headless = 3", "headless is true or false, found 3"),
        ] {
            let said = options(file, &["detect", "a.jpg"]).unwrap_err();
            assert!(said.contains(wrong) && !said.contains('\n'), "{file:?}: {said:?}");
        }
    }
}
