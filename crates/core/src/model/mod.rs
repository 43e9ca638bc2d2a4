//! The network: its configuration, its description as a graph, its weights.

mod check;
pub mod classes;
pub mod config;
pub mod graph;
pub mod integers;
mod op;
mod weights;
mod yolo_lat;

use std::path::{Path, PathBuf};

use yolo_lat_models::{BUILTIN, Builtin};

pub use check::{CheckedGraph, GraphError, Network, NetworkError, WeightsError};
pub use config::ModelConfig;
pub use graph::Graph;
pub use integers::Precision;
pub use weights::{Tensor, Weights};

/// Why a model could not be had. Each message says what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The name is neither a built-in model nor a file.
    #[error("no model {name:?}: give {known}, or the path of a .toml or .safetensors file")]
    Unknown {
        /// As given.
        name: String,
        /// The built-in names.
        known: String,
    },
    /// A configuration without weights.
    #[error("{name} has no trained weights yet ({path} is missing): train it, or choose another model")]
    NoWeights {
        /// The model's name.
        name: String,
        /// Where they would lie.
        path: String,
    },
    /// A file could not be read.
    #[error("{path}: cannot be read: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is larger than any model of this kind.
    #[error("{path}: {bytes} bytes, more than the {limit} that a model may have; is this the right file?")]
    TooLarge {
        /// The file.
        path: String,
        /// Its size.
        bytes: u64,
        /// The largest accepted size.
        limit: u64,
    },
    /// Not a valid configuration.
    #[error("{path}: not a model configuration: {reason}")]
    Config {
        /// The file.
        path: String,
        /// What is wrong and where.
        reason: String,
    },
    /// Not a valid safetensors file.
    #[error("{path}: not a readable safetensors file ({reason}); it may be truncated: copy or download it again")]
    Format {
        /// The file.
        path: String,
        /// What the parser said.
        reason: String,
    },
    /// The tensors are not those of the network.
    #[error("{path}: {reason}")]
    Weights {
        /// The file.
        path: String,
        /// Which tensor, and why.
        reason: Box<WeightsError>,
    },
    /// The configuration describes no network.
    #[error("{name} at {width}x{height}: {reason}")]
    Graph {
        /// The model's name.
        name: String,
        /// Width of the input in pixels.
        width: usize,
        /// Its height.
        height: usize,
        /// What is wrong.
        reason: Box<GraphError>,
    },
    /// The weights are of a model with other classes.
    #[error(
        "{path}: these weights are for {found} classes, but {model} lists {expected}; the list of names and the weights belong together"
    )]
    Classes {
        /// The file with the weights.
        path: String,
        /// Classes in the configuration.
        expected: usize,
        /// Classes that the weights tell apart.
        found: usize,
        /// The network.
        model: String,
    },
    /// Integers were asked for, but nothing says how.
    #[error(
        "{name} has no steps for int8: take --precision f32, or let yolo-lat-train calibrate measure them (docs/CPU.md)"
    )]
    NoSteps {
        /// The model's name.
        name: String,
    },
    /// A tensor has another element type.
    #[error("{path}: tensor {name} holds {found}, expected F32; convert the weights to 32-bit floats")]
    Dtype {
        /// The file.
        path: String,
        /// The tensor.
        name: String,
        /// Its element type.
        found: String,
    },
    /// The wanted input size does not suit the network.
    #[error("input size {width}x{height}: {reason}")]
    Size {
        /// Wanted width in pixels.
        width: usize,
        /// Wanted height in pixels.
        height: usize,
        /// What a side must be.
        reason: String,
    },
}

/// A network with its weights, checked against each other.
#[derive(Clone, Debug)]
pub struct Model {
    /// What the network is made of.
    pub config: ModelConfig,
    /// One tensor for every name in [`Graph::weights`], and the steps for integers if they were measured.
    pub weights: Weights,
    precision: Precision,
}

