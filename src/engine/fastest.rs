//! [`EngineKind::Auto`]: of our engines that are here the one that computes an image in the least time. Where there is a choice it
//! is measured, once: the runtime remembers it, and its cache folder from one run of the program to the next.

use std::cell::Cell;
use std::fmt::{Display, Formatter};
use std::time::Duration;

use ndarray::Array4;

use super::{Engine, EngineError, EngineKind};
use crate::runtime::Runtime;
use yolo_lat_core::model::Model;
use yolo_lat_core::model::graph::Shape;
use yolo_lat_core::time::Instant;

/// Times of several computations, which take turns until `enough` has passed, at least three times each and after one round that
/// does not count: a busy machine disturbs all alike.
pub fn take_turns(enough: Duration, work: &mut [&mut dyn FnMut()]) -> Vec<Vec<Duration>> {
    const LEAST: usize = 3;
    let mut times = vec![Vec::new(); work.len()];
    work.iter_mut().for_each(|work| work());
    let start = Instant::now();
    while times.first().is_some_and(|times| times.len() < LEAST || start.elapsed() < enough) {
        for (work, times) in work.iter_mut().zip(&mut times) {
            let start = Instant::now();
            work();
            times.push(start.elapsed());
        }
    }
    times
}

/// This many times the least time of all, and an engine is not asked again: it would take most of the time, and its own would
/// hardly come down so far.
const HOPELESS: u32 = 8;

/// The least time in which each engine computes one image, as `bench` measures it: the network alone, in turns until `enough` has
/// passed. An engine that takes eight times as long as another one leaves after its first turn that counts. One that fails has an
/// error.
pub fn least_times(engines: &mut [Box<dyn Engine>], enough: Duration) -> Vec<Result<Duration, EngineError>> {
    struct Run<'a> {
        engine: &'a mut dyn Engine,
        input: Array4<f32>,
        turns: usize,
        least: Result<Duration, EngineError>,
    }
    let run = |engine| {
        let engine: &mut Box<dyn Engine> = engine;
        let Shape { channels, height, width } = engine.input();
        let input = Array4::from_elem((1, channels, height, width), 0.5);
        Run { engine: &mut **engine, input, turns: 0, least: Ok(Duration::MAX) }
    };
    let mut runs: Vec<Run> = engines.iter_mut().map(run).collect();
    let best = Cell::new(Duration::MAX);
    let turn = |run: &mut Run| {
        let Ok(least) = run.least else { return };
        if run.turns > 1 && least / HOPELESS > best.get() {
            return;
        }
        let start = Instant::now();
        let result = run.engine.run(run.input.view());
        let time = start.elapsed();
        run.turns += 1;
        run.least = match result {
            // The first turn compiles and fills caches.
            Ok(_) if run.turns == 1 => Ok(least),
            Ok(_) => {
                best.set(best.get().min(time));
                Ok(least.min(time))
            }
            Err(error) => Err(error),
        };
    };
    let mut turns: Vec<_> = runs.iter_mut().map(|run| move || turn(run)).collect();
    let mut turns: Vec<&mut dyn FnMut()> = turns.iter_mut().map(|turn| turn as &mut dyn FnMut()).collect();
    take_turns(enough, &mut turns);
    runs.into_iter().map(|run| run.least).collect()
}

/// The engine that [`EngineKind::Auto`] stands for, and how that is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Fastest {
    /// One that is here.
    pub engine: EngineKind,
    /// Least milliseconds of an image in each engine that there was a choice of.
    pub times_ms: Vec<(EngineKind, f64)>,
    /// When that was measured, or why there is no choice; for people.
    pub origin: String,
}

impl Fastest {
    fn only(engine: EngineKind, origin: String) -> Self {
        Self { engine, times_ms: Vec::new(), origin }
    }
}

impl Display for Fastest {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { engine, times_ms, origin } = self;
        if times_ms.is_empty() {
            return write!(formatter, "{origin}; the {engine} engine runs instead");
        }
        let times: Vec<String> = times_ms.iter().map(|(engine, time)| format!("{engine} {time:.2} ms")).collect();
        write!(formatter, "the {engine} engine is the fastest: {} an image, {origin}", times.join(", "))
    }
}

