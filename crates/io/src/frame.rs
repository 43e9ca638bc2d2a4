//! An image on its way through the program.

use std::time::SystemTime;

use image::RgbImage;

/// The unit that flows from sources to sinks: pixels with what is known of their origin.
#[derive(Clone, Debug)]
pub struct Frame {
    /// 8-bit RGB, rows from the top.
    pub pixels: RgbImage,
    /// Position in its source, from 0, rising.
    pub sequence: u64,
    /// When it was taken or read.
    pub captured_at: SystemTime,
}

impl Frame {
    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.pixels.width()
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.pixels.height()
    }
}
