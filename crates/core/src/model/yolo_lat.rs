//! The YOLO-LAT network: ShuffleNetV2 backbone, pyramid neck with exact linear attention, distribution focal heads.

use super::config::{
    ActivationConfig, BackboneConfig, ExpertBias, ExpertsConfig, Fusion, MemoryKind, ModelConfig, NeckConfig, STRIDES,
    Split,
};
use super::graph::{Activation, Graph, Mask, Mixing, NodeId, Op, Scale, Shape};

/// Builds the network for an image of `width` x `height` pixels, both multiples of 32.
pub(super) fn build(config: &ModelConfig, width: usize, height: usize) -> Graph {
    let mut network = Builder {
        graph: Graph::new(&config.name, Shape { channels: 3, height, width }),
        activation: match config.activation {
            ActivationConfig::Relu => Activation::LeakyRelu(0.0),
            ActivationConfig::LeakyRelu(slope) => Activation::LeakyRelu(slope),
        },
    };
    let features = network.backbone(&config.backbone);
    let pyramid = network.neck(&config.neck, features);
    let scales = pyramid.into_iter().zip(STRIDES);
    let scales = scales.map(|(node, stride)| network.head(config, node, stride)).collect();
    Graph { scales, head: config.head, ..network.graph }
}

/// The graph so far, with the habits all its layers share.
struct Builder {
    graph: Graph,
    activation: Activation,
}

impl Builder {
    /// Images to features at strides 8, 16 and 32.
    fn backbone(&mut self, config: &BackboneConfig) -> [NodeId; 3] {
        let stem = Op::Conv { channels: config.stem, kernel: 3, stride: 2, activation: self.activation };
        let stem = self.graph.add("stem", stem, &[0]);
        let mut x = self.graph.add("pool", Op::MaxPool, &[stem]);
        let mut index = 0;
        config.widths.map(|width| {
            let stage = format!("stage{}", index + 2);
            let hidden = config.first_hidden.map_or(width / 2, |hidden| hidden[index]);
            x = self.down_unit(&format!("{stage}.0"), x, width, hidden, config.split);
            let hidden = config.hidden.map_or(width / 2, |hidden| hidden[index]);
            for unit in 1..config.repeats[index] {
                x = self.shuffle_unit(&format!("{stage}.{unit}"), x, hidden, config.split);
            }
            index += 1;
            x
        })
    }

    /// First unit of a stage: both branches read everything and halve the resolution, `hidden` channels are inside one of them.
    fn down_unit(&mut self, name: &str, x: NodeId, width: usize, hidden: usize, split: Split) -> NodeId {
        let half = width / 2;
        let left = self.depthwise(&format!("{name}.left.depthwise"), x, 3, 2, Activation::Identity);
        let left = self.pointwise(&format!("{name}.left.pointwise"), left, half);
        let right = self.pointwise(&format!("{name}.right.pointwise1"), x, hidden);
        let right = self.depthwise(&format!("{name}.right.depthwise"), right, 3, 2, Activation::Identity);
        let right = self.pointwise(&format!("{name}.right.pointwise2"), right, half);
        self.join(name, left, right, split)
    }

    /// Other units: half of the channels pass unchanged, `hidden` channels are inside the other branch.
    fn shuffle_unit(&mut self, name: &str, x: NodeId, hidden: usize, split: Split) -> NodeId {
        let half = self.channels(x) / 2;
        let (left, right) = match split {
            Split::EvenOdd => {
                (Op::Slice { start: 0, step: 2, count: half }, Op::Slice { start: 1, step: 2, count: half })
            }
            Split::Halves => {
                (Op::Slice { start: 0, step: 1, count: half }, Op::Slice { start: half, step: 1, count: half })
            }
        };
        let left = self.graph.add(format!("{name}.left"), left, &[x]);
        let right = self.graph.add(format!("{name}.right"), right, &[x]);
        let right = self.pointwise(&format!("{name}.right.pointwise1"), right, hidden);
        let right = self.depthwise(&format!("{name}.right.depthwise"), right, 3, 1, Activation::Identity);
        let right = self.pointwise(&format!("{name}.right.pointwise2"), right, half);
        self.join(name, left, right, split)
    }

