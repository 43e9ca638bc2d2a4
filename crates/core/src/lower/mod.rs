//! From a checked graph to a plan: which nodes are computed together, in which order, and where every channel lies. Written once;
//! an engine says what it has kernels for ([`Target`]) and turns the plan's tasks into its own steps.

mod arena;
mod fuse;
mod layout;
mod schedule;

use crate::engine::Unsupported;
use crate::model::CheckedGraph;
use crate::model::graph::NodeId;

pub use self::fuse::{Fusion, ghost};
pub use self::layout::Arrangement;
use self::layout::Maps;

/// What an engine has kernels for, and how it wants its feature maps.
pub trait Target {
    /// Whether it computes a node.
    ///
    /// # Errors
    /// Why not.
    fn supports(&self, graph: &CheckedGraph, node: NodeId) -> Result<(), Unsupported>;

    /// How maps lie in memory.
    fn layout(&self) -> Layout;

    /// Whether a kernel does both nodes of `fusion`, where all ends in `last`, and the first never meets memory. In layouts of
    /// several lanes all vectors of a task have the order of its result: nothing that reads vectors may come before a product.
    fn fuses(&self, graph: &CheckedGraph, fusion: Fusion, last: NodeId) -> bool;

    /// Whether `reader` takes its input `index` from a map of half the resolution where that is upsampled for it; if all readers do, the
    /// upsampled map is never stored.
    fn doubles(&self, _graph: &CheckedGraph, _reader: NodeId, _index: usize) -> bool {
        false
    }

    /// Whether `reader` takes the image from where the caller has it; it must be the only input.
    fn reads_image(&self, _graph: &CheckedGraph, _reader: NodeId) -> bool {
        false
    }

    /// Floats that a first pass over a node's inputs leaves for a second one; 0 where there is one pass.
    fn state(&self, _graph: &CheckedGraph, _node: NodeId) -> usize {
        0
    }

    /// Whether two tasks that do not wait for each other run side by side.
    fn together(&self, _graph: &CheckedGraph, _a: &Task, _b: &Task) -> bool {
        false
    }
}

/// How the channels of a map lie in memory: in blocks of `lanes`, whose channels at a position are neighbours. One lane makes
/// planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Channels in a block.
    pub lanes: usize,
    /// Floats of a block are a multiple of this.
    pub block_align: usize,
    /// Floats of a map are a multiple of this, and so is its place.
    pub map_align: usize,
}

/// A float of the arena: `offset` from the start of a buffer, which the plan knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    buffer: usize,
    offset: usize,
    /// The map there has half of the reader's rows and columns: each value stands for four ([`Target::doubles`]).
    pub doubled: bool,
}

/// What a task reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Operand {
    /// The node of the task that reads it, and as which of its inputs; [`Pass::Second`] has its state as one more.
    pub input: (NodeId, usize),
    /// What it reads: any node, views too.
    pub node: NodeId,
    /// The values at position 0: of every channel that is not computed here where single channels are read, of the blocks of the task's arrangement
    /// where whole vectors are. None where the image is read from the caller's memory.
    pub at: Vec<At>,
}

/// Which part of its nodes' work a task does.
#[derive(Clone, Debug, PartialEq)]
pub enum Pass {
    /// All.
    Only,
    /// From the inputs to the state.
    First,
    /// From the inputs and the state to the result.
    Second,
    /// None: it puts channels where another task reads them as vectors.
    Copy {
        /// For each lane of each block where its channel is.
        lanes: Vec<Option<At>>,
        /// Positions of the map.
        positions: usize,
    },
}

/// What is computed at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// The node whose result is written, then those that are computed on the way; of a copy the one that reads it.
    pub nodes: Vec<NodeId>,
    /// What of it.
    pub pass: Pass,
    /// What is read: by the first node, then by the others.
    pub operands: Vec<Operand>,
    /// Which channel of the result lies where.
    pub arrangement: Arrangement,
    output: usize,
}

impl Task {
    /// Whether a node is computed here.
    pub fn computes(&self, node: NodeId) -> bool {
        self.nodes.contains(&node)
    }

