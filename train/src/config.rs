//! A training run, as its TOML file says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use yolo_lat::model::config::check_side;

use crate::data::{Augmentation, TrainingSet};
use crate::loss::ClassLoss;
use crate::teacher::{Mode, TeacherConfig};

/// Shapes that photographs rarely have and cameras often: webcams, upright and not, and squares.
const OTHER_SHAPES: [(u32, u32); 3] = [(16, 9), (9, 16), (1, 1)];

/// Everything that decides what a run does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrainConfig {
    /// Model configuration, relative to the working folder.
    pub(crate) model: PathBuf,
    /// Folded weights to start from; what does not fit is left to chance.
    pub(crate) init: Option<PathBuf>,
    /// Of them only the layers whose names begin so; all if empty.
    #[serde(default)]
    pub(crate) init_only: Vec<String>,
    /// Where checkpoints, weights and logs go.
    pub(crate) output: PathBuf,
    /// Data sets to learn from, relative to `--data`: COCO JSON, VOC folders, YOLO folders. An entry is a path, or a table
    /// `{ path = "...", weight = 2.5 }` (see [`TrainingSet`]).
    /// A class of the model that a set does not label (COCO's `info.labelled_classes`, else its categories) has no negatives there.
    pub(crate) train: Vec<TrainingSet>,
    /// Folders of images without labels, relative to `--data`; a cached teacher labels them.
    #[serde(default)]
    pub(crate) unlabelled: Vec<PathBuf>,
    /// Classes of data sets that the model calls otherwise.
    #[serde(default)]
    pub(crate) rename: BTreeMap<String, String>,
    /// Data set to measure on.
    pub(crate) val: PathBuf,
    /// Images of it that are measured during training; all at the end.
    pub(crate) val_limit: usize,
    /// Side of the training images.
    pub(crate) size: usize,
    /// Least and largest side that a batch may have instead, until the gentle part.
    pub(crate) multi_scale: Option<[usize; 2]>,
    /// Samples in the shape of the batch's images instead of squares, with about the area of the square: inputs as detectors have
    /// them by default, which measurements then use too. One batch in eight has a shape of webcams (16:9, 9:16), or is square.
    // Settings of finished experiments lack it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) rectangles: bool,
    pub(crate) epochs: usize,
    pub(crate) batch: usize,
    /// Batches whose gradients are summed up for a step.
    #[serde(default = "one")]
    pub(crate) accumulate: usize,
    /// Peak of the learning rate, and its last value as a share of the peak.
    pub(crate) rate: f64,
    pub(crate) last_rate: f64,
    /// Share of the learning rate for layers whose names begin with a prefix.
    #[serde(default)]
    pub(crate) rate_shares: BTreeMap<String, f64>,
    pub(crate) warmup_steps: usize,
    pub(crate) weight_decay: f64,
    pub(crate) clip: f64,
    /// Share of the experts' balance in the loss, where there are experts.
    #[serde(default = "balance")]
    pub(crate) balance: f64,
    #[serde(alias = "average_decay")]
    pub(crate) ema_decay: f64,
    /// Share of the epochs, at the end, with gentle augmentation.
    pub(crate) gentle_share: f64,
    /// Epochs between two measurements; the averaged weights of the best one are kept in `best/`.
    pub(crate) measure_every: usize,
    pub(crate) seed: u64,
    #[serde(default)]
    pub(crate) class_loss: ClassLoss,
    /// Layers whose names begin so are not trained.
    #[serde(default)]
    pub(crate) frozen: Vec<String>,
    /// Detectors to learn from beside the labels.
    #[serde(default, rename = "teacher")]
    pub(crate) teachers: Vec<TeacherConfig>,
    /// Only the first images of each data set, for trials.
    pub(crate) limit: Option<usize>,
    #[serde(default)]
    pub(crate) augmentation: Augmentation,
}

fn one() -> usize {
    1
}

/// As the paper's program has it.
fn balance() -> f64 {
    0.01
}

