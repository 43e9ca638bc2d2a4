//! The shared library of ONNX Runtime: found, loaded once in a process, never linked.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use ort::environment::Environment;
use ort::logging::LogLevel;

use yolo_lat_core::engine::EngineError;

/// The oldest release whose interface is used.
const OLDEST: &str = "1.17";
const HOW: &str = "install it with `scripts/setup --ort` or `pip install onnxruntime`, or name it with --ort-lib or \
                   ORT_DYLIB_PATH";

/// A process loads one library: it cannot be given back, and two would share their symbols.
static LOADED: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

/// The thread in which the library is loaded. A file that only looks like one may panic there, which comes back as an error.
pub const LOADER_THREAD: &str = "load onnxruntime";

/// What ONNX Runtime computes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Provider {
    /// The processor.
    #[default]
    Cpu,
    /// NVIDIA's GPUs, if the library was built for them.
    Cuda,
}

impl std::fmt::Display for Provider {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Cpu => "CPU",
            Self::Cuda => "CUDA",
        })
    }
}

/// ONNX Runtime, loaded, and what it computes on.
#[derive(Clone)]
pub struct OnnxRuntime {
    pub(super) environment: Environment,
    pub(super) provider: Provider,
    path: PathBuf,
}

impl OnnxRuntime {
    /// The library's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its version, where its file or Python's package is named by it.
    pub fn version(&self) -> Option<String> {
        version_in(&self.path)
    }

    /// Loads ONNX Runtime from `path`, or from where it usually lies: ORT_DYLIB_PATH, Python's onnxruntime package, the
    /// system's library folders. A process has one such library: without a `path`, the one that is loaded will do.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] if there is none, or it is too old, or for another machine, or another one is loaded.
    pub fn load(path: Option<&Path>, provider: Provider) -> Result<Self, EngineError> {
        let mut loaded = LOADED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((first, environment)) = &*loaded {
            return match path.map(|path| path.canonicalize().unwrap_or_else(|_| path.to_owned())) {
                Some(path) if path != *first => Err(unavailable(format!(
                    "{}: this process has loaded {}, and one is all that it can load",
                    path.display(),
                    first.display()
                ))),
                _ => Ok(Self { environment: environment.clone(), provider, path: first.clone() }),
            };
        }
        let given = path.map(Path::to_owned).or_else(|| std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from));
        let path = match given {
            Some(path) if path.is_file() => path,
            Some(path) => return Err(unavailable(format!("{}: no such file; {HOW}", path.display()))),
            None => find().ok_or_else(|| unavailable(format!("no ONNX Runtime library was found; {HOW}")))?,
        };
        // A bare name would be searched beside this program first.
        let path = path.canonicalize().unwrap_or(path);
        let failed =
            |error: String| unavailable(format!("{error} (at least {OLDEST} for this machine is needed; {HOW})"));
        let open = || ort::init_from(&path).map(drop).map_err(|error| error.to_string());
        let opened = std::thread::scope(|scope| {
            std::thread::Builder::new().name(LOADER_THREAD.into()).spawn_scoped(scope, open).map(|thread| thread.join())
        });
        opened
            .map_err(|error| failed(error.to_string()))?
            .map_err(|_| failed(format!("{} is no ONNX Runtime", path.display())))?
            .map_err(failed)?;
        let environment = ort::init().with_telemetry(false).build().map_err(|error| failed(error.to_string()))?;
        // What fails comes back as an error; the library would print it besides.
        environment.set_log_level(if log::log_enabled!(log::Level::Debug) {
            LogLevel::Warning
        } else {
            LogLevel::Fatal
        });
        log::info!("ONNX Runtime from {}", path.display());
        let (path, environment) = loaded.insert((path, environment));
        Ok(Self { environment: environment.clone(), provider, path: path.clone() })
    }
}

fn unavailable(reason: String) -> EngineError {
    EngineError::Unavailable { engine: "ort", reason }
}

/// `libonnxruntime.so.1.32.0`, `libonnxruntime.1.32.0.dylib`, or a library in `site-packages/onnxruntime/capi` beside
/// `onnxruntime-1.32.0.dist-info`.
fn version_in(path: &Path) -> Option<String> {
    let numbers = |name: &str| {
        let from = name.find(|letter: char| letter.is_ascii_digit())?;
        let version: String =
            name[from..].chars().take_while(|&letter| letter.is_ascii_digit() || letter == '.').collect();
        Some(version.trim_end_matches('.').to_owned()).filter(|version| version.contains('.'))
    };
    let packages = || std::fs::read_dir(path.ancestors().nth(3)?).ok();
    numbers(&path.file_name()?.to_string_lossy()).or_else(|| {
        let names = packages()?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let is_package = |name: &String| name.starts_with("onnxruntime") && name.ends_with(".dist-info");
        names.filter(is_package).find_map(|name| numbers(&name))
    })
}

/// Where package managers put it.
fn find() -> Option<PathBuf> {
    let file = format!("{}onnxruntime{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let system =
        ["/usr/local/lib", "/usr/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/opt/homebrew/lib"];
    wheel().into_iter().chain(system.map(PathBuf::from)).find_map(|folder| {
        let entries = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
        // The wheel's file carries its version: libonnxruntime.so.1.32.0.
        let mut found: Vec<PathBuf> = entries
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with(&file) || (name == "onnxruntime.dll") || name.starts_with("libonnxruntime.1")
            })
            .collect();
        found.sort();
        found.pop()
    })
}

/// The folder in which Python's package keeps its library. The package itself is not imported: that takes seconds.
fn wheel() -> Option<PathBuf> {
    let code = "import importlib.util as u; s = u.find_spec('onnxruntime'); print(s.submodule_search_locations[0] if s else '')";
    let output = Command::new("python3").args(["-c", code]).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let folder = String::from_utf8(output.stdout).ok()?;
    (!folder.trim().is_empty()).then(|| Path::new(folder.trim()).join("capi"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_versions() {
        let folder = tempfile::tempdir().unwrap();
        let packages = folder.path();
        for (file, version) in [
            ("libonnxruntime.so.1.32.0", Some("1.32.0")),
            ("libonnxruntime.1.20.1.dylib", Some("1.20.1")),
            ("libonnxruntime.so.1", None),
            ("onnxruntime.dll", None),
        ] {
            assert_eq!(version_in(&packages.join("onnxruntime/capi").join(file)).as_deref(), version, "{file}");
        }
        std::fs::create_dir(packages.join("onnxruntime-1.30.0.dist-info")).unwrap();
        let library = packages.join("onnxruntime/capi/onnxruntime.dll");
        assert_eq!(version_in(&library).as_deref(), Some("1.30.0"));
    }
}