/// The fastest engine here for images of `width` x `height` pixels, one at a time: of the CPU and GPU engines, where the runtime
/// has a GPU. ONNX Runtime is never chosen: to load what lies in some folder is for the user to ask for, it cannot be given back,
/// and its attention can be neither seen nor changed.
///
/// # Errors
/// [`EngineError`] if the size does not suit the model.
pub fn fastest(model: &Model, (width, height): (usize, usize), runtime: &Runtime) -> Result<Fastest, EngineError> {
    let graph = model.graph(width, height)?;
    #[cfg(all(feature = "cpu", feature = "gpu"))]
    return Ok(match runtime.gpu_identity() {
        Ok(gpu) => {
            let identity = choice::identity(&graph, &gpu, runtime);
            choice::remembered(&identity, runtime, || choice::measure(model, (width, height), runtime))
        }
        // A machine without one is nothing out of the ordinary.
        Err(error) => Fastest::only(EngineKind::Cpu, error.to_string()),
    });
    #[cfg(not(all(feature = "cpu", feature = "gpu")))]
    {
        let _ = (graph, runtime);
        let (engine, other) =
            if cfg!(feature = "gpu") { (EngineKind::Gpu, EngineKind::Cpu) } else { (EngineKind::Cpu, EngineKind::Gpu) };
        Ok(Fastest::only(engine, format!("this build has no {other} engine")))
    }
}

/// Where there is a choice.
#[cfg(all(feature = "cpu", feature = "gpu"))]
mod choice {
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use super::super::{EngineError, EngineKind, create, processor_name};
    use super::{Fastest, least_times};
    use crate::runtime::{Measured, Runtime};
    use yolo_lat_core::fingerprint::Fingerprint;
    use yolo_lat_core::model::{CheckedGraph, Model, Precision};
    use yolo_lat_cpu::chosen_instruction_set;
    use yolo_lat_gpu::write_whole;

    /// In the order of [`Measured::times_ms`].
    const ENGINES: [EngineKind; 2] = [EngineKind::Cpu, EngineKind::Gpu];
    /// Enough rounds for the least time to be met on a machine that does other things too, and within the first second.
    const ENOUGH: Duration = Duration::from_millis(400);
    const HEAD: &str = "# yolo-lat --engine auto: least milliseconds of an image. Remove this file to measure again.";

    /// All that decides which engine is the fastest, in a line: version, machine, network.
    pub(super) fn identity(graph: &CheckedGraph, gpu: &str, runtime: &Runtime) -> String {
        let set = chosen_instruction_set().map_or_else(|error| error.to_string(), |set| set.to_string());
        let text = format!(
            "yolo-lat {}; {}, {set}, {} threads; {gpu}, {:?}; {}, {} parameters, {} multiply-adds, {}",
            env!("CARGO_PKG_VERSION"),
            processor_name(),
            runtime.threads(),
            runtime.gpu_options().features,
            graph.name,
            graph.parameters(),
            graph.multiply_adds(),
            graph.input(),
        );
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// What the runtime or its cache folder knows, else what `measure` finds out, which they then know. What cannot be measured is
    /// not remembered. Detectors that are made at once on a runtime wait for the first one's measurement.
    pub(super) fn remembered(
        identity: &str,
        runtime: &Runtime,
        measure: impl FnOnce() -> Result<[f64; 2], EngineError>,
    ) -> Fastest {
        let mut known = runtime.measured();
        if let Some(measured) = known.get(identity) {
            return of(measured);
        }
        let file = runtime.gpu_options().cache.as_deref().map(|folder| file_in(folder, identity));
        let read = file.as_deref().and_then(|file| Some((file, read(file, identity)?)));
        let measured = match read {
            Some((file, times_ms)) => {
                Measured { times_ms, origin: format!("measured by an earlier run ({})", file.display()) }
            }
            None => match measure() {
                Ok(times_ms) => {
                    if let Some(file) = &file
                        && let Err(error) = write_whole(file, &[text_of(identity, times_ms).as_bytes()])
                    {
                        log::debug!("{}: cannot be written: {error}", file.display());
                    }
                    Measured { times_ms, origin: "measured now".into() }
                }
                Err(error) => {
                    log::warn!("{error}; the cpu engine runs instead");
                    return Fastest::only(EngineKind::Cpu, error.to_string());
                }
            },
        };
        let fastest = of(&measured);
        known.insert(identity.to_owned(), measured);
        fastest
    }

    fn of(Measured { times_ms: [cpu, gpu], origin }: &Measured) -> Fastest {
        let engine = if gpu < cpu { EngineKind::Gpu } else { EngineKind::Cpu };
        Fastest { engine, times_ms: ENGINES.into_iter().zip([*cpu, *gpu]).collect(), origin: origin.clone() }
    }

    /// Milliseconds of each engine.
    pub(super) fn measure(
        model: &Model,
        (width, height): (usize, usize),
        runtime: &Runtime,
    ) -> Result<[f64; 2], EngineError> {
        // A GPU has no integers.
        let floats = model.clone().in_precision(Precision::F32)?;
        let cpu = create(ENGINES[0], model, width, height, runtime);
        let gpu = create(ENGINES[1], &floats, width, height, runtime);
        let mut times = least_times(&mut [cpu?, gpu?], ENOUGH).into_iter();
        let mut next = || times.next().map_or(Ok(Duration::MAX), |time| time).map(|time| time.as_secs_f64() * 1e3);
        Ok([next()?, next()?])
    }

    pub(super) fn file_in(folder: &Path, identity: &str) -> PathBuf {
        let mut name = Fingerprint::default();
        name.add(identity.as_bytes());
        folder.join(format!("engine-{}.txt", name.text()))
    }

    pub(super) fn text_of(identity: &str, [cpu, gpu]: [f64; 2]) -> String {
        format!("{HEAD}\n{identity}\ncpu {cpu:.4}\ngpu {gpu:.4}\n")
    }

    /// Times of both engines, if the file is whole and of this machine and network.
    pub(super) fn read(file: &Path, identity: &str) -> Option<[f64; 2]> {
        let text = std::fs::read_to_string(file).ok()?;
        let mut lines = text.strip_suffix('\n')?.lines();
        if (lines.next(), lines.next()) != (Some(HEAD), Some(identity)) {
            return None;
        }
        let mut time = |name| {
            let time = lines.next()?.strip_prefix(name)?.trim().parse::<f64>().ok()?;
            (time.is_finite() && time > 0.0).then_some(time)
        };
        Some([time("cpu")?, time("gpu")?])
    }
}

#[cfg(all(test, feature = "cpu", feature = "gpu"))]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::choice::{file_in, read, remembered, text_of};
    use super::*;
    use crate::RuntimeOptions;
    use yolo_lat_gpu::GpuOptions;

