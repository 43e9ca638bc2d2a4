//! AdamW (Loshchilov and Hutter 2019) and the moving average of the weights, with their state in plain sight: a
//! checkpoint holds all of it.

use std::collections::BTreeMap;

use anyhow::bail;
use tch::Tensor;

use crate::tensors::{flattened, shaped};

/// What the moments forget a step, and what keeps the second one's root from 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moments {
    pub(crate) betas: (f64, f64),
    pub(crate) epsilon: f64,
}

/// Those of Kingma and Ba (2015).
const USUAL: Moments = Moments { betas: (0.9, 0.999), epsilon: 1e-8 };

type Tensors = BTreeMap<String, Tensor>;

/// The optimiser. All parameters stand one after the other in one vector, their gradients and moments in others, so that a step is some
/// operations on vectors instead of a dozen on each of some hundred short ones, which a GPU spends its time with starting.
pub(crate) struct AdamW {
    /// First and second moments of the gradients by name: parts of the vectors.
    pub(crate) first: Tensors,
    pub(crate) second: Tensors,
    /// Steps made.
    pub(crate) steps: i64,
    pub(crate) constants: Moments,
    /// All parameters; those of the network are parts of it.
    values: Tensor,
    /// All gradients, 0 where there are none.
    gradients: Tensor,
    /// By name: parts of the gradients, which those of the parameters become where they have some.
    gradient_parts: Tensors,
    /// All of `first` and all of `second`.
    moments: [Tensor; 2],
    /// Of each number, its share of the learning rate.
    rate_shares: Tensor,
    /// Of each number, what it loses of itself at a rate of 1.
    decays: Tensor,
}

impl AdamW {
    /// Nothing seen yet. The parameters become parts of one vector. `rate_shares` has shares of the learning rate by the beginning of a
    /// parameter's name; the longest that fits counts.
    ///
    /// # Errors
    /// A prefix of `rate_shares` begins no parameter's name.
    pub(crate) fn new(
        parameters: &mut Tensors,
        weight_decay: f64,
        rate_shares: &BTreeMap<String, f64>,
    ) -> anyhow::Result<Self> {
        for prefix in rate_shares.keys() {
            if !parameters.keys().any(|name| name.starts_with(prefix.as_str())) {
                bail!("rate_shares: no layer's name begins with {prefix:?}");
            }
        }
        let share_of = |name: &str| {
            // In the order of names, a longer prefix comes after those that it begins with.
            let mut longest_first = rate_shares.iter().rev();
            longest_first.find(|(prefix, _)| name.starts_with(prefix.as_str())).map_or(1.0, |(_, &share)| share)
        };
        let decay_of = |name: &str, parameter: &Tensor| {
            let is_filter = name.ends_with(".weight") && !name.ends_with(".norm.weight");
            if is_filter && parameter.requires_grad() { weight_decay * share_of(name) } else { 0.0 }
        };
        let full = |parameter: &Tensor, value: f64| parameter.detach().full_like(value);
        let rate_shares = joined(parameters.iter().map(|(name, parameter)| full(parameter, share_of(name))));
        let decays = joined(parameters.iter().map(|(name, parameter)| full(parameter, decay_of(name, parameter))));
        let values = joined(parameters.values().map(Tensor::shallow_clone));
        let new = parts(&values, parameters);
        for (parameter, part) in parameters.values_mut().zip(new.values()) {
            *parameter = part.set_requires_grad(parameter.requires_grad());
        }
        let moments = [values.zeros_like(), values.zeros_like()];
        let gradients = values.zeros_like();
        Ok(Self {
            first: parts(&moments[0], parameters),
            second: parts(&moments[1], parameters),
            steps: 0,
            constants: USUAL,
            gradient_parts: parts(&gradients, parameters),
            values,
            gradients,
            moments,
            rate_shares,
            decays,
        })
    }

    /// Throws gradients away that no step was made of.
    pub(crate) fn reset_gradients(&mut self, parameters: &Tensors) {
        self.gather(parameters);
        let _ = self.gradients.zero_();
    }

    /// Moves gradients that are new into the common vector, where libtorch then adds the next ones.
    fn gather(&self, parameters: &Tensors) {
        for (parameter, part) in parameters.values().zip(self.gradient_parts.values()) {
            let mut gradient = parameter.grad();
            if gradient.defined() && gradient.data_ptr() != part.data_ptr() {
                part.shallow_clone().copy_(&gradient);
                gradient.set_data(part);
            }
        }
    }

    /// One step along the gradients, scaled to a common norm of at most `clip`; norms and biases do not decay, groups have
    /// their shares of the rate. Gradients are zero afterwards.
    pub(crate) fn step(&mut self, parameters: &Tensors, rate: f64, clip: f64) {
        tch::no_grad(|| {
            self.steps += 1;
            self.gather(parameters);
            let scale = ((self.gradients.norm() + 1e-6).reciprocal() * clip).clamp_max(1.0);
            let gradients = &self.gradients * scale;
            let Moments { betas, epsilon } = self.constants;
            let [first, second] = &mut self.moments;
            let _ = first.lerp_(&gradients, 1.0 - betas.0);
            let _ = second.lerp_(&gradients.square(), 1.0 - betas.1);
            let (first_bias, second_bias) =
                (1.0 - betas.0.powi(self.steps as i32), 1.0 - betas.1.powi(self.steps as i32));
            let step = (&*first / first_bias) / ((&*second / second_bias).sqrt() + epsilon);
            self.values -= (step * &self.rate_shares + &self.values * &self.decays) * rate;
            let _ = self.gradients.zero_();
        });
    }
}

