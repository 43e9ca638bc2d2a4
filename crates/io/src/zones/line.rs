//! Lines that tracks are counted at, in both directions.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::shape::{Point, ShapeError, check, foot, parse, turn};
use yolo_lat_core::geometry::BBox;

/// A line from one point to another, in shares of the image. One who walks along it has `out` at the left hand and `in` at the
/// right hand: of a line from left to right, what moves down goes in.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    name: String,
    points: [Point; 2],
}

impl Line {
    /// A line between two points.
    ///
    /// # Errors
    /// [`ShapeError`]: a name that results cannot have, a point outside of the image, both points in one place.
    pub fn new(name: impl Into<String>, points: [Point; 2]) -> Result<Self, ShapeError> {
        let name = name.into();
        check(&name, &points)?;
        if points[0] == points[1] {
            return Err(ShapeError::Flat { name });
        }
        Ok(Self { name, points })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its ends.
    pub fn points(&self) -> [Point; 2] {
        self.points
    }

    /// From the middle of the line so many pixels to the side of `in`, in an image of `size` pixels: an arrow to be drawn.
    pub fn arrow(&self, size: (u32, u32), length: f32) -> [Point; 2] {
        let [from, to] = self.points.map(|point| in_pixels(point, size));
        let (x, y) = (to[0] - from[0], to[1] - from[1]);
        let scale = length / x.hypot(y);
        let middle = [0, 1].map(|axis| 0.5 * (self.points[0][axis] + self.points[1][axis]));
        [middle, [middle[0] - y * scale / size.0 as f32, middle[1] + x * scale / size.1 as f32]]
    }

    /// Pixels from the line, drawn on beyond its ends, to a point in an image of `size` pixels; negative at the side of `out`.
    fn distance(&self, point: Point, size: (u32, u32)) -> f32 {
        let [from, to, point] = [self.points[0], self.points[1], point].map(|point| in_pixels(point, size));
        turn(from, to, point) / (to[0] - from[0]).hypot(to[1] - from[1])
    }

    /// Whether the way from `a` to `b`, which are at different sides, goes between the ends.
    fn is_between(&self, a: Point, b: Point) -> bool {
        let [from, to] = self.points.map(|end| turn(a, b, end));
        (from <= 0.0 && to >= 0.0) || (from >= 0.0 && to <= 0.0)
    }
}

fn in_pixels([x, y]: Point, (width, height): (u32, u32)) -> Point {
    [x * width as f32, y * height as f32]
}

impl FromStr for Line {
    type Err = ShapeError;

    fn from_str(text: &str) -> Result<Self, ShapeError> {
        let (name, points) = parse(text)?;
        match <[Point; 2]>::try_from(points) {
            Ok(points) => Self::new(name, points),
            Err(points) => Err(ShapeError::Count { name, wanted: "a line has 2 points", count: points.len() }),
        }
    }
}

/// How many tracks have crossed a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crossings {
    /// To the right hand of one who walks along the line.
    #[serde(rename = "in")]
    pub entered: u64,
    /// To the left hand.
    #[serde(rename = "out")]
    pub left: u64,
}

/// What has crossed each line, by its name.
pub type Counts = BTreeMap<String, Crossings>;

/// `gate 7 in 5 out, yard 0 in 1 out`.
pub fn counts_in_words(counts: &Counts) -> String {
    let words = |(name, Crossings { entered, left }): (&String, &Crossings)| format!("{name} {entered} in {left} out");
    counts.iter().map(words).collect::<Vec<_>>().join(", ")
}

/// A track and a line.
#[derive(Clone, Debug)]
struct Approach {
    /// The side on which it was last seen clearly.
    is_in: Option<bool>,
    foot: Point,
    /// Whether its way over the line was between the ends, the last time.
    between: bool,
    seen: Duration,
}

/// Counts the tracks that cross one line.
///
/// A track is at a side when it is clear of the line by a tenth of its box ([`CLEAR`]): one that trembles on the line is still
/// where it came from. What first appears near the line or beyond it has crossed nothing.
#[derive(Clone, Debug)]
pub struct LineCounter {
    line: Line,
    tracks: HashMap<u64, Approach>,
    crossings: Crossings,
}

/// How far from the line a track must be, in shares of its box's size (root of the area) and of the image's shorter side.
pub const CLEAR: (f32, f32) = (0.1, 0.01);
/// A track that was not seen for so long does not come back.
const FORGOTTEN: Duration = Duration::from_secs(60);

impl LineCounter {
    /// Counts from nought.
    pub fn new(line: Line) -> Self {
        Self { line, tracks: HashMap::new(), crossings: Crossings::default() }
    }

    /// The line.
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// What has crossed so far.
    pub fn crossings(&self) -> Crossings {
        self.crossings
    }

