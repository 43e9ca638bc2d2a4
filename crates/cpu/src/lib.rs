//! Our CPU engine: blocks of channels, fused, SIMD, threaded; no copy of a view while it runs.
//!
//! A plan is made once. To run it, every thread walks the same steps and takes units of each from a shared counter;
//! a step begins when the one before is complete. Which thread computes a unit does not matter to its value, so
//! results are the same bit for bit from run to run and for any number of threads. Of a batch, each thread takes
//! whole pictures.

mod attention;
mod elementwise;
mod layout;
mod plan;
mod product;
mod steps;
mod windows;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ndarray::{Array4, ArrayView4};

use self::plan::Plan;
use self::steps::{Aligned, Memory, Step};
use yolo_lat_core::engine::{Engine, EngineError, check_input};
use yolo_lat_core::model::graph::Shape;
use yolo_lat_core::model::{Graph, Weights};
pub use yolo_lat_simd::InstructionSet;

/// Runs one graph for one input size.
pub struct CpuEngine {
    plan: Plan,
    set: InstructionSet,
    threads: usize,
    pool: Option<rayon::ThreadPool>,
    input: Shape,
    /// Of the graph's nodes.
    names: Vec<String>,
    output_shapes: Vec<Shape>,
    progress: Vec<Progress>,
    workers: Vec<Mutex<Worker>>,
    /// A kernel panicked in this run: nobody waits for it.
    failed: AtomicBool,
    outputs: Vec<Array4<f32>>,
}

/// How far the threads are in one step.
#[derive(Default)]
struct Progress {
    /// The next unit to take.
    taken: AtomicUsize,
    /// Units that are complete.
    done: AtomicUsize,
}

/// What a thread owns. Threads that share a picture use the first one's arena.
struct Worker {
    arena: Aligned,
    scratch: Aligned,
}

impl CpuEngine {
    /// Plans `graph` for this machine's best instruction set. `threads` 0 means one for each core.
    ///
    /// # Errors
    /// [`EngineError::Threads`] when the system gives no threads.
    pub fn new(graph: &Graph, weights: &Weights, threads: usize) -> Result<Self, EngineError> {
        Self::with_instruction_set(graph, weights, threads, InstructionSet::available()[0])
    }

    /// As [`CpuEngine::new`] with a given instruction set, one of [`InstructionSet::available`].
    ///
    /// # Errors
    /// As [`CpuEngine::new`].
    pub fn with_instruction_set(
        graph: &Graph,
        weights: &Weights,
        threads: usize,
        set: InstructionSet,
    ) -> Result<Self, EngineError> {
        let set = if InstructionSet::available().contains(&set) { set } else { InstructionSet::Plain };
        let threads = if threads == 0 { available_threads() } else { threads };
        let pool = (threads > 1).then(|| rayon::ThreadPoolBuilder::new().num_threads(threads).build()).transpose();
        let pool = pool.map_err(|error| EngineError::Threads { threads, reason: error.to_string() })?;
        let plan = Plan::new(graph, weights, set);
        let floats = plan.steps.iter().map(Step::scratch).max().unwrap_or(0);
        let worker = || {
            let mut scratch = Aligned::default();
            scratch.resize(floats);
            // Arenas grow on a thread's first whole picture: a single frame needs one.
            Mutex::new(Worker { arena: Aligned::default(), scratch })
        };
        Ok(Self {
            set,
            threads,
            pool,
            input: graph.input(),
            names: graph.nodes.iter().map(|node| node.name.clone()).collect(),
            output_shapes: graph.outputs().map(|output| graph.nodes[output].shape).collect(),
            progress: plan.steps.iter().map(|_| Progress::default()).collect(),
            workers: (0..threads).map(|_| worker()).collect(),
            failed: AtomicBool::new(false),
            outputs: Vec::new(),
            plan,
        })
    }

    /// Bytes of feature maps that one picture needs.
    pub fn arena_bytes(&self) -> usize {
        self.plan.arena * size_of::<f32>()
    }

    /// Runs one picture on one thread and gives the time of each step in microseconds, with its node's name.
    ///
    /// # Errors
    /// [`EngineError::Input`] for another shape.
    pub fn profile(&mut self, pictures: ArrayView4<f32>) -> Result<Vec<(String, f64)>, EngineError> {
        check_input(&pictures, self.input)?;
        let pictures = pictures.as_standard_layout();
        let mut worker = lock(&self.workers[0]);
        let memory = worker.memory(&self.plan, pictures.as_ptr());
        let steps = self.plan.steps.iter().zip(&self.plan.nodes);
        Ok(steps
            .map(|(step, &node)| {
                let start = std::time::Instant::now();
                for unit in 0..step.units() {
                    // SAFETY: plan, memory and scratch belong together; this is the only thread.
                    unsafe { step.run(self.set, unit, memory, worker.scratch.as_mut_ptr()) };
                }
                (self.names[node].clone(), start.elapsed().as_secs_f64() * 1e6)
            })
            .collect())
    }

