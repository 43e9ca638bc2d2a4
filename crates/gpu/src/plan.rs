//! Turns a graph into dispatches: which kernel, over how many workgroups, on which planes of the arena. Plain data,
//! made without a GPU; a session replays it for every frame.

use std::collections::HashMap;

use yolo_lat_core::engine::allocator::Allocator;
use yolo_lat_core::model::Graph;
use yolo_lat_core::model::config::{AttentionKind, KernelKind};
use yolo_lat_core::model::graph::{Activation, Node, NodeId, Op, Plane, Shape};
use yolo_lat_shaders::{Kernel, UNIT_TILES};

/// No list or weight.
const NONE: u32 = u32::MAX;
/// Outputs and positions of a workgroup in a product.
const PRODUCT: (usize, usize) = (64, 32);
/// Threads of the other kernels.
const THREADS: usize = 64;
/// Keys of a chunk at least, and chunks at most.
const CHUNK: usize = 256;
const CHUNKS: usize = 16;
/// What fits the unit kernel's workgroup memory: channels times positions with their halo, and without.
const UNIT_MEMORY: (usize, usize) = (2400, 1536);
/// Channels of an attention head that fit the kernels' workgroup memory.
pub(crate) const WIDEST_HEAD: usize = 32;

/// Parameters of one operation, as `Job` in shared/network.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Job {
    pub(crate) first_group: u32,
    pub(crate) inputs: u32,
    pub(crate) second: u32,
    pub(crate) residual: u32,
    pub(crate) outputs: u32,
    pub(crate) in_channels: u32,
    pub(crate) out_channels: u32,
    pub(crate) in_width: u32,
    pub(crate) in_height: u32,
    pub(crate) out_width: u32,
    pub(crate) out_height: u32,
    pub(crate) weight: u32,
    pub(crate) bias: u32,
    pub(crate) window_weight: u32,
    pub(crate) window_bias: u32,
    pub(crate) window_residual: u32,
    pub(crate) slope: f32,
    pub(crate) window_slope: f32,
    pub(crate) second_shift: u32,
    pub(crate) parts: u32,
    pub(crate) chunks: u32,
    pub(crate) scale: f32,
    pub(crate) stride: f32,
    pub(crate) first_weight: u32,
    pub(crate) first_bias: u32,
    pub(crate) first_slope: f32,
}

/// Values of `override` constants: they decide which pipeline runs.
pub(crate) type Constants = Vec<(&'static str, u32)>;

/// One dispatch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) kernel: Kernel,
    pub(crate) constants: Constants,
    /// Range of its jobs in [`Plan::jobs`].
    pub(crate) jobs: std::ops::Range<usize>,
    /// Workgroups for one picture.
    pub(crate) groups: usize,
    /// Nodes it computes, the fused ones too.
    pub(crate) names: Vec<String>,
    /// Multiply-adds for one picture.
    pub(crate) multiply_adds: u64,
    /// Bytes that must be read and written for one picture: inputs, outputs and weights once.
    pub(crate) bytes: u64,
}

/// Dispatches for one graph and size.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    /// The network, in order; then the decoding of its logits.
    pub(crate) steps: Vec<Step>,
    /// How many of the steps are the network's.
    pub(crate) network: usize,
    pub(crate) jobs: Vec<Job>,
    /// Offsets of planes in floats.
    pub(crate) planes: Vec<u32>,
    /// Floats of the arena for one picture.
    pub(crate) image_stride: usize,
    /// Shape and first plane of the input.
    pub(crate) input: (Shape, usize),
    /// Shapes and planes of the graph's outputs.
    pub(crate) outputs: Vec<(Shape, Vec<u32>)>,
    /// Floats of all weights, in the order of [`Graph::weights`].
    pub(crate) weights: usize,
    /// Positions of all scales.
    pub(crate) cells: usize,
    pub(crate) classes: usize,
}

/// Something that lies in the arena: a node's planes, or the sums that attention keeps between its two passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Resource {
    Map(NodeId),
    State(NodeId),
}

/// A list of planes by owner, not yet placed.
#[derive(Clone, Debug, Default)]
enum List {
    #[default]
    None,
    Planes(Vec<Plane>),
    State(NodeId),
}

