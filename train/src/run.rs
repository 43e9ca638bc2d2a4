//! The training loop.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use yolo_lat::engine::EngineKind;
use yolo_lat::eval::{Dataset, evaluate};
use yolo_lat::model::{Model, ModelConfig, Weights, graph_of};
use yolo_lat::sink::write_atomically;
use yolo_lat::source::{Prefetch, open_image};
use yolo_lat::{Detector, DetectorOptions};

use crate::TrainArguments;
use crate::checkpoint::State;
use crate::data::{Augmentation, Photographs, Sample};
use crate::loss::{Loss, Targets, TeacherTargets, loss};
use crate::network::{Mode, Network};
use crate::optimizer::{AdamW, average, learning_rate};
use crate::teacher::{Answer, Teacher, TeacherConfig};

/// A training run, as its TOML file says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrainConfig {
    /// Model configuration, relative to the working folder.
    pub(crate) model: PathBuf,
    /// Folded weights to start from; what does not fit is left to chance.
    pub(crate) init: Option<PathBuf>,
    /// Where checkpoints, weights and logs go.
    pub(crate) output: PathBuf,
    /// Data sets to learn from, relative to `--data`.
    pub(crate) train: Vec<PathBuf>,
    /// Data set to measure on.
    pub(crate) val: PathBuf,
    /// Photographs of it that are measured during training; all at the end.
    pub(crate) val_limit: usize,
    /// Side of the training pictures.
    pub(crate) size: usize,
    pub(crate) epochs: usize,
    pub(crate) batch: usize,
    /// Peak of the learning rate, and its last value as a share of the peak.
    pub(crate) rate: f64,
    pub(crate) last_rate: f64,
    pub(crate) warmup_steps: usize,
    pub(crate) weight_decay: f64,
    pub(crate) clip: f64,
    pub(crate) average_decay: f64,
    /// Share of the epochs, at the end, with gentle augmentation.
    pub(crate) gentle_share: f64,
    /// Epochs between two measurements.
    pub(crate) measure_every: usize,
    pub(crate) seed: u64,
    /// Layers whose names begin so are not trained.
    #[serde(default)]
    pub(crate) frozen: Vec<String>,
    /// A detector to learn from beside the labels.
    pub(crate) teacher: Option<TeacherConfig>,
    /// Only the first photographs of each data set, for trials.
    pub(crate) limit: Option<usize>,
    #[serde(default)]
    pub(crate) augmentation: Augmentation,
}

/// A batch on its way to libtorch.
struct Batch {
    samples: Vec<Sample>,
    /// One for each sample, or none without a teacher.
    answers: Vec<Answer>,
}

const CHECKPOINT_EVERY: Duration = Duration::from_secs(180);

/// Trains as `arguments` say; exit code 0 at the end, 130 after an interrupt (with a checkpoint).
///
/// # Errors
/// A file is missing or wrong, the device is not there, or the loss is no number.
pub(crate) fn train(arguments: &TrainArguments) -> anyhow::Result<ExitCode> {
    let text = std::fs::read_to_string(&arguments.config)
        .with_context(|| format!("{}: cannot be read", arguments.config.display()))?;
    let mut config: TrainConfig = toml::from_str(&text).with_context(|| format!("{}", arguments.config.display()))?;
    config.init = arguments.init.clone().or(config.init);
    if let (Some(teacher), Some(file)) = (&mut config.teacher, &arguments.teacher) {
        teacher.file = Some(file.clone());
    }
    let model_text = std::fs::read_to_string(&config.model)
        .with_context(|| format!("{}: cannot be read", config.model.display()))?;
    let model = ModelConfig::parse(&model_text, &config.model.display().to_string())?;
    let device = match arguments.device.as_str() {
        "cpu" => Device::Cpu,
        "cuda" if tch::Cuda::is_available() => Device::Cuda(0),
        "cuda" => bail!("--device cuda: this libtorch sees no CUDA device"),
        other => bail!("--device {other}: expected cpu or cuda"),
    };
    std::fs::create_dir_all(&config.output).with_context(|| format!("{}: cannot be made", config.output.display()))?;
    tch::manual_seed(config.seed as i64);
    let folders: Vec<PathBuf> = config.train.iter().map(|folder| arguments.data.join(folder)).collect();
    let photographs = Arc::new(Photographs::load(&folders, &model.classes, config.limit)?);
    say(&format!("{} photographs, model {}", photographs.len(), model.name));

    let mut trainer = Trainer::new(config, model, device, arguments.data.clone(), photographs)?;
    let checkpoint = trainer.config.output.join("checkpoint.safetensors");
    if arguments.resume && checkpoint.exists() {
        trainer.state.load(&checkpoint)?;
        say(&format!("going on after step {}", trainer.state.step));
    } else {
        trainer.init()?;
    }
    trainer.run(&checkpoint)
}

