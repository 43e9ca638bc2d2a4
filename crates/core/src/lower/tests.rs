use std::collections::HashMap;

use arbtest::arbitrary::{Result, Unstructured};
use arbtest::arbtest;

use super::*;
use crate::model::graph::{Activation, Mask, Mixing, Node, Op, Shape};
use crate::model::{Graph, Model};

/// An engine that has kernels for whatever is asked, with maps of so many lanes.
struct Toy {
    lanes: usize,
    side_by_side: bool,
}

impl Target for Toy {
    fn supports(&self, _: &CheckedGraph, _: NodeId) -> std::result::Result<(), Unsupported> {
        Ok(())
    }

    fn layout(&self) -> Layout {
        Layout { lanes: self.lanes, block_align: 4, map_align: 16 }
    }

    fn fuses(&self, _: &CheckedGraph, fusion: Fusion, _: NodeId) -> bool {
        self.lanes == 1 || matches!(fusion, Fusion::UpsampleAdd | Fusion::ConvolutionPool)
    }

    fn doubles(&self, graph: &CheckedGraph, reader: NodeId, index: usize) -> bool {
        self.lanes == 1 && index == 0 && matches!(graph.nodes[reader].op, Op::Conv { .. } | Op::Depthwise { .. })
    }

    fn reads_image(&self, graph: &CheckedGraph, reader: NodeId) -> bool {
        self.lanes > 1 && matches!(graph.nodes[reader].op, Op::Conv { .. }) && graph.nodes[reader].inputs == [0]
    }

    fn state(&self, graph: &CheckedGraph, node: NodeId) -> usize {
        if matches!(graph.nodes[node].op, Op::Attention { .. }) && self.lanes == 1 { 7 } else { 0 }
    }

    fn together(&self, graph: &CheckedGraph, a: &Task, b: &Task) -> bool {
        self.side_by_side && graph.nodes[a.nodes[0]].op.label() == graph.nodes[b.nodes[0]].op.label()
    }
}

/// What a float of the arena holds: a node's channel at a position.
type Memory = HashMap<usize, (NodeId, usize, usize)>;

/// Plays a plan with the names of values in place of values: everything that is read must be what is meant, even if all tasks
/// of a stage have written before the first one reads. How many channels are read at half the resolution.
fn verify(graph: &CheckedGraph, target: &Toy) -> usize {
    let plan = lower(graph, target).unwrap();
    let (layout, mut memory, mut computed) = (target.layout(), Memory::new(), Vec::new());
    let mut doubled = 0;
    let holds = |memory: &Memory, at: usize, doubled: bool, node: NodeId, channel: usize| {
        let mut plane = graph.planes(node)[channel];
        if doubled {
            let Node { op: Op::Upsample, inputs, .. } = &graph.nodes[plane.node] else { panic!("{plane:?}") };
            plane = graph.planes(inputs[0])[plane.channel];
        }
        let positions = graph.nodes[plane.node].shape.positions();
        for position in [0, positions - 1] {
            let found = memory.get(&(at + position * layout.lanes));
            assert_eq!(found, Some(&(plane.node, plane.channel, position)), "{:?}", graph.nodes[node]);
        }
    };
    for stage in plan.stages() {
        let before = memory.clone();
        for task in stage {
            let (start, floats) = (plan.output(task), plan.floats(task));
            assert!(start + floats <= plan.arena() && start.is_multiple_of(layout.map_align));
            memory.retain(|at, _| !(start..start + floats).contains(at));
        }
        for task in stage {
            let id = task.nodes[0];
            let positions = match task.pass {
                Pass::Copy { positions, .. } => positions,
                _ => graph.nodes[id].shape.positions(),
            };
            for (channel, at) in plan.channels(task, positions).into_iter().enumerate() {
                let end = at + (positions - 1) * layout.lanes;
                assert!((plan.output(task)..plan.output(task) + plan.floats(task)).contains(&end));
                for position in [0, positions - 1] {
                    let value = match &task.pass {
                        Pass::Copy { lanes, .. } => {
                            let from = plan.offset(lanes[task.arrangement.slots[channel]].unwrap());
                            before[&(from + position * layout.lanes)]
                        }
                        _ => (id, channel, position),
                    };
                    memory.insert(at + position * layout.lanes, value);
                }
            }
        }
        for task in stage {
            // Other than states.
            for operand in task.operands.iter().filter(|operand| operand.node != operand.input.0) {
                let planes = graph.planes(operand.node).into_iter().enumerate();
                let stored: Vec<usize> =
                    planes.filter(|(_, plane)| !task.nodes.contains(&plane.node)).map(|(channel, _)| channel).collect();
                for (index, &channel) in stored.iter().enumerate().filter(|_| !operand.at.is_empty()) {
                    let (at, lane) = if layout.lanes == 1 || !is_vector(graph, operand) {
                        assert_eq!(operand.at.len(), stored.len());
                        (operand.at[index], 0)
                    } else {
                        let slot = task.arrangement.slots[channel];
                        (operand.at[slot / layout.lanes], slot % layout.lanes)
                    };
                    doubled += usize::from(at.doubled);
                    holds(&before, plan.offset(at) + lane, at.doubled, operand.node, channel);
                    holds(&memory, plan.offset(at) + lane, at.doubled, operand.node, channel);
                }
            }
            if !matches!(task.pass, Pass::Copy { .. } | Pass::First) {
                computed.extend(task.nodes.iter().copied());
            }
        }
    }
    for (output, channels) in graph.outputs().zip(plan.outputs()) {
        channels.into_iter().enumerate().for_each(|(channel, at)| holds(&memory, at, false, output, channel));
    }
    computed.sort_unstable();
    // Upsamplings may be left to their readers, which then found what is upsampled.
    let left_out =
        |node: &NodeId| graph.nodes[*node].op == Op::Upsample && !computed.contains(node) && layout.lanes == 1;
    let owners = (0..graph.nodes.len()).filter(|node| !graph.nodes[*node].op.is_view() && !left_out(node));
    let first = usize::from(computed.first() != Some(&0));
    assert_eq!(computed, owners.skip(first).collect::<Vec<_>>(), "every node once, but the image where it stays");
    doubled
}

