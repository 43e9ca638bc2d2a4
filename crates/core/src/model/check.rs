//! What an engine may rely on: a graph whose names, order, shapes, sizes and outputs have been proved, and its weights with it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use super::graph::{Graph, Node, NodeId, Op, Shape, ShapeError};
use super::integers::{HIGHEST_LEVEL, step_name, zero_name};
use super::weights::{Tensor, Weights};

/// Values of all feature maps together at most, so that offsets of 32 bits do.
const MOST_VALUES: usize = 1 << 31;
/// Channels of all nodes together at most: each is a number in some list.
const MOST_CHANNELS: usize = 1 << 20;
/// Weights at most: a file holds no more.
const MOST_WEIGHTS: usize = 1 << 28;

/// Why a graph describes no network.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// The first node is something else.
    #[error("the first node of a graph is its input, and no other is")]
    Input,
    /// Two nodes would have the same weights.
    #[error("node {node}: the name {name:?} is empty or another node's")]
    Name {
        /// The second of them.
        node: NodeId,
        /// Their name.
        name: String,
    },
    /// A node reads what is not there yet.
    #[error("node {name:?} reads node {input}, which does not come before it")]
    Order {
        /// The reader.
        name: String,
        /// What it reads.
        input: NodeId,
    },
    /// An operation cannot read its inputs.
    #[error("node {name:?} ({operation}): {reason}")]
    Operation {
        /// The node.
        name: String,
        /// What it computes.
        operation: String,
        /// Why it cannot.
        reason: ShapeError,
    },
    /// A node says that it has another shape.
    #[error("node {name:?} says it has the shape {stated}, but its inputs make it {found}")]
    Shape {
        /// The node.
        name: String,
        /// What it says.
        stated: Shape,
        /// What follows.
        found: Shape,
    },
    /// More than any engine holds.
    #[error("up to node {name:?} the graph has more than {most} {what}; take a smaller input or network")]
    TooLarge {
        /// Where the limit is passed.
        name: String,
        /// Of what.
        what: &'static str,
        /// The limit.
        most: usize,
    },
    /// Nothing is asked for, or something that is not there or no detection head.
    #[error("the graph's outputs: {reason}")]
    Outputs {
        /// What is wrong.
        reason: String,
    },
}

/// A graph that has been proved to describe a network: what every engine takes.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedGraph(Graph);

impl Deref for CheckedGraph {
    type Target = Graph;

    fn deref(&self) -> &Graph {
        &self.0
    }
}

impl Graph {
    /// Proves that names are unique, inputs come before their readers, every shape follows from the inputs', sizes are within
    /// bounds, and outputs exist.
    ///
    /// # Errors
    /// The first node that is wrong, and why.
    pub fn check(self) -> Result<CheckedGraph, GraphError> {
        let mut names = BTreeSet::new();
        let (mut values, mut channels, mut weights) = (0usize, 0usize, 0usize);
        for (id, node) in self.nodes.iter().enumerate() {
            if matches!(node.op, Op::Input(_)) != (id == 0) {
                return Err(GraphError::Input);
            }
            if node.name.is_empty() || !names.insert(node.name.as_str()) {
                return Err(GraphError::Name { node: id, name: node.name.clone() });
            }
            self.check_shape(id, node)?;
            let Shape { channels: own, height, width } = node.shape;
            let owned = if node.op.is_view() { 0 } else { own.saturating_mul(height).saturating_mul(width) };
            let parameters = self.weights_of(node).into_iter();
            let parameters = parameters.map(|spec| spec.shape.into_iter().fold(1, usize::saturating_mul));
            for (sum, more, most, what) in [
                (&mut values, owned, MOST_VALUES, "values in its feature maps"),
                (&mut channels, own, MOST_CHANNELS, "channels"),
                (&mut weights, parameters.fold(0, usize::saturating_add), MOST_WEIGHTS, "weights"),
            ] {
                *sum = sum.saturating_add(more);
                if *sum > most {
                    return Err(GraphError::TooLarge { name: node.name.clone(), what, most });
                }
            }
        }
        if self.nodes.is_empty() {
            return Err(GraphError::Input);
        }
        self.check_outputs().map_err(|reason| GraphError::Outputs { reason })?;
        Ok(CheckedGraph(self))
    }

