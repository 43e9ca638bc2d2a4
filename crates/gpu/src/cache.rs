//! What the driver compiled, kept from one run of the program to the next: start-up then takes no compiler.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Bytes of the check sum before the driver's data.
const HEAD: usize = 8;

/// A device's compiled pipelines and the file they are kept in. Where wgpu offers no cache (all but Vulkan), there is none.
pub(super) struct PipelineCache {
    cache: wgpu::PipelineCache,
    file: PathBuf,
    /// Check sum of what is in the file.
    kept: Mutex<u64>,
}

fn check_sum(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// The driver's data of a file, if all of it is as it was written.
fn read(file: &Path) -> Option<(u64, Vec<u8>)> {
    let mut bytes = std::fs::read(file).ok()?;
    let sum = u64::from_le_bytes(bytes.first_chunk::<HEAD>().copied()?);
    bytes.drain(..HEAD);
    (check_sum(&bytes) == sum).then_some((sum, bytes))
}

/// Writes under a temporary name, then renames: a program that starts meanwhile reads all or nothing. Makes the folder.
///
/// # Errors
/// What the system says.
pub fn write_whole(file: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut part = tempfile::NamedTempFile::new_in(folder)?;
    parts.iter().try_for_each(|bytes| part.write_all(bytes))?;
    part.persist(file)?;
    Ok(())
}

impl PipelineCache {
    pub(super) fn open(folder: &Path, info: &wgpu::AdapterInfo, device: &wgpu::Device) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let file = folder.join(wgpu::util::pipeline_cache_key(info)?);
        let (kept, data) = read(&file).unwrap_or_default();
        let descriptor = wgpu::PipelineCacheDescriptor {
            label: Some("yolo-lat"),
            data: (!data.is_empty()).then_some(&data),
            fallback: true,
        };
        // SAFETY: the data is empty or, by its check sum, what `get_data` gave an earlier run of this program; wgpu
        // and the driver check that it was the same device and version.
        #[allow(unsafe_code, reason = "wgpu cannot know where the data comes from")]
        let cache = unsafe { device.create_pipeline_cache(&descriptor) };
        Some(Self { cache, file, kept: Mutex::new(kept) })
    }

    pub(super) fn handle(&self) -> &wgpu::PipelineCache {
        &self.cache
    }

    /// Writes the file where there is something new. A cache that cannot be kept costs only time.
    pub(super) fn keep(&self) {
        let Some(data) = self.cache.get_data() else { return };
        let sum = check_sum(&data);
        let mut kept = self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *kept == sum {
            return;
        }
        match write_whole(&self.file, &[&sum.to_le_bytes(), &data]) {
            Ok(()) => *kept = sum,
            Err(error) => log::debug!("{}: cannot be written: {error}", self.file.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_not_given_to_the_driver() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cache");
        let data = [1u8, 2, 3, 4];
        write_whole(&file, &[&check_sum(&data).to_le_bytes(), &data]).unwrap();
        let bytes = std::fs::read(&file).unwrap();
        assert_eq!(read(&file).unwrap().1, data);
        for damaged in [&bytes[..10], &bytes[1..], &[]] {
            std::fs::write(&file, damaged).unwrap();
            assert!(read(&file).is_none());
        }
        assert!(read(&folder.path().join("none")).is_none());
    }
}
