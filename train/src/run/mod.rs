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
use yolo_lat::eval::{Dataset, Feed, Measured, Split, evaluate, map50_without_each, measure};
use yolo_lat::model::{Model, ModelConfig, Weights, graph_of};
use yolo_lat::sink::write_atomically;
use yolo_lat::source::Prefetch;
use yolo_lat::{Detector, DetectorOptions, InputSize, Runtime};

use crate::TrainArguments;
use crate::batch::{Batch, Batches, Tensors, shapes};
use crate::checkpoint::{Best, State, write_tensors};
use crate::config::TrainConfig;
use crate::data::{Sources, TrainingImages, TrainingSet};
use crate::feature_distillation::{FeatureDistillation, distil_features};
use crate::frozen::FrozenPart;
use crate::log::{Pace, Rest, Sums, say};
use crate::loss::{DenseAnswers, Loss, loss};
use crate::network::{Mode, Network, balance};
use crate::optimizer::{AdamW, Ema, learning_rate};
use crate::teacher::{self, DeviceTeacher, Teacher};

const CHECKPOINT_EVERY: Duration = Duration::from_secs(180);
/// Steps between two lines of the log.
const LOG_EVERY: usize = 50;

/// Trains as `arguments` say; exit code 0 at the end, 130 after an interrupt (with a checkpoint).
///
/// # Errors
/// A file is missing or wrong, the device is not there, or the loss is no number.
pub(crate) fn train(arguments: &TrainArguments) -> anyhow::Result<ExitCode> {
    let mut config = TrainConfig::load(&arguments.config)?;
    config.init = arguments.init.clone().or(config.init);
    fill_teachers(&mut config, &arguments.teacher)?;
    let device = device(&arguments.device)?;
    let mut trainer = Trainer::new(config, device, &arguments.data, interrupt_flag()?)?;
    trainer.start(arguments.resume)?;
    trainer.run()
}

/// Gives `files` to the teachers that have none, in their order.
pub(crate) fn fill_teachers(config: &mut TrainConfig, files: &[PathBuf]) -> anyhow::Result<()> {
    let mut files = files.iter();
    for teacher in config.teachers.iter_mut().filter(|teacher| teacher.file.is_none()) {
        let file = files.next().context("a teacher is wanted: name its file with --teacher FILE")?;
        teacher.file = Some(file.clone());
    }
    match files.next() {
        Some(file) => bail!("--teacher {}: the configuration has no [[teacher]] without a file for it", file.display()),
        None => Ok(()),
    }
}

/// The device of that name.
pub(crate) fn device(name: &str) -> anyhow::Result<Device> {
    match name {
        "cpu" => Ok(Device::Cpu),
        "cuda" => {
            // The linker drops a library that no symbol is taken from; loading it registers CUDA with libtorch.
            // SAFETY: it is a part of the libtorch that this program runs on; its initialisers are made for this.
            let cuda = unsafe { libloading::Library::new("libtorch_cuda.so") };
            let Ok(cuda) = cuda else { bail!("--device cuda: this libtorch was built without CUDA") };
            std::mem::forget(cuda);
            if !tch::Cuda::is_available() {
                bail!("--device cuda: libtorch finds no CUDA device");
            }
            Ok(Device::Cuda(0))
        }
        other => bail!("--device {other}: expected cpu or cuda"),
    }
}

/// Set by Ctrl-C and SIGTERM; a second one ends the program at once.
pub(crate) fn interrupt_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, interrupted.clone())?;
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    Ok(interrupted)
}

/// How well a network detects, in percent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Accuracy {
    pub(crate) map50: f64,
    pub(crate) map50_95: f64,
    /// mAP50 without each of the images.
    pub(crate) without: Vec<f64>,
}

/// A run.
pub(crate) struct Trainer {
    config: Arc<TrainConfig>,
    /// The model's file, as it was when the run began: it may be edited or moved meanwhile.
    model_text: String,
    model: ModelConfig,
    device: Device,
    val: PathBuf,
    batches: Batches,
    state: State,
    /// Of each dense teacher, the one on the device if it is asked there.
    on_device: Vec<Option<DeviceTeacher>>,
    distillations: Vec<FeatureDistillation>,
    /// Of each layer of experts, how many are active.
    experts: Vec<usize>,
    /// What the network found at the end of the run, and how many classes the data set has.
    last: Option<(Measured, usize)>,
    /// How many photographs `val` has, once it was measured on.
    val_count: Option<usize>,
    interrupted: Arc<AtomicBool>,
}

