//! Where objects are, how large, and which lines they cross: geometry and counting, in shares of the image.

mod least_size;
mod line;
mod shape;
mod zone;

pub use self::least_size::LeastSize;
pub use self::line::{CLEAR, Counts, Crossings, Line, LineCounter, counts_in_words};
pub use self::shape::{Point, ShapeError, foot};
pub use self::zone::Zone;
