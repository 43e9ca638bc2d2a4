//! Label Studio: tasks with predictions, which people there see as pre-annotations.
//!
//! <https://labelstud.io/guide/predictions>

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use serde_json::json;

use super::json::JsonArray;
use super::{Item, OutputFolder, Sink, SinkError, Target, name_of};

/// One JSON array with a task an image. With a folder also `label-studio.xml`, the labelling interface that belongs to it.
pub struct LabelStudioSink {
    array: JsonArray,
    folder: Option<OutputFolder>,
    options: LabelStudioOptions,
}

/// What tasks say besides the boxes.
#[derive(Clone, Debug)]
pub struct LabelStudioOptions {
    /// What stands before the images' names, so that Label Studio finds them.
    pub url: String,
    /// Who made the predictions.
    pub model: String,
    /// Names of all classes.
    pub classes: Vec<String>,
}

impl LabelStudioSink {
    /// Writes tasks to `target` and the interface into `folder`.
    pub fn new(target: Target, folder: Option<OutputFolder>, options: LabelStudioOptions) -> Self {
        Self { array: JsonArray::new(target), folder, options }
    }
}

impl Sink for LabelStudioSink {
    fn write(&mut self, item: Item) -> Result<(), SinkError> {
        let record = item.record;
        let (width, height) = (record.width, record.height);
        let percent = |pixels: f32, side: u32| 100.0 * f64::from(pixels) / f64::from(side);
        let region = |(index, detection): (usize, &super::NamedDetection)| {
            let [x, y, w, h] = detection.bbox.xywh();
            json!({
                "id": format!("box{index}"), "type": "rectanglelabels", "from_name": "label", "to_name": "image",
                "original_width": width, "original_height": height, "image_rotation": 0, "score": detection.confidence,
                "value": {
                    "x": percent(x, width), "y": percent(y, height), "width": percent(w, width),
                    "height": percent(h, height), "rotation": 0, "rectanglelabels": [detection.name],
                },
            })
        };
        let regions: Vec<_> = record.detections.iter().enumerate().map(region).collect();
        // Tasks are sorted by it: what the model is least sure of is looked at first.
        let score = record.detections.iter().map(|detection| detection.confidence).reduce(f32::min);
        let url = format!("{}{}", self.options.url, escape(&name_of(&item.image_name())));
        let task = json!({
            "data": { "image": url },
            "predictions": [{ "model_version": self.options.model, "score": score.unwrap_or(0.0), "result": regions }],
        });
        self.array.push(&task.to_string())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        if let Some(folder) = &self.folder {
            let mut labels = String::new();
            for name in &self.options.classes {
                // Writing to a String cannot fail.
                let _ = writeln!(labels, "    <Label value=\"{}\"/>", quick_xml::escape::escape(name.as_str()));
            }
            folder.write(Path::new("label-studio.xml"), |file| {
                writeln!(file, "<View>\n  <Image name=\"image\" value=\"$image\"/>")?;
                writeln!(file, "  <RectangleLabels name=\"label\" toName=\"image\">")?;
                file.write_all(super::voc::without_control_characters(&labels).as_bytes())?;
                writeln!(file, "  </RectangleLabels>\n</View>")
            })?;
        }
        self.array.finish()
    }
}

/// A path in a URL: what is no letter, digit or one of `-._~/` as percent and two digits.
fn escape(path: &str) -> String {
    path.bytes().fold(String::new(), |mut url, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            url.push(char::from(byte));
        } else {
            let _ = write!(url, "%{byte:02X}");
        }
        url
    })
}