impl Model {
    /// Loads a built-in model by name (`n`, `yolo-lat-n`) or one from disk: the path of the TOML file or of the
    /// weights; the other lies beside it under the same name.
    ///
    /// # Errors
    /// [`ModelError`] names the file, the tensor, what was expected and what was found.
    pub fn load(name: &str) -> Result<Self, ModelError> {
        let source = Source::find(name)?;
        let config = source.config()?;
        let weights = source.weights(&config)?;
        let (origin, config_origin, wanted) = (source.weights_origin(), source.config_origin(), config.precision);
        let model = Self::new(config, weights, &origin)?;
        match wanted == model.usual_precision() {
            true => Ok(model),
            false => {
                let reason = format!(
                    "precision = \"int8\" needs steps, and {origin} has none: take the line out, or let yolo-lat-train calibrate measure them"
                );
                Err(ModelError::Config { path: config_origin, reason })
            }
        }
    }

    /// Joins a configuration and weights. `origin` names the weights in errors.
    ///
    /// # Errors
    /// A tensor that is missing, unknown, of another shape, or not finite.
    pub fn new(config: ModelConfig, weights: Weights, origin: &str) -> Result<Self, ModelError> {
        let graph = graph_of(&config, config.input, config.input)?;
        // Said before shapes of tensors are.
        for scale in &graph.scales {
            let weight = weights.get(&format!("{}.weight", graph.nodes[scale.class].name));
            let found = weight.and_then(|tensor| tensor.shape.first()).copied();
            if let Some(found) = found.filter(|&found| found != config.classes.len()) {
                let (path, expected, model) = (origin.to_owned(), config.classes.len(), config.name);
                return Err(ModelError::Classes { path, expected, found, model });
            }
        }
        // With the steps that are there, whether they are used or not.
        let whole = graph.edit(|graph| graph.use_integers(&weights));
        let whole = whole.map_err(|reason| graph_error(&config, config.input, config.input, reason))?;
        whole
            .with(weights.clone())
            .map_err(|reason| ModelError::Weights { path: origin.into(), reason: reason.into() })?;
        Ok(Self { config, weights, precision: Precision::F32 })
    }

    /// What its configuration recommends for the CPU engine, where the weights have what that takes.
    pub fn usual_precision(&self) -> Precision {
        if self.config.precision == Precision::Int8 && self.weights.has_steps() {
            Precision::Int8
        } else {
            Precision::F32
        }
    }

    /// What its networks are computed in: floats, unless it was made another.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The same model computed in `precision`, of which its configuration recommends one ([`ModelConfig::precision`]).
    ///
    /// # Errors
    /// [`ModelError::NoSteps`] for integers where the weights have no steps for them.
    pub fn in_precision(mut self, precision: Precision) -> Result<Self, ModelError> {
        self.precision = precision;
        let graph = self.graph(self.config.input, self.config.input)?;
        match precision == Precision::Int8 && !graph.has_integers() {
            true => Err(ModelError::NoSteps { name: self.config.name }),
            false => Ok(self),
        }
    }

    /// The network for images of `width` x `height` pixels.
    ///
    /// # Errors
    /// [`ModelError::Size`] unless both are multiples of 32 up to 4096.
    pub fn graph(&self, width: usize, height: usize) -> Result<CheckedGraph, ModelError> {
        let graph = graph_of(&self.config, width, height)?;
        if self.precision == Precision::F32 {
            return Ok(graph);
        }
        let integers = graph.edit(|graph| graph.use_integers(&self.weights));
        integers.map_err(|reason| graph_error(&self.config, width, height, reason))
    }

    /// The same with its weights.
    ///
    /// # Errors
    /// As [`Model::graph`], and weights that have been exchanged for others that do not fit.
    pub fn network(&self, width: usize, height: usize) -> Result<Network, ModelError> {
        let weights = match self.precision {
            Precision::F32 => self.weights.without_steps(),
            Precision::Int8 => self.weights.clone(),
        };
        let network = self.graph(width, height)?.with(weights);
        network.map_err(|reason| ModelError::Weights { path: self.config.name.clone(), reason: reason.into() })
    }
}