impl Trainer {
    /// Reads the images, asks the cached teachers, builds the network.
    ///
    /// # Errors
    /// A file is missing or wrong.
    pub(crate) fn new(
        config: TrainConfig,
        device: Device,
        data: &Path,
        interrupted: Arc<AtomicBool>,
    ) -> anyhow::Result<Self> {
        let model_text = std::fs::read_to_string(&config.model)
            .with_context(|| format!("{}: cannot be read", config.model.display()))?;
        // Steps for integers belong to other weights; calibrate measures these anew.
        let is_kept = |line: &&str| !line.trim_start().starts_with("precision");
        let model_text: String = model_text.lines().filter(is_kept).flat_map(|line| [line, "\n"]).collect();
        let model = ModelConfig::parse(&model_text, &config.model.display().to_string())?;
        std::fs::create_dir_all(&config.output)
            .with_context(|| format!("{}: cannot be made", config.output.display()))?;
        tch::manual_seed(config.seed as i64);
        let labelled = config.train.iter().map(|set| TrainingSet { path: data.join(&set.path), ..*set });
        let sources = Sources {
            labelled: labelled.collect(),
            unlabelled: config.unlabelled.iter().map(|folder| data.join(folder)).collect(),
            classes: &model.classes,
            rename: &config.rename,
            limit: config.limit,
        };
        let mut images = TrainingImages::load(&sources, say)?;
        for (set, portion) in config.train.iter().zip(&images.portions).filter(|(set, _)| set.weight != 1.0) {
            let (path, weight) = (set.path.display(), set.weight);
            say(&format!("{path}: weight {weight}, {} images, {} samples an epoch", portion.count, portion.seen()));
        }
        say(&format!("{} images, model {}", images.len(), model.name));
        let dense = teachers(&config, &model.classes, &mut images)?;
        if let Some(teacher) = dense.iter().find(|teacher| !config.size.is_multiple_of(teacher.step())) {
            bail!("size: a dense teacher needs a multiple of {}, found {}", teacher.step(), config.size);
        }
        let mut network = Network::new(graph_of(&model, config.size, config.size)?, device);
        network.freeze(&config.frozen)?;
        let distillations = distil_features(&mut network, &config.teachers, &dense)?;
        let experts = network.tap_scores()?;
        let optimizer = AdamW::new(&mut network.parameters, config.weight_decay, &config.rate_shares)?;
        let ema = Ema::new(&optimizer, &network.parameters);
        let state = State { network, ema, optimizer, step: 0, best: None };
        let config = Arc::new(config);
        let place = |teacher: &Teacher| if device == Device::Cpu { Ok(None) } else { teacher.on(device) };
        let on_device = dense.iter().map(place).collect::<anyhow::Result<Vec<_>>>()?;
        let elsewhere = dense.into_iter().zip(&on_device).filter(|(_, on_device)| on_device.is_none());
        let dense: Vec<Teacher> = elsewhere.map(|(teacher, _)| teacher).collect();
        let (images, dense) = (Arc::new(images), Arc::new(dense));
        let shapes = Arc::new(shapes(&config, &images));
        let batches = Batches { config: config.clone(), images, shapes, dense, frozen: None, device };
        Ok(Self {
            val: data.join(&config.val),
            config,
            model_text,
            model,
            device,
            batches,
            state,
            on_device,
            distillations,
            experts,
            last: None,
            val_count: None,
            interrupted,
        })
    }

    fn checkpoint(&self) -> PathBuf {
        self.config.output.join("checkpoint.safetensors")
    }

    /// Goes on from the last checkpoint if `resume` says so and there is one, else starts anew.
    ///
    /// # Errors
    /// A file is wrong.
    pub(crate) fn start(&mut self, resume: bool) -> anyhow::Result<()> {
        let checkpoint = self.checkpoint();
        if resume && checkpoint.exists() {
            self.state.load(&checkpoint)?;
            say(&format!("going on after step {}", self.state.step));
        } else {
            self.init()?;
            self.fit_distillations()?;
        }
        // Another device computes them faster than it could be given their maps.
        if self.device == Device::Cpu {
            self.batches.frozen = FrozenPart::new(&self.state.network, &self.model)?.map(Arc::new);
        }
        Ok(())
    }

