//! Reference engine: naive loops over ndarray, f32 values with f64 sums. The oracle of every test; never optimised.

use std::cmp::Ordering;

use ndarray::{Array1, Array2, Array3, Array4, ArrayView1, ArrayView2, ArrayView3, ArrayView4, Axis, s, stack};

use super::{Engine, EngineError, check_input};
use crate::model::Network;
use crate::model::graph::{Activation, Mask, Mixing, Node, Op, Shape};
use crate::model::integers::Integers;
use yolo_lat_attention::quadratic;

/// Interprets a graph node by node; every feature map is a fresh array (channels, rows, columns).
pub struct ReferenceEngine {
    network: Network,
    outputs: Vec<Array4<f32>>,
}

impl ReferenceEngine {
    /// Interprets `network`: no preparation.
    pub fn new(network: Network) -> Self {
        Self { network, outputs: Vec::new() }
    }

    /// All feature maps of one image (3, height, width), one for each node of the graph.
    pub fn feature_maps(&self, image: ArrayView3<f32>) -> Vec<Array3<f32>> {
        let mut maps: Vec<Array3<f32>> = Vec::with_capacity(self.network.nodes.len());
        for (id, node) in self.network.nodes.iter().enumerate() {
            let inputs: Vec<ArrayView3<f32>> = node.inputs.iter().map(|&input| maps[input].view()).collect();
            let map = match node.op {
                Op::Input(_) => image.to_owned(),
                Op::Conv { stride, activation, .. } => add_residual(
                    convolution(inputs[0], &self.filter(node), &self.bias(node), (stride, activation), node.shape),
                    &inputs,
                ),
                Op::IntegerConv { activation, .. } => {
                    add_residual(integer_convolution(inputs[0], &self.network.integers(node), activation), &inputs)
                }
                Op::Depthwise { stride, activation, .. } => add_residual(
                    depthwise(inputs[0], &self.filter(node), &self.bias(node), (stride, activation), node.shape),
                    &inputs,
                ),
                Op::MaxPool => max_pool(inputs[0], node.shape),
                Op::Attention { mixing, heads, mask } => multi_head(inputs[0], mixing, heads, mask, node.shape),
                Op::Gate => gate(inputs[0], inputs[1]),
                Op::Add => &inputs[0] + &inputs[1],
                Op::Route { active, equal } => route(inputs[0], active, equal),
                Op::Scale => scale(inputs[0], inputs[1]),
                Op::Upsample => upsample(inputs[0], node.shape),
                Op::Slice { .. } | Op::Concat | Op::Shuffle { .. } => {
                    let planes = self.network.planes(id);
                    let planes: Vec<_> =
                        planes.iter().map(|plane| maps[plane.node].index_axis(Axis(0), plane.channel)).collect();
                    gather(&planes, node.shape)
                }
            };
            maps.push(map);
        }
        maps
    }

    /// (channels, inputs, kernel, kernel)
    fn filter(&self, node: &Node) -> Array4<f32> {
        let shape = self.network.weights_of(node).swap_remove(0).shape;
        let shape = (shape[0], shape[1], shape[2], shape[3]);
        Array4::from_shape_vec(shape, self.network.filter(node).0).unwrap_or_else(|_| unreachable!("it was checked"))
    }

    fn bias(&self, node: &Node) -> Array1<f32> {
        self.network.filter(node).1.into()
    }
}

impl Engine for ReferenceEngine {
    fn description(&self) -> String {
        "reference (naive loops)".into()
    }

    fn input(&self) -> Shape {
        self.network.input()
    }

    fn run(&mut self, images: ArrayView4<f32>) -> Result<&[Array4<f32>], EngineError> {
        check_input(&images, self.input())?;
        let batch: Vec<_> = images.outer_iter().map(|image| self.feature_maps(image)).collect();
        self.outputs = self.network.outputs().map(|output| join(&batch, output)).collect();
        Ok(&self.outputs)
    }
}

/// One output of every image in a batch: (n, channels, rows, columns).
fn join(batch: &[Vec<Array3<f32>>], output: usize) -> Array4<f32> {
    let (channels, height, width) = batch[0][output].dim();
    let mut joined = Array4::zeros((batch.len(), channels, height, width));
    for (maps, mut target) in batch.iter().zip(joined.outer_iter_mut()) {
        target.assign(&maps[output]);
    }
    joined
}

fn zeros(shape: Shape) -> Array3<f32> {
    Array3::zeros((shape.channels, shape.height, shape.width))
}

fn gather(planes: &[ndarray::ArrayView2<f32>], shape: Shape) -> Array3<f32> {
    stack(Axis(0), planes).unwrap_or_else(|_| zeros(shape))
}

