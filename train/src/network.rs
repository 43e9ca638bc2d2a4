//! The graph with autograd: every convolution that has a bias gets a batch norm, which export folds back into it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail};
use tch::{Device, Kind, Tensor};
use yolo_lat::model::graph::{Activation, Node, Op};
use yolo_lat::model::{CheckedGraph, Graph, Weights};

use crate::attention::attention;
use crate::tensors::{channels_innermost, choose, in_order, seed_for, size4};

/// Added to variances.
const EPSILON: f64 = 1e-5;
/// Share of a batch's statistics in the running ones.
const MOMENTUM: f64 = 0.1;

/// How batch norms behave in a forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Statistics of the batch.
    Train,
    /// Running statistics: what the folded network computes.
    Eval,
    /// Sets each batch norm so that it undoes itself on this batch: the network computes what it did when folded. Those of
    /// layers that were initialised randomly take their statistics from the batch.
    Restore,
}

/// What became of the tensors of a file that a network was started from.
#[derive(Debug, Default)]
pub(crate) struct InitReport {
    /// Copied.
    pub(crate) taken: Vec<String>,
    /// In the file, but not in the network, of another shape or not wanted.
    pub(crate) skipped: Vec<String>,
    /// In the network only: randomly initialised.
    pub(crate) missing: Vec<String>,
}

/// Tensors by name. Trained: `NODE.weight`, and `NODE.norm.weight`, `NODE.norm.bias` or `NODE.bias`.
/// Not trained: `NODE.norm.mean`, `NODE.norm.variance`.
pub(crate) struct Network {
    graph: CheckedGraph,
    device: Device,
    /// With gradients.
    pub(crate) parameters: BTreeMap<String, Tensor>,
    /// Running statistics.
    pub(crate) buffers: BTreeMap<String, Tensor>,
    /// Nodes whose names begin so stay as they are: no gradients, running statistics.
    frozen: Vec<String>,
    /// Nodes that no file gave weights to.
    fresh: BTreeSet<String>,
    /// Slopes of activations on the device, by their bits.
    slopes: BTreeMap<u32, Tensor>,
}

/// Outputs and final convolutions have a plain bias, the others a batch norm.
fn has_norm(node: &Node) -> bool {
    match node.op {
        Op::Conv { .. } => !node.name.ends_with(".out"),
        Op::Depthwise { bias, .. } => bias,
        _ => false,
    }
}

/// Whether a layer is the last map of an attention block or of its memory.
fn closes_block(name: &str) -> bool {
    name.ends_with(".down") || name.ends_with(".memory.proj")
}

/// The router whose weights this layer's are, the other way round: each expert's vector.
fn router_of(name: &str) -> Option<String> {
    name.strip_suffix(".labels.out").map(|block| format!("{block}.router.out"))
}

/// Whether a layer makes the values of a memory that no other map follows.
fn is_last_map_of_memory(graph: &CheckedGraph, name: &str) -> bool {
    let block = name.strip_suffix(".memory.qkv");
    block.is_some_and(|block| !graph.nodes.iter().any(|node| node.name == format!("{block}.memory.proj")))
}