fn is_vector(graph: &CheckedGraph, operand: &Operand) -> bool {
    match graph.nodes[operand.input.0].op {
        Op::Conv { .. } => operand.input.1 > 0,
        Op::Scale => operand.input.1 == 0,
        Op::Attention { .. } | Op::Route { .. } => false,
        _ => true,
    }
}

/// Nodes of any kind that read any before them.
fn any_graph(u: &mut Unstructured) -> Result<CheckedGraph> {
    let mut graph = Graph::new("any", Shape { channels: u.int_in_range(1..=12)?, height: 3, width: 2 });
    for index in 0..u.int_in_range(1..=14)? {
        let first = u.int_in_range(0..=graph.nodes.len() - 1)?;
        let shape = graph.nodes[first].shape;
        let twins: Vec<NodeId> = (0..graph.nodes.len()).filter(|&node| graph.nodes[node].shape == shape).collect();
        let pair = [first, *u.choose(&twins)?];
        let (channels, activation) = (u.int_in_range(1..=20)?, Activation::Identity);
        let (start, step) = (u.int_in_range(0..=shape.channels - 1)?, u.int_in_range(1..=3)?);
        let count = u.int_in_range(1..=(shape.channels - start).div_ceil(step))?;
        let (op, inputs) = match u.int_in_range(0..=14)? {
            0 | 1 => (Op::Conv { channels, kernel: 1, stride: 1, activation }, 1),
            2 => (Op::Conv { channels, kernel: 3, stride: u.int_in_range(1..=2)?, activation }, 1),
            3 => (Op::Conv { channels: shape.channels, kernel: *u.choose(&[1, 3])?, stride: 1, activation }, 2),
            4 => (Op::Depthwise { kernel: 3, stride: 1, bias: true, activation }, u.int_in_range(1..=2)?),
            5 => (Op::Gate, 2),
            6 => (Op::Add, 2),
            7 => (Op::Concat, 2),
            8 => (Op::Upsample, 1),
            9 => (Op::MaxPool, 1),
            10 => (Op::Shuffle { groups: if shape.channels.is_multiple_of(2) { 2 } else { 1 } }, 1),
            11 if shape.channels.is_multiple_of(3) => {
                (Op::Attention { mixing: Mixing::Softmax, heads: 1, mask: Mask::Full }, 1)
            }
            12 => (Op::Scale, 2),
            13 => (Op::Route { active: 1, equal: false }, 1),
            _ => (Op::Slice { start, step, count }, 1),
        };
        graph.add(index.to_string(), op, &pair[..inputs]);
    }
    graph.taps.push(graph.nodes.len() - 1);
    graph.taps.push(u.int_in_range(0..=graph.nodes.len() - 1)?);
    Ok(graph.check().unwrap())
}

const TOYS: [Toy; 4] = [
    Toy { lanes: 1, side_by_side: true },
    Toy { lanes: 1, side_by_side: false },
    Toy { lanes: 4, side_by_side: false },
    Toy { lanes: 8, side_by_side: true },
];

#[test]
fn plans_read_what_is_meant_and_stay_inside_the_arena() {
    for (name, width, height) in [("n", 64, 96), ("s", 32, 32)] {
        let graph = Model::load(name).unwrap().graph(width, height).unwrap();
        for toy in &TOYS {
            assert_eq!(
                verify(&graph, toy) > 0,
                toy.lanes == 1,
                "both pyramids are read without storing what is upsampled"
            );
        }
    }
    let (mut copies, mut doubled) = (0, 0);
    arbtest(|u| {
        let graph = any_graph(u)?;
        for toy in &TOYS {
            doubled += verify(&graph, toy);
            let plan = lower(&graph, toy).unwrap();
            copies += plan.tasks().iter().filter(|task| matches!(task.pass, Pass::Copy { .. })).count();
        }
        Ok(())
    })
    .budget_ms(5_000);
    assert!(copies > 0 && doubled > 0, "no plan had to copy or to double anything: the search is too narrow");
}
