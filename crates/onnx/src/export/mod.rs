//! From a [`CheckedGraph`](yolo_lat_core::model::CheckedGraph) to an ONNX file that ONNX Runtime runs fast: one more interpreter of the graph.
//!
//! Linear attention is written in its stable form with standard operators. Batch norm is folded already, constants are
//! computed here, and nothing is left for a simplifier but what a runtime does for itself.

mod outputs;

use crate::proto::{Attribute, Dimension, OnnxGraph};
use yolo_lat_core::engine::{EngineError, Unsupported};
use yolo_lat_core::model::config::{KernelKind, STRIDES};
use yolo_lat_core::model::graph::{Activation, Mask, Mixing, Node, Op, Shape};
use yolo_lat_core::model::integers::HIGHEST_LEVEL;
use yolo_lat_core::model::{Model, ModelError, Network};
use yolo_lat_core::postprocess::{Nms, PostprocessOptions};

/// Versions of the ONNX operators that can be written.
pub const OPSETS: std::ops::RangeInclusive<i64> = 17..=23;

/// Most detections in an image of a file with suppression.
const MOST: i64 = 300;

/// What the file gives.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum ExportOutput {
    /// `output0` (batch, 4 + classes, cells): centre, width, height in input pixels, then probabilities; the layout of
    /// YOLOv8's exports.
    #[default]
    Predictions,
    /// `output0` (batch, 300, 6): corners, confidence, class by falling confidence, the rest zeros; the layout of
    /// end-to-end exports. Of a cell the best class counts.
    Detections {
        /// Least confidence.
        confidence: f32,
        /// Of two boxes of a class that overlap more than this, the less confident goes.
        iou: f32,
        /// What suppressed boxes are good for; of an image, the 1,000 most confident may vote.
        nms: Nms,
    },
    /// Raw logits of each scale, finest first: `class8` (batch, classes, rows, columns), `box8` (batch, 4 * bins,
    /// rows, columns), and so on: what [`Engine`](yolo_lat_core::engine::Engine) gives.
    Logits,
}

/// How a model is written.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportOptions {
    /// Version of the operators, one of [`OPSETS`].
    pub opset: i64,
    /// Images computed together; `None` leaves it open.
    pub batch: Option<usize>,
    /// Width and height in pixels, multiples of 32.
    pub size: (usize, usize),
    /// Leaves width and height open; `size` is then only what the metadata recommend.
    pub dynamic: bool,
    /// Convolutions in 16-bit floats. Input, output and attention stay 32-bit.
    pub half: bool,
    /// What the file gives.
    pub output: ExportOutput,
}

impl Default for ExportOptions {
    fn default() -> Self {
        let output = ExportOutput::default();
        Self { opset: 18, batch: Some(1), size: (320, 320), dynamic: false, half: false, output }
    }
}

/// The bytes of an ONNX file for `model`. Input: `images` (batch, 3, height, width), RGB in 0..1.
///
/// # Errors
/// [`ModelError::Size`] for sides that the model does not take, [`ModelError::Config`] for an opset outside [`OPSETS`],
/// [`EngineError::Unsupported`] for causal attention.
pub fn export_onnx(model: &Model, options: &ExportOptions) -> Result<Vec<u8>, EngineError> {
    if !OPSETS.contains(&options.opset) {
        let reason = format!("opset {} cannot be written: {} to {} can", options.opset, OPSETS.start(), OPSETS.end());
        return Err(ModelError::Config { path: model.config.name.clone(), reason }.into());
    }
    let (width, height) = options.size;
    let graph = model.network(width, height)?;
    let causal = |node: &&Node| matches!(node.op, Op::Attention { mask: Mask::Causal, .. });
    if let Some(node) = graph.nodes.iter().find(causal) {
        return Err(Unsupported::new("onnx", node, "a causal mask cannot be exported yet").into());
    }
    let mut exporter = Exporter { model, graph: &graph, options, out: OnnxGraph::default(), names: Vec::new() };
    exporter.network();
    match options.output {
        ExportOutput::Logits => exporter.logits(),
        ExportOutput::Predictions => exporter.predictions(),
        ExportOutput::Detections { confidence, iou, nms } => {
            exporter.detections(&PostprocessOptions { confidence, iou, nms, ..PostprocessOptions::default() });
        }
    }
    exporter.metadata();
    Ok(exporter.out.finish(&graph.name, options.opset))
}

