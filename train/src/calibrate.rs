//! Steps for integers: what the values of each channel that a 1x1 convolution reads look like on photographs.
//!
//! A step is chosen for the least squared error of the values in 128 levels: that of rounding, `step^2 / 12` a value within the range, and
//! that of what lies outside of it. The ends of the range are tried at shares of the extremes that were met.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use ndarray::{Array4, ArrayView3, Axis};
use yolo_lat::engine::Engine;
use yolo_lat::engine::cpu::CpuEngine;
use yolo_lat::eval::{Dataset, Split};
use yolo_lat::model::graph::{NodeId, Op};
use yolo_lat::model::integers::{HIGHEST_LEVEL, shift_name, step_name, zero_name};
use yolo_lat::model::{Model, Precision, Tensor};
use yolo_lat::preprocess::Preprocessor;
use yolo_lat::source::open_image;
use yolo_lat::{InputSize, model};

use crate::log::say;
use crate::run::write_model;

/// What is measured, and where the result goes.
#[derive(Args, Debug)]
pub(crate) struct CalibrateArguments {
    /// Photographs: a labelled data set, of which labels do not matter
    dataset: PathBuf,
    /// The model: n, s or the path of a .toml or .safetensors file
    #[arg(short, long, default_value = "n")]
    model: String,
    /// So many photographs, taken at equal distances from the set
    #[arg(long, default_value_t = 256)]
    images: usize,
    /// Layers that stay in floats: parts of their names
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    keep: Vec<String>,
    /// Folder for the model with its steps, under the model's name; its .toml asks for int8
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
}

/// Bins of a histogram between the extremes.
const BINS: usize = 512;
/// Shares of the extremes that are tried as ends of the range.
const SHARES: usize = 24;

/// Values of one channel.
#[derive(Clone, Debug)]
struct Channel {
    least: f32,
    most: f32,
    bins: Vec<u32>,
}

impl Channel {
    fn new() -> Self {
        // 0 is always within.
        Self { least: 0.0, most: 0.0, bins: vec![0; BINS] }
    }

    fn extend(&mut self, values: impl Iterator<Item = f32>) {
        for value in values {
            self.least = self.least.min(value);
            self.most = self.most.max(value);
        }
    }

    fn width(&self) -> f32 {
        (self.most - self.least) / BINS as f32
    }

    fn count(&mut self, values: impl Iterator<Item = f32>) {
        let width = self.width();
        if width > 0.0 {
            for value in values {
                self.bins[(((value - self.least) / width) as usize).min(BINS - 1)] += 1;
            }
        }
    }

    /// Step and zero of least squared error.
    fn step(&self) -> (f32, f32) {
        let width = f64::from(self.width());
        let centre = |bin: usize| f64::from(self.least) + (bin as f64 + 0.5) * width;
        let mut best = (f64::INFINITY, (1.0, 0.0));
        for (low, high) in (1..=SHARES).flat_map(|low| (1..=SHARES).map(move |high| (low, high))) {
            let share = |end: f32, part: usize| end * part as f32 / SHARES as f32;
            let (low, high) = (share(self.least, low), share(self.most, high));
            let step = ((high - low) / HIGHEST_LEVEL).max(1e-6);
            let zero = (-low / step).round().clamp(0.0, HIGHEST_LEVEL);
            let (low, high) = (f64::from(-zero * step), f64::from((HIGHEST_LEVEL - zero) * step));
            let rounding = f64::from(step).powi(2) / 12.0;
            let error = |(bin, &count): (usize, &u32)| {
                let beyond = (low - centre(bin)).max(centre(bin) - high).max(0.0);
                f64::from(count) * if beyond > 0.0 { beyond * beyond } else { rounding }
            };
            let error: f64 = self.bins.iter().enumerate().filter(|(_, count)| **count > 0).map(error).sum();
            if error < best.0 {
                best = (error, (step, zero));
            }
        }
        best.1
    }