impl Network {
    /// Random weights (He et al. 2015); class scores start at 1 %, attention blocks change nothing (their last scale is 0,
    /// Goyal et al. 2017), so that they do not disturb weights that [`Network::init`] takes. Layers that networks of a seed share begin alike.
    pub(crate) fn new(graph: CheckedGraph, device: Device) -> Self {
        let (mut parameters, mut buffers) = (BTreeMap::new(), BTreeMap::new());
        let seed = Tensor::randint(i64::MAX, [1], (Kind::Int64, Device::Cpu)).int64_value(&[0]) as u64;
        for node in &graph.nodes {
            let specs = graph.weights_of(node);
            let Some(weight) = specs.first() else { continue };
            let shape: Vec<i64> = weight.shape.iter().map(|&side| side as i64).collect();
            let fan_in: i64 = shape[1..].iter().product();
            if router_of(&node.name).is_none() {
                seed_for(&weight.name, seed);
                let value = match node.name.ends_with(".key_scale") {
                    true => Tensor::ones(&shape, (Kind::Float, device)),
                    false => Tensor::randn(&shape, (Kind::Float, device)) * (2.0 / fan_in as f64).sqrt(),
                };
                parameters.insert(weight.name.clone(), in_order(&value));
            }
            let vector = |value: f64| Tensor::full([shape[0]], value, (Kind::Float, device));
            if has_norm(node) {
                let scale = vector(if closes_block(&node.name) { 0.0 } else { 1.0 });
                if is_last_map_of_memory(&graph, &node.name) {
                    // Its values.
                    let _ = scale.narrow(0, shape[0] / 3 * 2, shape[0] / 3).fill_(0.0);
                }
                parameters.insert(format!("{}.norm.weight", node.name), scale);
                parameters.insert(format!("{}.norm.bias", node.name), vector(0.0));
                buffers.insert(format!("{}.norm.mean", node.name), vector(0.0));
                buffers.insert(format!("{}.norm.variance", node.name), vector(1.0));
            } else if specs.len() > 1 {
                let is_class = graph.scales.iter().any(|scale| graph.nodes[scale.class].name == node.name);
                parameters.insert(format!("{}.bias", node.name), vector(if is_class { -4.6 } else { 0.0 }));
            }
        }
        for parameter in parameters.values_mut() {
            *parameter = parameter.set_requires_grad(true);
        }
        let fresh = graph.nodes.iter().map(|node| node.name.clone()).collect();
        let slopes = graph.nodes.iter().filter_map(|node| match node.op {
            Op::Conv { activation: Activation::LeakyRelu(slope), .. }
            | Op::Depthwise { activation: Activation::LeakyRelu(slope), .. } => {
                Some((slope.to_bits(), Tensor::from_slice(&[slope]).to_device(device)))
            }
            _ => None,
        });
        let slopes = slopes.collect();
        Self { graph, device, parameters, buffers, frozen: Vec::new(), fresh, slopes }
    }

    /// Gives the maps of the layer of that name after the results; its channels.
    ///
    /// # Errors
    /// There is no such layer.
    pub(crate) fn tap(&mut self, name: &str) -> anyhow::Result<usize> {
        let tap = layer(&self.graph, name)?;
        self.graph = self.graph.edit(|graph| graph.taps.push(tap))?;
        Ok(self.graph.nodes[tap].shape.channels)
    }

    /// Gives the scores of each layer's experts after all else; how many of each layer's are active.
    ///
    /// # Errors
    /// Never: the nodes are the graph's own.
    pub(crate) fn tap_scores(&mut self) -> anyhow::Result<Vec<usize>> {
        let layers: Vec<(usize, usize)> = self
            .graph
            .nodes
            .iter()
            .filter_map(|node| match node.op {
                Op::Route { active, equal: false } => Some((node.inputs[0], active)),
                _ => None,
            })
            .collect();
        self.graph = self.graph.edit(|graph| graph.taps.extend(layers.iter().map(|&(scores, _)| scores)))?;
        Ok(layers.into_iter().map(|(_, active)| active).collect())
    }

    /// Adds a parameter that is no part of the graph, zeros.
    pub(crate) fn add(&mut self, name: &str, shape: &[i64]) {
        let value = Tensor::zeros(shape, (Kind::Float, self.device)).set_requires_grad(true);
        self.parameters.insert(name.to_owned(), value);
    }

    /// Excludes the nodes whose names begin with one of `prefixes` from training.
    ///
    /// # Errors
    /// A prefix that begins no name.
    pub(crate) fn freeze(&mut self, prefixes: &[String]) -> anyhow::Result<()> {
        for prefix in prefixes {
            if !self.parameters.keys().any(|name| name.starts_with(prefix.as_str())) {
                bail!("frozen: no layer's name begins with {prefix:?}");
            }
        }
        self.frozen = prefixes.to_vec();
        for (name, parameter) in &mut self.parameters {
            if prefixes.iter().any(|prefix| name.starts_with(prefix.as_str())) {
                *parameter = parameter.set_requires_grad(false);
            }
        }
        Ok(())
    }

