//! Places in one arena: buffers share memory when no stage needs both.

use super::{At, Buffer, Task};

/// Gives every buffer its start; floats of all. Each takes the lowest place that is free during its whole life, the largest
/// first (Pisarchyk, Lee 2020) or the earliest first, whichever needs less.
pub(super) fn place(buffers: &mut [Buffer], tasks: &[Task], stages: &[usize], outputs: &[Vec<At>]) -> usize {
    let mut lives: Vec<(usize, usize)> = vec![(usize::MAX, 0); buffers.len()];
    let mut stage = 0;
    for (index, task) in tasks.iter().enumerate() {
        stage += usize::from(stages[stage] == index);
        for buffer in task.reads().chain([task.output]) {
            let (first, last) = &mut lives[buffer];
            (*first, *last) = ((*first).min(stage), (*last).max(stage));
        }
    }
    outputs.iter().flatten().for_each(|at| lives[at.buffer].1 = usize::MAX);
    let mut earliest: Vec<usize> = (0..buffers.len()).collect();
    earliest.sort_by_key(|&buffer| lives[buffer].0);
    let mut largest = earliest.clone();
    largest.sort_by_key(|&buffer| std::cmp::Reverse(buffers[buffer].floats));
    let size = place_in_order(buffers, &lives, &largest);
    let mut other = buffers.to_vec();
    let other_size = place_in_order(&mut other, &lives, &earliest);
    if other_size < size {
        buffers.copy_from_slice(&other);
    }
    size.min(other_size)
}

fn place_in_order(buffers: &mut [Buffer], lives: &[(usize, usize)], order: &[usize]) -> usize {
    let mut placed: Vec<usize> = Vec::new();
    for &buffer in order {
        let (first, last) = lives[buffer];
        let mut start = 0;
        // By start: a gap before the next one that lives at the same time is taken if it is wide enough.
        for &other in placed.iter().filter(|&&other| lives[other].0 <= last && first <= lives[other].1) {
            if buffers[other].start >= start + buffers[buffer].floats {
                break;
            }
            start = start.max(buffers[other].start + buffers[other].floats);
        }
        buffers[buffer].start = start;
        placed.insert(placed.partition_point(|&other| buffers[other].start <= start), buffer);
    }
    buffers.iter().map(|buffer| buffer.start + buffer.floats).max().unwrap_or(0)
}
