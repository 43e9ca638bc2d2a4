//! RGB images as bytes at another size: the one place, because the code for all filters and instruction sets is large.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions};
use thiserror::Error;

/// Why an image cannot be resampled.
#[derive(Clone, Debug, Error, PartialEq)]
#[error("{0}")]
pub struct ResampleError(String);

/// How a pixel is made of those that lie under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Weights fall linearly over the whole footprint of a pixel: antialiased where an image shrinks.
    Bilinear,
    /// The mean of the footprint.
    Mean,
    /// The nearest one.
    Nearest,
}

/// Resamples, and keeps its buffers.
#[derive(Debug, Default)]
pub struct Resampler(fast_image_resize::Resizer);

impl Resampler {
    /// Fills `to` with the image `from`, or with its part `(left, top, width, height)`, whose edges may lie between two pixels.
    /// Images are bytes of RGB, row by row, with their width and height.
    ///
    /// # Errors
    /// [`ResampleError`] for an image without pixels, bytes of another length, or a part that does not lie inside.
    pub fn apply(
        &mut self,
        (from, from_size): (&[u8], (u32, u32)),
        (to, to_size): (&mut [u8], (u32, u32)),
        part: Option<(f64, f64, f64, f64)>,
        filter: Filter,
    ) -> Result<(), ResampleError> {
        let filter = match filter {
            Filter::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
            Filter::Mean => ResizeAlg::Convolution(FilterType::Box),
            Filter::Nearest => ResizeAlg::Nearest,
        };
        let options = ResizeOptions::new().resize_alg(filter);
        let options = part.map_or(options, |(left, top, width, height)| options.crop(left, top, width, height));
        // Typed: the other way has code for every kind of pixel, which takes minutes to compile.
        let from = TypedImageRef::<U8x3>::from_buffer(from_size.0, from_size.1, from).map_err(failed)?;
        let mut to = TypedImage::<U8x3>::from_buffer(to_size.0, to_size.1, to).map_err(failed)?;
        self.0.resize_typed(&from, &mut to, &options).map_err(failed)
    }
}

fn failed(error: impl std::fmt::Display) -> ResampleError {
    ResampleError(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two pixels beside each other.
    const PAIR: (&[u8], (u32, u32)) = (&[0, 10, 20, 100, 110, 120], (2, 1));

    fn one(part: Option<(f64, f64, f64, f64)>, filter: Filter) -> Result<[u8; 3], ResampleError> {
        let mut pixel = [0; 3];
        Resampler::default().apply(PAIR, (&mut pixel, (1, 1)), part, filter).map(|()| pixel)
    }

    #[test]
    fn a_pixel_is_made_of_those_under_it() {
        assert_eq!(one(None, Filter::Mean), Ok([50, 60, 70]));
        assert_eq!(one(None, Filter::Bilinear), Ok([50, 60, 70]));
        assert_eq!(one(Some((1.0, 0.0, 1.0, 1.0)), Filter::Mean), Ok([100, 110, 120]));
        let mut four = [0; 12];
        Resampler::default().apply(PAIR, (&mut four, (4, 1)), None, Filter::Nearest).unwrap();
        assert_eq!(four, [0, 10, 20, 0, 10, 20, 100, 110, 120, 100, 110, 120]);
    }

    #[test]
    fn what_is_no_image_or_no_part_of_it_is_an_error() {
        assert!(one(Some((1.0, 0.0, 2.0, 1.0)), Filter::Mean).is_err());
        let mut resampler = Resampler::default();
        assert!(resampler.apply((&[0; 5], (2, 1)), (&mut [0; 3], (1, 1)), None, Filter::Mean).is_err());
        assert!(resampler.apply(PAIR, (&mut [0; 2], (1, 1)), None, Filter::Mean).is_err());
    }
}
