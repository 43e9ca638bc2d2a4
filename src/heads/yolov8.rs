//! YOLOv8 and its successors, YOLO-NAS' and our own exports: (batch, 4 + classes, cells) with centre and size in pixels, then
//! probabilities; oriented ones with the angle behind them.

use ndarray::{ArrayD, Axis};

use super::{Candidates, Head, HeadError, around, table};
use crate::preprocess::Preprocessing;
use yolo_lat_core::postprocess::{Detection, PostprocessOptions};

pub(crate) struct Yolov8 {
    pub(crate) classes: usize,
    /// An angle in radians follows the classes.
    pub(crate) oriented: bool,
    /// (batch, cells, 4 + classes) instead.
    pub(crate) in_rows: bool,
    /// Pixels in a unit of x and y: 1, or the input's sides where boxes are shares of it.
    pub(crate) unit: [f32; 2],
}

impl Head for Yolov8 {
    fn preprocessing(&self) -> Preprocessing {
        Preprocessing::default()
    }

    fn decode(
        &self,
        outputs: &[ArrayD<f32>],
        image: usize,
        options: &PostprocessOptions,
    ) -> Result<Vec<Detection>, HeadError> {
        let least = 4 + self.classes + usize::from(self.oriented);
        let map = table(outputs, 0, image, if self.in_rows { least } else { 0 })?;
        let map = if self.in_rows { map.reversed_axes() } else { map };
        if map.nrows() < least {
            let shape = outputs.first().map_or(Vec::new(), |output| output.shape().to_vec());
            return Err(HeadError::Shape { output: 0, shape, expected: format!("(batch, {least} or more, cells)") });
        }
        let [x, y] = self.unit;
        let mut found = Candidates::new(options);
        for cell in map.axis_iter(Axis(1)) {
            let angle = if self.oriented { cell[4 + self.classes] } else { 0.0 };
            let bbox = around(cell[0] * x, cell[1] * y, cell[2] * x, cell[3] * y, angle);
            found.best(self.classes, |class| cell[4 + class], bbox);
        }
        found.suppressed()
    }
}
