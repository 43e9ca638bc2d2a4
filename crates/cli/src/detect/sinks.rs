//! Which exporters a run writes to.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde::Deserialize;
use yolo_lat::batch::Input;
use yolo_lat::follow::FollowOptions;
use yolo_lat::model::classes::{COCO, class_map};
use yolo_lat::sink::{
    CocoSink, CropSink, CsvColumns, CsvSink, CvatSink, EarlierResults, ImageIds, ImageSink, JsonLinesSink, JsonSink,
    LabelStudioOptions, LabelStudioSink, MotSink, OutputFolder, Sink, SinkError, Target, TextSink, VocSink, YoloSink,
    coco_category_ids,
};
use yolo_lat::source::holds_video;

use super::ResultArguments;
use super::report;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A readable line an image
    Text,
    /// One JSON array
    Json,
    /// One JSON object a line
    Jsonl,
    /// One row a detection
    Csv,
    /// Label files as YOLO reads them, data.yaml and classes.txt (needs -o)
    Yolo,
    /// XML files as PASCAL VOC has them (needs -o)
    Voc,
    /// COCO results, for pycocotools and `eval --detections`
    Coco,
    /// Tasks with predictions; with -o also the labelling interface
    LabelStudio,
    /// CVAT for images 1.1
    Cvat,
    /// MOTChallenge's text for each video, for `eval --tracks` and trackeval (needs -o)
    Mot,
}

impl Format {
    /// What a run with `-o` writes, as far as it is not for each image.
    fn file(self) -> Option<&'static str> {
        match self {
            Self::Json => Some("results.json"),
            Self::Jsonl => Some("results.jsonl"),
            Self::Csv => Some("results.csv"),
            Self::Coco => Some("coco.json"),
            Self::LabelStudio => Some("label-studio.json"),
            Self::Cvat => Some("cvat.xml"),
            Self::Text | Self::Yolo | Self::Voc | Self::Mot => None,
        }
    }
}

/// Facts of a run that exporters need.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) classes: &'a [String],
    pub(super) model: &'a str,
    /// All there are, those of other shards too: names, numbers and columns are the same in every shard.
    pub(super) inputs: &'a [Input],
    pub(super) follow: &'a FollowOptions,
}

/// What is written.
pub(super) struct Outputs {
    arguments: ResultArguments,
    quiet: bool,
}

impl Outputs {
    /// Checks what can be combined.
    pub(super) fn new(arguments: &ResultArguments, quiet: bool) -> anyhow::Result<Self> {
        let mut arguments = arguments.clone();
        if arguments.format.is_empty() {
            arguments.format.push(Format::Text);
        }
        let has = |format: Format| arguments.format.contains(&format);
        if arguments.label_conf && !has(Format::Yolo) {
            bail!("--label-conf belongs to -f yolo");
        }
        if arguments.categories.is_some() && !has(Format::Coco) {
            bail!("--categories belongs to -f coco");
        }
        if arguments.output.is_none() {
            if arguments.draws() || arguments.save_crops || arguments.images.is_some() {
                bail!("--save-images, --save-crops and --images need a folder: add -o DIR");
            }
            if let Some(format) =
                arguments.format.iter().find(|format| matches!(format, Format::Yolo | Format::Voc | Format::Mot))
            {
                let each = if *format == Format::Mot { "video" } else { "image" };
                bail!("--format {} writes a file for each {each}: add -o DIR", format!("{format:?}").to_lowercase());
            }
            if arguments.format.len() > 1 {
                bail!("standard output carries one format: give --format once, or add -o DIR to write files");
            }
        }
        Ok(Self { arguments, quiet })
    }

    fn has(&self, format: Format) -> bool {
        self.arguments.format.contains(&format)
    }