    /// One picture on all threads.
    fn run_shared(&self, picture: *const f32) {
        let memory = lock(&self.workers[0]).memory(&self.plan, picture);
        for progress in &self.progress {
            progress.taken.store(0, Ordering::Relaxed);
            progress.done.store(0, Ordering::Relaxed);
        }
        let walk = |worker: &mut Worker| {
            for (step, progress) in self.plan.steps.iter().zip(&self.progress) {
                let units = step.units();
                loop {
                    let unit = progress.taken.fetch_add(1, Ordering::Relaxed);
                    if unit >= units {
                        break;
                    }
                    // SAFETY: plan and memory belong together, the scratch is this thread's, and the counter gives
                    // each unit to one thread.
                    unsafe { step.run(self.set, unit, memory, worker.scratch.as_mut_ptr()) };
                    progress.done.fetch_add(1, Ordering::Release);
                }
                wait_until(|| progress.done.load(Ordering::Acquire) == units || self.failed.load(Ordering::Relaxed));
                if self.failed.load(Ordering::Relaxed) {
                    break;
                }
            }
        };
        let walk = |worker: &mut Worker| self.guard(|| walk(worker));
        match &self.pool {
            None => walk(&mut lock(&self.workers[0])),
            Some(pool) => {
                pool.broadcast(|context| walk(&mut lock(&self.workers[context.index()])));
            }
        }
    }

    /// Does `work`; a panic in it ends the run instead of leaving the other threads waiting.
    fn guard(&self, work: impl FnOnce()) {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
    }

    /// One whole picture on the calling thread.
    fn run_alone(&self, worker: &mut Worker, picture: *const f32) -> Memory {
        let memory = worker.memory(&self.plan, picture);
        for step in &self.plan.steps {
            for unit in 0..step.units() {
                // SAFETY: plan, memory and scratch belong together; no other thread uses this worker.
                unsafe { step.run(self.set, unit, memory, worker.scratch.as_mut_ptr()) };
            }
        }
        memory
    }
}

impl Worker {
    /// The arena with a picture to read.
    fn memory(&mut self, plan: &Plan, picture: *const f32) -> Memory {
        self.arena.resize(plan.arena);
        Memory { arena: self.arena.as_mut_ptr(), picture }
    }
}

/// A panic in a kernel poisons nothing worth protecting: scratch is rewritten by every unit.
fn lock(worker: &Mutex<Worker>) -> std::sync::MutexGuard<'_, Worker> {
    worker.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Threads this process may use.
pub fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Steps take microseconds, so waiting spins; where the machine has other work it gives the core away.
fn wait_until(condition: impl Fn() -> bool) {
    let mut spins = 0u32;
    while !condition() {
        spins += 1;
        if spins < 2000 {
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

/// A pointer that threads of one run share.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);

impl<T> Shared<T> {
    fn get(self) -> *mut T {
        self.0
    }
}

// SAFETY: each use says why its accesses are disjoint.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl Engine for CpuEngine {
    fn description(&self) -> String {
        let plural = if self.threads == 1 { "" } else { "s" };
        format!("cpu ({}, {} thread{plural})", self.set, self.threads)
    }

    fn input(&self) -> Shape {
        self.input
    }

    fn run(&mut self, pictures: ArrayView4<f32>) -> Result<&[Array4<f32>], EngineError> {
        check_input(&pictures, self.input)?;
        let batch = pictures.dim().0;
        let pictures = pictures.as_standard_layout();
        let first = pictures.as_ptr();
        if self.outputs.first().is_none_or(|output| output.dim().0 != batch) {
            let shapes = self.output_shapes.iter();
            self.outputs =
                shapes.map(|shape| Array4::zeros((batch, shape.channels, shape.height, shape.width))).collect();
        }
        let outputs: Vec<Shared<f32>> = self.outputs.iter_mut().map(|output| Shared(output.as_mut_ptr())).collect();
        let size = self.input.values();
        self.failed.store(false, Ordering::Relaxed);
        if batch == 1 {
            self.run_shared(first);
            let memory = lock(&self.workers[0]).memory(&self.plan, first);
            // SAFETY: the outputs have the shapes of the plan; nobody else writes them.
            unsafe { copy_outputs(&self.plan.outputs, &self.output_shapes, self.set.block(), memory, &outputs, 0) };
        } else {
            let next = AtomicUsize::new(0);
            let first = Shared(first.cast_mut());
            let (engine, outputs) = (&*self, &outputs);
            let work = |index: usize| {
                engine.guard(|| {
                    let mut worker = lock(&engine.workers[index]);
                    loop {
                        let picture = next.fetch_add(1, Ordering::Relaxed);
                        if picture >= batch {
                            break;
                        }
                        // SAFETY: the input has `batch` pictures of `size` values; the counter gives each to one thread,
                        // which alone writes its part of the outputs.
                        unsafe {
                            let memory = engine.run_alone(&mut worker, first.get().add(picture * size));
                            copy_outputs(
                                &engine.plan.outputs,
                                &engine.output_shapes,
                                engine.set.block(),
                                memory,
                                outputs,
                                picture,
                            );
                        }
                    }
                })
            };
            match &self.pool {
                None => work(0),
                Some(pool) => {
                    pool.broadcast(|context| work(context.index()));
                }
            }
        }
        if self.failed.load(Ordering::Relaxed) { Err(EngineError::Kernel) } else { Ok(&self.outputs) }
    }
}

/// Writes the channels of each output as planes into part `picture` of its array.
///
/// # Safety
/// `memory` belongs to the plan of `channels`; `outputs` point to arrays (n, channels, height, width) with n > `picture`.
unsafe fn copy_outputs(
    channels: &[Vec<usize>],
    shapes: &[Shape],
    block: usize,
    memory: Memory,
    outputs: &[Shared<f32>],
    picture: usize,
) {
    for ((channels, shape), output) in channels.iter().zip(shapes).zip(outputs) {
        let positions = shape.positions();
        for (channel, &offset) in channels.iter().enumerate() {
            // SAFETY: the caller's.
            unsafe {
                let from = memory.read(offset);
                let target = output.get().add(picture * shape.values() + channel * positions);
                for at in 0..positions {
                    *target.add(at) = *from.add(block * at);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
