//! The network as plain data. Engines, the exporter and the trainer interpret this value; nothing else describes the network.

use super::config::{AttentionKind, HeadConfig, KernelKind};

/// Index of a node in [`Graph::nodes`]; a node's inputs have smaller indices.
pub type NodeId = usize;

/// Channels, height, width of a feature map. The batch is not part of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Channel planes.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Shape {
    /// Positions in one plane.
    pub fn positions(&self) -> usize {
        self.height * self.width
    }

    /// Values in all planes.
    pub fn values(&self) -> usize {
        self.channels * self.positions()
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}x{}x{}", self.channels, self.height, self.width)
    }
}

/// Applied to each value a convolution or an addition produces.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// `max(x, slope * x)`; slope 0 is ReLU.
    LeakyRelu(f32),
}

impl Activation {
    /// The value after the activation.
    pub fn apply(self, x: f32) -> f32 {
        match self {
            Self::Identity => x,
            Self::LeakyRelu(slope) => x.max(slope * x),
        }
    }
}

/// What a node computes. Convolutions pad by `kernel / 2` zeros, so a stride of 2 gives `ceil(side / 2)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// The picture: RGB in 0..1.
    Input,
    /// Dense convolution; weight `(out, in, kernel, kernel)`, bias `(out)`. A second input is added after the activation.
    Conv {
        /// Odd side of the window.
        kernel: usize,
        /// 1 or 2.
        stride: usize,
        /// Applied before the residual.
        activation: Activation,
    },
    /// One filter a channel; weight `(channels, 1, kernel, kernel)`. A second input is added after the activation.
    Depthwise {
        /// Odd side of the window.
        kernel: usize,
        /// 1 or 2.
        stride: usize,
        /// Whether there is a bias `(channels)`.
        bias: bool,
        /// Applied before the residual.
        activation: Activation,
    },
    /// Maximum over a 3x3 window, stride 2, padded by 1.
    MaxPool,
    /// Multi-head attention over all positions. The input's channels are q, k, v, each `heads` x head width.
    /// q and k are divided by `head_width^(1/4)`, so that q.k carries the customary `1/sqrt(head_width)`.
    Attention {
        /// Linear or softmax ([`AttentionKind::None`] has no such node).
        kind: AttentionKind,
        /// The kernel of the linear kind.
        kernel: KernelKind,
        /// Number of heads.
        heads: usize,
    },
    /// `u * silu(g)` of two inputs of one shape.
    Gate,
    /// `a + b` of two inputs of one shape.
    Add,
    /// Each value twice in both directions.
    Upsample,
    /// View: channels `start, start + step, ...` of the input.
    Slice {
        /// First channel.
        start: usize,
        /// Distance between channels.
        step: usize,
    },
    /// View: the channels of all inputs, one after the other.
    Concat,
    /// View: channel `i * groups + g` of the output is channel `g * (channels / groups) + i` of the input.
    Shuffle {
        /// Number of groups that are interleaved.
        groups: usize,
    },
}

impl Op {
    /// A short name for tables.
    pub fn label(&self) -> String {
        match *self {
            Op::Input => "input".into(),
            Op::Conv { kernel, stride, .. } => format!("conv {kernel}x{kernel} /{stride}"),
            Op::Depthwise { kernel, stride, .. } => format!("depthwise {kernel}x{kernel} /{stride}"),
            Op::MaxPool => "max pool 3x3 /2".into(),
            Op::Attention { kind: AttentionKind::Softmax, heads, .. } => format!("softmax attention, {heads} heads"),
            Op::Attention { kernel, heads, .. } => format!("exact linear attention, {kernel:?}, {heads} heads"),
            Op::Gate => "gate".into(),
            Op::Add => "add".into(),
            Op::Upsample => "upsample x2".into(),
            Op::Slice { start, step } => format!("slice {start}::{step}"),
            Op::Concat => "concat".into(),
            Op::Shuffle { groups } => format!("shuffle {groups}"),
        }
    }

    /// Whether the node only names planes of other nodes and moves no data.
    pub fn is_view(&self) -> bool {
        matches!(self, Op::Slice { .. } | Op::Concat | Op::Shuffle { .. })
    }
}

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
    /// Finest scale first.
    pub scales: Vec<Scale>,
    /// How box logits are read.
    pub head: HeadConfig,
    /// Nodes whose values are wanted besides the results.
    pub taps: Vec<NodeId>,
}

/// A weight that a graph needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightSpec {
    /// `NODE.weight` or `NODE.bias`.
    pub name: String,
    /// Expected dimensions.
    pub shape: Vec<usize>,
}

impl Graph {
    /// Shape of the picture.
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
    pub fn replace_attention(&mut self, node: NodeId, by: Option<(AttentionKind, KernelKind)>) {
        let width = self.nodes[node].shape.channels;
        let Op::Attention { kind, kernel, .. } = &mut self.nodes[node].op else { return };
        match by {
            Some(other) => (*kind, *kernel) = other,
            None => self.nodes[node].op = Op::Slice { start: 2 * width, step: 1 },
        }
    }

