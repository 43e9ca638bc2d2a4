//! Places in an arena, given back after the last use.

/// Places in the arena: first fit among what has been given back, else at the end.
#[derive(Debug, Default)]
pub struct Allocator {
    /// Free stretches (start, length), by start, never touching.
    free: Vec<(usize, usize)>,
    /// Floats needed in all.
    pub size: usize,
}

impl Allocator {
    /// Start of `length` floats that are free.
    pub fn take(&mut self, length: usize) -> usize {
        if let Some(index) = self.free.iter().position(|&(_, free)| free >= length) {
            let (start, free) = self.free[index];
            if free == length {
                self.free.remove(index);
            } else {
                self.free[index] = (start + length, free - length);
            }
            return start;
        }
        let start = self.size;
        self.size += length;
        start
    }

    /// Makes a stretch free again.
    pub fn give(&mut self, start: usize, length: usize) {
        let index = self.free.partition_point(|&(free, _)| free < start);
        self.free.insert(index, (start, length));
        let mut joined: Vec<(usize, usize)> = Vec::with_capacity(self.free.len());
        for &(start, length) in &self.free {
            match joined.last_mut() {
                Some((last, size)) if *last + *size == start => *size += length,
                _ => joined.push((start, length)),
            }
        }
        self.free = joined;
    }
}