    /// Whether training leaves the node as it is.
    pub(crate) fn is_frozen(&self, node: &Node) -> bool {
        self.frozen.iter().any(|prefix| node.name.starts_with(prefix.as_str()))
    }

    pub(crate) fn graph(&self) -> &CheckedGraph {
        &self.graph
    }

    /// Takes what is `wanted` by name and fits from folded weights. Batch norms start as identities with the folded bias as shift; one pass
    /// with [`Mode::Restore`] then gives them their statistics.
    ///
    /// # Errors
    /// The tensors do not fit their declared shapes.
    pub(crate) fn init(&mut self, weights: &Weights, wanted: impl Fn(&str) -> bool) -> anyhow::Result<InitReport> {
        let mut report = InitReport::default();
        let specs = self.graph.weights();
        for spec in &specs {
            match weights.get(&spec.name) {
                Some(tensor) if tensor.shape == spec.shape && wanted(&spec.name) => {
                    let node = spec.name.rsplit_once('.').map_or("", |(node, _)| node);
                    // The router's, which come with it.
                    if spec.shape.len() > 1 && router_of(node).is_some() {
                        report.taken.push(spec.name.clone());
                        continue;
                    }
                    let norm = format!("{node}.norm.bias");
                    let target = if self.parameters.contains_key(&spec.name) { &spec.name } else { &norm };
                    let mut parameter =
                        self.parameters.get(target).with_context(|| format!("no parameter {target}"))?.shallow_clone();
                    let shape: Vec<i64> = tensor.shape.iter().map(|&side| side as i64).collect();
                    let value = Tensor::from_slice(&tensor.values).reshape(shape).to_device(self.device);
                    tch::no_grad(|| parameter.copy_(&value));
                    if let Some(scale) = self.parameters.get(&format!("{node}.norm.weight")) {
                        let _ = tch::no_grad(|| scale.shallow_clone().fill_((1.0 + EPSILON).sqrt()));
                    }
                    self.fresh.remove(node);
                    report.taken.push(spec.name.clone());
                }
                Some(_) => {
                    report.skipped.push(spec.name.clone());
                    report.missing.push(spec.name.clone());
                }
                None => report.missing.push(spec.name.clone()),
            }
        }
        let known = |name: &str| specs.iter().any(|spec| spec.name == name);
        report.skipped.extend(weights.iter().map(|(name, _)| name.to_owned()).filter(|name| !known(name)));
        Ok(report)
    }

    /// Outputs of the graph for images (n, 3, height, width), each (n, channels, rows, columns).
    pub(crate) fn forward(&self, images: &Tensor, mode: Mode) -> Vec<Tensor> {
        self.forward_from(vec![in_order(images)], mode)
    }

