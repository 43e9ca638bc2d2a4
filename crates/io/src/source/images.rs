//! Photographs from files: every format the `image` crate reads here, upright, as 8-bit RGB.

use std::io::{Cursor, Read};
use std::path::Path;

use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

use super::jpeg;

/// File name extensions of the formats that can be read, lower case.
pub const IMAGE_EXTENSIONS: [&str; 15] =
    ["jpg", "jpeg", "jpe", "jfif", "jif", "pjpeg", "pjp", "mpo", "png", "apng", "webp", "bmp", "tif", "tiff", "gif"];
/// Of images that people have and that are not read: a folder's are named, not passed over.
const UNREAD_EXTENSIONS: [&str; 6] = ["heic", "heif", "hif", "avif", "jxl", "jp2"];
/// Formats that can be read.
const FORMATS: [ImageFormat; 6] =
    [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::Gif];

/// A larger file is no image.
const LARGEST_FILE: u64 = 1 << 30;
/// Longest side of an image in pixels.
const LONGEST_SIDE: u32 = 65_535;
/// Most memory that decoding may take, so that a small file cannot ask for all of it.
const LARGEST_IMAGE: u64 = 512 << 20;

/// Why an image could not be read.
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
    #[error("not an image in a known format (JPEG, PNG, WebP, BMP, TIFF, GIF)")]
    UnknownFormat,
    /// An image in a format that is recognised and not read.
    #[error("{0} is not read: save it as JPEG, PNG, WebP, BMP, TIFF or GIF")]
    Unread(&'static str),
    /// A folder without any.
    #[error("no images in this folder ({})", IMAGE_EXTENSIONS.join(", "))]
    NoImages,
    /// A camera that cannot be found, opened or read.
    #[error("{0}")]
    Camera(String),
    /// A video without the program that decodes it.
    #[error(
        "videos need ffmpeg, which is not installed: sudo apt-get install ffmpeg, brew install ffmpeg, or ffmpeg.org"
    )]
    NoFfmpeg,
    /// A video of which only the beginning, or only parts, could be decoded.
    #[error("damaged or cut off: {frames} frames could be read; ffmpeg says: {reason}")]
    Incomplete {
        /// Frames that were given.
        frames: u64,
        /// What ffmpeg complained of.
        reason: String,
    },
    /// A network stream that cannot be opened, or gives no images.
    #[error("the stream cannot be read: {0}; is the address right, and is the device on?")]
    Stream(String),
    /// A screen that this system does not show to others.
    #[error("the screen cannot be read: {0}")]
    Screen(&'static str),
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

/// Whether a path is named like an image, also of a format that is not read, so that it is named. Hidden files are none: what
/// begins with `._` is what macOS keeps beside a file.
pub fn is_image(path: &Path) -> bool {
    has_extension(path, &IMAGE_EXTENSIONS) || has_extension(path, &UNREAD_EXTENSIONS)
}

/// Whether a name has one of the extensions and is not hidden.
pub(crate) fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    !is_hidden(path) && extension.is_some_and(|extension| extensions.contains(&extension.as_str()))
}

/// Whether a name begins with a dot.
pub(crate) fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

/// Whether these first bytes of a file begin an image in one of the formats.
pub(super) fn begins_image(head: &[u8]) -> bool {
    image::guess_format(head).is_ok_and(|format| FORMATS.contains(&format))
}

/// Whether these bytes are an image, also in a format that is not read, so that it is named.
pub fn holds_image(bytes: &[u8]) -> bool {
    begins_image(bytes) || unread_format(bytes).is_some()
}

/// Reads an image from a file; see [`decode_image`].
///
/// # Errors
/// [`SourceError`], which does not repeat the path.
pub fn open_image(path: impl AsRef<Path>) -> Result<RgbImage, SourceError> {
    decode_image(&read(path.as_ref())?)
}

/// Width and height in pixels of an image as it is seen, its EXIF orientation applied: those of [`open_image`], without
/// decoding the pixels.
///
/// # Errors
/// [`SourceError`], which does not repeat the path.
pub fn image_size(path: impl AsRef<Path>) -> Result<(u32, u32), SourceError> {
    let bytes = read(path.as_ref())?;
    let (decoder, orientation) = open(&bytes)?;
    let (width, height) = decoder.dimensions();
    let turned = matches!(
        orientation,
        Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH
    );
    Ok(if turned { (height, width) } else { (width, height) })
}

