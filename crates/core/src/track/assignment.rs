//! Which of two lists belong together.

use pathfinding::kuhn_munkres::kuhn_munkres;
use pathfinding::matrix::Matrix;

/// Steps of a similarity: the assignment counts in whole numbers.
const STEPS: f64 = (1u64 << 32) as f64;

/// Pairs of `rows` and `columns` with the largest sum of what their similarity exceeds `least` by, in the order of the shorter list; the
/// others have no partner. Similarities are finite, and below a thousand million.
pub fn assign(
    rows: &[usize],
    columns: &[usize],
    least: f64,
    similarity: &dyn Fn(usize, usize) -> f64,
) -> Vec<(usize, usize)> {
    if rows.len() > columns.len() {
        let pairs = assign(columns, rows, least, &|column, row| similarity(row, column));
        return pairs.into_iter().map(|(column, row)| (row, column)).collect();
    }
    if rows.is_empty() {
        return Vec::new();
    }
    let gain = |row: usize, column: usize| {
        let gain = similarity(rows[row], columns[column]) - least;
        (gain.max(0.0) * STEPS) as i64
    };
    let gains = Matrix::from_fn(rows.len(), columns.len(), |(row, column)| gain(row, column));
    let (_, partners) = kuhn_munkres(&gains);
    let pairs = partners.into_iter().enumerate().filter(|&pair| gains[pair] > 0);
    pairs.map(|(row, column)| (rows[row], columns[column])).collect()
}
