//! Inner maps of a teacher that the network learns to tell from its own by a linear map (Romero et al. 2015, "FitNets"): each layer
//! then learns from what stands next to it, which brings a network that was cut from its teacher back sooner than results do.

use tch::{Kind, Tensor};

use crate::loss::{Answers, TeacherOutput};
use crate::network::Network;
use crate::teacher::{Mode, Teacher, TeacherConfig};

/// Of the squares of a layer's maps, added to each channel's so that the fit is defined.
const DAMPING: f64 = 1e-4;
/// Added to variances.
const EPSILON: f64 = 1e-6;

/// A layer that a teacher shows.
pub(crate) struct FeatureDistillation {
    /// Of the linear map: (teacher's channels, own channels, 1, 1) and (teacher's channels).
    weight: String,
    bias: String,
    /// In the loss.
    share: f64,
}

/// Adds the linear maps to the network's parameters: one for each layer that a dense teacher shows, in their order. The network
/// gives the layers' maps after its results.
///
/// # Errors
/// The network has no such layer.
pub(crate) fn distil_features(
    network: &mut Network,
    configs: &[TeacherConfig],
    dense: &[Teacher],
) -> anyhow::Result<Vec<FeatureDistillation>> {
    let mut distillations = Vec::new();
    let configs = configs.iter().filter(|config| config.answers == Mode::Dense);
    for (index, (config, teacher)) in configs.zip(dense).enumerate() {
        for ((layer, &share), wanted) in config.features.iter().zip(teacher.feature_channels()?) {
            let own = network.tap(layer)?;
            let distillation = FeatureDistillation {
                weight: format!("distillation{index}.{layer}.weight"),
                bias: format!("distillation{index}.{layer}.bias"),
                share,
            };
            network.add(&distillation.weight, &[wanted as i64, own as i64, 1, 1]);
            network.add(&distillation.bias, &[wanted as i64]);
            distillations.push(distillation);
        }
    }
    Ok(distillations)
}

/// Each channel with mean 0 and variance 1 over the batch, so that all channels count alike.
fn normalized(map: &Tensor) -> Tensor {
    let (variance, mean) = map.var_mean_dim(&[0i64, 2, 3][..], false, true);
    (map - mean) / (variance + EPSILON).sqrt()
}

fn shown(teacher_outputs: &[TeacherOutput]) -> impl Iterator<Item = &Tensor> {
    teacher_outputs.iter().flat_map(|teacher_output| match &teacher_output.answers {
        Answers::Dense(answers) => &answers.features[..],
        Answers::Boxes(_) => &[],
    })
}

impl FeatureDistillation {
    /// The linear maps that tell the teacher's maps of a batch best from the network's, by least squares.
    pub(crate) fn fit(distillations: &[Self], network: &Network, maps: &[Tensor], teacher_outputs: &[TeacherOutput]) {
        for ((distillation, map), target) in distillations.iter().zip(maps).zip(shown(teacher_outputs)) {
            let rows = |x: &Tensor| x.permute([0, 2, 3, 1]).reshape([-1, x.size()[1]]).to_kind(Kind::Double);
            let x = rows(map);
            let x = Tensor::cat(&[&x, &x.narrow(1, 0, 1).ones_like()], 1);
            let square = x.transpose(0, 1).matmul(&x);
            let damping = square.diagonal(0, 0, 1).mean(Kind::Double) * DAMPING;
            let square = &square + Tensor::eye(square.size()[0], (Kind::Double, square.device())) * damping;
            let cross = x.transpose(0, 1).matmul(&rows(&normalized(target)));
            let solution = Tensor::linalg_solve(&square, &cross, true).to_kind(Kind::Float);
            let channels = solution.size()[0] - 1;
            let weight = solution.narrow(0, 0, channels).transpose(0, 1).unsqueeze(-1).unsqueeze(-1);
            for (name, value) in [(&distillation.weight, weight), (&distillation.bias, solution.select(0, channels))] {
                if let Some(parameter) = network.parameters.get(name) {
                    parameter.shallow_clone().copy_(&value);
                }
            }
        }
    }

    /// Weighted sum over layers of the mean square of what the network does not tell of the teacher's maps, whose channels have
    /// variance 1; `None` without layers.
    pub(crate) fn loss(
        distillations: &[Self],
        network: &Network,
        maps: &[Tensor],
        teacher_outputs: &[TeacherOutput],
    ) -> Option<Tensor> {
        let parts =
            distillations.iter().zip(maps).zip(shown(teacher_outputs)).filter_map(|((distillation, map), target)| {
                let (weight, bias) =
                    (network.parameters.get(&distillation.weight)?, network.parameters.get(&distillation.bias));
                let told = map.conv2d(weight, bias, [1, 1], [0, 0], [1, 1], 1);
                Some((told - normalized(target)).square().mean(Kind::Float) * distillation.share)
            });
        parts.reduce(|sum, part| sum + part)
    }
}
