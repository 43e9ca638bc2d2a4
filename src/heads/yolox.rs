//! YOLOX as it is exported by default: (batch, cells, 5 + classes) with offsets from the cell and logarithms of sizes in strides,
//! objectness, classes (Ge et al. 2021).

use ndarray::ArrayD;

use super::{Candidates, Head, HeadError, centred, grid, table};
use crate::preprocess::{ChannelOrder, Preprocessing};
use yolo_lat_core::geometry::Fit;
use yolo_lat_core::postprocess::{Detection, PostprocessOptions};

pub(crate) struct Yolox {
    pub(crate) classes: usize,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

impl Yolox {
    /// Letterboxed from the upper left, BGR in 0..255.
    pub(crate) fn sees() -> Preprocessing {
        Preprocessing { fit: Fit::TopLeft, order: ChannelOrder::Bgr, scale: 1.0, ..Preprocessing::default() }
    }
}

impl Head for Yolox {
    fn preprocessing(&self) -> Preprocessing {
        Self::sees()
    }

    fn decode(
        &self,
        outputs: &[ArrayD<f32>],
        image: usize,
        options: &PostprocessOptions,
    ) -> Result<Vec<Detection>, HeadError> {
        let mut found = Candidates::new(options);
        let cells = grid(&[8, 16, 32], self.width, self.height);
        for (row, (stride, x, y)) in table(outputs, 0, image, 5 + self.classes)?.outer_iter().zip(cells) {
            let (width, height) = (row[2].exp() * stride, row[3].exp() * stride);
            let bbox = centred((row[0] + x) * stride, (row[1] + y) * stride, width, height);
            found.best(self.classes, |class| row[4] * row[5 + class], bbox);
        }
        found.suppressed()
    }
}