    const CPU_FIRST: [f64; 2] = [1.0, 2.0];
    const GPU_FIRST: [f64; 2] = [2.0, 1.0];

    fn runtime(cache: Option<&Path>) -> Runtime {
        let gpu = GpuOptions { cache: cache.map(Path::to_owned), ..GpuOptions::default() };
        Runtime::new(RuntimeOptions { gpu, ..RuntimeOptions::default() })
    }

    /// What is chosen where a measurement would find the CPU to be faster.
    fn chosen(runtime: &Runtime) -> Fastest {
        remembered("here", runtime, || Ok(CPU_FIRST))
    }

    fn never() -> Result<[f64; 2], EngineError> {
        unreachable!("this is known already")
    }

    #[test]
    fn all_take_turns_alike_often() {
        let (mut a, mut b) = (0, 0);
        let times = take_turns(Duration::ZERO, &mut [&mut || a += 1, &mut || b += 1]);
        assert_eq!((a, b, times.len(), times[0].len(), times[1].len()), (4, 4, 2, 3, 3));
        assert!(take_turns(Duration::MAX, &mut []).is_empty());
    }

    /// Sleeps instead of computing, fails at last, and counts.
    struct Sleeper {
        sleep: Duration,
        runs: Arc<AtomicUsize>,
        fails_at: usize,
    }

    impl Engine for Sleeper {
        fn description(&self) -> String {
            "sleeper".into()
        }

        fn input(&self) -> Shape {
            Shape { channels: 3, height: 1, width: 1 }
        }

        fn run(&mut self, images: ndarray::ArrayView4<f32>) -> Result<&[Array4<f32>], EngineError> {
            assert_eq!(images.dim(), (1, 3, 1, 1));
            std::thread::sleep(self.sleep);
            match self.runs.fetch_add(1, Ordering::Relaxed) + 1 == self.fails_at {
                true => Err(EngineError::Device { reason: "tired".into() }),
                false => Ok(&[]),
            }
        }
    }

