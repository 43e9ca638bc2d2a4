//! Images in memory, and what augmentation makes of them. Every sample follows from a seed alone, so that a resumed
//! run sees what an uninterrupted one would have seen.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use image::RgbImage;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use yolo_lat::eval::{Dataset, Split};
use yolo_lat::geometry::{BBox, Letterbox};
use yolo_lat::model::classes::{class_map, find_class};
use yolo_lat::source::{Found, Prefetch, files_in, is_image, open_image};

/// An object that is smaller or more cut off than this teaches nothing: pixels, share of its area.
const SMALLEST_SIDE: f32 = 2.0;
const SMALLEST_SHARE: f32 = 0.2;

/// How strongly samples are changed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Augmentation {
    /// Least and largest scale, relative to the letterbox.
    pub(crate) scale: [f32; 2],
    /// How far from the middle an image may lie: 0 not at all, 1 as far as the free room lets it.
    pub(crate) translate: f32,
    /// Largest change of the aspect ratio, as a share.
    pub(crate) aspect: f32,
    /// Probability of mirroring.
    pub(crate) flip: f32,
    /// Largest change of hue (turns), saturation and value (shares).
    pub(crate) hsv: [f32; 3],
    /// Probability of a mosaic of four images.
    pub(crate) mosaic: f32,
    /// Probability of mixing two samples pixel by pixel, in shares of 0.4 to 0.6 (Zhang et al. 2018).
    pub(crate) mixup: f32,
}

impl Default for Augmentation {
    fn default() -> Self {
        Self {
            scale: [0.5, 1.5],
            translate: 1.0,
            aspect: 0.2,
            flip: 0.5,
            hsv: [0.015, 0.6, 0.4],
            mosaic: 0.5,
            mixup: 0.0,
        }
    }
}

impl Augmentation {
    /// What is left for the last epochs: the images as the detector will see them, mirrored or not.
    pub(crate) fn gentle() -> Self {
        Self { scale: [1.0, 1.0], translate: 0.0, aspect: 0.0, flip: 0.5, hsv: [0.0; 3], mosaic: 0.0, mixup: 0.0 }
    }
}

/// A box to learn: a label, or what a teacher said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    /// In pixels of the image or of the sample.
    pub(crate) bbox: BBox,
    /// The class; of a teacher's box the likeliest.
    pub(crate) class: usize,
    /// A teacher's probabilities of all classes; none for a label.
    pub(crate) scores: Option<Arc<[f32]>>,
    /// Which teacher.
    pub(crate) teacher: usize,
}

impl Target {
    /// What a person or a file says for sure.
    pub(crate) fn label(class: usize, bbox: BBox) -> Self {
        Self { bbox, class, scores: None, teacher: 0 }
    }
}

/// An image with the classes of the model.
pub(crate) struct TrainingImage {
    pub(crate) path: PathBuf,
    pub(crate) pixels: RgbImage,
    pub(crate) targets: Vec<Target>,
    /// Whether a person looked at it: without labels, a teacher's surest boxes stand for them.
    pub(crate) is_labelled: bool,
    /// Classes of the model that its data set does not label: they may be there all the same.
    pub(crate) unknown: Arc<[usize]>,
}

/// A part of a sample in which some classes are not labelled.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Region {
    /// In pixels of the sample.
    pub(crate) area: BBox,
    /// Which classes; at least one.
    pub(crate) unknown: Arc<[usize]>,
}

/// A training image: RGB planes in 0..1 of the batch's size, and the boxes in it, in its pixels.
pub(crate) struct Sample {
    pub(crate) pixels: Vec<f32>,
    pub(crate) targets: Vec<Target>,
    /// Where classes are not labelled; none where all are.
    pub(crate) regions: Vec<Region>,
}

/// A data set to learn from: a path where its weight is 1, else a table with both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "toml::Value", into = "toml::Value")]
pub(crate) struct TrainingSet {
    pub(crate) path: PathBuf,
    /// How often each of its images is seen in an epoch, above 0 and up to 1000: 2.5 is twice and, for half of them, drawn anew in each epoch,
    /// a third time; 0.25 is a quarter of them in each epoch. Partners in mosaics and mixtures are drawn by it too.
    pub(crate) weight: f64,
}

impl TrainingSet {
    /// An order of its images is made for each epoch.
    pub(crate) const MOST_WEIGHT: f64 = 1000.0;
}

impl From<PathBuf> for TrainingSet {
    fn from(path: PathBuf) -> Self {
        Self { path, weight: 1.0 }
    }
}

