//! Turns the tasks of a plan into steps: kernels with their operands, weights in the order that the plan gives the channels.
//! Done once; frames only replay them.

use super::attention::Attention;
use super::elementwise::{Gate, Gather, Pack, Route, Scale, Sum, Upsample};
use super::integers::{IntegerPointwise, PackedIntegers};
use super::memory::Aligned;
use super::product::{Convolution, Destination, Packed, Pointwise};
use super::steps::Step;
use super::window::Window;
use super::windows::{Depthwise, MaxPool};
use yolo_lat_core::engine::Unsupported;
use yolo_lat_core::lower::{Fusion, Layout, Operand, Pass, Plan, Target, Task, lower};
use yolo_lat_core::model::graph::{Mask, Node, NodeId, Op, Shape};
use yolo_lat_core::model::{CheckedGraph, Network};
use yolo_lat_simd::InstructionSet;

/// Steps in order of execution, and the memory they need.
pub(super) struct Program {
    pub(super) steps: Vec<Step>,
    /// Of each step, the node whose result it writes, then those that it computes on the way.
    pub(super) nodes: Vec<Vec<NodeId>>,
    /// Floats in the arena.
    pub(super) arena: usize,
    /// Where the channels of each output of the graph lie at position 0.
    pub(super) outputs: Vec<Vec<usize>>,
}

impl Program {
    pub(super) fn new(network: &Network, set: InstructionSet) -> Result<Self, Unsupported> {
        let plan = lower(network, &Kernels(set))?;
        let compiler = Compiler { network, plan: &plan, set };
        Ok(Self {
            steps: plan.tasks().iter().map(|task| compiler.step(task)).collect(),
            nodes: plan.tasks().iter().map(|task| task.nodes.clone()).collect(),
            arena: plan.arena(),
            outputs: plan.outputs(),
        })
    }
}

/// What there are kernels for.
struct Kernels(InstructionSet);

impl Target for Kernels {
    fn supports(&self, graph: &CheckedGraph, node: NodeId) -> Result<(), Unsupported> {
        let node = &graph.nodes[node];
        match node.op {
            Op::Attention { mask: Mask::Causal, .. } => Err(Unsupported::new(
                "cpu",
                node,
                "it has no kernel for a causal mask; the reference engine computes it",
            )),
            _ => Ok(()),
        }
    }

    fn layout(&self) -> Layout {
        // Maps are whole cache lines.
        Layout { lanes: self.0.block(), block_align: 1, map_align: 16 }
    }

    /// The full resolution of what is pooled then never leaves the cache.
    fn fuses(&self, graph: &CheckedGraph, fusion: Fusion, last: NodeId) -> bool {
        match fusion {
            Fusion::UpsampleAdd => true,
            Fusion::ConvolutionPool => graph.nodes[graph.nodes[last].inputs[0]].inputs.len() == 1,
            _ => false,
        }
    }

    /// Only a convolution with a window reads planes.
    fn reads_image(&self, graph: &CheckedGraph, reader: NodeId) -> bool {
        let reader = &graph.nodes[reader];
        matches!(reader.op, Op::Conv { kernel: 2.., .. }) && reader.inputs == [0]
    }
}

struct Compiler<'a> {
    network: &'a Network,
    plan: &'a Plan,
    set: InstructionSet,
}

