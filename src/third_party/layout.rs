//! Which family of detectors an ONNX file belongs to: told by the shapes of its outputs, by its metadata where shapes mean
//! several things, by numbers where metadata are silent; never guessed where all of that leaves a doubt.

use ndarray::{ArrayD, Axis};

use super::names::COCO_CLASSES;
use crate::heads::{EndToEnd, FastestDet, Head, NanoDet, Origin, Outputs, RtDetr, Yolov5, Yolov8, Yolox};
use crate::preprocess::Preprocessing;

/// How the outputs of somebody's network are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// (batch, 4 + classes, cells): centre and size in pixels, probabilities.
    Yolov8,
    /// (batch, 4 + classes + 1, cells) with the angle of the box last; or (batch, n, 7), suppressed in the network.
    Yolov8Obb,
    /// (batch, boxes, 5 + classes): centre and size in pixels, objectness, classes.
    Yolov5,
    /// (batch, cells, 5 + classes): offsets from the cell, logarithms of sizes, objectness, classes.
    Yolox,
    /// The same with centre and size in pixels.
    YoloxDecoded,
    /// (batch, cells, classes + 32), or classes and distances of strides 8, 16, 32 apart.
    NanoDet,
    /// Classes and distances of strides 8, 16, 32, 64 apart.
    PicoDet,
    /// (batch, 5 + classes, rows, columns).
    FastestDet,
    /// (batch, n, 6): corners in pixels, confidence, class.
    EndToEnd,
    /// (batch, queries, 4 + classes): centre and size as shares of the input, probabilities.
    RtDetr,
}

impl Layout {
    /// All of them with their names.
    pub const ALL: [(&str, Self); 10] = [
        ("yolov8", Self::Yolov8),
        ("yolov8-obb", Self::Yolov8Obb),
        ("yolov5", Self::Yolov5),
        ("yolox", Self::Yolox),
        ("yolox-decoded", Self::YoloxDecoded),
        ("nanodet", Self::NanoDet),
        ("picodet", Self::PicoDet),
        ("fastestdet", Self::FastestDet),
        ("end-to-end", Self::EndToEnd),
        ("rtdetr", Self::RtDetr),
    ];

    /// The layout of a name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, layout)| *layout)
    }
}

impl std::fmt::Display for Layout {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(Self::ALL.iter().find(|(_, layout)| layout == self).map_or("", |(name, _)| name))
    }
}

/// What a file says of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Clues {
    /// Shapes of the outputs without the batch.
    pub(super) shapes: Vec<Vec<usize>>,
    /// Of the input.
    pub(super) width: usize,
    pub(super) height: usize,
    /// How many classes have names.
    pub(super) names: Option<usize>,
    /// ultralytics' `task`: detect, obb, pose, segment.
    pub(super) task: String,
    /// Numbers of a row that are keypoints.
    pub(super) keypoints: usize,
    /// ultralytics' `end2end`, or its suppression.
    pub(super) end_to_end: bool,
    pub(super) description: String,
}

/// One way to read the outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) layout: Layout,
    /// `None` where the shape does not tell.
    pub(super) classes: Option<usize>,
    /// A box a row where a column is customary.
    in_rows: bool,
    /// Suppressed in the network.
    end_to_end: bool,
    /// Of NanoDet and PicoDet.
    strides: Vec<usize>,
    outputs: Outputs,
}

impl Reading {
    fn new(layout: Layout, classes: Option<usize>) -> Self {
        let end_to_end = matches!(layout, Layout::EndToEnd | Layout::RtDetr);
        Self { layout, classes, in_rows: false, end_to_end, strides: Vec::new(), outputs: Outputs::Together }
    }

    /// The axis of one image's output along which the numbers of a box lie, where they may be in pixels or shares.
    pub(super) fn box_axis(&self) -> Option<Axis> {
        match self.layout {
            Layout::Yolov8 | Layout::Yolov8Obb if !self.in_rows && !self.end_to_end => Some(Axis(0)),
            Layout::Yolov8 | Layout::Yolov8Obb | Layout::Yolov5 | Layout::EndToEnd => Some(Axis(1)),
            _ => None,
        }
    }