struct Exporter<'a> {
    model: &'a Model,
    graph: &'a Network,
    options: &'a ExportOptions,
    out: OnnxGraph,
    /// Name of each node's result so far.
    names: Vec<String>,
}

impl Exporter<'_> {
    fn batch(&self) -> Dimension {
        self.options.batch.map_or_else(|| Dimension::Named("batch".into()), Dimension::Fixed)
    }

    /// A side of a feature map of some stride.
    fn side(&self, pixels: usize, name: &str, stride: usize) -> Dimension {
        match (self.options.dynamic, stride) {
            (false, _) => Dimension::Fixed(pixels / stride),
            (true, 1) => Dimension::Named(name.into()),
            (true, _) => Dimension::Named(format!("{name}/{stride}")),
        }
    }

    fn network(&mut self) {
        let (width, height) = self.options.size;
        let shape = [self.batch(), Dimension::Fixed(3), self.side(height, "height", 1), self.side(width, "width", 1)];
        self.out.input("images", &shape);
        for node in &self.graph.nodes {
            let name = self.node(node);
            self.names.push(name);
        }
    }

    fn node(&mut self, node: &Node) -> String {
        let input = |at: usize| self.names[node.inputs[at]].clone();
        let channels = node.shape.channels;
        match node.op {
            Op::Input(_) if self.options.half => self.out.to_half("images"),
            Op::Input(_) => "images".into(),
            Op::Conv { kernel, stride, activation, .. } => self.convolution(node, kernel, stride, activation, true, 1),
            Op::IntegerConv { activation, .. } => self.integer_convolution(node, activation),
            Op::Depthwise { kernel, stride, bias, activation } => {
                self.convolution(node, kernel, stride, activation, bias, channels)
            }
            Op::MaxPool => {
                let attributes = [("kernel_shape", ints(&[3, 3])), ("strides", ints(&[2, 2])), ("pads", ints(&[1; 4]))];
                self.out.node("MaxPool", &[&input(0)], &attributes)
            }
            Op::Attention { mixing, heads, .. } => {
                let (qkv, shape) = (input(0), node.shape);
                self.attention(&qkv, shape, mixing, heads)
            }
            Op::Gate => {
                let (value, gate) = (input(0), input(1));
                let share = self.out.node("Sigmoid", &[&gate], &[]);
                let silu = self.out.node("Mul", &[&gate, &share], &[]);
                self.out.node("Mul", &[&value, &silu], &[])
            }
            Op::Add => self.out.node("Add", &[&input(0), &input(1)], &[]),
            Op::Route { active, equal } => {
                let scores = input(0);
                self.route(&scores, channels, active, equal)
            }
            Op::Scale => {
                let (map, factors) = (input(0), input(1));
                let experts = self.graph.nodes[node.inputs[1]].shape.channels;
                let split = self.map_shape(&map, &[experts, channels / experts], node.shape);
                let split = self.out.node("Reshape", &[&map, &split], &[]);
                let axis = self.out.integers(&[2]);
                let factors = self.out.node("Unsqueeze", &[&factors, &axis], &[]);
                let scaled = self.out.node("Mul", &[&split, &factors], &[]);
                let shape = self.map_shape(&map, &[channels], node.shape);
                self.out.node("Reshape", &[&scaled, &shape], &[])
            }
            Op::Upsample => {
                let input = input(0);
                let scales = self.out.floats(&[4], &[1.0, 1.0, 2.0, 2.0]);
                let attributes = [
                    ("mode", text("nearest")),
                    ("coordinate_transformation_mode", text("asymmetric")),
                    ("nearest_mode", text("floor")),
                ];
                self.out.node("Resize", &[&input, "", &scales], &attributes)
            }
            Op::Slice { start, step, count } => self.slice(&input(0), start, step, count),
            Op::Concat => {
                let inputs: Vec<&str> = node.inputs.iter().map(|&input| self.names[input].as_str()).collect();
                self.out.node("Concat", &inputs, &[("axis", Attribute::Int(1))])
            }
            Op::Shuffle { groups } => {
                let input = input(0);
                let shape = self.map_shape(&input, &[groups, channels / groups], node.shape);
                let split = self.out.node("Reshape", &[&input, &shape], &[]);
                let turned = self.out.node("Transpose", &[&split], &[("perm", ints(&[0, 2, 1, 3, 4]))]);
                let shape = self.map_shape(&input, &[channels], node.shape);
                self.out.node("Reshape", &[&turned, &shape], &[])
            }
        }
    }

    /// `Op::Route`: which of the `count` scores are the largest, as a mask of the softmax.
    fn route(&mut self, scores: &str, count: usize, active: usize, equal: bool) -> String {
        let axis = |axis: i64| ("axis", Attribute::Int(axis));
        // Which of equal ones it takes is the first, and it has no halves.
        let whole = if self.options.half { self.out.to_float(scores) } else { scores.to_owned() };
        let k = self.out.integers(&[active as i64]);
        let top = self.out.node_outputs("TopK", &[&whole, &k], 2, &[axis(1)]);
        let (depth, values) = (self.out.integers(&[count as i64]), self.out.floats(&[2], &[0.0, 1.0]));
        let each = self.out.node("OneHot", &[&top[1], &depth, &values], &[axis(1)]);
        let ranks = self.out.integers(&[2]);
        let mask = self.sum(&each, 2);
        let mask = self.out.node("Squeeze", &[&mask, &ranks], &[]);
        let gates = if equal {
            mask
        } else {
            let shares = self.out.node("Softmax", &[&whole], &[axis(1)]);
            let kept = self.out.node("Mul", &[&shares, &mask], &[]);
            if active == 1 {
                kept
            } else {
                let sum = self.sum(&kept, 1);
                self.out.node("Div", &[&kept, &sum], &[])
            }
        };
        if self.options.half { self.out.to_half(&gates) } else { gates }
    }

    /// The shape (batch, `channels`..., rows, columns) of the map `like`, as a tensor.
    fn map_shape(&mut self, like: &str, channels: &[usize], shape: Shape) -> String {
        let channels: Vec<i64> = channels.iter().map(|&channels| channels as i64).collect();
        if !self.options.dynamic {
            let sides = [shape.height as i64, shape.width as i64];
            // 0 keeps the batch.
            return self.out.integers(&[&[0], channels.as_slice(), &sides].concat());
        }
        let whole = self.out.node("Shape", &[like], &[]);
        let sides = self.integer_slice(&whole, 2, 4);
        let front = self.out.integers(&[&[0], channels.as_slice()].concat());
        self.out.node("Concat", &[&front, &sides], &[("axis", Attribute::Int(0))])
    }

    fn integer_slice(&mut self, tensor: &str, from: i64, to: i64) -> String {
        let [from, to] = [from, to].map(|at| self.out.integers(&[at]));
        self.out.node("Slice", &[tensor, &from, &to], &[])
    }

    fn slice(&mut self, input: &str, start: usize, step: usize, channels: usize) -> String {
        let ends = [start, start + (channels - 1) * step + 1, 1, step].map(|value| self.out.integers(&[value as i64]));
        let [start, end, axis, step] = &ends;
        self.out.node("Slice", &[input, start, end, axis, step], &[])
    }

    /// A constant of the network's precision.
    fn weight(&mut self, name: &str) -> String {
        let (shape, values) =
            self.graph.weights().get(name).map_or((&[][..], &[][..]), |tensor| (&tensor.shape, &tensor.values));
        if self.options.half { self.out.halves(shape, values) } else { self.out.floats(shape, values) }
    }

    fn convolution(
        &mut self,
        node: &Node,
        kernel: usize,
        stride: usize,
        activation: Activation,
        bias: bool,
        groups: usize,
    ) -> String {
        let mut inputs = vec![self.names[node.inputs[0]].clone(), self.weight(&format!("{}.weight", node.name))];
        if bias {
            inputs.push(self.weight(&format!("{}.bias", node.name)));
        }
        let [kernel, stride, pad] = [kernel, stride, kernel / 2].map(|value| value as i64);
        let attributes = [
            ("kernel_shape", ints(&[kernel; 2])),
            ("strides", ints(&[stride; 2])),
            ("pads", ints(&[pad; 4])),
            ("group", Attribute::Int(groups as i64)),
        ];
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let result = self.out.node("Conv", &inputs, &attributes);
        self.finished(node, result, activation)
    }

    /// Levels of what is read and weights, each with what it stands for. Runtimes multiply what that is in floats: their products of integers
    /// know one zero for all channels.
    fn integer_convolution(&mut self, node: &Node, activation: Activation) -> String {
        let integers = self.graph.integers(node);
        let (inputs, outputs) = (integers.zeros.len(), integers.bias.len());
        let read = self.names[node.inputs[0]].clone();
        let read = if self.options.half { self.out.to_float(&read) } else { read };
        let axis = |axis: i64| [("axis", Attribute::Int(axis))];
        let steps: Vec<f32> = integers.levels.iter().map(|levels| 1.0 / levels).collect();
        let steps = self.out.floats(&[inputs], &steps);
        let zeros: Vec<u8> = integers.zeros.iter().map(|&zero| zero as u8).collect();
        let zeros = self.out.bytes(&[inputs], &zeros);
        let levels = self.out.node("QuantizeLinear", &[&read, &steps, &zeros], &axis(1));
        // The type has 256 levels, ours has 128.
        let highest = self.out.bytes(&[], &[HIGHEST_LEVEL as u8]);
        let levels = self.out.node("Clip", &[&levels, "", &highest], &[]);
        // What a step is has gone into the weights.
        let ones = self.out.floats(&[inputs], &vec![1.0; inputs]);
        let levels = self.out.node("DequantizeLinear", &[&levels, &ones, &zeros], &axis(1));
        let weights = self.out.signed_bytes(&[outputs, inputs, 1, 1], &integers.weights);
        let scales = self.out.floats(&[outputs], &integers.scales);
        let weights = self.out.node("DequantizeLinear", &[&weights, &scales], &axis(0));
        let bias = self.out.floats(&[outputs], &integers.bias);
        let result = self.out.node("Conv", &[&levels, &weights, &bias], &[("kernel_shape", ints(&[1, 1]))]);
        let result = if self.options.half { self.out.to_half(&result) } else { result };
        self.finished(node, result, activation)
    }

    /// The result of a convolution after the activation, with what is added to it.
    fn finished(&mut self, node: &Node, result: String, activation: Activation) -> String {
        let result = match activation {
            Activation::Identity => result,
            Activation::LeakyRelu(0.0) => self.out.node("Relu", &[&result], &[]),
            Activation::LeakyRelu(slope) => {
                self.out.node("LeakyRelu", &[&result], &[("alpha", Attribute::Float(slope))])
            }
        };
        match node.inputs.get(1) {
            Some(&residual) => self.out.node("Add", &[&result, &self.names[residual]], &[]),
            None => result,
        }
    }

    fn sum(&mut self, tensor: &str, axis: i64) -> String {
        let axis = self.out.integers(&[axis]);
        self.out.node("ReduceSum", &[tensor, &axis], &[])
    }

    /// Maximum or mean over an axis; their axes became an input in opset 18.
    fn reduce(&mut self, operator: &str, tensor: &str, axis: i64) -> String {
        if self.options.opset < 18 {
            return self.out.node(operator, &[tensor], &[("axes", ints(&[axis]))]);
        }
        let axis = self.out.integers(&[axis]);
        self.out.node(operator, &[tensor, &axis], &[])
    }

    /// Multi-head attention on planes: q, k, v are (batch, heads, head width, positions).
    fn attention(&mut self, qkv: &str, shape: Shape, mixing: Mixing, heads: usize) -> String {
        let width = shape.channels / heads;
        let qkv = if self.options.half { self.out.to_float(qkv) } else { qkv.to_owned() };
        let form = self.out.integers(&[0, heads as i64, width as i64, -1]);
        let scale = self.out.floats(&[], &[(width as f32).powf(-0.25)]);
        let mut part = |index: usize| {
            let part = self.slice(&qkv, index * shape.channels, 1, shape.channels);
            self.out.node("Reshape", &[&part, &form], &[])
        };
        let [q, k, v] = [part(0), part(1), part(2)];
        let [q, k] = [q, k].map(|tensor| self.out.node("Mul", &[&tensor, &scale], &[]));
        let turn = [("perm", ints(&[0, 1, 3, 2]))];
        let result = if let Mixing::Linear(kernel) = mixing {
            let (phi, psi) = match kernel {
                KernelKind::HadamardExp => self.exponential_features(&q, &k),
                KernelKind::SumDistance => self.distance_features(&q, &k, 1.0),
                KernelKind::DiffDistance => self.distance_features(&q, &k, -1.0),
                KernelKind::ModulatedDot => (self.directions(&q, false), self.directions(&k, true)),
            };
            let turned = self.out.node("Transpose", &[&psi], &turn);
            let state = self.out.node("MatMul", &[&v, &turned], &[]);
            let total = self.sum(&psi, 3);
            let numerator = self.out.node("MatMul", &[&state, &phi], &[]);
            let weighted = self.out.node("Mul", &[&phi, &total], &[]);
            let denominator = self.sum(&weighted, 2);
            self.out.node("Div", &[&numerator, &denominator], &[])
        } else {
            let turned = self.out.node("Transpose", &[&q], &turn);
            let scores = self.out.node("MatMul", &[&turned, &k], &[]);
            let weights = self.out.node("Softmax", &[&scores], &[("axis", Attribute::Int(-1))]);
            let weights = self.out.node("Transpose", &[&weights], &turn);
            self.out.node("MatMul", &[&v, &weights], &[])
        };
        let shape = self.map_shape(&qkv, &[shape.channels], shape);
        let result = self.out.node("Reshape", &[&result, &shape], &[]);
        if self.options.half { self.out.to_half(&result) } else { result }
    }

    /// `exp(a + m)` and `exp(b - m)` with m the maximum of the keys, the queries shifted by their largest sum besides:
    /// every factor is at most 1.
    fn exponential_features(&mut self, q: &str, k: &str) -> (String, String) {
        let peak = self.reduce("ReduceMax", k, 3);
        let shifted = self.out.node("Sub", &[k, &peak], &[]);
        let psi = self.out.node("Exp", &[&shifted], &[]);
        let sums = self.out.node("Add", &[q, &peak], &[]);
        let largest = self.reduce("ReduceMax", &sums, 2);
        let shifted = self.out.node("Sub", &[&sums, &largest], &[]);
        (self.out.node("Exp", &[&shifted], &[]), psi)
    }

    /// `|a + s b|^2 = |a'|^2 + 2 s a'.b' + |b'|^2` around the keys' mean, which avoids cancellation.
    fn distance_features(&mut self, q: &str, k: &str, sign: f32) -> (String, String) {
        let mean = self.reduce("ReduceMean", k, 3);
        let k = self.out.node("Sub", &[k, &mean], &[]);
        let q = self.out.node(if sign > 0.0 { "Add" } else { "Sub" }, &[q, &mean], &[]);
        let [q_square, k_square] = [&q, &k].map(|tensor| {
            let square = self.out.node("Mul", &[tensor, tensor], &[]);
            self.sum(&square, 2)
        });
        let one = self.out.floats(&[], &[1.0]);
        let zero = self.out.floats(&[], &[0.0]);
        let [q_one, k_one] = [&q_square, &k_square].map(|tensor| {
            let none = self.out.node("Mul", &[tensor, &zero], &[]);
            self.out.node("Add", &[&none, &one], &[])
        });
        let factor = self.out.floats(&[], &[2.0 * sign]);
        let q = self.out.node("Mul", &[&q, &factor], &[]);
        let axis = [("axis", Attribute::Int(2))];
        let phi = self.out.node("Concat", &[&q, &q_one, &q_square], &axis);
        let psi = self.out.node("Concat", &[&k, &k_square, &k_one], &axis);
        (phi, psi)
    }

    /// `(x / |x|, 1)`, times `|x|^2 + 1` for keys; of queries that factor cancels.
    fn directions(&mut self, x: &str, of_keys: bool) -> String {
        let square = self.out.node("Mul", &[x, x], &[]);
        let square = self.sum(&square, 2);
        let length = self.out.node("Sqrt", &[&square], &[]);
        // The direction of zero is zero.
        let least = self.out.floats(&[], &[1e-30]);
        let length = self.out.node("Max", &[&length, &least], &[]);
        let direction = self.out.node("Div", &[x, &length], &[]);
        let [zero, one] = [0.0, 1.0].map(|value| self.out.floats(&[], &[value]));
        let square = if of_keys { square } else { self.out.node("Mul", &[&square, &zero], &[]) };
        let factor = self.out.node("Add", &[&square, &one], &[]);
        let direction = self.out.node("Mul", &[&direction, &factor], &[]);
        self.out.node("Concat", &[&direction, &factor], &[("axis", Attribute::Int(2))])
    }

    /// Keys as the exports of ultralytics have them, so that tools made for those show this file well.
    fn metadata(&mut self) {
        let classes = self.model.config.classes.iter().enumerate();
        let names: Vec<String> =
            classes.map(|(class, name)| format!("{class}: '{}'", name.replace('\'', "\\'"))).collect();
        let (width, height) = self.options.size;
        let end_to_end = matches!(self.options.output, ExportOutput::Detections { .. });
        let confidence = self.model.config.confidence.unwrap_or(PostprocessOptions::default().confidence);
        let entries = [
            ("confidence", confidence.to_string()),
            ("description", format!("{} by yolo-lat: exact linear attention (arXiv 2605.18848)", self.graph.name)),
            ("author", "yolo-lat".into()),
            ("version", env!("CARGO_PKG_VERSION").into()),
            ("license", "MIT OR Apache-2.0".into()),
            ("task", "detect".into()),
            ("stride", STRIDES[STRIDES.len() - 1].to_string()),
            ("batch", self.options.batch.unwrap_or(1).to_string()),
            ("imgsz", format!("[{height}, {width}]")),
            ("channels", "3".into()),
            ("names", format!("{{{}}}", names.join(", "))),
            ("end2end", if end_to_end { "True" } else { "False" }.into()),
            ("letterbox", "centred, grey 114, RGB 0..1".into()),
            ("parameters", self.graph.parameters().to_string()),
        ];
        entries.iter().for_each(|(key, value)| self.out.metadata(key, value));
    }
}

fn ints(values: &[i64]) -> Attribute {
    Attribute::Ints(values.to_vec())
}

fn text(value: &str) -> Attribute {
    Attribute::Text(value.into())
}