    /// Starts from the given weights and restores their batch norms on one batch.
    fn init(&mut self) -> anyhow::Result<()> {
        let Some(path) = &self.config.init else { return Ok(()) };
        let weights = Weights::load(path)?;
        let wanted = |name: &str| {
            let prefixes = &self.config.init_only;
            prefixes.is_empty() || prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()))
        };
        let report = self.state.network.init(&weights, wanted)?;
        let short = |names: &[String]| if names.is_empty() { "none".into() } else { names.join(" ") };
        say(&format!(
            "{}: {} tensors taken; skipped: {}; missing: {}",
            path.display(),
            report.taken.len(),
            short(&report.skipped),
            short(&report.missing)
        ));
        let lists = [("taken", &report.taken), ("skipped", &report.skipped), ("missing", &report.missing)];
        write_atomically(&self.config.output.join("init.txt"), |writer| {
            for (what, name) in lists.iter().flat_map(|(what, names)| names.iter().map(move |name| (what, name))) {
                writeln!(writer, "{what} {name}")?;
            }
            Ok(())
        })?;
        let (images, size) = (&self.batches.images, (self.config.size, self.config.size));
        let samples = (0..self.config.batch.max(16))
            .map(|index| images.sample(index % images.len(), size, &self.config.augmentation, index as u64));
        let batch = Batch { size, samples: samples.collect(), bytes: None, dense: Vec::new(), frozen: None };
        tch::no_grad(|| self.state.network.forward(&batch.images(self.device), Mode::Restore));
        self.state.ema.restart(&self.state.optimizer);
        Ok(())
    }

    /// Linear maps from the network's layers to those that teachers show, on the first batch.
    fn fit_distillations(&mut self) -> anyhow::Result<()> {
        if self.distillations.is_empty() {
            return Ok(());
        }
        let batch = self.batches.load(0)?;
        let images = batch.images(self.device);
        let Tensors { teacher_outputs, .. } = self.tensors(&batch, Some(&images));
        tch::no_grad(|| {
            let outputs = self.state.network.forward(&images, Mode::Train);
            let [_, maps, _] = self.parts(&outputs);
            FeatureDistillation::fit(&self.distillations, &self.state.network, maps, &teacher_outputs);
        });
        self.state.ema.restart(&self.state.optimizer);
        Ok(())
    }

    /// Of what the network gives: results, maps that teachers show, scores of experts.
    fn parts<'a>(&self, outputs: &'a [Tensor]) -> [&'a [Tensor]; 3] {
        let (outputs, scores) = outputs.split_at(outputs.len() - self.experts.len());
        let (results, maps) = outputs.split_at(outputs.len() - self.distillations.len());
        [results, maps, scores]
    }

    fn steps(&self) -> usize {
        self.batches.steps_per_epoch() * self.config.epochs
    }

    /// Batches from `step` on, made ahead by threads.
    fn batches(&self, step: usize) -> anyhow::Result<Prefetch<anyhow::Result<Batch>>> {
        let (first, end) = (step * self.config.accumulate, self.steps() * self.config.accumulate);
        let batches = self.batches.clone();
        let threads = yolo_lat::engine::cpu::available_threads();
        // A checkpoint may be of a longer run.
        let count = end.saturating_sub(first);
        Ok(Prefetch::new(count, threads, self.interrupted.clone(), move |index| batches.load(first + index))?)
    }

    /// Trains to the end, or until it is interrupted.
    ///
    /// # Errors
    /// The loss is no number, or a file cannot be written.
    pub(crate) fn run(&mut self) -> anyhow::Result<ExitCode> {
        let (checkpoint, per_epoch, steps) = (self.checkpoint(), self.batches.steps_per_epoch(), self.steps());
        let log_path = self.config.output.join("metrics.jsonl");
        let mut log =
            OpenOptions::new().create(true).append(true).open(&log_path).context("the log cannot be written")?;
        let style = ProgressStyle::with_template("{bar:24} {human_pos}/{human_len} steps, {eta} left, {msg}");
        let progress =
            ProgressBar::new(steps as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let (mut saved, mut pace) = (Instant::now(), Pace::new(self.state.step));
        let mut batches = self.batches(self.state.step)?;
        while self.state.step < steps {
            let epoch = self.state.step / per_epoch;
            let (mut sums, mut recent) = (Sums::default(), Sums::default());
            while self.state.step < (epoch + 1) * per_epoch {
                if self.step(&mut batches, [&mut sums, &mut recent])?.is_none() {
                    break;
                }
                progress.set_position(self.state.step as u64);
                progress.set_message(sums.to_string());
                if progress.is_hidden()
                    && let Some(left) = pace.time_left(self.state.step, || self.rest())
                {
                    let (epochs, step) = (self.config.epochs, self.state.step);
                    say(&format!("epoch {} of {epochs}, step {step} of {steps}: {sums}, {left}", epoch + 1));
                }
                if self.state.step.is_multiple_of(LOG_EVERY) {
                    writeln!(log, "{}", recent.as_json(self.state.step)).context("the log cannot be written")?;
                    recent = Sums::default();
                }
                if saved.elapsed() > CHECKPOINT_EVERY {
                    self.state.save(&checkpoint)?;
                    saved = Instant::now();
                }
            }
            if self.interrupted.load(Ordering::Relaxed) {
                self.state.save(&checkpoint)?;
                progress.suspend(|| say(&format!("interrupted after step {}; --resume goes on", self.state.step)));
                return Ok(ExitCode::from(130));
            }
            let is_last = self.state.step >= steps;
            let mut line = sums.as_json(self.state.step);
            line["epoch"] = (epoch + 1).into();
            if is_last || (epoch + 1).is_multiple_of(self.config.measure_every) {
                let measuring = Instant::now();
                let Some(photographs) = self.log_accuracy(epoch, is_last, &mut line)? else { continue };
                pace.add_measurement(measuring.elapsed(), photographs);
            }
            writeln!(log, "{line}").context("the log cannot be written")?;
            progress.suspend(|| say(&line.to_string()));
            self.state.save(&checkpoint)?;
            saved = Instant::now();
        }
        progress.finish_and_clear();
        if let Some(Best { epoch, map50, photographs }) = self.state.best {
            let (map50, folder) = (percent(map50, 1e2), self.best_folder());
            let folder = folder.display();
            say(&format!(
                "best after epoch {epoch}: mAP50 {map50} on the first {photographs} photographs, in {folder}/"
            ));
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Measures after an epoch, the last one on all photographs, and puts into its line of the log what was found; on how many
    /// photographs, `None` when interrupted.
    fn log_accuracy(
        &mut self,
        epoch: usize,
        is_last: bool,
        line: &mut serde_json::Value,
    ) -> anyhow::Result<Option<usize>> {
        let limit = if is_last { usize::MAX } else { self.config.val_limit };
        let model = self.averaged()?;
        let Some((measured, classes)) = self.measure(&model, limit)? else { return Ok(None) };
        let found = measured.evaluate(classes);
        line["map50"] = percent(found.map50, 1e2).into();
        line["map50_95"] = percent(found.coco.ap.unwrap_or(0.0), 1e2).into();
        self.keep_best(&model, &measured, classes, epoch + 1)?;
        if let Some(best) = &self.state.best {
            line["best_epoch"] = best.epoch.into();
            line["best_map50"] = percent(best.map50, 1e2).into();
        }
        let photographs = measured.detections.len();
        self.last = Some((measured, classes)).filter(|_| is_last);
        Ok(Some(photographs))
    }

    /// What is to be done after the current step, one of an epoch that is to be measured yet.
    fn rest(&self) -> Rest {
        let (epochs, every) = (self.config.epochs, self.config.measure_every);
        let done = self.state.step.saturating_sub(1) / self.batches.steps_per_epoch();
        // The end is measured on all, whatever its number.
        let before = (epochs - 1) / every - done.min(epochs - 1) / every;
        let photographs = self.val_count.map(|all| before * all.min(self.config.val_limit) + all);
        Rest { steps: self.steps().saturating_sub(self.state.step), measurements: before + 1, photographs }
    }

    fn best_folder(&self) -> PathBuf {
        self.config.output.join("best")
    }

    /// Keeps `model` in `best/` if it is better than all before on the photographs of a measurement during training, which are
    /// the first of those that the run's end is measured on.
    fn keep_best(&mut self, model: &Model, measured: &Measured, classes: usize, epoch: usize) -> anyhow::Result<()> {
        let limit = self.config.val_limit;
        if measured.failed > 0 && measured.detections.len() + measured.failed > limit {
            // Which of them could not be read is not known.
            return Ok(());
        }
        let photographs = measured.detections.len().min(limit);
        let map50 = evaluate(classes, &measured.objects[..photographs], &measured.detections[..photographs]).map50;
        // On others, after a change of `val_limit`, it cannot be compared.
        if self.state.best.is_some_and(|best| best.photographs == photographs && best.map50 >= map50) {
            return Ok(());
        }
        // Before the checkpoint that knows of it: a crash between the two has the epoch measured, and kept, again.
        write_model(model, self.model_text.as_bytes(), &self.best_folder())?;
        self.state.best = Some(Best { epoch, map50, photographs });
        Ok(())
    }

    /// One step of the optimiser on the next batches, or `None` where there are no more: after an interrupt.
    fn step(
        &mut self,
        batches: &mut Prefetch<anyhow::Result<Batch>>,
        mut sums: [&mut Sums; 2],
    ) -> anyhow::Result<Option<Loss>> {
        let config = self.config.clone();
        let mut last = None;
        for _ in 0..config.accumulate {
            let waiting = Instant::now();
            let Some((_, batch)) = batches.next_item() else {
                self.state.optimizer.reset_gradients(&self.state.network.parameters);
                return Ok(None);
            };
            let (batch, waited) = (batch?, waiting.elapsed());
            let found = self.backward(&batch)?;
            for sums in &mut sums {
                sums.waited += waited;
                sums.add(&found, batch.samples.len());
            }
            last = Some(found);
        }
        let steps = self.steps();
        let rate = learning_rate(self.state.step, steps, config.warmup_steps, config.rate, config.last_rate);
        self.state.optimizer.step(&self.state.network.parameters, rate, config.clip);
        self.state.ema.follow(&self.state.optimizer, config.ema_decay, self.state.step);
        self.state.step += 1;
        Ok(last)
    }

    /// The labels of a batch and what each teacher says to it; those on the device see its images.
    fn tensors(&self, batch: &Batch, images: Option<&Tensor>) -> Tensors {
        let ask = |teacher: &Option<DeviceTeacher>| Some(teacher.as_ref()?.answers(images?));
        let asked: Vec<Option<DenseAnswers>> = self.on_device.iter().map(ask).collect();
        batch.tensors(&self.config.teachers, asked, self.model.classes.len(), self.device)
    }

    /// Adds the gradients of a batch.
    fn backward(&mut self, batch: &Batch) -> anyhow::Result<Loss> {
        let config = &self.config;
        let (network, device) = (&self.state.network, self.device);
        let (outputs, Tensors { labels, teacher_outputs }) = match (&self.batches.frozen, &batch.frozen) {
            (Some(part), Some(maps)) => {
                (network.forward_from(part.first(maps, device), Mode::Train), self.tensors(batch, None))
            }
            _ => {
                let images = batch.images(device);
                (network.forward(&images, Mode::Train), self.tensors(batch, Some(&images)))
            }
        };
        let [results, maps, scores] = self.parts(&outputs);
        let distillation = FeatureDistillation::loss(&self.distillations, &self.state.network, maps, &teacher_outputs);
        let found = loss(results, &labels, &teacher_outputs, distillation, self.model.head, config.class_loss);
        if !(found.class + found.boxes + found.distribution + found.teacher + found.distillation).is_finite() {
            let path = config.output.join("bad-batch.safetensors");
            let images = batch.images(self.device);
            let tensors =
                [("images", images), ("boxes", labels.boxes), ("classes", labels.classes), ("mask", labels.mask)];
            write_tensors(&path, &tensors)?;
            bail!("the loss is not a number at step {}; the batch is in {}", self.state.step, path.display());
        }
        let uneven = scores.iter().zip(&self.experts).map(|(scores, &active)| balance(scores, active) * config.balance);
        let total = uneven.fold(found.total.shallow_clone(), |total, uneven| total + uneven);
        (total / config.accumulate as f64).backward();
        Ok(found)
    }

    /// That of a run at its end, on all images; `None` when interrupted.
    ///
    /// # Errors
    /// The data set cannot be read.
    pub(crate) fn accuracy(&mut self) -> anyhow::Result<Option<Accuracy>> {
        if self.last.is_none() {
            let model = self.averaged()?;
            self.last = self.measure(&model, usize::MAX)?;
        }
        Ok(self.last.as_ref().map(|(measured, classes)| {
            let found = measured.evaluate(*classes);
            let without = map50_without_each(*classes, &measured.objects, &measured.detections);
            Accuracy {
                map50: percent(found.map50, 1e5),
                map50_95: percent(found.coco.ap.unwrap_or(0.0), 1e5),
                without: without.into_iter().map(|share| percent(share, 1e5)).collect(),
            }
        }))
    }

    /// The averaged weights, written for the engines.
    fn averaged(&mut self) -> anyhow::Result<Model> {
        let ema = self.state.ema.parts.iter().map(|(name, value)| (name.clone(), value.shallow_clone())).collect();
        let parameters = std::mem::replace(&mut self.state.network.parameters, ema);
        let folded = self.state.network.fold();
        self.state.network.parameters = parameters;
        let model = Model::new(self.model.clone(), folded?, "trained weights")?;
        write_model(&model, self.model_text.as_bytes(), &self.config.output)?;
        Ok(model)
    }

    /// Runs a model over the first `limit` images: what was found, and how many classes the data set has; `None` when interrupted.
    fn measure(&mut self, model: &Model, limit: usize) -> anyhow::Result<Option<(Measured, usize)>> {
        let side = Some(self.config.size);
        let size = if self.config.rectangles { InputSize::Budget(side) } else { InputSize::Square(side) };
        let mut options = DetectorOptions { engine: EngineKind::Cpu, size, ..DetectorOptions::default() };
        // As `yolo-lat eval` measures.
        options.postprocess.confidence = 0.001;
        options.postprocess.multi_label = true;
        let runtime = Runtime::default();
        let mut detector = Detector::of_model(model, &runtime, &options)?;
        let mut dataset = Dataset::load(&self.val, Split::Prefer("val"))?;
        self.val_count = Some(dataset.images.len());
        dataset.truncate(limit);
        let threads = runtime.threads();
        let feed = Feed { batch: threads, threads, stop: self.interrupted.clone() };
        let classes = detector.classes().to_vec();
        let detect = |images: &[&image::RgbImage]| detector.detections(images);
        let measured = measure(&classes, detect, &dataset, &feed, |path, error| {
            if let Some(error) = error {
                say(&format!("{}: {error}; not measured", path.display()));
            }
        })?;
        Ok((!measured.interrupted).then_some((measured, dataset.classes.len())))
    }
}

/// A share in percent, in parts of a point.
fn percent(share: f64, parts: f64) -> f64 {
    (100.0 * share * parts).round() / parts
}

/// `FOLDER/NAME.toml`, whose text is given, and `.safetensors`, as the engines load them; makes the folder.
///
/// # Errors
/// A file cannot be written.
pub(crate) fn write_model(model: &Model, config: &[u8], folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    let path = folder.join(format!("{}.safetensors", model.config.name));
    let tensor = |(name, tensor): (&str, &yolo_lat::model::Tensor)| {
        let shape: Vec<i64> = tensor.shape.iter().map(|&side| side as i64).collect();
        (name.to_owned(), Tensor::from_slice(&tensor.values).reshape(shape).to_kind(Kind::Float))
    };
    write_tensors(&path, &model.weights.iter().map(tensor).collect::<Vec<_>>())?;
    write_atomically(&path.with_extension("toml"), |writer| writer.write_all(config))?;
    Ok(())
}

/// Loads all teachers. The cached ones add their boxes to the images, the dense ones are given back.
fn teachers(config: &TrainConfig, classes: &[String], images: &mut TrainingImages) -> anyhow::Result<Vec<Teacher>> {
    let mut dense = Vec::new();
    for (index, wanted) in config.teachers.iter().enumerate() {
        let file = wanted.file.as_ref().context("a teacher is wanted: name its file with --teacher FILE")?;
        let teacher = Teacher::load(file, classes)?.showing(wanted.features.keys().cloned())?;
        if wanted.answers == teacher::Mode::Dense {
            dense.push(teacher);
            continue;
        }
        let size = wanted.size.unwrap_or(config.size);
        if !size.is_multiple_of(teacher.step()) {
            bail!("teacher.size: {} needs a multiple of {}, found {size}", file.display(), teacher.step());
        }
        let cache = wanted.cache.clone().unwrap_or_else(|| config.output.join(format!("answers-{index}.safetensors")));
        let style = ProgressStyle::with_template("{bar:24} {human_pos}/{human_len} images asked, {eta} left");
        let progress =
            ProgressBar::new(images.len() as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let computed = teacher.teach(index, &mut images.all, size, &cache, wanted.labels_from, &progress)?;
        progress.finish_and_clear();
        let source = if computed == 0 { "read from" } else { "written to" };
        say(&format!("answers of {} {source} {}", file.display(), cache.display()));
    }
    Ok(dense)
}

#[cfg(test)]
mod tests;