    /// What `node` reads as input `index`; `None` where that is computed here or is not there.
    pub fn operand(&self, node: NodeId, index: usize) -> Option<&Operand> {
        self.operands.iter().find(|operand| operand.input == (node, index))
    }

    /// The buffers that it reads.
    fn reads(&self) -> impl Iterator<Item = usize> + '_ {
        let copied = match &self.pass {
            Pass::Copy { lanes, .. } => &lanes[..],
            _ => &[],
        };
        let read = self.operands.iter().flat_map(|operand| &operand.at).chain(copied.iter().flatten());
        read.map(|at| at.buffer)
    }
}

/// A stretch of the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Buffer {
    floats: usize,
    start: usize,
}

/// Tasks in order with their memory. Every offset that it gives lies inside the arena, in memory that holds what is meant.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    tasks: Vec<Task>,
    /// Ends of the stages in `tasks`.
    stages: Vec<usize>,
    buffers: Vec<Buffer>,
    outputs: Vec<Vec<At>>,
    layout: Layout,
    arena: usize,
}

/// Makes a plan of `graph` for an engine.
///
/// # Errors
/// A node that it has no kernel for.
pub fn lower(graph: &CheckedGraph, target: &dyn Target) -> Result<Plan, Unsupported> {
    (0..graph.nodes.len()).try_for_each(|node| target.supports(graph, node))?;
    let inside = fuse::inside(graph, target);
    let mut maps = Maps::new(graph, target, &inside);
    for node in 0..graph.nodes.len() {
        if inside[node].is_none() && !graph.nodes[node].op.is_view() && !maps.doubled[node] {
            maps.add(fuse::members(graph, &inside, node));
        }
    }
    let outputs: Vec<_> = graph.outputs().map(|output| maps.channels(output)).collect();
    let Maps { tasks, mut buffers, layout, .. } = maps;
    let (tasks, stages) = schedule::stages(tasks, &|a, b| target.together(graph, a, b));
    let arena = arena::place(&mut buffers, &tasks, &stages, &outputs);
    Ok(Plan { tasks, stages, buffers, outputs, layout, arena })
}

impl Plan {
    /// All tasks in order.
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// The tasks again: those of a stage may run side by side.
    pub fn stages(&self) -> impl Iterator<Item = &[Task]> {
        let starts = std::iter::once(0).chain(self.stages.iter().copied());
        starts.zip(&self.stages).map(|(start, &end)| &self.tasks[start..end])
    }

    /// Floats of all maps of an image.
    pub fn arena(&self) -> usize {
        self.arena
    }

    /// Where something is in the arena.
    pub fn offset(&self, at: At) -> usize {
        self.buffers[at.buffer].start + at.offset
    }

    /// The same for several.
    pub fn offsets(&self, at: &[At]) -> Vec<usize> {
        at.iter().map(|&at| self.offset(at)).collect()
    }

    /// Where the result of a task begins.
    pub fn output(&self, task: &Task) -> usize {
        self.buffers[task.output].start
    }

    /// Where each channel of a task's result is at position 0, in maps of `positions`.
    pub fn channels(&self, task: &Task, positions: usize) -> Vec<usize> {
        let channel = |&slot: &usize| self.output(task) + self.layout.offset(slot, positions);
        task.arrangement.slots.iter().map(channel).collect()
    }

    /// Floats of a task's result.
    pub fn floats(&self, task: &Task) -> usize {
        self.buffers[task.output].floats
    }

    /// Where each channel of every output of the graph is at position 0.
    pub fn outputs(&self) -> Vec<Vec<usize>> {
        self.outputs.iter().map(|channels| self.offsets(channels)).collect()
    }
}

impl Layout {
    /// Floats from one block of a map to the next.
    fn block(&self, positions: usize) -> usize {
        (self.lanes * positions).next_multiple_of(self.block_align)
    }

    /// Where lane `slot % lanes` of block `slot / lanes` begins.
    fn offset(&self, slot: usize, positions: usize) -> usize {
        slot / self.lanes * self.block(positions) + slot % self.lanes
    }
}

#[cfg(test)]
mod tests;
