//! Which rectangle a network gets for an image: the image's shape, a given area.
//!
//! A 4:3 image letterboxed into a square wastes a quarter of the arithmetic on grey, a 16:9 one almost half. A rectangle of the same
//! area costs the same and shows the image larger.

use std::fmt;

/// Sides of an input are multiples of the coarsest stride.
const STEP: usize = 32;
/// How much more area than the budget a rectangle may have: 384 x 288 for 320 x 320.
const EXCESS: f64 = 1.1;
/// The longer side is at most so many times the shorter: networks never see more slender images in training.
const SLENDEREST: usize = 4;
/// A smaller rectangle is preferred to one that shows the image larger by no more than this share.
const NEGLIGIBLE: f64 = 0.01;
/// No side is longer, whatever the budget.
const LONGEST: usize = 4096;

/// How the network's input follows from an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputSize {
    /// A rectangle in the image's shape with about as many pixels as a square of this side; `None` for the model's own.
    Budget(Option<usize>),
    /// A square of this side for every image; `None` for the model's own.
    Square(Option<usize>),
    /// This width and height for every image.
    Fixed(usize, usize),
}

impl Default for InputSize {
    fn default() -> Self {
        Self::Budget(None)
    }
}

impl fmt::Display for InputSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Budget(None) => formatter.write_str("the model's"),
            Self::Budget(Some(side)) => write!(formatter, "{side}"),
            Self::Square(None) => formatter.write_str("the model's, square"),
            Self::Square(Some(side)) => write!(formatter, "{side}x{side}"),
            Self::Fixed(width, height) => write!(formatter, "{width}x{height}"),
        }
    }
}

impl InputSize {
    /// The side that was asked for, or the model's own `side`; of a fixed rectangle its width.
    pub fn side(self, side: usize) -> usize {
        match self {
            Self::Budget(given) | Self::Square(given) => given.unwrap_or(side),
            Self::Fixed(width, _) => width,
        }
    }

    /// Width and height of the input for an image of `image` pixels (width, height), with a model whose own input has `side`.
    pub fn for_image(self, side: usize, image: (u32, u32)) -> (usize, usize) {
        match self {
            Self::Budget(given) => rectangle(given.unwrap_or(side), image),
            Self::Square(given) => (given.unwrap_or(side), given.unwrap_or(side)),
            Self::Fixed(width, height) => (width, height),
        }
    }
}

/// The input for an image of `image` pixels (width, height): sides are multiples of 32, the area is at most a tenth above
/// `side * side` (a multiple of 32), the longer side at most four times the shorter. Of all such rectangles the one in which the
/// image, its shape kept, is largest; a smaller one where that costs less than a hundredth of the scale.
///
/// ```
/// use yolo_lat_core::input_size::rectangle;
///
/// assert_eq!(rectangle(320, (640, 480)), (384, 288));
/// assert_eq!(rectangle(320, (1080, 1920)), (256, 416));
/// assert_eq!(rectangle(320, (500, 500)), (320, 320));
/// ```
pub fn rectangle(side: usize, image: (u32, u32)) -> (usize, usize) {
    let (width, height) = (f64::from(image.0.max(1)), f64::from(image.1.max(1)));
    let most = (EXCESS * ((side / STEP) * (side / STEP)) as f64 + 1e-9) as usize;
    let longest = LONGEST / STEP;
    let scale = |(columns, rows): (usize, usize)| (columns as f64 / width).min(rows as f64 / height);
    let candidates = || {
        (1..=most.min(longest)).flat_map(|columns| {
            let rows = columns.div_ceil(SLENDEREST)..=(most / columns).min(columns * SLENDEREST).min(longest);
            rows.map(move |rows| (columns, rows))
        })
    };
    let largest = candidates().map(scale).fold(0.0, f64::max);
    let good = candidates().filter(|&shape| scale(shape) >= (1.0 - NEGLIGIBLE) * largest);
    // Equal areas: the larger scale.
    let best = good.min_by(|&a, &b| (a.0 * a.1).cmp(&(b.0 * b.1)).then(scale(b).total_cmp(&scale(a))));
    best.map_or((side, side), |(columns, rows)| (columns * STEP, rows * STEP))
}

#[cfg(test)]
mod tests {
    use arbtest::arbtest;

    use super::*;

    #[test]
    fn usual_images_have_the_expected_rectangles() {
        let cases = [
            ((640, 480), (384, 288)),
            ((1920, 1080), (416, 256)),
            ((480, 640), (288, 384)),
            ((1080, 1920), (256, 416)),
            ((500, 333), (384, 256)),
            ((333, 500), (256, 384)),
            ((500, 500), (320, 320)),
            ((1, 1), (320, 320)),
            ((8192, 1), (640, 160)),
            ((1, 8192), (160, 640)),
        ];
        for (image, expected) in cases {
            assert_eq!(rectangle(320, image), expected, "{image:?}");
        }
    }

    #[test]
    fn any_image_has_a_rectangle_within_the_budget_that_shows_it_no_smaller_than_the_square() {
        arbtest(|u| {
            let side = STEP * u.int_in_range(1..=40)?;
            let mut pixels = || -> arbtest::arbitrary::Result<u32> {
                let most = *u.choose(&[8, 700, 8192])?;
                u.int_in_range(1..=most)
            };
            let image = (pixels()?, pixels()?);
            let (width, height) = rectangle(side, image);
            assert!(width > 0 && width % STEP == 0 && height > 0 && height % STEP == 0);
            assert!((width * height) as f64 <= 1.1 * (side * side) as f64 + 0.5, "{image:?} {side}: {width}x{height}");
            assert!(width <= 4 * height && height <= 4 * width && width.max(height) <= LONGEST);
            let scale = |w: usize, h: usize| (w as f64 / f64::from(image.0)).min(h as f64 / f64::from(image.1));
            assert!(scale(width, height) >= 0.99 * scale(side, side) - 1e-12);
            // Wide where the image is, and the same turned around.
            assert!((width >= height) == (image.0 >= image.1) || width == height);
            assert_eq!(rectangle(side, (image.1, image.0)), (height, width));
            // Of the same shape and twice the size: the same.
            assert_eq!(rectangle(side, (2 * image.0, 2 * image.1)), (width, height));
            Ok(())
        });
    }

    #[test]
    fn a_budget_has_few_rectangles() {
        let shapes: std::collections::BTreeSet<_> = (1..2000).map(|width| rectangle(320, (width, 700))).collect();
        assert!(shapes.len() <= 32, "{}: {shapes:?}", shapes.len());
    }

    #[test]
    fn what_is_fixed_or_square_stays() {
        let image = (1920, 1080);
        assert_eq!(InputSize::Fixed(416, 256).for_image(320, (10, 900)), (416, 256));
        assert_eq!(InputSize::Square(None).for_image(320, image), (320, 320));
        assert_eq!(InputSize::Square(Some(416)).for_image(320, image), (416, 416));
        assert_eq!(InputSize::default().for_image(320, image), (416, 256));
        assert_eq!(InputSize::Budget(Some(224)).for_image(320, image), rectangle(224, image));
    }
}
