//! Small things in large images: the image is looked at in slices too, and what several slices saw of one object becomes one box.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use image::RgbImage;
use image::imageops::crop_imm;
use ndarray::Array3;

use crate::by_shape::Shape;
use crate::engine::{EngineError, StepTime};
use crate::pipeline::{Each, Found, Pipeline, StageTimes};
use yolo_lat_core::geometry::BBox;
use yolo_lat_core::postprocess::{Detection, PostprocessOptions};

/// Slices that the network sees at once: memory does not grow with the image.
const BATCH: usize = 16;
/// [`Slices::Auto`] cuts an image with a side more than so many times that of the network's input.
const LARGE: usize = 3;
/// Overlap of neighbouring slices, as a share of their sides, unless another is asked for.
const OVERLAP: f32 = 0.2;
/// The most that may be asked for: 0.9 looks at every pixel a hundred times.
const MOST_OVERLAP: f32 = 0.9;
/// The least side of a slice in pixels, the coarsest stride of the network.
const LEAST_SIDE: u32 = 32;
/// Boxes of different slices are of one object where their intersection is at least this share of the smaller one.
const SAME_OBJECT: f32 = 0.5;
/// A box that ends within so many pixels of a slice's edge may go on behind it.
const EDGE: f32 = 4.0;

/// Whether large images are looked at in slices besides as a whole.
///
/// ```
/// use yolo_lat::Slices;
///
/// assert_eq!("640x480:0.25".parse(), Ok(Slices::Of { width: 640, height: 480, overlap: 0.25 }));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Slices {
    /// Never.
    #[default]
    Off,
    /// In slices as large as the network's input, overlapping by a fifth, where a side of the image is more than three times as long
    /// as the input's.
    Auto,
    /// Where the image is larger than a slice.
    Of {
        /// Pixels, at least 32.
        width: u32,
        /// Pixels, at least 32.
        height: u32,
        /// The least share of its sides that a slice has in common with its neighbours, 0..=0.9.
        overlap: f32,
    },
}

impl Slices {
    /// Corner and size of each slice of an image of `size` pixels, by rows; empty where it is looked at as a whole only. `input` is the
    /// network's for it.
    fn of(self, size: (u32, u32), input: Shape) -> Vec<[u32; 4]> {
        let (width, height, overlap) = match self {
            Self::Off => return Vec::new(),
            Self::Auto if size.0 as usize <= LARGE * input.0 && size.1 as usize <= LARGE * input.1 => {
                return Vec::new();
            }
            Self::Auto => (input.0 as u32, input.1 as u32, OVERLAP),
            Self::Of { width, height, overlap } => (width, height, overlap),
        };
        let (width, height) = (width.min(size.0), height.min(size.1));
        if (width, height) == size {
            return Vec::new();
        }
        let columns = starts(size.0, width, overlap);
        let row = |y| columns.iter().map(move |&x| [x, y, width, height]);
        starts(size.1, height, overlap).into_iter().flat_map(row).collect()
    }
}

impl fmt::Display for Slices {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => formatter.write_str("off"),
            Self::Auto => formatter.write_str("auto"),
            Self::Of { width, height, overlap } => write!(formatter, "{width}x{height}:{overlap}"),
        }
    }
}

impl FromStr for Slices {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => return Ok(Self::Off),
            "auto" => return Ok(Self::Auto),
            _ => {}
        }
        let (sides, overlap) = text.split_once(':').map_or((text, None), |(sides, overlap)| (sides, Some(overlap)));
        let (width, height) = sides.split_once('x').unwrap_or((sides, sides));
        let side = |text: &str| text.parse().ok().filter(|&side: &u32| side >= LEAST_SIDE);
        let (Some(width), Some(height)) = (side(width), side(height)) else {
            return Err(format!(
                "expected auto, off or the size of a slice in pixels, at least {LEAST_SIDE}: 320, 640x480, 320:0.2"
            ));
        };
        let overlap = match overlap {
            None => OVERLAP,
            Some(text) => {
                text.parse().ok().filter(|overlap| (0.0..=MOST_OVERLAP).contains(overlap)).ok_or_else(|| {
                    format!("slices overlap by a share of their sides from 0 to {MOST_OVERLAP}, not by {text:?}")
                })?
            }
        };
        Ok(Self::Of { width, height, overlap })
    }
}

/// Where slices of `side` begin so that they cover `length`, evenly, neighbours with at least `overlap * side` in common.
fn starts(length: u32, side: u32, overlap: f32) -> Vec<u32> {
    let step = ((side as f32 * (1.0 - overlap)) as u32).max(1);
    let (room, gaps) = (length - side, (length - side).div_ceil(step));
    (0..=gaps).map(|at| (u64::from(at) * u64::from(room)).checked_div(gaps.into()).unwrap_or(0) as u32).collect()
}

/// A pipeline that looks at large images in slices too.
pub(crate) struct Sliced {
    pub(crate) inner: Box<dyn Pipeline>,
    pub(crate) slices: Slices,
}

