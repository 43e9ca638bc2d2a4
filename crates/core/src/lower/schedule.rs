//! The order of tasks, and which of them run side by side.

use super::Task;

/// Tasks in order and the ends of their stages. The longest chain of tasks that wait for each other decides what is next; others
/// that run side by side with it come along.
pub(super) fn stages(tasks: Vec<Task>, together: &dyn Fn(&Task, &Task) -> bool) -> (Vec<Task>, Vec<usize>) {
    let buffers = tasks.iter().map(|task| task.output + 1).max().unwrap_or(0);
    let mut producer = vec![None; buffers];
    tasks.iter().enumerate().for_each(|(index, task)| producer[task.output] = Some(index));
    let needs: Vec<Vec<usize>> = tasks
        .iter()
        .map(|task| {
            let mut needs: Vec<usize> = task.reads().filter_map(|buffer| producer[buffer]).collect();
            needs.sort_unstable();
            needs.dedup();
            needs
        })
        .collect();
    let mut chain = vec![1; tasks.len()];
    for task in (0..tasks.len()).rev() {
        for &need in &needs[task] {
            chain[need] = chain[need].max(chain[task] + 1);
        }
    }
    let mut order: Vec<usize> = Vec::with_capacity(tasks.len());
    let (mut done, mut stages) = (vec![false; tasks.len()], Vec::new());
    loop {
        let is_ready = |&task: &usize| !done[task] && needs[task].iter().all(|&need| done[need]);
        let ready: Vec<usize> = (0..tasks.len()).filter(is_ready).collect();
        let Some(&next) = ready.iter().max_by_key(|&&task| (chain[task], std::cmp::Reverse(task))) else { break };
        let side_by_side = |&task: &usize| task == next || together(&tasks[task], &tasks[next]);
        order.extend(ready.into_iter().filter(side_by_side));
        order[stages.last().copied().unwrap_or(0)..].iter().for_each(|&task| done[task] = true);
        stages.push(order.len());
    }
    let mut tasks: Vec<Option<Task>> = tasks.into_iter().map(Some).collect();
    (order.into_iter().filter_map(|task| tasks[task].take()).collect(), stages)
}
