//! Which units of earlier steps a unit waits for: those that wrote what it reads, and those that read or wrote where it writes. Nothing
//! else holds it up, so a thread goes with its strip of rows from step to step, and near its edges alone waits for a neighbour.

use super::steps::Step;
use super::touched::Touched;

/// Groups of units of one step that are told apart. A step of so many units takes milliseconds, beside which waits are short.
const MOST_GROUPS: usize = 32;

/// Units of a step that become complete together, for those that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) step: usize,
    pub(super) index: usize,
}

/// What comes before what.
pub(super) struct Order {
    /// Of each step.
    steps: Vec<Waits>,
}

struct Waits {
    /// Units in a group, but for the last.
    size: usize,
    units: usize,
    /// Of each group.
    before: Vec<Vec<Group>>,
}

impl Order {
    /// For one thread, which takes all in turn.
    pub(super) fn of_one_thread(steps: &[Step]) -> Self {
        let waits = |step: &Step| Waits { size: step.units(), units: step.units(), before: vec![Vec::new()] };
        Self { steps: steps.iter().map(waits).collect() }
    }

    /// For blocks of `block` channels. A group waits for those that no other one which it waits for waits for already.
    pub(super) fn new(steps: &[Step], block: usize) -> Self {
        Self::of_groups(steps, block, MOST_GROUPS)
    }

    /// With `most` groups a step.
    fn of_groups(steps: &[Step], block: usize, most: usize) -> Self {
        let mut order = Self { steps: Vec::with_capacity(steps.len()) };
        // Of all steps one after the other; where those of each begin.
        let (mut groups, mut firsts, mut wholes) = (Vec::<(Group, Touched)>::new(), Vec::new(), Vec::<Touched>::new());
        for (number, step) in steps.iter().enumerate() {
            let units = step.units();
            let size = units.div_ceil(most).max(1);
            firsts.push(groups.len());
            let mut whole = Touched::new(block);
            for index in 0..units.div_ceil(size) {
                let members = index * size..((index + 1) * size).min(units);
                let touched = members.map(|unit| step.touches(unit, block)).fold(Touched::new(block), Touched::and);
                let touched = touched.sorted();
                whole.reads.extend_from_slice(&touched.reads);
                whole.writes.extend_from_slice(&touched.writes);
                groups.push((Group { step: number, index }, touched));
            }
            wholes.push(whole.sorted());
            order.steps.push(Waits { size, units, before: vec![Vec::new(); units.div_ceil(size)] });
        }
        firsts.push(groups.len());
        let mut earlier: Vec<Set> = Vec::with_capacity(groups.len());
        for (Group { step, index }, touched) in &groups {
            let mut known = Set::new(groups.len());
            let before = &mut order.steps[*step].before[*index];
            for other in (0..*step).rev() {
                if (firsts[other]..firsts[other + 1]).all(|group| known.has(group))
                    || !touched.conflicts(&wholes[other])
                {
                    continue;
                }
                for group in firsts[other]..firsts[other + 1] {
                    if !known.has(group) && touched.conflicts(&groups[group].1) {
                        before.push(groups[group].0);
                        known.add_all(&earlier[group]);
                        known.add(group);
                    }
                }
            }
            earlier.push(known);
        }
        order
    }

    /// The groups that must be complete before a unit begins.
    pub(super) fn before(&self, step: usize, unit: usize) -> &[Group] {
        let waits = &self.steps[step];
        &waits.before[unit / waits.size]
    }

    /// The group that a unit belongs to.
    pub(super) fn group(&self, step: usize, unit: usize) -> Group {
        Group { step, index: unit / self.steps[step].size }
    }

    /// Of a step.
    pub(super) fn groups(&self, step: usize) -> usize {
        self.steps[step].before.len()
    }

    /// Of all steps.
    pub(super) fn all(&self) -> impl Iterator<Item = Group> {
        let steps = self.steps.iter().enumerate();
        steps.flat_map(|(step, waits)| (0..waits.before.len()).map(move |index| Group { step, index }))
    }

    /// Units that belong to a group.
    pub(super) fn members(&self, Group { step, index }: Group) -> usize {
        let Waits { size, units, .. } = self.steps[step];
        size.min(units - index * size)
    }
}

