//! What people draw into an image: a name and points, written `door=0.1,0.2,0.5,0.2,0.5,0.9`.

use yolo_lat_core::geometry::BBox;

/// Shares of the image's width and height, 0..=1.
pub type Point = [f32; 2];

/// A zone or line that is none: what is wrong with which.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// There is no name, or nothing else.
    #[error("{given:?}: expected NAME=x1,y1,x2,y2,... in shares of the image, 0 to 1")]
    Form {
        /// As it was written.
        given: String,
    },
    /// Results, events and files call it by its name.
    #[error("{name:?}: a name has letters, digits, blanks, - and _")]
    Name {
        /// As it was written.
        name: String,
    },
    /// Not a number.
    #[error("{name}: {given:?} is no number")]
    Number {
        /// Of the zone or line.
        name: String,
        /// As it was written.
        given: String,
    },
    /// An x without its y.
    #[error("{name}: {count} numbers are no points: each has an x and a y")]
    Odd {
        /// Of the zone or line.
        name: String,
        /// Numbers that there are.
        count: usize,
    },
    /// A point outside of the image; most likely pixels.
    #[error("{name}: {number} is outside of the image: x and y are shares of its width and height, 0 to 1")]
    Outside {
        /// Of the zone or line.
        name: String,
        /// The coordinate.
        number: f32,
    },
    /// Too few or too many points.
    #[error("{name}: {wanted}, found {count}")]
    Count {
        /// Of the zone or line.
        name: String,
        /// How many it must have, in words.
        wanted: &'static str,
        /// Points that there are.
        count: usize,
    },
    /// All points on a line, or both in one place.
    #[error("{name}: its points lie on one line or in one place")]
    Flat {
        /// Of the zone or line.
        name: String,
    },
}

/// Whether results can call something so.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|letter| letter.is_alphanumeric() || [' ', '-', '_'].contains(&letter))
}

/// Name and points from text.
pub(super) fn parse(text: &str) -> Result<(String, Vec<Point>), ShapeError> {
    let (name, numbers) = text.split_once('=').ok_or_else(|| ShapeError::Form { given: text.to_owned() })?;
    let name = name.trim().to_owned();
    let parse = |given: &str| {
        given.trim().parse().map_err(|_| ShapeError::Number { name: name.clone(), given: given.trim().to_owned() })
    };
    let numbers = numbers.split(',').map(parse).collect::<Result<Vec<f32>, _>>()?;
    match numbers.as_chunks::<2>() {
        (points, []) => Ok((name, points.to_vec())),
        _ => Err(ShapeError::Odd { name, count: numbers.len() }),
    }
}

/// What every shape must fulfil.
pub(super) fn check(name: &str, points: &[Point]) -> Result<(), ShapeError> {
    if !is_name(name) {
        return Err(ShapeError::Name { name: name.to_owned() });
    }
    match points.iter().flatten().find(|number| !(0.0..=1.0).contains(*number)) {
        Some(&number) => Err(ShapeError::Outside { name: name.to_owned(), number }),
        None => Ok(()),
    }
}

/// Twice the area of the triangle `a`, `b`, `point`: positive where `point` lies at the right hand of one who walks from `a` to `b`.
pub(super) fn turn(a: Point, b: Point, point: Point) -> f32 {
    (b[0] - a[0]) * (point[1] - a[1]) - (b[1] - a[1]) * (point[0] - a[0])
}

/// Where an object stands: the bottom centre of its box, as shares of an image of `size` pixels.
pub fn foot(bbox: &BBox, (width, height): (u32, u32)) -> Point {
    let share = |at: f32, side: u32| (at / side.max(1) as f32).clamp(0.0, 1.0);
    [share(0.5 * (bbox.x1 + bbox.x2), width), share(bbox.y2, height)]
}
