//! Turns a graph into steps and gives every feature map its place in the arena. Done once; frames only replay it.

use super::attention::Attention;
use super::elementwise::{Gate, Gather, Pack, Sum, Upsample};
use super::layout::{Arrangement, Home, arrange, product_slots};
use super::product::{Convolution, Packed, Pointwise, Source};
use super::steps::{Aligned, Step};
use super::windows::{Depthwise, MaxPool, Window};
use yolo_lat_core::engine::allocator::Allocator;
use yolo_lat_core::model::graph::{Node, NodeId, Op, Shape};
use yolo_lat_core::model::{Graph, Weights};
use yolo_lat_simd::InstructionSet;

/// Steps in order of execution, and the memory they need.
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// The node that each step belongs to.
    pub(super) nodes: Vec<NodeId>,
    /// Floats in the arena.
    pub(super) arena: usize,
    /// Where the channels of each output of the graph lie at position 0.
    pub(super) outputs: Vec<Vec<usize>>,
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
    /// Of each node that owns data, once its step is made.
    homes: Vec<Option<Home>>,
    /// The picture is read where the caller has it.
    picture_in_place: bool,
    memory: Allocator,
    steps: Vec<Step>,
    nodes: Vec<NodeId>,
    /// Copies made for the step at hand: start and length.
    copies: Vec<(usize, usize)>,
}

impl<'a> Planner<'a> {
    fn new(graph: &'a Graph, weights: &'a Weights, set: InstructionSet) -> Self {
        let readers = |id: NodeId| graph.nodes.iter().filter(move |node| node.inputs.contains(&id));
        // Only a convolution with a window spreads rows of its own.
        let picture_in_place = !graph.outputs().any(|output| graph.planes(output).iter().any(|plane| plane.node == 0))
            && readers(0).all(|node| matches!(node.op, Op::Conv { kernel: 2.., .. }) && node.inputs == [0]);
        Self {
            graph,
            weights,
            set,
            homes: vec![None; graph.nodes.len()],
            picture_in_place,
            memory: Allocator::default(),
            steps: Vec::new(),
            nodes: Vec::new(),
            copies: Vec::new(),
        }
    }

