//! MOTChallenge's text: a row an object a frame, `frame,id,left,top,width,height,mark,class,visibility`.

use std::collections::HashSet;
use std::path::Path;

use super::Fault;
use yolo_lat_core::geometry::BBox;

/// The class that is measured: pedestrians, or whatever a file without classes holds.
pub(crate) const MEASURED: u32 = 1;

/// No image reaches so far.
const FARTHEST: f32 = 1e6;

/// An object in a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Row {
    /// From 1.
    pub(crate) frame: u64,
    pub(crate) id: u64,
    pub(crate) bbox: BBox,
    /// Of the truth: it does not count.
    pub(crate) unmarked: bool,
    pub(crate) class: u32,
}

/// The rows of a file; of the truth, or of results, whose seventh number is a confidence and whose classes mean nothing.
pub(crate) fn read(path: &Path, is_truth: bool) -> Result<Vec<Row>, Fault> {
    parse(&super::files::read_text(path)?, is_truth).map_err(|reason| Fault::new(path, reason))
}

pub(super) fn parse(text: &str, is_truth: bool) -> Result<Vec<Row>, String> {
    let mut taken = HashSet::new();
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let rows = lines.map(|(number, line)| {
        let row = row(line, is_truth).map_err(|reason| format!("line {number}: {reason}"))?;
        if !taken.insert((row.frame, row.id)) {
            return Err(format!("line {number}: frame {} has object {} twice", row.frame, row.id));
        }
        Ok(row)
    });
    rows.collect()
}

fn row(line: &str, is_truth: bool) -> Result<Row, String> {
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    let numbers: Option<Vec<f64>> = if line.contains(',') {
        line.split(',').map(number).collect()
    } else {
        line.split_whitespace().map(number).collect()
    };
    let Some(numbers) = numbers.filter(|numbers| numbers.len() >= 6) else {
        return Err("not frame,id,left,top,width,height,...: six numbers or more".into());
    };
    let (frame, id) = (numbers[0], numbers[1]);
    if frame < 1.0 || frame.fract() != 0.0 {
        return Err(format!("frame {frame} is no number from 1"));
    }
    if id < 0.0 || id.fract() != 0.0 {
        return Err(format!("{id} is the number of no object: detections without tracks (detect --track gives them)"));
    }
    let [x, y, width, height] = [2, 3, 4, 5].map(|at| numbers[at] as f32);
    if width < 0.0 || height < 0.0 || [x, y, width, height].iter().any(|side| side.abs() >= FARTHEST) {
        return Err("its box has a negative width or height, or is no box in pixels".into());
    }
    let class = numbers.get(7).filter(|&&class| is_truth && class >= 1.0).map_or(MEASURED, |class| *class as u32);
    let unmarked = is_truth && numbers.get(6) == Some(&0.0);
    Ok(Row { frame: frame as u64, id: id as u64, bbox: BBox::from_xywh([x, y, width, height]), unmarked, class })
}