/// An operation before it is scheduled and placed.
struct Task {
    kernel: Kernel,
    constants: Constants,
    inputs: List,
    second: List,
    residual: List,
    window_residual: List,
    output: Resource,
    groups: usize,
    /// Nodes computed here; the first has the weights of the product, the second those of the window.
    nodes: Vec<NodeId>,
    job: Job,
}

/// Planes are whole vec4s.
fn plane_stride(positions: usize) -> usize {
    positions.next_multiple_of(4)
}

fn slope(activation: Activation) -> f32 {
    match activation {
        Activation::Identity => 1.0,
        Activation::LeakyRelu(slope) => slope,
    }
}

struct Planner<'a> {
    graph: &'a Graph,
    /// Whether shuffle units are fused.
    units: bool,
    /// How often each node's result is read, by views too.
    uses: Vec<usize>,
    /// Nodes that are computed inside of another one's kernel.
    folded: Vec<bool>,
    /// First float of each tensor.
    weight_at: HashMap<String, usize>,
    tasks: Vec<Task>,
}

impl Plan {
    /// The dispatches of `graph`, which must not have heads wider than [`WIDEST_HEAD`].
    pub(crate) fn new(graph: &Graph) -> Self {
        Self::with_units(graph, true)
    }

    /// The same; `units` says whether shuffle units are computed in one pass.
    pub(crate) fn with_units(graph: &Graph, units: bool) -> Self {
        let mut weight_at = HashMap::new();
        let mut weights = 0;
        for spec in graph.weights() {
            let size: usize = spec.shape.iter().product();
            weight_at.insert(spec.name, weights);
            weights += size;
        }
        let mut uses = vec![0; graph.nodes.len()];
        let reads = graph.nodes.iter().flat_map(|node| node.inputs.iter().copied());
        reads.chain(graph.outputs()).for_each(|node| uses[node] += 1);
        let folded = vec![false; graph.nodes.len()];
        let mut planner = Planner { graph, units, uses, folded, weight_at, tasks: Vec::new() };
        planner.fold();
        for (id, node) in graph.nodes.iter().enumerate() {
            if !planner.folded[id] && !node.op.is_view() && node.op != Op::Input {
                planner.task(id, node);
            }
        }
        planner.finish(weights)
    }
}

