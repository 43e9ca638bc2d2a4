//! Turns the tasks of a plan into dispatches: which shader, over how many workgroups, on which planes of the arena. Plain data,
//! made without a GPU; a session replays it for every frame.

use std::collections::HashMap;

use yolo_lat_core::engine::Unsupported;
use yolo_lat_core::lower::{At, Fusion, Layout, Operand, Pass, Plan, Target, Task, ghost, lower};
use yolo_lat_core::model::CheckedGraph;
use yolo_lat_core::model::config::KernelKind;
use yolo_lat_core::model::graph::{Activation, Mask, Mixing, Node, NodeId, Op, Shape};
use yolo_lat_shaders::{BLOCK_TILES, Shader, UNIT_TILES};

/// No list or weight.
const NONE: u32 = u32::MAX;
/// Outputs and positions of a workgroup in a product.
const PRODUCT: (usize, usize) = (64, 32);
/// Threads of the other shaders.
const THREADS: usize = 64;
/// Keys of a chunk at least, and chunks at most.
const CHUNK: usize = 256;
const CHUNKS: usize = 16;
/// What fits the unit shader's workgroup memory: channels times positions with their halo, and without.
const UNIT_MEMORY: (usize, usize) = (2400, 1536);
/// What fits the block shader's: the wider of attention and gate times positions, and the projection's channels times positions.
const BLOCK_MEMORY: (usize, usize) = (1400, 1536);
/// Channels of an attention head that fit the shaders' workgroup memory.
const WIDEST_HEAD: usize = 32;

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
    pub(crate) extra_weight: u32,
    pub(crate) extra_bias: u32,
    pub(crate) extra_slope: f32,
    pub(crate) extra_channels: u32,
}

/// Values of `override` constants: they decide which pipeline runs.
pub(crate) type Constants = Vec<(&'static str, u32)>;

/// One dispatch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) shader: Shader,
    pub(crate) constants: Constants,
    /// Range of its jobs in [`Program::jobs`].
    pub(crate) jobs: std::ops::Range<usize>,
    /// Workgroups for one image.
    pub(crate) groups: usize,
    /// Nodes it computes, the fused ones too.
    pub(crate) names: Vec<String>,
    /// Multiply-adds for one image.
    pub(crate) multiply_adds: u64,
    /// Bytes that must be read and written for one image: inputs, outputs and weights once.
    pub(crate) bytes: u64,
}

/// Dispatches for one graph and size.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Program {
    /// The network, in order; then the decoding of its logits.
    pub(crate) steps: Vec<Step>,
    /// How many of the steps are the network's.
    pub(crate) network: usize,
    pub(crate) jobs: Vec<Job>,
    /// Offsets of planes in floats.
    pub(crate) planes: Vec<u32>,
    /// Floats of the arena for one image.
    pub(crate) image_stride: usize,
    /// Shape and first plane of the input.
    pub(crate) input: (Shape, usize),
    /// Shapes and planes of the graph's outputs.
    pub(crate) outputs: Vec<(Shape, Vec<u32>)>,
    /// Positions of all scales.
    pub(crate) cells: usize,
    pub(crate) classes: usize,
}

/// What there are shaders for.
struct Shaders {
    /// Whether shuffle units, ghosts and attention blocks are computed in one pass.
    units: bool,
}

impl Target for Shaders {
    fn supports(&self, graph: &CheckedGraph, node: NodeId) -> Result<(), Unsupported> {
        let node = &graph.nodes[node];
        if let Op::IntegerConv { .. } = node.op {
            let reason = "it has no shader for integers; take --precision f32 or the cpu engine";
            return Err(Unsupported::new("gpu", node, reason));
        }
        let Op::Attention { heads, mask, .. } = node.op else { return Ok(()) };
        let width = node.shape.channels / heads;
        if width > WIDEST_HEAD {
            let reason = format!("heads of {width} channels do not fit the shaders, at most {WIDEST_HEAD} do");
            return Err(Unsupported::new("gpu", node, reason));
        }
        if mask == Mask::Causal {
            let reason = "it has no shader for a causal mask; the reference engine computes it";
            return Err(Unsupported::new("gpu", node, reason));
        }
        Ok(())
    }