    /// Means of the values and of what their levels stand for.
    fn means(&self, (step, zero): (f32, f32)) -> (f64, f64) {
        let width = f64::from(self.width());
        let (mut count, mut mean, mut coarse) = (0.0, 0.0, 0.0);
        for (bin, &times) in self.bins.iter().enumerate() {
            let (times, centre) = (f64::from(times), f64::from(self.least) + (bin as f64 + 0.5) * width);
            let level = (centre as f32 / step + zero).clamp(0.0, HIGHEST_LEVEL).round_ties_even();
            count += times;
            mean += times * centre;
            coarse += times * f64::from(step * (level - zero));
        }
        let count = f64::max(count, 1.0);
        (mean / count, coarse / count)
    }
}

/// What 1x1 convolutions read.
struct Watched {
    /// Names of the convolutions and what they read.
    products: Vec<(String, NodeId)>,
    /// Each node that is read, once.
    nodes: Vec<NodeId>,
    channels: Vec<Vec<Channel>>,
}

impl Watched {
    fn new(graph: &model::CheckedGraph, keep: &[String]) -> Self {
        let is_kept = |name: &str| keep.iter().any(|part| name.contains(part.as_str()));
        let products: Vec<_> = graph
            .nodes
            .iter()
            .filter(|node| matches!(node.op, Op::Conv { kernel: 1, stride: 1, .. }) && !is_kept(&node.name))
            .map(|node| (node.name.clone(), node.inputs[0]))
            .collect();
        let mut nodes: Vec<NodeId> = products.iter().map(|&(_, input)| input).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let channels = nodes.iter().map(|&node| vec![Channel::new(); graph.nodes[node].shape.channels]).collect();
        Self { products, nodes, channels }
    }

    fn each(&mut self, maps: &[Array4<f32>], look: impl Fn(&mut Channel, ArrayView3<f32>, usize)) {
        for (channels, map) in self.channels.iter_mut().zip(maps) {
            for (at, channel) in channels.iter_mut().enumerate() {
                look(channel, map.index_axis(Axis(0), 0), at);
            }
        }
    }
}

/// Shifts outputs so that their means are what they were in floats: rounding moves weights and levels to one side more than to the other.
fn correct(model: &mut Model, means: &[(&String, Vec<(f64, f64)>)]) -> anyhow::Result<()> {
    let side = model.config.input;
    let integers = model.clone().in_precision(Precision::Int8)?.network(side, side)?;
    for (name, means) in means {
        let node = integers.nodes.iter().find(|node| &node.name == *name).context("it was among them")?;
        let (floats, products) = (integers.filter(node).0, integers.integers(node));
        let shift: Vec<f32> = (0..node.shape.channels)
            .map(|output| {
                let filter = &floats[output * means.len()..][..means.len()];
                let weights = &products.weights[output * means.len()..][..means.len()];
                let shift = filter.iter().zip(weights).zip(means).zip(&products.levels).map(
                    |(((w, q), (mean, coarse)), levels)| {
                        let coarse_weight = f64::from(*q) * f64::from(products.scales[output]) * f64::from(*levels);
                        f64::from(*w) * mean - coarse_weight * coarse
                    },
                );
                shift.sum::<f64>() as f32
            })
            .collect();
        model.weights.insert(shift_name(name), Tensor { shape: vec![shift.len()], values: shift.into() });
    }
    Ok(())
}

