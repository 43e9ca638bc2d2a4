//! Measuring detections against labelled images.

mod average_precision;
mod measure;
mod operating_point;
#[cfg(feature = "plot")]
mod plot;
mod results;
mod tracks;

pub use crate::dataset::{Dataset, DatasetError, LabelledImage, Object, Split};
pub use crate::labels::Fault;
pub use crate::labels::coco::Id;
pub use average_precision::{ClassResult, CocoSummary, Curve, Evaluation, evaluate, map50_without_each};
pub use measure::{Correspondence, Feed, MeasureError, Measured, measure};
pub use operating_point::{OperatingPoint, operating_points};
#[cfg(feature = "plot")]
pub use plot::plot_precision_recall;
pub use results::{Results, read_results};
pub use tracks::{Clear, Hota, Identity, Overlap, TrackScores, measure_tracks};

#[cfg(test)]
mod round_trip;
#[cfg(test)]
mod tests;
