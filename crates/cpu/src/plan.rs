//! Turns a graph into steps and gives every feature map its place in the arena. Done once; frames only replay it.

use super::attention::Attention;
use super::elementwise::{Gate, Sum, Upsample};
use super::product::{Convolution, Packed, Pointwise};
use super::steps::{PlaneAt, Step, plane_stride};
use super::windows::{Copy, Depthwise, MaxPool, Window};
use yolo_lat_core::engine::allocator::Allocator;
use yolo_lat_core::model::graph::{Node, NodeId, Op};
use yolo_lat_core::model::{Graph, Weights};
use yolo_lat_simd::InstructionSet;

/// Steps in order of execution, and the memory they need.
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// The name of each step's node.
    pub(super) names: Vec<String>,
    /// Floats in the arena.
    pub(super) arena: usize,
    /// Where the outputs of the graph lie, one list of planes each.
    pub(super) outputs: Vec<Vec<PlaneAt>>,
}

impl Plan {
    pub(super) fn new(graph: &Graph, weights: &Weights, set: InstructionSet) -> Self {
        Planner::new(graph, weights, set).plan()
    }
}

struct Planner<'a> {
    graph: &'a Graph,
    weights: &'a Weights,
    set: InstructionSet,
    /// First float of each node that owns planes.
    places: Vec<Option<usize>>,
    /// The picture is read where the caller has it.
    picture_in_place: bool,
    memory: Allocator,
}

impl<'a> Planner<'a> {
    fn new(graph: &'a Graph, weights: &'a Weights, set: InstructionSet) -> Self {
        // Kernels read whole vectors, which in the caller's memory must not reach past a plane.
        let picture_in_place = graph.input().positions().is_multiple_of(16);
        let places = vec![None; graph.nodes.len()];
        Self { graph, weights, set, places, picture_in_place, memory: Allocator::default() }
    }

    fn plan(mut self) -> Plan {
        let last_use = self.last_uses();
        let (mut steps, mut names) = (Vec::new(), Vec::new());
        for (id, node) in self.graph.nodes.iter().enumerate() {
            if node.op.is_view() || self.is_folded(id) || (node.op == Op::Input && self.picture_in_place) {
                continue;
            }
            self.places[id] = Some(self.memory.take(node.shape.channels * plane_stride(node.shape.positions())));
            steps.push(self.step(id, node));
            names.push(node.name.clone());
            for (owner, &last) in last_use.iter().enumerate().take(id + 1) {
                if last == id
                    && let Some(place) = self.places[owner]
                {
                    let shape = self.graph.nodes[owner].shape;
                    self.memory.give(place, shape.channels * plane_stride(shape.positions()));
                }
            }
        }
        let outputs = self.graph.outputs().map(|output| self.planes(output)).collect();
        Plan { steps, names, arena: self.memory.size, outputs }
    }

    /// The last step that reads each node's planes; outputs are never given back.
    fn last_uses(&self) -> Vec<NodeId> {
        let mut last_use: Vec<NodeId> = (0..self.graph.nodes.len()).collect();
        for (id, node) in self.graph.nodes.iter().enumerate().filter(|(_, node)| !node.op.is_view()) {
            // A folded node is read when its consumer runs.
            let reader = if self.is_folded(id) { self.consumers(id).next().unwrap_or(id) } else { id };
            for plane in node.inputs.iter().flat_map(|&input| self.graph.planes(input)) {
                last_use[plane.node] = last_use[plane.node].max(reader);
            }
        }
        for plane in self.graph.outputs().flat_map(|output| self.graph.planes(output)) {
            last_use[plane.node] = usize::MAX;
        }
        last_use
    }

    /// An upsampling whose only reader is a sum is computed inside that sum.
    fn is_folded(&self, id: NodeId) -> bool {
        let mut consumers = self.consumers(id);
        self.graph.nodes[id].op == Op::Upsample
            && consumers.next().is_some_and(|consumer| {
                let consumer = &self.graph.nodes[consumer];
                consumer.op == Op::Add && consumer.inputs[1] == id && consumer.inputs[0] != id
            })
            && consumers.next().is_none()
            && !self.graph.outputs().any(|output| output == id)
    }