    /// Planes of whole vec4s.
    fn layout(&self) -> Layout {
        Layout { lanes: 1, block_align: 4, map_align: 4 }
    }

    fn fuses(&self, graph: &CheckedGraph, fusion: Fusion, last: NodeId) -> bool {
        match fusion {
            Fusion::DepthwisePointwise | Fusion::GatePointwise | Fusion::AddDepthwise => true,
            // Only on the way into a window.
            Fusion::UpsampleAdd => graph.nodes[last].op != Op::Add,
            Fusion::PointwiseDepthwise | Fusion::GhostPointwise => self.units && unit_tile(graph, last).is_some(),
            Fusion::GhostResidual => self.units && adds_ghost(graph, last),
            Fusion::PointwisePointwise | Fusion::PointwiseGate | Fusion::AttentionDepthwise => {
                self.units && Block::ending(graph, last).is_some()
            }
            Fusion::ConvolutionPool => false,
        }
    }

    fn doubles(&self, graph: &CheckedGraph, reader: NodeId, index: usize) -> bool {
        index == 0 && matches!(graph.nodes[reader].op, Op::Conv { kernel: 1, stride: 1, .. } | Op::Depthwise { .. })
    }

    /// The sums over the keys of each chunk, as attention_query.wgsl reads them.
    fn state(&self, graph: &CheckedGraph, node: NodeId) -> usize {
        let node = &graph.nodes[node];
        let Op::Attention { mixing: Mixing::Linear(kernel), heads, .. } = node.op else { return 0 };
        let head = node.shape.channels / heads;
        let features = if kernel == KernelKind::HadamardExp { head } else { head + 2 };
        heads * chunks(node.shape.positions()) * (WIDEST_HEAD + features * (head + 1))
    }

    /// Tasks of one pipeline become one dispatch.
    fn together(&self, graph: &CheckedGraph, a: &Task, b: &Task) -> bool {
        pipeline(graph, a) == pipeline(graph, b)
    }
}

/// How many parts the keys of an attention come in; none is empty.
fn chunks(tokens: usize) -> usize {
    let length = tokens.div_ceil(tokens.div_ceil(CHUNK).clamp(1, CHUNKS));
    tokens.div_ceil(length)
}

/// How often nodes and outputs read a node.
fn uses(graph: &CheckedGraph, node: NodeId) -> usize {
    graph
        .nodes
        .iter()
        .flat_map(|node| node.inputs.iter().copied())
        .chain(graph.outputs())
        .filter(|&input| input == node)
        .count()
}

fn is_pointwise(graph: &CheckedGraph, node: NodeId) -> bool {
    matches!(graph.nodes[node].op, Op::Conv { kernel: 1, stride: 1, .. })
}

/// The input of a node that has no other.
fn only_input(graph: &CheckedGraph, node: NodeId) -> Option<NodeId> {
    match graph.nodes[node].inputs[..] {
        [input] => Some(input),
        _ => None,
    }
}

/// Whether a 1x1 convolution is computed with the depthwise one before it, both at the same positions, and adds a ghost of 3x3.
fn adds_ghost(graph: &CheckedGraph, last: NodeId) -> bool {
    let inputs = &graph.nodes[last].inputs;
    let ghost = inputs.get(1).and_then(|&residual| ghost(graph, residual));
    matches!(graph.nodes[inputs[0]].op, Op::Depthwise { stride: 1, .. })
        && uses(graph, inputs[0]) == 1
        && ghost.is_some_and(|window| matches!(graph.nodes[window].op, Op::Depthwise { kernel: 3, .. }))
}

/// The tile of the unit whose last convolution is `last`: 1x1, depthwise 3x3, 1x1 without residuals that fit workgroup memory, where
/// the last one may read the first's result before that of the depthwise one.
fn unit_tile(graph: &CheckedGraph, last: NodeId) -> Option<(usize, usize)> {
    let before = only_input(graph, last)?;
    let ghost = ghost(graph, before);
    let window = ghost.unwrap_or(before);
    let first = only_input(graph, window)?;
    only_input(graph, first)?;
    let (true, true, Op::Depthwise { kernel: 3, stride: 1, .. }) =
        (is_pointwise(graph, last), is_pointwise(graph, first), graph.nodes[window].op)
    else {
        return None;
    };
    if ghost.is_some() && [before, window, first].map(|node| uses(graph, node)) != [1, 1, 2] {
        return None;
    }
    let channels = graph.nodes[first].shape.channels;
    let fits = |&(width, height): &(usize, usize)| {
        channels * (width + 2) * (height + 2) <= UNIT_MEMORY.0 && channels * width * height <= UNIT_MEMORY.1
    };
    UNIT_TILES.into_iter().find(fits)
}

