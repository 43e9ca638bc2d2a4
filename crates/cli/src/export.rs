//! `yolo-lat export`: a model as ONNX.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
#[cfg(feature = "ort")]
use yolo_lat::engine::ort::simplify;
use yolo_lat::export::{ExportOptions, ExportOutput, OPSETS, export_onnx};
use yolo_lat::model::Model;
use yolo_lat::model::config::CONFIDENCE;
use yolo_lat::postprocess::Nms;
use yolo_lat::sink::write_atomically;

use super::for_class::parse_share;
use super::options::{PrecisionName, nms_parser, parse_size};

#[derive(Args, Debug)]
pub(super) struct ExportArguments {
    /// Model: n, s, or the path of a .toml or .safetensors file
    #[arg(default_value = "n")]
    model: String,
    /// The file to write; default: MODEL.onnx in this folder
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Version of the ONNX operators
    #[arg(long, default_value_t = 18, value_parser = clap::value_parser!(i64).range(OPSETS))]
    opset: i64,
    /// Input size in pixels, multiples of 32: 320 or 416x320 (width x height); default: the model's
    #[arg(long, value_name = "PIXELS", value_parser = parse_size)]
    size: Option<(usize, usize)>,
    /// Images computed together: a number, or `dynamic`
    #[arg(long, default_value = "1", value_name = "N", value_parser = parse_batch)]
    batch: Batch,
    /// Leave batch, width and height open
    #[arg(long)]
    dynamic: bool,
    /// What 1x1 convolutions are written in: f32, int8 (QuantizeLinear and DequantizeLinear around them), auto: as the model's file says
    #[arg(long, value_enum, default_value = "f32")]
    precision: PrecisionName,
    /// Convolutions in 16-bit floats; input and output stay 32-bit
    #[arg(long)]
    half: bool,
    /// Suppress overlapping boxes in the file: output0 is (batch, 300, 6): x1, y1, x2, y2, confidence, class; the suppressed ones
    /// go (--nms=greedy) or vote for the one that stays
    #[arg(long, value_name = "METHOD", value_parser = nms_parser(), num_args = 0..=1, require_equals = true,
          default_missing_value = "box-voting", conflicts_with = "raw")]
    nms: Option<Nms>,
    /// Least confidence of a detection with --nms, 0 to 1; default: the model's, else 0.25
    #[arg(long, value_parser = parse_share, requires = "nms")]
    conf: Option<f32>,
    /// Of two boxes of a class that overlap more than this, the less confident goes, with --nms
    #[arg(long, default_value_t = 0.45, value_parser = parse_share, requires = "nms")]
    iou: f32,
    /// As --nms=greedy
    #[arg(long, hide = true, requires = "nms")]
    no_merge: bool,
    /// Give the raw logits of each scale instead of (batch, 4 + classes, cells)
    #[arg(long)]
    raw: bool,
    /// Let ONNX Runtime fold and fuse what it can by standard operators
    #[cfg(feature = "ort")]
    #[arg(long)]
    simplify: bool,
}

#[derive(Clone, Copy, Debug)]
struct Batch(Option<usize>);

fn parse_batch(text: &str) -> Result<Batch, String> {
    match text.parse::<usize>() {
        _ if text == "dynamic" => Ok(Batch(None)),
        Ok(count @ 1..=1024) => Ok(Batch(Some(count))),
        _ => Err(format!("expected 1 to 1024 or `dynamic`, found {text:?}")),
    }
}

pub(super) fn run(arguments: &ExportArguments) -> anyhow::Result<ExitCode> {
    let model = arguments.precision.apply(Model::load(&arguments.model)?)?;
    let output = if arguments.raw {
        ExportOutput::Logits
    } else if let Some(nms) = arguments.nms {
        let confidence = arguments.conf.or(model.config.confidence).unwrap_or(CONFIDENCE);
        ExportOutput::Detections {
            confidence,
            iou: arguments.iou,
            nms: if arguments.no_merge { Nms::Greedy } else { nms },
        }
    } else {
        ExportOutput::Predictions
    };
    let options = ExportOptions {
        opset: arguments.opset,
        batch: if arguments.dynamic { None } else { arguments.batch.0 },
        size: arguments.size.unwrap_or((model.config.input, model.config.input)),
        dynamic: arguments.dynamic,
        half: arguments.half,
        output,
    };
    let bytes = export_onnx(&model, &options)?;
    #[cfg(feature = "ort")]
    let bytes =
        if arguments.simplify { simplify(&yolo_lat::Runtime::default().onnx_runtime()?, &bytes)? } else { bytes };
    let path = arguments.output.clone().unwrap_or_else(|| format!("{}.onnx", model.config.name).into());
    write_atomically(&path, |writer| writer.write_all(&bytes))?;
    super::print(&format!("{} ({:.2} MB)\n", path.display(), bytes.len() as f64 / 1e6))
}
