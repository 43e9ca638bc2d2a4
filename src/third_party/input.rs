//! What an ONNX file wants as input: its form, and how its network was taught to see.

use ndarray::{Array4, ArrayViewD};

use crate::preprocess::{ChannelOrder, Preprocessing};
use yolo_lat_core::geometry::Fit;
use yolo_lat_onnx::ort::{Element, OnnxSession};

/// Input side where neither a file nor a person says one: a multiple of every stride here.
const OPEN_SIDE: usize = 320;

/// The form of a network's only input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputForm {
    /// Images computed together; `None` where the file leaves it open.
    pub batch: Option<usize>,
    /// 3 for colours, 1 for grey.
    pub channels: usize,
    /// In pixels.
    pub width: usize,
    /// In pixels.
    pub height: usize,
    /// (batch, height, width, channels) instead of (batch, channels, height, width).
    pub channels_last: bool,
    /// Bytes instead of real numbers.
    pub bytes: bool,
}

impl InputForm {
    /// The form of `session`'s input; `size` (width, height) counts where the file leaves it open, before the size in its
    /// metadata (`imgsz`).
    ///
    /// # Errors
    /// A line that says what the file wants, for an input that is no image or of another size.
    pub fn of(session: &OnnxSession, size: Option<(usize, usize)>) -> Result<Self, String> {
        let [input] = session.inputs() else {
            let names: Vec<String> =
                session.inputs().iter().map(|input| format!("{} {:?}", input.name, input.shape)).collect();
            return Err(format!("{} inputs, {}: one image is needed", names.len(), names.join(", ")));
        };
        let wanted = "(batch, 3 or 1, height, width) or (batch, height, width, 3 or 1) of floats or bytes is needed";
        let unknown = || {
            let element = match input.element {
                Element::Other => "neither floats nor bytes",
                Element::Byte => "bytes",
                _ => "floats",
            };
            format!("the input {:?} is {:?} of {element}: {wanted}", input.name, input.shape)
        };
        let &[batch, a, b, c] = input.shape.as_slice() else { return Err(unknown()) };
        if input.element == Element::Other {
            return Err(unknown());
        }
        let (channels_last, [channels, height, width]) = match (a, c) {
            (1 | 3, _) => (false, [a, b, c]),
            (_, 1 | 3) => (true, [c, a, b]),
            (..=0, _) => (false, [3, b, c]),
            _ => return Err(unknown()),
        };
        let text = session.metadata("imgsz");
        let metadata = text.as_deref().and_then(parse_imgsz);
        if let Some(text) = text.filter(|_| metadata.is_none()) {
            log::warn!("imgsz {text:?} in the metadata is no size; --size says one");
        }
        let side = |found: i64, wanted: Option<usize>, own: Option<usize>| match (usize::try_from(found), wanted) {
            (Ok(0), _) => Err(unknown()),
            (Ok(fixed), Some(wanted)) if fixed != wanted => Err(format!("takes {width}x{height} pixels only")),
            (Ok(fixed), _) => Ok(fixed),
            (Err(_), wanted) => Ok(wanted.or(own).unwrap_or(OPEN_SIDE)),
        };
        Ok(Self {
            batch: usize::try_from(batch).ok().filter(|&batch| batch > 0),
            channels: channels as usize,
            width: side(width, size.map(|size| size.0), metadata.map(|size| size.0))?,
            height: side(height, size.map(|size| size.1), metadata.map(|size| size.1))?,
            channels_last,
            bytes: input.element == Element::Byte,
        })
    }

    /// Shape of an input for `batch` images, in the order of the file.
    pub fn shape(&self, batch: usize) -> [usize; 4] {
        let Self { channels, width, height, .. } = *self;
        if self.channels_last { [batch, height, width, channels] } else { [batch, channels, height, width] }
    }

    /// Images (batch, channels, height, width) in the order of the file.
    pub(super) fn arranged<'a>(&self, images: &'a Array4<f32>) -> ArrayViewD<'a, f32> {
        let view = images.view();
        if self.channels_last { view.permuted_axes([0, 2, 3, 1]).into_dyn() } else { view.into_dyn() }
    }
}