    /// Takes the boxes of all tracks of a frame of `size` pixels at `time`.
    pub fn see<'a>(&mut self, tracks: impl Iterator<Item = (u64, &'a BBox)>, size: (u32, u32), time: Duration) {
        for (track, bbox) in tracks {
            self.see_one(track, bbox, size, time);
        }
        self.tracks.retain(|_, approach| time.saturating_sub(approach.seen) <= FORGOTTEN);
    }

    fn see_one(&mut self, track: u64, bbox: &BBox, size: (u32, u32), time: Duration) {
        let foot = foot(bbox, size);
        let distance = self.line.distance(foot, size);
        let clear = (CLEAR.0 * bbox.area().sqrt()).max(CLEAR.1 * size.0.min(size.1) as f32);
        let first = Approach { is_in: None, foot, between: false, seen: time };
        let approach = self.tracks.entry(track).or_insert(first);
        if (self.line.distance(approach.foot, size) < 0.0) != (distance < 0.0) {
            approach.between = self.line.is_between(approach.foot, foot);
        }
        (approach.foot, approach.seen) = (foot, time);
        if distance.abs() >= clear {
            let is_in = distance > 0.0;
            let before = approach.is_in.replace(is_in);
            if before == Some(!is_in) && approach.between {
                let count = if is_in { &mut self.crossings.entered } else { &mut self.crossings.left };
                *count += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: (u32, u32) = (640, 480);

    fn gate() -> LineCounter {
        LineCounter::new("gate=0.25,0.5,0.75,0.5".parse().unwrap())
    }

    /// Box of 40 x 80 pixels that stands at a point.
    fn standing_at(x: f32, y: f32) -> BBox {
        BBox { x1: x - 20.0, y1: y - 80.0, x2: x + 20.0, y2: y }
    }

    /// What a track counts that stands at these points, a frame each.
    fn walk(points: impl IntoIterator<Item = (f32, f32)>) -> (u64, u64) {
        let mut gate = gate();
        for (frame, (x, y)) in points.into_iter().enumerate() {
            gate.see([(7, &standing_at(x, y))].into_iter(), SIZE, Duration::from_millis(40 * frame as u64));
        }
        (gate.crossings().entered, gate.crossings().left)
    }

    #[test]
    fn a_line_is_read_from_text_or_says_what_is_wrong() {
        let line: Line = "gate=0.25,0.5,0.75,0.5".parse().unwrap();
        assert_eq!((line.name(), line.points()), ("gate", [[0.25, 0.5], [0.75, 0.5]]));
        for (text, wrong) in [
            ("gate=0,0,1,1,0.5,0.5", "gate: a line has 2 points, found 3"),
            ("gate=0,0", "gate: a line has 2 points, found 1"),
            (
                "gate=0,1.5,1,1.5",
                "gate: 1.5 is outside of the image: x and y are shares of its width and height, 0 to 1",
            ),
            ("gate=0.5,0.5,0.5,0.5", "gate: its points lie on one line or in one place"),
        ] {
            assert_eq!(text.parse::<Line>().unwrap_err().to_string(), wrong, "{text}");
        }
    }

    #[test]
    fn down_over_a_line_from_left_to_right_is_in_and_back_is_out() {
        let down = (0..20).map(|step| (320.0, 140.0 + 10.0 * step as f32));
        assert_eq!(walk(down.clone()), (1, 0));
        assert_eq!(walk(down.clone().rev()), (0, 1));
        assert_eq!(walk(down.clone().chain(down.clone().rev())), (1, 1));
        // One leap is enough: the frames between may have been skipped.
        assert_eq!(walk([(320.0, 100.0), (330.0, 400.0)]), (1, 0));
        // The other way round, the other way.
        let mut turned = LineCounter::new("gate=0.75,0.5,0.25,0.5".parse().unwrap());
        for y in [100.0, 400.0] {
            turned.see([(1, &standing_at(320.0, y))].into_iter(), SIZE, Duration::ZERO);
        }
        assert_eq!(turned.crossings(), Crossings { entered: 0, left: 1 });
    }

    #[test]
    fn trembling_on_the_line_counts_once_or_not_at_all() {
        let tremble = (0..50).map(|step| (320.0, 240.0 + [4.0, -4.0, 3.0, -3.0, 0.0][step % 5]));
        assert_eq!(walk(tremble.clone()), (0, 0));
        assert_eq!(walk([(320.0, 200.0)].into_iter().chain(tremble.clone())), (0, 0));
        assert_eq!(walk([(320.0, 200.0)].into_iter().chain(tremble.clone()).chain([(320.0, 280.0)])), (1, 0));
        assert_eq!(walk([(320.0, 200.0)].into_iter().chain(tremble).chain([(320.0, 200.0)])), (0, 0));
    }

    #[test]
    fn what_appears_beyond_or_goes_around_does_not_count() {
        assert_eq!(walk([(320.0, 400.0), (320.0, 300.0)]), (0, 0));
        assert_eq!(walk([(320.0, 240.0), (320.0, 300.0)]), (0, 0));
        // Around the left end, and through a gap at the right of the line.
        assert_eq!(walk([(100.0, 200.0), (100.0, 300.0), (320.0, 300.0)]), (0, 0));
        assert_eq!(walk([(500.0, 200.0), (500.0, 300.0)]), (0, 0));
        // Around the end and back over the line: only that.
        assert_eq!(walk([(100.0, 200.0), (100.0, 300.0), (320.0, 300.0), (320.0, 200.0)]), (0, 1));
    }

    #[test]
    fn each_track_counts_for_itself_and_seven_in_and_five_out_are_that() {
        let mut gate = gate();
        for frame in 0..40 {
            let y = 150.0 + 5.0 * frame as f32;
            let down = (0..7).map(|track| (track, standing_at(200.0 + 40.0 * track as f32, y)));
            let up = (7..12).map(|track| (track, standing_at(40.0 * track as f32 - 60.0, 480.0 - y)));
            let boxes: Vec<_> = down.chain(up).collect();
            gate.see(boxes.iter().map(|(track, bbox)| (*track, bbox)), SIZE, Duration::from_millis(40 * frame));
        }
        assert_eq!(gate.crossings(), Crossings { entered: 7, left: 5 });
        assert_eq!(serde_json::to_string(&gate.crossings()).unwrap(), r#"{"in":7,"out":5}"#);
    }

    #[test]
    fn tracks_that_are_gone_are_forgotten() {
        let mut gate = gate();
        for second in 0..600 {
            let time = Duration::from_secs(second);
            gate.see([(second, &standing_at(320.0, 100.0))].into_iter(), SIZE, time);
        }
        assert!(gate.tracks.len() <= 62, "{}", gate.tracks.len());
    }
}
