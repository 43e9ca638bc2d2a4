//! Which channel lies in which lane of which block.
//!
//! Products read single channels, so any order serves them. What computes whole vectors (depthwise convolution, pooling,
//! gate, sums) keeps the order of its input and runs over every block that holds a channel it wants. So products, whose
//! output order is free (rows of the weights change places), put side by side what is later read together, by these or by
//! products of integers, which read whole blocks in any order.

use std::collections::BTreeMap;

use super::{At, Buffer, Layout, Operand, Pass, Target, Task, fuse};
use crate::model::CheckedGraph;
use crate::model::graph::{NodeId, Op, Plane, Shape};

/// The order of channels in blocks: channel c is lane `slots[c] % lanes` of block `slots[c] / lanes`. Other lanes hold
/// values that nobody reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrangement {
    /// Of each channel.
    pub slots: Vec<usize>,
    /// How many.
    pub blocks: usize,
}

/// The tasks so far, and where their results lie.
pub(super) struct Maps<'a> {
    graph: &'a CheckedGraph,
    target: &'a dyn Target,
    pub(super) layout: Layout,
    pub(super) tasks: Vec<Task>,
    pub(super) buffers: Vec<Buffer>,
    /// Buffer and arrangement of each node that owns data, once its task is made.
    homes: Vec<Option<(usize, Arrangement)>>,
    /// Whether each node is an upsampling that is never stored: its readers take what it reads.
    pub(super) doubled: Vec<bool>,
}

/// Whether an operation reads channels of this input as parts of vectors.
fn reads_vectors(op: Op, index: usize) -> bool {
    match op {
        Op::Depthwise { .. } | Op::MaxPool | Op::Upsample | Op::Gate | Op::Add => true,
        Op::Conv { .. } | Op::IntegerConv { .. } => index > 0,
        Op::Scale => index == 0,
        Op::Input(_) | Op::Attention { .. } | Op::Route { .. } => false,
        // Views, which own no channels.
        Op::Slice { .. } | Op::Concat | Op::Shuffle { .. } => false,
    }
}

impl<'a> Maps<'a> {
    pub(super) fn new(graph: &'a CheckedGraph, target: &'a dyn Target, inside: &[Option<NodeId>]) -> Self {
        let (layout, homes) = (target.layout(), vec![None; graph.nodes.len()]);
        let doubled = fuse::doubled(graph, target, inside);
        Self { graph, target, layout, tasks: Vec::new(), buffers: Vec::new(), homes, doubled }
    }

    /// Makes the tasks of `nodes`, of which the first is the last to be computed.
    pub(super) fn add(&mut self, nodes: Vec<NodeId>) {
        let id = nodes[0];
        if id == 0 && self.image_stays() {
            return;
        }
        let inputs = nodes.iter().flat_map(|&node| {
            self.graph.nodes[node].inputs.iter().enumerate().map(move |(index, &input)| ((node, index), input))
        });
        let (graph, lanes) = (self.graph, self.layout.lanes);
        let is_read = |input: NodeId| graph.planes(input).iter().any(|plane| !nodes.contains(&plane.node));
        let inputs: Vec<_> = inputs.filter(|&(_, input)| is_read(input)).collect();
        let vectors = |(node, index): (NodeId, usize)| lanes > 1 && reads_vectors(graph.nodes[node].op, index);
        let arrangement = self.order(id, inputs.iter().find(|(input, _)| vectors(*input)).map(|&(_, input)| input));
        let mut operands: Vec<Operand> = Vec::with_capacity(inputs.len());
        for (input, node) in inputs {
            let at = if vectors(input) { self.aligned(id, node, &arrangement) } else { self.channels(node) };
            operands.push(Operand { input, node, at });
        }
        let mut pass = Pass::Only;
        for &node in &nodes {
            let state = self.target.state(graph, node);
            if state > 0 {
                let output = self.buffer(state);
                let operands_of_first = operands.iter().filter(|operand| operand.input.0 == node).cloned().collect();
                self.tasks.push(Task {
                    nodes: vec![node],
                    pass: Pass::First,
                    operands: operands_of_first,
                    arrangement: Arrangement::default(),
                    output,
                });
                let at = At { buffer: output, offset: 0, doubled: false };
                operands.push(Operand { input: (node, graph.nodes[node].inputs.len()), node, at: vec![at] });
                pass = Pass::Second;
            }
        }
        let output = self.map(self.graph.nodes[id].shape.positions(), &arrangement);
        self.homes[id] = Some((output, arrangement.clone()));
        self.tasks.push(Task { nodes, pass, operands, arrangement, output });
    }

    /// Whether every reader takes the image from the caller's memory.
    fn image_stays(&self) -> bool {
        let shown = |output| self.graph.planes(output).iter().any(|plane| plane.node == 0);
        let mut readers = (0..self.graph.nodes.len()).filter(|&node| self.graph.nodes[node].inputs.contains(&0));
        !self.graph.outputs().any(shown) && readers.all(|node| self.target.reads_image(self.graph, node))
    }

    /// The order of a result's channels: that of the first input that is read as vectors, where nothing else decides.
    fn order(&self, id: NodeId, leader: Option<NodeId>) -> Arrangement {
        let node = &self.graph.nodes[id];
        let natural = self.natural(node.shape);
        match (node.op, leader) {
            (Op::Conv { kernel: 1, stride: 1, .. } | Op::IntegerConv { .. }, None) => self.free(id),
            (Op::Conv { kernel: 1, stride: 1, .. } | Op::IntegerConv { .. }, Some(residual)) => {
                let (arrangement, _) = self.blocks(residual);
                // Lanes without a channel cost arithmetic here and only a copy there.
                if arrangement.blocks > natural.blocks { natural } else { arrangement }
            }
            (Op::Conv { .. }, _) => natural,
            (_, Some(leader)) => self.blocks(leader).0,
            _ => natural,
        }
    }

