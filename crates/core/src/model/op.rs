//! What a node computes, and the shape of what comes out.

use yolo_lat_attention::{DiffDistance, HadamardExp, Kernel, ModulatedDot, Similarity, Softmax, SumDistance};

use super::config::KernelKind;

/// Channels, height, width of a feature map. The batch is not part of the graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Channel planes.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Shape {
    /// Positions in one plane.
    pub fn positions(&self) -> usize {
        self.height * self.width
    }

    /// Values in all planes.
    pub fn values(&self) -> usize {
        self.channels * self.positions()
    }

    /// What a window that moves by `stride` leaves: padding makes up for its reach.
    fn strided(self, stride: usize) -> Self {
        Self { height: self.height.div_ceil(stride), width: self.width.div_ceil(stride), ..self }
    }

    /// Channels of one of `parts` equal parts.
    fn divided(self, parts: usize) -> Result<usize, ShapeError> {
        let channels = self.channels;
        if channels.is_multiple_of(parts) { Ok(channels / parts) } else { Err(ShapeError::Divide { channels, parts }) }
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}x{}x{}", self.channels, self.height, self.width)
    }
}

/// Applied to each value a convolution or an addition produces.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// `max(x, slope * x)`, slope 0 to 1; 0 is ReLU.
    LeakyRelu(f32),
}

impl Activation {
    /// The value after the activation.
    pub fn apply(self, x: f32) -> f32 {
        match self {
            Self::Identity => x,
            // Not `0 * x`, which has a sign.
            Self::LeakyRelu(0.0) if x <= 0.0 => 0.0,
            Self::LeakyRelu(slope) => x.max(slope * x),
        }
    }
}

/// How attention weighs the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mixing {
    /// Cost quadratic in the number of positions.
    Softmax,
    /// Exact linear attention with this kernel.
    Linear(KernelKind),
}

impl Mixing {
    /// The weight of a key for a query.
    pub fn similarity(self) -> &'static dyn Similarity {
        match self {
            Self::Softmax => &Softmax,
            Self::Linear(KernelKind::HadamardExp) => &HadamardExp,
            Self::Linear(KernelKind::SumDistance) => &SumDistance,
            Self::Linear(KernelKind::DiffDistance) => &DiffDistance,
            Self::Linear(KernelKind::ModulatedDot) => &ModulatedDot,
        }
    }
}

impl KernelKind {
    /// Features of a query or key of `width` channels.
    pub fn features(self, width: usize) -> usize {
        match self {
            Self::HadamardExp => HadamardExp.features(width),
            Self::SumDistance => SumDistance.features(width),
            Self::DiffDistance => DiffDistance.features(width),
            Self::ModulatedDot => ModulatedDot.features(width),
        }
    }
}

/// Which positions a position sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// All.
    Full,
    /// Itself and those before it, row by row.
    Causal,
}

/// What a node computes. Convolutions pad by `kernel / 2` zeros, so a stride of 2 gives `ceil(side / 2)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// The image: RGB in 0..1. The first node of every graph, and no other.
    Input(Shape),
    /// Dense convolution; weight `(out, in, kernel, kernel)`, bias `(out)`. A second input is added after the activation.
    Conv {
        /// Output channels.
        channels: usize,
        /// Odd side of the window.
        kernel: usize,
        /// 1 or 2.
        stride: usize,
        /// Applied before the residual.
        activation: Activation,
    },
    /// 1x1 convolution in integers, [`Integers`](super::integers::Integers) says how; weights as for the other, step and zero `(in)`. A
    /// second input is added after the activation.
    IntegerConv {
        /// Output channels.
        channels: usize,
        /// Applied before the residual.
        activation: Activation,
    },
    /// One filter a channel; weight `(channels, 1, kernel, kernel)`. A second input is added after the activation.
    Depthwise {
        /// Odd side of the window.
        kernel: usize,
        /// 1 or 2.
        stride: usize,
        /// Whether there is a bias `(channels)`.
        bias: bool,
        /// Applied before the residual.
        activation: Activation,
    },
    /// Maximum over a 3x3 window, stride 2, padded by 1.
    MaxPool,
    /// Multi-head attention over all positions. The input's channels are q, k, v, each `heads` x head width.
    /// q and k are divided by `head_width^(1/4)`, so that q.k carries the customary `1/sqrt(head_width)`.
    Attention {
        /// How values are weighed.
        mixing: Mixing,
        /// Number of heads.
        heads: usize,
        /// Which positions are seen.
        mask: Mask,
    },
    /// `u * silu(g)` of two inputs of one shape.
    Gate,
    /// `a + b` of two inputs of one shape.
    Add,
    /// Gates of experts: of the softmax over the channels of a position the `active` largest, the first of equal ones; of several the
    /// sum is 1. The other channels are 0.
    Route {
        /// How many channels are not 0.
        active: usize,
        /// Whether those are all 1 instead.
        equal: bool,
    },
    /// Channels of the first input times those of the second, which has one for each `channels / second channels` neighbours.
    Scale,
    /// Each value twice in both directions.
    Upsample,
    /// View: channels `start, start + step, ...` of the input.
    Slice {
        /// First channel.
        start: usize,
        /// Distance between channels.
        step: usize,
        /// How many.
        count: usize,
    },
    /// View: the channels of all inputs, one after the other.
    Concat,
    /// View: channel `i * groups + g` of the output is channel `g * (channels / groups) + i` of the input.
    Shuffle {
        /// Number of groups that are interleaved.
        groups: usize,
    },
}