    fn join(&mut self, name: &str, left: NodeId, right: NodeId, split: Split) -> NodeId {
        let joined = self.graph.add(format!("{name}.concat"), Op::Concat, &[left, right]);
        match split {
            Split::EvenOdd => joined,
            Split::Halves => self.graph.add(format!("{name}.shuffle"), Op::Shuffle { groups: 2 }, &[joined]),
        }
    }

    /// Attention at the two coarse scales, then information flows down to the finest and up again.
    fn neck(&mut self, config: &NeckConfig, features: [NodeId; 3]) -> [NodeId; 3] {
        let mut index = 0;
        let [lateral8, lateral16, lateral32] = features.map(|feature| {
            let name = format!("lateral{}", STRIDES[index]);
            index += 1;
            self.pointwise(&name, feature, config.width)
        });
        let p5 = self.attention_block("ela32", lateral32, config);
        let p4 = self.top_down("topdown16", lateral16, p5, config.fusion);
        let p4 = self.attention_block("ela16", p4, config);
        let p3 = self.top_down("topdown8", lateral8, p4, config.fusion);
        let n4 = self.bottom_up("down16", "bottomup16", p3, p4, config.fusion);
        let n5 = self.bottom_up("down32", "bottomup32", n4, p5, config.fusion);
        [p3, n4, n5]
    }

    /// The coarse map, upsampled, joined with the fine one.
    fn top_down(&mut self, name: &str, fine: NodeId, coarse: NodeId, fusion: Fusion) -> NodeId {
        let coarse = self.graph.add(format!("{name}.upsample"), Op::Upsample, &[coarse]);
        self.fuse(name, coarse, fine, fusion)
    }

    /// The fine map at half its resolution, joined with the coarse one.
    fn bottom_up(&mut self, down: &str, name: &str, fine: NodeId, coarse: NodeId, fusion: Fusion) -> NodeId {
        let fine = self.separable(down, fine, 2);
        self.fuse(name, fine, coarse, fusion)
    }

    /// Joins what comes from another scale with the map of this one.
    fn fuse(&mut self, name: &str, other: NodeId, own: NodeId, fusion: Fusion) -> NodeId {
        match fusion {
            Fusion::Sum => {
                let sum = self.graph.add(format!("{name}.add"), Op::Add, &[own, other]);
                self.separable(name, sum, 1)
            }
            Fusion::Ghost => {
                let joined = self.graph.add(format!("{name}.concat"), Op::Concat, &[other, own]);
                self.ghost_bottleneck(name, joined, self.channels(own))
            }
        }
    }

    /// Two ghost modules beside a linear separable convolution (GhostNet, Han et al. 2020, as NanoDet-Plus uses it).
    fn ghost_bottleneck(&mut self, name: &str, x: NodeId, width: usize) -> NodeId {
        let ghosts = self.ghost(&format!("{name}.ghost1"), x, width, self.activation);
        let ghosts = self.ghost(&format!("{name}.ghost2"), ghosts, width, Activation::Identity);
        let shortcut = self.depthwise(&format!("{name}.shortcut.depthwise"), x, 5, 1, Activation::Identity);
        self.linear(&format!("{name}.shortcut.pointwise"), &[shortcut, ghosts], width)
    }

    /// Half of the channels by a 1x1 convolution, the other half from them by a depthwise one.
    fn ghost(&mut self, name: &str, x: NodeId, width: usize, activation: Activation) -> NodeId {
        let primary = Op::Conv { channels: width / 2, kernel: 1, stride: 1, activation };
        let primary = self.graph.add(format!("{name}.primary"), primary, &[x]);
        let cheap = self.depthwise(&format!("{name}.cheap"), primary, 3, 1, activation);
        self.graph.add(format!("{name}.concat"), Op::Concat, &[primary, cheap])
    }

