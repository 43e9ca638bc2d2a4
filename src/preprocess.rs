//! From an image of any size to the network's input: antialiased resize, border, planar floats.

use image::RgbImage;
use ndarray::{ArrayViewMut3, Axis, s};

use crate::by_shape::ByShape;
use yolo_lat_core::engine::EngineError;
use yolo_lat_core::geometry::{Fit, Letterbox};
use yolo_lat_core::resample::{Filter, Resampler};
use yolo_lat_simd::{RowFilter, planes_of_pixels};

/// The order of the channels in the network's input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelOrder {
    /// Red first.
    #[default]
    Rgb,
    /// Blue first, as OpenCV has it.
    Bgr,
}

/// How a network was taught to see: what becomes of an image before it. A byte `b` of channel `c` becomes
/// `(b / scale - mean[c]) / deviation[c]`, with channels in the order of the input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preprocessing {
    /// Where the image lies.
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

/// Fits images into the network's input; keeps its buffers from one image to the next.
#[derive(Default)]
pub struct Preprocessor {
    resampler: Resampler,
    /// Bytes of RGB.
    resized: Vec<u8>,
    /// By the widths from which and to which they go.
    filters: ByShape<RowFilter>,
}

impl Preprocessor {
    /// Writes `image` into `target` (3, height, width), whose rows lie in one piece each, as RGB in 0..1 with a grey border, and
    /// says where it lies.
    ///
    /// # Errors
    /// [`EngineError::Resize`] for an image without pixels.
    pub fn apply(&mut self, image: &RgbImage, target: ArrayViewMut3<f32>) -> Result<Letterbox, EngineError> {
        self.apply_as(image, &Preprocessing::default(), target)
    }

