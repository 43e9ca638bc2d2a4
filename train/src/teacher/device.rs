//! Teachers that libtorch asks, about a whole batch at once, on the device that trains: a GPU answers many times as fast as the engine
//! on the processor, and what the teacher shows need not be copied there.

use tch::{Device, Tensor};
use yolo_lat::model::config::{HeadConfig, STRIDES};

use super::{Detector, Teacher};
use crate::loss::DenseAnswers;
use crate::network::{Mode, Network};

/// A model of this project in libtorch's memory.
pub(crate) struct DeviceTeacher {
    network: Network,
    head: HeadConfig,
    /// Index of each of the student's classes among the teacher's.
    classes: Tensor,
}

impl Teacher {
    /// The same teacher on a device of libtorch; `None` if it is no model of this project.
    ///
    /// # Errors
    /// Its weights do not fit its graph.
    pub(crate) fn on(&self, device: Device) -> anyhow::Result<Option<DeviceTeacher>> {
        let Detector::Own { model, .. } = &self.detector else { return Ok(None) };
        let mut network = Network::new(self.graph(model, (STRIDES[2], STRIDES[2]))?, device);
        // Its batch norms stay the identities that they start as.
        network.init(&model.weights, |_| true)?;
        let classes: Vec<i64> = self.classes.iter().map(|&class| class as i64).collect();
        let classes = Tensor::from_slice(&classes).to_device(device);
        Ok(Some(DeviceTeacher { network, head: model.config.head, classes }))
    }
}

impl DeviceTeacher {
    /// Answers to images (n, 3, height, width) in 0..1.
    pub(crate) fn answers(&self, images: &Tensor) -> DenseAnswers {
        tch::no_grad(|| DenseAnswers::of(&self.network.forward(images, Mode::Eval), self.head, &self.classes))
    }
}

#[cfg(test)]
mod tests {
    use yolo_lat::model::Model;

    use super::*;

    #[test]
    fn libtorch_answers_what_the_engine_does() {
        let path = "../tests/golden/bootstrap/yolo-lat-n.toml";
        let known = Model::load(path).unwrap().config.classes;
        // Some of the classes, in another order.
        let classes = [known[7].clone(), known[2].clone(), known[14].clone()];
        let layers = ["stage3.7.concat", "stage2.0.concat"].map(str::to_owned);
        let teacher = Teacher::load(path.as_ref(), &classes).unwrap().showing(layers.into_iter()).unwrap();
        let (width, height) = (128, 96);
        let pixels: Vec<f32> = (0..2 * 3 * width * height).map(|index| (index * 37 % 251) as f32 / 250.0).collect();
        let images = Tensor::from_slice(&pixels).reshape([2, 3, height as i64, width as i64]);
        let found = teacher.on(Device::Cpu).unwrap().unwrap().answers(&images);
        for (index, pixels) in pixels.chunks_exact(3 * width * height).enumerate() {
            let expected = teacher.answer(pixels, (width, height)).unwrap();
            let features = expected.features.iter().map(|map| map.as_slice().unwrap()).zip(&found.features);
            let results = [(&expected.scores[..], &found.scores), (&expected.boxes[..], &found.boxes)];
            for (expected, found) in results.into_iter().chain(features) {
                let found: Vec<f32> = Vec::try_from(found.select(0, index as i64).contiguous().reshape([-1])).unwrap();
                assert_eq!(expected.len(), found.len());
                let largest = expected.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
                let worst = expected.iter().zip(&found).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
                assert!(worst < 1e-3 * largest, "{worst} of {largest}");
            }
        }
    }
}
