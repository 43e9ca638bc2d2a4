//! Photographs from files: every format the `image` crate reads here, upright, as 8-bit RGB.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageReader, Limits, RgbImage};

/// File name extensions of the formats that can be read, lower case.
pub const IMAGE_EXTENSIONS: [&str; 8] = ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif"];

/// A larger file is no photograph.
const LARGEST_FILE: u64 = 1 << 30;
/// Longest side of a picture in pixels.
const LONGEST_SIDE: u32 = 65_535;
/// Most memory that decoding may take, so that a small file cannot ask for all of it.
const LARGEST_PICTURE: u64 = 512 << 20;

/// Why a picture could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The file could not be read.
    #[error("cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// Nothing in it.
    #[error("the file is empty")]
    Empty,
    /// A folder or device where a file was expected.
    #[error("not a file")]
    NotAFile,
    /// Too many bytes.
    #[error("the file has {0} bytes, more than the {LARGEST_FILE} that are read")]
    TooLarge(u64),
    /// Not one of the formats, whatever its name says.
    #[error("not a picture in a known format (JPEG, PNG, WebP, BMP, TIFF, GIF)")]
    UnknownFormat,
    /// A folder without any.
    #[error("no pictures in this folder ({})", IMAGE_EXTENSIONS.join(", "))]
    NoPictures,
    /// A camera that cannot be found, opened or read.
    #[error("{0}")]
    Camera(String),
    /// A video without the program that decodes it.
    #[error(
        "videos need ffmpeg, which is not installed: sudo apt-get install ffmpeg, brew install ffmpeg, or ffmpeg.org"
    )]
    NoFfmpeg,
    /// Of one of several files.
    #[error("{}: {error}", path.display())]
    At {
        /// Which.
        path: std::path::PathBuf,
        /// What is wrong with it.
        error: Box<SourceError>,
    },
    /// Damaged, truncated, or beyond the limits.
    #[error("cannot be decoded: {0}")]
    Decode(String),
}

/// Reads a picture from a file; see [`decode_image`].
///
/// # Errors
/// [`SourceError`], which does not repeat the path.
pub fn open_image(path: impl AsRef<Path>) -> Result<RgbImage, SourceError> {
    use std::io::Read;

    let metadata = std::fs::metadata(&path)?;
    if !metadata.is_file() {
        return Err(SourceError::NotAFile);
    }
    if metadata.len() > LARGEST_FILE {
        return Err(SourceError::TooLarge(metadata.len()));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    std::fs::File::open(&path)?.take(LARGEST_FILE).read_to_end(&mut bytes)?;
    decode_image(&bytes)
}

/// Width and height in pixels of a picture as it is seen, its EXIF orientation applied: those of [`open_image`], without
/// decoding the pixels.
///
/// # Errors
/// [`SourceError`], which does not repeat the path.
pub fn image_size(path: impl AsRef<Path>) -> Result<(u32, u32), SourceError> {
    use image::metadata::Orientation;

    let fail = |error: image::ImageError| SourceError::Decode(error.to_string());
    let reader = ImageReader::open(path)?.with_guessed_format()?;
    let mut decoder = reader.into_decoder().map_err(fail)?;
    let (width, height) = decoder.dimensions();
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let turned = matches!(
        orientation,
        Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH
    );
    Ok(if turned { (height, width) } else { (width, height) })
}

/// Decodes a picture. Its EXIF orientation is applied; transparency is laid over white; grey, 16-bit and CMYK
/// become 8-bit RGB; of an animation the first frame counts. The format is found from the contents.
///
/// # Errors
/// [`SourceError`] for an unknown format, damaged data, or a picture beyond the limits.
pub fn decode_image(bytes: &[u8]) -> Result<RgbImage, SourceError> {
    if bytes.is_empty() {
        return Err(SourceError::Empty);
    }
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    if reader.format().is_none() {
        return Err(SourceError::UnknownFormat);
    }
    if reader.format() == Some(image::ImageFormat::Jpeg) && is_truncated_jpeg(bytes) {
        return Err(SourceError::Decode("the JPEG is truncated: its end is missing".into()));
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(LONGEST_SIDE);
    limits.max_image_height = Some(LONGEST_SIDE);
    limits.max_alloc = Some(LARGEST_PICTURE);
    reader.limits(limits);
    // Decoders put line breaks into their messages.
    let fail = |error: image::ImageError| {
        SourceError::Decode(error.to_string().split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let mut decoder = reader.into_decoder().map_err(fail)?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(SourceError::Decode(format!("the picture has no pixels ({width}x{height})")));
    }
    if decoder.total_bytes() > LARGEST_PICTURE {
        return Err(SourceError::Decode(format!(
            "{width}x{height} pixels need more than {} MiB",
            LARGEST_PICTURE >> 20
        )));
    }
    // A damaged EXIF block is no reason to lose the photograph.
    let orientation = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(fail)?;
    picture.apply_orientation(orientation);
    Ok(if picture.color().has_alpha() { over_white(&picture) } else { picture.into_rgb8() })
}

/// The decoder fills what is missing with grey, where objects would be looked for. The end of an image (FF D9) must
/// follow the last scan (FF DA); inside compressed data neither occurs.
fn is_truncated_jpeg(bytes: &[u8]) -> bool {
    let last = |marker: u8| bytes.windows(2).rposition(|pair| pair == [0xFF, marker]);
    last(0xD9) < last(0xDA)
}

fn over_white(picture: &DynamicImage) -> RgbImage {
    let rgba = picture.to_rgba8();
    RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
        let image::Rgba([r, g, b, alpha]) = *rgba.get_pixel(x, y);
        let blend = |value: u8| {
            let alpha = u32::from(alpha);
            ((u32::from(value) * alpha + 255 * (255 - alpha) + 127) / 255) as u8
        };
        image::Rgb([blend(r), blend(g), blend(b)])
    })
}
