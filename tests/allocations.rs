//! Nothing is allocated in a frame after the first, but the list of what was found and what resizing needs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use image::RgbImage;
use ndarray::{Array3, Array4};
use yolo_lat::engine::cpu::CpuEngine;
use yolo_lat::engine::{Engine, EngineKind};
use yolo_lat::model::{Model, Precision};
use yolo_lat::preprocess::Preprocessor;
use yolo_lat::{Detector, DetectorOptions, Runtime};

/// The system's allocator, counted.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator keeps the promises.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Allocations of the third time that `work` is done.
fn allocations(mut work: impl FnMut()) -> usize {
    work();
    work();
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    work();
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

// One test: the counter is that of the process.
#[test]
fn frames_after_the_first_allocate_nothing() {
    let model = Model::load("n").unwrap();
    let networks = [Precision::F32, Precision::Int8].map(|precision| {
        let model = model.clone().in_precision(precision).unwrap();
        model.network(96, 64).unwrap()
    });
    for (network, (threads, batch)) in
        networks.iter().flat_map(|network| [(1, 1), (2, 1), (1, 3), (3, 5)].map(|how| (network, how)))
    {
        let mut engine = CpuEngine::new(network, threads).unwrap();
        let images = Array4::from_elem((batch, 3, 64, 96), 0.5);
        let count = allocations(|| drop(engine.run(images.view()).map(<[_]>::len)));
        assert_eq!(count, 0, "{threads} threads, {batch} images");
    }

    let options = DetectorOptions { engine: EngineKind::Cpu, ..DetectorOptions::default() };
    let mut detector = Detector::of_model(&model, &Runtime::with_threads(2), &options).unwrap();
    let (width, height) = detector.input_size((640, 480));
    let empty = RgbImage::from_pixel(width as u32, height as u32, image::Rgb([114; 3]));
    assert_eq!(detector.detect(&empty).unwrap(), []);
    assert_eq!(allocations(|| drop(detector.detect(&empty).unwrap())), 0);

    // Resizing computes its weights anew.
    let cat = image::open("assets/chelsea.jpg").unwrap().into_rgb8();
    let (width, height) = detector.input_size(cat.dimensions());
    let (mut preprocessor, mut target) = (Preprocessor::default(), Array3::zeros((3, height, width)));
    let mut fit = || preprocessor.apply(&cat, target.view_mut()).unwrap();
    let resizing = allocations(|| assert_eq!(fit().input.0, width as u32));
    assert!(!detector.detect(&cat).unwrap().is_empty());
    assert_eq!(allocations(|| drop(detector.detect(&cat).unwrap())), resizing + 1);
}