impl From<&str> for TrainingSet {
    fn from(path: &str) -> Self {
        PathBuf::from(path).into()
    }
}

impl TryFrom<toml::Value> for TrainingSet {
    type Error = toml::de::Error;

    fn try_from(value: toml::Value) -> Result<Self, Self::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, expecting = "a path or { path = \"...\", weight = 1.0 }")]
        struct Entry {
            path: PathBuf,
            weight: Option<f64>,
        }
        if let toml::Value::String(path) = value {
            return Ok(path.as_str().into());
        }
        let Entry { path, weight } = value.try_into()?;
        Ok(Self { path, weight: weight.unwrap_or(1.0) })
    }
}

// Settings of finished experiments have paths.
impl From<TrainingSet> for toml::Value {
    fn from(set: TrainingSet) -> Self {
        let path = Self::String(set.path.to_string_lossy().into_owned());
        if set.weight == 1.0 {
            return path;
        }
        Self::Table([("path".to_owned(), path), ("weight".to_owned(), Self::Float(set.weight))].into_iter().collect())
    }
}

/// Which images to read.
pub(crate) struct Sources<'a> {
    /// Data sets in any format that `yolo-lat eval` reads.
    pub(crate) labelled: Vec<TrainingSet>,
    /// Folders of images.
    pub(crate) unlabelled: Vec<PathBuf>,
    /// Names of the model's classes.
    pub(crate) classes: &'a [String],
    /// Classes of data sets that are called otherwise in the model.
    pub(crate) rename: &'a BTreeMap<String, String>,
    /// Only the first images of each.
    pub(crate) limit: Option<usize>,
}

/// All images of a run.
pub(crate) struct TrainingImages {
    /// Data set by data set.
    pub(crate) all: Vec<TrainingImage>,
    pub(crate) portions: Vec<Portion>,
}

/// How many of a run's images a data set has, and how often each is seen in an epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Portion {
    pub(crate) count: usize,
    /// Above 0.
    pub(crate) weight: f64,
}

impl Portion {
    /// Samples of it in an epoch, in each as many; never none where there are images.
    pub(crate) fn seen(&self) -> usize {
        ((self.count as f64 * self.weight).round() as usize).max(self.count.min(1))
    }
}

#[cfg(test)]
impl From<Vec<TrainingImage>> for TrainingImages {
    /// One data set of weight 1.
    fn from(all: Vec<TrainingImage>) -> Self {
        Self { portions: vec![Portion { count: all.len(), weight: 1.0 }], all }
    }
}