impl TrainConfig {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// The file cannot be read, has an unknown key, or asks for what cannot be.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// As [`TrainConfig::load`], from text.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let config: Self = toml::from_str(text)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        let counts = [
            ("epochs", self.epochs),
            ("batch", self.batch),
            ("accumulate", self.accumulate),
            ("measure_every", self.measure_every),
            ("train", self.train.len() + self.unlabelled.len()),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, count)| *count == 0) {
            bail!("{name}: expected at least one");
        }
        let shares = [
            ("last_rate", self.last_rate),
            ("ema_decay", self.ema_decay),
            ("gentle_share", self.gentle_share),
            ("augmentation.flip", self.augmentation.flip.into()),
            ("augmentation.mosaic", self.augmentation.mosaic.into()),
            ("augmentation.mixup", self.augmentation.mixup.into()),
            ("augmentation.translate", self.augmentation.translate.into()),
        ];
        if let Some((name, value)) = shares.iter().find(|(_, value)| !(0.0..=1.0).contains(value)) {
            bail!("{name}: expected 0 to 1, found {value}");
        }
        let rates =
            [("rate", self.rate), ("weight_decay", self.weight_decay), ("clip", self.clip), ("balance", self.balance)];
        let shares = self.rate_shares.iter().map(|(name, &share)| (name.as_str(), share));
        if let Some((name, value)) =
            rates.into_iter().chain(shares).find(|(_, value)| !(*value >= 0.0 && value.is_finite()))
        {
            bail!("{name}: expected a positive number, found {value}");
        }
        if let Some(TrainingSet { path, weight }) =
            self.train.iter().find(|set| !(set.weight > 0.0 && set.weight <= TrainingSet::MOST_WEIGHT))
        {
            let (most, path) = (TrainingSet::MOST_WEIGHT, path.display());
            bail!("train.weight: expected a number above 0, at most {most}, found {weight} ({path})");
        }
        let [least, most] = self.augmentation.scale;
        if !(least > 0.0 && least <= most && most.is_finite()) {
            bail!("augmentation.scale: expected [least, largest], both above 0, found [{least}, {most}]");
        }
        let sizes = self.multi_scale.unwrap_or([self.size; 2]);
        for (name, side) in [("size", self.size), ("multi_scale", sizes[0]), ("multi_scale", sizes[1])] {
            check_side(side).map_err(|reason| anyhow::anyhow!("{name}: {reason}"))?;
        }
        if sizes[0] > sizes[1] {
            bail!("multi_scale: expected [least, largest], found {sizes:?}");
        }
        for teacher in &self.teachers {
            if teacher.labels_from.is_some() && teacher.answers == Mode::Dense {
                bail!("teacher: labels_from needs answers = \"cached\"");
            }
            if !teacher.features.is_empty() && teacher.answers == Mode::Cached {
                bail!("teacher: features needs answers = \"dense\"");
            }
        }
        let labels = self.teachers.iter().filter(|teacher| teacher.labels_from.is_some()).count();
        if !self.unlabelled.is_empty() && labels != 1 {
            bail!(
                "unlabelled: exactly one cached teacher must say with labels_from from when its boxes count as labels"
            );
        }
        Ok(())
    }

    /// The first epoch with gentle augmentation.
    pub(crate) fn is_gentle(&self, epoch: usize) -> bool {
        epoch as f64 >= self.epochs as f64 * (1.0 - self.gentle_share)
    }

    /// Side of the images of batch number `batch`, a multiple of `step`.
    pub(crate) fn size_of(&self, batch: usize, epoch: usize, step: usize) -> usize {
        let Some([least, most]) = self.multi_scale.filter(|_| !self.is_gentle(epoch)) else { return self.size };
        let seed = self.seed ^ (batch as u64).wrapping_mul(0xD1B5_4A32_D192_ED03);
        let mut random = SmallRng::seed_from_u64(seed);
        random.random_range(least.div_ceil(step)..=(most / step).max(least.div_ceil(step))) * step
    }

    /// Of one in eight batches, a shape (width, height) that its samples have whatever its images are.
    pub(crate) fn other_shape(&self, batch: usize) -> Option<(u32, u32)> {
        let seed = self.seed ^ (batch as u64).wrapping_mul(0x8CB9_2BA7_2F3D_8DD7);
        let mut random = SmallRng::seed_from_u64(seed);
        let is_other = random.random_range(0..8) == 0;
        is_other.then(|| OTHER_SHAPES[random.random_range(0..OTHER_SHAPES.len())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> String {
        std::fs::read_to_string("configs/n-finetune.toml").unwrap()
    }

    #[test]
    fn example_configurations_are_valid() {
        let mut count = 0;
        for entry in std::fs::read_dir("configs").unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() && path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with("ablate")) {
                let config = TrainConfig::load(&path).unwrap();
                assert!(Path::new("..").join(&config.model).exists(), "{}", path.display());
                count += 1;
            }
        }
        assert!(count > 0);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_name() {
        let changes = [
            ("epochs = 6", "epochs = 0", "epochs"),
            ("size = 320", "size = 300", "multiple of 32"),
            ("flip = 0.5", "flip = 1.5", "augmentation.flip"),
            ("rate = 1e-3", "rate = -1.0", "rate"),
            ("seed = 1", "seed = 1\nmulti_scale = [384, 256]", "multi_scale"),
            ("seed = 1", "seed = 1\nunlabelled = [\"x\"]", "labels_from"),
            ("seed = 1", "seed = 1\nsead = 1", "sead"),
            (
                "\"voc2007/train\"",
                "{ path = \"a\", weight = 0 }",
                "train.weight: expected a number above 0, at most 1000, found 0 (a)",
            ),
            ("\"voc2007/train\"", "{ path = \"a\", weight = -1.5 }", "train.weight"),
            ("\"voc2007/train\"", "{ path = \"a\", weight = 1e9 }", "train.weight"),
            ("\"voc2007/train\"", "{ path = \"a\", weight = inf }", "train.weight"),
            ("\"voc2007/train\"", "{ path = \"a\", weight = nan }", "train.weight"),
            ("\"voc2007/train\"", "{ path = \"a\", wait = 2 }", "wait"),
            ("\"voc2007/train\"", "{ weight = 2.0 }", "path"),
            ("\"voc2007/train\"", "2", "a path or { path = "),
            (
                "seed = 1",
                "seed = 1\nteacher = [{ answers = 'cached', class = 1.0, boxes = 1.0, features = { x = 1.0 } }]",
                "features needs answers = \"dense\"",
            ),
        ];
        for (from, to, expected) in changes {
            assert!(example().contains(from), "{from}");
            let error = TrainConfig::parse(&example().replacen(from, to, 1)).unwrap_err();
            assert!(format!("{error:#}").contains(expected), "{error:#}");
        }
    }

    #[test]
    fn batches_have_many_sizes_until_the_gentle_part() {
        let mut config =
            TrainConfig::parse(&example().replacen("seed = 1", "seed = 1\nmulti_scale = [256, 384]", 1)).unwrap();
        let sizes: std::collections::BTreeSet<usize> = (0..200).map(|batch| config.size_of(batch, 0, 32)).collect();
        assert_eq!(sizes.into_iter().collect::<Vec<_>>(), [256, 288, 320, 352, 384]);
        assert!((0..50).all(|batch| config.size_of(batch, 0, 64).is_multiple_of(64)));
        assert_eq!(config.size_of(3, 0, 32), config.size_of(3, 0, 32));
        assert_eq!(config.size_of(3, config.epochs - 1, 32), 320);
        config.multi_scale = None;
        assert_eq!(config.size_of(3, 0, 32), 320);
    }

    #[test]
    fn one_in_eight_batches_has_another_shape() {
        let config = TrainConfig::parse(&example()).unwrap();
        let shapes: Vec<(u32, u32)> = (0..8000).filter_map(|batch| config.other_shape(batch)).collect();
        assert!((900..1100).contains(&shapes.len()), "{}", shapes.len());
        for shape in OTHER_SHAPES {
            assert!(shapes.iter().filter(|&&found| found == shape).count() > 250);
        }
    }

    #[test]
    fn data_sets_are_paths_or_tables_with_weights() {
        let parse = |entry: &str| TrainConfig::parse(&example().replacen("\"voc2007/train\"", entry, 1)).unwrap();
        let config = parse("{ weight = 2, path = \"voc2007/train\" }");
        assert_eq!(config.train[0], TrainingSet { path: "voc2007/train".into(), weight: 2.0 });
        assert_eq!(config.train[1], "coco2017-part/annotations_voc20.json".into());
        // Settings come back, and are paths as ever where the weight is 1.
        let settings = serde_json::json!(config);
        let expected = serde_json::json!([
            { "path": "voc2007/train", "weight": 2.0 },
            "coco2017-part/annotations_voc20.json"
        ]);
        assert_eq!(settings["train"], expected);
        assert_eq!(serde_json::from_value::<TrainConfig>(settings).unwrap(), config);
        assert_eq!(TrainConfig::parse(&toml::to_string(&config).unwrap()).unwrap(), config);
        for entry in ["{ path = \"voc2007/train\" }", "{ path = \"voc2007/train\", weight = 1.0 }"] {
            assert_eq!(serde_json::json!(parse(entry)), serde_json::json!(parse("\"voc2007/train\"")));
        }
    }

    #[test]
    fn squares_leave_no_trace_in_settings() {
        let text = example();
        let keys = |text: &str| serde_json::json!(TrainConfig::parse(text).unwrap()).as_object().unwrap().len();
        assert_eq!(keys(&text.replacen("seed = 1", "seed = 1\nrectangles = true", 1)), keys(&text) + 1);
    }
}
