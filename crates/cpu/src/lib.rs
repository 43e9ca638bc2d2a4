//! Our CPU engine: blocks of channels, fused, SIMD, threaded; no copy of a view while it runs.
//!
//! A plan is made once. To run it, every thread walks the same steps and takes units of each, first of its own stretch; a
//! unit begins when those of earlier steps that it needs are complete (`order.rs`). Which thread computes a unit does
//! not matter to its value, so results are the same bit for bit from run to run and for any number of threads. Of a
//! batch, each thread takes whole images.
#![allow(unsafe_code, reason = "kernels on raw memory")]

mod attention;
mod compile;
mod elementwise;
mod integers;
mod memory;
mod order;
mod peak;
mod product;
mod steps;
mod threads;
mod touched;
mod window;
mod windows;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ndarray::{Array4, ArrayView4};

use self::compile::Program;
use self::memory::{Aligned, Memory};
use self::order::{Group, Order};
pub use self::peak::peak_gflops;
use self::steps::Step;
use self::threads::{Team, wait_until};
use yolo_lat_core::engine::{Engine, EngineError, StepTime, check_input};
use yolo_lat_core::model::Network;
use yolo_lat_core::model::graph::{NodeId, Shape};
use yolo_lat_core::time::Instant;
pub use yolo_lat_simd::InstructionSet;
use yolo_lat_simd::{Simd, Work, dispatch};

/// Runs one graph for one input size.
pub struct CpuEngine {
    runner: Runner,
    team: Team,
    outputs: Vec<Array4<f32>>,
    /// Where the outputs lie.
    targets: Vec<Shared<f32>>,
    /// How long the last run took.
    wall: Duration,
}

/// What all threads see.
struct Runner {
    plan: Program,
    order: Order,
    set: InstructionSet,
    input: Shape,
    output_shapes: Vec<Shape>,
    progress: Vec<Progress>,
    workers: Vec<Mutex<Worker>>,
    /// A kernel panicked in this run: nobody waits for it.
    failed: AtomicBool,
    /// What each step is; without times.
    steps: Vec<StepTime>,
}

/// How far the threads are in one step.
struct Progress {
    /// A stretch of units for each thread, so that a thread finds in its cache what it wrote in the step before: how many of it
    /// have been taken.
    taken: Vec<Taken>,
    /// Units that are complete, of each group that others wait for.
    groups: Vec<AtomicUsize>,
}

/// In a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Taken(AtomicUsize);

impl Progress {
    fn new(threads: usize, groups: usize) -> Self {
        let taken = (0..threads).map(|_| Taken::default()).collect();
        let groups = (0..groups).map(|_| AtomicUsize::new(0)).collect();
        Self { taken, groups }
    }

    /// A unit for thread `index`: of its own stretch, else of the next one's that has some left.
    fn take(&self, index: usize, units: usize) -> Option<usize> {
        let stretches = self.taken.len().min(units);
        (index..index + stretches).find_map(|stretch| {
            let stretch = stretch % stretches;
            let (start, end) = (stretch * units / stretches, (stretch + 1) * units / stretches);
            let Taken(taken) = &self.taken[stretch];
            let has_some = start + taken.load(Ordering::Relaxed) < end;
            has_some.then(|| start + taken.fetch_add(1, Ordering::Relaxed)).filter(|&unit| unit < end)
        })
    }
}

/// What a thread owns. Threads that share an image use the first one's arena.
struct Worker {
    arena: Aligned,
    scratch: Aligned,
    /// Of each step in the last run, waiting for others included; empty where nobody asks.
    times: Vec<Duration>,
}

/// The best instruction set of this machine, or the one that the environment variable `YOLO_LAT_ISA` names: `avx512`, `avx2`,
/// `neon`, `simd128`, `plain`.
///
/// # Errors
/// [`EngineError::Unavailable`] for one that this machine does not have.
pub fn chosen_instruction_set() -> Result<InstructionSet, EngineError> {
    let Some(name) = std::env::var_os("YOLO_LAT_ISA") else { return Ok(InstructionSet::best()) };
    let set = name.to_string_lossy().parse();
    set.map_err(|reason| EngineError::Unavailable { engine: "cpu", reason: format!("YOLO_LAT_ISA: {reason}") })
}