/// `[height, width]` or one number, as ultralytics writes it; as width and height.
fn parse_imgsz(text: &str) -> Option<(usize, usize)> {
    let sides: Option<Vec<usize>> =
        text.trim_matches(['[', ']', '(', ')', ' ']).split(',').map(|side| side.trim().parse().ok()).collect();
    match sides?[..] {
        [side] if (1..=1 << 14).contains(&side) => Some((side, side)),
        [height, width] if [height, width].iter().all(|side| (1..=1 << 14).contains(side)) => Some((width, height)),
        _ => None,
    }
}

/// What a person or a file says of the preprocessing; the rest is the family's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PreprocessingChanges {
    /// See [`Preprocessing::fit`].
    pub fit: Option<Fit>,
    /// See [`Preprocessing::border`].
    pub border: Option<u8>,
    /// See [`Preprocessing::order`].
    pub order: Option<ChannelOrder>,
    /// See [`Preprocessing::scale`].
    pub scale: Option<f32>,
    /// See [`Preprocessing::mean`].
    pub mean: Option<[f32; 3]>,
    /// See [`Preprocessing::deviation`].
    pub deviation: Option<[f32; 3]>,
}

impl PreprocessingChanges {
    /// What `usual` becomes.
    pub(super) fn apply(self, usual: Preprocessing) -> Preprocessing {
        Preprocessing {
            fit: self.fit.unwrap_or(usual.fit),
            border: self.border.unwrap_or(usual.border),
            order: self.order.unwrap_or(usual.order),
            scale: self.scale.unwrap_or(usual.scale),
            mean: self.mean.unwrap_or(usual.mean),
            deviation: self.deviation.unwrap_or(usual.deviation),
        }
    }

    /// From metadata: keys with the names of the options, and ONNX's own for images (`Image.BitmapPixelFormat`,
    /// `Image.NominalPixelRange`).
    ///
    /// # Errors
    /// A line that names a key whose value cannot be read.
    pub(super) fn from_metadata(metadata: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        fn read<T>(
            key: &str,
            value: Option<String>,
            parse: fn(&str) -> Result<T, String>,
        ) -> Result<Option<T>, String> {
            value.map(|text| parse(&text).map_err(|reason| format!("metadata {key}: {reason}"))).transpose()
        }
        let mut changes = Self::default();
        match metadata("Image.BitmapPixelFormat").as_deref() {
            Some("Bgr8" | "Bgra8") => changes.order = Some(ChannelOrder::Bgr),
            Some("Rgb8" | "Rgba8") => changes.order = Some(ChannelOrder::Rgb),
            _ => {}
        }
        let range = match metadata("Image.NominalPixelRange").as_deref() {
            Some("NominalRange_0_255") => Some((1.0, 0.0, 1.0)),
            Some("Normalized_0_1") => Some((255.0, 0.0, 1.0)),
            Some("Normalized_1_1") => Some((255.0, 0.5, 0.5)),
            Some("NominalRange_16_235") => Some((1.0, -16.0 * 255.0 / 219.0, 255.0 / 219.0)),
            _ => None,
        };
        if let Some((scale, mean, deviation)) = range {
            (changes.scale, changes.mean, changes.deviation) = (Some(scale), Some([mean; 3]), Some([deviation; 3]));
        }
        Ok(Self {
            fit: read("fit", metadata("fit"), parse_fit)?,
            border: read("border", metadata("border"), parse_border)?,
            order: read("order", metadata("order"), parse_order)?.or(changes.order),
            scale: read("scale", metadata("scale"), parse_scale)?.or(changes.scale),
            mean: read("mean", metadata("mean"), parse_channels)?.or(changes.mean),
            deviation: read("std", metadata("std"), parse_deviations)?.or(changes.deviation),
        })
    }
}