impl Sliced {
    /// What is in an image that is cut.
    fn cut(
        &mut self,
        image: &RgbImage,
        slices: &[[u32; 4]],
        options: &PostprocessOptions,
    ) -> Result<Found, EngineError> {
        let (whole, mut seen, mut times) = (image.dimensions(), Vec::new(), None);
        let mut take = |view, slice, (found, took): Found| {
            seen.extend(found.into_iter().map(|one| Seen::new(one, view, slice, whole)));
            times = Some(times.map_or(took, |times| sum(times, took)));
        };
        self.inner.detect(&[image], options, &mut |_, found| take(0, [0, 0, whole.0, whole.1], found))?;
        for (group, slices) in slices.chunks(BATCH).enumerate() {
            let cut = |&[x, y, width, height]: &[u32; 4]| crop_imm(image, x, y, width, height).to_image();
            let parts: Vec<RgbImage> = slices.iter().map(cut).collect();
            let parts: Vec<&RgbImage> = parts.iter().collect();
            self.inner.detect(&parts, options, &mut |at, found| take(1 + group * BATCH + at, slices[at], found))?;
        }
        Ok((merge(seen, options), times.unwrap_or_default()))
    }
}

impl Pipeline for Sliced {
    fn input_size(&self, size: (u32, u32)) -> Shape {
        self.inner.input_size(size)
    }

    fn detect(&mut self, images: &[&RgbImage], options: &PostprocessOptions, each: Each) -> Result<(), EngineError> {
        let slices = |image: &&RgbImage| self.slices.of(image.dimensions(), self.inner.input_size(image.dimensions()));
        let slices: Vec<Vec<[u32; 4]>> = images.iter().map(slices).collect();
        let (whole, cut): (Vec<usize>, Vec<usize>) = (0..images.len()).partition(|&at| slices[at].is_empty());
        for at in cut {
            each(at, self.cut(images[at], &slices[at], options)?);
        }
        if whole.is_empty() {
            return Ok(());
        }
        let images: Vec<&RgbImage> = whole.iter().map(|&at| images[at]).collect();
        self.inner.detect(&images, options, &mut |at, found| each(whole[at], found))
    }

    fn description(&self) -> String {
        self.inner.description()
    }

    fn watched(&self) -> Option<&Array3<f32>> {
        self.inner.watched()
    }

    fn start_profile(&mut self) -> Result<Option<&'static str>, EngineError> {
        self.inner.start_profile()
    }

    fn profile(&self) -> Result<Vec<StepTime>, EngineError> {
        self.inner.profile()
    }

    fn peak_gflops(&self) -> Option<f64> {
        self.inner.peak_gflops()
    }
}

/// What a view has of an object.
#[derive(Clone, Copy)]
struct Seen {
    /// In pixels of the whole image.
    detection: Detection,
    /// 0 is the whole image, then come the slices.
    view: usize,
    /// Whether the edge of the slice may have cut it: what is left of a cat can look like a dog.
    is_cut: bool,
}

impl Seen {
    /// `detection` in pixels of the slice.
    fn new(detection: Detection, view: usize, [left, top, width, height]: [u32; 4], whole: (u32, u32)) -> Self {
        let BBox { x1, y1, x2, y2 } = detection.bbox;
        let is_cut = (left > 0 && x1 < EDGE)
            || (top > 0 && y1 < EDGE)
            || (left + width < whole.0 && x2 > width as f32 - EDGE)
            || (top + height < whole.1 && y2 > height as f32 - EDGE);
        let (left, top) = (left as f32, top as f32);
        let bbox = BBox { x1: x1 + left, y1: y1 + top, x2: x2 + left, y2: y2 + top };
        Self { detection: Detection { bbox, ..detection }, view, is_cut }
    }

    /// Whether a less confident one is of the same object.
    fn is_same(&self, less: &Self, agnostic: bool) -> bool {
        let (a, b) = (&self.detection, &less.detection);
        self.view != less.view
            && (agnostic || less.is_cut || a.class == b.class)
            && a.bbox.intersection(&b.bbox) >= SAME_OBJECT * a.bbox.area().min(b.bbox.area())
    }
}

/// Greedy non-maximum merging (after SAHI, Akyon et al. 2022): the most confident box grows over those that other views have of its
/// object, and again. Those are of its class, unless `options.agnostic` or an edge has cut them. Two boxes of one view never become
/// one: suppression has found them to be different objects. By falling confidence, at most `options.max_detections`.
fn merge(mut seen: Vec<Seen>, options: &PostprocessOptions) -> Vec<Detection> {
    seen.sort_by(|a, b| b.detection.confidence.total_cmp(&a.detection.confidence));
    // What was seen of an object first, and its box.
    let mut objects: Vec<(Seen, BBox)> = Vec::new();
    for less in seen {
        match objects.iter_mut().find(|(first, _)| first.is_same(&less, options.agnostic)) {
            Some((_, bbox)) => *bbox = union(bbox, &less.detection.bbox),
            None => objects.push((less, less.detection.bbox)),
        }
    }
    objects.truncate(options.max_detections);
    objects.into_iter().map(|(first, bbox)| Detection { bbox, ..first.detection }).collect()
}