    /// Shape of a node's first input.
    pub fn input_shape(&self, node: &Node) -> Shape {
        self.nodes[node.inputs[0]].shape
    }

    /// Follows views back to the planes that hold the data of `node`, one for each of its channels.
    pub fn planes(&self, node: NodeId) -> Vec<Plane> {
        (0..self.nodes[node].shape.channels).map(|channel| self.plane(node, channel)).collect()
    }

    fn plane(&self, mut node: NodeId, mut channel: usize) -> Plane {
        loop {
            let Node { op, inputs, shape, .. } = &self.nodes[node];
            match *op {
                Op::Slice { start, step } => (node, channel) = (inputs[0], start + channel * step),
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

    /// The weights of one node: none, the filter, or the filter and its bias.
    pub fn weights_of(&self, node: &Node) -> Vec<WeightSpec> {
        let out = node.shape.channels;
        let (shape, bias) = match node.op {
            Op::Conv { kernel, .. } => (vec![out, self.input_shape(node).channels, kernel, kernel], true),
            Op::Depthwise { kernel, bias, .. } => (vec![out, 1, kernel, kernel], bias),
            _ => return Vec::new(),
        };
        let mut specs = vec![WeightSpec { name: format!("{}.weight", node.name), shape }];
        if bias {
            specs.push(WeightSpec { name: format!("{}.bias", node.name), shape: vec![out] });
        }
        specs
    }

    /// Number of weight values of one node.
    pub fn parameters_of(&self, node: &Node) -> usize {
        self.weights_of(node).iter().map(|spec| spec.shape.iter().product::<usize>()).sum()
    }

    /// Number of weight values of the whole network.
    pub fn parameters(&self) -> usize {
        self.nodes.iter().map(|node| self.parameters_of(node)).sum()
    }

    /// Multiply-adds of one node for one picture; additions, maxima and activations are not counted.
    pub fn multiply_adds_of(&self, node: &Node) -> u64 {
        let Shape { channels, .. } = node.shape;
        let positions = node.shape.positions() as u64;
        let count = match node.op {
            Op::Conv { kernel, .. } => channels * self.input_shape(node).channels * kernel * kernel,
            Op::Depthwise { kernel, .. } => channels * kernel * kernel,
            Op::Attention { kind, kernel, heads } => {
                let head = channels / heads;
                let features = match (kind, kernel) {
                    // The weights and the mean of the values: L x L x head each.
                    (AttentionKind::Softmax | AttentionKind::None, _) => {
                        return 2 * positions * positions * channels as u64;
                    }
                    (AttentionKind::Ela, KernelKind::HadamardExp) => head,
                    (AttentionKind::Ela, KernelKind::ModulatedDot) => head + 1,
                    (AttentionKind::Ela, _) => head + 2,
                };
                2 * heads * features * (head + 1)
            }
            Op::Gate => channels,
            _ => 0,
        };
        count as u64 * positions
    }

    /// Multiply-adds of the whole network for one picture.
    pub fn multiply_adds(&self) -> u64 {
        self.nodes.iter().map(|node| self.multiply_adds_of(node)).sum()
    }
}

/// Adds nodes one by one and works out their shapes.
pub(crate) struct GraphBuilder {
    nodes: Vec<Node>,
}

impl GraphBuilder {
    /// Starts with the picture.
    pub(crate) fn new(shape: Shape) -> Self {
        Self { nodes: vec![Node { name: "input".into(), op: Op::Input, inputs: Vec::new(), shape }] }
    }

    /// The picture.
    pub(crate) fn input(&self) -> NodeId {
        0
    }

    /// Shape of a node added before.
    pub(crate) fn shape(&self, node: NodeId) -> Shape {
        self.nodes[node].shape
    }

    /// Adds a node with `channels` output channels; the resolution follows from the operation.
    pub(crate) fn add(&mut self, name: impl Into<String>, op: Op, inputs: &[NodeId], channels: usize) -> NodeId {
        let Shape { height, width, .. } = self.shape(inputs[0]);
        let (height, width) = match op {
            Op::Conv { stride, .. } | Op::Depthwise { stride, .. } => (height.div_ceil(stride), width.div_ceil(stride)),
            Op::MaxPool => (height.div_ceil(2), width.div_ceil(2)),
            Op::Upsample => (height * 2, width * 2),
            _ => (height, width),
        };
        self.nodes.push(Node {
            name: name.into(),
            op,
            inputs: inputs.to_vec(),
            shape: Shape { channels, height, width },
        });
        self.nodes.len() - 1
    }

    /// The finished graph.
    pub(crate) fn finish(self, name: String, scales: Vec<Scale>, head: HeadConfig) -> Graph {
        Graph { name, nodes: self.nodes, scales, head, taps: Vec::new() }
    }
}