    /// Channels in their own order.
    fn natural(&self, shape: Shape) -> Arrangement {
        Arrangement { slots: (0..shape.channels).collect(), blocks: shape.channels.div_ceil(self.layout.lanes) }
    }

    fn buffer(&mut self, floats: usize) -> usize {
        self.buffers.push(Buffer { floats: floats.next_multiple_of(self.layout.map_align), start: 0 });
        self.buffers.len() - 1
    }

    fn map(&mut self, positions: usize, arrangement: &Arrangement) -> usize {
        self.buffer(arrangement.blocks * self.layout.block(positions))
    }

    /// Where each channel of a node is, views resolved; none of an image that stays where it is.
    pub(super) fn channels(&self, node: NodeId) -> Vec<At> {
        let channels = self.lanes(node).into_iter();
        channels.map(|(at, lane)| At { offset: at.offset + lane, ..at }).collect()
    }

    /// The blocks that the channels of a node lie in, and their lanes there.
    fn lanes(&self, node: NodeId) -> Vec<(At, usize)> {
        let lane = |mut plane: Plane| {
            let doubled = self.doubled[plane.node];
            if doubled {
                plane = self.graph.planes(self.graph.nodes[plane.node].inputs[0])[plane.channel];
            }
            let (buffer, arrangement) = self.homes[plane.node].as_ref()?;
            let slot = arrangement.slots[plane.channel];
            let lane = slot % self.layout.lanes;
            let positions = self.graph.nodes[plane.node].shape.positions();
            Some((At { buffer: *buffer, offset: self.layout.offset(slot - lane, positions), doubled }, lane))
        };
        self.graph.planes(node).into_iter().filter_map(lane).collect()
    }

    /// The blocks that hold the channels of a node, and an arrangement with the same lanes in them. A channel that is wanted
    /// twice makes its block come twice.
    fn blocks(&self, node: NodeId) -> (Arrangement, Vec<At>) {
        let (mut blocks, mut used): (Vec<At>, Vec<Vec<bool>>) = (Vec::new(), Vec::new());
        let lanes = self.layout.lanes;
        let slots = self.lanes(node).into_iter().map(|(block, lane)| {
            let free = (0..blocks.len()).find(|&index| blocks[index] == block && !used[index][lane]);
            let index = free.unwrap_or_else(|| {
                blocks.push(block);
                used.push(vec![false; lanes]);
                blocks.len() - 1
            });
            used[index][lane] = true;
            index * lanes + lane
        });
        let slots = slots.collect();
        (Arrangement { slots, blocks: blocks.len() }, blocks)
    }

    /// Blocks of `node` whose lanes agree with `arrangement`: its own, or a copy made by a task before that of `reader`.
    fn aligned(&mut self, reader: NodeId, node: NodeId, arrangement: &Arrangement) -> Vec<At> {
        let lanes = self.layout.lanes;
        let channels = self.lanes(node);
        let mut found: Vec<Option<At>> = vec![None; arrangement.blocks];
        let fits = channels
            .iter()
            .zip(&arrangement.slots)
            .all(|(&(block, lane), &slot)| lane == slot % lanes && *found[slot / lanes].get_or_insert(block) == block);
        if let (true, Some(blocks)) = (fits, found.into_iter().collect()) {
            return blocks;
        }
        let mut from = vec![None; arrangement.blocks * lanes];
        for (&slot, at) in arrangement.slots.iter().zip(self.channels(node)) {
            from[slot] = Some(at);
        }
        let positions = self.graph.nodes[node].shape.positions();
        let output = self.map(positions, arrangement);
        self.tasks.push(Task {
            nodes: vec![reader],
            pass: Pass::Copy { lanes: from, positions },
            operands: Vec::new(),
            arrangement: arrangement.clone(),
            output,
        });
        let block = |index| At { buffer: output, offset: self.layout.offset(index * lanes, positions), doubled: false };
        (0..arrangement.blocks).map(block).collect()
    }

    /// The order of the output channels of product `id`: those that the same operations read as vectors lie together, what is
    /// read by most first; a new group begins a new block where that costs none.
    fn free(&self, id: NodeId) -> Arrangement {
        let natural = self.natural(self.graph.nodes[id].shape);
        let lanes = self.layout.lanes;
        if lanes == 1 {
            return natural;
        }
        let mut readers: Vec<Vec<(NodeId, usize)>> = vec![Vec::new(); natural.slots.len()];
        for (reader, node) in self.graph.nodes.iter().enumerate().skip(id + 1) {
            // Integers are made of whole blocks, too, though any lanes of them do.
            let reads_blocks = |index| reads_vectors(node.op, index) || matches!(node.op, Op::IntegerConv { .. });
            for (index, &input) in node.inputs.iter().enumerate().filter(|(index, _)| reads_blocks(*index)) {
                for plane in self.graph.planes(input).into_iter().filter(|plane| plane.node == id) {
                    readers[plane.channel].push((reader, index));
                }
            }
        }
        let mut groups: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (channel, readers) in readers.into_iter().enumerate() {
            groups.entry((std::cmp::Reverse(readers.len()), readers)).or_default().push(channel);
        }
        let apart: usize = groups.values().map(|group| group.len().div_ceil(lanes)).sum();
        let (mut slots, mut next) = (natural.slots, 0usize);
        for group in groups.values() {
            if apart == natural.blocks {
                next = next.next_multiple_of(lanes);
            }
            for &channel in group {
                slots[channel] = next;
                next += 1;
            }
        }
        Arrangement { slots, blocks: natural.blocks }
    }
}