fn add_residual(map: Array3<f32>, inputs: &[ArrayView3<f32>]) -> Array3<f32> {
    match inputs.get(1) {
        Some(residual) => map + residual,
        None => map,
    }
}

/// `filter` (out, in, kernel, kernel); zeros outside of the image.
fn convolution(
    x: ArrayView3<f32>,
    filter: &Array4<f32>,
    bias: &Array1<f32>,
    (stride, activation): (usize, Activation),
    shape: Shape,
) -> Array3<f32> {
    let mut map = zeros(shape);
    for ((mut map, filter), &bias) in map.outer_iter_mut().zip(filter.outer_iter()).zip(bias) {
        let mut sums = Array2::from_elem(map.dim(), f64::from(bias));
        for (plane, filter) in x.outer_iter().zip(filter.outer_iter()) {
            add_window(&mut sums, plane, filter, stride);
        }
        map.zip_mut_with(&sums, |value, &sum| *value = activation.apply(sum as f32));
    }
    map
}

fn integer_convolution(x: ArrayView3<f32>, integers: &Integers, activation: Activation) -> Array3<f32> {
    let (inputs, height, width) = x.dim();
    let levels = Array3::from_shape_fn(x.dim(), |at| i32::from(integers.level(at.0, x[at])));
    Array3::from_shape_fn((integers.bias.len(), height, width), |(channel, row, column)| {
        let weights = &integers.weights[channel * inputs..][..inputs];
        let levels = levels.slice(s![.., row, column]);
        let sum = weights.iter().zip(levels).map(|(&weight, &level)| i32::from(weight) * level).sum();
        activation.apply(integers.value(channel, sum))
    })
}

/// `filter` (channels, 1, kernel, kernel).
fn depthwise(
    x: ArrayView3<f32>,
    filter: &Array4<f32>,
    bias: &Array1<f32>,
    (stride, activation): (usize, Activation),
    shape: Shape,
) -> Array3<f32> {
    let mut map = zeros(shape);
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

fn max_pool(x: ArrayView3<f32>, shape: Shape) -> Array3<f32> {
    let (_, height, width) = x.dim();
    Array3::from_shape_fn(zeros(shape).dim(), |(c, row, column)| {
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
fn multi_head(x: ArrayView3<f32>, mixing: Mixing, heads: usize, mask: Mask, shape: Shape) -> Array3<f32> {
    let (width_all, width) = (shape.channels, shape.width);
    let head = width_all / heads;
    let scale = (head as f64).powf(-0.25);
    let similarity = mixing.similarity();
    let mut result = zeros(shape);
    for index in 0..heads {
        let tokens = |part: usize, scale: f64| -> Vec<f64> {
            let first = part * width_all + index * head;
            let rows = x.slice(s![first..first + head, .., ..]);
            let rows: Vec<ArrayView1<f32>> = rows.lanes(Axis(0)).into_iter().collect();
            rows.iter().flatten().map(|&value| f64::from(value) * scale).collect()
        };
        let [queries, keys, values] = [tokens(0, scale), tokens(1, scale), tokens(2, 1.0)];
        let attended = match mask {
            Mask::Full => quadratic(similarity, &queries, &keys, &values, head),
            Mask::Causal => (0..queries.len())
                .step_by(head)
                .flat_map(|at| {
                    let seen = ..at + head;
                    quadratic(similarity, &queries[at..at + head], &keys[seen], &values[seen], head)
                })
                .collect(),
        };
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

fn route(scores: ArrayView3<f32>, active: usize, equal: bool) -> Array3<f32> {
    let mut gates = Array3::zeros(scores.dim());
    for (scores, mut gates) in scores.lanes(Axis(0)).into_iter().zip(gates.lanes_mut(Axis(0))) {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        // Keeps the order of equal ones, of which 0 and -0 are.
        order.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).unwrap_or(Ordering::Equal));
        let chosen = &order[..active];
        let share = |channel: usize| f64::from(scores[channel] - scores[order[0]]).exp();
        let whole: f64 = if active == 1 { &order[..] } else { chosen }.iter().map(|&channel| share(channel)).sum();
        for &channel in chosen {
            gates[channel] = if equal { 1.0 } else { (share(channel) / whole) as f32 };
        }
    }
    gates
}

fn scale(x: ArrayView3<f32>, factors: ArrayView3<f32>) -> Array3<f32> {
    let each = x.dim().0 / factors.dim().0;
    Array3::from_shape_fn(x.dim(), |(c, row, column)| x[(c, row, column)] * factors[(c / each, row, column)])
}

fn upsample(x: ArrayView3<f32>, shape: Shape) -> Array3<f32> {
    Array3::from_shape_fn(zeros(shape).dim(), |(c, row, column)| x[(c, row / 2, column / 2)])
}