    /// As [`Self::forward`] from the maps of the first nodes, at least of the input; those that no other node reads may be undefined.
    pub(crate) fn forward_from(&self, first: Vec<Tensor>, mode: Mode) -> Vec<Tensor> {
        let mut maps = first;
        let mut splits: BTreeMap<(usize, usize), Vec<Tensor>> = BTreeMap::new();
        for node in &self.graph.nodes[maps.len()..] {
            let input = |index: usize| &maps[node.inputs[index]];
            let channels = node.shape.channels as i64;
            let map = match node.op {
                Op::Input(_) => maps[0].shallow_clone(),
                Op::Conv { kernel, stride, activation, .. } => {
                    let map = self.convolution(node, input(0), kernel, stride, 1, activation, mode);
                    if node.inputs.len() > 1 { map + input(1) } else { map }
                }
                Op::Depthwise { kernel, stride, activation, .. } => {
                    let map = self.convolution(node, input(0), kernel, stride, channels, activation, mode);
                    if node.inputs.len() > 1 { map + input(1) } else { map }
                }
                Op::IntegerConv { .. } => unreachable!("networks are trained in floats"),
                Op::MaxPool => input(0).max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false),
                Op::Attention { mixing, heads, mask } => attention(input(0), mixing, heads as i64, mask),
                Op::Gate => input(0) * input(1).silu(),
                Op::Add => input(0) + input(1),
                Op::Route { active, equal } => route(input(0), active, equal),
                Op::Scale => {
                    let each = channels / input(1).size()[1];
                    input(0) * in_order(&input(1).repeat_interleave_self_int(each, 1, channels))
                }
                Op::Upsample => {
                    let (_, _, height, width) = size4(input(0));
                    input(0).upsample_nearest2d([2 * height, 2 * width], None, None)
                }
                // The gradient of a part of a split is joined with the others', channels innermost; that of a slice is copied
                // into zeros with channels outermost, and all that stands before it gets slower.
                Op::Slice { start, step: 1, count } if start.is_multiple_of(count) => {
                    let key = (node.inputs[0], count);
                    let parts = splits.entry(key).or_insert_with(|| input(0).split(channels, 1));
                    parts[start / count].shallow_clone()
                }
                Op::Slice { start, step, count } => {
                    let end = (start + (count - 1) * step + 1) as i64;
                    input(0).slice(1, start as i64, end, step as i64)
                }
                Op::Concat => Tensor::cat(&node.inputs.iter().map(|&input| &maps[input]).collect::<Vec<_>>(), 1),
                Op::Shuffle { groups } => shuffle(input(0), groups as i64),
            };
            maps.push(map);
        }
        self.graph.outputs().map(|output| maps[output].shallow_clone()).collect()
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one operation")]
    fn convolution(
        &self,
        node: &Node,
        x: &Tensor,
        kernel: usize,
        stride: usize,
        groups: i64,
        activation: Activation,
        mode: Mode,
    ) -> Tensor {
        let parameter = |suffix: &str| self.parameters.get(&format!("{}.{suffix}", node.name));
        let (stride, padding) = (stride as i64, (kernel / 2) as i64);
        let Some(weight) = self.weight(node) else { return x.shallow_clone() };
        let map = x.conv2d(&weight, parameter("bias"), [stride, stride], [padding, padding], [1, 1], groups);
        let map = match (parameter("norm.weight"), parameter("norm.bias")) {
            (Some(scale), Some(shift)) => self.norm(node, &map, scale, shift, mode),
            _ => map,
        };
        match activation {
            Activation::Identity => map,
            Activation::LeakyRelu(0.0) => map.relu(),
            // max(x, 0) + slope (x - max(x, 0)): on the processor few passes over the map, back as well as forth.
            Activation::LeakyRelu(slope) if self.device == Device::Cpu => map.relu().lerp(&map, f64::from(slope)),
            Activation::LeakyRelu(slope) => match self.slopes.get(&slope.to_bits()) {
                Some(slope) => map.prelu(slope),
                None => map,
            },
        }
    }

    fn weight(&self, node: &Node) -> Option<Tensor> {
        match router_of(&node.name) {
            Some(router) => Some(self.parameters.get(&format!("{router}.weight"))?.transpose(0, 1)),
            None => self.parameters.get(&format!("{}.weight", node.name)).map(Tensor::shallow_clone),
        }
    }

    fn norm(&self, node: &Node, map: &Tensor, scale: &Tensor, shift: &Tensor, mode: Mode) -> Tensor {
        let buffer = |suffix: &str| self.buffers.get(&format!("{}.norm.{suffix}", node.name));
        let (mean, variance) = (buffer("mean"), buffer("variance"));
        if mode == Mode::Restore
            && let (Some(mean), Some(variance)) = (mean, variance)
        {
            tch::no_grad(|| {
                let (found_variance, found_mean) = map.var_mean_dim(&[0i64, 2, 3][..], false, false);
                let (mut mean, mut variance) = (mean.shallow_clone(), variance.shallow_clone());
                mean.copy_(&found_mean);
                variance.copy_(&found_variance);
                if !self.fresh.contains(&node.name) {
                    scale.shallow_clone().copy_(&(found_variance + EPSILON).sqrt());
                    shift.shallow_clone().copy_(&(shift + found_mean));
                }
            });
        }
        map.batch_norm(
            Some(scale),
            Some(shift),
            mean,
            variance,
            mode == Mode::Train && !self.is_frozen(node),
            MOMENTUM,
            EPSILON,
            false,
        )
    }