    /// Attention and gated feed-forward layer. With Hyper-Link one residual spans both: `x + ffn(attention(x))`;
    /// without it each half has its own. A memory attends once more to what the block adds, or to its input.
    fn attention_block(&mut self, name: &str, x: NodeId, config: &NeckConfig) -> NodeId {
        let NeckConfig { width, heads, hidden, hyper_link, .. } = *config;
        let inner = config.attention_width();
        let mixed = match config.mixing() {
            None => {
                let v = self.linear(&format!("{name}.v"), &[x], inner);
                self.position(name, &[v], config.position_kernel)
            }
            Some(mixing) => {
                let qkv = self.linear(&format!("{name}.qkv"), &[x], 3 * inner);
                let v = Op::Slice { start: 2 * inner, step: 1, count: inner };
                let v = self.graph.add(format!("{name}.v"), v, &[qkv]);
                let attended = Op::Attention { mixing, heads, mask: Mask::Full };
                let scaled = if config.key_scale { self.scale_keys(name, qkv, v, inner) } else { qkv };
                let attended = self.graph.add(format!("{name}.attention"), attended, &[scaled]);
                self.position(name, &[v, attended], config.position_kernel)
            }
        };
        let mixed = if config.output_gate {
            let gate = self.linear(&format!("{name}.output_gate"), &[x], inner);
            self.graph.add(format!("{name}.gated"), Op::Gate, &[mixed, gate])
        } else {
            mixed
        };
        let projection = format!("{name}.proj");
        let mixed = if hyper_link {
            self.linear(&projection, &[mixed], width)
        } else {
            self.linear(&projection, &[mixed, x], width)
        };
        let hidden = hidden * config.experts.map_or(1, |experts| experts.count);
        let up = self.linear(&format!("{name}.up"), &[mixed], 2 * hidden);
        let u = self.graph.add(format!("{name}.u"), Op::Slice { start: 0, step: 1, count: hidden }, &[up]);
        let g = self.graph.add(format!("{name}.g"), Op::Slice { start: hidden, step: 1, count: hidden }, &[up]);
        let gated = self.graph.add(format!("{name}.gate"), Op::Gate, &[u, g]);
        let (gated, label) = match config.experts {
            None => (gated, None),
            Some(experts) => self.route(name, mixed, gated, experts),
        };
        let residual = if hyper_link { x } else { mixed };
        let down = format!("{name}.down");
        // One input, and what is added to it.
        let with =
            |input: NodeId, added: Option<NodeId>| [Some(input), added].into_iter().flatten().collect::<Vec<_>>();
        if config.memory == MemoryKind::None {
            let residual = match label {
                None => residual,
                Some((label, gates)) => self.linear(&label, &[gates, residual], width),
            };
            return self.linear(&down, &[gated, residual], width);
        }
        let label = label.map(|(label, gates)| self.linear(&label, &[gates], width));
        let delta = self.linear(&down, &with(gated, label), width);
        let block = self.graph.add(format!("{name}.add"), Op::Add, &[residual, delta]);
        let input = match config.memory {
            MemoryKind::Input => x,
            MemoryKind::Output => block,
            MemoryKind::Flow | MemoryKind::None => delta,
        };
        self.memory(name, input, block, config)
    }

    /// What experts have inside, times the gates that the router gives them, and a name and the input of the map that adds a vector
    /// for each expert.
    fn route(
        &mut self,
        name: &str,
        input: NodeId,
        hidden: NodeId,
        ExpertsConfig { count, active, bias }: ExpertsConfig,
    ) -> (NodeId, Option<(String, NodeId)>) {
        let scores = self.linear(&format!("{name}.router.out"), &[input], count);
        let gates = self.graph.add(format!("{name}.gates"), Op::Route { active, equal: false }, &[scores]);
        let scaled = self.graph.add(format!("{name}.experts"), Op::Scale, &[hidden, gates]);
        let label = match bias {
            ExpertBias::None => None,
            ExpertBias::Inner => Some((format!("{name}.labels.out"), gates)),
            ExpertBias::Outer | ExpertBias::Free => {
                let chosen = self.graph.add(format!("{name}.chosen"), Op::Route { active, equal: true }, &[scores]);
                let map = if bias == ExpertBias::Outer { "labels" } else { "bias" };
                Some((format!("{name}.{map}.out"), chosen))
            }
        };
        (scaled, label)
    }

