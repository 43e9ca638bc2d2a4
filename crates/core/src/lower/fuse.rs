//! Which nodes are computed inside of another one's kernel, so that their results never meet memory.

use super::Target;
use crate::model::CheckedGraph;
use crate::model::graph::{Node, NodeId, Op};

/// Two nodes that one kernel may do; nobody outside of it reads the first.
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
    /// The depthwise half of a ghost, `concat(x, depthwise(x))`, then a 1x1 convolution of both halves.
    GhostPointwise,
    /// The depthwise half of a ghost, both halves of which are added to a 1x1 convolution.
    GhostResidual,
    /// A 1x1 convolution, then another one.
    PointwisePointwise,
    /// A 1x1 convolution whose result's halves are a gate's inputs.
    PointwiseGate,
    /// Attention that is added to a depthwise convolution.
    AttentionDepthwise,
}

impl Fusion {
    /// What it is that `reader` reads `node` in its input `index`.
    fn of(graph: &CheckedGraph, node: NodeId, reader: NodeId, index: usize) -> Option<Self> {
        let (first, second) = (&graph.nodes[node], &graph.nodes[reader]);
        let pointwise = |node: &Node| matches!(node.op, Op::Conv { kernel: 1, stride: 1, .. });
        if second.inputs[index] != node {
            return match (first.op, second.op, index) {
                (_, Op::Gate, _) if pointwise(first) => Some(Self::PointwiseGate),
                (Op::Depthwise { .. }, _, 0) if pointwise(second) => Some(Self::GhostPointwise),
                (Op::Depthwise { .. }, _, 1) if pointwise(second) => Some(Self::GhostResidual),
                _ => None,
            }
            .filter(|fusion| match fusion {
                Self::PointwiseGate => are_halves(graph, node, &second.inputs),
                _ => ghost(graph, second.inputs[index]) == Some(node),
            });
        }
        match (first.op, second.op, index) {
            (Op::Depthwise { .. }, _, 0) if pointwise(second) => Some(Self::DepthwisePointwise),
            (Op::Gate, _, 0) if pointwise(second) => Some(Self::GatePointwise),
            (_, Op::Depthwise { .. }, 0) if pointwise(first) => Some(Self::PointwiseDepthwise),
            (_, _, 0) if pointwise(first) && pointwise(second) => Some(Self::PointwisePointwise),
            (Op::Add, Op::Depthwise { .. }, 0) => Some(Self::AddDepthwise),
            (Op::Attention { .. }, Op::Depthwise { .. }, 1) => Some(Self::AttentionDepthwise),
            (Op::Upsample, Op::Add, _) => Some(Self::UpsampleAdd),
            (Op::Conv { kernel: 2.., .. }, Op::MaxPool, _) => Some(Self::ConvolutionPool),
            _ => None,
        }
    }
}

/// The depthwise convolution of a node that is `concat(x, depthwise(x))`, the depthwise one with stride 1 and nothing added.
pub fn ghost(graph: &CheckedGraph, joined: NodeId) -> Option<NodeId> {
    let Node { op: Op::Concat, inputs, .. } = &graph.nodes[joined] else { return None };
    let &[x, window] = &inputs[..] else { return None };
    let Node { op: Op::Depthwise { stride: 1, .. }, inputs, .. } = &graph.nodes[window] else { return None };
    (inputs[..] == [x] && !graph.nodes[x].op.is_view()).then_some(window)
}

/// Whether these two are the first and the second half of `node`'s channels.
fn are_halves(graph: &CheckedGraph, node: NodeId, parts: &[NodeId]) -> bool {
    let planes = parts.iter().flat_map(|&part| graph.planes(part));
    let channels = graph.nodes[node].shape.channels;
    parts.len() == 2
        && graph.nodes[parts[0]].shape.channels * 2 == channels
        && planes.map(|plane| (plane.node, plane.channel)).eq((0..channels).map(|channel| (node, channel)))
}