    fn check_shape(&self, id: NodeId, node: &Node) -> Result<(), GraphError> {
        if let Some(&input) = node.inputs.iter().find(|&&input| input >= id) {
            return Err(GraphError::Order { name: node.name.clone(), input });
        }
        let shapes: Vec<Shape> = node.inputs.iter().map(|&input| self.nodes[input].shape).collect();
        let found = node.op.output_shape(&shapes).map_err(|reason| {
            let (name, operation) = (node.name.clone(), node.op.label());
            GraphError::Operation { name, operation, reason }
        })?;
        if found != node.shape {
            return Err(GraphError::Shape { name: node.name.clone(), stated: node.shape, found });
        }
        Ok(())
    }

    fn check_outputs(&self) -> Result<(), String> {
        let named = |id: NodeId| self.nodes.get(id).ok_or_else(|| format!("there is no node {id}"));
        self.taps.iter().try_for_each(|&tap| named(tap).map(drop))?;
        let bins = self.head.bins;
        for scale in &self.scales {
            let (class, boxes) = (named(scale.class)?, named(scale.boxes)?);
            let classes = named(self.scales[0].class)?.shape.channels;
            let expected = Shape { channels: bins.saturating_mul(4), ..class.shape };
            if boxes.shape != expected || class.shape.channels != classes || scale.stride == 0 {
                return Err(format!(
                    "a scale of stride {} has class logits {} and box logits {}, expected {classes} channels and {expected}",
                    scale.stride, class.shape, boxes.shape
                ));
            }
        }
        let reach = self.head.max_distance;
        if !self.scales.is_empty() && (bins < 2 || !reach.is_finite() || reach <= 0.0) {
            return Err(format!(
                "a head of {bins} bins up to a distance of {reach}, expected 2 bins or more up to a positive one"
            ));
        }
        if self.scales.is_empty() && self.taps.is_empty() {
            return Err("neither scales nor taps: nothing is asked for".into());
        }
        Ok(())
    }
}

impl CheckedGraph {
    /// The graph with a change, checked again.
    ///
    /// # Errors
    /// As [`Graph::check`].
    pub fn edit(&self, change: impl FnOnce(&mut Graph)) -> Result<Self, GraphError> {
        let mut graph = self.0.clone();
        change(&mut graph);
        graph.check()
    }

    /// Joins the graph with its weights: exactly the tensors of [`Graph::weights`], every value a finite number.
    ///
    /// # Errors
    /// The first tensor that is missing, unknown, of another shape, or not finite.
    pub fn with(&self, weights: Weights) -> Result<Network, WeightsError> {
        let model = || self.name.clone();
        let mut unknown: BTreeMap<&str, &Tensor> = weights.iter().collect();
        for spec in self.weights() {
            let (name, expected) = (spec.name, spec.shape);
            let Some(tensor) = unknown.remove(name.as_str()) else {
                return Err(WeightsError::Missing { name, expected, model: model() });
            };
            if tensor.shape != expected {
                return Err(WeightsError::Shape { name, expected, found: tensor.shape.clone(), model: model() });
            }
            let (expected, found) = (expected.iter().product(), tensor.values.len());
            if found != expected {
                return Err(WeightsError::Values { name, expected, found });
            }
            tensor.check_finite(&name)?;
        }
        self.check_steps(&weights)?;
        if let Some((name, tensor)) = unknown.pop_first() {
            return Err(WeightsError::Unexpected { name: name.into(), found: tensor.shape.clone(), model: model() });
        }
        Ok(Network { graph: self.clone(), weights })
    }
}

