//! The network as plain data that anyone may build and edit. Engines, the exporter and the trainer interpret this value once it
//! is checked; nothing else describes the network.

use super::config::HeadConfig;
use super::integers::{shift_name, step_name, zero_name};
pub use super::op::{Activation, Mask, Mixing, Op, Shape, ShapeError};

/// Index of a node in [`Graph::nodes`]; a node's inputs have smaller indices.
pub type NodeId = usize;

/// One step of the network.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Unique; the prefix of the weights' names.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// What it reads, in the operation's order.
    pub inputs: Vec<NodeId>,
    /// What it produces.
    pub shape: Shape,
}

/// One channel of a node that owns data: what a view resolves to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plane {
    /// A node that is not a view.
    pub node: NodeId,
    /// Its channel.
    pub channel: usize,
}

/// What one scale of the detection head produces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Input pixels between two cells.
    pub stride: usize,
    /// Class logits, one channel a class.
    pub class: NodeId,
    /// Box logits, `4 * bins` channels: left, top, right, bottom.
    pub boxes: NodeId,
}

/// A network for one input size.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// The model's name.
    pub name: String,
    /// In order of execution; the first is the input.
    pub nodes: Vec<Node>,
    /// Finest scale first; none where only the taps are wanted.
    pub scales: Vec<Scale>,
    /// How box logits are read.
    pub head: HeadConfig,
    /// Nodes whose values are wanted besides the results.
    pub taps: Vec<NodeId>,
}

/// A weight that a graph needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightSpec {
    /// `NODE.weight`, `NODE.bias`; in integers `NODE.step` and `NODE.zero` too.
    pub name: String,
    /// Expected dimensions.
    pub shape: Vec<usize>,
}

impl Graph {
    /// A network that has nothing but an image.
    pub fn new(name: impl Into<String>, input: Shape) -> Self {
        let nodes = vec![Node { name: "input".into(), op: Op::Input(input), inputs: Vec::new(), shape: input }];
        let head = HeadConfig { bins: 2, max_distance: 1.0, shared: 0 };
        Self { name: name.into(), nodes, scales: Vec::new(), head, taps: Vec::new() }
    }

    /// Adds a node. Its shape follows from its inputs; where it has none, because the operation cannot read them,
    /// [`Graph::check`] says why.
    pub fn add(&mut self, name: impl Into<String>, op: Op, inputs: &[NodeId]) -> NodeId {
        let shapes: Option<Vec<Shape>> = inputs.iter().map(|&input| Some(self.nodes.get(input)?.shape)).collect();
        let shape = shapes.and_then(|shapes| op.output_shape(&shapes).ok()).unwrap_or_default();
        self.nodes.push(Node { name: name.into(), op, inputs: inputs.to_vec(), shape });
        self.nodes.len() - 1
    }

    /// Shape of the image.
    pub fn input(&self) -> Shape {
        self.nodes[0].shape
    }

    /// The network's results in the order engines return them: class and box logits of each scale, finest first, then what
    /// is tapped.
    pub fn outputs(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.scales.iter().flat_map(|scale| [scale.class, scale.boxes]).chain(self.taps.iter().copied())
    }

