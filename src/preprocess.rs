//! From a picture of any size to the network's input: antialiased resize into the letterbox, planar floats.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;
use ndarray::ArrayViewMut3;

use yolo_lat_core::geometry::Letterbox;

/// Fits pictures into the network's input; keeps its buffers from one picture to the next.
pub struct Preprocessor {
    resizer: Resizer,
    resized: Image<'static>,
}

impl Default for Preprocessor {
    fn default() -> Self {
        Self { resizer: Resizer::new(), resized: Image::new(1, 1, PixelType::U8x3) }
    }
}

impl Preprocessor {
    /// Writes `picture` into `target` (3, height, width) as RGB in 0..1 with a grey border, and says where it lies.
    pub fn apply(&mut self, picture: &RgbImage, target: ArrayViewMut3<f32>) -> Letterbox {
        let (_, height, width) = target.dim();
        let letterbox = Letterbox::fit(picture.dimensions(), (width as u32, height as u32));
        self.apply_in(picture, letterbox, target);
        letterbox
    }

    /// The same where `letterbox` says; it must be of this picture and target.
    pub(crate) fn apply_in(&mut self, picture: &RgbImage, letterbox: Letterbox, mut target: ArrayViewMut3<f32>) {
        let (resized_width, resized_height) = letterbox.resized;
        let bytes: &[u8] = if letterbox.resized == picture.dimensions() {
            picture.as_raw()
        } else {
            if (self.resized.width(), self.resized.height()) != letterbox.resized {
                self.resized = Image::new(resized_width, resized_height, PixelType::U8x3);
            }
            // Bilinear over the whole footprint of an output pixel: antialiased when it shrinks.
            let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
            let resized = ImageRef::new(picture.width(), picture.height(), picture.as_raw(), PixelType::U8x3)
                .ok()
                .and_then(|source| self.resizer.resize(&source, &mut self.resized, &options).ok());
            debug_assert!(resized.is_some(), "both images are RGB of at least one pixel");
            self.resized.buffer()
        };
        target.fill(Letterbox::GREY);
        let (left, top) = (letterbox.offset.0 as usize, letterbox.offset.1 as usize);
        let row_bytes = 3 * resized_width as usize;
        for (channel, mut plane) in target.outer_iter_mut().enumerate() {
            for (row, pixels) in bytes.chunks_exact(row_bytes).take(resized_height as usize).enumerate() {
                let mut row = plane.row_mut(top + row);
                for (value, pixel) in row.iter_mut().skip(left).zip(pixels.as_chunks::<3>().0) {
                    *value = f32::from(pixel[channel]) * (1.0 / 255.0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;
    use ndarray::Array3;

    use super::*;

    #[test]
    fn the_border_is_grey_and_the_picture_centred() {
        let picture = RgbImage::from_pixel(64, 32, Rgb([255, 0, 51]));
        let mut target = Array3::zeros((3, 32, 32));
        let letterbox = Preprocessor::default().apply(&picture, target.view_mut());
        assert_eq!((letterbox.resized, letterbox.offset), ((32, 16), (0, 8)));
        assert_eq!(target[(0, 7, 0)], Letterbox::GREY);
        assert_eq!(target[(2, 24, 31)], Letterbox::GREY);
        for (channel, value) in [1.0, 0.0, 0.2].into_iter().enumerate() {
            assert!((target[(channel, 8, 0)] - value).abs() < 1e-6);
            assert!((target[(channel, 23, 31)] - value).abs() < 1e-6);
        }
    }

    #[test]
    fn shrinking_averages_instead_of_skipping() {
        // A checkerboard of single pixels is grey from afar.
        let picture = RgbImage::from_fn(256, 256, |x, y| Rgb([if (x + y) % 2 == 0 { 255 } else { 0 }; 3]));
        let mut target = Array3::zeros((3, 32, 32));
        Preprocessor::default().apply(&picture, target.view_mut());
        assert!(target.iter().all(|value| (value - 0.5).abs() < 0.05), "{target}");
    }

    #[test]
    fn degenerate_pictures_do_not_panic() {
        for (width, height) in [(1, 1), (1, 5000), (5000, 1), (3, 2)] {
            let mut target = Array3::zeros((3, 64, 96));
            Preprocessor::default().apply(&RgbImage::new(width, height), target.view_mut());
            assert!(target.iter().all(|value| (0.0..=1.0).contains(value)));
        }
    }
}