impl CpuEngine {
    /// Plans `network` for [`chosen_instruction_set`]. `threads` 0 means one for each core; WebAssembly has one in any case.
    ///
    /// # Errors
    /// [`EngineError::Threads`] when the system gives no threads, [`EngineError::Unsupported`] for causal attention,
    /// [`EngineError::Unavailable`] as the choice above.
    pub fn new(network: &Network, threads: usize) -> Result<Self, EngineError> {
        Self::with_instruction_set(network, threads, chosen_instruction_set()?)
    }

    /// As [`CpuEngine::new`] with a given instruction set, one of [`InstructionSet::available`]; another is not used.
    ///
    /// # Errors
    /// [`EngineError::Threads`] and [`EngineError::Unsupported`] as above.
    pub fn with_instruction_set(network: &Network, threads: usize, set: InstructionSet) -> Result<Self, EngineError> {
        let set = if InstructionSet::available().contains(&set) { set } else { InstructionSet::Plain };
        let threads = if threads == 0 || !HAS_THREADS { available_threads() } else { threads };
        let team = Team::new(threads - 1);
        let team = team.map_err(|error| EngineError::Threads { threads, reason: error.to_string() })?;
        let plan = Program::new(network, set)?;
        let order = if threads == 1 { Order::of_one_thread(&plan.steps) } else { Order::new(&plan.steps, set.block()) };
        let floats = plan.steps.iter().map(Step::scratch).max().unwrap_or(0);
        let worker = || {
            let mut scratch = Aligned::default();
            scratch.resize(floats);
            // Arenas grow with the first batch: a single frame needs one.
            Mutex::new(Worker { arena: Aligned::default(), scratch, times: Vec::new() })
        };
        let runner = Runner {
            set,
            input: network.input(),
            output_shapes: network.outputs().map(|output| network.nodes[output].shape).collect(),
            progress: (0..plan.steps.len()).map(|step| Progress::new(threads, order.groups(step))).collect(),
            workers: (0..threads).map(|_| worker()).collect(),
            failed: AtomicBool::new(false),
            steps: plan.steps.iter().zip(&plan.nodes).map(|(step, nodes)| describe(network, step, nodes)).collect(),
            plan,
            order,
        };
        Ok(Self { runner, team, outputs: Vec::new(), targets: Vec::new(), wall: Duration::ZERO })
    }

    /// Bytes of feature maps that one image needs.
    pub fn arena_bytes(&self) -> usize {
        self.runner.plan.arena * size_of::<f32>()
    }

    /// What its kernels are made of.
    pub fn instruction_set(&self) -> InstructionSet {
        self.runner.set
    }
}

/// What `step` computes of `nodes`, of which the first is the result; no times yet.
fn describe(network: &Network, step: &Step, nodes: &[NodeId]) -> StepTime {
    let result = &network.nodes[nodes[0]];
    let parts: Vec<_> = nodes.iter().rev().map(|&node| &network.nodes[node]).collect();
    let kinds: Vec<String> = parts.iter().map(|part| part.op.label()).collect();
    let input = parts[0].inputs.first().map_or(result.shape, |&input| network.nodes[input].shape);
    let (kind, multiply_adds) = if step.is_gather() {
        ("gather".into(), 0)
    } else {
        (kinds.join(" + "), parts.iter().map(|part| network.multiply_adds_of(part)).sum())
    };
    let shape = result.shape;
    StepTime {
        name: result.name.clone(),
        kind,
        shape: format!("{}>{} @{}x{}", input.channels, shape.channels, shape.width, shape.height),
        multiply_adds,
        start: Duration::ZERO,
        duration: Duration::ZERO,
    }
}

impl Runner {
    /// What thread `index` does of an image that all share; `false` when a kernel failed.
    fn walk(&self, index: usize, memory: Memory) -> bool {
        let mut worker = lock(&self.workers[index]);
        let mut clock = worker.clock();
        for (number, (step, progress)) in self.plan.steps.iter().zip(&self.progress).enumerate() {
            let units = step.units();
            while let Some(unit) = progress.take(index, units) {
                // All units of earlier steps have been taken, by threads that wait for still earlier ones at most.
                if !self.order.before(number, unit).iter().all(|&group| self.wait_for(group)) {
                    return false;
                }
                // SAFETY: plan and memory belong together, the scratch is this thread's, each unit is taken by one thread, and what
                // has to come before it is complete.
                unsafe { step.run(self.set, unit, memory, worker.scratch.as_mut_ptr()) };
                progress.groups[self.order.group(number, unit).index].fetch_add(1, Ordering::Release);
                worker.lap(number, &mut clock);
            }
        }
        self.order.all().all(|group| self.wait_for(group))
    }

