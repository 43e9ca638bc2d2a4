//! Reference engine: naive loops over ndarray, f32 values with f64 sums. The oracle of every test; never optimised.

use ndarray::{
    Array1, Array2, Array3, Array4, ArrayView1, ArrayView2, ArrayView3, ArrayView4, Axis, Ix1, Ix4, s, stack,
};

use super::{Engine, EngineError, check_input};
use crate::model::config::{AttentionKind, KernelKind};
use crate::model::graph::{Activation, Node, Op, Shape};
use crate::model::{Graph, Weights};
use yolo_lat_attention::{
    self as attention, DiffDistance, HadamardExp, ModulatedDot, Similarity, Softmax, SumDistance,
};

/// Interprets a graph node by node; every feature map is a fresh array (channels, rows, columns).
pub struct ReferenceEngine {
    graph: Graph,
    weights: Weights,
    outputs: Vec<Array4<f32>>,
}

impl ReferenceEngine {
    /// `weights` must have been checked against `graph`; a missing tensor counts as zeros.
    pub fn new(graph: Graph, weights: Weights) -> Self {
        Self { graph, weights, outputs: Vec::new() }
    }

    /// All feature maps of one picture (3, height, width), one for each node of the graph.
    pub fn feature_maps(&self, picture: ArrayView3<f32>) -> Vec<Array3<f32>> {
        let mut maps: Vec<Array3<f32>> = Vec::with_capacity(self.graph.nodes.len());
        for node in &self.graph.nodes {
            let inputs: Vec<ArrayView3<f32>> = node.inputs.iter().map(|&input| maps[input].view()).collect();
            let map = match node.op {
                Op::Input => picture.to_owned(),
                Op::Conv { stride, activation, .. } => add_residual(
                    convolution(inputs[0], &self.filter(node), &self.bias(node), stride, activation),
                    &inputs,
                ),
                Op::Depthwise { stride, activation, .. } => add_residual(
                    depthwise(inputs[0], &self.filter(node), &self.bias(node), stride, activation),
                    &inputs,
                ),
                Op::MaxPool => max_pool(inputs[0]),
                Op::Attention { kind, kernel, heads } => multi_head(inputs[0], kind, kernel, heads),
                Op::Gate => gate(inputs[0], inputs[1]),
                Op::Add => &inputs[0] + &inputs[1],
                Op::Upsample => upsample(inputs[0]),
                Op::Slice { .. } | Op::Concat | Op::Shuffle { .. } => {
                    let planes = self.graph.planes(node_id(&maps));
                    let planes: Vec<_> =
                        planes.iter().map(|plane| maps[plane.node].index_axis(Axis(0), plane.channel)).collect();
                    gather(&planes, node.shape)
                }
            };
            maps.push(map);
        }
        maps
    }

    fn filter(&self, node: &Node) -> Array4<f32> {
        let [weight, ..] = &self.graph.weights_of(node)[..] else { return Array4::zeros((0, 0, 0, 0)) };
        let shape = [weight.shape[0], weight.shape[1], weight.shape[2], weight.shape[3]];
        self.tensor(&weight.name)
            .and_then(|array| array.into_dimensionality::<Ix4>().ok())
            .unwrap_or_else(|| Array4::zeros(shape))
    }

    fn bias(&self, node: &Node) -> Array1<f32> {
        let bias = self.tensor(&format!("{}.bias", node.name));
        bias.and_then(|array| array.into_dimensionality::<Ix1>().ok())
            .unwrap_or_else(|| Array1::zeros(node.shape.channels))
    }

    fn tensor(&self, name: &str) -> Option<ndarray::ArrayD<f32>> {
        let tensor = self.weights.get(name)?;
        ndarray::ArrayD::from_shape_vec(tensor.shape.clone(), tensor.values.to_vec()).ok()
    }
}

/// The node that is computed next.
fn node_id(maps: &[Array3<f32>]) -> usize {
    maps.len()
}

impl Engine for ReferenceEngine {
    fn description(&self) -> String {
        "reference (naive loops)".into()
    }

    fn input(&self) -> Shape {
        self.graph.input()
    }

    fn run(&mut self, pictures: ArrayView4<f32>) -> Result<&[Array4<f32>], EngineError> {
        check_input(&pictures, self.input())?;
        let batch: Vec<_> = pictures.outer_iter().map(|picture| self.feature_maps(picture)).collect();
        self.outputs = self.graph.outputs().map(|output| join(&batch, output)).collect();
        Ok(&self.outputs)
    }
}

/// One output of every picture in a batch: (n, channels, rows, columns).
fn join(batch: &[Vec<Array3<f32>>], output: usize) -> Array4<f32> {
    let (channels, height, width) = batch[0][output].dim();
    let mut joined = Array4::zeros((batch.len(), channels, height, width));
    for (maps, mut target) in batch.iter().zip(joined.outer_iter_mut()) {
        target.assign(&maps[output]);
    }
    joined
}

fn gather(planes: &[ndarray::ArrayView2<f32>], shape: Shape) -> Array3<f32> {
    stack(Axis(0), planes).unwrap_or_else(|_| Array3::zeros((shape.channels, shape.height, shape.width)))
}

fn add_residual(map: Array3<f32>, inputs: &[ArrayView3<f32>]) -> Array3<f32> {
    match inputs.get(1) {
        Some(residual) => map + residual,
        None => map,
    }
}