    /// Weights for the engines: batch norms folded into the convolutions.
    ///
    /// # Errors
    /// A parameter is missing or libtorch fails to copy it.
    pub(crate) fn fold(&self) -> anyhow::Result<Weights> {
        let mut folded = Weights::default();
        let get = |tensors: &BTreeMap<String, Tensor>, name: &str| {
            tensors.get(name).map(Tensor::detach).with_context(|| format!("no tensor {name}"))
        };
        for node in &self.graph.nodes {
            for spec in self.graph.weights_of(node) {
                let weight = self.weight(node).with_context(|| format!("no weight of {}", node.name))?.detach();
                let is_bias = spec.shape.len() == 1;
                let value = if has_norm(node) {
                    let scale = get(&self.parameters, &format!("{}.norm.weight", node.name))?;
                    let shift = get(&self.parameters, &format!("{}.norm.bias", node.name))?;
                    let mean = get(&self.buffers, &format!("{}.norm.mean", node.name))?;
                    let scale = scale / (get(&self.buffers, &format!("{}.norm.variance", node.name))? + EPSILON).sqrt();
                    if is_bias { shift - mean * scale } else { weight * scale.reshape([-1, 1, 1, 1]) }
                } else if is_bias {
                    get(&self.parameters, &spec.name)?
                } else {
                    weight
                };
                folded.insert(spec.name.clone(), to_tensor(&value)?);
            }
        }
        Ok(folded)
    }
}

/// A tensor of the library from one of libtorch.
pub(crate) fn to_tensor(value: &Tensor) -> anyhow::Result<yolo_lat::model::Tensor> {
    let flat = value.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous().reshape([-1]);
    let values: Vec<f32> = Vec::try_from(&flat)?;
    if values.iter().any(|value| !value.is_finite()) {
        bail!("a weight is not a finite number");
    }
    Ok(yolo_lat::model::Tensor {
        shape: value.size().iter().map(|&side| side as usize).collect(),
        values: values.into(),
    })
}

/// Gates of experts, channels in the second dimension; gradients pass through those that are chosen.
fn route(scores: &Tensor, active: usize, equal: bool) -> Tensor {
    let chosen = choose(scores, active, 1);
    if equal {
        return chosen;
    }
    let gates = scores.softmax(1, scores.kind()) * chosen;
    if active == 1 { gates } else { &gates / gates.sum_dim_intlist(&[1i64][..], true, gates.kind()) }
}

/// How evenly the experts of each layer are used, from their scores: `E sum_e f_e g_e / active`, 1 where all are used alike, with `f_e` the
/// share of the positions that went to expert e and `g_e` its mean probability (Fedus et al. 2021).
pub(crate) fn balance(scores: &Tensor, active: usize) -> Tensor {
    let mean = |of: &Tensor| of.mean_dim(&[0i64, 2, 3][..], false, scores.kind());
    let even = mean(&choose(scores, active, 1)) * mean(&scores.softmax(1, scores.kind()));
    even.sum(scores.kind()) * (scores.size()[1] as f64 / active as f64)
}

/// libtorch's own, where there are gradients, gives a map with channels outermost.
fn shuffle(x: &Tensor, groups: i64) -> Tensor {
    let (batch, channels, height, width) = size4(x);
    if !channels_innermost(x.device()) {
        let parts = x.reshape([batch, groups, channels / groups, height, width]);
        return parts.transpose(1, 2).reshape([batch, channels, height, width]);
    }
    let parts = x.permute([0, 2, 3, 1]).reshape([batch, height, width, groups, channels / groups]);
    parts.transpose(3, 4).reshape([batch, height, width, channels]).permute([0, 3, 1, 2])
}

/// Index of the layer of that name.
///
/// # Errors
/// There is none.
pub(crate) fn layer(graph: &Graph, name: &str) -> anyhow::Result<usize> {
    let found = graph.nodes.iter().position(|node| node.name == name);
    found.with_context(|| format!("teacher.features: {} has no layer {name:?}", graph.name))
}