    /// Waits until all units of `group` are complete; `false` when a kernel failed.
    fn wait_for(&self, group: Group) -> bool {
        let (done, all) = (&self.progress[group.step].groups[group.index], self.order.members(group));
        let is_done = || done.load(Ordering::Acquire) == all;
        wait_until(|| is_done() || self.failed.load(Ordering::Relaxed));
        is_done()
    }

    /// One whole image on the calling thread.
    fn run_alone(&self, worker: &mut Worker, image: *const f32) -> Memory {
        let memory = worker.memory(&self.plan, image);
        let mut clock = worker.clock();
        for (number, step) in self.plan.steps.iter().enumerate() {
            for unit in 0..step.units() {
                // SAFETY: plan, memory and scratch belong together; no other thread uses this worker.
                unsafe { step.run(self.set, unit, memory, worker.scratch.as_mut_ptr()) };
            }
            worker.lap(number, &mut clock);
        }
        memory
    }

    /// Before a run.
    fn reset(&self) {
        self.failed.store(false, Ordering::Relaxed);
        for progress in &self.progress {
            progress.taken.iter().for_each(|Taken(taken)| taken.store(0, Ordering::Relaxed));
            progress.groups.iter().for_each(|done| done.store(0, Ordering::Relaxed));
        }
        for worker in &self.workers {
            lock(worker).times.fill(Duration::ZERO);
        }
    }
}

impl Worker {
    /// The arena with an image to read.
    fn memory(&mut self, plan: &Program, image: *const f32) -> Memory {
        self.arena.resize(plan.arena);
        Memory { arena: self.arena.as_mut_ptr(), image }
    }

    /// Now, where times are taken.
    fn clock(&self) -> Option<Instant> {
        (!self.times.is_empty()).then(Instant::now)
    }

    /// Adds what has passed to the time of a step.
    fn lap(&mut self, step: usize, clock: &mut Option<Instant>) {
        if let Some(start) = clock {
            let now = Instant::now();
            self.times[step] += now - *start;
            *start = now;
        }
    }
}

/// A panic in a kernel poisons nothing worth protecting: scratch is rewritten by every unit.
fn lock(worker: &Mutex<Worker>) -> std::sync::MutexGuard<'_, Worker> {
    worker.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// WebAssembly without shared memory has no threads.
const HAS_THREADS: bool = cfg!(not(all(target_family = "wasm", not(target_feature = "atomics"))));