/// Bytes that decoding an image takes at most, without those of its file; 0 where there is none to decode.
pub(crate) fn memory_of(bytes: &[u8]) -> u64 {
    let Ok((decoder, orientation)) = open(bytes) else { return 0 };
    let (width, height) = decoder.dimensions();
    let stored = decoder.total_bytes();
    let turned = if orientation == Orientation::NoTransforms { 0 } else { stored };
    let in_place = matches!(decoder.color_type(), ColorType::Rgb8 | ColorType::Rgba8);
    let converted = if in_place { 0 } else { 4 * u64::from(width) * u64::from(height) };
    stored + turned.max(converted)
}

/// The bytes of an image's file.
///
/// # Errors
/// [`SourceError`], which does not repeat the path.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, SourceError> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(SourceError::NotAFile);
    }
    if metadata.len() > LARGEST_FILE {
        return Err(SourceError::TooLarge(metadata.len()));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    std::fs::File::open(path)?.take(LARGEST_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Decodes an image. Its EXIF orientation is applied; transparency is laid over white; grey, 16-bit and CMYK
/// become 8-bit RGB; of an animation the first frame counts. The format is found from the contents; what follows the end
/// of a JPEG is ignored, and its end mark may be missing if nothing else is.
///
/// # Errors
/// [`SourceError`] for an unknown format, damaged data, or an image beyond the limits.
pub fn decode_image(bytes: &[u8]) -> Result<RgbImage, SourceError> {
    if !bytes.starts_with(b"\xFF\xD8") || jpeg::end_of_image(bytes).is_some() {
        return decode(bytes);
    }
    // Half of the mark may be there.
    let data = &bytes[..bytes.iter().rposition(|&byte| byte != 0xFF).map_or(0, |last| last + 1)];
    let [whole, others @ ..] = jpeg::TAILS.map(|tail| decode(&[data, tail].concat()));
    let whole = whole?;
    if others.iter().any(|other| other.as_ref().ok() != Some(&whole)) {
        return Err(SourceError::Decode("the JPEG is truncated: its end is missing".into()));
    }
    Ok(whole)
}

fn decode(bytes: &[u8]) -> Result<RgbImage, SourceError> {
    let (decoder, orientation) = open(bytes)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| damaged(&error))?;
    image.apply_orientation(orientation);
    Ok(if image.color().has_alpha() { over_white(image) } else { image.into_rgb8() })
}

/// Reads the header of an image, and which way up it is.
fn open(bytes: &[u8]) -> Result<(impl ImageDecoder + '_, Orientation), SourceError> {
    if bytes.is_empty() {
        return Err(SourceError::Empty);
    }
    if !begins_image(bytes) {
        return Err(unread_format(bytes).map_or(SourceError::UnknownFormat, SourceError::Unread));
    }
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(LONGEST_SIDE);
    limits.max_image_height = Some(LONGEST_SIDE);
    limits.max_alloc = Some(LARGEST_IMAGE);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| damaged(&error))?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(SourceError::Decode(format!("the image has no pixels ({width}x{height})")));
    }
    if decoder.total_bytes() > LARGEST_IMAGE {
        return Err(SourceError::Decode(format!("{width}x{height} pixels need more than {} MiB", LARGEST_IMAGE >> 20)));
    }
    // A damaged EXIF block is no reason to lose the image.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    Ok((decoder, orientation))
}