fn say(line: &str) {
    // A closed standard error is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{line}");
}

struct Trainer {
    config: TrainConfig,
    model: ModelConfig,
    device: Device,
    data: PathBuf,
    photographs: Arc<Photographs>,
    state: State,
    teacher: Option<Arc<Teacher>>,
    interrupted: Arc<AtomicBool>,
}

impl Trainer {
    fn new(
        config: TrainConfig,
        model: ModelConfig,
        device: Device,
        data: PathBuf,
        photographs: Arc<Photographs>,
    ) -> anyhow::Result<Self> {
        let mut network = Network::new(graph_of(&model, config.size, config.size)?, device);
        network.freeze(&config.frozen)?;
        let teacher = match &config.teacher {
            Some(teacher) => {
                let file = teacher.file.as_ref().context("a teacher is wanted: name its file with --teacher FILE")?;
                Some(Arc::new(Teacher::load(file, &model.classes)?))
            }
            None => None,
        };
        let average = network.parameters.iter().map(|(name, value)| (name.clone(), value.detach().copy())).collect();
        let optimizer = AdamW::new(&network.parameters, config.weight_decay);
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register_conditional_shutdown(signal, 130, interrupted.clone())?;
            signal_hook::flag::register(signal, interrupted.clone())?;
        }
        let state = State { network, average, optimizer, step: 0 };
        Ok(Self { config, model, device, data, photographs, state, teacher, interrupted })
    }

    /// Starts from the given weights and restores their batch norms on one batch.
    fn init(&mut self) -> anyhow::Result<()> {
        let Some(path) = &self.config.init else { return Ok(()) };
        let report = self.state.network.init(&Weights::load(path)?)?;
        let list = |names: &[String]| if names.is_empty() { "none".into() } else { names.join(" ") };
        say(&format!(
            "{}: {} tensors taken; skipped: {}; missing: {}",
            path.display(),
            report.taken.len(),
            list(&report.skipped),
            list(&report.missing)
        ));
        let samples = (0..self.config.batch.max(16)).map(|index| {
            let index = index % self.photographs.len();
            self.photographs.sample(index, self.config.size, &self.config.augmentation, index as u64)
        });
        let (pictures, ..) =
            to_tensors(&Batch { samples: samples.collect(), answers: Vec::new() }, self.config.size, self.device);
        tch::no_grad(|| self.state.network.forward(&pictures, Mode::Restore));
        for (average, parameter) in self.state.average.values_mut().zip(self.state.network.parameters.values()) {
            average.copy_(&parameter.detach());
        }
        Ok(())
    }

    fn steps_per_epoch(&self) -> usize {
        (self.photographs.len() / self.config.batch).max(1)
    }

    /// Batches from `step` to the end of its epoch, made ahead by threads.
    fn batches(&self, step: usize) -> anyhow::Result<Prefetch<anyhow::Result<Batch>>> {
        let per_epoch = self.steps_per_epoch();
        let (epoch, first) = (step / per_epoch, step % per_epoch);
        let gentle_from = self.config.epochs as f64 * (1.0 - self.config.gentle_share);
        let augmentation = if epoch as f64 >= gentle_from { Augmentation::gentle() } else { self.config.augmentation };
        let order = self.photographs.order(self.config.seed, epoch);
        let (photographs, config, teacher) = (self.photographs.clone(), self.config.clone(), self.teacher.clone());
        let load = move |index: usize| {
            let start = (first + index) * config.batch;
            let sample = |place: usize| {
                let seed = config.seed.wrapping_mul(1_000_003).wrapping_add((epoch * order.len() + place) as u64);
                photographs.sample(order[place % order.len()], config.size, &augmentation, seed)
            };
            let samples: Vec<Sample> = (start..start + config.batch).map(sample).collect();
            let answers = match &teacher {
                Some(teacher) => samples
                    .iter()
                    .map(|sample| teacher.answer(&sample.pixels, config.size))
                    .collect::<Result<_, _>>()?,
                None => Vec::new(),
            };
            Ok(Batch { samples, answers })
        };
        let threads = yolo_lat::engine::cpu::available_threads();
        Ok(Prefetch::new(per_epoch - first, threads, self.interrupted.clone(), load)?)
    }

    fn run(&mut self, checkpoint: &Path) -> anyhow::Result<ExitCode> {
        let per_epoch = self.steps_per_epoch();
        let steps = per_epoch * self.config.epochs;
        let log_path = self.config.output.join("metrics.jsonl");
        let mut log =
            OpenOptions::new().create(true).append(true).open(&log_path).context("the log cannot be written")?;
        let style = ProgressStyle::with_template("{bar:24} {human_pos}/{human_len} steps, {eta} left, {msg}");
        let progress =
            ProgressBar::new(steps as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let mut saved = Instant::now();
        while self.state.step < steps {
            let epoch = self.state.step / per_epoch;
            let mut sums = Sums::default();
            let mut batches = self.batches(self.state.step)?;
            loop {
                let waiting = Instant::now();
                let Some((_, batch)) = batches.next_item() else { break };
                let batch = batch?;
                sums.waited += waiting.elapsed();
                let found = self.step(&batch, steps)?;
                sums.add(&found, batch.samples.len());
                progress.set_position(self.state.step as u64);
                progress.set_message(sums.to_string());
                if self.interrupted.load(Ordering::Relaxed) || saved.elapsed() > CHECKPOINT_EVERY {
                    self.state.save(checkpoint)?;
                    saved = Instant::now();
                }
                if self.interrupted.load(Ordering::Relaxed) {
                    say(&format!("interrupted after step {}; --resume goes on", self.state.step));
                    return Ok(ExitCode::from(130));
                }
            }
            if self.interrupted.load(Ordering::Relaxed) {
                self.state.save(checkpoint)?;
                return Ok(ExitCode::from(130));
            }
            let is_last = self.state.step >= steps;
            let mut line = sums.as_json(epoch, self.state.step);
            if is_last || (epoch + 1).is_multiple_of(self.config.measure_every) {
                let limit = if is_last { usize::MAX } else { self.config.val_limit };
                let map50 = self.measure(limit)?;
                line["map50"] = map50.into();
            }
            writeln!(log, "{line}").context("the log cannot be written")?;
            progress.suspend(|| say(&line.to_string()));
            self.state.save(checkpoint)?;
            saved = Instant::now();
        }
        progress.finish_and_clear();
        Ok(ExitCode::SUCCESS)
    }

    fn step(&mut self, batch: &Batch, steps: usize) -> anyhow::Result<Loss> {
        let (pictures, targets, answers) = to_tensors(batch, self.config.size, self.device);
        let outputs = self.state.network.forward(&pictures, Mode::Train);
        let found = loss(&outputs, &targets, answers.as_ref().zip(self.config.teacher.as_ref()), self.model.head);
        if !(found.class + found.boxes + found.distribution + found.teacher).is_finite() {
            let path = self.config.output.join("bad-batch.safetensors");
            Tensor::write_safetensors(&[("pictures", &pictures), ("boxes", &targets.boxes)], &path)?;
            bail!("the loss is not a number at step {}; the batch is in {}", self.state.step, path.display());
        }
        found.total.backward();
        let config = &self.config;
        let rate = learning_rate(self.state.step, steps, config.warmup_steps, config.rate, config.last_rate);
        self.state.optimizer.step(&self.state.network.parameters, rate, config.clip);
        average(&mut self.state.average, &self.state.network.parameters, config.average_decay, self.state.step);
        self.state.step += 1;
        Ok(found)
    }

    /// Writes the averaged weights for the engines and measures them with the library: mAP50 in percent.
    fn measure(&mut self, limit: usize) -> anyhow::Result<f64> {
        let average = self.state.average.iter().map(|(name, value)| (name.clone(), value.shallow_clone())).collect();
        let parameters = std::mem::replace(&mut self.state.network.parameters, average);
        let folded = self.state.network.fold();
        self.state.network.parameters = parameters;
        let model = Model::new(self.model.clone(), folded?, "trained weights")?;
        self.write(&model)?;
        let mut options = DetectorOptions { engine: EngineKind::Cpu, ..DetectorOptions::default() };
        options.postprocess.confidence = 0.001;
        let mut detector = Detector::new(&model, &options)?;
        let mut dataset = Dataset::load(&self.data.join(&self.config.val))?;
        dataset.images.truncate(limit);
        let index = |name: &String| dataset.classes.iter().position(|class| class.eq_ignore_ascii_case(name));
        let class_of: Vec<Option<usize>> = self.model.classes.iter().map(index).collect();
        let (mut objects, mut detections) = (Vec::new(), Vec::new());
        for image in &dataset.images {
            let found = detector.detect(&open_image(&image.path)?)?.into_iter();
            let found = found.filter_map(|found| Some(yolo_lat::Detection { class: class_of[found.class]?, ..found }));
            detections.push(found.collect());
            objects.push(image.objects.clone());
        }
        Ok(100.0 * evaluate(dataset.classes.len(), &objects, &detections).map50)
    }

    /// `OUTPUT/NAME.toml` and `.safetensors`, as the engines load them.
    fn write(&self, model: &Model) -> anyhow::Result<()> {
        let path = self.config.output.join(format!("{}.safetensors", model.config.name));
        let bytes = |tensor: &yolo_lat::model::Tensor| -> Vec<u8> {
            tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect()
        };
        let tensors: Vec<_> = model.weights.iter().map(|(name, tensor)| (name, &tensor.shape, bytes(tensor))).collect();
        let views = tensors.iter().map(|(name, shape, bytes)| {
            let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), bytes);
            view.map(|view| (*name, view))
        });
        let file = safetensors::serialize(views.collect::<Result<Vec<_>, _>>()?, None)?;
        write_atomically(&path, |writer| writer.write_all(&file))?;
        let text = std::fs::read(&self.config.model)?;
        write_atomically(&path.with_extension("toml"), |writer| writer.write_all(&text))?;
        Ok(())
    }
}

