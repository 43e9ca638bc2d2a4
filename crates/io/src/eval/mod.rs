//! Measuring detections against labelled photographs.

mod average_precision;
mod dataset;
mod measure;
mod plot;
mod results;

pub use average_precision::{ClassResult, CocoSummary, Curve, Evaluation, evaluate};
pub use dataset::{Dataset, DatasetError, LabelledImage, Object};
pub use measure::{Correspondence, Feed, MeasureError, Measured, measure};
pub use plot::plot_precision_recall;
pub use results::read_coco_results;

#[cfg(test)]
mod tests;