    /// Where images with boxes go: `images` holds the images themselves where the folder is a data set.
    fn annotated(&self) -> &'static str {
        if self.has(Format::Yolo) || self.arguments.images.is_some() { "annotated" } else { "images" }
    }

    /// Files and folders that this run writes.
    fn places(&self) -> Vec<&'static str> {
        let yolo = ["labels", "data.yaml", "classes.txt"].into_iter().filter(|_| self.has(Format::Yolo));
        let files = self.arguments.format.iter().filter_map(|format| format.file());
        let others = [
            ("voc", self.has(Format::Voc)),
            ("mot", self.has(Format::Mot)),
            ("label-studio.xml", self.has(Format::LabelStudio)),
            (self.annotated(), self.arguments.draws()),
            ("images", self.arguments.images.is_some()),
            ("crops", self.arguments.save_crops),
        ];
        yolo.chain(files).chain(others.into_iter().filter(|(_, written)| *written).map(|(place, _)| place)).collect()
    }

    /// Opens the folder. Results of an earlier run go, unless it is resumed; what somebody else has put there stops the run.
    pub(super) fn folder(&self, run: &Run) -> anyhow::Result<Option<OutputFolder>> {
        let Some(root) = &self.arguments.output else { return Ok(None) };
        let inputs: HashSet<PathBuf> = run.inputs.iter().filter_map(|input| input.path.canonicalize().ok()).collect();
        if !self.arguments.resume {
            let earlier = EarlierResults::find(root, &self.places(), &inputs);
            let is_input = |path: &&PathBuf| root.join(path).canonicalize().is_ok_and(|path| inputs.contains(&path));
            let own = earlier.own.iter().chain(&earlier.changed);
            // A link to an input is no input.
            if let Some(path) = own.filter(|path| !root.join(path).is_symlink()).find(is_input) {
                let path = root.join(path);
                bail!(
                    "{}: is a result of an earlier run into the same folder and an input of this one; use another folder",
                    path.display()
                );
            }
            let count = |paths: &std::collections::BTreeSet<PathBuf>| match (paths.first(), paths.len()) {
                (Some(first), 1) => format!("{}", first.display()),
                (Some(first), count) => format!("{} and {} more", first.display(), count - 1),
                (None, _) => String::new(),
            };
            if !self.arguments.overwrite && !earlier.changed.is_empty() {
                let changed = count(&earlier.changed);
                bail!(
                    "{}: {changed}: changed since an earlier run wrote it; use another folder, or --overwrite",
                    root.display()
                );
            }
            if !self.arguments.overwrite && !earlier.others.is_empty() {
                bail!(
                    "{}: {}: not written by yolo-lat, and could be taken for results of this run; use another folder, \
                     or --overwrite",
                    root.display(),
                    count(&earlier.others)
                );
            }
            let (replaced, others) = (earlier.own.len() + earlier.changed.len(), earlier.others.len());
            if replaced > 0 {
                report(&format!("yolo-lat: {}: {replaced} files of an earlier run are replaced", root.display()));
            }
            if others > 0 {
                report(&format!("yolo-lat: {}: {others} files of somebody else are there too", root.display()));
            }
            earlier.remove_own(root)?;
        }
        Ok(Some(OutputFolder::open(root, inputs)?))
    }

    /// The COCO id of each class; says where they come from.
    pub(super) fn categories(&self, run: &Run) -> anyhow::Result<Vec<Option<u64>>> {
        if !self.has(Format::Coco) {
            return Ok(Vec::new());
        }
        let (ids, origin) = match &self.arguments.categories {
            Some(path) => (categories_of_file(path, run.classes)?, format!("those of {}", path.display())),
            None => {
                let own = class_map(run.classes, &COCO.map(str::to_owned));
                if own.len() == COCO.len() && own.iter().all(Option::is_some) {
                    let ids: Vec<u64> = coco_category_ids().collect();
                    (own.into_iter().map(|class| class.map(|class| ids[class])).collect(), "COCO's own, 1 to 90".into())
                } else {
                    let ids = (1..=run.classes.len() as u64).map(Some).collect();
                    (ids, format!("1 to {}, in the order of the model's classes", run.classes.len()))
                }
            }
        };
        let without = run.classes.iter().zip(&ids).filter(|(_, id)| id.is_none()).map(|(name, _)| name.as_str());
        let without: Vec<&str> = without.collect();
        if !without.is_empty() {
            report(&format!("yolo-lat: -f coco leaves out classes without a category: {}", without.join(", ")));
        }
        if !self.quiet {
            report(&format!("yolo-lat: category ids of -f coco: {origin}"));
        }
        Ok(ids)
    }

    /// Makes the exporters. Without a folder the one format goes to standard output; with one, text does and the
    /// others become files.
    pub(super) fn open(
        &self,
        folder: Option<&OutputFolder>,
        run: &Run,
        categories: Vec<Option<u64>>,
    ) -> Result<Vec<Box<dyn Sink>>, SinkError> {
        let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
        let formats = &self.arguments.format;
        // Asked only where it matters: it opens every file.
        let has_videos = || run.inputs.iter().any(|input| holds_video(&input.path));
        for (index, &format) in formats.iter().enumerate() {
            if formats[..index].contains(&format) || (format == Format::Text && self.quiet && folder.is_some()) {
                continue;
            }
            let target = || match (folder, format.file()) {
                (Some(folder), Some(name)) => folder.target(name),
                _ => Ok(Target::stdout()),
            };
            match format {
                Format::Text => sinks.push(Box::new(TextSink::new(target()?))),
                Format::Json => sinks.push(Box::new(JsonSink::new(target()?))),
                Format::Jsonl => sinks.push(Box::new(JsonLinesSink::new(target()?))),
                Format::Csv => {
                    let (videos, tracks, zones) = (has_videos(), run.follow.track, !run.follow.zones.is_empty());
                    sinks.push(Box::new(CsvSink::new(target()?, CsvColumns { videos, tracks, zones })));
                }
                Format::Coco => {
                    let ids = ImageIds::new(run.inputs.iter().map(|input| input.stem.as_path()));
                    sinks.push(Box::new(CocoSink::new(target()?, ids, categories.clone())));
                }
                Format::LabelStudio => {
                    let options = LabelStudioOptions {
                        url: self.arguments.image_url.clone(),
                        model: run.model.to_owned(),
                        classes: run.classes.to_vec(),
                    };
                    sinks.push(Box::new(LabelStudioSink::new(target()?, folder.cloned(), options)));
                }
                Format::Cvat => {
                    let is_one_video = run.inputs.len() == 1 && has_videos();
                    sinks.push(Box::new(CvatSink::new(target()?, run.classes, is_one_video)));
                }
                Format::Mot => {
                    sinks.extend(folder.map(|folder| Box::new(MotSink::new(folder.clone())) as Box<dyn Sink>))
                }
                Format::Yolo | Format::Voc => {}
            }
        }
        sinks.extend(self.per_image(folder, run));
        Ok(sinks)
    }

    /// The exporters that write files of their own for each image. Making them touches no file.
    pub(super) fn per_image(&self, folder: Option<&OutputFolder>, run: &Run) -> Vec<Box<dyn Sink>> {
        let Some(folder) = folder else { return Vec::new() };
        let arguments = &self.arguments;
        let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
        if self.has(Format::Yolo) {
            sinks.push(Box::new(YoloSink::new(folder.clone(), run.classes.to_vec(), arguments.label_conf)));
        }
        if self.has(Format::Voc) {
            sinks.push(Box::new(VocSink::new(folder.clone())));
        }
        #[cfg(feature = "plot")]
        if arguments.draws() {
            let (zones, lines) = (run.follow.zones.clone(), run.follow.lines.clone());
            let drawing = yolo_lat::sink::DrawOptions { zones, lines, ..arguments.drawing() };
            sinks.push(Box::new(yolo_lat::sink::AnnotatedSink::new(folder.clone(), self.annotated(), drawing)));
        }
        if arguments.save_crops {
            sinks.push(Box::new(CropSink::new(folder.clone(), run.classes)));
        }
        if let Some(images) = arguments.images {
            sinks.push(Box::new(ImageSink::new(folder.clone(), "images", images.into())));
            if self.has(Format::Voc) {
                sinks.push(Box::new(ImageSink::new(folder.clone(), "voc", images.into())));
            }
        }
        sinks
    }
}

/// Ids of a COCO file's categories for the classes that have their names.
fn categories_of_file(path: &Path, classes: &[String]) -> anyhow::Result<Vec<Option<u64>>> {
    #[derive(Deserialize)]
    struct Labels {
        categories: Vec<Category>,
    }
    #[derive(Deserialize)]
    struct Category {
        id: u64,
        name: String,
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("--categories {}", path.display()))?;
    let text = text.trim_start_matches('\u{FEFF}');
    let labels: Labels = serde_json::from_str(text)
        .with_context(|| format!("--categories {}: no COCO file with categories", path.display()))?;
    let names: Vec<String> = labels.categories.iter().map(|category| category.name.clone()).collect();
    let found = class_map(classes, &names);
    if found.iter().all(Option::is_none) {
        bail!(
            "--categories {}: none of its categories ({}) is a class of the model ({})",
            path.display(),
            names.join(", "),
            classes.join(", ")
        );
    }
    Ok(found.into_iter().map(|category| category.map(|category| labels.categories[category].id)).collect())
}