    fn plan(mut self) -> Plan {
        let last_use = self.last_uses();
        for (id, node) in self.graph.nodes.iter().enumerate() {
            if node.op.is_view() || self.is_folded(id) || (node.op == Op::Input && self.picture_in_place) {
                continue;
            }
            let step = self.step(id, node);
            self.steps.push(step);
            self.nodes.push(id);
            for (place, length) in std::mem::take(&mut self.copies) {
                self.memory.give(place, length);
            }
            for (owner, &last) in last_use.iter().enumerate().take(id + 1) {
                if last == id
                    && let Some(home) = &self.homes[owner]
                {
                    self.memory.give(home.place, home.floats());
                }
            }
        }
        let outputs = self.graph.outputs().map(|output| self.offsets(output)).collect();
        Plan { steps: self.steps, nodes: self.nodes, arena: self.memory.size, outputs }
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

    /// Computed inside its only reader: an upsampling in a sum, a dense convolution in the pooling after it, whose full
    /// resolution then never leaves the cache.
    fn is_folded(&self, id: NodeId) -> bool {
        let mut consumers = self.consumers(id);
        let (Some(consumer), None) = (consumers.next(), consumers.next()) else { return false };
        let reader = &self.graph.nodes[consumer];
        let fits = match self.graph.nodes[id].op {
            Op::Upsample => reader.op == Op::Add && reader.inputs[1] == id && reader.inputs[0] != id,
            Op::Conv { kernel: 2.., .. } => reader.op == Op::MaxPool && self.graph.nodes[id].inputs.len() == 1,
            _ => false,
        };
        fits && !self.graph.outputs().any(|output| output == id)
    }

    fn consumers(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let nodes = self.graph.nodes.iter().enumerate();
        nodes.filter(move |(_, node)| node.inputs.contains(&id)).map(|(consumer, _)| consumer)
    }

    fn step(&mut self, id: NodeId, node: &Node) -> Step {
        let shape = node.shape;
        let input_shape = node.inputs.first().map_or(shape, |&input| self.graph.nodes[input].shape);
        let window = |kernel, stride| Window { height: input_shape.height, width: input_shape.width, kernel, stride };
        match node.op {
            // Views are skipped; what is left is the picture that could not be read in place.
            Op::Input | Op::Slice { .. } | Op::Concat | Op::Shuffle { .. } => {
                let output = self.settle(id, self.natural(shape));
                Step::Pack(Pack { channels: shape.channels, output, positions: shape.positions() })
            }
            Op::Conv { kernel: 1, stride: 1, activation } => {
                let inputs = self.offsets(node.inputs[0]);
                let (arrangement, residual) = match node.inputs.get(1) {
                    None => (product_slots(self.graph, id, self.set.block()), None),
                    Some(&residual) => {
                        let (arrangement, blocks) = self.arrangement(residual);
                        // Lanes without a channel cost arithmetic here and only a copy there.
                        if arrangement.blocks > shape.channels.div_ceil(self.set.block()) {
                            let natural = self.natural(shape);
                            let blocks = self.aligned(id, residual, &natural);
                            (natural, Some(blocks))
                        } else {
                            (arrangement, Some(blocks))
                        }
                    }
                };
                let packed = self.packed(node, &arrangement);
                let output = self.settle(id, arrangement);
                Step::Pointwise(Pointwise {
                    packed,
                    inputs,
                    output,
                    positions: shape.positions(),
                    activation,
                    residual,
                })
            }
            Op::Conv { .. } => self.convolution(id, node, id),
            Op::Depthwise { kernel, stride, activation, .. } => {
                let (arrangement, inputs) = self.arrangement(node.inputs[0]);
                let residual = node.inputs.get(1).map(|&residual| self.aligned(id, residual, &arrangement));
                let (weights, bias) = self.filter(node);
                let weights = self.by_lane(&weights, &arrangement);
                let bias = self.by_lane(&bias, &arrangement);
                let output = self.settle(id, arrangement);
                let window = window(kernel, stride);
                Step::Depthwise(Depthwise { weights, bias, inputs, output, window, activation, residual })
            }
            Op::MaxPool if self.is_folded(node.inputs[0]) => {
                self.convolution(id, &self.graph.nodes[node.inputs[0]], node.inputs[0])
            }
            Op::MaxPool => {
                let (arrangement, inputs) = self.arrangement(node.inputs[0]);
                Step::MaxPool(MaxPool { inputs, output: self.settle(id, arrangement), window: window(3, 2) })
            }
            Op::Attention { kind, kernel, heads } => {
                let inputs = self.offsets(node.inputs[0]);
                let output = self.settle(id, self.natural(shape));
                Step::Attention(Attention { kind, kernel, heads, inputs, output, tokens: shape.positions() })
            }
            Op::Gate => {
                let (arrangement, u) = self.arrangement(node.inputs[0]);
                let g = self.aligned(id, node.inputs[1], &arrangement);
                Step::Gate(Gate { u, g, output: self.settle(id, arrangement), positions: shape.positions() })
            }
            Op::Add => {
                let (arrangement, a) = self.arrangement(node.inputs[0]);
                let b_is_half = self.is_folded(node.inputs[1]);
                let b = if b_is_half { self.graph.nodes[node.inputs[1]].inputs[0] } else { node.inputs[1] };
                let b = self.aligned(id, b, &arrangement);
                let output = self.settle(id, arrangement);
                Step::Sum(Sum { a, b, b_is_half, output, height: shape.height, width: shape.width })
            }
            Op::Upsample => {
                let (arrangement, inputs) = self.arrangement(node.inputs[0]);
                let (height, width) = (input_shape.height, input_shape.width);
                Step::Upsample(Upsample { inputs, output: self.settle(id, arrangement), height, width })
            }
        }
    }

    /// The dense convolution `node`, as step of `id`: itself or the pooling of it.
    fn convolution(&mut self, id: NodeId, node: &Node, own: NodeId) -> Step {
        let Op::Conv { kernel, stride, activation } = node.op else { unreachable!("asked for convolutions only") };
        let input = self.graph.nodes[node.inputs[0]].shape;
        let window = Window { height: input.height, width: input.width, kernel, stride };
        let pool = id != own;
        let source = if self.graph.planes(node.inputs[0]).iter().all(|plane| self.homes[plane.node].is_none()) {
            Source::Picture
        } else {
            Source::Arena(self.offsets(node.inputs[0]))
        };
        let arrangement = self.natural(node.shape);
        let residual = node.inputs.get(1).map(|&residual| self.aligned(id, residual, &arrangement));
        let packed = self.packed(node, &arrangement);
        let output = self.settle(id, arrangement);
        let (channels, taps) = (input.channels, Convolution::offsets(input.channels, window, pool));
        Step::Convolution(Convolution { packed, source, channels, taps, window, output, activation, residual, pool })
    }

    /// Channels in their own order.
    fn natural(&self, shape: Shape) -> Arrangement {
        let slots = (0..shape.channels).collect();
        Arrangement { slots, blocks: shape.channels.div_ceil(self.set.block()) }
    }

    /// Gives a node its place in the arena.
    fn settle(&mut self, id: NodeId, arrangement: Arrangement) -> usize {
        let mut home = Home::new(arrangement, self.graph.nodes[id].shape.positions(), self.set.block());
        home.place = self.memory.take(home.floats());
        self.homes[id].insert(home).place
    }

    /// Where each channel of a node lies at position 0, views resolved.
    fn offsets(&self, node: NodeId) -> Vec<usize> {
        let planes = self.graph.planes(node).into_iter();
        planes.filter_map(|plane| Some(self.homes[plane.node].as_ref()?.offset(plane.channel))).collect()
    }

    /// The blocks that hold the channels of a node, and which lane of which block each channel is.
    fn arrangement(&self, node: NodeId) -> (Arrangement, Vec<usize>) {
        arrange(&self.offsets(node), &self.graph.planes(node), &self.homes, self.set.block())
    }

    /// Blocks of `node` whose lanes agree with `arrangement`: its own, or a copy made by a step before that of `id`.
    fn aligned(&mut self, id: NodeId, node: NodeId, arrangement: &Arrangement) -> Vec<usize> {
        let block = self.set.block();
        let offsets = self.offsets(node);
        let mut found: Vec<Option<usize>> = vec![None; arrangement.blocks];
        let homes = self.graph.planes(node).into_iter().map(|plane| (plane, self.homes[plane.node].as_ref()));
        let fits = homes.zip(&offsets).zip(&arrangement.slots).all(|(((plane, home), &offset), &slot)| {
            let lane = home.map_or(block, |home| home.arrangement.slots[plane.channel] % block);
            lane == slot % block && *found[slot / block].get_or_insert(offset - lane) == offset - lane
        });
        if let (true, Some(blocks)) = (fits, found.into_iter().collect()) {
            return blocks;
        }
        let positions = self.graph.nodes[node].shape.positions();
        let mut lanes = vec![None; arrangement.blocks * block];
        for (&slot, &offset) in arrangement.slots.iter().zip(&offsets) {
            lanes[slot] = Some(offset);
        }
        let length = Home::new(arrangement.clone(), positions, block).floats();
        let output = self.memory.take(length);
        self.copies.push((output, length));
        self.steps.push(Step::Gather(Gather { lanes, output, positions, block }));
        self.nodes.push(id);
        (0..arrangement.blocks).map(|index| output + index * block * positions).collect()
    }

    fn packed(&self, node: &Node, arrangement: &Arrangement) -> Packed {
        let (weights, bias) = self.filter(node);
        Packed::new(&weights, &bias, &arrangement.slots, arrangement.blocks, self.set.block(), self.set.lanes())
    }

    /// Values (channels, count) as `[block][count][lane]`.
    fn by_lane(&self, values: &[f32], arrangement: &Arrangement) -> Aligned {
        let (block, count) = (self.set.block(), values.len() / arrangement.slots.len());
        let mut result = vec![0.0; arrangement.blocks * count * block];
        for (values, &slot) in values.chunks_exact(count).zip(&arrangement.slots) {
            for (index, &value) in values.iter().enumerate() {
                result[(slot / block * count + index) * block + slot % block] = value;
            }
        }
        result.into()
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
