//! The average of several weights ("model soups", Wortsman et al. 2022): runs that started from the same weights end in one
//! valley of the loss, and its middle is better than its sides.

use std::path::PathBuf;

use anyhow::{Context, bail};
use yolo_lat::model::{Model, Precision, Tensor};

use crate::run::write_model;

/// What is averaged, and where the result goes.
#[derive(clap::Args, Debug)]
pub(crate) struct AverageArguments {
    /// Models of the same configuration: names of built-in ones, or paths
    #[arg(required = true, num_args = 2.., value_name = "MODEL")]
    models: Vec<String>,
    /// Folder for the average, under the models' name
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
}

/// Writes the mean of every weight.
///
/// # Errors
/// A model cannot be read, one has another configuration than the first, or the result cannot be written.
pub(crate) fn average(arguments: &AverageArguments) -> anyhow::Result<()> {
    let mut models = Vec::new();
    for name in &arguments.models {
        let mut model = Model::load(name)?;
        // Steps for integers belong to other weights; calibrate measures these anew.
        model.config.precision = Precision::F32;
        model.weights = model.weights.without_steps();
        if let Some(first) = models.first().filter(|first: &&Model| first.config != model.config) {
            bail!(
                "{name}: another network than {} ({}); give models of one configuration",
                arguments.models[0],
                first.config.name
            );
        }
        models.push(model);
    }
    let mut mean = models[0].clone();
    for (name, tensor) in models[0].weights.iter() {
        let mut sum = vec![0.0_f64; tensor.values.len()];
        for model in &models {
            let tensor = model.weights.get(name).with_context(|| format!("{name} is missing"))?;
            sum.iter_mut().zip(tensor.values.iter()).for_each(|(sum, &value)| *sum += f64::from(value));
        }
        let values = sum.into_iter().map(|sum| (sum / models.len() as f64) as f32).collect();
        mean.weights.insert(name, Tensor { shape: tensor.shape.clone(), values });
    }
    let text = toml::to_string(&mean.config)?;
    std::fs::create_dir_all(&arguments.output)
        .with_context(|| format!("{}: cannot be made", arguments.output.display()))?;
    write_model(&mean, text.as_bytes(), &arguments.output)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two trainings of one network.
    const BOOTSTRAP: &str = "../tests/golden/bootstrap/yolo-lat-n.toml";
    const PLAIN: &str = "start/n-plain.toml";

    #[test]
    fn the_average_lies_in_the_middle() {
        let folder = tempfile::tempdir().unwrap();
        let models = vec![PLAIN.to_owned(), BOOTSTRAP.to_owned()];
        average(&AverageArguments { models, output: folder.path().to_owned() }).unwrap();
        let found = Model::load(&folder.path().join("yolo-lat-n.toml").to_string_lossy()).unwrap();
        let (one, other) = (Model::load(PLAIN).unwrap(), Model::load(BOOTSTRAP).unwrap());
        assert_eq!(found.config, one.config);
        let value = |model: &Model| model.weights.get("head16.class.out.bias").unwrap().values[3];
        assert_ne!(value(&one), value(&other));
        assert!((value(&found) - (value(&one) + value(&other)) / 2.0).abs() < 1e-6);
    }

    #[test]
    fn another_network_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let models = vec!["n".to_owned(), "s".to_owned()];
        let error = average(&AverageArguments { models, output: folder.path().to_owned() }).unwrap_err();
        assert!(error.to_string().starts_with("s: another network than n"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