    /// The head for an input of `width` x `height`; `shares` where boxes are shares of it instead of pixels.
    pub(super) fn head(&self, classes: usize, (width, height): (usize, usize), shares: bool) -> Box<dyn Head> {
        let unit = if shares { [width as f32, height as f32] } else { [1.0; 2] };
        let Self { in_rows, strides, outputs, .. } = self.clone();
        let yolov5 = |preprocessing| Box::new(Yolov5 { classes, unit, preprocessing });
        match self.layout {
            Layout::Yolov8Obb if self.end_to_end => Box::new(EndToEnd { classes, oriented: true, unit }),
            Layout::Yolov8 => Box::new(Yolov8 { classes, oriented: false, in_rows, unit }),
            Layout::Yolov8Obb => Box::new(Yolov8 { classes, oriented: true, in_rows, unit }),
            Layout::Yolov5 => yolov5(Preprocessing::default()),
            Layout::YoloxDecoded => yolov5(Yolox::sees()),
            Layout::Yolox => Box::new(Yolox { classes, width, height }),
            Layout::NanoDet => {
                let origin = if strides.len() == 4 { Origin::Corner } else { Origin::CentreOfPixels };
                Box::new(NanoDet { classes, strides, origin, outputs, width, height })
            }
            Layout::PicoDet => Box::new(NanoDet { classes, strides, origin: Origin::Centre, outputs, width, height }),
            Layout::FastestDet => Box::new(FastestDet { classes, width, height }),
            Layout::EndToEnd => Box::new(EndToEnd { classes, oriented: false, unit }),
            Layout::RtDetr => Box::new(RtDetr { classes, width, height }),
        }
    }
}

/// For people: `yolov8 layout, 3 classes`.
impl std::fmt::Display for Reading {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} layout", self.layout)?;
        if self.in_rows {
            formatter.write_str(" with a box a row")?;
        }
        match self.classes {
            Some(1) => formatter.write_str(", 1 class"),
            Some(classes) => write!(formatter, ", {classes} classes"),
            None => Ok(()),
        }
    }
}

/// The reading of a file. `forced` is what a person says; then only the shape must allow it.
///
/// # Errors
/// A line that says what was found, what it could be, and what would decide.
pub(super) fn recognise(clues: &Clues, forced: Option<Layout>) -> Result<Reading, String> {
    let found = || format!("outputs {:?} of each image of {}x{}", clues.shapes, clues.width, clues.height);
    if let Some(layout) = forced {
        let reading = readings(clues, false).into_iter().find(|reading| reading.layout == layout);
        return reading.ok_or_else(|| format!("{} are not of the {layout} layout", found()));
    }
    let readings = readings(clues, true);
    let Some(first) = readings.first() else {
        let known: Vec<&str> = Layout::ALL.iter().map(|(name, _)| *name).collect();
        return Err(format!("unknown layout: {}; known are {} (--layout, docs/MODELS.md)", found(), known.join(", ")));
    };
    let several = |readings: &[&Reading]| {
        let readings: Vec<String> = readings.iter().map(|reading| format!("--layout {reading}")).collect();
        readings.join(" or ").replace(" layout", "")
    };
    if let Some(names) = clues.names {
        let fits = |reading: &&Reading| reading.classes.is_none_or(|classes| classes == names);
        return readings.iter().find(fits).cloned().ok_or_else(|| {
            let all: Vec<&Reading> = readings.iter().collect();
            let angle = if readings.iter().any(|reading| reading.classes == Some(names + 1) && !reading.in_rows) {
                format!(", --layout yolov8-obb, {names} classes and an angle")
            } else {
                String::new()
            };
            format!(
                "{names} names of classes do not go with {}: say {}{angle}; --names renames",
                found(),
                several(&all)
            )
        });
    }
    // Nobody says how many classes there are. The customary reading, unless only another one has COCO's 80.
    let coco: Vec<&Reading> = readings.iter().filter(|reading| reading.classes == Some(COCO_CLASSES)).collect();
    let objectness = first.layout == Layout::Yolov8 && first.classes == Some(COCO_CLASSES + 1);
    match coco[..] {
        _ if objectness => Err(format!(
            "{} may be 4 + 81 classes (--layout yolov8) or 5 + 80 with objectness (--layout yolov5) or an angle (--layout yolov8-obb)",
            found()
        )),
        [other] if first.classes != Some(COCO_CLASSES) => {
            if other.layout != Layout::NanoDet {
                log::warn!("{} are read as {other}; else say {}", found(), several(&[first]));
            }
            Ok(other.clone())
        }
        _ => Ok(first.clone()),
    }
}

/// Whatever the shapes can mean, the customary first. Unless `strict`, only what decoding needs is asked for.
fn readings(clues: &Clues, strict: bool) -> Vec<Reading> {
    let shapes = &clues.shapes;
    if shapes.len() > 1 && shapes.iter().all(|shape| shape.len() == 2) {
        return apart(clues, strict).into_iter().collect();
    }
    match shapes.first().map(Vec::as_slice) {
        Some(&[channels, rows, columns]) if shapes.len() == 1 && channels > 5 && rows > 0 && columns > 0 => {
            vec![Reading::new(Layout::FastestDet, Some(channels - 5))]
        }
        Some(&[rows, columns]) => {
            // Prototypes of masks have coefficients behind each box; other maps are what older exports give besides.
            let masks = match shapes.get(1).map(Vec::as_slice) {
                Some(&[prototypes, _, _]) if shapes.len() == 2 => prototypes,
                _ => 0,
            };
            together(clues, rows, columns, masks + clues.keypoints, strict)
        }
        _ => Vec::new(),
    }
}

