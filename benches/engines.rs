//! Time of the network on this machine: each instruction set with one thread and with all, taking turns, so that a
//! busy machine disturbs all alike. Run: `make bench`.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]

use std::time::Instant;

use ndarray::Array4;
use yolo_lat::engine::Engine;
use yolo_lat::engine::cpu::{CpuEngine, InstructionSet, available_threads};
use yolo_lat::model::Model;

const ROUNDS: usize = 200;

fn main() {
    let model = Model::load("n").unwrap();
    let graph = model.graph(320, 320).unwrap();
    let picture =
        Array4::from_shape_fn((1, 3, 320, 320), |(_, c, y, x)| ((c * 7 + y * 3 + x * 5) % 256) as f32 / 255.0);
    let sets = InstructionSet::available().into_iter();
    let variants = sets.flat_map(|set| [1, available_threads()].map(|threads| (set, threads)));
    let engine = |(set, threads)| CpuEngine::with_instruction_set(&graph, &model.weights, threads, set).unwrap();
    let mut engines: Vec<(CpuEngine, Vec<f64>)> = variants.map(|variant| (engine(variant), Vec::new())).collect();
    for _ in 0..ROUNDS {
        for (engine, times) in &mut engines {
            let start = Instant::now();
            engine.run(picture.view()).unwrap();
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    println!(
        "yolo-lat-n, 320x320, batch 1, {ROUNDS} rounds\n{:<28} {:>8} {:>8} {:>8}  ms",
        "engine", "minimum", "median", "p90"
    );
    for (engine, times) in &mut engines {
        times.sort_by(f64::total_cmp);
        let (median, p90) = (times[ROUNDS / 2], times[ROUNDS * 9 / 10]);
        println!("{:<28} {:>8.2} {median:>8.2} {p90:>8.2}", engine.description(), times[0]);
    }
    let (engine, _) = &mut engines[0];
    let mut steps = engine.profile(picture.view()).unwrap();
    for _ in 0..ROUNDS {
        for (best, step) in steps.iter_mut().zip(engine.profile(picture.view()).unwrap()) {
            best.1 = best.1.min(step.1);
        }
    }
    steps.sort_by(|a, b| b.1.total_cmp(&a.1));
    println!("\nslowest steps, one thread, minimum:");
    for (name, microseconds) in steps.iter().take(12) {
        println!("{name:<28} {microseconds:>8.0} us");
    }
}