/// Threads this process may use.
pub fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
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
        let threads = self.runner.workers.len();
        let plural = if threads == 1 { "" } else { "s" };
        let is_integer = |step: &Step| matches!(step, Step::IntegerPointwise(_));
        let precision = if self.runner.plan.steps.iter().any(is_integer) { ", int8" } else { "" };
        format!("cpu ({}, {threads} thread{plural}{precision})", self.runner.set)
    }

    fn input(&self) -> Shape {
        self.runner.input
    }

    fn run(&mut self, images: ArrayView4<f32>) -> Result<&[Array4<f32>], EngineError> {
        let runner = &self.runner;
        check_input(&images, runner.input)?;
        let batch = images.dim().0;
        let images = images.as_standard_layout();
        let first = images.as_ptr();
        if self.outputs.first().is_none_or(|output| output.dim().0 != batch) {
            let shapes = runner.output_shapes.iter();
            self.outputs =
                shapes.map(|shape| Array4::zeros((batch, shape.channels, shape.height, shape.width))).collect();
        }
        self.targets.clear();
        self.targets.extend(self.outputs.iter_mut().map(|output| Shared(output.as_mut_ptr())));
        let targets = &self.targets;
        runner.reset();
        let start = Instant::now();
        if batch == 1 {
            let memory = lock(&runner.workers[0]).memory(&runner.plan, first);
            let next = AtomicUsize::new(0);
            self.team.run(&runner.failed, |index| {
                if runner.walk(index, memory) {
                    // SAFETY: the targets have the shapes of the plan, and the counter gives each part to one thread.
                    unsafe { runner.copy_outputs(memory, targets, 0, &next) };
                }
            });
        } else {
            let (next, size, first) = (AtomicUsize::new(0), runner.input.values(), Shared(first.cast_mut()));
            // Now, and not when a thread happens to come: frames after the first allocate nothing.
            runner.workers.iter().take(batch).for_each(|worker| lock(worker).arena.resize(runner.plan.arena));
            self.team.run(&runner.failed, |index| {
                let Some(worker) = runner.workers.get(index).filter(|_| index < batch) else { return };
                let mut worker = lock(worker);
                loop {
                    let image = next.fetch_add(1, Ordering::Relaxed);
                    if image >= batch {
                        break;
                    }
                    // SAFETY: the input has `batch` images of `size` values; the counter gives each to one thread, which
                    // alone writes its part of the targets.
                    unsafe {
                        let memory = runner.run_alone(&mut worker, first.get().add(image * size));
                        runner.copy_outputs(memory, targets, image, &AtomicUsize::new(0));
                    }
                }
            });
        }
        self.wall = start.elapsed();
        if runner.failed.load(Ordering::Relaxed) { Err(EngineError::Kernel) } else { Ok(&self.outputs) }
    }

    fn start_profile(&mut self) -> bool {
        for worker in &self.runner.workers {
            lock(worker).times = vec![Duration::ZERO; self.runner.steps.len()];
        }
        true
    }

    fn profile(&self) -> Vec<StepTime> {
        let batch = self.outputs.first().map_or(1, |output| output.dim().0);
        let of_thread = |worker, number| lock(worker).times.get(number).copied().unwrap_or_default();
        let of_step = |number| self.runner.workers.iter().map(|worker| of_thread(worker, number)).sum::<Duration>();
        let times: Vec<Duration> = (0..self.runner.steps.len()).map(of_step).collect();
        let all = times.iter().sum::<Duration>().as_secs_f64();
        // Steps overlap, so an image's time is divided as that of all threads is.
        let share = if all > 0.0 { self.wall.as_secs_f64() / batch as f64 / all } else { 0.0 };
        let mut start = Duration::ZERO;
        let timed = self.runner.steps.iter().zip(times).map(|(step, time)| {
            let step = StepTime { start, duration: time.mul_f64(share), ..step.clone() };
            start += step.duration;
            step
        });
        timed.collect()
    }

    fn peak_gflops(&self) -> Option<f64> {
        Some(peak_gflops(self.runner.set, self.runner.workers.len()))
    }
}

impl Runner {
    /// Writes the channels of each output as planes into part `image` of its array; `next` counts the blocks of channels that
    /// have been taken.
    ///
    /// # Safety
    /// `memory` belongs to the plan; `targets` point to arrays (n, channels, height, width) with n > `image`.
    unsafe fn copy_outputs(&self, memory: Memory, targets: &[Shared<f32>], image: usize, next: &AtomicUsize) {
        let block = self.set.block();
        let outputs = self.plan.outputs.iter().zip(&self.output_shapes).zip(targets);
        let mut parts = outputs.flat_map(|((channels, shape), target)| {
            channels.chunks(block).enumerate().map(move |(part, channels)| (part * block, channels, shape, target))
        });
        let mut passed = 0;
        loop {
            let part = next.fetch_add(1, Ordering::Relaxed);
            let Some((first, channels, shape, target)) = parts.nth(part - passed) else { break };
            passed = part + 1;
            let positions = shape.positions();
            // SAFETY: the caller's.
            unsafe {
                let to = target.get().add(image * shape.values() + first * positions);
                dispatch(self.set.with_lanes_of_a_block(), Planes { memory, channels, positions, to });
            }
        }
    }
}

/// Channels of the arena as planes one after the other.
struct Planes<'a> {
    memory: Memory,
    channels: &'a [usize],
    positions: usize,
    to: *mut f32,
}

impl Work for Planes<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller's.
        unsafe { elementwise::to_planes::<S>(self.memory, self.channels, self.positions, self.to, self.positions) };
    }
}

#[cfg(test)]
mod tests;