/// Decoders put line breaks into their messages.
fn damaged(error: &image::ImageError) -> SourceError {
    SourceError::Decode(error.to_string().split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Formats that people have and that are not read, by how their files begin.
fn unread_format(bytes: &[u8]) -> Option<&'static str> {
    Some(match bytes {
        [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] => match brand.get(..4)? {
            b"heic" | b"heix" | b"hevc" | b"mif1" | b"msf1" => "HEIC",
            b"avif" | b"avis" => "AVIF",
            _ => return None,
        },
        [0xFF, 0x0A, ..] | [0, 0, 0, 12, b'J', b'X', b'L', ..] => "JPEG XL",
        [0, 0, 0, 12, b'j', b'P', ..] => "JPEG 2000",
        [b'8', b'B', b'P', b'S', ..] => "a Photoshop file",
        [b'%', b'P', b'D', b'F', ..] => "PDF",
        _ => return None,
    })
}

/// In place: a second image beside a large one would be too much.
fn over_white(image: DynamicImage) -> RgbImage {
    let (width, height) = (image.width(), image.height());
    let mut bytes = image.into_rgba8().into_raw();
    let pixels = bytes.len() / 4;
    for pixel in 0..pixels {
        let alpha = u32::from(bytes[4 * pixel + 3]);
        for channel in 0..3 {
            let value = u32::from(bytes[4 * pixel + channel]);
            bytes[3 * pixel + channel] = ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        }
    }
    bytes.truncate(3 * pixels);
    bytes.shrink_to_fit();
    // Three bytes for each pixel, as many as fit.
    RgbImage::from_raw(width, height, bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use image::codecs::jpeg::JpegEncoder;

    use super::*;

    #[test]
    fn sizes_are_those_of_the_upright_image() {
        for path in ["../../tests/data/rot.jpg", "../../tests/data/cmyk.jpg", "../../assets/chelsea.jpg"] {
            assert_eq!(image_size(path).unwrap(), open_image(path).unwrap().dimensions(), "{path}");
        }
        let stored = ImageReader::open("../../tests/data/rot.jpg").unwrap().into_dimensions().unwrap();
        assert_eq!(image_size("../../tests/data/rot.jpg").unwrap(), (stored.1, stored.0));
    }

    #[test]
    fn what_is_transparent_is_white() {
        let pixels = [[255, 0, 10, 255], [255, 0, 10, 0], [200, 100, 0, 128]];
        let image = image::RgbaImage::from_raw(3, 1, pixels.concat()).unwrap();
        let expected = [[255, 0, 10], [255, 255, 255], [227, 177, 127]];
        assert_eq!(over_white(image.into()).into_raw(), expected.concat());
    }

    #[test]
    fn the_memory_of_a_image_is_known_before_it_is_decoded() {
        let encoded = |image: DynamicImage, format| {
            let mut bytes = Cursor::new(Vec::new());
            image.write_to(&mut bytes, format).unwrap();
            memory_of(bytes.get_ref())
        };
        let rgb = image::RgbImage::new(20, 10);
        assert_eq!(encoded(rgb.clone().into(), ImageFormat::Jpeg), 600);
        assert_eq!(encoded(image::RgbaImage::new(20, 10).into(), ImageFormat::Png), 800);
        assert_eq!(encoded(DynamicImage::from(rgb).to_luma8().into(), ImageFormat::Png), 200 + 800);
        // Turned by its orientation, which takes a second image.
        let (width, height) = image_size("../../tests/data/rot.jpg").unwrap();
        let turned = memory_of(&std::fs::read("../../tests/data/rot.jpg").unwrap());
        assert_eq!(turned, 2 * 3 * u64::from(width) * u64::from(height));
        assert_eq!(memory_of(b"no image"), 0);
    }

    #[test]
    fn a_jpeg_may_lack_its_end_mark_and_nothing_else() {
        let photograph = open_image("../../assets/chelsea.jpg").unwrap();
        let mut encoded = Vec::new();
        JpegEncoder::new_with_quality(&mut encoded, 80).encode_image(&photograph).unwrap();
        for bytes in [
            encoded,
            std::fs::read("../../assets/chelsea.jpg").unwrap(),
            std::fs::read("../../tests/data/rot.jpg").unwrap(),
        ] {
            let whole = decode_image(&bytes).unwrap();
            let end = jpeg::end_of_image(&bytes).unwrap();
            assert_eq!(decode_image(&bytes[..end - 2]).unwrap(), whole);
            assert_eq!(decode_image(&bytes[..end - 1]).unwrap(), whole);
            assert_eq!(decode_image(&[&bytes[..end], b"ftypmp42\xFF\xDA.."].concat()).unwrap(), whole);
            for cut in [end - 10, end - 100, end * 3 / 4, end / 2] {
                let error = decode_image(&bytes[..cut]).unwrap_err().to_string();
                assert!(error.contains("truncated"), "{cut} of {end}: {error}");
            }
        }
    }
}