/// Some of the numbers below a limit.
struct Set(Vec<u64>);

impl Set {
    fn new(limit: usize) -> Self {
        Self(vec![0; limit.div_ceil(64)])
    }

    fn has(&self, number: usize) -> bool {
        self.0[number / 64] >> (number % 64) & 1 == 1
    }

    fn add(&mut self, number: usize) {
        self.0[number / 64] |= 1 << (number % 64);
    }

    fn add_all(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word |= other);
    }
}

#[cfg(test)]
mod tests {
    use super::super::compile::Program;
    use super::super::memory::{Aligned, Memory};
    use super::*;
    use yolo_lat_core::model::graph::{Activation, Graph, Mixing, NodeId, Op, Shape};
    use yolo_lat_core::model::{Model, Network, Precision, Tensor, Weights, config::KernelKind, graph::Mask};
    use yolo_lat_simd::InstructionSet;

    /// A value in -1..1.
    fn noise(seed: &mut u32) -> f32 {
        *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (*seed >> 8) as f32 / 8_388_608.0 - 1.0
    }

    /// What the models leave out, of widths that fill no block.
    fn everything_else() -> Network {
        let mut graph = Graph::new("all", Shape { channels: 3, height: 24, width: 40 });
        let pointwise = |channels| Op::Conv { channels, kernel: 1, stride: 1, activation: Activation::LeakyRelu(0.1) };
        let add =
            |graph: &mut Graph, op: Op, inputs: &[NodeId]| graph.add(format!("{}", graph.nodes.len()), op, inputs);
        // Of planes, which are packed.
        let first = add(&mut graph, pointwise(45), &[0]);
        let attention = Op::Attention { mixing: Mixing::Linear(KernelKind::HadamardExp), heads: 3, mask: Mask::Full };
        let mixed = add(&mut graph, attention, &[first]);
        let softmax = Op::Attention { mixing: Mixing::Softmax, heads: 1, mask: Mask::Full };
        let mixed = {
            let wide = add(&mut graph, pointwise(45), &[mixed]);
            add(&mut graph, softmax, &[wide])
        };
        let gates = add(&mut graph, Op::Route { active: 2, equal: false }, &[mixed]);
        let wide = add(&mut graph, pointwise(30), &[mixed]);
        let scaled = add(&mut graph, Op::Scale, &[wide, gates]);
        let window = Op::Conv { channels: 21, kernel: 3, stride: 2, activation: Activation::Identity };
        let window = add(&mut graph, window, &[scaled]);
        let pooled = add(&mut graph, Op::MaxPool, &[scaled]);
        let joined = add(&mut graph, Op::Concat, &[window, pooled]);
        let shuffled = add(&mut graph, Op::Shuffle { groups: 3 }, &[joined]);
        let every = add(&mut graph, Op::Slice { start: 1, step: 2, count: 20 }, &[shuffled]);
        let depthwise = Op::Depthwise { kernel: 5, stride: 1, bias: true, activation: Activation::LeakyRelu(0.0) };
        let depthwise = add(&mut graph, depthwise, &[every, every]);
        let gate = add(&mut graph, Op::Gate, &[depthwise, every]);
        let fine = add(&mut graph, Op::Upsample, &[gate]);
        let narrow = add(&mut graph, pointwise(20), &[scaled]);
        let sum = add(&mut graph, Op::Add, &[fine, narrow]);
        let halved = add(
            &mut graph,
            Op::Depthwise { kernel: 3, stride: 2, bias: false, activation: Activation::Identity },
            &[sum],
        );
        let up = add(&mut graph, Op::Upsample, &[halved]);
        graph.taps.extend([sum, up]);
        let graph = graph.check().unwrap();
        let (mut weights, mut seed) = (Weights::default(), 1);
        for spec in graph.weights() {
            let values = (0..spec.shape.iter().product()).map(|_| noise(&mut seed) / 4.0).collect();
            weights.insert(spec.name, Tensor { shape: spec.shape, values });
        }
        graph.with(weights).unwrap()
    }

