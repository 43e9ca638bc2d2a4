//! Reading labels: COCO, PASCAL VOC, YOLO and MOTChallenge, a file each, and what they share.
//!
//! What one program writes for another is rarely what the format's inventor had in mind. A reader takes everything whose meaning is
//! certain; where it is not, the image is left out and the file named ([`Fault`]), so that no number comes from a guess.

pub(crate) mod coco;
pub(crate) mod data_yaml;
pub(crate) mod files;
pub(crate) mod mot;
mod set;
pub(crate) mod voc;
pub(crate) mod yolo;

use std::path::{Path, PathBuf};

pub(crate) use set::Choice;
pub use set::{Dataset, DatasetError, LabelledImage, Object};
use yolo_lat_core::geometry::BBox;

/// A file that cannot be read or has wrong contents.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct Fault {
    /// Which one.
    pub path: PathBuf,
    /// What is wrong and where.
    pub reason: String,
}

impl Fault {
    pub(crate) fn new(path: &Path, reason: impl Into<String>) -> Self {
        Self { path: path.to_owned(), reason: reason.into() }
    }

    pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        Self::new(path, format!("cannot be read: {error}"))
    }
}

/// Checks what every format gives: a finite box, which may be empty but not inverted.
fn object(class: usize, bbox: BBox, area: Option<f32>, difficult: bool, crowd: bool) -> Result<Object, String> {
    let finite = [bbox.x1, bbox.y1, bbox.x2, bbox.y2].iter().all(|value| value.is_finite() && value.abs() < 1e6);
    if !finite || bbox.x2 < bbox.x1 || bbox.y2 < bbox.y1 {
        return Err(format!("the box {:?} is no box in pixels", [bbox.x1, bbox.y1, bbox.x2, bbox.y2]));
    }
    let area = area.filter(|area| area.is_finite()).unwrap_or(bbox.area());
    Ok(Object { class, bbox, area, difficult, crowd })
}

#[cfg(test)]
mod tests;