/// `letterbox`, `top-left` or `stretch`.
///
/// # Errors
/// What was expected.
pub fn parse_fit(text: &str) -> Result<Fit, String> {
    match text {
        "letterbox" => Ok(Fit::Letterbox),
        "top-left" => Ok(Fit::TopLeft),
        "stretch" => Ok(Fit::Stretch),
        _ => Err(format!("expected letterbox, top-left or stretch, found {text:?}")),
    }
}

/// `rgb` or `bgr`.
///
/// # Errors
/// What was expected.
pub fn parse_order(text: &str) -> Result<ChannelOrder, String> {
    match text.to_ascii_lowercase().as_str() {
        "rgb" => Ok(ChannelOrder::Rgb),
        "bgr" => Ok(ChannelOrder::Bgr),
        _ => Err(format!("expected rgb or bgr, found {text:?}")),
    }
}

/// A grey of 0 to 255.
///
/// # Errors
/// What was expected.
pub fn parse_border(text: &str) -> Result<u8, String> {
    text.trim().parse().map_err(|_| format!("expected a grey of 0 to 255, found {text:?}"))
}

/// A number above 0.
///
/// # Errors
/// What was expected.
pub fn parse_scale(text: &str) -> Result<f32, String> {
    let number = text.trim().parse().ok().filter(|&number: &f32| number.is_finite() && number > 0.0);
    number.ok_or_else(|| format!("expected a number above 0, found {text:?}"))
}

/// Three numbers, or one for all channels: `103.53,116.28,123.675`, also in brackets.
///
/// # Errors
/// What was expected.
pub fn parse_channels(text: &str) -> Result<[f32; 3], String> {
    let inner = text.trim().trim_start_matches(['[', '(']).trim_end_matches([']', ')']);
    let numbers: Option<Vec<f32>> =
        inner.split(',').map(|number| number.trim().parse().ok().filter(|number: &f32| number.is_finite())).collect();
    match numbers.as_deref() {
        Some(&[number]) => Ok([number; 3]),
        Some(&[a, b, c]) => Ok([a, b, c]),
        _ => Err(format!("expected three numbers, or one for all channels, found {text:?}")),
    }
}

/// The same, all above 0.
///
/// # Errors
/// What was expected.
pub fn parse_deviations(text: &str) -> Result<[f32; 3], String> {
    let numbers = parse_channels(text)?;
    let positive = numbers.iter().all(|&number| number > 0.0);
    if positive { Ok(numbers) } else { Err(format!("expected numbers above 0, found {text:?}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_metadata_have_the_height_first() {
        assert_eq!(parse_imgsz("[480, 640]"), Some((640, 480)));
        assert_eq!(parse_imgsz("640"), Some((640, 640)));
        for text in ["", "[640, 640, 3]", "[0, 640]", "[-1, 640]", "[99999999, 640]", "x"] {
            assert_eq!(parse_imgsz(text), None, "{text}");
        }
    }

    #[test]
    fn what_metadata_say_comes_before_the_family_and_after_a_person() {
        let metadata = |key: &str| match key {
            "Image.BitmapPixelFormat" => Some("Bgr8".to_owned()),
            "Image.NominalPixelRange" => Some("Normalized_1_1".to_owned()),
            "std" => Some("[0.25, 0.5, 1]".to_owned()),
            "fit" => Some("stretch".to_owned()),
            _ => None,
        };
        let found = PreprocessingChanges::from_metadata(metadata).unwrap().apply(Preprocessing::default());
        let expected = Preprocessing {
            fit: Fit::Stretch,
            border: 114,
            order: ChannelOrder::Bgr,
            scale: 255.0,
            mean: [0.5; 3],
            deviation: [0.25, 0.5, 1.0],
        };
        assert_eq!(found, expected);
        let person = PreprocessingChanges { fit: Some(Fit::TopLeft), border: Some(0), ..Default::default() };
        assert_eq!(person.apply(found), Preprocessing { fit: Fit::TopLeft, border: 0, ..expected });
        let broken = PreprocessingChanges::from_metadata(|key| (key == "std").then(|| "0".into()));
        assert_eq!(broken.unwrap_err(), "metadata std: expected numbers above 0, found \"0\"");
    }
}