impl CheckedGraph {
    /// Steps are lengths, zeros are levels.
    fn check_steps(&self, weights: &Weights) -> Result<(), WeightsError> {
        let integers = self.nodes.iter().filter(|node| matches!(node.op, Op::IntegerConv { .. }));
        for node in integers {
            let is_step: fn(f32) -> bool = |value| (1e-12..=1e12).contains(&value);
            let is_weight: fn(f32) -> bool = |value| value.abs() <= 1e12;
            let is_level: fn(f32) -> bool = |value| (0.0..=HIGHEST_LEVEL).contains(&value) && value.fract() == 0.0;
            let (step, zero) = (step_name(&node.name), zero_name(&node.name));
            for (name, holds, expected) in [
                (format!("{}.weight", node.name), is_weight, "a number of no more than 1e12 in integers"),
                (step, is_step, "a number from 1e-12 to 1e12"),
                (zero, is_level, "a whole number from 0 to 127"),
            ] {
                let values = weights.get(&name).map_or(&[][..], |tensor| &tensor.values);
                if let Some(index) = values.iter().position(|&value| !holds(value)) {
                    return Err(WeightsError::Step { name, index, value: values[index], expected });
                }
            }
        }
        Ok(())
    }
}

/// Why weights are not those of a graph.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The network needs a tensor that is not there.
    #[error("tensor {name} {expected:?} is missing; these weights belong to another architecture than {model}")]
    Missing {
        /// The tensor.
        name: String,
        /// Its shape in the network.
        expected: Vec<usize>,
        /// The network.
        model: String,
    },
    /// There is a tensor that the network does not know.
    #[error("tensor {name} {found:?} is not part of {model}; these weights belong to another architecture")]
    Unexpected {
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The network.
        model: String,
    },
    /// A tensor has another shape.
    #[error("tensor {name} has shape {found:?}, expected {expected:?} for {model}")]
    Shape {
        /// The tensor.
        name: String,
        /// What the network needs.
        expected: Vec<usize>,
        /// What it has.
        found: Vec<usize>,
        /// The network.
        model: String,
    },
    /// A tensor has not as many values as its shape says.
    #[error("tensor {name} holds {found} values, but its shape says {expected}")]
    Values {
        /// The tensor.
        name: String,
        /// As its shape says.
        expected: usize,
        /// As there are.
        found: usize,
    },
    /// What integers are made of means nothing.
    #[error("tensor {name} holds {value} at index {index}, expected {expected}")]
    Step {
        /// The tensor.
        name: String,
        /// Flat index of the first such value.
        index: usize,
        /// The value.
        value: f32,
        /// What it may be.
        expected: &'static str,
    },
    /// A weight is NaN or infinite.
    #[error("tensor {name} holds {value} at index {index}; every weight must be a finite number")]
    NotFinite {
        /// The tensor.
        name: String,
        /// Flat index of the first such value.
        index: usize,
        /// The value.
        value: f32,
    },
}

/// Why a network could not be changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NetworkError {
    /// The change leaves no valid graph.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The graph then needs other weights.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// A graph and its weights, proved to belong together: all that an engine needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    graph: CheckedGraph,
    weights: Weights,
}

impl Deref for Network {
    type Target = CheckedGraph;

    fn deref(&self) -> &CheckedGraph {
        &self.graph
    }
}

impl Network {
    /// The graph alone.
    pub fn graph(&self) -> &CheckedGraph {
        &self.graph
    }

    /// The weights alone.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// A node's tensors in the order of [`Graph::weights_of`].
    pub fn tensors(&self, node: &Node) -> impl Iterator<Item = &Tensor> {
        self.graph.weights_of(node).into_iter().filter_map(|spec| self.weights.get(&spec.name))
    }

    /// Filter and bias of a convolution, row by row; a convolution without bias has zeros, other nodes nothing.
    pub fn filter(&self, node: &Node) -> (Vec<f32>, Vec<f32>) {
        let mut values = self.tensors(node).map(|tensor| tensor.values.to_vec());
        let filter = values.next().unwrap_or_default();
        (filter, values.next().unwrap_or_else(|| vec![0.0; node.shape.channels]))
    }

    /// The network with a change, checked again: other attention, more taps.
    ///
    /// # Errors
    /// The change leaves no valid graph, or one that needs other weights.
    pub fn edit(&self, change: impl FnOnce(&mut Graph)) -> Result<Self, NetworkError> {
        Ok(self.graph.edit(change)?.with(self.weights.clone())?)
    }
}
