//! FastestDet: (batch, 5 + classes, rows, columns) with objectness, tanh offsets from the cell's corner, sizes as shares of the
//! image, classes.

use ndarray::{ArrayD, Axis, Ix3};

use super::{Candidates, Head, HeadError, centred};
use crate::preprocess::{ChannelOrder, Preprocessing};
use yolo_lat_core::geometry::Fit;
use yolo_lat_core::postprocess::{Detection, PostprocessOptions};

pub(crate) struct FastestDet {
    pub(crate) classes: usize,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

impl Head for FastestDet {
    fn preprocessing(&self) -> Preprocessing {
        Preprocessing { fit: Fit::Stretch, order: ChannelOrder::Bgr, ..Preprocessing::default() }
    }

    fn decode(
        &self,
        outputs: &[ArrayD<f32>],
        image: usize,
        options: &PostprocessOptions,
    ) -> Result<Vec<Detection>, HeadError> {
        let map = outputs
            .first()
            .filter(|output| output.ndim() == 4 && image < output.len_of(Axis(0)))
            .and_then(|output| output.index_axis(Axis(0), image).into_dimensionality::<Ix3>().ok())
            .filter(|map| map.len_of(Axis(0)) >= 5 + self.classes);
        let map = map.ok_or_else(|| HeadError::Shape {
            output: 0,
            shape: outputs.first().map_or(Vec::new(), |output| output.shape().to_vec()),
            expected: format!("(batch, {}, rows, columns)", 5 + self.classes),
        })?;
        let (_, rows, columns) = map.dim();
        let (width, height) = (self.width as f32, self.height as f32);
        let mut found = Candidates::new(options);
        for ((row, column), &objectness) in map.index_axis(Axis(0), 0).indexed_iter() {
            let value = |channel: usize| map[(channel, row, column)];
            let x = (value(1).tanh() + column as f32) * width / columns as f32;
            let y = (value(2).tanh() + row as f32) * height / rows as f32;
            let share = |logit: f32| 1.0 / (1.0 + (-logit).exp());
            let bbox = centred(x, y, share(value(3)) * width, share(value(4)) * height);
            found.best(self.classes, |class| objectness.powf(0.6) * value(5 + class).powf(0.4), bbox);
        }
        found.suppressed()
    }
}
