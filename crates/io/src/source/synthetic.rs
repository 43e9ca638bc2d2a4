//! A moving scene of the sample photographs: something to detect where there is no camera.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

use image::RgbImage;

use yolo_lat_core::resample::{Filter, Resampler};

use super::images::{SourceError, decode_image};
use super::stream::{Source, wait_until};
use crate::frame::Frame;

const SAMPLES: [&[u8]; 3] = [
    include_bytes!("../../../../assets/astronaut.jpg"),
    include_bytes!("../../../../assets/chelsea.jpg"),
    include_bytes!("../../../../assets/coffee.jpg"),
];

/// Pixels of a frame.
const SIZE: (u32, u32) = (640, 480);
const FRAMES_PER_SECOND: u64 = 30;
/// Frames that a photograph stays.
const SCENE: u64 = 5 * FRAMES_PER_SECOND;

/// Gives 30 frames a second: a slow flight over each photograph in turn. Frame n is the same in every run.
pub struct SyntheticSource {
    name: &'static str,
    photographs: Vec<RgbImage>,
    resampler: Resampler,
    next: u64,
    started: Option<Instant>,
}

impl Default for SyntheticSource {
    fn default() -> Self {
        Self::new()
    }
}

impl SyntheticSource {
    /// Decodes the photographs, which are part of the program.
    pub fn new() -> Self {
        Self::called("synthetic scene")
    }

    /// The same under another name.
    pub(super) fn called(name: &'static str) -> Self {
        let photographs = SAMPLES.iter().filter_map(|bytes| decode_image(bytes).ok()).collect();
        Self { name, photographs, resampler: Resampler::default(), next: 0, started: None }
    }

    /// Frame `number` of the scene.
    pub fn frame(&mut self, number: u64) -> RgbImage {
        let photograph = &self.photographs[(number / SCENE) as usize % self.photographs.len()];
        let (width, height) = (f64::from(photograph.width()), f64::from(photograph.height()));
        let progress = (number % SCENE) as f64 / SCENE as f64;
        // The largest window of the frame's shape, drawn in and out by a fifth, gliding on a curve.
        let shape = f64::from(SIZE.0) / f64::from(SIZE.1);
        let largest = if width / height > shape { (height * shape, height) } else { (width, width / shape) };
        let angle = progress * std::f64::consts::TAU;
        let zoom = 0.9 - 0.1 * angle.cos();
        let (w, h) = (largest.0 * zoom, largest.1 * zoom);
        let (x, y) = ((width - w) * (0.5 + 0.5 * angle.sin()), (height - h) * (0.5 - 0.5 * angle.cos()));
        let mut frame = RgbImage::new(SIZE.0, SIZE.1);
        let from = (photograph.as_raw().as_slice(), photograph.dimensions());
        let done = self.resampler.apply(from, (&mut frame, SIZE), Some((x, y, w, h)), Filter::Bilinear);
        debug_assert_eq!(done, Ok(()), "the window lies inside of the photograph");
        frame
    }
}

impl Source for SyntheticSource {
    fn description(&self) -> String {
        format!("{}, {}x{}", self.name, SIZE.0, SIZE.1)
    }

    fn next_frame(&mut self, stop: &AtomicBool) -> Result<Option<Frame>, SourceError> {
        let started = *self.started.get_or_insert_with(Instant::now);
        let due = started + Duration::from_micros(self.next * 1_000_000 / FRAMES_PER_SECOND);
        if !wait_until(due, stop) {
            return Ok(None);
        }
        // Like a camera: where nobody asked in time, frames are gone.
        let late = due.elapsed().as_micros() as u64 * FRAMES_PER_SECOND / 1_000_000;
        let sequence = self.next + late;
        self.next = sequence + 1;
        let captured_at = SystemTime::now();
        Ok(Some(Frame { pixels: self.frame(sequence), sequence, captured_at }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_move_slowly_and_are_the_same_in_every_run() {
        let (mut a, mut b) = (SyntheticSource::new(), SyntheticSource::new());
        let difference = |a: &RgbImage, b: &RgbImage| {
            let sum: u64 = a.iter().zip(b.iter()).map(|(&a, &b)| u64::from(a.abs_diff(b))).sum();
            sum as f64 / a.len() as f64
        };
        let frame = a.frame(40);
        assert_eq!(frame.dimensions(), SIZE);
        assert_eq!(frame, b.frame(40));
        let next = difference(&frame, &a.frame(41));
        assert!(next > 0.1 && next < 20.0, "{next}");
        assert!(difference(&frame, &a.frame(40 + SCENE)) > 20.0);
    }
}