impl Op {
    /// A short name for tables.
    pub fn label(&self) -> String {
        match *self {
            Op::Input(_) => "input".into(),
            Op::Conv { kernel, stride, .. } => format!("conv {kernel}x{kernel} /{stride}"),
            Op::IntegerConv { .. } => "int8 conv 1x1 /1".into(),
            Op::Depthwise { kernel, stride, .. } => format!("depthwise {kernel}x{kernel} /{stride}"),
            Op::MaxPool => "max pool 3x3 /2".into(),
            Op::Attention { mixing, heads, mask } => {
                let causal = if mask == Mask::Causal { "causal " } else { "" };
                match mixing {
                    Mixing::Softmax => format!("{causal}softmax attention, {heads} heads"),
                    Mixing::Linear(kernel) => format!("{causal}exact linear attention, {kernel:?}, {heads} heads"),
                }
            }
            Op::Gate => "gate".into(),
            Op::Add => "add".into(),
            Op::Route { active, equal } => format!("{}route to {active}", if equal { "equal " } else { "" }),
            Op::Scale => "scale".into(),
            Op::Upsample => "upsample x2".into(),
            Op::Slice { start, step, .. } => format!("slice {start}::{step}"),
            Op::Concat => "concat".into(),
            Op::Shuffle { groups } => format!("shuffle {groups}"),
        }
    }

    /// Whether the node only names planes of other nodes and moves no data.
    pub fn is_view(&self) -> bool {
        matches!(self, Op::Slice { .. } | Op::Concat | Op::Shuffle { .. })
    }

    /// The shape of what comes out: the only place that knows it.
    ///
    /// # Errors
    /// The operation cannot read such inputs, or has parameters that mean nothing.
    pub fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, ShapeError> {
        self.check_parameters()?;
        let (most, expected) = match self {
            Op::Input(_) => (0, "none"),
            Op::Conv { .. } | Op::IntegerConv { .. } | Op::Depthwise { .. } => (2, "1, or 2 with a residual"),
            Op::Gate | Op::Add | Op::Scale => (2, "2"),
            Op::Concat => (usize::MAX, "1 or more"),
            _ => (1, "1"),
        };
        let least = if matches!(self, Op::Gate | Op::Add | Op::Scale) { 2 } else { most.min(1) };
        if !(least..=most).contains(&inputs.len()) {
            return Err(ShapeError::Inputs { expected, found: inputs.len() });
        }
        let input = inputs.first().copied().unwrap_or_default();
        let shape = match *self {
            Op::Input(shape) => shape,
            Op::Conv { channels, stride, .. } => Shape { channels, ..input.strided(stride) },
            // Sums of more would not fit.
            Op::IntegerConv { .. } if input.channels > MOST_LEVELS => {
                let expected = "at most 131072";
                return Err(ShapeError::Parameter { what: "channels in integers", expected, found: input.channels });
            }
            Op::IntegerConv { channels, .. } => Shape { channels, ..input },
            Op::Depthwise { stride, .. } => input.strided(stride),
            Op::MaxPool => input.strided(2),
            Op::Attention { heads, .. } => Shape { channels: input.divided(3 * heads)? * heads, ..input },
            Op::Gate | Op::Add => input,
            Op::Route { active, .. } if active > input.channels => {
                return Err(ShapeError::Parameter { what: "active", expected: "at most the channels", found: active });
            }
            Op::Route { .. } => input,
            Op::Scale => {
                input.divided(inputs[1].channels.max(1))?;
                input
            }
            Op::Upsample => {
                let twice = |side: usize| side.checked_mul(2).ok_or(ShapeError::TooLarge);
                Shape { channels: input.channels, height: twice(input.height)?, width: twice(input.width)? }
            }
            Op::Slice { start, step, count } => {
                let last = (count - 1).checked_mul(step).and_then(|last| last.checked_add(start));
                if last.is_none_or(|last| last >= input.channels) {
                    return Err(ShapeError::Slice { start, step, count, channels: input.channels });
                }
                Shape { channels: count, ..input }
            }
            Op::Concat => {
                let channels = inputs.iter().try_fold(0usize, |sum, shape| sum.checked_add(shape.channels));
                Shape { channels: channels.ok_or(ShapeError::TooLarge)?, ..input }
            }
            Op::Shuffle { groups } => {
                input.divided(groups)?;
                input
            }
        };
        let expected = match self {
            Op::Conv { .. } | Op::IntegerConv { .. } | Op::Depthwise { .. } => shape,
            _ => input,
        };
        for other in inputs.iter().skip(1) {
            let any_channels = matches!(self, Op::Concat | Op::Scale);
            if *other != expected && !(any_channels && Shape { channels: expected.channels, ..*other } == expected) {
                return Err(ShapeError::Differ { expected, found: *other });
            }
        }
        match [shape.channels, shape.height, shape.width].contains(&0) {
            true => Err(ShapeError::Empty(shape)),
            false => Ok(shape),
        }
    }