impl TrainingImages {
    /// Reads data sets and maps their classes by name; objects of other classes and crowds are left out. Files that are
    /// no images are reported to `skipped` and left out, and classes that a set does not label are counted there.
    ///
    /// # Errors
    /// A data set cannot be read, none of its classes is known, or nothing is left.
    pub(crate) fn load(sources: &Sources, mut skipped: impl FnMut(&str)) -> anyhow::Result<Self> {
        // With the numbers of their data sets; their pixels come last.
        let mut wanted: Vec<(usize, TrainingImage)> = Vec::new();
        let weights = sources.labelled.iter().map(|set| set.weight).chain(sources.unlabelled.iter().map(|_| 1.0));
        let mut portions: Vec<Portion> = weights.map(|weight| Portion { count: 0, weight }).collect();
        let pixels = RgbImage::default;
        let limit = sources.limit.unwrap_or(usize::MAX);
        for (set, TrainingSet { path: folder, .. }) in sources.labelled.iter().enumerate() {
            let mut dataset = Dataset::load(folder, Split::Prefer("train"))?;
            dataset.notes.iter().for_each(|note| skipped(note));
            dataset.faults.iter().for_each(|fault| skipped(&format!("{fault}; left out")));
            for (from, to) in sources.rename {
                let index = find_class(to, sources.classes).with_context(|| format!("rename: {from} = {to:?}"))?;
                if let Ok(class) = find_class(from, &dataset.classes) {
                    dataset.classes[class].clone_from(&sources.classes[index]);
                }
            }
            let class_of = class_map(&dataset.classes, sources.classes);
            if class_of.iter().all(Option::is_none) {
                bail!(
                    "{}: none of its classes ({}) is one of the model's; [rename] in the configuration maps names",
                    folder.display(),
                    dataset.classes.join(", ")
                );
            }
            let strangers = dataset.classes.iter().zip(&class_of).filter(|(_, class)| class.is_none());
            let strangers: Vec<&str> = strangers.map(|(name, _)| name.as_str()).collect();
            if !strangers.is_empty() {
                skipped(&format!("{}: the model lacks {}; left out", folder.display(), strangers.join(", ")));
            }
            let unknown = unknown_classes(&class_of, &dataset.labelled, sources.classes.len());
            if !unknown.is_empty() {
                let (folder, count, of) = (folder.display(), unknown.len(), sources.classes.len());
                skipped(&format!("{folder}: {count} of the model's {of} classes are not labelled there: no negatives"));
            }
            for image in dataset.images.into_iter().take(limit) {
                let objects = image.objects.iter().filter(|object| !object.crowd);
                let targets = objects.filter_map(|object| Some(Target::label(class_of[object.class]?, object.bbox)));
                let (path, targets, unknown) = (image.path, targets.collect(), unknown.clone());
                wanted.push((set, TrainingImage { path, pixels: pixels(), targets, is_labelled: true, unknown }));
            }
        }
        for (set, folder) in (sources.labelled.len()..).zip(&sources.unlabelled) {
            wanted.extend(images_in(folder)?.into_iter().take(limit).map(|path| {
                let (targets, unknown) = (Vec::new(), Arc::default());
                (set, TrainingImage { path, pixels: pixels(), targets, is_labelled: false, unknown })
            }));
        }
        let paths: Vec<PathBuf> = wanted.iter().map(|(_, image)| image.path.clone()).collect();
        let threads = yolo_lat::engine::cpu::available_threads();
        let mut loader =
            Prefetch::new(paths.len(), threads, Default::default(), move |index| open_image(&paths[index]))?;
        let mut images = Vec::new();
        for (set, image) in wanted {
            let (_, pixels) = loader.next_item().context("a thread that reads images ended")?;
            match pixels {
                Ok(pixels) => {
                    images.push(TrainingImage { pixels, ..image });
                    portions[set].count += 1;
                }
                Err(error) => skipped(&format!("{}: {error}; left out", image.path.display())),
            }
        }
        if images.is_empty() {
            bail!("no images to train on");
        }
        Ok(Self { all: images, portions })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Samples in an epoch, by the data sets' weights.
    pub(crate) fn per_epoch(&self) -> usize {
        self.portions.iter().map(Portion::seen).sum()
    }

    /// Their order in an epoch, as often as their data sets' weights say: [`TrainingImages::per_epoch`] indices. What a weight has
    /// behind the point is drawn anew in each epoch, from the seed and the epoch alone.
    pub(crate) fn order(&self, seed: u64, epoch: usize) -> Vec<usize> {
        let mut random = SmallRng::seed_from_u64(seed ^ (epoch as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let (mut order, mut first) = (Vec::with_capacity(self.per_epoch()), 0);
        for portion in self.portions.iter().filter(|portion| portion.count > 0) {
            let set = first..first + portion.count;
            let (times, rest) = (portion.seen() / portion.count, portion.seen() % portion.count);
            (0..times).for_each(|_| order.extend(set.clone()));
            // Nothing is drawn for a whole weight, so that runs without weights see what they always saw.
            if rest > 0 {
                let mut drawn: Vec<usize> = set.collect();
                order.extend_from_slice(drawn.partial_shuffle(&mut random, rest).0);
            }
            first += portion.count;
        }
        order.shuffle(&mut random);
        order
    }

    /// A random image, one of a data set as often as its weight says.
    fn any(&self, random: &mut SmallRng) -> usize {
        let mut place = random.random_range(0..self.per_epoch());
        let (mut set, mut first) = (0, 0);
        while place >= self.portions[set].seen() {
            place -= self.portions[set].seen();
            first += self.portions[set].count;
            set += 1;
        }
        let portion = self.portions[set];
        first + if portion.seen() == portion.count { place } else { random.random_range(0..portion.count) }
    }

    /// Image `index` in a sample of `size` (width, height), changed as `seed` decides.
    pub(crate) fn sample(&self, index: usize, size: (usize, usize), augmentation: &Augmentation, seed: u64) -> Sample {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut sample = self.single(index, size, augmentation, &mut random);
        // Nothing is drawn where there is no mixup, so that runs without it see what they always saw.
        if augmentation.mixup > 0.0 && random.random::<f32>() < augmentation.mixup {
            let other = self.single(self.any(&mut random), size, augmentation, &mut random);
            let share = random.random_range(0.4..=0.6f32);
            for (pixel, other) in sample.pixels.iter_mut().zip(other.pixels) {
                *pixel += (other - *pixel) * share;
            }
            sample.targets.extend(other.targets);
            sample.regions.extend(other.regions);
        }
        sample
    }

    /// One image or a mosaic of four.
    fn single(&self, index: usize, size: (usize, usize), augmentation: &Augmentation, random: &mut SmallRng) -> Sample {
        let mut canvas = Canvas::new(size);
        let (width, height) = (size.0 as f32, size.1 as f32);
        if random.random::<f32>() < augmentation.mosaic {
            let (x, y) = (random.random_range(0.3..0.7) * width, random.random_range(0.3..0.7) * height);
            for quarter in 0..4 {
                let index = if quarter == 0 { index } else { self.any(random) };
                let (right, low) = (quarter % 2 == 1, quarter / 2 == 1);
                let area = BBox {
                    x1: if right { x } else { 0.0 },
                    y1: if low { y } else { 0.0 },
                    x2: if right { width } else { x },
                    y2: if low { height } else { y },
                };
                // Each image has a corner where the four meet.
                let corner = (if right { 0.0 } else { 1.0 }, if low { 0.0 } else { 1.0 });
                canvas.place(&self.all[index], area, Some(corner), 0.7, augmentation, random);
            }
        } else {
            let area = BBox { x1: 0.0, y1: 0.0, x2: width, y2: height };
            canvas.place(&self.all[index], area, None, 1.0, augmentation, random);
        }
        canvas.recolor(augmentation.hsv, random);
        Sample { pixels: canvas.pixels, targets: canvas.targets, regions: canvas.regions }
    }
}

/// An image that is being made.
struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<f32>,
    targets: Vec<Target>,
    regions: Vec<Region>,
}

/// Those of `count` classes of a model that no labelled class of a data set is: `class_of` has for each class of the set that of
/// the model, `labelled` whether the set labels it.
fn unknown_classes(class_of: &[Option<usize>], labelled: &[bool], count: usize) -> Arc<[usize]> {
    let is_known = |class| class_of.iter().zip(labelled).any(|(&of, &labelled)| labelled && of == Some(class));
    (0..count).filter(|&class| !is_known(class)).collect()
}

/// Images of a folder by name.
fn images_in(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let Found { files: paths, errors } = files_in(folder, false, None, is_image);
    if let Some((folder, error)) = errors.into_iter().next() {
        return Err(error).with_context(|| format!("{}: cannot be read", folder.display()));
    }
    if paths.is_empty() {
        bail!("{}: no images in this folder", folder.display());
    }
    Ok(paths)
}

impl Canvas {
    fn new((width, height): (usize, usize)) -> Self {
        let pixels = vec![Letterbox::GREY; 3 * width * height];
        Self { width, height, pixels, targets: Vec::new(), regions: Vec::new() }
    }

    /// Draws an image into `area`. `corner` is the corner of the image (0 or 1 in x and y) that lies in the same
    /// corner of the area; without it the place is random. `zoom` scales on top of the augmentation.
    fn place(
        &mut self,
        image: &TrainingImage,
        area: BBox,
        corner: Option<(f32, f32)>,
        zoom: f32,
        augmentation: &Augmentation,
        random: &mut SmallRng,
    ) {
        let (width, height) = (image.pixels.width() as f32, image.pixels.height() as f32);
        let fit = (self.width as f32 / width).min(self.height as f32 / height);
        let scale = fit * zoom * random.random_range(augmentation.scale[0]..=augmentation.scale[1]);
        let stretch = 1.0 + random.random_range(-1.0..=1.0) * augmentation.aspect;
        let (scale_x, scale_y) = (scale * stretch.sqrt(), scale / stretch.sqrt());
        let flip = random.random::<f32>() < augmentation.flip;
        let (drawn_w, drawn_h) = (width * scale_x, height * scale_y);
        let (left, top) = match corner {
            Some((x, y)) => (area.x1 + x * (area.width() - drawn_w), area.y1 + y * (area.height() - drawn_h)),
            None if augmentation.translate == 0.0 => ((area.width() - drawn_w) / 2.0, (area.height() - drawn_h) / 2.0),
            None => {
                let mut place = |room: f32| (0.5 + (random.random::<f32>() - 0.5) * augmentation.translate) * room;
                (area.x1 + place(area.width() - drawn_w), area.y1 + place(area.height() - drawn_h))
            }
        };
        let drawn = BBox { x1: left, y1: top, x2: left + drawn_w, y2: top + drawn_h };
        self.draw(&image.pixels, drawn, area, flip);
        if !image.unknown.is_empty() {
            self.regions.push(Region { area, unknown: image.unknown.clone() });
        }
        for target in &image.targets {
            let bbox = target.bbox;
            let (x1, x2) = if flip { (width - bbox.x2, width - bbox.x1) } else { (bbox.x1, bbox.x2) };
            let whole = BBox {
                x1: left + x1 * scale_x,
                y1: top + bbox.y1 * scale_y,
                x2: left + x2 * scale_x,
                y2: top + bbox.y2 * scale_y,
            };
            let seen = BBox {
                x1: whole.x1.clamp(area.x1, area.x2),
                y1: whole.y1.clamp(area.y1, area.y2),
                x2: whole.x2.clamp(area.x1, area.x2),
                y2: whole.y2.clamp(area.y1, area.y2),
            };
            let large = seen.width() > SMALLEST_SIDE && seen.height() > SMALLEST_SIDE;
            if large && seen.area() > SMALLEST_SHARE * whole.area() {
                self.targets.push(Target { bbox: seen, ..target.clone() });
            }
        }
    }

    /// Bilinear copy of `image`, scaled to `drawn`, as far as it lies in `area`.
    fn draw(&mut self, image: &RgbImage, drawn: BBox, area: BBox, flip: bool) {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let range = |low: f32, high: f32, end: usize| (low.max(0.0).round() as usize)..(high.round() as usize).min(end);
        let columns = range(drawn.x1.max(area.x1), drawn.x2.min(area.x2), self.width);
        let rows = range(drawn.y1.max(area.y1), drawn.y2.min(area.y2), self.height);
        // Source position of a target pixel's centre: lower index, its neighbour, share of the neighbour.
        let source = |target: usize, start: f32, extent: f32, count: usize| {
            let at = ((target as f32 + 0.5 - start) / extent * count as f32 - 0.5).clamp(0.0, (count - 1) as f32);
            let low = at as usize;
            (low, (low + 1).min(count - 1), at - low as f32)
        };
        let across: Vec<_> = columns
            .clone()
            .map(|column| {
                let (low, high, share) = source(column, drawn.x1, drawn.width(), width);
                if flip { (width - 1 - low, width - 1 - high, share) } else { (low, high, share) }
            })
            .collect();
        let bytes = image.as_raw();
        for row in rows {
            let (above, below, share_y) = source(row, drawn.y1, drawn.height(), height);
            for (column, &(a, b, share_x)) in columns.clone().zip(&across) {
                for channel in 0..3 {
                    let at = |y: usize, x: usize| f32::from(bytes[(y * width + x) * 3 + channel]);
                    let upper = at(above, a) + (at(above, b) - at(above, a)) * share_x;
                    let lower = at(below, a) + (at(below, b) - at(below, a)) * share_x;
                    self.pixels[(channel * self.height + row) * self.width + column] =
                        (upper + (lower - upper) * share_y) / 255.0;
                }
            }
        }
    }

    /// Turns hue, stretches saturation and value.
    fn recolor(&mut self, [hue, saturation, value]: [f32; 3], random: &mut SmallRng) {
        let mut change = |most: f32| random.random_range(-1.0..=1.0) * most;
        let (turn, saturate, brighten) =
            (change(hue) * std::f32::consts::TAU, 1.0 + change(saturation), 1.0 + change(value));
        if (turn, saturate, brighten) == (0.0, 1.0, 1.0) {
            return;
        }
        let (red, rest) = self.pixels.split_at_mut(self.width * self.height);
        let (green, blue) = rest.split_at_mut(self.width * self.height);
        let (sin, cos) = turn.sin_cos();
        for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
            // Luma and two chroma axes (YIQ): a turn of the chroma plane is a change of hue.
            let y = 0.299 * *r + 0.587 * *g + 0.114 * *b;
            let i = (0.596 * *r - 0.274 * *g - 0.322 * *b) * saturate;
            let q = (0.211 * *r - 0.523 * *g + 0.312 * *b) * saturate;
            let (i, q) = (i * cos - q * sin, i * sin + q * cos);
            *r = ((y + 0.956 * i + 0.621 * q) * brighten).clamp(0.0, 1.0);
            *g = ((y - 0.272 * i - 0.647 * q) * brighten).clamp(0.0, 1.0);
            *b = ((y - 1.106 * i + 1.703 * q) * brighten).clamp(0.0, 1.0);
        }
    }
}

#[cfg(test)]
mod tests;
