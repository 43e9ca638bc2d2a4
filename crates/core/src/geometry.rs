//! Boxes and the letterbox: the only code that converts coordinates.
//!
//! Coordinates are continuous: pixel (0, 0) covers 0..1 in both directions.

use serde::{Deserialize, Serialize};

/// An axis-aligned box; x to the right, y downwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BBox {
    /// Left edge.
    pub x1: f32,
    /// Top edge.
    pub y1: f32,
    /// Right edge.
    pub x2: f32,
    /// Bottom edge.
    pub y2: f32,
}

impl BBox {
    /// A box from its corner and size, as COCO writes it.
    pub fn from_xywh([x, y, width, height]: [f32; 4]) -> Self {
        Self { x1: x, y1: y, x2: x + width, y2: y + height }
    }

    /// Corner and size.
    pub fn xywh(&self) -> [f32; 4] {
        [self.x1, self.y1, self.width(), self.height()]
    }

    /// Left, top, right and bottom edge.
    pub fn corners(&self) -> [f32; 4] {
        [self.x1, self.y1, self.x2, self.y2]
    }

    /// Horizontal extent; 0 for an inverted box.
    pub fn width(&self) -> f32 {
        (self.x2 - self.x1).max(0.0)
    }

    /// Vertical extent; 0 for an inverted box.
    pub fn height(&self) -> f32 {
        (self.y2 - self.y1).max(0.0)
    }

    /// Width times height.
    pub fn area(&self) -> f32 {
        self.width() * self.height()
    }

    /// Area that both boxes cover.
    pub fn intersection(&self, other: &Self) -> f32 {
        let overlap = Self {
            x1: self.x1.max(other.x1),
            y1: self.y1.max(other.y1),
            x2: self.x2.min(other.x2),
            y2: self.y2.min(other.y2),
        };
        overlap.area()
    }

    /// Intersection over union, in 0..=1; 0 where both boxes are empty.
    pub fn iou(&self, other: &Self) -> f32 {
        let intersection = self.intersection(other);
        let union = self.area() + other.area() - intersection;
        if union > 0.0 { intersection / union } else { 0.0 }
    }

    /// The part inside an image of `width` x `height` pixels.
    pub fn clip(&self, width: f32, height: f32) -> Self {
        Self {
            x1: self.x1.clamp(0.0, width),
            y1: self.y1.clamp(0.0, height),
            x2: self.x2.clamp(0.0, width),
            y2: self.y2.clamp(0.0, height),
        }
    }
}

/// How an image fills the network's input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fit {
    /// Scaled with its aspect kept, centred, with a border around it.
    #[default]
    Letterbox,
    /// Scaled with its aspect kept, in the upper left corner.
    TopLeft,
    /// Stretched to the whole input.
    Stretch,
}

impl Fit {
    /// Where an image of `image` pixels (width, height) lies in `input`.
    pub fn place(self, image: (u32, u32), input: (u32, u32)) -> Letterbox {
        match self {
            Self::Letterbox => Letterbox::fit(image, input),
            Self::TopLeft => Letterbox { offset: (0, 0), ..Letterbox::fit(image, input) },
            Self::Stretch => Letterbox { image, input, resized: input, offset: (0, 0) },
        }
    }
}

/// Where an image lies in the network's input: scaled, with a border around it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Letterbox {
    /// Size of the image in pixels.
    pub image: (u32, u32),
    /// Size of the network's input in pixels.
    pub input: (u32, u32),
    /// Size of the scaled image, at least 1 x 1.
    pub resized: (u32, u32),
    /// Left and top border, whole pixels.
    pub offset: (u32, u32),
}

impl Letterbox {
    /// The grey of the border, as a share of white.
    pub const GREY: f32 = 114.0 / 255.0;

    /// Fits an image of `image` pixels (width, height) into `input`: scaled with its aspect kept, centred.
    pub fn fit(image: (u32, u32), input: (u32, u32)) -> Self {
        let scale = (f64::from(input.0) / f64::from(image.0)).min(f64::from(input.1) / f64::from(image.1));
        let side = |image: u32, input: u32| ((f64::from(image) * scale).round() as u32).clamp(1, input);
        let resized = (side(image.0, input.0), side(image.1, input.1));
        Self { image, input, resized, offset: ((input.0 - resized.0) / 2, (input.1 - resized.1) / 2) }
    }

