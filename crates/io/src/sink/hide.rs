//! Objects made unrecognisable: of a box only mean colours of a coarse grid remain, drawn as tiles or run into each other.

use image::RgbImage;

use yolo_lat_core::geometry::BBox;
use yolo_lat_core::resample::{Filter, Resampler};

/// Cells along the longer side of a box: a face is one or two of those of its person.
const CELLS: u32 = 8;
/// Least side of a cell in pixels, so that nothing is left of small boxes either.
const LEAST_CELL: u32 = 8;
/// Steel blue, which hardly anything is.
const VEIL: [u8; 3] = [64, 96, 160];

/// Hides what is inside of a box; pixels that it touches belong to it, nothing outside changes.
pub(super) fn hide(image: &mut RgbImage, bbox: &BBox, smooth: bool, resampler: &mut Resampler) {
    let (width, height) = image.dimensions();
    let inside = bbox.clip(width as f32, height as f32);
    let (left, top) = (inside.x1.floor() as u32, inside.y1.floor() as u32);
    let size = ((inside.x2.ceil() as u32).saturating_sub(left), (inside.y2.ceil() as u32).saturating_sub(top));
    if size.0 == 0 || size.1 == 0 {
        return;
    }
    let cell = size.0.max(size.1).div_ceil(CELLS).max(LEAST_CELL);
    let cells = ((size.0 / cell).max(1), (size.1 / cell).max(1));
    let (mut grid, mut patch) = (RgbImage::new(cells.0, cells.1), RgbImage::new(size.0, size.1));
    let part = (f64::from(left), f64::from(top), f64::from(size.0), f64::from(size.1));
    let done = resampler.apply((image.as_raw(), (width, height)), (&mut grid, cells), Some(part), Filter::Mean);
    debug_assert_eq!(done, Ok(()), "the box lies inside of the image");
    for pixel in grid.pixels_mut() {
        pixel.0 = veiled(pixel.0);
    }
    let again = if smooth { Filter::Bilinear } else { Filter::Nearest };
    let done = resampler.apply((grid.as_raw(), cells), (&mut patch, size), None, again);
    debug_assert_eq!(done, Ok(()), "both have pixels");
    image::imageops::replace(image, &patch, left.into(), top.into());
}

/// An eighth of a veil over a colour: what was flat before is seen to be hidden too.
fn veiled(color: [u8; 3]) -> [u8; 3] {
    std::array::from_fn(|channel| ((7 * u16::from(color[channel]) + u16::from(VEIL[channel])) / 8) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SyntheticSource;

    /// Blocks of 8 x 8 pixels inside of a box, a pixel apart from each other.
    fn blocks(bbox: &BBox) -> impl Iterator<Item = (u32, u32)> {
        let [x1, y1, x2, y2] = bbox.corners().map(|side| side as u32);
        (y1..y2.saturating_sub(7)).flat_map(move |y| (x1..x2.saturating_sub(7)).map(move |x| (x, y)))
    }

    #[test]
    fn no_block_inside_keeps_its_pixels_and_outside_all_are_equal() {
        let photograph = SyntheticSource::new().frame(10);
        let (width, height) = photograph.dimensions();
        for smooth in [true, false] {
            for [x1, y1, x2, y2] in [
                [100.0, 50.0, 420.0, 400.0],
                [-30.0, -20.0, 90.0, 200.0],
                [500.0, 300.0, 700.0, 500.0],
                [300.5, 200.5, 309.5, 209.2],
                [10.0, 10.0, 630.0, 40.0],
                [0.0, 0.0, 640.0, 480.0],
            ] {
                let bbox = BBox { x1, y1, x2, y2 };
                let mut hidden = photograph.clone();
                hide(&mut hidden, &bbox, smooth, &mut Resampler::default());
                let inside = bbox.clip(width as f32, height as f32);
                for (x, y) in blocks(&inside) {
                    let same = (0..64).all(|at| {
                        let (x, y) = (x + at % 8, y + at / 8);
                        hidden.get_pixel(x, y) == photograph.get_pixel(x, y)
                    });
                    assert!(!same, "block at ({x}, {y}) of {bbox:?}, smooth: {smooth}");
                }
                for (x, y, pixel) in photograph.enumerate_pixels() {
                    let [left, top] = [x as f32, y as f32];
                    let touched = left + 1.0 > x1 && left < x2 && top + 1.0 > y1 && top < y2;
                    assert!(touched || hidden.get_pixel(x, y) == pixel, "({x}, {y}) is outside of {bbox:?}");
                }
            }
        }
    }

    /// What remains is 64 colours at most: it cannot be sharpened into what was there.
    #[test]
    fn tiles_have_one_colour_each_and_tell_only_means() {
        let mut image = SyntheticSource::new().frame(10);
        let bbox = BBox { x1: 64.0, y1: 32.0, x2: 320.0, y2: 160.0 };
        let before = image.clone();
        hide(&mut image, &bbox, false, &mut Resampler::default());
        for (row, column) in (0..4).flat_map(|row| (0..8).map(move |column| (row, column))) {
            let tile = |image: &RgbImage| {
                let (x, y) = (64 + 32 * column, 32 + 32 * row);
                image::imageops::crop_imm(image, x, y, 32, 32).to_image()
            };
            let (shown, was) = (tile(&image), tile(&before));
            assert!(shown.pixels().all(|pixel| pixel == shown.get_pixel(0, 0)), "({row}, {column})");
            for channel in 0..3 {
                let sum: u32 = was.pixels().map(|pixel| u32::from(pixel[channel])).sum();
                let mean = (7.0 * sum as f32 / 1024.0 + f32::from(VEIL[channel])) / 8.0;
                assert!((f32::from(shown.get_pixel(0, 0)[channel]) - mean).abs() <= 1.5, "({row}, {column})");
            }
        }
    }

    #[test]
    fn boxes_outside_of_the_image_or_without_area_change_nothing() {
        let photograph = SyntheticSource::new().frame(10);
        for [x1, y1, x2, y2] in [
            [-50.0, -50.0, -10.0, -10.0],
            [700.0, 10.0, 900.0, 90.0],
            [30.0, 30.0, 30.0, 30.0],
            [50.0, 50.0, 20.0, 20.0],
        ] {
            let mut image = photograph.clone();
            hide(&mut image, &BBox { x1, y1, x2, y2 }, true, &mut Resampler::default());
            assert!(image == photograph, "{x1} {y1} {x2} {y2}");
        }
    }
}
