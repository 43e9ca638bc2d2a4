//! Which channel lies in which lane of which block.
//!
//! Products read single channels, so any order serves them. What computes whole vectors (depthwise convolution, pooling,
//! gate, sums) keeps the order of its input and runs over every block that holds a channel it wants. So products, whose
//! output order is free (rows of the weights change places), put side by side what is later read together.

use std::collections::BTreeMap;

use yolo_lat_core::model::Graph;
use yolo_lat_core::model::graph::{NodeId, Op, Plane};

/// The order of channels in blocks: channel c is lane `slots[c] % block` of block `slots[c] / block`. Other lanes hold
/// values that nobody reads.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Arrangement {
    pub(super) slots: Vec<usize>,
    pub(super) blocks: usize,
}

/// Where a node's data lies.
#[derive(Clone, Debug)]
pub(super) struct Home {
    pub(super) arrangement: Arrangement,
    /// First float in the arena.
    pub(super) place: usize,
    positions: usize,
    block: usize,
}

impl Home {
    pub(super) fn new(arrangement: Arrangement, positions: usize, block: usize) -> Self {
        Self { arrangement, place: 0, positions, block }
    }

    /// Whole cache lines.
    pub(super) fn floats(&self) -> usize {
        (self.arrangement.blocks * self.block * self.positions).next_multiple_of(16)
    }

    /// Where a channel lies at position 0.
    pub(super) fn offset(&self, channel: usize) -> usize {
        let slot = self.arrangement.slots[channel];
        self.place + slot / self.block * self.block * self.positions + slot % self.block
    }
}

/// The blocks that hold `planes`, whose values at position 0 lie at `offsets`: an arrangement with the same lanes, and where
/// each of its blocks lies. A channel that is wanted twice makes its block come twice.
pub(super) fn arrange(
    offsets: &[usize],
    planes: &[Plane],
    homes: &[Option<Home>],
    block: usize,
) -> (Arrangement, Vec<usize>) {
    let (mut blocks, mut used): (Vec<usize>, Vec<Vec<bool>>) = (Vec::new(), Vec::new());
    let slots = planes.iter().zip(offsets).map(|(plane, &offset)| {
        let lane = homes[plane.node].as_ref().map_or(0, |home| home.arrangement.slots[plane.channel] % block);
        let start = offset - lane;
        let free = (0..blocks.len()).find(|&index| blocks[index] == start && !used[index][lane]);
        let index = free.unwrap_or_else(|| {
            blocks.push(start);
            used.push(vec![false; block]);
            blocks.len() - 1
        });
        used[index][lane] = true;
        index * block + lane
    });
    let slots = slots.collect();
    (Arrangement { slots, blocks: blocks.len() }, blocks)
}

/// The operations that read a channel as part of a vector, and as which operand.
type Readers = Vec<(NodeId, usize)>;

/// The order of the output channels of product `id`: those that the same operations read as vectors lie together, what is
/// read by most first; a new group begins a new block where that costs none.
pub(super) fn product_slots(graph: &Graph, id: NodeId, block: usize) -> Arrangement {
    let channels = graph.nodes[id].shape.channels;
    let mut readers: Vec<Readers> = vec![Vec::new(); channels];
    for (reader, node) in graph.nodes.iter().enumerate().skip(id + 1) {
        let vectors: &[NodeId] = match node.op {
            Op::Depthwise { .. } | Op::MaxPool | Op::Upsample | Op::Gate | Op::Add => &node.inputs,
            Op::Conv { .. } if node.inputs.len() > 1 => &node.inputs[1..],
            _ => continue,
        };
        for (operand, &input) in vectors.iter().enumerate() {
            for plane in graph.planes(input).into_iter().filter(|plane| plane.node == id) {
                readers[plane.channel].push((reader, operand));
            }
        }
    }
    let mut groups: BTreeMap<(std::cmp::Reverse<usize>, Readers), Vec<usize>> = BTreeMap::new();
    for (channel, readers) in readers.into_iter().enumerate() {
        groups.entry((std::cmp::Reverse(readers.len()), readers)).or_default().push(channel);
    }
    let least = channels.div_ceil(block);
    let apart: usize = groups.values().map(|group| group.len().div_ceil(block)).sum();
    let (mut slots, mut next) = (vec![0; channels], 0usize);
    for group in groups.values() {
        if apart == least {
            next = next.next_multiple_of(block);
        }
        for &channel in group {
            slots[channel] = next;
            next += 1;
        }
    }
    Arrangement { slots, blocks: least }
}
