//! Networks that suppress overlapping boxes themselves (YOLOv10, YOLO26, exports with suppression, our own `export --nms`):
//! (batch, n, 6) with corners in pixels, confidence, class.

use ndarray::ArrayD;

use super::{Candidates, Head, HeadError, around, table};
use crate::preprocess::Preprocessing;
use yolo_lat_core::geometry::BBox;
use yolo_lat_core::postprocess::{Detection, PostprocessOptions};

pub(crate) struct EndToEnd {
    pub(crate) classes: usize,
    /// Centre and size instead of corners, and an angle in radians behind the class.
    pub(crate) oriented: bool,
    /// Pixels in a unit of x and y: 1, or the input's sides where boxes are shares of it.
    pub(crate) unit: [f32; 2],
}

impl Head for EndToEnd {
    fn preprocessing(&self) -> Preprocessing {
        Preprocessing::default()
    }

    fn decode(
        &self,
        outputs: &[ArrayD<f32>],
        image: usize,
        options: &PostprocessOptions,
    ) -> Result<Vec<Detection>, HeadError> {
        let [x, y] = self.unit;
        let mut found = Candidates::new(options);
        for row in table(outputs, 0, image, if self.oriented { 7 } else { 6 })?.outer_iter() {
            // Rows that hold nothing may hold anything for a class.
            if !(row[4] > 0.0 && row[4] >= options.least_candidate()) {
                continue;
            }
            let class = row[5] as usize;
            if class >= self.classes {
                return Err(HeadError::Class { class, classes: self.classes });
            }
            let corners = BBox { x1: row[0] * x, y1: row[1] * y, x2: row[2] * x, y2: row[3] * y };
            let bbox =
                if self.oriented { around(corners.x1, corners.y1, corners.x2, corners.y2, row[6]) } else { corners };
            found.one(class, row[4], bbox);
        }
        found.ranked()
    }
}
