//! Parts that do not depend on each other: on the threads of the current rayon pool, or one after the other.

#[cfg(feature = "rayon")]
use rayon::prelude::*;

/// Does `work` for each stretch of `size` values, with its number.
pub(crate) fn for_each_chunk(values: &mut [f32], size: usize, work: impl Fn(usize, &mut [f32]) + Send + Sync) {
    #[cfg(feature = "rayon")]
    let chunks = values.par_chunks_mut(size);
    #[cfg(not(feature = "rayon"))]
    let chunks = values.chunks_mut(size);
    chunks.enumerate().for_each(|(index, chunk)| work(index, chunk));
}

/// What `work` gives for each number below `count`.
pub(crate) fn map<T: Send>(count: usize, work: impl Fn(usize) -> T + Send + Sync) -> Vec<T> {
    #[cfg(feature = "rayon")]
    let numbers = (0..count).into_par_iter();
    #[cfg(not(feature = "rayon"))]
    let numbers = 0..count;
    numbers.map(work).collect()
}
