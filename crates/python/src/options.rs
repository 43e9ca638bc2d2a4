//! What a detector is asked for, with the names and ranges of the program's options.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use yolo_lat::engine::EngineKind;
use yolo_lat::engine::gpu::GpuOptions;
use yolo_lat::engine::ort::Provider;
use yolo_lat::model::Precision;
use yolo_lat::model::classes::find_class;
use yolo_lat::model::config::check_side;
use yolo_lat::postprocess::{Nms, PostprocessOptions};
use yolo_lat::third_party::{
    Layout, OnnxOptions, parse_border, parse_channels, parse_class_names, parse_deviations, parse_fit, parse_order,
    parse_scale,
};
use yolo_lat::{Detector, DetectorOptions, InputSize, ModelFile, Runtime, RuntimeOptions};

use crate::errors::{of_detector, of_model};

/// Keyword arguments as Python gives them; `None` for what is customary.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Options {
    engine: String,
    precision: String,
    /// One side or two.
    size: Option<Vec<i64>>,
    square: bool,
    slice: String,
    threads: i64,
    batch: Option<i64>,
    confidence: Option<f32>,
    iou: f32,
    max_det: i64,
    classes: Option<Vec<String>>,
    agnostic_nms: bool,
    nms: Option<String>,
    adapter: Option<String>,
    ort_lib: Option<PathBuf>,
    ort_provider: String,
    onnx: BTreeMap<String, String>,
}

/// A detector, how many images it sees at once, and how many threads load them.
pub(crate) struct Opened {
    pub(crate) detector: Detector,
    pub(crate) batch: usize,
    pub(crate) loaders: usize,
}

fn wrong(option: &str, reason: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(format!("{option}: {reason}"))
}

fn within(option: &str, value: i64, range: RangeInclusive<i64>) -> PyResult<usize> {
    let (least, most) = (range.start(), range.end());
    let fits = usize::try_from(value).ok().filter(|_| range.contains(&value));
    fits.ok_or_else(|| wrong(option, format!("expected a number from {least} to {most}, found {value}")))
}

fn share(option: &str, value: f32) -> PyResult<f32> {
    if (0.0..=1.0).contains(&value) {
        return Ok(value);
    }
    Err(wrong(option, format!("expected a number from 0 to 1, found {value}")))
}

impl Options {
    /// Finds the model and makes the detector.
    pub(crate) fn open(&self, model: &str) -> PyResult<Opened> {
        let file = ModelFile::open(model).map_err(|error| of_model(&error))?;
        let usual = DetectorOptions::of(&file);
        let nms = self.nms()?;
        let postprocess = PostprocessOptions {
            confidence: self.confidence.map_or(Ok(usual.postprocess.confidence), |value| share("confidence", value))?,
            iou: share("iou", self.iou)?,
            max_detections: within("max_det", self.max_det, 0..=i64::MAX)?,
            agnostic: self.agnostic_nms,
            nms: nms.unwrap_or(usual.postprocess.nms),
            ..usual.postprocess
        };
        let options = DetectorOptions {
            engine: self.engine()?,
            precision: self.precision()?,
            size: self.size()?,
            slices: self.slice.parse().map_err(|reason| wrong("slice", reason))?,
            postprocess: postprocess.clone(),
            onnx: self.onnx(&file, nms)?,
            ..usual
        };
        let runtime = self.runtime()?;
        let loaders = runtime.threads();
        let batch = self.batch.map_or(Ok(4 * loaders), |batch| within("batch", batch, 1..=1024))?;
        let mut detector = Detector::new(&file, &runtime, &options).map_err(|error| of_detector(&error))?;
        let classes = self.classes.as_ref().map(|names| {
            names.iter().map(|name| find_class(name, detector.classes())).collect::<Result<Vec<usize>, _>>()
        });
        let classes = classes.transpose().map_err(|reason| wrong("classes", reason))?;
        detector.set_postprocess(PostprocessOptions { classes, ..postprocess });
        Ok(Opened { detector, batch, loaders })
    }

    /// `None` where the engine and the model's file decide.
    fn precision(&self) -> PyResult<Option<Precision>> {
        match self.precision.as_str() {
            "auto" => Ok(None),
            "f32" => Ok(Some(Precision::F32)),
            "int8" => Ok(Some(Precision::Int8)),
            other => Err(wrong("precision", format!("expected auto, f32 or int8, found {other:?}"))),
        }
    }