impl Planner<'_> {
    /// Marks what needs no pass over memory of its own.
    fn fold(&mut self) {
        let nodes = &self.graph.nodes;
        for node in nodes {
            let Some(&first) = node.inputs.first() else { continue };
            let alone = self.uses[first] == 1;
            match (node.op, nodes[first].op) {
                (Op::Conv { kernel: 1, stride: 1, .. }, Op::Depthwise { .. } | Op::Gate) if alone => {
                    self.folded[first] = true;
                }
                (Op::Depthwise { .. }, Op::Add) if alone => {
                    self.folded[first] = true;
                    // One of the two terms may be upsampled on the way.
                    let terms = &nodes[first].inputs;
                    if let Some(&term) = terms.iter().find(|&&term| nodes[term].op == Op::Upsample)
                        && self.uses[term] == 1
                    {
                        self.folded[term] = true;
                    }
                }
                _ => {}
            }
        }
        for node in nodes {
            if let Some((first, _)) = self.unit(node) {
                self.folded[first] = true;
            }
        }
    }

    /// The first convolution of a fused unit whose last is `node`, and its tile.
    fn unit(&self, node: &Node) -> Option<(NodeId, (usize, usize))> {
        if !self.units {
            return None;
        }
        let nodes = &self.graph.nodes;
        let &window = node.inputs.first()?;
        let (1, Op::Depthwise { kernel: 3, stride: 1, .. }) = (node.inputs.len(), nodes[window].op) else {
            return None;
        };
        let &[first] = nodes[window].inputs.as_slice() else { return None };
        let (true, Op::Conv { kernel: 1, stride: 1, .. }) = (self.folded[window], nodes[first].op) else { return None };
        if nodes[first].inputs.len() != 1 || self.uses[first] != 1 {
            return None;
        }
        let channels = nodes[first].shape.channels;
        let fits = |&(width, height): &(usize, usize)| {
            channels * (width + 2) * (height + 2) <= UNIT_MEMORY.0 && channels * width * height <= UNIT_MEMORY.1
        };
        Some((first, UNIT_TILES.into_iter().find(fits)?))
    }

    fn list(&self, node: NodeId) -> List {
        List::Planes(self.graph.planes(node))
    }

    fn weight(&self, node: &Node, part: &str) -> u32 {
        self.weight_at.get(&format!("{}.{part}", node.name)).map_or(NONE, |&at| at as u32)
    }

    /// A task for a node: all that does not depend on the kind.
    fn draft(&self, id: NodeId, kernel: Kernel) -> Task {
        let node = &self.graph.nodes[id];
        let input = self.graph.input_shape(node);
        let Shape { channels, height, width } = node.shape;
        let job = Job {
            first_group: 0,
            inputs: NONE,
            second: NONE,
            residual: NONE,
            outputs: NONE,
            in_channels: input.channels as u32,
            out_channels: channels as u32,
            in_width: input.width as u32,
            in_height: input.height as u32,
            out_width: width as u32,
            out_height: height as u32,
            weight: self.weight(node, "weight"),
            bias: self.weight(node, "bias"),
            window_weight: NONE,
            window_bias: NONE,
            window_residual: NONE,
            slope: 1.0,
            window_slope: 1.0,
            second_shift: 0,
            parts: 0,
            chunks: 0,
            scale: 1.0,
            stride: 1.0,
            first_weight: NONE,
            first_bias: NONE,
            first_slope: 1.0,
        };
        let quads = plane_stride(node.shape.positions()) / 4;
        Task {
            kernel,
            constants: Vec::new(),
            inputs: self.list(node.inputs[0]),
            second: List::None,
            residual: List::None,
            window_residual: List::None,
            output: Resource::Map(id),
            groups: (quads * channels).div_ceil(THREADS),
            nodes: vec![id],
            job,
        }
    }

    fn second(&self, node: &Node) -> List {
        node.inputs.get(1).map_or(List::None, |&input| self.list(input))
    }

    fn task(&mut self, id: NodeId, node: &Node) {
        let simple = |kernel: Kernel| Task { second: self.second(node), ..self.draft(id, kernel) };
        let task = match node.op {
            Op::Conv { kernel, stride, activation } => self.convolution(id, node, kernel, stride, activation),
            Op::Depthwise { .. } => {
                let mut task = self.draft(id, Kernel::Depthwise);
                self.window(&mut task, id);
                task
            }
            Op::Attention { kind, kernel, heads } => return self.attention(id, kind, kernel, heads),
            Op::MaxPool => simple(Kernel::MaxPool),
            Op::Gate => simple(Kernel::Gate),
            Op::Add => simple(Kernel::Add),
            Op::Upsample => simple(Kernel::Upsample),
            Op::Input | Op::Slice { .. } | Op::Concat | Op::Shuffle { .. } => return,
        };
        self.tasks.push(task);
    }

    fn convolution(&self, id: NodeId, node: &Node, kernel: usize, stride: usize, activation: Activation) -> Task {
        let mut task = self.draft(id, Kernel::Pointwise);
        task.residual = self.second(node);
        task.job.slope = slope(activation);
        let tiles = node.shape.positions().div_ceil(PRODUCT.1);
        task.groups = tiles * node.shape.channels.div_ceil(PRODUCT.0);
        if (kernel, stride) != (1, 1) {
            task.kernel = Kernel::Convolution;
            task.constants = vec![("KERNEL", kernel as u32), ("STRIDE", stride as u32)];
            return task;
        }
        let before = node.inputs[0];
        if !self.folded[before] {
            task.constants = vec![("GATED", 0)];
            return task;
        }
        task.nodes.push(before);
        if self.graph.nodes[before].op == Op::Gate {
            let inputs = &self.graph.nodes[before].inputs;
            (task.inputs, task.second) = (self.list(inputs[0]), self.list(inputs[1]));
            task.constants = vec![("GATED", 1)];
        } else if let Some((first, tile)) = self.unit(node) {
            self.fused_unit(&mut task, before, first, tile);
        } else {
            task.kernel = Kernel::Separable;
            self.window(&mut task, before);
        }
        task
    }

    /// What comes before the last convolution of a unit.
    fn fused_unit(&self, task: &mut Task, window: NodeId, first: NodeId, (width, height): (usize, usize)) {
        let node = &self.graph.nodes[first];
        self.window(task, window);
        task.kernel = Kernel::Unit;
        task.constants = vec![("TILE_WIDTH", width as u32), ("TILE_HEIGHT", height as u32)];
        task.inputs = self.list(node.inputs[0]);
        task.nodes.push(first);
        task.job.in_channels = self.graph.input_shape(node).channels as u32;
        task.job.parts = node.shape.channels as u32;
        task.job.first_weight = self.weight(node, "weight");
        task.job.first_bias = self.weight(node, "bias");
        if let Op::Conv { activation, .. } = node.op {
            task.job.first_slope = slope(activation);
        }
        task.groups = node.shape.width.div_ceil(width) * node.shape.height.div_ceil(height);
    }

    /// The window of a depthwise convolution, with a sum before it.
    fn window(&self, task: &mut Task, id: NodeId) {
        let node = &self.graph.nodes[id];
        let Op::Depthwise { kernel, stride, activation, .. } = node.op else { return };
        let input = self.graph.input_shape(node);
        task.job.in_width = input.width as u32;
        task.job.in_height = input.height as u32;
        task.job.window_weight = self.weight(node, "weight");
        task.job.window_bias = self.weight(node, "bias");
        task.job.window_slope = slope(activation);
        task.constants = vec![("KERNEL", kernel as u32), ("STRIDE", stride as u32)];
        task.window_residual = self.second(node);
        let before = node.inputs[0];
        if !self.folded[before] || self.graph.nodes[before].op != Op::Add {
            task.inputs = self.list(before);
            return;
        }
        task.nodes.push(before);
        let terms = &self.graph.nodes[before].inputs;
        // The upsampled term comes second.
        let (first, second) = if self.folded[terms[0]] { (terms[1], terms[0]) } else { (terms[0], terms[1]) };
        task.inputs = self.list(first);
        if self.folded[second] {
            task.nodes.push(second);
            task.job.second_shift = 1;
            task.second = self.list(self.graph.nodes[second].inputs[0]);
        } else {
            task.second = self.list(second);
        }
    }

    fn attention(&mut self, id: NodeId, kind: AttentionKind, kernel: KernelKind, heads: usize) {
        let mut query = self.draft(id, Kernel::Softmax);
        let shape = self.graph.nodes[id].shape;
        let (head, tokens) = (shape.channels / heads, shape.positions());
        query.job.scale = (head as f32).powf(-0.25);
        query.job.parts = heads as u32;
        query.groups = tokens.div_ceil(THREADS) * heads;
        query.constants = vec![("HEAD", head as u32)];
        if kind != AttentionKind::Ela {
            self.tasks.push(query);
            return;
        }
        let similarity = match kernel {
            KernelKind::HadamardExp => 0,
            KernelKind::SumDistance => 1,
            KernelKind::DiffDistance => 2,
            KernelKind::ModulatedDot => 3,
        };
        query.constants.push(("SIMILARITY", similarity));
        // No chunk is empty.
        let length = tokens.div_ceil(tokens.div_ceil(CHUNK).clamp(1, CHUNKS));
        let chunks = tokens.div_ceil(length);
        query.job.chunks = chunks as u32;
        let mut state = self.draft(id, Kernel::AttentionState);
        state.constants.clone_from(&query.constants);
        state.job = query.job;
        state.groups = heads * chunks;
        state.output = Resource::State(id);
        query.kernel = Kernel::AttentionQuery;
        query.second = List::State(id);
        self.tasks.push(state);
        self.tasks.push(query);
    }

    /// Floats of a resource in the arena.
    fn size(&self, resource: Resource) -> usize {
        match resource {
            Resource::Map(id) => {
                let shape = self.graph.nodes[id].shape;
                shape.channels * plane_stride(shape.positions())
            }
            Resource::State(id) => {
                let chunks = self.tasks.iter().find(|task| task.output == resource).map_or(0, |task| task.job.chunks);
                let Op::Attention { kernel, heads, .. } = self.graph.nodes[id].op else { return 0 };
                let head = self.graph.nodes[id].shape.channels / heads;
                let features = if kernel == KernelKind::HadamardExp { head } else { head + 2 };
                (heads * chunks as usize * (WIDEST_HEAD + features * (head + 1))).next_multiple_of(4)
            }
        }
    }

    fn reads(task: &Task) -> Vec<Resource> {
        let mut reads = Vec::new();
        for list in [&task.inputs, &task.second, &task.residual, &task.window_residual] {
            match list {
                List::None => {}
                List::Planes(planes) => reads.extend(planes.iter().map(|plane| Resource::Map(plane.node))),
                List::State(id) => reads.push(Resource::State(*id)),
            }
        }
        reads.sort_by_key(|resource| match resource {
            Resource::Map(id) => (*id, 0),
            Resource::State(id) => (*id, 1),
        });
        reads.dedup();
        reads
    }

    /// Tasks of one pipeline that do not wait for each other become one dispatch. The longest chain of tasks decides
    /// what is next; others of its pipeline come along.
    fn schedule(&self) -> Vec<Vec<usize>> {
        let producer: HashMap<Resource, usize> =
            self.tasks.iter().enumerate().map(|(index, task)| (task.output, index)).collect();
        let needs: Vec<Vec<usize>> = self
            .tasks
            .iter()
            .map(|task| Self::reads(task).iter().filter_map(|read| producer.get(read).copied()).collect())
            .collect();
        let mut chain = vec![1; self.tasks.len()];
        for task in (0..self.tasks.len()).rev() {
            for &need in &needs[task] {
                chain[need] = chain[need].max(chain[task] + 1);
            }
        }
        let mut done = vec![false; self.tasks.len()];
        let mut steps = Vec::new();
        loop {
            let ready: Vec<usize> = (0..self.tasks.len())
                .filter(|&task| !done[task] && needs[task].iter().all(|&need| done[need]))
                .collect();
            let Some(&next) = ready.iter().max_by_key(|&&task| (chain[task], std::cmp::Reverse(task))) else {
                return steps;
            };
            let key = |task: usize| (self.tasks[task].kernel, &self.tasks[task].constants);
            let step: Vec<usize> = ready.into_iter().filter(|&task| key(task) == key(next)).collect();
            step.iter().for_each(|&task| done[task] = true);
            steps.push(step);
        }
    }

    fn finish(mut self, weights: usize) -> Plan {
        let order = self.schedule();
        let mut last_use: HashMap<Resource, usize> = HashMap::new();
        for (index, step) in order.iter().enumerate() {
            for &task in step {
                for read in Self::reads(&self.tasks[task]) {
                    last_use.insert(read, index);
                }
            }
        }
        for plane in self.graph.outputs().flat_map(|output| self.graph.planes(output)) {
            last_use.insert(Resource::Map(plane.node), usize::MAX);
        }
        let mut memory = Allocator::default();
        let mut places: HashMap<Resource, usize> = HashMap::new();
        let input = Resource::Map(0);
        let input_at = memory.take(self.size(input));
        places.insert(input, input_at);
        let mut plan = Plan {
            steps: Vec::new(),
            network: order.len(),
            jobs: Vec::new(),
            planes: Vec::new(),
            image_stride: 0,
            input: (self.graph.input(), input_at),
            outputs: Vec::new(),
            weights,
            cells: 0,
            classes: 0,
        };
        for (index, step) in order.iter().enumerate() {
            for &task in step {
                let output = self.tasks[task].output;
                places.insert(output, memory.take(self.size(output)));
            }
            self.step(step, &places, &mut plan);
            // Freed only now: tasks of one dispatch run at the same time.
            for (&resource, _) in last_use.iter().filter(|(_, last)| **last == index) {
                if let Some(&place) = places.get(&resource) {
                    memory.give(place, self.size(resource));
                }
            }
        }
        plan.image_stride = memory.size;
        for output in self.graph.outputs() {
            let planes = self.graph.planes(output);
            let planes = planes.into_iter().map(|plane| self.place(plane, &places)).collect();
            plan.outputs.push((self.graph.nodes[output].shape, planes));
        }
        self.decoding(&places, &mut plan);
        plan
    }

    fn place(&self, plane: Plane, places: &HashMap<Resource, usize>) -> u32 {
        let base = places.get(&Resource::Map(plane.node)).copied().unwrap_or(0);
        (base + plane.channel * plane_stride(self.graph.nodes[plane.node].shape.positions())) as u32
    }

    /// Writes a list of planes and says where it begins.
    fn write(&self, list: &List, places: &HashMap<Resource, usize>, plan: &mut Plan) -> u32 {
        let planes: Vec<u32> = match list {
            List::None => return NONE,
            List::Planes(planes) => planes.iter().map(|&plane| self.place(plane, places)).collect(),
            List::State(id) => vec![places.get(&Resource::State(*id)).copied().unwrap_or(0) as u32],
        };
        // Many operations read the same planes.
        if let Some(at) = plan.planes.windows(planes.len()).position(|window| window == planes) {
            return at as u32;
        }
        plan.planes.extend(&planes);
        (plan.planes.len() - planes.len()) as u32
    }

    fn step(&mut self, tasks: &[usize], places: &HashMap<Resource, usize>, plan: &mut Plan) {
        let first = &self.tasks[tasks[0]];
        let mut step = Step {
            kernel: first.kernel,
            constants: first.constants.clone(),
            jobs: plan.jobs.len()..plan.jobs.len() + tasks.len(),
            groups: 0,
            names: Vec::new(),
            multiply_adds: 0,
            bytes: 0,
        };
        for &index in tasks {
            let task = &self.tasks[index];
            let output = match task.output {
                Resource::Map(id) => self.list(id),
                Resource::State(id) => List::State(id),
            };
            let job = Job {
                first_group: step.groups as u32,
                inputs: self.write(&task.inputs, places, plan),
                second: self.write(&task.second, places, plan),
                residual: self.write(&task.residual, places, plan),
                window_residual: self.write(&task.window_residual, places, plan),
                outputs: self.write(&output, places, plan),
                ..task.job
            };
            plan.jobs.push(job);
            step.groups += task.groups;
            let mut floats = self.size(task.output);
            for list in [&task.inputs, &task.second, &task.residual, &task.window_residual] {
                floats += match list {
                    List::None => 0,
                    List::Planes(planes) => {
                        planes.iter().map(|plane| self.graph.nodes[plane.node].shape.positions()).sum()
                    }
                    List::State(id) => self.size(Resource::State(*id)),
                };
            }
            let nodes = || task.nodes.iter().map(|&id| &self.graph.nodes[id]);
            floats += nodes().map(|node| self.graph.parameters_of(node)).sum::<usize>();
            step.bytes += 4 * floats as u64;
            let arithmetic = nodes().map(|node| self.graph.multiply_adds_of(node)).sum::<u64>();
            // The two passes of linear attention share it.
            let passes = if matches!(task.kernel, Kernel::AttentionState | Kernel::AttentionQuery) { 2 } else { 1 };
            step.multiply_adds += arithmetic / passes;
            step.names.extend(nodes().map(|node| node.name.clone()));
        }
        plan.steps.push(step);
    }

    /// One job a scale: from logits to boxes.
    fn decoding(&self, places: &HashMap<Resource, usize>, plan: &mut Plan) {
        let head = self.graph.head;
        let mut step = Step {
            kernel: Kernel::Decode,
            constants: Vec::new(),
            jobs: plan.jobs.len()..plan.jobs.len() + self.graph.scales.len(),
            groups: 0,
            names: Vec::new(),
            multiply_adds: 0,
            bytes: 0,
        };
        for scale in &self.graph.scales {
            let mut job = self.draft(scale.class, Kernel::Decode).job;
            job.first_group = step.groups as u32;
            job.inputs = self.write(&self.list(scale.class), places, plan);
            job.second = self.write(&self.list(scale.boxes), places, plan);
            job.parts = head.bins as u32;
            job.chunks = plan.cells as u32;
            job.stride = scale.stride as f32;
            job.scale = head.max_distance / (head.bins - 1) as f32 * scale.stride as f32;
            plan.jobs.push(job);
            let shape = self.graph.nodes[scale.class].shape;
            step.groups += shape.positions().div_ceil(THREADS);
            step.bytes += 4 * (shape.values() + self.graph.nodes[scale.boxes].shape.values()) as u64;
            step.names.push(format!("stride {}", scale.stride));
            plan.cells += shape.positions();
            plan.classes = shape.channels;
        }
        plan.steps.push(step);
        plan.steps.push(Step {
            kernel: Kernel::Suppress,
            constants: Vec::new(),
            jobs: 0..0,
            groups: 1,
            names: vec!["detections".into()],
            multiply_adds: 0,
            bytes: 0,
        });
    }
}