    fn networks() -> Vec<Network> {
        let of = |name, precision: Precision, width, height| {
            Model::load(name).unwrap().in_precision(precision).unwrap().network(width, height).unwrap()
        };
        vec![
            of("n", Precision::F32, 160, 128),
            of("n", Precision::Int8, 224, 96),
            of("s", Precision::Int8, 96, 160),
            everything_else(),
        ]
    }

    /// A program with what it needs to run.
    struct Run {
        program: Program,
        set: InstructionSet,
        image: Vec<f32>,
        scratch: Aligned,
    }

    impl Run {
        fn new(network: &Network, set: InstructionSet) -> Self {
            let program = Program::new(network, set).unwrap();
            let (mut scratch, mut seed) = (Aligned::default(), 7);
            scratch.resize(program.steps.iter().map(Step::scratch).max().unwrap());
            let image = (0..network.input().values()).map(|_| noise(&mut seed)).collect();
            Self { program, set, image, scratch }
        }

        fn arena(&self) -> Aligned {
            let mut arena = Aligned::default();
            arena.resize(self.program.arena);
            arena
        }

        fn unit(&mut self, step: usize, unit: usize, arena: &mut Aligned) {
            let memory = Memory { arena: arena.as_mut_ptr(), image: self.image.as_ptr() };
            // SAFETY: all of it belongs to the program; there is one thread.
            unsafe { self.program.steps[step].run(self.set, unit, memory, self.scratch.as_mut_ptr()) };
        }

        /// Each step and its units, in order.
        fn units(&self) -> Vec<(usize, usize)> {
            let steps = self.program.steps.iter().enumerate();
            steps.flat_map(|(number, step)| (0..step.units()).map(move |unit| (number, unit))).collect()
        }

        /// The bits of what the outputs are.
        fn outputs(&self, network: &Network, arena: &Aligned) -> Vec<Vec<u32>> {
            let positions = network.outputs().map(|output| network.nodes[output].shape.positions());
            let outputs = self.program.outputs.iter().zip(positions);
            let of = |(channels, positions): (&Vec<usize>, usize)| -> Vec<u32> {
                let places = channels.iter().flat_map(|at| (0..positions).map(move |p| at + self.set.block() * p));
                places.map(|at| bits(arena, self.program.arena)[at]).collect()
            };
            outputs.map(of).collect()
        }
    }

    fn bits(arena: &Aligned, floats: usize) -> &[u32] {
        // SAFETY: it has so many, and every bit pattern is a number.
        unsafe { std::slice::from_raw_parts(arena.as_ptr().cast(), floats) }
    }

