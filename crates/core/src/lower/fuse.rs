//! Which nodes are computed inside of another one's kernel, so that their results never meet memory.

use super::Target;
use crate::model::CheckedGraph;
use crate::model::graph::{Node, NodeId, Op};

/// Two nodes that one kernel may do; nobody else reads the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fusion {
    /// A depthwise convolution, then a 1x1 convolution.
    DepthwisePointwise,
    /// A gate, then a 1x1 convolution.
    GatePointwise,
    /// A 1x1 convolution, then a depthwise one.
    PointwiseDepthwise,
    /// A sum, then a depthwise convolution.
    AddDepthwise,
    /// An upsampling that is a term of a sum.
    UpsampleAdd,
    /// A convolution with a window, then the pooling of it.
    ConvolutionPool,
}

impl Fusion {
    /// What it is that `reader` reads `node` as input `index`.
    fn of(node: &Node, reader: &Node, index: usize) -> Option<Self> {
        let pointwise = |node: &Node| matches!(node.op, Op::Conv { kernel: 1, stride: 1, .. });
        match (node.op, reader.op, index) {
            (Op::Depthwise { .. }, _, 0) if pointwise(reader) => Some(Self::DepthwisePointwise),
            (Op::Gate, _, 0) if pointwise(reader) => Some(Self::GatePointwise),
            (_, Op::Depthwise { .. }, 0) if pointwise(node) => Some(Self::PointwiseDepthwise),
            (Op::Add, Op::Depthwise { .. }, 0) => Some(Self::AddDepthwise),
            (Op::Upsample, Op::Add, _) => Some(Self::UpsampleAdd),
            (Op::Conv { kernel: 2.., .. }, Op::MaxPool, _) => Some(Self::ConvolutionPool),
            _ => None,
        }
    }
}

/// For each node the one whose kernel computes it, if that is another.
pub(super) fn inside(graph: &CheckedGraph, target: &dyn Target) -> Vec<Option<NodeId>> {
    let mut uses = vec![0; graph.nodes.len()];
    let reads = graph.nodes.iter().flat_map(|node| node.inputs.iter().copied());
    reads.chain(graph.outputs()).for_each(|node| uses[node] += 1);
    let mut inside = vec![None; graph.nodes.len()];
    // Readers first: where a chain of them ends is then known.
    for (reader, node) in graph.nodes.iter().enumerate().rev() {
        let mut last = reader;
        while let Some(next) = inside[last] {
            last = next;
        }
        let fits = |&(index, &input): &(usize, &NodeId)| {
            uses[input] == 1
                && Fusion::of(&graph.nodes[input], node, index).is_some_and(|fusion| target.fuses(graph, fusion, last))
        };
        if let Some((_, &input)) = node.inputs.iter().enumerate().find(fits) {
            inside[input] = Some(reader);
        }
    }
    inside
}

/// The nodes that `last` is computed with: itself, then backwards.
pub(super) fn members(graph: &CheckedGraph, inside: &[Option<NodeId>], last: NodeId) -> Vec<NodeId> {
    let mut members = vec![last];
    let mut at = 0;
    while let Some(&node) = members.get(at) {
        members.extend(graph.nodes[node].inputs.iter().filter(|&&input| inside[input] == Some(node)));
        at += 1;
    }
    members
}
