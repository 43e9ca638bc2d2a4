//! Tracks against the truth, in the measures of MOTChallenge: MOTA (Bernardin and Stiefelhagen 2008), IDF1 (Ristani et al. 2016) and
//! HOTA (Luiten et al. 2021).

mod clear;
mod hota;
mod identity;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::AddAssign;
use std::path::{Path, PathBuf};

pub use self::clear::Clear;
pub use self::hota::{Hota, Overlap};
pub use self::identity::Identity;
use crate::labels::Fault;
use crate::labels::files::{entries_of, stem_of};
use crate::labels::mot::{self, Row};
use yolo_lat_core::track::assign;

/// Least IoU of a match where one is decided on.
const LEAST: f64 = 0.5;
/// What a comparison of numbers allows for.
const EPSILON: f64 = f64::EPSILON;
/// Classes of MOTChallenge that look like pedestrians and are none: on a vehicle, static, a distractor, a reflection.
const DISTRACTORS: [u32; 4] = [2, 7, 8, 12];

/// Numbers of a sequence's results, or the sums of several: then all measures are of all frames together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrackScores {
    /// Objects in the truth, and tracks in the results.
    pub objects: u64,
    /// See `objects`.
    pub tracks: u64,
    /// Matches frame by frame.
    pub clear: Clear,
    /// One track for each object.
    pub identity: Identity,
    /// Detection and association alike.
    pub hota: Hota,
}

impl AddAssign<&TrackScores> for TrackScores {
    fn add_assign(&mut self, other: &Self) {
        self.objects += other.objects;
        self.tracks += other.tracks;
        self.clear += &other.clear;
        self.identity += &other.identity;
        self.hota += &other.hota;
    }
}

/// A sequence with its results, as it is measured.
#[derive(Clone, Debug, Default)]
struct Sequence {
    /// How many different ones there are.
    objects: usize,
    tracks: usize,
    frames: Vec<Frame>,
}

/// Objects and tracks of a frame by their places among all of the sequence, and the IoU of each pair.
#[derive(Clone, Debug, Default)]
struct Frame {
    objects: Vec<usize>,
    tracks: Vec<usize>,
    iou: Vec<f64>,
}

impl Frame {
    fn iou(&self, object: usize, track: usize) -> f64 {
        self.iou[object * self.tracks.len() + track]
    }

    /// Places in `objects` and `tracks` with the largest sum of scores.
    fn pairs(&self, score: &dyn Fn(usize, usize) -> f64) -> Vec<(usize, usize)> {
        let all = |count: usize| (0..count).collect::<Vec<_>>();
        assign(&all(self.objects.len()), &all(self.tracks.len()), 0.0, score)
    }
}

impl Sequence {
    /// Prepares rows as MOTChallenge does: tracks on what only looks like an object do not count, nor do objects that are not marked or
    /// of another class.
    fn new(truth: &[Row], found: &[Row]) -> Self {
        let mut frames: BTreeMap<u64, [Vec<&Row>; 2]> = BTreeMap::new();
        for (side, rows) in [truth, found].into_iter().enumerate() {
            rows.iter().for_each(|row| frames.entry(row.frame).or_default()[side].push(row));
        }
        let (mut objects, mut tracks) = (HashMap::new(), HashMap::new());
        let mut place = |of_track: bool, id: u64| {
            let places = if of_track { &mut tracks } else { &mut objects };
            let next = places.len();
            *places.entry(id).or_insert(next)
        };
        let mut sequence = Self::default();
        for [truth, mut found] in frames.into_values() {
            let on_distractor = on_distractors(&truth, &found);
            found.retain(|row| !on_distractor.contains(&row.id));
            let truth: Vec<_> = truth.into_iter().filter(|row| !row.unmarked && row.class == mot::MEASURED).collect();
            sequence.frames.push(Frame {
                iou: truth.iter().flat_map(|a| found.iter().map(|b| f64::from(a.bbox.iou(&b.bbox)))).collect(),
                objects: truth.iter().map(|row| place(false, row.id)).collect(),
                tracks: found.iter().map(|row| place(true, row.id)).collect(),
            });
        }
        Self { objects: objects.len(), tracks: tracks.len(), ..sequence }
    }