/// The first convolution of the unit that a task computes, and its tile.
fn unit(graph: &CheckedGraph, task: &Task) -> Option<(NodeId, (usize, usize))> {
    let tile = unit_tile(graph, task.nodes[0])?;
    let &first = task.nodes.get(2)?;
    matches!(graph.nodes[first].op, Op::Conv { .. }).then_some((first, tile))
}

/// What of an attention block comes after its queries, keys and values: attention, its sum with a depthwise 3x3 of the values,
/// projection, gated feed-forward layer, without a residual but the last.
struct Block {
    attention: NodeId,
    position: NodeId,
    projection: NodeId,
    up: NodeId,
    /// Positions of a workgroup.
    tile: usize,
}

impl Block {
    /// That whose last convolution is `down`, if there is one that fits workgroup memory and nothing else reads what lies between.
    fn ending(graph: &CheckedGraph, down: NodeId) -> Option<Self> {
        let plain = |node: NodeId| {
            matches!(graph.nodes[node].op, Op::Conv { kernel: 1, stride: 1, activation: Activation::Identity, .. })
        };
        let gate = *graph.nodes[down].inputs.first()?;
        let &[u, g] = &graph.nodes[gate].inputs[..] else { return None };
        let up = only_input(graph, u).filter(|&up| only_input(graph, g) == Some(up))?;
        let projection = only_input(graph, up)?;
        let position = only_input(graph, projection)?;
        let &[v, attention] = &graph.nodes[position].inputs[..] else { return None };
        let Op::Depthwise { kernel: 3, stride: 1, activation: Activation::Identity, .. } = graph.nodes[position].op
        else {
            return None;
        };
        let Op::Attention { mixing: Mixing::Linear(_), mask: Mask::Full, heads } = graph.nodes[attention].op else {
            return None;
        };
        let channels = |node: NodeId| graph.nodes[node].shape.channels;
        let (inner, hidden, width) = (channels(attention), channels(gate), channels(down));
        let values = graph.planes(graph.nodes[attention].inputs[0]).split_off(2 * inner);
        let once = [gate, u, g, projection, position, attention].into_iter().all(|node| uses(graph, node) == 1);
        let fits = graph.nodes[gate].op == Op::Gate
            && [down, up, projection].into_iter().all(plain)
            && once
            && uses(graph, up) == 2
            && channels(projection) == width
            && inner / heads <= WIDEST_HEAD
            && graph.planes(v) == values;
        let of_memory = |&tile: &usize| inner.max(hidden) * tile <= BLOCK_MEMORY.0 && width * tile <= BLOCK_MEMORY.1;
        let tile = BLOCK_TILES.into_iter().find(of_memory).filter(|_| fits)?;
        Some(Self { attention, position, projection, up, tile })
    }

    /// That which a task computes.
    fn of(graph: &CheckedGraph, task: &Task) -> Option<Self> {
        Self::ending(graph, task.nodes[0]).filter(|block| task.computes(block.attention))
    }
}

/// The depthwise convolution that makes the second half of the ghost which a task adds to its result.
fn added_ghost(graph: &CheckedGraph, task: &Task) -> Option<NodeId> {
    let residual = *graph.nodes[task.nodes[0]].inputs.get(1)?;
    ghost(graph, residual).filter(|&window| task.computes(window))
}

/// The kind of similarity and the channels of a head, as the shaders of linear attention have them.
fn linear_attention(graph: &CheckedGraph, attention: NodeId) -> Constants {
    let node = &graph.nodes[attention];
    let Op::Attention { mixing: Mixing::Linear(kernel), heads, .. } = node.op else { return Vec::new() };
    let similarity = match kernel {
        KernelKind::HadamardExp => 0,
        KernelKind::SumDistance => 1,
        KernelKind::DiffDistance => 2,
        KernelKind::ModulatedDot => 3,
    };
    vec![("HEAD", (node.shape.channels / heads) as u32), ("SIMILARITY", similarity)]
}