/// The numbers of all tensors, one after the other.
fn joined(tensors: impl Iterator<Item = Tensor>) -> Tensor {
    Tensor::cat(&tensors.map(|tensor| flattened(&tensor)).collect::<Vec<_>>(), 0)
}

/// The parts of a vector that belong to each parameter, in their shapes.
fn parts(vector: &Tensor, parameters: &Tensors) -> Tensors {
    let mut start = 0;
    let part = |(name, parameter): (&String, &Tensor)| {
        let count = parameter.numel() as i64;
        start += count;
        (name.clone(), shaped(&vector.narrow(0, start - count, count), &parameter.size()))
    };
    parameters.iter().map(part).collect()
}

/// The exponential moving average (EMA) of all parameters.
pub(crate) struct Ema {
    /// By name.
    pub(crate) parts: Tensors,
    /// All of them.
    values: Tensor,
}

impl Ema {
    /// Begins where the parameters are.
    pub(crate) fn new(optimizer: &AdamW, parameters: &Tensors) -> Self {
        let values = optimizer.values.copy();
        Self { parts: parts(&values, parameters), values }
    }

    /// Goes where the parameters are.
    pub(crate) fn restart(&mut self, optimizer: &AdamW) {
        self.values.copy_(&optimizer.values);
    }

    /// Moves towards the parameters after step number `step`; young averages move faster.
    pub(crate) fn follow(&mut self, optimizer: &AdamW, decay: f64, step: usize) {
        let decay = decay.min((1.0 + step as f64) / (10.0 + step as f64));
        let _ = self.values.lerp_(&optimizer.values, 1.0 - decay);
    }
}

/// Warm-up, then half a cosine down to `last` of the peak.
pub(crate) fn learning_rate(step: usize, steps: usize, warmup: usize, peak: f64, last: f64) -> f64 {
    if step < warmup {
        return peak * (step + 1) as f64 / warmup as f64;
    }
    let progress = (step - warmup) as f64 / (steps.saturating_sub(warmup)).max(1) as f64;
    peak * (last + (1.0 - last) * 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_warms_up_and_falls() {
        let rate = |step| learning_rate(step, 1000, 100, 2e-3, 0.02);
        assert!((rate(49) - 1e-3).abs() < 1e-9);
        assert!((rate(100) - 2e-3).abs() < 1e-9);
        assert!((rate(1000) - 4e-5).abs() < 1e-9);
        assert!((100..999).all(|step| rate(step + 1) < rate(step)));
    }

    #[test]
    fn it_finds_the_minimum_of_a_parabola() {
        let x = Tensor::from_slice(&[5.0f32, -3.0]).set_requires_grad(true);
        let mut parameters: Tensors = [("x.bias".to_owned(), x)].into();
        let mut optimizer = AdamW::new(&mut parameters, 0.0, &BTreeMap::new()).unwrap();
        let x = parameters["x.bias"].shallow_clone();
        for _ in 0..500 {
            (&x - 1.0).square().sum(tch::Kind::Float).backward();
            optimizer.step(&parameters, 0.05, 10.0);
        }
        let found: Vec<f32> = Vec::try_from(&x.detach()).unwrap();
        assert!(found.iter().all(|x| (x - 1.0).abs() < 0.01), "{found:?}");
    }

    #[test]
    fn groups_have_their_own_rates_and_only_filters_decay() {
        let names = ["stem.weight", "stem.norm.weight", "stage2.weight", "head.weight", "head.bias"];
        let new = |name: &&str| ((*name).to_owned(), Tensor::from_slice(&[1.0f32]).set_requires_grad(true));
        let mut parameters: Tensors = names.iter().map(new).collect();
        let shares = [("stem".to_owned(), 0.0), ("sta".to_owned(), 0.5), ("stage2".to_owned(), 0.25)].into();
        let mut optimizer = AdamW::new(&mut parameters, 0.5, &shares).unwrap();
        let sum = parameters.values().fold(Tensor::from(0.0f32), |sum, x| sum + x.sum(tch::Kind::Float));
        sum.backward();
        optimizer.step(&parameters, 0.1, 100.0);
        let found = |name: &str| parameters[name].double_value(&[0]);
        // The first step of Adam has the length of the rate; a filter has shrunk by rate * decay before.
        assert!((found("stem.weight") - 1.0).abs() < 1e-6);
        assert!((found("stem.norm.weight") - 1.0).abs() < 1e-6);
        assert!((found("stage2.weight") - (1.0 - 0.025 * 0.5 - 0.025)).abs() < 1e-5);
        assert!((found("head.weight") - (1.0 - 0.1 * 0.5 - 0.1)).abs() < 1e-5);
        assert!((found("head.bias") - 0.9).abs() < 1e-5);
        assert!(AdamW::new(&mut parameters, 0.0, &[("neck".to_owned(), 0.5)].into()).is_err());
    }
}