/// A node that reads another, and in which of its inputs; none for an output of the graph.
type Use = Option<(NodeId, usize)>;

/// Who reads each node, views looked through.
fn uses(graph: &CheckedGraph) -> Vec<Vec<Use>> {
    let mut uses: Vec<Vec<Use>> = vec![Vec::new(); graph.nodes.len()];
    let mut read = |by: Use, input: NodeId| {
        for source in sources(graph, input) {
            uses[source].push(by);
        }
    };
    for (reader, node) in graph.nodes.iter().enumerate().filter(|(_, node)| !node.op.is_view()) {
        node.inputs.iter().enumerate().for_each(|(index, &input)| read(Some((reader, index)), input));
    }
    graph.outputs().for_each(|output| read(None, output));
    uses
}

/// The nodes that hold a node's data, each once.
fn sources(graph: &CheckedGraph, node: NodeId) -> Vec<NodeId> {
    let mut sources: Vec<NodeId> = graph.planes(node).iter().map(|plane| plane.node).collect();
    sources.sort_unstable();
    sources.dedup();
    sources
}

/// For each node the one whose kernel computes it, if that is another.
pub(super) fn inside(graph: &CheckedGraph, target: &dyn Target) -> Vec<Option<NodeId>> {
    let uses = uses(graph);
    let mut inside: Vec<Option<(NodeId, Fusion)>> = vec![None; graph.nodes.len()];
    // Readers first: where a chain of them ends is then known.
    for (reader, node) in graph.nodes.iter().enumerate().rev().filter(|(_, node)| !node.op.is_view()) {
        let mut last = reader;
        while let Some((next, _)) = inside[last] {
            last = next;
        }
        let mut found: Vec<Fusion> = Vec::new();
        for (index, &input) in node.inputs.iter().enumerate() {
            for source in sources(graph, input) {
                let Some(fusion) = Fusion::of(graph, source, reader, index) else { continue };
                let readers = match (fusion, inside[reader]) {
                    (Fusion::PointwiseGate, _) => vec![Some((reader, 0)), Some((reader, 1))],
                    // The other half of a ghost.
                    (Fusion::PointwiseDepthwise, Some((product, Fusion::GhostPointwise))) => {
                        vec![Some((reader, 0)), Some((product, 0))]
                    }
                    _ => vec![Some((reader, index))],
                };
                // One of a kind: a kernel has one place for it.
                if uses[source] == readers && !found.contains(&fusion) && target.fuses(graph, fusion, last) {
                    found.push(fusion);
                    inside[source] = Some((reader, fusion));
                }
            }
        }
    }
    inside.into_iter().map(|inside| inside.map(|(reader, _)| reader)).collect()
}

/// For each node whether it is an upsampling that is never stored: all its readers take what it reads, which is stored.
pub(super) fn doubled(graph: &CheckedGraph, target: &dyn Target, inside: &[Option<NodeId>]) -> Vec<bool> {
    let mut doubled = vec![false; graph.nodes.len()];
    for (node, uses) in uses(graph).into_iter().enumerate() {
        let takes = |by: Use| by.is_some_and(|(reader, index)| target.doubles(graph, reader, index));
        doubled[node] = graph.nodes[node].op == Op::Upsample
            && inside[node].is_none()
            && !uses.is_empty()
            && uses.into_iter().all(takes)
            && !sources(graph, graph.nodes[node].inputs[0]).iter().any(|&source| doubled[source]);
    }
    doubled
}

/// The nodes that `last` is computed with: itself, then backwards.
pub(super) fn members(graph: &CheckedGraph, inside: &[Option<NodeId>], last: NodeId) -> Vec<NodeId> {
    let mut members = vec![last];
    let mut at = 0;
    while let Some(&node) = members.get(at) {
        for plane in graph.nodes[node].inputs.iter().flat_map(|&input| graph.planes(input)) {
            if inside[plane.node] == Some(node) && !members.contains(&plane.node) {
                members.push(plane.node);
            }
        }
        at += 1;
    }
    members
}
