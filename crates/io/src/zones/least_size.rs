//! How large an object must be.

use std::str::FromStr;

use yolo_lat_core::geometry::BBox;

/// Least area of a box, written as frigate's `min_area` is: below 1 a share of the image's area, from 1 on square pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LeastSize {
    /// Of the image's area, 0..1.
    Share(f32),
    /// Square pixels: width times height.
    Pixels(u32),
}

impl LeastSize {
    /// Whether a box in an image of `size` pixels is large enough.
    pub fn admits(self, bbox: &BBox, (width, height): (u32, u32)) -> bool {
        match self {
            Self::Share(share) => bbox.area() / (width as f32 * height as f32) >= share,
            Self::Pixels(pixels) => bbox.area() >= pixels as f32,
        }
    }
}

impl FromStr for LeastSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let share = || text.parse().ok().filter(|share| (0.0..1.0).contains(share)).map(Self::Share);
        let pixels = || text.parse().ok().map(Self::Pixels);
        share().or_else(pixels).ok_or_else(|| {
            format!("expected a share of the image's area below 1, or square pixels as a whole number, found {text:?}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_one_it_is_a_share_and_from_one_on_square_pixels() {
        let read = |text: &str| text.parse::<LeastSize>();
        assert_eq!(read("0.01"), Ok(LeastSize::Share(0.01)));
        assert_eq!((read("0"), read("1")), (Ok(LeastSize::Share(0.0)), Ok(LeastSize::Pixels(1))));
        assert_eq!(read("5000"), Ok(LeastSize::Pixels(5000)));
        for text in ["", "-1", "1.5", "NaN", "1%", "40x40"] {
            assert!(read(text).unwrap_err().contains("share of the image's area below 1"), "{text}");
        }
    }

    #[test]
    fn boxes_are_measured_by_their_area() {
        let bbox = BBox::from_xywh([10.0, 10.0, 64.0, 48.0]);
        assert!(
            LeastSize::Share(0.01).admits(&bbox, (640, 480)) && !LeastSize::Share(0.0101).admits(&bbox, (640, 480))
        );
        assert!(
            LeastSize::Pixels(3072).admits(&bbox, (640, 480)) && !LeastSize::Pixels(3073).admits(&bbox, (640, 480))
        );
        assert!(LeastSize::Share(0.0).admits(&BBox::default(), (640, 480)));
    }
}
