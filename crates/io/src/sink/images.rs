//! Images: the objects cut out, and as they are.

use std::collections::HashSet;
use std::io::{BufWriter, Error};
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::{GenericImageView, RgbImage};

use super::names::{LONGEST, folder_name, shortened};
use super::{Item, OutputFolder, Sink, SinkError, with_ending, write_atomically};

const JPEG_QUALITY: u8 = 90;

/// Writes each detection as a JPEG of its own: `crops/CLASS/STEM_INDEX.jpg`.
pub struct CropSink {
    folder: OutputFolder,
    /// A folder for each class.
    classes: Vec<String>,
}

impl CropSink {
    /// Writes into `folder`; `classes` are the names of all classes.
    pub fn new(folder: OutputFolder, classes: &[String]) -> Self {
        Self { folder, classes: class_folders(classes) }
    }
}

impl Sink for CropSink {
    fn write(&mut self, item: Item) -> Result<(), SinkError> {
        let Some(image) = item.image else { return Ok(()) };
        for (index, detection) in item.record.detections.iter().enumerate() {
            let bbox = detection.bbox.clip(image.width() as f32, image.height() as f32);
            let (left, top) = (bbox.x1.floor() as u32, bbox.y1.floor() as u32);
            let (right, bottom) = (bbox.x2.ceil() as u32, bbox.y2.ceil() as u32);
            if right <= left || bottom <= top {
                continue;
            }
            let crop = image.view(left, top, right - left, bottom - top).to_image();
            let class = self.classes.get(detection.class).map_or("other", String::as_str);
            let path = with_ending(&Path::new("crops").join(class), item.stem, &format!("_{index}.jpg"));
            write_jpeg(&self.folder.note(&path)?, &crop)?;
        }
        Ok(())
    }
}

/// A folder for each class, of no other class also where case does not count.
fn class_folders(classes: &[String]) -> Vec<String> {
    let mut taken = HashSet::new();
    let folder = |(class, name): (usize, &String)| {
        let mut name = folder_name(name, class);
        while !taken.insert(name.to_lowercase()) {
            name = shortened(&format!("{name}_{class}"), LONGEST);
        }
        name
    };
    classes.iter().enumerate().map(folder).collect()
}

/// How [`ImageSink`] puts images into the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placing {
    /// As symbolic links.
    Link,
    /// As copies.
    Copy,
}

/// Puts the images themselves, untouched, where data sets have them: `PLACE/STEM` with their own extension. Frames of videos
/// become JPEG files.
pub struct ImageSink {
    folder: OutputFolder,
    place: &'static str,
    placing: Placing,
}

impl ImageSink {
    /// Writes into `place` in `folder`, sub-folders mirrored.
    pub fn new(folder: OutputFolder, place: &'static str, placing: Placing) -> Self {
        Self { folder, place, placing }
    }
}

impl Sink for ImageSink {
    fn write(&mut self, item: Item) -> Result<(), SinkError> {
        let Some(image) = item.image else { return Ok(()) };
        let relative = Path::new(self.place).join(item.image_name());
        if item.record.frame.is_some() {
            return write_jpeg(&self.folder.note(&relative)?, image);
        }
        let path = self.folder.path(&relative);
        let source = item.path.canonicalize().map_err(|error| SinkError::new(&path, error))?;
        // A data set that is labelled where it lies has its images already.
        if path.canonicalize().is_ok_and(|there| there == source) {
            return Ok(());
        }
        self.folder.note(&relative)?;
        match self.placing {
            Placing::Copy => {
                write_atomically(&path, |file| std::io::copy(&mut std::fs::File::open(&source)?, file).map(drop))
            }
            Placing::Link => {
                let parent = path.parent().unwrap_or(Path::new(""));
                let made = std::fs::create_dir_all(parent).and_then(|()| link(&source, &path));
                made.map_err(|error| SinkError::new(&path, error))
            }
        }
    }
}

#[cfg(unix)]
fn link(source: &Path, path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => std::os::unix::fs::symlink(source, path),
    }
}

#[cfg(not(unix))]
fn link(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(Error::other("links are not made on this system: use --images copy"))
}

/// Writes an image as JPEG.
///
/// # Errors
/// [`SinkError`] names the file; no part of it is left behind.
pub fn write_jpeg(path: &Path, image: &RgbImage) -> Result<(), SinkError> {
    write_atomically(path, |file: &mut BufWriter<_>| {
        JpegEncoder::new_with_quality(file, JPEG_QUALITY).encode_image(image).map_err(Error::other)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_a_folder_of_its_own() {
        let folders = class_folders(&["..", "a/b", "a_b", "A_B", "Cat", "cat", "class0"].map(str::to_owned));
        assert_eq!(folders, ["class0", "a_b", "a_b_2", "A_B_3", "Cat", "cat_5", "class0_6"]);
    }
}
