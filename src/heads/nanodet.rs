//! NanoDet, NanoDet-Plus and PicoDet: class probabilities and, for each side of the box, a distribution over distances in
//! strides (generalized focal loss, Li et al. 2020).

use ndarray::{ArrayD, ArrayView1};

use super::{Candidates, Head, HeadError, grid, table};
use crate::preprocess::{ChannelOrder, Preprocessing};
use yolo_lat_core::geometry::{BBox, Fit};
use yolo_lat_core::postprocess::{Detection, PostprocessOptions};

/// Bins of a side in one table with the classes; apart, their columns say how many there are.
pub(crate) const BINS: usize = 8;

pub(crate) struct NanoDet {
    pub(crate) classes: usize,
    /// Finest first.
    pub(crate) strides: Vec<usize>,
    pub(crate) origin: Origin,
    pub(crate) outputs: Outputs,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// From where in a cell distances are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// NanoDet: half a pixel before the centre.
    CentreOfPixels,
    /// NanoDet-Plus: the upper left corner.
    Corner,
    /// PicoDet.
    Centre,
}

/// How classes and sides are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outputs {
    /// (batch, cells, classes + 4 * 8)
    Together,
    /// For each stride the numbers of the outputs (batch, cells, classes) and (batch, cells, 4 * bins).
    Apart(Vec<(usize, usize)>),
}

impl NanoDet {
    fn cell(&self, found: &mut Candidates, scores: ArrayView1<f32>, sides: ArrayView1<f32>, cell: (f32, f32, f32)) {
        let (stride, column, row) = cell;
        let from = |index: f32| match self.origin {
            Origin::Corner => index * stride,
            Origin::Centre => (index + 0.5) * stride,
            Origin::CentreOfPixels => (index + 0.5) * stride - 0.5,
        };
        let (x, y) = (from(column), from(row));
        let bins = sides.len() / 4;
        let distance = |side: usize| {
            let logits = || (0..bins).map(|bin| sides[side * bins + bin]);
            let peak = logits().fold(f32::NEG_INFINITY, f32::max);
            let (sum, mean) = logits().enumerate().fold((0.0, 0.0), |(sum, mean), (bin, logit)| {
                let weight = (logit - peak).exp();
                (sum + weight, mean + weight * bin as f32)
            });
            mean / sum * stride
        };
        // Most cells hold nothing worth the distances.
        if !scores.iter().any(|&score| score >= found.options.least_candidate()) {
            return;
        }
        let bbox = BBox { x1: x - distance(0), y1: y - distance(1), x2: x + distance(2), y2: y + distance(3) };
        found.best(self.classes, |class| scores[class], bbox);
    }
}

impl Head for NanoDet {
    fn preprocessing(&self) -> Preprocessing {
        // Means and deviations of ImageNet.
        let mean = [103.53, 116.28, 123.675];
        let deviation = [57.375, 57.12, 58.395];
        let first = Preprocessing {
            border: 0,
            order: ChannelOrder::Bgr,
            scale: 1.0,
            mean,
            deviation,
            ..Preprocessing::default()
        };
        match self.origin {
            Origin::CentreOfPixels => first,
            Origin::Corner => Preprocessing { fit: Fit::Stretch, ..first },
            Origin::Centre => Preprocessing {
                fit: Fit::Stretch,
                mean: [0.485, 0.456, 0.406],
                deviation: [0.229, 0.224, 0.225],
                ..Preprocessing::default()
            },
        }
    }

    fn decode(
        &self,
        outputs: &[ArrayD<f32>],
        image: usize,
        options: &PostprocessOptions,
    ) -> Result<Vec<Detection>, HeadError> {
        let mut found = Candidates::new(options);
        match &self.outputs {
            Outputs::Together => {
                let rows = table(outputs, 0, image, self.classes + 4 * BINS)?;
                for (row, cell) in rows.outer_iter().zip(grid(&self.strides, self.width, self.height)) {
                    let (scores, sides) = row.split_at(ndarray::Axis(0), self.classes);
                    self.cell(&mut found, scores, sides, cell);
                }
            }
            Outputs::Apart(pairs) => {
                for (&stride, &(scores, sides)) in self.strides.iter().zip(pairs) {
                    let (scores, sides) =
                        (table(outputs, scores, image, self.classes)?, table(outputs, sides, image, 4)?);
                    let cells = grid(std::slice::from_ref(&stride), self.width, self.height);
                    for ((scores, sides), cell) in scores.outer_iter().zip(sides.outer_iter()).zip(cells) {
                        self.cell(&mut found, scores, sides, cell);
                    }
                }
            }
        }
        found.suppressed()
    }
}