/// Sums over an epoch.
#[derive(Default)]
struct Sums {
    start: Option<Instant>,
    images: usize,
    batches: usize,
    class: f64,
    boxes: f64,
    distribution: f64,
    teacher: f64,
    /// Time the steps waited for data.
    waited: Duration,
}

impl Sums {
    fn add(&mut self, loss: &Loss, images: usize) {
        self.start.get_or_insert_with(Instant::now);
        self.images += images;
        self.batches += 1;
        self.class += loss.class;
        self.boxes += loss.boxes;
        self.distribution += loss.distribution;
        self.teacher += loss.teacher;
    }

    fn mean(&self, sum: f64) -> f64 {
        (sum / self.batches.max(1) as f64 * 1e4).round() / 1e4
    }

    fn images_per_second(&self) -> f64 {
        let seconds = self.start.map_or(0.0, |start| start.elapsed().as_secs_f64());
        (self.images as f64 / seconds.max(1e-3) * 10.0).round() / 10.0
    }

    fn as_json(&self, epoch: usize, step: usize) -> serde_json::Value {
        serde_json::json!({
            "epoch": epoch + 1, "step": step, "class": self.mean(self.class), "box": self.mean(self.boxes),
            "distribution": self.mean(self.distribution), "teacher": self.mean(self.teacher), "images_per_second": self.images_per_second(),
            "waited_seconds": (self.waited.as_secs_f64() * 100.0).round() / 100.0,
        })
    }
}