impl Compiler<'_> {
    fn step(&self, task: &Task) -> Step {
        let id = task.nodes[0];
        let node = &self.network.nodes[id];
        let (output, positions) = (self.plan.output(task), node.shape.positions());
        let operand = |index| self.offsets(task.operand(id, index));
        let second = || task.operand(id, 1).map(|_| operand(1));
        match (&task.pass, node.op) {
            (Pass::Copy { lanes, positions }, _) => {
                let lanes = lanes.iter().map(|at| at.map(|at| self.plan.offset(at))).collect();
                Step::Gather(Gather { lanes, output, positions: *positions, block: self.set.block() })
            }
            // Views are no tasks; what is left is the image that could not be read in place.
            (_, Op::Input(_) | Op::Slice { .. } | Op::Concat | Op::Shuffle { .. }) => {
                Step::Pack(Pack { channels: node.shape.channels, output, positions })
            }
            (_, Op::Conv { kernel: 1, stride: 1, activation, .. }) => {
                let (packed, inputs, residual) = (self.packed(task, node), operand(0), second());
                Step::Pointwise(Pointwise { packed, inputs, output, positions, activation, residual })
            }
            (_, Op::IntegerConv { activation, .. }) => {
                let (slots, blocks) = (&task.arrangement.slots, task.arrangement.blocks);
                let integers = self.network.integers(node);
                let packed = PackedIntegers::new(&integers, &operand(0), slots, blocks, self.set);
                let residual = second();
                Step::IntegerPointwise(IntegerPointwise { packed, output, positions, activation, residual })
            }
            (_, Op::Conv { .. }) => self.convolution(task, id),
            (_, Op::Depthwise { kernel, stride, activation, .. }) => {
                let (weights, bias) = self.network.filter(node);
                let (weights, bias) = (self.by_lane(task, &weights), self.by_lane(task, &bias));
                let (inputs, residual, window) = (operand(0), second(), self.window(node, kernel, stride));
                Step::Depthwise(Depthwise { weights, bias, inputs, output, window, activation, residual })
            }
            (_, Op::MaxPool) => match task.nodes.get(1) {
                Some(&convolution) => self.convolution(task, convolution),
                None => Step::MaxPool(MaxPool { inputs: operand(0), output, window: self.window(node, 3, 2) }),
            },
            (_, Op::Attention { mixing, heads, .. }) => {
                // Channels in the order of the heads.
                let block = self.set.block();
                let place = |channel: usize| output + channel / block * block * positions + channel % block;
                let outputs = (0..node.shape.channels).map(place).collect();
                Step::Attention(Attention { mixing, heads, inputs: operand(0), outputs, tokens: positions })
            }
            (_, Op::Gate) => Step::Gate(Gate { u: operand(0), g: operand(1), output, positions }),
            (_, Op::Add) => {
                let (height, width) = (node.shape.height, node.shape.width);
                let (a, b) = match task.nodes.get(1) {
                    // Whichever term is not upsampled here.
                    Some(&half) => {
                        (self.offsets(task.operand(id, 0).or(task.operand(id, 1))), self.offsets(task.operand(half, 0)))
                    }
                    None => (operand(0), operand(1)),
                };
                Step::Sum(Sum { a, b, b_is_half: task.nodes.len() > 1, output, height, width })
            }
            (_, Op::Route { active, equal }) => {
                Step::Route(Route { scores: operand(0), output, positions, active, equal })
            }
            (_, Op::Scale) => {
                let factors = self.factors(task, node.shape.channels, &operand(1));
                Step::Scale(Scale { inputs: operand(0), factors, output, positions })
            }
            (_, Op::Upsample) => {
                let input = self.network.input_shape(node);
                Step::Upsample(Upsample { inputs: operand(0), output, height: input.height, width: input.width })
            }
        }
    }

    /// The dense convolution `id`, and the pooling of it where that is the task's result.
    fn convolution(&self, task: &Task, id: NodeId) -> Step {
        let node = &self.network.nodes[id];
        let Op::Conv { kernel, stride, activation, .. } = node.op else { unreachable!("asked for convolutions only") };
        let window = self.window(node, kernel, stride);
        let pooled = (task.nodes[0] != id).then(|| &self.network.nodes[task.nodes[0]]);
        let (pool, channels) =
            (pooled.map(|pooled| self.window(pooled, 3, 2)), self.network.input_shape(node).channels);
        let result = Destination {
            output: self.plan.output(task),
            activation,
            residual: task.operand(id, 1).map(|residual| self.plan.offsets(&residual.at)),
        };
        let inputs = self.offsets(task.operand(id, 0));
        Step::Convolution(Convolution::new(self.packed(task, node), inputs, channels, window, pool, result))
    }

    /// Where an operand's channels or blocks lie at position 0.
    fn offsets(&self, operand: Option<&Operand>) -> Vec<usize> {
        operand.map(|operand| self.plan.offsets(&operand.at)).unwrap_or_default()
    }

    fn window(&self, node: &Node, kernel: usize, stride: usize) -> Window {
        let input = self.network.input_shape(node);
        let Shape { height: output_height, width: output_width, .. } = node.shape;
        Window { height: input.height, width: input.width, kernel, stride, output_height, output_width }
    }

    /// For each lane of a task's result, where the factor of its channel is; lanes without a channel have the first.
    fn factors(&self, task: &Task, channels: usize, factors: &[usize]) -> Vec<usize> {
        let each = channels / factors.len();
        let mut lanes = vec![factors[0]; task.arrangement.blocks * self.set.block()];
        for (channel, &slot) in task.arrangement.slots.iter().enumerate() {
            lanes[slot] = factors[channel / each];
        }
        lanes
    }

    fn packed(&self, task: &Task, node: &Node) -> Packed {
        let (weights, bias) = self.network.filter(node);
        let (slots, blocks) = (&task.arrangement.slots, task.arrangement.blocks);
        Packed::new(&weights, &bias, slots, blocks, self.set)
    }

    /// Values (channels, count) as `[block][count][lane]`.
    fn by_lane(&self, task: &Task, values: &[f32]) -> Aligned {
        let (block, slots) = (self.set.block(), &task.arrangement.slots);
        let count = values.len() / slots.len();
        let mut result = vec![0.0; task.arrangement.blocks * count * block];
        for (values, &slot) in values.chunks_exact(count).zip(slots) {
            for (index, &value) in values.iter().enumerate() {
                result[(slot / block * count + index) * block + slot % block] = value;
            }
        }
        result.into()
    }
}