/// The shader of a task and its constants; none for the image, which the letterbox writes.
fn pipeline(graph: &CheckedGraph, task: &Task) -> Option<(Shader, Constants)> {
    let node = &graph.nodes[task.nodes[0]];
    let before = task.nodes.get(1).map(|&before| graph.nodes[before].op);
    let window = |kernel: usize, stride: usize| vec![("KERNEL", kernel as u32), ("STRIDE", stride as u32)];
    let either = |name: &'static str, is: bool| (name, u32::from(is));
    let doubled = either("DOUBLED", task.operands.iter().flat_map(|operand| &operand.at).any(|at| at.doubled));
    Some(match (node.op, before) {
        (Op::Conv { kernel: 1, stride: 1, .. }, Some(Op::Depthwise { kernel, stride, .. })) => {
            match unit(graph, task) {
                Some((_, (width, height))) => {
                    let is_ghost = only_input(graph, task.nodes[0]).and_then(|input| ghost(graph, input)).is_some();
                    let tile = [("TILE_WIDTH", width as u32), ("TILE_HEIGHT", height as u32)];
                    (Shader::Unit, [&tile[..], &[either("GHOST", is_ghost), doubled]].concat())
                }
                None => {
                    let is_ghost = added_ghost(graph, task).is_some();
                    (Shader::Separable, [window(kernel, stride), vec![either("GHOST", is_ghost), doubled]].concat())
                }
            }
        }
        (Op::Conv { kernel: 1, stride: 1, .. }, gate) => match Block::of(graph, task) {
            Some(block) => {
                let tile = vec![("TILE", block.tile as u32)];
                (Shader::Block, [tile, linear_attention(graph, block.attention)].concat())
            }
            None => (Shader::Pointwise, vec![either("GATED", gate == Some(Op::Gate)), doubled]),
        },
        (Op::Conv { kernel, stride, .. }, _) => (Shader::Convolution, window(kernel, stride)),
        (Op::Depthwise { kernel, stride, .. }, _) => {
            (Shader::Depthwise, [window(kernel, stride), vec![doubled]].concat())
        }
        (Op::Attention { mixing: Mixing::Softmax, heads, .. }, _) => {
            (Shader::Softmax, vec![("HEAD", (node.shape.channels / heads) as u32)])
        }
        (Op::Attention { .. }, _) => {
            let shader = if task.pass == Pass::First { Shader::AttentionState } else { Shader::AttentionQuery };
            (shader, linear_attention(graph, task.nodes[0]))
        }
        (Op::MaxPool, _) => (Shader::MaxPool, Vec::new()),
        (Op::Gate, _) => (Shader::Gate, Vec::new()),
        (Op::Add, _) => (Shader::Add, Vec::new()),
        (Op::Route { active, equal }, _) => (Shader::Route, vec![("ACTIVE", active as u32), either("EQUAL", equal)]),
        (Op::Scale, _) => (Shader::Scale, Vec::new()),
        (Op::Upsample, _) => (Shader::Upsample, Vec::new()),
        // Views, and integers, which are refused.
        (Op::Input(_) | Op::IntegerConv { .. } | Op::Slice { .. } | Op::Concat | Op::Shuffle { .. }, _) => return None,
    })
}

fn slope(activation: Activation) -> f32 {
    match activation {
        Activation::Identity => 1.0,
        Activation::LeakyRelu(slope) => slope,
    }
}

struct Compiler<'a> {
    graph: &'a CheckedGraph,
    plan: Plan,
    /// First float of each tensor.
    weight_at: HashMap<String, usize>,
    program: Program,
}

impl Program {
    /// The dispatches of `graph`.
    pub(crate) fn new(graph: &CheckedGraph) -> Result<Self, Unsupported> {
        Self::with_units(graph, true)
    }