    /// Queries, keys and values with a scale for each channel of the keys.
    fn scale_keys(&mut self, name: &str, qkv: NodeId, v: NodeId, inner: usize) -> NodeId {
        let mut part = |part: &str, start| {
            self.graph.add(format!("{name}.{part}"), Op::Slice { start, step: 1, count: inner }, &[qkv])
        };
        let (q, k) = (part("q", 0), part("k", inner));
        let scale = Op::Depthwise { kernel: 1, stride: 1, bias: false, activation: Activation::Identity };
        let k = self.graph.add(format!("{name}.key_scale"), scale, &[k]);
        self.graph.add(format!("{name}.scaled"), Op::Concat, &[q, k, v])
    }

    /// The block's result with a second attention added to it, through a last map if its width is given.
    fn memory(&mut self, name: &str, input: NodeId, block: NodeId, config: &NeckConfig) -> NodeId {
        let inner = config.memory_channels();
        let qkv = self.linear(&format!("{name}.memory.qkv"), &[input], 3 * inner);
        let attention = Op::Attention { mixing: Mixing::Linear(config.kernel), heads: config.heads, mask: Mask::Full };
        let attended = self.graph.add(format!("{name}.memory.attention"), attention, &[qkv]);
        match config.memory_width {
            Some(_) => self.linear(&format!("{name}.memory.proj"), &[attended, block], config.width),
            None => self.graph.add(format!("{name}.memory.add"), Op::Add, &[block, attended]),
        }
    }

    /// Depthwise window of the values, added to what attention gives: the part that knows where a token is.
    fn position(&mut self, name: &str, inputs: &[NodeId], kernel: usize) -> NodeId {
        let op = Op::Depthwise { kernel, stride: 1, bias: false, activation: Activation::Identity };
        self.graph.add(format!("{name}.position"), op, inputs)
    }

    /// Class and box branch of one scale.
    fn head(&mut self, config: &ModelConfig, x: NodeId, stride: usize) -> Scale {
        let shared = config.head.shared;
        let x = (0..shared).fold(x, |x, layer| self.separable(&format!("head{stride}.{layer}"), x, 1));
        let mut branch = |name: &str, channels: usize| {
            let features = if shared > 0 { x } else { self.separable(&format!("head{stride}.{name}"), x, 1) };
            self.linear(&format!("head{stride}.{name}.out"), &[features], channels)
        };
        let class = branch("class", config.classes.len());
        let boxes = branch("box", 4 * config.head.bins);
        Scale { stride, class, boxes }
    }

    /// Depthwise 5x5 and pointwise, both activated.
    fn separable(&mut self, name: &str, x: NodeId, stride: usize) -> NodeId {
        let width = self.channels(x);
        let x = self.depthwise(&format!("{name}.depthwise"), x, 5, stride, self.activation);
        self.pointwise(&format!("{name}.pointwise"), x, width)
    }

    fn depthwise(&mut self, name: &str, x: NodeId, kernel: usize, stride: usize, activation: Activation) -> NodeId {
        self.graph.add(name, Op::Depthwise { kernel, stride, bias: true, activation }, &[x])
    }

    /// Activated 1x1 convolution.
    fn pointwise(&mut self, name: &str, x: NodeId, channels: usize) -> NodeId {
        self.graph.add(name, Op::Conv { channels, kernel: 1, stride: 1, activation: self.activation }, &[x])
    }

    /// 1x1 convolution without activation; a second input is added.
    fn linear(&mut self, name: &str, inputs: &[NodeId], channels: usize) -> NodeId {
        let op = Op::Conv { channels, kernel: 1, stride: 1, activation: Activation::Identity };
        self.graph.add(name, op, inputs)
    }

    fn channels(&self, node: NodeId) -> usize {
        self.graph.nodes[node].shape.channels
    }
}
