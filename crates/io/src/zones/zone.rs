//! Zones: parts of the image with a name.

use std::str::FromStr;

use super::shape::{Point, ShapeError, check, parse, turn};

/// A polygon in shares of the image. An object is in it if the bottom centre of its box is.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone {
    name: String,
    points: Vec<Point>,
}

impl Zone {
    /// A zone of at least three points, in order around it. Where its border crosses itself, what it goes around an even number
    /// of times is outside.
    ///
    /// # Errors
    /// [`ShapeError`]: a name that results cannot have, a point outside of the image, fewer than three points, no area.
    pub fn new(name: impl Into<String>, points: Vec<Point>) -> Result<Self, ShapeError> {
        let name = name.into();
        check(&name, &points)?;
        if points.len() < 3 {
            return Err(ShapeError::Count { name, wanted: "a zone has at least 3 points", count: points.len() });
        }
        let edges = points.iter().zip(points.iter().skip(1));
        let has_area = |(&a, &b): (&Point, &Point)| points.iter().any(|&point| turn(a, b, point).abs() > 1e-6);
        if !edges.clone().any(has_area) {
            return Err(ShapeError::Flat { name });
        }
        Ok(Self { name, points })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its corners.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Whether a point is inside; the border is.
    pub fn contains(&self, point: Point) -> bool {
        let next = self.points.iter().cycle().skip(1);
        let mut inside = false;
        for (&a, &b) in self.points.iter().zip(next) {
            let side = turn(a, b, point);
            let between = |axis: usize| (a[axis].min(b[axis])..=a[axis].max(b[axis])).contains(&point[axis]);
            if side == 0.0 && between(0) && between(1) {
                return true;
            }
            // The ray to the left meets the edge.
            if (a[1] > point[1]) != (b[1] > point[1]) && (side < 0.0) == (b[1] > a[1]) {
                inside = !inside;
            }
        }
        inside
    }
}

impl FromStr for Zone {
    type Err = ShapeError;

    fn from_str(text: &str) -> Result<Self, ShapeError> {
        let (name, points) = parse(text)?;
        Self::new(name, points)
    }
}

#[cfg(test)]
mod tests {
    use std::f32::consts::TAU;

    use arbtest::arbtest;

    use super::*;

    #[test]
    fn a_zone_is_read_from_text_or_says_what_is_wrong() {
        let zone: Zone = " front door = 0.1, 0.2,0.5,0.2 ,0.5,0.9".parse().unwrap();
        assert_eq!((zone.name(), zone.points()), ("front door", &[[0.1, 0.2], [0.5, 0.2], [0.5, 0.9]][..]));
        for (text, wrong) in [
            ("door", "\"door\": expected NAME=x1,y1,x2,y2,... in shares of the image, 0 to 1"),
            ("=0,0,1,0,1,1", "\"\": a name has letters, digits, blanks, - and _"),
            ("a:b=0,0,1,0,1,1", "\"a:b\": a name has letters, digits, blanks, - and _"),
            ("door=0,0,1,x,1,1", "door: \"x\" is no number"),
            ("door=0,0,1,0,1", "door: 5 numbers are no points: each has an x and a y"),
            ("door=0,0,1,0", "door: a zone has at least 3 points, found 2"),
            (
                "door=0,0,640,0,1,1",
                "door: 640 is outside of the image: x and y are shares of its width and height, 0 to 1",
            ),
            (
                "door=0,0,NaN,0,1,1",
                "door: NaN is outside of the image: x and y are shares of its width and height, 0 to 1",
            ),
            ("door=0,0,0.5,0.5,1,1", "door: its points lie on one line or in one place"),
            ("door=0.5,0.5,0.5,0.5,0.5,0.5", "door: its points lie on one line or in one place"),
        ] {
            assert_eq!(text.parse::<Zone>().unwrap_err().to_string(), wrong, "{text}");
        }
    }

    #[test]
    fn inside_outside_and_the_border() {
        let zone: Zone = "l=0,0.5,0.5,0.5,0.5,0,1,0,1,1,0,1".parse().unwrap();
        for point in [[0.25, 0.75], [0.75, 0.25], [0.75, 0.75], [0.0, 1.0], [0.3, 1.0], [1.0, 0.4], [0.5, 0.25]] {
            assert!(zone.contains(point), "{point:?}");
        }
        for point in [[0.25, 0.25], [0.49, 0.49], [0.0, 0.49], [0.0, 0.0]] {
            assert!(!zone.contains(point), "{point:?}");
        }
        // A star goes around its middle twice.
        let star: Zone = "star=0.5,0,0.8,0.95,0.02,0.36,0.98,0.36,0.2,0.95".parse().unwrap();
        assert!(star.contains([0.5, 0.2]) && !star.contains([0.5, 0.5]));
    }

    /// The zone is the union of the triangles of a fan, where it is convex.
    #[test]
    fn a_convex_zone_holds_what_its_triangles_hold() {
        arbtest(|u| {
            let mut share = |steps: u32| Ok(u.int_in_range(0..=steps)? as f32 / steps as f32);
            // Corners on a circle, by their angle.
            let mut angles = [share(997)?, share(997)?, share(997)?, share(997)?, share(997)?];
            angles.sort_by(f32::total_cmp);
            let corner = |angle: f32| [0.5 + 0.45 * (TAU * angle).cos(), 0.5 + 0.45 * (TAU * angle).sin()];
            let points = angles.map(corner).to_vec();
            let point = [share(101)?, share(101)?];
            let Ok(zone) = Zone::new("z", points.clone()) else { return Ok(()) };
            // What lies on an edge, as far as floats know, is not asked for.
            let edges = (0..5).map(|edge| turn(points[edge], points[(edge + 1) % 5], point));
            if edges.clone().all(|side| side.abs() > 1e-5) {
                assert_eq!(zone.contains(point), edges.clone().all(|side| side > 0.0), "{points:?} {point:?}");
            }
            Ok(())
        });
    }
}