    /// The same as `how` says, into three channels or one of grey (Rec. 601), which has the first mean and deviation.
    ///
    /// # Errors
    /// As [`Preprocessor::apply`].
    pub fn apply_as(
        &mut self,
        image: &RgbImage,
        how: &Preprocessing,
        mut target: ArrayViewMut3<f32>,
    ) -> Result<Letterbox, EngineError> {
        let (channels, height, width) = target.dim();
        let letterbox = how.fit.place(image.dimensions(), (width as u32, height as u32));
        let (resized_width, resized_height) = letterbox.resized;
        let Self { resampler, resized, filters } = self;
        let (width, height) = image.dimensions();
        // With vectors for rows, those become planes at once, and before it only columns are resized.
        let by_rows = channels == 3 && width > 0 && width != resized_width && RowFilter::is_fast();
        let filter = if by_rows {
            let (from, to) = (width as usize, resized_width as usize);
            Some(filters.get((from, to), || Ok::<_, EngineError>(RowFilter::new(from, to)))?)
        } else {
            None
        };
        let row_width = if by_rows { width } else { resized_width };
        let bytes: &[u8] = if letterbox.resized == image.dimensions() {
            image.as_raw()
        } else {
            let length = 3 * row_width as usize * resized_height as usize;
            resized.resize(length + filter.as_ref().map_or(0, |filter| filter.reach()), 0);
            let to = (&mut resized[..length], (row_width, resized_height));
            let done = resampler.apply((image.as_raw(), (width, height)), to, None, Filter::Bilinear);
            done.map_err(|error| EngineError::Resize { width, height, reason: error.to_string() })?;
            resized
        };
        let (left, top) = (letterbox.offset.0 as usize, letterbox.offset.1 as usize);
        let (columns, rows) = (left..left + resized_width as usize, top..top + resized_height as usize);
        let factors = how.deviation.map(|deviation| 1.0 / (how.scale * deviation));
        let shifts = [0, 1, 2].map(|channel| -how.mean[channel] / how.deviation[channel]);
        for (channel, mut plane) in target.outer_iter_mut().enumerate() {
            let border = (f32::from(how.border) / how.scale - how.mean[channel]) / how.deviation[channel];
            plane.slice_mut(s![..rows.start, ..]).fill(border);
            plane.slice_mut(s![rows.end.., ..]).fill(border);
            plane.slice_mut(s![rows.clone(), ..columns.start]).fill(border);
            plane.slice_mut(s![rows.clone(), columns.end..]).fill(border);
        }
        let mut inside = target.slice_mut(s![.., rows, columns]);
        if channels == 1 {
            let pixels = bytes.as_chunks::<3>().0.chunks_exact(resized_width as usize);
            for (row, pixels) in inside.index_axis_mut(Axis(0), 0).outer_iter_mut().zip(pixels) {
                row.into_iter().zip(pixels).for_each(|(value, pixel)| *value = grey(*pixel) * factors[0] + shifts[0]);
            }
            return Ok(letterbox);
        }
        // Where red, green and blue go.
        let order = if how.order == ChannelOrder::Bgr { [2, 1, 0] } else { [0, 1, 2] };
        let (factors, shifts) = (order.map(|channel| factors[channel]), order.map(|channel| shifts[channel]));
        let (mut red, mut green, mut blue) =
            inside.multi_slice_mut((s![order[0], .., ..], s![order[1], .., ..], s![order[2], .., ..]));
        let rows = red.outer_iter_mut().zip(green.outer_iter_mut()).zip(blue.outer_iter_mut());
        for (row, ((red, green), blue)) in rows.enumerate() {
            let (Some(red), Some(green), Some(blue)) = (red.into_slice(), green.into_slice(), blue.into_slice()) else {
                unreachable!("rows lie in one piece")
            };
            let bytes = &bytes[3 * row_width as usize * row..];
            match &filter {
                Some(filter) => filter.apply(bytes, [red, green, blue], factors, shifts),
                None => planes_of_pixels(bytes.as_chunks().0, [red, green, blue], factors, shifts),
            }
        }
        Ok(letterbox)
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
    fn the_border_is_grey_and_the_image_centred() {
        let image = RgbImage::from_pixel(64, 32, Rgb([255, 0, 51]));
        let mut target = Array3::zeros((3, 32, 32));
        let letterbox = Preprocessor::default().apply(&image, target.view_mut()).unwrap();
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
        let image = RgbImage::from_fn(256, 256, |x, y| Rgb([if (x + y) % 2 == 0 { 255 } else { 0 }; 3]));
        let mut target = Array3::zeros((3, 32, 32));
        Preprocessor::default().apply(&image, target.view_mut()).unwrap();
        assert!(target.iter().all(|value| (value - 0.5).abs() < 0.05), "{target}");
    }

    #[test]
    fn every_network_sees_as_it_was_taught() {
        let image = RgbImage::from_pixel(64, 32, Rgb([255, 0, 51]));
        let see = |how: &Preprocessing, channels: usize| {
            let mut target = Array3::zeros((channels, 32, 32));
            (Preprocessor::default().apply_as(&image, how, target.view_mut()).unwrap(), target)
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
    fn rows_straight_into_planes_are_what_the_library_gives() {
        for (size, resized) in
            [((640, 480), (384, 288)), ((61, 47), (96, 74)), ((1283, 711), (416, 231)), ((70, 32), (64, 32))]
        {
            let noise = |x: u32, y: u32| (x * 7919 + y * 104_729).wrapping_mul(2_654_435_761).to_le_bytes();
            let image = RgbImage::from_fn(size.0, size.1, |x, y| Rgb([noise(x, y)[1], noise(x, y)[2], noise(x, y)[3]]));
            let mut target = Array3::zeros((3, resized.1 as usize, resized.0 as usize));
            let how = Preprocessing { fit: Fit::Stretch, scale: 1.0, ..Preprocessing::default() };
            Preprocessor::default().apply_as(&image, &how, target.view_mut()).unwrap();
            let mut whole = RgbImage::new(resized.0, resized.1);
            let from = (image.as_raw().as_slice(), size);
            Resampler::default().apply(from, (&mut whole, resized), None, Filter::Bilinear).unwrap();
            for ((channel, y, x), value) in target.indexed_iter() {
                let pixel = whole.get_pixel(x as u32, y as u32).0;
                assert_eq!(*value, f32::from(pixel[channel]), "{size:?} {resized:?}");
            }
        }
    }

    #[test]
    fn degenerate_images_do_not_panic() {
        for (width, height) in [(1, 1), (1, 5000), (5000, 1), (3, 2)] {
            let mut target = Array3::zeros((3, 64, 96));
            Preprocessor::default().apply(&RgbImage::new(width, height), target.view_mut()).unwrap();
            assert!(target.iter().all(|value| (0.0..=1.0).contains(value)));
        }
    }
}
