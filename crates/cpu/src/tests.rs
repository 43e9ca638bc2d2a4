use super::*;
use yolo_lat_core::model::Model;
use yolo_lat_simd::{Plain, Simd};

#[test]
fn vectors_of_every_instruction_set_agree_on_exp() {
    /// Largest relative error of `exp` over its range.
    ///
    /// # Safety
    /// The machine has the instruction set of `S`.
    #[inline(always)]
    unsafe fn worst<S: Simd>() -> f64 {
        let mut worst: f64 = 0.0;
        for step in -87_000..88_000 {
            let x = step as f32 / 1000.0;
            let mut lanes = [0.0f32; 16];
            // SAFETY: the array has room for the widest vector.
            unsafe { S::store(lanes.as_mut_ptr(), S::exp(S::splat(x))) };
            worst = worst.max((f64::from(lanes[0]) / f64::from(x).exp() - 1.0).abs());
        }
        worst
    }
    // SAFETY: arrays exist everywhere.
    let mut errors = vec![unsafe { worst::<Plain>() }];
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2() -> f64 {
            // SAFETY: the caller's.
            unsafe { worst::<yolo_lat_simd::Avx2>() }
        }
        #[target_feature(enable = "avx512f")]
        unsafe fn avx512() -> f64 {
            // SAFETY: the caller's.
            unsafe { worst::<yolo_lat_simd::Avx512>() }
        }
        let sets = InstructionSet::available();
        if sets.contains(&InstructionSet::Avx2) {
            // SAFETY: it is available.
            errors.push(unsafe { avx2() });
        }
        if sets.contains(&InstructionSet::Avx512) {
            // SAFETY: it is available.
            errors.push(unsafe { avx512() });
        }
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: every such processor has it.
    errors.push(unsafe { worst::<yolo_lat_simd::Neon>() });
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    // SAFETY: the whole module is compiled for it.
    errors.push(unsafe { worst::<yolo_lat_simd::Simd128>() });
    assert!(errors.iter().all(|&error| error < 4e-7), "{errors:?}");
}

#[test]
fn feature_maps_share_memory() {
    let model = Model::load("n").unwrap();
    let graph = model.network(320, 320).unwrap();
    let engine = CpuEngine::new(&graph, 1).unwrap();
    let all: usize = graph.nodes.iter().filter(|node| !node.op.is_view()).map(|node| 4 * node.shape.values()).sum();
    assert!(engine.arena_bytes() < all / 3, "{} of {all} bytes", engine.arena_bytes());
}

/// A run that fails ends, for every number of threads and images, and the next one works again.
#[test]
fn a_panic_in_a_kernel_is_an_error_and_no_hang() {
    let model = Model::load("n").unwrap();
    let network = model.network(64, 64).unwrap();
    for threads in [1, 2, 3] {
        let mut engine = CpuEngine::new(&network, threads).unwrap();
        for batch in [1, 3] {
            let images = Array4::zeros((batch, 3, 64, 64));
            let kernel = std::mem::replace(&mut engine.runner.plan.steps[5], steps::Step::Panic);
            let error = engine.run(images.view()).unwrap_err();
            assert!(matches!(error, EngineError::Kernel), "{error}");
            engine.runner.plan.steps[5] = kernel;
            engine.run(images.view()).unwrap();
        }
    }
}