    /// The same; `units` says whether shuffle units are computed in one pass.
    pub(crate) fn with_units(graph: &CheckedGraph, units: bool) -> Result<Self, Unsupported> {
        let plan = lower(graph, &Shaders { units })?;
        let (mut weight_at, mut weights) = (HashMap::new(), 0);
        for spec in graph.weights() {
            weight_at.insert(spec.name, weights);
            weights += spec.shape.iter().product::<usize>();
        }
        let program = Self { image_stride: plan.arena(), ..Self::default() };
        let mut compiler = Compiler { graph, plan, weight_at, program };
        compiler.network();
        compiler.decoding();
        Ok(compiler.program)
    }
}

impl Compiler<'_> {
    fn network(&mut self) {
        let stages: Vec<Vec<Task>> = self.plan.stages().map(<[Task]>::to_vec).collect();
        for tasks in &stages {
            match pipeline(self.graph, &tasks[0]) {
                Some(pipeline) => self.step(pipeline, tasks),
                None => self.program.input = (self.graph.input(), self.plan.output(&tasks[0])),
            }
        }
        self.program.network = self.program.steps.len();
        let shapes = self.graph.outputs().map(|output| self.graph.nodes[output].shape);
        let planes = self.plan.outputs().into_iter().map(as_offsets);
        self.program.outputs = shapes.zip(planes).collect();
    }

    fn weight(&self, node: &Node, part: &str) -> u32 {
        self.weight_at.get(&format!("{}.{part}", node.name)).map_or(NONE, |&at| at as u32)
    }

    /// What any job of a node has.
    fn draft(&self, id: NodeId) -> Job {
        let node = &self.graph.nodes[id];
        let input = self.graph.input_shape(node);
        let Shape { channels, height, width } = node.shape;
        Job {
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
            extra_weight: NONE,
            extra_bias: NONE,
            extra_slope: 1.0,
            extra_channels: 0,
        }
    }

    /// Writes a list of planes and says where it begins.
    fn write(&mut self, planes: Vec<u32>) -> u32 {
        // Many operations read the same planes.
        let list = &mut self.program.planes;
        if let Some(at) = list.windows(planes.len()).position(|window| window == planes) {
            return at as u32;
        }
        list.extend(&planes);
        (list.len() - planes.len()) as u32
    }

    fn list(&mut self, operand: Option<&Operand>) -> u32 {
        operand.map_or(NONE, |operand| self.write(self.planes(&operand.at)))
    }

    /// Planes as the shaders find them: the lowest bit marks those of half the resolution.
    fn planes(&self, at: &[At]) -> Vec<u32> {
        at.iter().map(|at| self.plan.offset(*at) as u32 + u32::from(at.doubled)).collect()
    }

    fn job(&mut self, task: &Task) -> Job {
        let id = task.nodes[0];
        let node = &self.graph.nodes[id];
        let mut job = self.draft(id);
        let (mut inputs, mut second) = (task.operand(id, 0), task.operand(id, 1));
        match node.op {
            Op::Conv { activation, .. } => {
                job.slope = slope(activation);
                job.residual = match added_ghost(self.graph, task) {
                    Some(window) => self.ghost(&mut job, task, window),
                    None => self.list(second),
                };
                second = None;
                match task.nodes.get(1) {
                    Some(&window) if matches!(self.graph.nodes[window].op, Op::Depthwise { .. }) => {
                        (inputs, second) = self.window(&mut job, task, window);
                    }
                    Some(_) if let Some(block) = Block::of(self.graph, task) => {
                        (inputs, second) = self.block(&mut job, task, &block);
                    }
                    Some(&gate) => (inputs, second) = (task.operand(gate, 0), task.operand(gate, 1)),
                    None => {}
                }
            }
            Op::Depthwise { .. } => (inputs, second) = self.window(&mut job, task, id),
            Op::Attention { .. } => self.attention(&mut job, id),
            _ => {}
        }
        job.inputs = self.list(inputs);
        job.second = match (node.op, second) {
            (Op::Scale, Some(factors)) => {
                let each = node.shape.channels / factors.at.len();
                let planes = self.planes(&factors.at);
                self.write(planes.into_iter().flat_map(|plane| std::iter::repeat_n(plane, each)).collect())
            }
            _ => self.list(second),
        };
        let outputs = match task.pass {
            Pass::First => vec![self.plan.output(task)],
            _ => self.plan.channels(task, node.shape.positions()),
        };
        job.outputs = self.write(as_offsets(outputs));
        job
    }

    /// What a job that attends has.
    fn attention(&self, job: &mut Job, id: NodeId) {
        let node = &self.graph.nodes[id];
        let Op::Attention { mixing, heads, .. } = node.op else { return };
        job.scale = ((node.shape.channels / heads) as f32).powf(-0.25);
        job.parts = heads as u32;
        job.chunks = if mixing == Mixing::Softmax { 0 } else { chunks(node.shape.positions()) as u32 };
    }

    /// All of an attention block behind its state; the queries, keys and values, and the state.
    fn block<'t>(&self, job: &mut Job, task: &'t Task, block: &Block) -> (Option<&'t Operand>, Option<&'t Operand>) {
        self.attention(job, block.attention);
        let [position, projection, up] =
            [block.position, block.projection, block.up].map(|node| &self.graph.nodes[node]);
        job.window_weight = self.weight(position, "weight");
        job.window_bias = self.weight(position, "bias");
        job.first_weight = self.weight(projection, "weight");
        job.first_bias = self.weight(projection, "bias");
        job.extra_weight = self.weight(up, "weight");
        job.extra_bias = self.weight(up, "bias");
        job.extra_channels = (up.shape.channels / 2) as u32;
        (task.operand(block.attention, 0), task.operand(block.attention, 1))
    }

    /// The list of planes of a ghost that is added: its first half, and for its second what that is made of.
    fn ghost(&mut self, job: &mut Job, task: &Task, window: NodeId) -> u32 {
        let node = &self.graph.nodes[window];
        let Op::Depthwise { activation, .. } = node.op else { return NONE };
        job.extra_weight = self.weight(node, "weight");
        job.extra_bias = self.weight(node, "bias");
        job.extra_slope = slope(activation);
        job.extra_channels = node.shape.channels as u32;
        let halves = [(task.nodes[0], 1), (window, 0)].map(|(node, index)| task.operand(node, index));
        self.write(halves.into_iter().flatten().flat_map(|half| self.planes(&half.at)).collect())
    }

    /// The depthwise convolution of a task, with what comes before it; the operands that are read first and second.
    fn window<'t>(&mut self, job: &mut Job, task: &'t Task, id: NodeId) -> (Option<&'t Operand>, Option<&'t Operand>) {
        let node = &self.graph.nodes[id];
        let Op::Depthwise { activation, .. } = node.op else { return (None, None) };
        let input = self.graph.input_shape(node);
        (job.in_width, job.in_height) = (input.width as u32, input.height as u32);
        job.window_weight = self.weight(node, "weight");
        job.window_bias = self.weight(node, "bias");
        job.window_slope = slope(activation);
        job.window_residual = self.list(task.operand(id, 1));
        let before = node.inputs[0];
        if !task.computes(before) {
            return (task.operand(id, 0), None);
        }
        let node = &self.graph.nodes[before];
        if let Op::Conv { activation, .. } = node.op {
            job.in_channels = self.graph.input_shape(node).channels as u32;
            job.parts = node.shape.channels as u32;
            job.first_weight = self.weight(node, "weight");
            job.first_bias = self.weight(node, "bias");
            job.first_slope = slope(activation);
            return (task.operand(before, 0), None);
        }
        // A sum; the term that is upsampled on the way comes second.
        match node.inputs.iter().position(|&term| task.computes(term)) {
            None => (task.operand(before, 0), task.operand(before, 1)),
            Some(index) => {
                job.second_shift = 1;
                (task.operand(before, 1 - index), task.operand(node.inputs[index], 0))
            }
        }
    }

    /// Multiply-adds of a node in one task; the two passes of linear attention share its.
    fn arithmetic(&self, id: NodeId) -> u64 {
        let node = &self.graph.nodes[id];
        let all = self.graph.multiply_adds_of(node);
        if matches!(node.op, Op::Attention { mixing: Mixing::Linear(_), .. }) { all / 2 } else { all }
    }

    /// Workgroups of a task.
    fn groups(&self, shader: Shader, task: &Task) -> usize {
        let shape = self.graph.nodes[task.nodes[0]].shape;
        let heads = match self.graph.nodes[task.nodes[0]].op {
            Op::Attention { heads, .. } => heads,
            _ => 1,
        };
        match shader {
            Shader::Pointwise | Shader::Separable | Shader::Convolution => {
                shape.positions().div_ceil(PRODUCT.1) * shape.channels.div_ceil(PRODUCT.0)
            }
            Shader::Unit => unit(self.graph, task)
                .map_or(0, |(_, (width, height))| shape.width.div_ceil(width) * shape.height.div_ceil(height)),
            Shader::Block => Block::of(self.graph, task).map_or(0, |block| shape.positions().div_ceil(block.tile)),
            Shader::AttentionState => heads * chunks(shape.positions()),
            Shader::AttentionQuery | Shader::Softmax => shape.positions().div_ceil(THREADS) * heads,
            _ => (shape.positions().div_ceil(4) * shape.channels).div_ceil(THREADS),
        }
    }

    /// One dispatch of tasks that run side by side.
    fn step(&mut self, (shader, constants): (Shader, Constants), tasks: &[Task]) {
        let first = self.program.jobs.len();
        let jobs = first..first + tasks.len();
        let mut step = Step { shader, constants, jobs, groups: 0, names: Vec::new(), multiply_adds: 0, bytes: 0 };
        for task in tasks {
            let job = Job { first_group: step.groups as u32, ..self.job(task) };
            self.program.jobs.push(job);
            step.groups += self.groups(shader, task);
            let nodes = || task.nodes.iter().map(|&id| &self.graph.nodes[id]);
            let read = task.operands.iter().map(|operand| {
                if operand.node == operand.input.0 {
                    return Shaders { units: false }.state(self.graph, operand.node).next_multiple_of(4);
                }
                let positions = self.graph.nodes[operand.node].shape.positions();
                operand.at.iter().map(|at| if at.doubled { positions / 4 } else { positions }).sum::<usize>()
            });
            let weights = nodes().map(|node| self.graph.parameters_of(node));
            let floats = self.plan.floats(task) + read.chain(weights).sum::<usize>();
            step.bytes += 4 * floats as u64;
            step.multiply_adds += task.nodes.iter().map(|&id| self.arithmetic(id)).sum::<u64>();
            step.names.extend(nodes().map(|node| node.name.clone()));
        }
        self.program.steps.push(step);
    }

    /// One job a scale: from logits to boxes; then their suppression.
    fn decoding(&mut self) {
        if self.graph.scales.is_empty() {
            return;
        }
        let head = self.graph.head;
        let first = self.program.jobs.len();
        let step = |shader, jobs, groups| Step {
            shader,
            constants: Vec::new(),
            jobs,
            groups,
            names: Vec::new(),
            multiply_adds: 0,
            bytes: 0,
        };
        let mut decode = step(Shader::Decode, first..first + self.graph.scales.len(), 0);
        for (index, scale) in self.graph.scales.iter().enumerate() {
            let mut job = self.draft(scale.class);
            job.first_group = decode.groups as u32;
            let [class, boxes] = [2 * index, 2 * index + 1].map(|output| self.program.outputs[output].1.clone());
            job.inputs = self.write(class);
            job.second = self.write(boxes);
            job.parts = head.bins as u32;
            job.chunks = self.program.cells as u32;
            job.stride = scale.stride as f32;
            job.scale = head.max_distance / (head.bins - 1) as f32 * scale.stride as f32;
            self.program.jobs.push(job);
            let shape = self.graph.nodes[scale.class].shape;
            decode.groups += shape.positions().div_ceil(THREADS);
            decode.bytes += 4 * (shape.values() + self.graph.nodes[scale.boxes].shape.values()) as u64;
            decode.names.push(format!("stride {}", scale.stride));
            self.program.cells += shape.positions();
            self.program.classes = shape.channels;
        }
        self.program.steps.push(decode);
        self.program.steps.push(Step { names: vec!["detections".into()], ..step(Shader::Suppress, 0..0, 1) });
    }
}

/// Offsets as the shaders read them: all lie within a buffer of 32-bit offsets.
fn as_offsets(offsets: Vec<usize>) -> Vec<u32> {
    offsets.into_iter().map(|offset| offset as u32).collect()
}