/// `filter` (out, in, kernel, kernel); zeros outside of the picture.
fn convolution(
    x: ArrayView3<f32>,
    filter: &Array4<f32>,
    bias: &Array1<f32>,
    stride: usize,
    activation: Activation,
) -> Array3<f32> {
    let (_, height, width) = x.dim();
    let mut map = Array3::zeros((filter.dim().0, height.div_ceil(stride), width.div_ceil(stride)));
    for ((mut map, filter), &bias) in map.outer_iter_mut().zip(filter.outer_iter()).zip(bias) {
        let mut sums = Array2::from_elem(map.dim(), f64::from(bias));
        for (plane, filter) in x.outer_iter().zip(filter.outer_iter()) {
            add_window(&mut sums, plane, filter, stride);
        }
        map.zip_mut_with(&sums, |value, &sum| *value = activation.apply(sum as f32));
    }
    map
}

/// `filter` (channels, 1, kernel, kernel).
fn depthwise(
    x: ArrayView3<f32>,
    filter: &Array4<f32>,
    bias: &Array1<f32>,
    stride: usize,
    activation: Activation,
) -> Array3<f32> {
    let (channels, height, width) = x.dim();
    let mut map = Array3::zeros((channels, height.div_ceil(stride), width.div_ceil(stride)));
    for (c, mut map) in map.outer_iter_mut().enumerate() {
        let mut sums = Array2::from_elem(map.dim(), f64::from(bias[c]));
        add_window(&mut sums, x.index_axis(Axis(0), c), filter.slice(s![c, 0, .., ..]), stride);
        map.zip_mut_with(&sums, |value, &sum| *value = activation.apply(sum as f32));
    }
    map
}

/// Adds to every position the sum of `filter` times the window of `plane` centred there, one tap of the filter after the
/// other; zeros outside.
fn add_window(sums: &mut Array2<f64>, plane: ArrayView2<f32>, filter: ArrayView2<f32>, stride: usize) {
    let reach = filter.dim().0 / 2;
    for ((dy, dx), &weight) in filter.indexed_iter() {
        for (row, mut sums) in sums.outer_iter_mut().enumerate() {
            // Wraps below zero to a huge number, which is outside like one beyond the far border.
            let y = (row * stride + dy).wrapping_sub(reach);
            if y >= plane.nrows() {
                continue;
            }
            let line = plane.row(y);
            for (column, sum) in sums.iter_mut().enumerate() {
                if let Some(&value) = line.get((column * stride + dx).wrapping_sub(reach)) {
                    *sum += f64::from(weight) * f64::from(value);
                }
            }
        }
    }
}

fn max_pool(x: ArrayView3<f32>) -> Array3<f32> {
    let (channels, height, width) = x.dim();
    Array3::from_shape_fn((channels, height.div_ceil(2), width.div_ceil(2)), |(c, row, column)| {
        let mut peak = f32::NEG_INFINITY;
        for y in (2 * row).saturating_sub(1)..(2 * row + 2).min(height) {
            for x_ in (2 * column).saturating_sub(1)..(2 * column + 2).min(width) {
                peak = peak.max(x[(c, y, x_)]);
            }
        }
        peak
    })
}

/// Attention in its quadratic form; `x` holds q, k, v along the channels.
fn multi_head(x: ArrayView3<f32>, kind: AttentionKind, kernel: KernelKind, heads: usize) -> Array3<f32> {
    let (channels, height, width) = x.dim();
    let width_all = channels / 3;
    let head = width_all / heads;
    let scale = (head as f64).powf(-0.25);
    let similarity: &dyn Similarity = match (kind, kernel) {
        (AttentionKind::Softmax | AttentionKind::None, _) => &Softmax,
        (AttentionKind::Ela, KernelKind::HadamardExp) => &HadamardExp,
        (AttentionKind::Ela, KernelKind::SumDistance) => &SumDistance,
        (AttentionKind::Ela, KernelKind::DiffDistance) => &DiffDistance,
        (AttentionKind::Ela, KernelKind::ModulatedDot) => &ModulatedDot,
    };
    let mut result = Array3::zeros((width_all, height, width));
    for index in 0..heads {
        let tokens = |part: usize, scale: f64| -> Vec<f64> {
            let first = part * width_all + index * head;
            let rows = x.slice(s![first..first + head, .., ..]);
            let rows: Vec<ArrayView1<f32>> = rows.lanes(Axis(0)).into_iter().collect();
            rows.iter().flatten().map(|&value| f64::from(value) * scale).collect()
        };
        let attended = attention::quadratic(similarity, &tokens(0, scale), &tokens(1, scale), &tokens(2, 1.0), head);
        for (token, values) in attended.chunks_exact(head).enumerate() {
            for (d, &value) in values.iter().enumerate() {
                result[(index * head + d, token / width, token % width)] = value as f32;
            }
        }
    }
    result
}

fn gate(u: ArrayView3<f32>, g: ArrayView3<f32>) -> Array3<f32> {
    let silu = g.mapv(|g| (f64::from(g) / (1.0 + (-f64::from(g)).exp())) as f32);
    &u * &silu
}

fn upsample(x: ArrayView3<f32>) -> Array3<f32> {
    let (channels, height, width) = x.dim();
    Array3::from_shape_fn((channels, 2 * height, 2 * width), |(c, row, column)| x[(c, row / 2, column / 2)])
}
