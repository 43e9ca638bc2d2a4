//! The first layers of a network where a run leaves them as they are: our CPU engine computes them in the threads that make batches, several
//! times as fast as libtorch, and the step is spared them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use anyhow::anyhow;
use ndarray::Array4;
use tch::{Device, Tensor};
use yolo_lat::engine::Engine;
use yolo_lat::engine::cpu::CpuEngine;
use yolo_lat::model::{self, ModelConfig, Weights, graph_of};

use crate::network::Network;
use crate::tensors::in_order;

/// Engines that are kept while nobody uses them.
const MOST_IDLE: usize = 128;

/// Engines of one network that several threads use at once: those that nobody uses now, by width and height of their images.
#[derive(Default)]
pub(crate) struct Engines(Mutex<HashMap<(usize, usize), Vec<CpuEngine>>>);

impl Engines {
    /// What `read` makes of the outputs for one image: RGB planes of `size` (width, height) in 0..1.
    ///
    /// # Errors
    /// The engine fails, or none can be made.
    pub(crate) fn run<T>(
        &self,
        pixels: &[f32],
        size: (usize, usize),
        make: impl FnOnce() -> anyhow::Result<CpuEngine>,
        read: impl FnOnce(&[Array4<f32>]) -> T,
    ) -> anyhow::Result<T> {
        let free = lock(&self.0)?.entry(size).or_default().pop();
        let mut engine = match free {
            Some(engine) => engine,
            None => make()?,
        };
        let input = Array4::from_shape_vec((1, 3, size.1, size.0), pixels.to_vec())?;
        let found = read(engine.run(input.view())?);
        let mut idle = lock(&self.0)?;
        // Many shapes, each with its buffers: begin again rather than fill the memory.
        if idle.values().map(Vec::len).sum::<usize>() >= MOST_IDLE {
            idle.clear();
        }
        idle.entry(size).or_default().push(engine);
        Ok(found)
    }
}

/// What the mutex guards.
///
/// # Errors
/// A thread failed while it held it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> anyhow::Result<MutexGuard<'_, T>> {
    mutex.lock().map_err(|_| anyhow!("another thread that makes batches failed"))
}

/// The nodes before the first that learns something.
pub(crate) struct FrozenPart {
    model: ModelConfig,
    weights: Weights,
    /// How many nodes.
    count: usize,
    /// Those whose maps the others read, or that the run wants to see.
    read: Vec<usize>,
    engines: Engines,
}

impl FrozenPart {
    /// The nodes of `network` before the first that learns; `None` if none of them has weights.
    ///
    /// # Errors
    /// A weight is no finite number.
    pub(crate) fn new(network: &Network, model: &ModelConfig) -> anyhow::Result<Option<Self>> {
        let graph = network.graph();
        let learns = |index: usize| {
            let node = &graph.nodes[index];
            !graph.weights_of(node).is_empty() && !network.is_frozen(node)
        };
        let count = (0..graph.nodes.len()).find(|&index| learns(index)).unwrap_or(graph.nodes.len());
        if graph.nodes[..count].iter().all(|node| graph.weights_of(node).is_empty()) {
            return Ok(None);
        }
        let readers = graph.nodes[count..].iter().flat_map(|node| node.inputs.iter().copied()).chain(graph.outputs());
        let mut read: Vec<usize> = readers.filter(|&input| input < count).collect();
        read.sort_unstable();
        read.dedup();
        Ok(Some(Self { model: model.clone(), weights: network.fold()?, count, read, engines: Engines::default() }))
    }

    fn part(&self, (width, height): (usize, usize)) -> anyhow::Result<model::Network> {
        let part = graph_of(&self.model, width, height)?.edit(|graph| {
            graph.nodes.truncate(self.count);
            graph.scales.clear();
            graph.taps.clone_from(&self.read);
        })?;
        let weights = self.weights.only(&part);
        Ok(part.with(weights)?)
    }

    /// The maps that the other nodes read, (1, channels, rows, columns) each, of one image: RGB planes of `size` (width, height) in 0..1.
    ///
    /// # Errors
    /// The engine fails.
    pub(crate) fn maps(&self, pixels: &[f32], size: (usize, usize)) -> anyhow::Result<Vec<Array4<f32>>> {
        let make = || Ok(CpuEngine::new(&self.part(size)?, 1)?);
        self.engines.run(pixels, size, make, <[_]>::to_vec)
    }

    /// The maps of these nodes for a batch; of those that nobody reads nothing.
    pub(crate) fn first(&self, maps: &[Vec<Array4<f32>>], device: Device) -> Vec<Tensor> {
        let map = |node: usize| match self.read.iter().position(|&read| read == node) {
            Some(index) => joined(maps.iter().map(|maps| &maps[index]), device),
            None => Tensor::new(),
        };
        (0..self.count).map(map).collect()
    }
}

/// Maps (1, channels, rows, columns) of several images in one tensor.
pub(crate) fn joined<'a>(maps: impl Iterator<Item = &'a Array4<f32>>, device: Device) -> Tensor {
    let maps: Vec<&Array4<f32>> = maps.collect();
    let (_, channels, rows, columns) = maps[0].dim();
    let shape = [maps.len(), channels, rows, columns].map(|side| side as i64);
    let values: Vec<&[f32]> = maps.iter().filter_map(|map| map.as_slice()).collect();
    in_order(&Tensor::from_slice(&values.concat()).reshape(shape).to_device(device))
}
