//! YOLOv5, v6, v7 and decoded YOLOX: (batch, boxes, 5 + classes) with centre and size in pixels, objectness, classes.

use ndarray::ArrayD;

use super::{Candidates, Head, HeadError, centred, table};
use crate::preprocess::Preprocessing;
use yolo_lat_core::postprocess::{Detection, PostprocessOptions};

pub(crate) struct Yolov5 {
    pub(crate) classes: usize,
    /// Pixels in a unit of x and y: 1, or the input's sides where boxes are shares of it.
    pub(crate) unit: [f32; 2],
    /// YOLOX sees otherwise than YOLOv5.
    pub(crate) preprocessing: Preprocessing,
}

impl Head for Yolov5 {
    fn preprocessing(&self) -> Preprocessing {
        self.preprocessing
    }

    fn decode(
        &self,
        outputs: &[ArrayD<f32>],
        image: usize,
        options: &PostprocessOptions,
    ) -> Result<Vec<Detection>, HeadError> {
        let [x, y] = self.unit;
        let mut found = Candidates::new(options);
        for row in table(outputs, 0, image, 5 + self.classes)?.outer_iter() {
            let bbox = centred(row[0] * x, row[1] * y, row[2] * x, row[3] * y);
            found.best(self.classes, |class| row[4] * row[5 + class], bbox);
        }
        found.suppressed()
    }
}