    fn floats(arena: &mut Aligned, floats: usize) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(arena.as_mut_ptr(), floats) }
    }

    #[test]
    fn a_unit_reads_and_writes_nothing_but_what_it_says() {
        for (network, set) in
            networks().iter().flat_map(|network| InstructionSet::available().into_iter().map(move |set| (network, set)))
        {
            let mut run = Run::new(network, set);
            let (mut arena, count) = (run.arena(), run.program.arena);
            for (step, unit) in run.units() {
                let touched = run.program.steps[step].touches(unit, set.block()).sorted();
                let (mut poisoned, before) = (arena.clone(), arena.clone());
                let [mut is_touched, mut is_written] = [vec![false; count], vec![false; count]];
                touched.reads.iter().chain(&touched.writes).for_each(|range| is_touched[range.clone()].fill(true));
                touched.writes.iter().for_each(|range| is_written[range.clone()].fill(true));
                for (value, _) in floats(&mut poisoned, count).iter_mut().zip(&is_touched).filter(|(_, is)| !**is) {
                    *value = f32::NAN;
                }
                run.unit(step, unit, &mut arena);
                // Nor does it find anything in scratch.
                let scratch = run.program.steps[step].scratch();
                floats(&mut run.scratch, scratch).fill(f32::NAN);
                run.unit(step, unit, &mut poisoned);
                let (is, was, alone) = (bits(&arena, count), bits(&before, count), bits(&poisoned, count));
                for at in 0..count {
                    if is_written[at] {
                        assert_eq!(is[at], alone[at], "{set}: step {step}, unit {unit} reads more: float {at}");
                    } else {
                        assert_eq!(is[at], was[at], "{set}: step {step}, unit {unit} writes more: float {at}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_order_that_waits_gives_the_same_bits() {
        // Of each unit alone, and of three groups a step, as large maps have many units in one.
        for (network, most) in networks().iter().flat_map(|network| [(network, MOST_GROUPS), (network, 3)]) {
            let mut run = Run::new(network, InstructionSet::best());
            let order = Order::of_groups(&run.program.steps, run.set.block(), most);
            let (units, mut arena) = (run.units(), run.arena());
            units.iter().for_each(|&(step, unit)| run.unit(step, unit, &mut arena));
            let expected = run.outputs(network, &arena);
            let mut seed = 3;
            for round in 0..12 {
                let mut left: Vec<Vec<usize>> = (0..run.program.steps.len())
                    .map(|step| (0..order.groups(step)).map(|index| order.members(Group { step, index })).collect())
                    .collect();
                let (mut waiting, mut arena, mut ahead) = (units.clone(), run.arena(), 0);
                while !waiting.is_empty() {
                    let is_ready = |&(step, unit): &(usize, usize)| {
                        order.before(step, unit).iter().all(|group| left[group.step][group.index] == 0)
                    };
                    let ready: Vec<usize> = (0..waiting.len()).filter(|&at| is_ready(&waiting[at])).collect();
                    // As far ahead as possible, as far behind as possible, or any.
                    let chosen = match round {
                        0 => ready.len() - 1,
                        1 => 0,
                        _ => ((noise(&mut seed) + 1.0) / 2.0 * ready.len() as f32) as usize,
                    };
                    let (step, unit) = waiting.remove(ready[chosen.min(ready.len() - 1)]);
                    ahead += usize::from(waiting.first().is_some_and(|first| first.0 < step));
                    run.unit(step, unit, &mut arena);
                    left[step][order.group(step, unit).index] -= 1;
                }
                assert!(run.outputs(network, &arena) == expected, "round {round}");
                assert!(
                    round != 0 || ahead > units.len() / 10,
                    "{ahead} of {} ahead: steps still wait whole",
                    units.len()
                );
            }
        }
    }

    #[test]
    fn who_waits_for_a_unit_waits_for_what_it_waited_for() {
        let network = &networks()[0];
        let program = Program::new(network, InstructionSet::Plain).unwrap();
        let order = Order::new(&program.steps, InstructionSet::Plain.block());
        let touched: Vec<Vec<Touched>> = program
            .steps
            .iter()
            .map(|step| {
                (0..step.units()).map(|unit| step.touches(unit, InstructionSet::Plain.block()).sorted()).collect()
            })
            .collect();
        // All that comes before a unit, found by walking back.
        let all_before = |step: usize, unit: usize| {
            let (mut found, mut queue) = (std::collections::HashSet::new(), vec![order.group(step, unit)]);
            while let Some(Group { step, index }) = queue.pop() {
                for &group in &order.steps[step].before[index] {
                    if found.insert((group.step, group.index)) {
                        queue.push(group);
                    }
                }
            }
            found
        };
        let mut conflicts = 0;
        for step in 0..program.steps.len() {
            for unit in 0..touched[step].len() {
                let before = all_before(step, unit);
                for (other, units) in touched.iter().enumerate().take(step) {
                    for (number, unit_before) in units.iter().enumerate() {
                        let group = order.group(other, number);
                        if touched[step][unit].conflicts(unit_before) {
                            conflicts += 1;
                            assert!(
                                before.contains(&(group.step, group.index)),
                                "{step}.{unit} after {other}.{number}"
                            );
                        }
                    }
                }
                let waits = order.before(step, unit);
                let is_needed = |group: &Group| {
                    let others = waits.iter().filter(|other| *other != group);
                    !others.into_iter().any(|other| {
                        other.step > group.step
                            && all_before(other.step, other.index * order.steps[other.step].size)
                                .contains(&(group.step, group.index))
                    })
                };
                assert!(waits.iter().all(is_needed), "{step}.{unit} waits twice");
            }
        }
        assert!(conflicts > 1000, "{conflicts}");
    }
}
