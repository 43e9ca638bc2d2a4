//! `yolo-lat lm`: a small language model that goes on with a text, and how well it predicts one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;
use yolo_lat_lm::{Generation, Model, Sampling, surprise};

#[derive(Args, Debug)]
pub(super) struct LmArguments {
    #[command(subcommand)]
    command: LmCommand,
}

#[derive(Debug, Subcommand)]
enum LmCommand {
    /// Go on with a text
    Generate(GenerateArguments),
    /// Measure how well the model predicts texts: nats a token, bits a byte
    Eval(EvalArguments),
}

#[derive(Args, Debug)]
struct GenerateArguments {
    /// Model: the path of a .toml with a .safetensors and a .tokenizer.json beside it [default: the one that comes with yolo-lat]
    #[arg(short, long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// What the text begins with
    #[arg(short, long, value_name = "TEXT")]
    prompt: OsString,
    /// Tokens to add; the model may end the text before
    #[arg(short = 'n', long, default_value_t = 100)]
    tokens: usize,
    /// How freely tokens are chosen; 0 takes the likeliest
    #[arg(long, default_value_t = 0.8, value_parser = temperature)]
    temperature: f32,
    /// The same seed gives the same text
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Args, Debug)]
struct EvalArguments {
    /// Model: the path of a .toml with a .safetensors and a .tokenizer.json beside it [default: the one that comes with yolo-lat]
    #[arg(short, long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Texts (UTF-8)
    #[arg(required = true, value_name = "FILE")]
    texts: Vec<PathBuf>,
    /// Tokens after which the model forgets all and goes on anew, as in training; 0 for never
    #[arg(long, default_value_t = 256)]
    length: usize,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

fn temperature(text: &str) -> Result<f32, String> {
    let value: f32 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if (0.0..=100.0).contains(&value) { Ok(value) } else { Err("expected 0 to 100".into()) }
}

pub(super) fn run(arguments: &LmArguments) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        LmCommand::Generate(arguments) => generate(arguments),
        LmCommand::Eval(arguments) => eval(arguments),
    }
}

/// The model in a file, or the one that comes with the program.
pub(super) fn load(path: Option<&Path>) -> anyhow::Result<Model> {
    Ok(match path {
        Some(path) => Model::load(path)?,
        None => Model::builtin()?,
    })
}

/// Writes the prompt and what follows, each piece as it comes.
fn generate(arguments: &GenerateArguments) -> anyhow::Result<ExitCode> {
    let prompt = arguments.prompt.to_str().context("--prompt: no text in UTF-8")?;
    let model = load(arguments.model.as_deref())?;
    let sampling = Sampling { temperature: arguments.temperature, seed: arguments.seed };
    let start = Instant::now();
    let mut generation = Generation::new(&model, prompt, arguments.tokens, sampling)?;
    let code = super::print(prompt)?;
    for piece in &mut generation {
        super::print(&piece?)?;
    }
    super::print("\n")?;
    log::info!("{:.2} s, a state of {} bytes", start.elapsed().as_secs_f64(), generation.bytes());
    Ok(code)
}

/// A line a text; what is none is said, and the others go on.
fn eval(arguments: &EvalArguments) -> anyhow::Result<ExitCode> {
    let model = load(arguments.model.as_deref())?;
    let length = (arguments.length > 0).then_some(arguments.length);
    let mut failed = false;
    for path in &arguments.texts {
        let name = path.display();
        let text = match read(path) {
            Ok(text) => text,
            Err(error) => {
                super::report(&format!("yolo-lat: {error:#}"));
                failed = true;
                continue;
            }
        };
        let found = surprise(&model, &text, length)?;
        let (nats, bits) = (found.nats_per_token(), found.bits_per_byte());
        super::print(&if arguments.json {
            let line = json!({ "text": name.to_string(), "nats_per_token": nats, "bits_per_byte": bits, "tokens": found.tokens, "bytes": found.bytes });
            format!("{line}\n")
        } else {
            format!(
                "{name}: {nats:.4} nats a token, {bits:.4} bits a byte ({} tokens, {} bytes)\n",
                found.tokens, found.bytes
            )
        })?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn read(path: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let text = String::from_utf8(bytes).ok().with_context(|| format!("{}: no text in UTF-8", path.display()))?;
    anyhow::ensure!(!text.is_empty(), "{}: an empty file", path.display());
    Ok(text)
}
