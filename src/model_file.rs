//! A model by name or path: one of ours, or somebody's ONNX file.

use std::path::{Path, PathBuf};

use yolo_lat_core::fingerprint::Fingerprint;
use yolo_lat_core::model::config::CONFIDENCE;
use yolo_lat_core::model::{Model, ModelError, Precision};

/// A model that was found.
#[allow(clippy::large_enum_variant, reason = "there are few of them, and none is moved often")]
#[derive(Clone, Debug)]
pub enum ModelFile {
    /// One of ours, weights and all.
    Native(Model),
    /// Somebody's network, for ONNX Runtime.
    Onnx(OnnxFile),
}

/// The path of an ONNX file; ONNX Runtime reads it, and what it keeps in files beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnnxFile(PathBuf);

impl OnnxFile {
    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl ModelFile {
    /// Finds a model by its name (`n`, `s`) or path: .toml or .safetensors for one of ours, whose other file lies beside it,
    /// .onnx for somebody's.
    ///
    /// # Errors
    /// [`ModelError`] says what is missing or wrong.
    pub fn open(name: &str) -> Result<Self, ModelError> {
        let path = Path::new(name);
        if has_extension(path, &["onnx"]) {
            // What the system says of a file that is not there, or is a folder, is clearer than what ONNX Runtime says.
            let mut byte = [0];
            return match std::fs::File::open(path).and_then(|mut file| std::io::Read::read(&mut file, &mut byte)) {
                Ok(_) => Ok(Self::Onnx(OnnxFile(path.to_owned()))),
                Err(source) => Err(ModelError::Read { path: name.to_owned(), source }),
            };
        }
        Model::load(name).map(Self::Native)
    }

    /// Whether a file has the name of a model, rather than of an image or a video.
    pub fn is_named(path: &Path) -> bool {
        has_extension(path, &["onnx", "safetensors", "toml"])
    }

    /// The network's name; of an ONNX file, its path.
    pub fn name(&self) -> String {
        match self {
            Self::Native(model) => model.config.name.clone(),
            Self::Onnx(file) => file.0.display().to_string(),
        }
    }

    /// What one of ours is computed in on the CPU engine unless somebody asks for another precision; an ONNX file says itself.
    pub fn usual_precision(&self) -> Precision {
        match self {
            Self::Native(model) => model.usual_precision(),
            Self::Onnx(_) => Precision::F32,
        }
    }

    /// The least confidence that it asks for; the customary one where it says nothing.
    pub fn confidence(&self) -> f32 {
        match self {
            Self::Native(model) => model.config.confidence.unwrap_or(CONFIDENCE),
            Self::Onnx(_) => CONFIDENCE,
        }
    }

    /// Tells weights apart; the same for every version of this program.
    ///
    /// # Errors
    /// [`ModelError::Read`] if an ONNX file can no longer be read.
    pub fn fingerprint(&self) -> Result<Fingerprint, ModelError> {
        let mut weights = Fingerprint::default();
        match self {
            Self::Native(model) => {
                for (name, tensor) in model.weights.iter() {
                    weights.add(name.as_bytes());
                    tensor.values.iter().for_each(|value| weights.add(&value.to_bits().to_le_bytes()));
                }
            }
            Self::Onnx(file) => {
                let fail = |source| ModelError::Read { path: self.name(), source };
                weights.add(&std::fs::read(&file.0).map_err(fail)?);
            }
        }
        Ok(weights)
    }
}

fn has_extension(path: &Path, known: &[&str]) -> bool {
    path.extension().is_some_and(|extension| known.iter().any(|known| extension.eq_ignore_ascii_case(known)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_decides_in_any_case() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.onnx", "a.ONNX"] {
            let path = folder.path().join(name).display().to_string();
            assert!(ModelFile::is_named(Path::new(&path)));
            assert!(ModelFile::open(&path).unwrap_err().to_string().contains("cannot be read"));
            std::fs::write(&path, name).unwrap();
            let file = ModelFile::open(&path).unwrap();
            assert!(matches!(&file, ModelFile::Onnx(file) if file.path() == Path::new(&path)));
            let mut expected = Fingerprint::default();
            expected.add(name.as_bytes());
            assert_eq!(file.fingerprint().unwrap().text(), expected.text());
        }
    }
}