fn union(a: &BBox, b: &BBox) -> BBox {
    BBox { x1: a.x1.min(b.x1), y1: a.y1.min(b.y1), x2: a.x2.max(b.x2), y2: a.y2.max(b.y2) }
}

fn sum(a: StageTimes, b: StageTimes) -> StageTimes {
    let both = |a: Option<Duration>, b: Option<Duration>| a.zip(b).map(|(a, b)| a + b);
    StageTimes {
        preprocess: both(a.preprocess, b.preprocess),
        inference: a.inference + b.inference,
        postprocess: both(a.postprocess, b.postprocess),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_the_image_and_overlap() {
        for (length, side, overlap) in
            [(6000, 384, 0.2), (321, 320, 0.2), (320, 320, 0.2), (1000, 100, 0.0), (333, 32, 0.9)]
        {
            let starts = starts(length, side, overlap);
            assert_eq!((starts[0], starts[starts.len() - 1]), (0, length - side), "{length} {side} {overlap}");
            let most = (side as f32 * (1.0 - overlap)).ceil() as u32;
            assert!(starts.windows(2).all(|pair| pair[0] < pair[1] && pair[1] - pair[0] <= most), "{starts:?}");
        }
    }

    #[test]
    fn images_are_cut_where_they_are_large() {
        let fixed = Slices::Of { width: 320, height: 320, overlap: 0.2 };
        assert_eq!(Slices::Auto.of((6000, 4000), (384, 288)).len(), 20 * 18);
        for (slices, size, count) in [
            (Slices::Off, (6000, 4000), 0),
            (Slices::Auto, (1152, 864), 0),
            (Slices::Auto, (1153, 200), 4),
            (fixed, (320, 320), 0),
            (fixed, (200, 100), 0),
            (fixed, (400, 100), 2),
            (fixed, (400, 400), 4),
        ] {
            let cut = slices.of(size, (384, 288));
            assert_eq!(cut.len(), count, "{slices} {size:?}");
            assert!(cut.iter().all(|[x, y, width, height]| x + width <= size.0 && y + height <= size.1), "{cut:?}");
        }
    }

    #[test]
    fn words_on_the_command_line() {
        for text in ["off", "auto", "320x320:0.2", "640x480:0"] {
            assert_eq!(text.parse::<Slices>().unwrap().to_string(), text);
        }
        assert_eq!("320".parse(), Ok(Slices::Of { width: 320, height: 320, overlap: 0.2 }));
        for text in ["", "31", "320x", "-5", "320:1", "320:x", "320:nan", "big", "320:0.2:1"] {
            assert!(text.parse::<Slices>().is_err(), "{text}");
        }
    }

    #[test]
    fn views_of_an_object_become_one_box() {
        let one = |class, confidence, [x1, y1, x2, y2]: [f32; 4]| Detection {
            class,
            confidence,
            bbox: BBox { x1, y1, x2, y2 },
        };
        let seen = |view, left, class, confidence, corners| {
            let slice = if view == 0 { [0, 0, 2000, 320] } else { [left, 0, 320, 320] };
            Seen::new(one(class, confidence, corners), view, slice, (2000, 320))
        };
        let seen = vec![
            // Two parts of an object at a seam, in two slices, the whole of it, and a part that looks like something else.
            seen(1, 0, 0, 0.6, [250.0, 10.0, 320.0, 50.0]),
            seen(2, 256, 0, 0.8, [0.0, 10.0, 114.0, 50.0]),
            seen(0, 0, 0, 0.3, [248.0, 9.0, 372.0, 52.0]),
            seen(1, 0, 1, 0.7, [252.0, 10.0, 319.0, 45.0]),
            // Neighbours in one slice stay two, whatever they have in common; so does another class that is whole.
            seen(3, 1000, 0, 0.7, [100.0, 10.0, 200.0, 100.0]),
            seen(3, 1000, 0, 0.5, [140.0, 10.0, 200.0, 100.0]),
            seen(4, 1020, 1, 0.4, [80.0, 10.0, 180.0, 100.0]),
        ];
        let options = PostprocessOptions::default();
        let found = merge(seen.clone(), &options);
        let expected = [
            one(0, 0.8, [248.0, 9.0, 372.0, 52.0]),
            one(0, 0.7, [1100.0, 10.0, 1200.0, 100.0]),
            one(0, 0.5, [1140.0, 10.0, 1200.0, 100.0]),
            one(1, 0.4, [1100.0, 10.0, 1200.0, 100.0]),
        ];
        assert_eq!(found, expected);
        let agnostic = PostprocessOptions { agnostic: true, max_detections: 2, ..options };
        assert_eq!(merge(seen, &agnostic), expected[..2]);
    }
}
