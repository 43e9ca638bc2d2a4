//! What the window remembers from one time to the next.

use std::path::{Path, PathBuf};

use eframe::egui;
use serde::{Deserialize, Serialize};

use crate::live::Settings;
use yolo_lat::InputSize;
use yolo_lat::engine::EngineKind;
use yolo_lat::model::default_confidence;
use yolo_lat_io::sink::{SinkError, write_atomically};

/// Kept as JSON in the user's configuration folder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Preferences {
    theme: String,
    model: Option<String>,
    engine: Option<String>,
    size: Option<usize>,
    square: bool,
    confidence: Option<f32>,
    iou: Option<f32>,
    track: Option<bool>,
    classes: Vec<String>,
}

const ENGINES: [EngineKind; 4] = [EngineKind::Auto, EngineKind::Cpu, EngineKind::Gpu, EngineKind::Ort];

impl Preferences {
    /// The customary file; `None` without a home folder.
    pub fn default_file() -> Option<PathBuf> {
        Some(dirs::config_dir()?.join("yolo-lat").join("live.json"))
    }

    /// The customary file of zones and lines; `None` without a home folder.
    pub fn zones_file() -> Option<PathBuf> {
        Some(Self::default_file()?.with_file_name("zones.toml"))
    }

    /// Reads the file. One that is missing or damaged means the customary settings.
    pub fn load(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Writes the file.
    ///
    /// # Errors
    /// [`SinkError`] names it.
    pub fn save(&self, file: &Path) -> Result<(), SinkError> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        write_atomically(file, |target| std::io::Write::write_all(target, text.as_bytes()))
    }

    /// Puts what is remembered into the settings.
    pub(super) fn apply(&self, settings: &mut Settings) {
        if let Some(model) = &self.model {
            settings.model.clone_from(model);
        }
        if let Some(engine) = ENGINES.into_iter().find(|engine| Some(engine.to_string()) == self.engine) {
            settings.detector.engine = engine;
        }
        let size = self.size.filter(|size| size.is_multiple_of(32) && (32..=4096).contains(size));
        settings.detector.size = if self.square { InputSize::Square(size) } else { InputSize::Budget(size) };
        let share = |value: Option<f32>| value.filter(|share| (0.0..=1.0).contains(share));
        let confidence = share(self.confidence).unwrap_or_else(|| default_confidence(&settings.model));
        settings.detector.postprocess.confidence = confidence;
        if let Some(iou) = share(self.iou) {
            settings.detector.postprocess.iou = iou;
        }
        settings.follow.track = self.track.unwrap_or(settings.follow.track);
        settings.classes.clone_from(&self.classes);
    }

    pub(super) fn take(&mut self, settings: &Settings) {
        self.model = Some(settings.model.clone());
        self.engine = Some(settings.detector.engine.to_string());
        (self.size, self.square) = match settings.detector.size {
            InputSize::Budget(side) => (side, false),
            InputSize::Square(side) => (side, true),
            // For this time only.
            InputSize::Fixed(..) => (self.size, self.square),
        };
        // What nobody moved follows the model.
        let confidence = settings.detector.postprocess.confidence;
        self.confidence = (confidence != default_confidence(&settings.model)).then_some(confidence);
        self.iou = Some(settings.detector.postprocess.iou);
        self.track = Some(settings.follow.track);
        self.classes.clone_from(&settings.classes);
    }

    pub(super) fn theme(&self) -> egui::ThemePreference {
        match self.theme.as_str() {
            "light" => egui::ThemePreference::Light,
            "system" => egui::ThemePreference::System,
            _ => egui::ThemePreference::Dark,
        }
    }

    pub(super) fn set_theme(&mut self, theme: egui::ThemePreference) {
        self.theme = match theme {
            egui::ThemePreference::Light => "light",
            egui::ThemePreference::System => "system",
            egui::ThemePreference::Dark => "dark",
        }
        .into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yolo_lat_io::follow::FollowOptions;

    #[test]
    fn settings_come_back_and_damage_means_the_usual() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new folder/live.json");
        let mut settings = Settings {
            model: "s".into(),
            detector: yolo_lat::DetectorOptions { size: InputSize::Square(Some(416)), ..Default::default() },
            classes: vec!["cat".into()],
            class_confidence: Vec::new(),
            least_size: Vec::new(),
            follow: FollowOptions { track: true, ..FollowOptions::default() },
            probe: None,
        };
        settings.detector.postprocess.confidence = 0.43;
        settings.detector.engine = EngineKind::Cpu;
        let mut kept = Preferences::default();
        kept.take(&settings);
        kept.set_theme(egui::ThemePreference::Light);
        kept.save(&file).unwrap();
        let loaded = Preferences::load(&file);
        assert_eq!((&loaded, loaded.theme()), (&kept, egui::ThemePreference::Light));
        let usual = Settings {
            model: "n".into(),
            detector: yolo_lat::DetectorOptions::default(),
            classes: vec![],
            class_confidence: Vec::new(),
            least_size: Vec::new(),
            follow: FollowOptions::default(),
            probe: None,
        };
        let mut restored = usual.clone();
        loaded.apply(&mut restored);
        assert_eq!(restored, settings);
        std::fs::write(&file, "{ damaged").unwrap();
        let mut restored = usual.clone();
        Preferences::load(&file).apply(&mut restored);
        let mut expected = usual;
        expected.detector.postprocess.confidence = default_confidence("n");
        assert_eq!(restored, expected);
    }
}