/// Readings of one output (rows, columns) with `extra` numbers for each box that are left out.
fn together(clues: &Clues, rows: usize, columns: usize, extra: usize, strict: bool) -> Vec<Reading> {
    let cells = |strides: &[usize]| -> usize {
        strides.iter().map(|&stride| clues.height.div_ceil(stride) * clues.width.div_ceil(stride)).sum()
    };
    let (three, four) = (cells(&[8, 16, 32]), cells(&[8, 16, 32, 64]));
    let is_grid = |count: usize| [three, four, cells(&[4, 8, 16, 32])].contains(&count);
    // COCO's 17 keypoints of three numbers, in files that do not speak of them.
    let pose = clues.names == Some(1) && extra == 0 && clues.task.is_empty();
    let extra = if pose && [rows, columns].contains(&56) { 51 } else { extra };
    let mut readings = Vec::new();
    let mut add = |condition: bool, layout: Layout, numbers: usize, others: usize, change: &dyn Fn(&mut Reading)| {
        let classes = numbers.checked_sub(others).filter(|&classes| classes > 0);
        if condition && classes.is_some() {
            let mut reading = Reading::new(layout, classes);
            change(&mut reading);
            readings.push(reading);
        }
    };
    let oriented = clues.task == "obb";
    let (in_columns, in_rows) =
        if strict { (is_grid(columns), is_grid(rows)) } else { (rows < columns, rows >= columns) };
    let keep = |_: &mut Reading| {};
    add(in_columns && (!oriented || !strict), Layout::Yolov8, rows, 4 + extra, &keep);
    add(in_columns && (oriented || !strict), Layout::Yolov8Obb, rows, 5 + extra, &keep);
    add(rows == three && !oriented, Layout::Yolox, columns, 5, &keep);
    add(!strict && in_rows, Layout::YoloxDecoded, columns, 5, &keep);
    let strides = if rows == four { vec![8, 16, 32, 64] } else { vec![8, 16, 32] };
    let nanodet = |reading: &mut Reading| reading.strides.clone_from(&strides);
    add(rows == three || rows == four, Layout::NanoDet, columns, 32, &nanodet);
    let anchors = rows == 3 * three || rows == 3 * four;
    add(if strict { anchors } else { in_rows }, Layout::Yolov5, columns, 5 + extra, &keep);
    let turned = |reading: &mut Reading| reading.in_rows = true;
    add(in_rows && (!oriented || !strict), Layout::Yolov8, columns, 4 + extra, &turned);
    add(in_rows && oriented, Layout::Yolov8Obb, columns, 5 + extra, &turned);
    let few = !is_grid(rows) && !is_grid(columns) && !anchors;
    let suppressed = |reading: &mut Reading| (reading.classes, reading.end_to_end) = (None, true);
    let open = if strict { few && !oriented && columns == 6 + extra } else { in_rows || columns == 6 };
    add(open, Layout::EndToEnd, columns, 5 + extra, &suppressed);
    add(if strict { few && oriented } else { in_rows } && columns == 7, Layout::Yolov8Obb, columns, 6, &suppressed);
    // Its queries are some hundreds.
    let queries = few && !oriented && !clues.end_to_end && extra == 0 && rows >= 50 && rows > columns;
    add(if strict { queries } else { true }, Layout::RtDetr, columns, 4, &keep);
    readings
}