    /// All attention, in order of execution.
    pub fn attention_layers(&self) -> impl Iterator<Item = NodeId> + '_ {
        (0..self.nodes.len()).filter(|&node| matches!(self.nodes[node].op, Op::Attention { .. }))
    }

    /// Makes an attention layer another kind; `None` lets each position see only itself, so that the values pass as they are.
    /// Other nodes and weights stay. Nothing happens to a node that is no attention.
    pub fn replace_attention(&mut self, node: NodeId, by: Option<Mixing>) {
        let count = self.nodes[node].shape.channels;
        let op = &mut self.nodes[node].op;
        match (op, by) {
            (Op::Attention { mixing, .. }, Some(other)) => *mixing = other,
            (op @ Op::Attention { .. }, None) => *op = Op::Slice { start: 2 * count, step: 1, count },
            _ => {}
        }
    }

    /// Shape of a node's first input; of the image its own.
    pub fn input_shape(&self, node: &Node) -> Shape {
        node.inputs.first().map_or(node.shape, |&input| self.nodes[input].shape)
    }

    /// Follows views back to the planes that hold the data of `node`, one for each of its channels.
    pub fn planes(&self, node: NodeId) -> Vec<Plane> {
        (0..self.nodes[node].shape.channels).map(|channel| self.plane(node, channel)).collect()
    }

    fn plane(&self, mut node: NodeId, mut channel: usize) -> Plane {
        loop {
            let Node { op, inputs, shape, .. } = &self.nodes[node];
            match *op {
                Op::Slice { start, step, .. } => (node, channel) = (inputs[0], start + channel * step),
                Op::Shuffle { groups } => {
                    (node, channel) = (inputs[0], channel % groups * (shape.channels / groups) + channel / groups);
                }
                Op::Concat => {
                    for &input in inputs {
                        let channels = self.nodes[input].shape.channels;
                        if channel < channels {
                            node = input;
                            break;
                        }
                        channel -= channels;
                    }
                }
                _ => return Plane { node, channel },
            }
        }
    }

    /// Every weight the graph needs, in order of execution.
    pub fn weights(&self) -> Vec<WeightSpec> {
        self.nodes.iter().flat_map(|node| self.weights_of(node)).collect()
    }

    /// The weights of one node: none, the filter, or the filter and its bias, and what its integers are made of.
    pub fn weights_of(&self, node: &Node) -> Vec<WeightSpec> {
        let out = node.shape.channels;
        let (shape, bias) = match node.op {
            Op::Conv { kernel, .. } => (vec![out, self.input_shape(node).channels, kernel, kernel], true),
            Op::IntegerConv { .. } => (vec![out, self.input_shape(node).channels, 1, 1], true),
            Op::Depthwise { kernel, bias, .. } => (vec![out, 1, kernel, kernel], bias),
            _ => return Vec::new(),
        };
        let input = self.input_shape(node).channels;
        let mut specs = vec![WeightSpec { name: format!("{}.weight", node.name), shape }];
        if bias {
            specs.push(WeightSpec { name: format!("{}.bias", node.name), shape: vec![out] });
        }
        if let Op::IntegerConv { .. } = node.op {
            specs.push(WeightSpec { name: step_name(&node.name), shape: vec![input] });
            specs.push(WeightSpec { name: zero_name(&node.name), shape: vec![input] });
            specs.push(WeightSpec { name: shift_name(&node.name), shape: vec![out] });
        }
        specs
    }

    /// Number of weight values of one node.
    pub fn parameters_of(&self, node: &Node) -> usize {
        // Steps are how it is computed.
        self.weights_of(node).iter().take(2).map(|spec| spec.shape.iter().product::<usize>()).sum()
    }

    /// Number of weight values of the whole network.
    pub fn parameters(&self) -> usize {
        self.nodes.iter().map(|node| self.parameters_of(node)).sum()
    }

    /// Multiply-adds of one node for one image; additions, maxima and activations are not counted.
    pub fn multiply_adds_of(&self, node: &Node) -> u64 {
        let Shape { channels, .. } = node.shape;
        let positions = node.shape.positions() as u64;
        let count = match node.op {
            Op::IntegerConv { .. } => channels * self.input_shape(node).channels,
            Op::Conv { kernel, .. } => channels * self.input_shape(node).channels * kernel * kernel,
            Op::Depthwise { kernel, .. } => channels * kernel * kernel,
            // The weights and the mean of the values: L x L x head each.
            Op::Attention { mixing: Mixing::Softmax, .. } => return 2 * positions * positions * channels as u64,
            Op::Attention { mixing: Mixing::Linear(kernel), heads, .. } => {
                let head = channels / heads;
                2 * heads * kernel.features(head) * (head + 1)
            }
            Op::Gate | Op::Scale => channels,
            _ => 0,
        };
        count as u64 * positions
    }

    /// Multiply-adds of the whole network for one image.
    pub fn multiply_adds(&self) -> u64 {
        self.nodes.iter().map(|node| self.multiply_adds_of(node)).sum()
    }
}
