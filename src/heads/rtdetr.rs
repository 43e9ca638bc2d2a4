//! RT-DETR as ultralytics exports it: (batch, queries, 4 + classes) with centre and size as shares of the input, probabilities;
//! nothing to suppress (Zhao et al. 2023).

use ndarray::ArrayD;

use super::{Candidates, Head, HeadError, centred, table};
use crate::preprocess::Preprocessing;
use yolo_lat_core::geometry::Fit;
use yolo_lat_core::postprocess::{Detection, PostprocessOptions};

pub(crate) struct RtDetr {
    pub(crate) classes: usize,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

impl Head for RtDetr {
    fn preprocessing(&self) -> Preprocessing {
        Preprocessing { fit: Fit::Stretch, ..Preprocessing::default() }
    }

    fn decode(
        &self,
        outputs: &[ArrayD<f32>],
        image: usize,
        options: &PostprocessOptions,
    ) -> Result<Vec<Detection>, HeadError> {
        let (width, height) = (self.width as f32, self.height as f32);
        let mut found = Candidates::new(options);
        for row in table(outputs, 0, image, 4 + self.classes)?.outer_iter() {
            let bbox = centred(row[0] * width, row[1] * height, row[2] * width, row[3] * height);
            found.best(self.classes, |class| row[4 + class], bbox);
        }
        found.ranked()
    }
}