/// NanoDet or PicoDet with one output of classes and one of distances for each stride: all of one kind first, or in turns.
fn apart(clues: &Clues, strict: bool) -> Option<Reading> {
    let shapes = &clues.shapes;
    let count = shapes.len() / 2;
    let strides = [8, 16, 32, 64].get(..count).filter(|_| count >= 3 && shapes.len().is_multiple_of(2))?;
    let cells = |stride: usize| clues.height.div_ceil(stride) * clues.width.div_ceil(stride);
    let fits = |pairs: &[(usize, usize)]| {
        let (classes, sides) = (shapes[pairs[0].0][1], shapes[pairs[0].1][1]);
        let named = !strict || clues.names.is_none_or(|names| names == classes);
        let fits = |(&stride, &(scores, bins)): (&usize, &(usize, usize))| {
            shapes[scores] == [cells(stride), classes] && shapes[bins] == [cells(stride), sides]
        };
        named && classes > 0 && sides >= 8 && sides.is_multiple_of(4) && strides.iter().zip(pairs).all(fits)
    };
    // Of stride number `at`, the numbers of its classes and sides.
    let orders = |at: usize| [(at, count + at), (2 * at, 2 * at + 1), (count + at, at), (2 * at + 1, 2 * at)];
    let mut pairs = (0..4).map(|order| (0..count).map(|at| orders(at)[order]).collect::<Vec<_>>());
    let pairs = pairs.find(|pairs| fits(pairs))?;
    let layout = if count == 3 { Layout::NanoDet } else { Layout::PicoDet };
    let classes = Some(shapes[pairs[0].0][1]);
    let outputs = Outputs::Apart(pairs);
    Some(Reading { strides: strides.to_vec(), outputs, ..Reading::new(layout, classes) })
}

/// Whether numbers must be seen before a reading is certain.
pub(super) fn is_doubtful(reading: &Reading, clues: &Clues) -> bool {
    match reading.layout {
        Layout::Yolox | Layout::RtDetr => true,
        Layout::EndToEnd => !clues.end_to_end && clues.names.is_none_or(|names| names == 2),
        _ => false,
    }
}

/// What the numbers for an empty image say where shapes mean several things.
///
/// # Errors
/// A line that says what was found and what would decide.
pub(super) fn decide(reading: Reading, clues: &Clues, outputs: &[ArrayD<f32>]) -> Result<Reading, String> {
    let Some(first) = outputs.first().filter(|output| output.ndim() == 3 && !output.is_empty()) else {
        return Ok(reading);
    };
    let first = first.index_axis(Axis(0), 0);
    let values = |columns: std::ops::Range<usize>| {
        let chosen =
            first.slice_each_axis(|axis| if axis.axis == Axis(1) { columns.clone().into() } else { (..).into() });
        chosen.iter().copied().collect::<Vec<f32>>()
    };
    match reading.layout {
        // Logarithms of sizes: some are negative, none is as large as sizes in pixels are.
        Layout::Yolox => {
            let (least, most) = values(2..4).iter().fold((0f32, 0f32), |(least, most), &x| (least.min(x), most.max(x)));
            if least < 0.0 || most <= 10.0 {
                return Ok(reading);
            }
            // YOLOv6 has a column for objectness and nothing to say with it.
            let layout = if values(4..5).iter().all(|&x| x == 1.0) { Layout::Yolov5 } else { Layout::YoloxDecoded };
            // Where there is nothing, objectness alone says so: classes, given that there is something, are likely in most cells.
            let classes = first.outer_iter().map(|row| row.iter().skip(5).copied().fold(0f32, f32::max));
            let mut likeliest: Vec<f32> = classes.collect();
            likeliest.sort_by(f32::total_cmp);
            let unlikely = likeliest[likeliest.len() / 2] < 0.05 && values(4..5).iter().all(|&x| x < 0.5);
            let unnamed = clues.names.is_none() && reading.classes != Some(COCO_CLASSES);
            if layout == Layout::YoloxDecoded && unlikely && unnamed {
                return Err(format!(
                    "outputs {:?} may have objectness and {} classes (--layout yolox-decoded) or {} classes (--layout yolov8)",
                    clues.shapes,
                    first.len_of(Axis(1)) - 5,
                    first.len_of(Axis(1)) - 4
                ));
            }
            Ok(Reading { layout, ..reading })
        }
        Layout::EndToEnd if clues.shapes == [vec![first.len_of(Axis(0)), 6]] => {
            let two = Reading::new(Layout::RtDetr, Some(2));
            let is_class = values(5..6).iter().all(|&x| x.fract() == 0.0 || !x.is_finite());
            if is_class && !is_detr(clues) { Ok(reading) } else { decide(two, clues, outputs) }
        }
        Layout::RtDetr => {
            let shares = values(0..4).iter().all(|x| (-0.5..=1.5).contains(x));
            let probable = values(4..first.len_of(Axis(1))).iter().all(|x| (0.0..=1.01).contains(x));
            if shares && probable {
                return Ok(reading);
            }
            Err(format!(
                "outputs {:?} are neither boxes, confidence, class (--layout end-to-end) nor shares and probabilities (--layout rtdetr)",
                clues.shapes
            ))
        }
        _ => Ok(reading),
    }
}

fn is_detr(clues: &Clues) -> bool {
    let description = clues.description.to_lowercase();
    ["rt-detr", "rtdetr"].iter().any(|name| description.contains(name))
}