    fn check_parameters(&self) -> Result<(), ShapeError> {
        let wrong = |what, expected, found| Err(ShapeError::Parameter { what, expected, found });
        if let Op::Conv { kernel, stride, .. } | Op::Depthwise { kernel, stride, .. } = *self {
            if kernel % 2 == 0 || kernel > LARGEST_KERNEL {
                return wrong("kernel", "an odd side from 1 to 15", kernel);
            }
            if !(1..=2).contains(&stride) {
                return wrong("stride", "1 or 2", stride);
            }
        }
        if let Op::Conv { activation: Activation::LeakyRelu(slope), .. }
        | Op::IntegerConv { activation: Activation::LeakyRelu(slope), .. }
        | Op::Depthwise { activation: Activation::LeakyRelu(slope), .. } = *self
            && !(0.0..=1.0).contains(&slope)
        {
            return Err(ShapeError::Slope(slope));
        }
        match *self {
            // Three times the heads divide the channels, of which there are fewer than this.
            Op::Attention { heads, .. } if heads == 0 || heads > usize::MAX / 3 => wrong("heads", "1 or more", heads),
            Op::Route { active: 0, .. } => wrong("active", "1 or more", 0),
            Op::Slice { step: 0, .. } => wrong("step", "1 or more", 0),
            Op::Slice { count: 0, .. } => wrong("count", "1 or more", 0),
            Op::Shuffle { groups: 0 } => wrong("groups", "1 or more", 0),
            _ => Ok(()),
        }
    }
}

/// Most channels that are multiplied in integers: as many times 127 times 63 fit in 32 bits.
const MOST_LEVELS: usize = 1 << 17;

/// Largest side of a convolution's window.
const LARGEST_KERNEL: usize = 15;

/// Why an operation cannot read what it is given.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ShapeError {
    /// Too few or too many inputs.
    #[error("{found} inputs, expected {expected}")]
    Inputs {
        /// How many it reads.
        expected: &'static str,
        /// How many there are.
        found: usize,
    },
    /// A parameter without meaning.
    #[error("{what} {found}, expected {expected}")]
    Parameter {
        /// Which.
        what: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        found: usize,
    },
    /// An activation without meaning.
    #[error("slope {0}, expected a number from 0 to 1")]
    Slope(f32),
    /// Channels that cannot be shared out.
    #[error("{channels} channels do not divide into {parts} equal parts")]
    Divide {
        /// Of the input.
        channels: usize,
        /// Into how many.
        parts: usize,
    },
    /// Channels that are not there.
    #[error("channels {start}, {start} + {step}, ... ({count}) are not all among the input's {channels}")]
    Slice {
        /// First channel.
        start: usize,
        /// Distance.
        step: usize,
        /// How many.
        count: usize,
        /// Of the input.
        channels: usize,
    },
    /// Inputs that do not belong together.
    #[error("an input of shape {found} where {expected} is needed")]
    Differ {
        /// What it must be.
        expected: Shape,
        /// What it is.
        found: Shape,
    },
    /// A map without values.
    #[error("a map of shape {0} has no values")]
    Empty(Shape),
    /// Sides beyond a machine word.
    #[error("the sides of the result are beyond any memory")]
    TooLarge,
}
