//! From a picture of any size to the network's input: antialiased resize, border, planar floats.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;
use ndarray::ArrayViewMut3;

use yolo_lat_core::geometry::{Fit, Letterbox};

/// The order of the channels in the network's input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelOrder {
    /// Red first.
    #[default]
    Rgb,
    /// Blue first, as OpenCV has it.
    Bgr,
}

/// How a network was taught to see: what becomes of a picture before it. A byte `b` of channel `c` becomes
/// `(b / scale - mean[c]) / deviation[c]`, with channels in the order of the input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preprocessing {
    /// Where the picture lies.
    pub fit: Fit,
    /// Grey of what it does not cover, 0..=255.
    pub border: u8,
    /// Which channel comes first.
    pub order: ChannelOrder,
    /// What is white before mean and deviation: 255 for numbers in 0..1, 1 for 0..255.
    pub scale: f32,
    /// Subtracted.
    pub mean: [f32; 3],
    /// Divides.
    pub deviation: [f32; 3],
}

/// As our own networks see: letterbox with a grey border, RGB in 0..1.
impl Default for Preprocessing {
    fn default() -> Self {
        Self {
            fit: Fit::Letterbox,
            border: 114,
            order: ChannelOrder::Rgb,
            scale: 255.0,
            mean: [0.0; 3],
            deviation: [1.0; 3],
        }
    }
}

/// For people: `letterboxed (grey 114), RGB / 255`.
impl std::fmt::Display for Preprocessing {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.fit {
            Fit::Letterbox => write!(formatter, "letterboxed (grey {})", self.border)?,
            Fit::TopLeft => write!(formatter, "letterboxed from the upper left (grey {})", self.border)?,
            Fit::Stretch => formatter.write_str("stretched")?,
        }
        let order = match self.order {
            ChannelOrder::Rgb => "RGB",
            ChannelOrder::Bgr => "BGR",
        };
        write!(formatter, ", {order} / {}", self.scale)?;
        if (self.mean, self.deviation) != ([0.0; 3], [1.0; 3]) {
            write!(formatter, ", mean {:?}, deviation {:?}", self.mean, self.deviation)?;
        }
        Ok(())
    }
}

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
        self.apply_as(picture, &Preprocessing::default(), target)
    }

    /// The same as `how` says, into three channels or one of grey (Rec. 601), which has the first mean and deviation.
    pub fn apply_as(&mut self, picture: &RgbImage, how: &Preprocessing, mut target: ArrayViewMut3<f32>) -> Letterbox {
        let (channels, height, width) = target.dim();
        let letterbox = how.fit.place(picture.dimensions(), (width as u32, height as u32));
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
        let (left, top) = (letterbox.offset.0 as usize, letterbox.offset.1 as usize);
        let row_bytes = 3 * resized_width as usize;
        for (channel, (mut plane, (mean, deviation))) in
            target.outer_iter_mut().zip(how.mean.into_iter().zip(how.deviation)).enumerate()
        {
            plane.fill((f32::from(how.border) / how.scale - mean) / deviation);
            let (factor, shift) = (1.0 / (how.scale * deviation), -mean / deviation);
            let from = if how.order == ChannelOrder::Bgr { 2 - channel } else { channel };
            for (row, pixels) in bytes.chunks_exact(row_bytes).take(resized_height as usize).enumerate() {
                let values = plane.row_mut(top + row);
                let values = values.into_iter().skip(left).zip(pixels.as_chunks::<3>().0);
                if channels == 1 {
                    values.for_each(|(value, pixel)| *value = grey(*pixel) * factor + shift);
                } else {
                    values.for_each(|(value, pixel)| *value = f32::from(pixel[from]) * factor + shift);
                }
            }
        }
        letterbox
    }
}

/// Luma after Rec. 601, 0..=255, whole as OpenCV gives it.
fn grey([red, green, blue]: [u8; 3]) -> f32 {
    (0.299 * f32::from(red) + 0.587 * f32::from(green) + 0.114 * f32::from(blue)).round()
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
    fn every_network_sees_as_it_was_taught() {
        let picture = RgbImage::from_pixel(64, 32, Rgb([255, 0, 51]));
        let see = |how: &Preprocessing, channels: usize| {
            let mut target = Array3::zeros((channels, 32, 32));
            (Preprocessor::default().apply_as(&picture, how, target.view_mut()), target)
        };
        let how = Preprocessing {
            fit: Fit::TopLeft,
            border: 0,
            order: ChannelOrder::Bgr,
            scale: 1.0,
            mean: [1.0, 2.0, 3.0],
            deviation: [50.0, 2.0, 4.0],
        };
        let (letterbox, target) = see(&how, 3);
        assert_eq!((letterbox.resized, letterbox.offset), ((32, 16), (0, 0)));
        for (channel, (inside, border)) in [(1.0, -0.02), (-1.0, -1.0), (63.0, -0.75)].into_iter().enumerate() {
            assert!(
                (target[(channel, 0, 31)] - inside).abs() < 1e-5 && (target[(channel, 15, 0)] - inside).abs() < 1e-5
            );
            assert!((target[(channel, 16, 0)] - border).abs() < 1e-5);
        }
        let (letterbox, target) = see(&Preprocessing { fit: Fit::Stretch, ..Preprocessing::default() }, 1);
        assert_eq!((letterbox.resized, letterbox.offset), ((32, 32), (0, 0)));
        // 0.299 * 255 + 0.114 * 51 = 82.059.
        assert!(target.iter().all(|value| (value - 82.0 / 255.0).abs() < 1e-6));
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
