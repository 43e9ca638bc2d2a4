//! How a box moves: a Kalman filter of its centre, aspect and height with constant velocities, as SORT and ByteTrack have it.
//!
//! Their noise is independent, and so are the four: each has a filter of its own, which is the same as one of eight dimensions.

use crate::geometry::BBox;

/// Noise of positions and velocities a frame, as shares of the height.
const POSITION: f64 = 1.0 / 20.0;
const VELOCITY: f64 = 1.0 / 160.0;
/// The same of the aspect, whatever the height; and of one that was measured.
const ASPECT: f64 = 1e-2;
const ASPECT_VELOCITY: f64 = 1e-5;
const MEASURED_ASPECT: f64 = 1e-1;
/// Places of aspect and height among the four.
const ASPECT_AT: usize = 2;
const HEIGHT_AT: usize = 3;
/// Lower boxes are taken for so high, in pixels: noise is never none.
const LOWEST: f64 = 1e-2;

/// One coordinate, its velocity a frame, and how far both may be off.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Axis {
    at: f64,
    velocity: f64,
    /// Variance of the position, covariance, variance of the velocity.
    variance: [f64; 3],
}

impl Axis {
    fn predict(&mut self, frames: f64, [position, velocity]: [f64; 2]) {
        let [own, both, of_velocity] = self.variance;
        self.at += frames * self.velocity;
        self.variance = [
            own + 2.0 * frames * both + frames * frames * of_velocity + frames * position * position,
            both + frames * of_velocity,
            of_velocity + frames * velocity * velocity,
        ];
    }

    fn correct(&mut self, measured: f64, deviation: f64) {
        let [own, both, of_velocity] = self.variance;
        let total = own + deviation * deviation;
        let off = measured - self.at;
        self.at += own / total * off;
        self.velocity += both / total * off;
        self.variance = [own - own * own / total, both - own * both / total, of_velocity - both * both / total];
    }
}

/// Centre x, centre y, aspect (width over height) and height of a box that moves. Noise is that of a frame of 1/30 s.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Motion([Axis; 4]);

fn coordinates(bbox: &BBox) -> [f64; 4] {
    let [x1, y1, x2, y2] = bbox.corners().map(f64::from);
    let height = (y2 - y1).max(LOWEST);
    [(x1 + x2) / 2.0, (y1 + y2) / 2.0, (x2 - x1).max(0.0) / height, height]
}

/// `of_height` times the height; of the aspect, `of_aspect`.
fn deviations(height: f64, of_height: f64, of_aspect: f64) -> [f64; 4] {
    let own = of_height * height.max(LOWEST);
    [own, own, of_aspect, own]
}

impl Motion {
    /// Of a box that is seen for the first time: it may move anywhere.
    pub(super) fn new(bbox: &BBox) -> Self {
        let at = coordinates(bbox);
        let position = deviations(at[HEIGHT_AT], 2.0 * POSITION, ASPECT);
        let velocity = deviations(at[HEIGHT_AT], 10.0 * VELOCITY, ASPECT_VELOCITY);
        let axis = |axis: usize| Axis {
            at: at[axis],
            velocity: 0.0,
            variance: [position[axis].powi(2), 0.0, velocity[axis].powi(2)],
        };
        Self([axis(0), axis(1), axis(ASPECT_AT), axis(HEIGHT_AT)])
    }

    /// Goes on by so many frames of 1/30 s.
    pub(super) fn predict(&mut self, frames: f64) {
        let height = self.0[HEIGHT_AT].at;
        let position = deviations(height, POSITION, ASPECT);
        let velocity = deviations(height, VELOCITY, ASPECT_VELOCITY);
        for (at, axis) in self.0.iter_mut().enumerate() {
            axis.predict(frames, [position[at], velocity[at]]);
        }
    }

    /// Learns where the box was seen.
    pub(super) fn correct(&mut self, bbox: &BBox) {
        let deviation = deviations(self.0[HEIGHT_AT].at, POSITION, MEASURED_ASPECT);
        let measured = coordinates(bbox);
        for (at, axis) in self.0.iter_mut().enumerate() {
            axis.correct(measured[at], deviation[at]);
        }
    }

    /// What is out of sight moves, but does not grow.
    pub(super) fn keep_height(&mut self) {
        self.0[HEIGHT_AT].velocity = 0.0;
    }

    /// Where it is now.
    pub(super) fn bbox(&self) -> BBox {
        let [x, y, aspect, height] = self.0.map(|axis| axis.at);
        let height = height.max(0.0);
        let width = aspect.max(0.0) * height;
        let [x1, y1, x2, y2] = [x - width / 2.0, y - height / 2.0, x + width / 2.0, y + height / 2.0];
        BBox { x1: x1 as f32, y1: y1 as f32, x2: x2 as f32, y2: y2 as f32 }
    }

    /// Of the centre in x and y, in pixels a frame of 1/30 s.
    pub(super) fn velocity(&self) -> (f64, f64) {
        (self.0[0].velocity, self.0[1].velocity)
    }

    /// Positions and velocities, as the published filter orders them.
    #[cfg(test)]
    pub(super) fn state(&self) -> [f64; 8] {
        std::array::from_fn(|place| if place < 4 { self.0[place].at } else { self.0[place - 4].velocity })
    }
}