    /// Naming an adapter asks for the GPU.
    fn engine(&self) -> PyResult<EngineKind> {
        let all = [EngineKind::Auto, EngineKind::Cpu, EngineKind::Gpu, EngineKind::Ort, EngineKind::Reference];
        match all.into_iter().find(|kind| kind.to_string() == self.engine) {
            Some(EngineKind::Auto) if self.adapter.is_some() => Ok(EngineKind::Gpu),
            Some(kind) => Ok(kind),
            None => Err(wrong("engine", format!("expected auto, cpu, gpu, ort or reference, found {:?}", self.engine))),
        }
    }

    fn nms(&self) -> PyResult<Option<Nms>> {
        let find = |name: &String| {
            let known = Nms::ALL.into_iter().find(|(known, _)| known == name).map(|(_, nms)| nms);
            known.ok_or_else(|| wrong("nms", format!("expected greedy or box-voting, found {name:?}")))
        };
        self.nms.as_ref().map(find).transpose()
    }

    fn size(&self) -> PyResult<InputSize> {
        let sides = self.size.as_deref().unwrap_or_default().iter().map(|&side| {
            let side = usize::try_from(side)
                .map_err(|_| format!("expected a multiple of 32 from 32 to 4096, found {side}"))?;
            check_side(side).map(|()| side)
        });
        let sides = sides.collect::<Result<Vec<usize>, String>>().map_err(|reason| wrong("size", reason))?;
        match (&sides[..], self.square) {
            ([], true) => Ok(InputSize::Square(None)),
            ([], false) => Ok(InputSize::default()),
            (&[side], true) => Ok(InputSize::Square(Some(side))),
            (&[side], false) => Ok(InputSize::Budget(Some(side))),
            (&[width, height], false) => Ok(InputSize::Fixed(width, height)),
            _ => Err(wrong("size", "expected one side, or width and height and not square")),
        }
    }

    fn runtime(&self) -> PyResult<Runtime> {
        let provider = match self.ort_provider.as_str() {
            "cpu" => Provider::Cpu,
            "cuda" => Provider::Cuda,
            other => return Err(wrong("ort_provider", format!("expected cpu or cuda, found {other:?}"))),
        };
        Ok(Runtime::new(RuntimeOptions {
            threads: within("threads", self.threads, 0..=1024)?,
            gpu: GpuOptions { adapter: self.adapter.clone(), ..GpuOptions::default() },
            onnx_runtime: self.ort_lib.clone(),
            provider,
        }))
    }

    /// How somebody's ONNX file is read.
    fn onnx(&self, file: &ModelFile, nms: Option<Nms>) -> PyResult<OnnxOptions> {
        let mut options = OnnxOptions { box_voting: nms == Some(Nms::BoxVoting), ..OnnxOptions::default() };
        let changes = &mut options.preprocessing;
        for (name, text) in &self.onnx {
            if let ModelFile::Native(_) = file {
                return Err(wrong("onnx", format!("{name} is for ONNX files; {} is a model of ours", file.name())));
            }
            let read = match name.as_str() {
                "layout" => {
                    Layout::find(text).ok_or_else(|| format!("no layout {text:?}")).map(|it| options.layout = Some(it))
                }
                "fit" => parse_fit(text).map(|it| changes.fit = Some(it)),
                "border" => parse_border(text).map(|it| changes.border = Some(it)),
                "order" => parse_order(text).map(|it| changes.order = Some(it)),
                "scale" => parse_scale(text).map(|it| changes.scale = Some(it)),
                "mean" => parse_channels(text).map(|it| changes.mean = Some(it)),
                "std" => parse_deviations(text).map(|it| changes.deviation = Some(it)),
                "names" => {
                    parse_class_names(text).map(|it| options.names = Some(it)).map_err(|error| error.to_string())
                }
                _ => Err("expected layout, fit, border, order, scale, mean, std or names".into()),
            };
            read.map_err(|reason| wrong("onnx", format!("{name}: {reason}")))?;
        }
        Ok(options)
    }
}