    /// Network pixels per image pixel in x and y. They differ a little, since the scaled size is whole pixels.
    fn scale(&self) -> (f64, f64) {
        (f64::from(self.resized.0) / f64::from(self.image.0), f64::from(self.resized.1) / f64::from(self.image.1))
    }

    /// A box in image pixels, from one in network pixels.
    pub fn image_from_letterbox(&self, bbox: &BBox) -> BBox {
        let (scale_x, scale_y) = self.scale();
        let x = |x: f32| ((f64::from(x) - f64::from(self.offset.0)) / scale_x) as f32;
        let y = |y: f32| ((f64::from(y) - f64::from(self.offset.1)) / scale_y) as f32;
        BBox { x1: x(bbox.x1), y1: y(bbox.y1), x2: x(bbox.x2), y2: y(bbox.y2) }
    }

    /// A box in network pixels, from one in image pixels.
    pub fn letterbox_from_image(&self, bbox: &BBox) -> BBox {
        let (scale_x, scale_y) = self.scale();
        let x = |x: f32| (f64::from(x) * scale_x + f64::from(self.offset.0)) as f32;
        let y = |y: f32| (f64::from(y) * scale_y + f64::from(self.offset.1)) as f32;
        BBox { x1: x(bbox.x1), y1: y(bbox.y1), x2: x(bbox.x2), y2: y(bbox.y2) }
    }
}

#[cfg(test)]
mod tests {
    use arbtest::arbtest;

    use super::*;

    #[test]
    fn a_box_comes_back_from_the_letterbox() {
        arbtest(|u| {
            let mut side = || -> arbtest::arbitrary::Result<u32> {
                let shortest = *u.choose(&[1, 1, 17, 320, 5000])?;
                u.int_in_range(shortest..=5000)
            };
            let image = (side()?, side()?);
            let input = (32 * u.int_in_range(1..=40)?, 32 * u.int_in_range(1..=40)?);
            let letterbox = u.choose(&[Fit::Letterbox, Fit::TopLeft, Fit::Stretch])?.place(image, input);
            let (width, height) = (image.0 as f32, image.1 as f32);
            let bbox = BBox { x1: 0.1 * width, y1: 0.25 * height, x2: 0.7 * width, y2: height };
            let inside = letterbox.letterbox_from_image(&bbox);
            let back = letterbox.image_from_letterbox(&inside);
            for (a, b) in [(bbox.x1, back.x1), (bbox.y1, back.y1), (bbox.x2, back.x2), (bbox.y2, back.y2)] {
                assert!((a - b).abs() <= 0.01, "{image:?} in {input:?}: {bbox:?} came back as {back:?}");
            }
            assert!(inside.x1 >= 0.0 && inside.x2 <= input.0 as f32 + 1e-3);
            assert!(inside.y1 >= 0.0 && inside.y2 <= input.1 as f32 + 1e-3);
            Ok(())
        });
    }

    #[test]
    fn degenerate_images_keep_a_pixel() {
        assert_eq!(Letterbox::fit((1, 5000), (320, 320)).resized, (1, 320));
        assert_eq!(Letterbox::fit((30_000, 1), (320, 320)).resized, (320, 1));
        assert_eq!(Letterbox::fit((1, 1), (320, 320)).resized, (320, 320));
        assert_eq!(Letterbox::fit((640, 480), (320, 320)).offset, (0, 40));
    }

    #[test]
    fn iou_of_known_boxes() {
        let a = BBox::from_xywh([0.0, 0.0, 2.0, 2.0]);
        assert_eq!(a.iou(&a), 1.0);
        assert_eq!(a.iou(&BBox::from_xywh([1.0, 0.0, 2.0, 2.0])), 1.0 / 3.0);
        assert_eq!(a.iou(&BBox::from_xywh([2.0, 0.0, 2.0, 2.0])), 0.0);
        let inverted = BBox { x1: 1.0, y1: 1.0, x2: 0.0, y2: 0.0 };
        assert_eq!(inverted.iou(&inverted), 0.0);
    }
}