impl std::fmt::Display for Sums {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (class, boxes, distribution) = (self.mean(self.class), self.mean(self.boxes), self.mean(self.distribution));
        write!(
            formatter,
            "class {class:.3}, box {boxes:.3}, distribution {distribution:.3}, teacher {:.3}, {} images/s",
            self.mean(self.teacher),
            self.images_per_second()
        )
    }
}

fn to_tensors(batch: &Batch, size: usize, device: Device) -> (Tensor, Targets, Option<TeacherTargets>) {
    let count = batch.samples.len() as i64;
    let pixels: Vec<&[f32]> = batch.samples.iter().map(|sample| &sample.pixels[..]).collect();
    let pictures = Tensor::from_slice(&pixels.concat()).reshape([count, 3, size as i64, size as i64]);
    let most = batch.samples.iter().map(|sample| sample.objects.len()).max().unwrap_or(0).max(1);
    let (mut classes, mut boxes, mut mask) = (Vec::new(), Vec::new(), Vec::new());
    for sample in &batch.samples {
        for place in 0..most {
            let object = sample.objects.get(place);
            let (class, bbox) = object.copied().unwrap_or_default();
            classes.push(class as i64);
            boxes.extend([bbox.x1, bbox.y1, bbox.x2, bbox.y2]);
            mask.push(if object.is_some() { 1.0f32 } else { 0.0 });
        }
    }
    let most = most as i64;
    let targets = Targets {
        classes: Tensor::from_slice(&classes).reshape([count, most]).to_device(device),
        boxes: Tensor::from_slice(&boxes).reshape([count, most, 4]).to_kind(Kind::Float).to_device(device),
        mask: Tensor::from_slice(&mask).reshape([count, most]).to_device(device),
    };
    let answers = (!batch.answers.is_empty()).then(|| {
        let join = |part: fn(&Answer) -> &[f32], width: i64| {
            let values: Vec<&[f32]> = batch.answers.iter().map(part).collect();
            let cells = batch.answers[0].boxes.len() as i64 / 4;
            Tensor::from_slice(&values.concat()).reshape([count, cells, width]).to_device(device)
        };
        let classes = batch.answers[0].scores.len() / (batch.answers[0].boxes.len() / 4);
        TeacherTargets { scores: join(|answer| &answer.scores, classes as i64), boxes: join(|answer| &answer.boxes, 4) }
    });
    (pictures.to_device(device), targets, answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run on the three sample photographs, unchanged, with a small network.
    fn tiny(output: &Path, epochs: usize) -> Trainer {
        let mut model = ModelConfig::parse(include_str!("../../models/yolo-lat-n.toml"), "n").unwrap();
        model.input = 96;
        let config = TrainConfig {
            model: "../models/yolo-lat-n.toml".into(),
            init: Some("../tests/golden/bootstrap/yolo-lat-n.safetensors".into()),
            output: output.to_owned(),
            train: vec!["../tests/data/tiny".into()],
            val: "../tests/data/tiny".into(),
            val_limit: 3,
            size: 96,
            epochs,
            batch: 3,
            rate: 2e-3,
            last_rate: 0.02,
            warmup_steps: 5,
            weight_decay: 0.0,
            clip: 10.0,
            average_decay: 0.9,
            gentle_share: 0.0,
            measure_every: epochs,
            seed: 3,
            frozen: Vec::new(),
            teacher: None,
            limit: None,
            augmentation: Augmentation { flip: 0.0, ..Augmentation::gentle() },
        };
        let photographs = Arc::new(Photographs::load(&config.train, &model.classes, None).unwrap());
        assert_eq!(photographs.len(), 3);
        tch::manual_seed(5);
        Trainer::new(config, model, Device::Cpu, PathBuf::new(), photographs).unwrap()
    }

    fn steps(trainer: &mut Trainer, count: usize, total: usize) -> Vec<f64> {
        let mut losses = Vec::new();
        while losses.len() < count {
            let (_, batch) = trainer.batches(trainer.state.step).unwrap().next_item().unwrap();
            let found = trainer.step(&batch.unwrap(), total).unwrap();
            // Without the distribution, whose cross-entropy with a position between two bins cannot reach 0.
            losses.push(found.class + found.boxes);
        }
        losses
    }

    #[test]
    fn a_resumed_run_equals_an_uninterrupted_one() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = folder.path().join("checkpoint.safetensors");
        let mut whole = tiny(folder.path(), 6);
        whole.init().unwrap();
        let expected = steps(&mut whole, 6, 6);
        let mut first = tiny(folder.path(), 6);
        first.init().unwrap();
        let mut found = steps(&mut first, 3, 6);
        first.state.save(&checkpoint).unwrap();
        let mut second = tiny(folder.path(), 6);
        second.state.load(&checkpoint).unwrap();
        assert_eq!(second.state.step, 3);
        found.extend(steps(&mut second, 3, 6));
        assert_eq!(found, expected);
        for (name, parameter) in &whole.state.network.parameters {
            assert_eq!(parameter, &second.state.network.parameters[name], "{name}");
        }
    }

    #[test]
    fn three_photographs_are_learnt_by_heart() {
        let folder = tempfile::tempdir().unwrap();
        let mut trainer = tiny(folder.path(), 150);
        trainer.init().unwrap();
        let losses = steps(&mut trainer, 150, 150);
        let map50 = trainer.measure(3).unwrap();
        assert!(map50 > 90.0, "mAP50 {map50}, losses {losses:?}");
        assert!(losses[149] < losses[0] / 10.0, "{} from {}", losses[149], losses[0]);
        assert!(
            Model::load(folder.path().join("yolo-lat-n.toml").to_str().unwrap()).is_ok(),
            "the engines load what was written"
        );
    }

    #[test]
    fn example_configurations_are_valid() {
        for entry in std::fs::read_dir("configs").unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let config: TrainConfig = toml::from_str(&text).unwrap();
            assert!(Path::new("..").join(&config.model).exists(), "{}", path.display());
        }
    }
}