#[cfg(test)]
mod tests {
    use yolo_lat::engine::Engine;
    use yolo_lat::engine::reference::ReferenceEngine;
    use yolo_lat::model::config::{AttentionKind, ExpertBias, ExpertsConfig, KernelKind, MemoryKind};
    use yolo_lat::model::{Model, ModelConfig, graph_of};

    use super::*;

    /// Largest difference between the trainer's logits and the reference engine's on one image, relative to the
    /// largest logit: untrained networks have huge ones.
    fn difference(network: &Network, graph: &CheckedGraph, weights: Weights) -> f32 {
        let side = graph.input().width;
        let image = ndarray::Array4::from_shape_fn((1, 3, side, side), |(_, c, y, x)| {
            ((c * 7 + y * 3 + x * 5) % 256) as f32 / 255.0
        });
        let mut engine = ReferenceEngine::new(graph.with(weights).unwrap());
        let expected = engine.run(image.view()).unwrap();
        let flat: Vec<f32> = image.iter().copied().collect();
        let input = Tensor::from_slice(&flat).reshape([1, 3, side as i64, side as i64]);
        let found = tch::no_grad(|| network.forward(&input, Mode::Eval));
        let scale = expected.iter().flatten().fold(1.0f32, |scale, x| scale.max(x.abs()));
        let mut worst = 0.0f32;
        for (expected, found) in expected.iter().zip(&found) {
            let found: Vec<f32> = Vec::try_from(&found.contiguous().reshape([-1])).unwrap();
            assert_eq!(expected.len(), found.len());
            worst = expected.iter().zip(&found).fold(worst, |worst, (a, b)| worst.max((a - b).abs() / scale));
        }
        worst
    }

    #[test]
    fn restored_batch_norms_compute_what_was_folded() {
        let model = Model::load("../tests/golden/bootstrap/yolo-lat-n.toml").unwrap();
        let graph = model.graph(96, 96).unwrap();
        let mut network = Network::new(graph.clone(), Device::Cpu);
        let report = network.init(&model.weights, |_| true).unwrap();
        assert!(report.skipped.is_empty() && report.missing.is_empty(), "{report:?}");
        tch::manual_seed(1);
        tch::no_grad(|| network.forward(&Tensor::rand([4, 3, 96, 96], (Kind::Float, Device::Cpu)), Mode::Restore));
        let worst = difference(&network, &graph, model.weights);
        assert!(worst < 1e-4, "{worst}");
        let folded = network.fold().unwrap();
        let worst = difference(&network, &graph, folded);
        assert!(worst < 1e-4, "{worst}");
    }

    #[test]
    fn every_kind_of_network_agrees_with_the_reference() {
        type Change = fn(&mut ModelConfig);
        fn experts(config: &mut ModelConfig, active: usize, bias: ExpertBias) {
            config.neck.experts = Some(ExpertsConfig { count: 4, active, bias });
        }
        let changes: [(&str, Change); 15] = [
            ("as it is", |_| ()),
            ("softmax", |config| config.neck.attention = AttentionKind::Softmax),
            ("no attention", |config| config.neck.attention = AttentionKind::None),
            ("sum distance", |config| config.neck.kernel = KernelKind::SumDistance),
            ("difference distance", |config| config.neck.kernel = KernelKind::DiffDistance),
            ("modulated dot", |config| config.neck.kernel = KernelKind::ModulatedDot),
            ("no hyper link", |config| config.neck.hyper_link = false),
            ("memory", |config| config.neck.memory = MemoryKind::Flow),
            ("narrow memory of the input", |config| {
                config.neck.memory = MemoryKind::Input;
                config.neck.memory_width = Some(12);
            }),
            ("memory behind the block", |config| config.neck.memory = MemoryKind::Output),
            ("wide position, output gate, scaled keys", |config| {
                config.neck.key_scale = true;
                config.neck.position_kernel = 7;
                config.neck.output_gate = true;
            }),
            ("one of four experts", |config| experts(config, 1, ExpertBias::None)),
            ("experts, inner bias", |config| experts(config, 2, ExpertBias::Inner)),
            ("experts, outer bias, two residuals", |config| {
                experts(config, 2, ExpertBias::Outer);
                config.neck.hyper_link = false;
            }),
            ("experts, free bias, memory", |config| {
                experts(config, 3, ExpertBias::Free);
                config.neck.memory = MemoryKind::Flow;
            }),
        ];
        for (what, change) in changes {
            let mut config = ModelConfig::parse(include_str!("../../models/yolo-lat-s.toml"), "test").unwrap();
            change(&mut config);
            let graph = graph_of(&config, 64, 64).unwrap();
            tch::manual_seed(2);
            let network = Network::new(graph.clone(), Device::Cpu);
            let images = Tensor::rand([4, 3, 64, 64], (Kind::Float, Device::Cpu));
            tch::no_grad(|| network.forward(&images, Mode::Restore));
            let worst = difference(&network, &graph, network.fold().unwrap());
            assert!(worst < 1e-4, "{what}: {worst}");
        }
    }