    #[test]
    fn an_engine_far_behind_is_not_asked_again() {
        let counts: [Arc<AtomicUsize>; 3] = Default::default();
        // So far apart that no other work of the machine makes them equal.
        let sleeps = [0, 500, 0].map(Duration::from_millis);
        let sleeper = |(index, sleep): (usize, _)| -> Box<dyn Engine> {
            Box::new(Sleeper { sleep, runs: counts[index].clone(), fails_at: if index == 2 { 3 } else { 0 } })
        };
        let mut engines: Vec<_> = sleeps.into_iter().enumerate().map(sleeper).collect();
        let times = least_times(&mut engines, Duration::ZERO);
        assert_eq!(counts.map(|count| count.load(Ordering::Relaxed)), [4, 2, 3]);
        assert!(times[0].as_ref().unwrap() < &sleeps[1] && times[1].as_ref().unwrap() >= &sleeps[1]);
        assert_eq!(times[2].as_ref().unwrap_err().to_string(), "gpu: tired");
    }

    #[test]
    fn what_was_measured_is_not_measured_again() {
        let folder = tempfile::tempdir().unwrap();
        // In a folder that is not there yet.
        let cache = folder.path().join("a/b");
        let first = runtime(Some(&cache));
        let measured = chosen(&first);
        assert_eq!((measured.engine, measured.origin.as_str()), (EngineKind::Cpu, "measured now"));
        assert_eq!(remembered("here", &first, never), measured);
        let next = remembered("here", &runtime(Some(&cache)), never);
        assert_eq!((next.engine, &next.times_ms), (EngineKind::Cpu, &measured.times_ms));
        let file = file_in(&cache, "here");
        let said = format!(
            "the cpu engine is the fastest: cpu 1.00 ms, gpu 2.00 ms an image, measured by an earlier run ({})",
            file.display()
        );
        assert_eq!(next.to_string(), said);
        // Another machine, network or version has a file of its own.
        let other = remembered("there", &runtime(Some(&cache)), || Ok(GPU_FIRST));
        assert_eq!((other.engine, other.origin.as_str()), (EngineKind::Gpu, "measured now"));
    }

    #[test]
    fn what_the_cache_says_decides() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(file_in(folder.path(), "here"), text_of("here", GPU_FIRST)).unwrap();
        assert_eq!(remembered("here", &runtime(Some(folder.path())), never).engine, EngineKind::Gpu);
    }

    #[test]
    fn a_file_that_is_damaged_or_of_another_machine_is_measured_anew() {
        let folder = tempfile::tempdir().unwrap();
        let file = file_in(folder.path(), "here");
        let whole = text_of("here", GPU_FIRST);
        let damaged = [
            String::new(),
            whole[..whole.len() / 2].to_owned(),
            whole[..whole.len() - 1].to_owned(),
            whole[..whole.len() - "gpu 1.0000\n".len()].to_owned(),
            whole.replace("1.0000", "NaN"),
            whole.replace("1.0000", "-1"),
            whole.replace("gpu", "voodoo"),
            text_of("there", GPU_FIRST),
        ];
        for text in damaged {
            std::fs::write(&file, &text).unwrap();
            let found = chosen(&runtime(Some(folder.path())));
            assert_eq!((found.engine, found.origin.as_str()), (EngineKind::Cpu, "measured now"), "{text:?}");
            assert_eq!(read(&file, "here"), Some(CPU_FIRST), "{text:?}");
        }
        std::fs::write(&file, b"\xFF\xFE").unwrap();
        assert_eq!(chosen(&runtime(Some(folder.path()))).engine, EngineKind::Cpu);
    }

    #[test]
    fn without_a_folder_that_can_be_written_it_is_measured_for_each_runtime() {
        let folder = tempfile::tempdir().unwrap();
        // A file where the folder should be cannot be written into, not even by root.
        let cache = folder.path().join("file");
        std::fs::write(&cache, "").unwrap();
        for cache in [None, Some(&*cache)] {
            let here = runtime(cache);
            assert_eq!(chosen(&here).origin, "measured now");
            assert_eq!(remembered("here", &here, never).engine, EngineKind::Cpu);
            assert_eq!(remembered("here", &runtime(cache), || Ok(GPU_FIRST)).engine, EngineKind::Gpu);
        }
    }

    #[test]
    fn what_cannot_be_measured_runs_on_the_cpu_and_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let here = runtime(Some(folder.path()));
        let found = remembered("here", &here, || Err(EngineError::Device { reason: "it burns".into() }));
        assert_eq!(
            (found.engine, found.to_string().as_str()),
            (EngineKind::Cpu, "gpu: it burns; the cpu engine runs instead")
        );
        assert_eq!(chosen(&here).origin, "measured now");
    }
}