/// Measures steps and writes the model with them.
///
/// # Errors
/// A model or photographs that cannot be read, nothing to measure, or a result that cannot be written.
pub(crate) fn calibrate(arguments: &CalibrateArguments) -> anyhow::Result<ExitCode> {
    let mut model = Model::load(&arguments.model)?;
    model.weights = model.weights.without_steps();
    let mut dataset = Dataset::load(&arguments.dataset, Split::Prefer("train"))?;
    let count = arguments.images.min(dataset.images.len());
    if count == 0 {
        bail!(
            "{}: no photographs to measure on; give --images 1 or more and a set that has some",
            arguments.dataset.display()
        );
    }
    let every = dataset.images.len() / count;
    dataset.images = dataset.images.into_iter().step_by(every).take(count).collect();
    let side = model.config.input;
    let mut watched = Watched::new(&model.graph(side, side)?, &arguments.keep);
    for part in &arguments.keep {
        if !model.graph(side, side)?.nodes.iter().any(|node| node.name.contains(part.as_str())) {
            bail!(
                "--keep {part}: no layer of {} has that in its name; yolo-lat info --plan lists them",
                model.config.name
            );
        }
    }
    if watched.products.is_empty() {
        bail!("--keep leaves no layer to measure");
    }
    let mut engines: BTreeMap<(usize, usize), CpuEngine> = BTreeMap::new();
    let mut preprocessor = Preprocessor::default();
    let mut measured = 0;
    for pass in 0..2 {
        for image in &dataset.images {
            let path = &image.path;
            let image = match open_image(path) {
                Ok(image) => image,
                Err(error) => {
                    if pass == 0 {
                        say(&format!("{}: {error}; left out", path.display()));
                    }
                    continue;
                }
            };
            measured += 1 - pass;
            let shape = InputSize::default().for_image(side, image.dimensions());
            let engine = match engines.entry(shape) {
                Entry::Occupied(engine) => engine.into_mut(),
                Entry::Vacant(place) => {
                    let nodes = watched.nodes.clone();
                    let network = model.network(shape.0, shape.1)?.edit(|graph| {
                        graph.scales.clear();
                        graph.taps = nodes;
                    })?;
                    place.insert(CpuEngine::new(&network, 1)?)
                }
            };
            let mut input = Array4::zeros((1, 3, shape.1, shape.0));
            preprocessor.apply(&image, input.index_axis_mut(Axis(0), 0))?;
            let maps = engine.run(input.view())?;
            watched.each(maps, |channel, map, at| {
                let values = map.index_axis(Axis(0), at);
                match pass {
                    0 => channel.extend(values.iter().copied()),
                    _ => channel.count(values.iter().copied()),
                }
            });
        }
    }
    if measured == 0 {
        bail!("{}: none of the photographs can be read", arguments.dataset.display());
    }
    let mut corrections = Vec::new();
    for (name, input) in &watched.products {
        let place = watched.nodes.binary_search(input).ok().context("it was among them")?;
        let chosen: Vec<_> = watched.channels[place].iter().map(Channel::step).collect();
        let means = watched.channels[place].iter().zip(&chosen).map(|(channel, &chosen)| channel.means(chosen));
        corrections.push((name, means.collect::<Vec<_>>()));
        let (steps, zeros): (Vec<f32>, Vec<f32>) = chosen.into_iter().unzip();
        let outputs = model.weights.get(&format!("{name}.bias")).map_or(0, |bias| bias.values.len());
        for (name, values) in
            [(step_name(name), steps), (zero_name(name), zeros), (shift_name(name), vec![0.0; outputs])]
        {
            model.weights.insert(name, Tensor { shape: vec![values.len()], values: values.into() });
        }
    }
    correct(&mut model, &corrections)?;
    model.config.precision = Precision::Int8;
    std::fs::create_dir_all(&arguments.output)
        .with_context(|| format!("{}: cannot be made", arguments.output.display()))?;
    write_model(&model, toml::to_string(&model.config)?.as_bytes(), &arguments.output)?;
    say(&format!(
        "{}: steps of {} layers, measured on {measured} photographs",
        arguments.output.join(&model.config.name).display(),
        watched.products.len()
    ));
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(values: &[f32]) -> Channel {
        let mut channel = Channel::new();
        channel.extend(values.iter().copied());
        channel.count(values.iter().copied());
        channel
    }

    #[test]
    fn a_step_covers_what_is_there() {
        let even: Vec<f32> = (0..=1000).map(|at| -1.0 + at as f32 * 4e-3).collect();
        let (step, zero) = channel(&even).step();
        assert!((step - 4.0 / 127.0).abs() < 1e-4 && zero == 32.0, "{step}, {zero}");
        // One far out is worth less than the others' rounding.
        let few: Vec<f32> = (0..100_000).map(|at| if at == 0 { 40.0 } else { (at % 100) as f32 * 0.01 }).collect();
        let (step, zero) = channel(&few).step();
        assert!(step < 0.8 * 40.0 / 127.0 && step > 1.0 / 127.0 && zero == 0.0, "{step}, {zero}");
        // Of nothing but zeros any step will do that has a reciprocal.
        let (step, zero) = channel(&[0.0; 9]).step();
        assert!(step >= 1e-6 && zero == 0.0, "{step}, {zero}");
        let (mean, coarse) = channel(&even).means((0.5, 2.0));
        assert!((mean - 1.0).abs() < 0.01 && (coarse - 1.0).abs() < 0.1, "{mean}, {coarse}");
    }

    /// Copies of the sample photographs with labels for one object each.
    fn photographs() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for part in ["images", "labels"] {
            std::fs::create_dir(folder.path().join(part)).unwrap();
        }
        for name in ["astronaut", "chelsea", "coffee"] {
            let image = folder.path().join(format!("images/{name}.jpg"));
            std::fs::copy(format!("../assets/{name}.jpg"), image).unwrap();
            std::fs::write(folder.path().join(format!("labels/{name}.txt")), "0 0.5 0.5 0.5 0.5\n").unwrap();
        }
        std::fs::write(folder.path().join("labels/classes.txt"), "thing\n").unwrap();
        folder
    }

    /// Leaves the beginning of a photograph, which says how large it is.
    fn cut(path: &std::path::Path) {
        let bytes = std::fs::read(path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }

    #[test]
    fn a_calibrated_model_finds_the_same_in_integers() {
        let (photographs, output) = (photographs(), tempfile::tempdir().unwrap());
        // One that cannot be read is left out.
        cut(&photographs.path().join("images/coffee.jpg"));
        let arguments = CalibrateArguments {
            dataset: photographs.path().to_owned(),
            model: "n".into(),
            images: 3,
            keep: vec!["stage2.0".into()],
            output: output.path().to_owned(),
        };
        calibrate(&arguments).unwrap();
        let path = output.path().join("yolo-lat-n.toml").display().to_string();
        let model = Model::load(&path).unwrap();
        assert_eq!(model.config.precision, Precision::Int8);
        assert!(
            model.weights.get("lateral8.step").is_some() && model.weights.get("stage2.0.left.pointwise.step").is_none()
        );
        let find = |precision| {
            let options = yolo_lat::DetectorOptions { precision: Some(precision), ..Default::default() };
            let mut detector =
                yolo_lat::Detector::of_model(&model, &yolo_lat::Runtime::with_threads(1), &options).unwrap();
            detector.detect(&open_image("../assets/chelsea.jpg").unwrap()).unwrap()
        };
        let [floats, integers] = [Precision::F32, Precision::Int8].map(find);
        assert_eq!((floats[0].class, integers[0].class), (7, 7));
        assert!(floats[0].bbox.iou(&integers[0].bbox) > 0.9 && floats != integers);
    }

    #[test]
    fn what_cannot_be_measured_is_said() {
        let (photographs, output) = (photographs(), tempfile::tempdir().unwrap());
        let kept = "stage2";
        let fails = |images, keep: &str, says: &str| {
            let (dataset, output) = (photographs.path().to_owned(), output.path().to_owned());
            let arguments = CalibrateArguments { dataset, model: "n".into(), images, keep: vec![keep.into()], output };
            let error = calibrate(&arguments).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        };
        fails(0, kept, "no photographs to measure on");
        fails(1, "stage9", "--keep stage9: no layer of yolo-lat-n has that in its name");
        fails(1, "", "--keep leaves no layer");
        for name in ["astronaut", "chelsea", "coffee"] {
            cut(&photographs.path().join(format!("images/{name}.jpg")));
        }
        fails(3, kept, "none of the photographs can be read");
        assert_eq!(std::fs::read_dir(output.path()).unwrap().count(), 0);
    }
}