    #[test]
    fn experts_that_are_used_alike_are_in_balance() {
        let scores = |values: &[f32]| Tensor::from_slice(values).reshape([1, 4, 2, 2]);
        // At each of four positions another expert is ahead by as much.
        let each: Vec<f32> = (0..16).map(|at| if at / 4 == at % 4 { 3.0 } else { 0.0 }).collect();
        assert!((balance(&scores(&each), 1).double_value(&[]) - 1.0).abs() < 1e-6);
        // One takes nearly all.
        let one: Vec<f32> = (0..16).map(|at| if at < 4 { 9.0 } else { 0.0 }).collect();
        assert!((balance(&scores(&one), 1).double_value(&[]) - 4.0).abs() < 0.01);
        // Of equal scores the first two are chosen, and each has a half.
        let gates: Vec<f32> = Vec::try_from(&route(&scores(&[0.0; 16]), 2, false).reshape([-1])).unwrap();
        assert_eq!(gates, [[0.5; 8], [0.0; 8]].concat());
    }

    #[test]
    fn a_fresh_memory_changes_no_bit() {
        let model = Model::load("../tests/golden/bootstrap/yolo-lat-n.toml").unwrap();
        tch::manual_seed(4);
        let images = Tensor::rand([2, 3, 64, 64], (Kind::Float, Device::Cpu));
        let answers = |config: &ModelConfig| {
            let mut network = Network::new(graph_of(config, 64, 64).unwrap(), Device::Cpu);
            let report = network.init(&model.weights, |_| true).unwrap();
            assert!(report.missing.iter().all(|name| name.contains(".memory.")), "{report:?}");
            tch::no_grad(|| network.forward(&images, Mode::Restore));
            tch::no_grad(|| network.forward(&images, Mode::Eval))
        };
        let expected = answers(&model.config);
        for (memory, memory_width) in
            [(MemoryKind::Flow, None), (MemoryKind::Flow, Some(16)), (MemoryKind::Input, Some(16))]
        {
            let mut config = model.config.clone();
            (config.neck.memory, config.neck.memory_width) = (memory, memory_width);
            assert!(answers(&config) == expected, "{memory:?} {memory_width:?}");
        }
    }

    #[test]
    fn weights_of_another_network_are_taken_where_they_fit() {
        let model = Model::load("../tests/golden/bootstrap/yolo-lat-n.toml").unwrap();
        let config = ModelConfig::parse(include_str!("../../models/yolo-lat-s.toml"), "s").unwrap();
        let mut network = Network::new(graph_of(&config, 64, 64).unwrap(), Device::Cpu);
        let report = network.init(&model.weights, |_| true).unwrap();
        assert!(report.taken.contains(&"stem.weight".to_owned()), "{report:?}");
        assert!(
            report.skipped.contains(&"lateral8.weight".to_owned())
                && report.missing.contains(&"lateral8.weight".to_owned())
        );
    }
}