    fn measure(&self) -> TrackScores {
        TrackScores {
            objects: self.objects as u64,
            tracks: self.tracks as u64,
            clear: Clear::of(self),
            identity: Identity::of(self),
            hota: Hota::of(self),
        }
    }
}

/// Tracks of a frame that lie on distractors rather than on objects.
fn on_distractors(truth: &[&Row], found: &[&Row]) -> HashSet<u64> {
    let all = |count: usize| (0..count).collect::<Vec<_>>();
    let pairs = assign(&all(truth.len()), &all(found.len()), 0.0, &|object, track| {
        let iou = f64::from(truth[object].bbox.iou(&found[track].bbox));
        if iou < LEAST - EPSILON { 0.0 } else { iou }
    });
    let pairs = pairs.into_iter().filter(|&(object, _)| DISTRACTORS.contains(&truth[object].class));
    pairs.map(|(_, track)| found[track].id).collect()
}

/// Measures results in MOTChallenge's text against the truth, a sequence at a time. `truth` is a file of one sequence (`gt.txt`), its
/// folder, or a folder of such folders or files; `found` a file, or a folder with `NAME.txt` for each sequence.
///
/// # Errors
/// [`Fault`] names the file that is missing or has wrong contents, or a truth in which nothing counts.
pub fn measure_tracks(truth: &Path, found: &Path) -> Result<Vec<(String, TrackScores)>, Fault> {
    let sequences = sequences(truth)?;
    let mut scores = Vec::new();
    for (name, path) in &sequences {
        let results = match (found.is_dir(), sequences.len()) {
            (true, _) => found.join(format!("{name}.txt")),
            (false, 1) => found.to_owned(),
            (false, _) => {
                return Err(Fault::new(found, "there are several sequences: give a folder with NAME.txt of each"));
            }
        };
        let sequence = Sequence::new(&mot::read(path, true)?, &mot::read(&results, false)?);
        if sequence.objects == 0 {
            return Err(Fault::new(path, "no object counts: none is marked (7th number not 0) and of class 1"));
        }
        scores.push((name.clone(), sequence.measure()));
    }
    Ok(scores)
}

/// Names of sequences and the files of their truth.
fn sequences(truth: &Path) -> Result<Vec<(String, PathBuf)>, Fault> {
    if truth.is_file() {
        return Ok(vec![(name_of_sequence(truth), truth.to_owned())]);
    }
    let of_folder = |folder: &Path| Some(folder.join("gt/gt.txt")).filter(|path| path.is_file());
    if let Some(path) = of_folder(truth) {
        return Ok(vec![(name_of_sequence(&path), path)]);
    }
    let entries = entries_of(truth)?;
    let text = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "txt").then(|| path.clone());
    let found: BTreeSet<PathBuf> = entries.iter().filter_map(|path| of_folder(path).or_else(|| text(path))).collect();
    if found.is_empty() {
        return Err(Fault::new(truth, "no sequences: neither NAME/gt/gt.txt nor NAME.txt"));
    }
    Ok(found.into_iter().map(|path| (name_of_sequence(&path), path)).collect())
}

/// `NAME` of `NAME/gt/gt.txt` and of `NAME.txt`.
fn name_of_sequence(path: &Path) -> String {
    let folder = path.ends_with("gt/gt.txt").then(|| path.ancestors().nth(2)).flatten();
    let folder = folder.and_then(|folder| folder.canonicalize().ok()).filter(|folder| folder.file_name().is_some());
    folder.map_or_else(|| stem_of(path), |folder| folder.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

/// `part` of `whole`; nothing of nothing.
fn share(part: f64, whole: u64) -> f64 {
    part / whole.max(1) as f64
}

#[cfg(test)]
mod tests;