    fn consumers(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let nodes = self.graph.nodes.iter().enumerate();
        nodes.filter(move |(_, node)| node.inputs.contains(&id)).map(|(consumer, _)| consumer)
    }

    fn step(&self, id: NodeId, node: &Node) -> Step {
        let output = self.places[id].unwrap_or_default();
        let shape = node.shape;
        let inputs = |index: usize| self.planes(node.inputs[index]);
        let residual = (node.inputs.len() > 1).then(|| inputs(1));
        let input_shape = node.inputs.first().map_or(shape, |&input| self.graph.nodes[input].shape);
        let window = |kernel, stride| Window { height: input_shape.height, width: input_shape.width, kernel, stride };
        let tile_rows = self.set.tile_rows();
        match node.op {
            // Views are skipped; what is left is the picture that could not be read in place.
            Op::Input | Op::Slice { .. } | Op::Concat | Op::Shuffle { .. } => {
                let inputs = (0..shape.channels).map(|channel| PlaneAt::picture(channel * shape.positions())).collect();
                Step::Copy(Copy { inputs, output, positions: shape.positions() })
            }
            Op::Conv { kernel: 1, stride: 1, activation } => {
                let (packed, positions) = (self.packed(node), shape.positions());
                Step::Pointwise(Pointwise {
                    packed,
                    inputs: inputs(0),
                    output,
                    positions,
                    activation,
                    residual,
                    set: self.set,
                })
            }
            Op::Conv { kernel, stride, activation } => {
                let (packed, window) = (self.packed(node), window(kernel, stride));
                Step::Convolution(Convolution { packed, inputs: inputs(0), window, output, activation, residual })
            }
            Op::Depthwise { kernel, stride, activation, .. } => {
                let (weights, bias) = self.filter(node);
                let window = window(kernel, stride);
                Step::Depthwise(Depthwise { weights, bias, inputs: inputs(0), output, window, activation, residual })
            }
            Op::MaxPool => Step::MaxPool(MaxPool { inputs: inputs(0), output, window: window(3, 2) }),
            Op::Attention { kind, kernel, heads } => {
                let tokens = shape.positions();
                Step::Attention(Attention { kind, kernel, heads, inputs: inputs(0), output, tokens, tile_rows })
            }
            Op::Gate => Step::Gate(Gate { u: inputs(0), g: inputs(1), output, positions: shape.positions() }),
            Op::Add => {
                let b_is_half = self.is_folded(node.inputs[1]);
                let b = if b_is_half { self.planes(self.graph.nodes[node.inputs[1]].inputs[0]) } else { inputs(1) };
                Step::Sum(Sum { a: inputs(0), b, b_is_half, output, height: shape.height, width: shape.width })
            }
            Op::Upsample => {
                let (height, width) = (input_shape.height, input_shape.width);
                Step::Upsample(Upsample { inputs: inputs(0), output, height, width })
            }
        }
    }

    /// Where the channels of a node lie, views resolved.
    fn planes(&self, node: NodeId) -> Vec<PlaneAt> {
        let planes = self.graph.planes(node).into_iter();
        planes
            .map(|plane| {
                let positions = self.graph.nodes[plane.node].shape.positions();
                match self.places[plane.node] {
                    Some(place) => PlaneAt::arena(place + plane.channel * plane_stride(positions)),
                    None => PlaneAt::picture(plane.channel * positions),
                }
            })
            .collect()
    }

    fn packed(&self, node: &Node) -> Packed {
        let (weights, bias) = self.filter(node);
        Packed::new(&weights, &bias, self.set.tile_rows())
    }

    /// Filter and bias of a node; the weights have been checked against the graph, and a missing bias is zero.
    fn filter(&self, node: &Node) -> (Vec<f32>, Vec<f32>) {
        let values = |suffix: &str, count: usize| {
            let tensor = self.weights.get(&format!("{}.{suffix}", node.name));
            tensor.map_or_else(|| vec![0.0; count], |tensor| tensor.values.to_vec())
        };
        let size = self.graph.weights_of(node).first().map_or(0, |spec| spec.shape.iter().product());
        (values("weight", size), values("bias", node.shape.channels))
    }
}