/// The network that a configuration describes, for images of `width` x `height` pixels.
///
/// # Errors
/// [`ModelError::Size`] unless both are multiples of 32 up to 4096, [`ModelError::Graph`] for a network beyond all bounds.
pub fn graph_of(config: &ModelConfig, width: usize, height: usize) -> Result<CheckedGraph, ModelError> {
    for side in [width, height] {
        config::check_side(side).map_err(|reason| ModelError::Size { width, height, reason })?;
    }
    let checked = yolo_lat::build(config, width, height).check();
    checked.map_err(|reason| graph_error(config, width, height, reason))
}

fn graph_error(config: &ModelConfig, width: usize, height: usize, reason: GraphError) -> ModelError {
    ModelError::Graph { name: config.name.clone(), width, height, reason: reason.into() }
}

/// Reads only the configuration of a model, which needs no weights: enough to describe the network.
///
/// # Errors
/// As [`Model::load`].
pub fn load_config(name: &str) -> Result<ModelConfig, ModelError> {
    Source::find(name)?.config()
}

/// The least confidence that a model asks for; the customary one where its file says nothing or cannot be read.
pub fn default_confidence(name: &str) -> f32 {
    let own = load_config(name).ok().and_then(|config| config.confidence);
    own.unwrap_or(config::CONFIDENCE)
}

/// Where a model comes from.
enum Source {
    Builtin(&'static Builtin),
    Files { config: PathBuf, weights: PathBuf },
}

impl Source {
    fn find(name: &str) -> Result<Self, ModelError> {
        if let Some(builtin) = BUILTIN.iter().find(|builtin| name == builtin.short || name == builtin.name) {
            return Ok(Self::Builtin(builtin));
        }
        let path = Path::new(name);
        let known_extension =
            path.extension().is_some_and(|extension| extension == "toml" || extension == "safetensors");
        if !known_extension || !path.exists() {
            let known = BUILTIN.iter().map(|builtin| builtin.short).collect::<Vec<_>>().join(" or ");
            return Err(ModelError::Unknown { name: name.to_owned(), known });
        }
        Ok(Self::Files { config: path.with_extension("toml"), weights: path.with_extension("safetensors") })
    }

    fn config(&self) -> Result<ModelConfig, ModelError> {
        match self {
            Self::Builtin(builtin) => ModelConfig::parse(builtin.config, builtin.name),
            Self::Files { config, .. } => {
                let path = config.display().to_string();
                let bytes = weights::read_limited(config)?;
                let text = String::from_utf8(bytes)
                    .map_err(|_| ModelError::Config { path: path.clone(), reason: "not UTF-8 text".into() })?;
                ModelConfig::parse(&text, &path)
            }
        }
    }

    fn weights(&self, config: &ModelConfig) -> Result<Weights, ModelError> {
        match self {
            Self::Builtin(builtin) => Weights::parse(builtin.weights, builtin.name),
            Self::Files { weights, .. } if !weights.exists() => {
                Err(ModelError::NoWeights { name: config.name.clone(), path: self.weights_origin() })
            }
            Self::Files { weights, .. } => Weights::load(weights),
        }
    }

    fn config_origin(&self) -> String {
        match self {
            Self::Builtin(builtin) => format!("models/{}.toml", builtin.name),
            Self::Files { config, .. } => config.display().to_string(),
        }
    }

    fn weights_origin(&self) -> String {
        match self {
            Self::Builtin(builtin) => format!("models/{}.safetensors", builtin.name),
            Self::Files { weights, .. } => weights.display().to_string(),
        }
    }
}

#[cfg(test)]
mod tests;
