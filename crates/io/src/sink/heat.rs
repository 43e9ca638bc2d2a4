//! Where objects were so far: a heat map over the image.

use image::RgbImage;

use yolo_lat_core::geometry::BBox;
use yolo_lat_core::resample::{Filter, Resampler};

/// Cells along the longer side of an image.
const CELLS: u32 = 160;
/// Colours from cold to hot.
const COLOURS: [[f32; 3]; 5] =
    [[0.0, 0.0, 128.0], [0.0, 128.0, 255.0], [64.0, 224.0, 128.0], [255.0, 208.0, 0.0], [224.0, 0.0, 0.0]];
/// How much of the hottest place the heat covers.
const OPACITY: f32 = 0.7;

/// Sums of what was seen in each cell.
#[derive(Default)]
pub(super) struct Heat {
    image: (u32, u32),
    cells: (u32, u32),
    /// Row by row.
    sums: Vec<f64>,
    resampler: Resampler,
}

impl Heat {
    /// Adds the objects of an image and draws the sums over it. An image of another size begins anew.
    ///
    /// An object of width w and height h adds exp(-8 (dx^2 / w^2 + dy^2 / h^2)) to what lies (dx, dy) from its centre, inside
    /// of its box.
    pub(super) fn draw<'a>(&mut self, image: &mut RgbImage, boxes: impl Iterator<Item = &'a BBox>) {
        if self.image != image.dimensions() {
            let (width, height) = image.dimensions();
            let cell = width.max(height).div_ceil(CELLS).max(1);
            self.image = (width, height);
            self.cells = (width.div_ceil(cell), height.div_ceil(cell));
            self.sums = vec![0.0; self.cells.0 as usize * self.cells.1 as usize];
        }
        boxes.for_each(|bbox| self.add(bbox));
        let most = self.sums.iter().copied().fold(0.0, f64::max);
        if most == 0.0 {
            return;
        }
        let shares: Vec<u8> = self.sums.iter().flat_map(|sum| [(255.0 * sum / most).round() as u8; 3]).collect();
        let mut heat = RgbImage::new(image.width(), image.height());
        let to = (&mut *heat, self.image);
        let done = self.resampler.apply((&shares, self.cells), to, None, Filter::Bilinear);
        debug_assert_eq!(done, Ok(()), "both have pixels");
        let table: Vec<_> = (0..=255).map(|share| colour(share as f32 / 255.0)).collect();
        let shares = heat.pixels().map(|pixel| pixel.0[0]);
        for (pixel, share) in image.pixels_mut().zip(shares).filter(|&(_, share)| share > 0) {
            let (colour, opacity) = table[usize::from(share)];
            for (channel, colour) in pixel.0.iter_mut().zip(colour) {
                *channel = (f32::from(*channel) * (1.0 - opacity) + colour * opacity).round() as u8;
            }
        }
    }

    fn add(&mut self, bbox: &BBox) {
        let (across, down) = (self.cells.0 as f32 / self.image.0 as f32, self.cells.1 as f32 / self.image.1 as f32);
        let inside = bbox.clip(self.image.0 as f32, self.image.1 as f32);
        let (centre_x, centre_y) = (0.5 * (bbox.x1 + bbox.x2), 0.5 * (bbox.y1 + bbox.y2));
        let touched = |from: f32, to: f32, cells: u32| (from as u32)..(to.ceil() as u32).min(cells);
        for row in touched(inside.y1 * down, inside.y2 * down, self.cells.1) {
            let y = ((row as f32 + 0.5) / down - centre_y) / bbox.height().max(1.0);
            for column in touched(inside.x1 * across, inside.x2 * across, self.cells.0) {
                let x = ((column as f32 + 0.5) / across - centre_x) / bbox.width().max(1.0);
                self.sums[(row * self.cells.0 + column) as usize] += f64::from((-8.0 * (x * x + y * y)).exp());
            }
        }
    }
}

/// Colour and opacity of a share of the most.
fn colour(share: f32) -> ([f32; 3], f32) {
    let at = share * (COLOURS.len() - 1) as f32;
    let below = (at as usize).min(COLOURS.len() - 2);
    let rest = at - below as f32;
    let mixed =
        std::array::from_fn(|channel| COLOURS[below][channel] * (1.0 - rest) + COLOURS[below + 1][channel] * rest);
    // What is hardly warm is hardly seen.
    (mixed, OPACITY * (2.0 * share).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    const SIZE: (u32, u32) = (320, 240);

    fn boxes(list: &[[f32; 4]]) -> Vec<BBox> {
        list.iter().map(|&xywh| BBox::from_xywh(xywh)).collect()
    }

    /// How red a grey image is at a point.
    fn warmth(image: &RgbImage, x: u32, y: u32) -> i32 {
        let Rgb([red, _, blue]) = *image.get_pixel(x, y);
        i32::from(red) - i32::from(blue)
    }

    #[test]
    fn where_objects_stay_is_hotter_than_where_they_pass() {
        let mut heat = Heat::default();
        let mut drawn = RgbImage::default();
        for frame in 0..20 {
            drawn = RgbImage::from_pixel(SIZE.0, SIZE.1, Rgb([90; 3]));
            let passing = [10.0 + 12.0 * frame as f32, 20.0, 40.0, 40.0];
            heat.draw(&mut drawn, boxes(&[[200.0, 140.0, 60.0, 80.0], passing]).iter());
        }
        let (stays, passes) = (warmth(&drawn, 230, 180), warmth(&drawn, 150, 40));
        assert!(stays > 100 && passes < 0, "{stays} {passes}");
        // Nothing was ever here.
        assert_eq!(drawn.get_pixel(20, 200), &Rgb([90; 3]));
    }

    #[test]
    fn another_size_begins_anew_and_nothing_seen_changes_nothing() {
        let mut heat = Heat::default();
        let mut image = RgbImage::from_pixel(SIZE.0, SIZE.1, Rgb([90; 3]));
        heat.draw(&mut image, [].iter());
        assert!(image.pixels().all(|pixel| pixel == &Rgb([90; 3])));
        heat.draw(&mut image, boxes(&[[0.0, 0.0, 320.0, 240.0], [-90.0, 400.0, 9.0, 9.0]]).iter());
        let mut other = RgbImage::from_pixel(77, 1, Rgb([90; 3]));
        heat.draw(&mut other, boxes(&[[70.0, 0.0, 40.0, 9.0]]).iter());
        assert_eq!(other.get_pixel(3, 0), &Rgb([90; 3]));
        assert_ne!(other.get_pixel(76, 0), &Rgb([90; 3]));
    }
}
