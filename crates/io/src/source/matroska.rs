//! Frames on their way from and to ffmpeg: plain RGB in Matroska, which carries the size and each frame's time.
//!
//! Elements are an identifier, a length and data; the few that matter are those of
//! <https://www.matroska.org/technical/elements.html>.

use std::io::{self, Read, Write};
use std::time::Duration;

use image::RgbImage;

const SEGMENT: u32 = 0x1853_8067;
const INFO: u32 = 0x1549_A966;
const TIMESTAMP_SCALE: u32 = 0x2A_D7B1;
const TRACKS: u32 = 0x1654_AE6B;
const TRACK_ENTRY: u32 = 0xAE;
const VIDEO: u32 = 0xE0;
const PIXEL_WIDTH: u32 = 0xB0;
const PIXEL_HEIGHT: u32 = 0xBA;
const CLUSTER: u32 = 0x1F43_B675;
const TIMESTAMP: u32 = 0xE7;
const BLOCK_GROUP: u32 = 0xA0;
const BLOCK: u32 = 0xA1;
const SIMPLE_BLOCK: u32 = 0xA3;
/// A length that is not known beforehand, in eight bytes.
const UNKNOWN: u64 = (1 << 56) - 1;
/// Larger ones are no frames.
const LARGEST_FRAME: u64 = 1 << 30;
/// Track number, two bytes of time, flags.
const BLOCK_HEADER: u64 = 4;

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Reads frames as ffmpeg writes them with `-c:v rawvideo -pix_fmt rgb24 -allow_raw_vfw 1 -f matroska`.
pub(super) struct FrameReader<R> {
    input: R,
    size: (u32, u32),
    /// Nanoseconds of a tick.
    scale: u64,
    /// Ticks.
    cluster: u64,
}

impl<R: Read> FrameReader<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, size: (0, 0), scale: 1_000_000, cluster: 0 }
    }

    /// The next frame and its time from the start; `None` at the end.
    pub(super) fn next_frame(&mut self) -> io::Result<Option<(RgbImage, Duration)>> {
        while let Some(id) = self.identifier()? {
            let length = self.length()?;
            match id {
                // What lies in these is looked at element by element.
                SEGMENT | INFO | TRACKS | TRACK_ENTRY | VIDEO | CLUSTER | BLOCK_GROUP => {}
                TIMESTAMP_SCALE => self.scale = self.number(length)?,
                PIXEL_WIDTH => self.size.0 = self.number(length)? as u32,
                PIXEL_HEIGHT => self.size.1 = self.number(length)? as u32,
                TIMESTAMP => self.cluster = self.number(length)?,
                BLOCK | SIMPLE_BLOCK => return self.frame(length).map(Some),
                _ => {
                    let skipped = io::copy(&mut self.input.by_ref().take(length), &mut io::sink())?;
                    if skipped < length {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(None)
    }

    fn frame(&mut self, length: u64) -> io::Result<(RgbImage, Duration)> {
        let (width, height) = self.size;
        let wanted = u64::from(width) * u64::from(height) * 3;
        if length != wanted + BLOCK_HEADER || length > LARGEST_FRAME {
            return Err(invalid(format!("{length} bytes are no frame of {width}x{height}")));
        }
        let mut header = [0; BLOCK_HEADER as usize];
        self.input.read_exact(&mut header)?;
        let mut pixels = vec![0; wanted as usize];
        self.input.read_exact(&mut pixels)?;
        let ticks = self.cluster.saturating_add_signed(i16::from_be_bytes([header[1], header[2]]).into());
        let time = Duration::from_nanos(ticks.saturating_mul(self.scale));
        let image = RgbImage::from_raw(width, height, pixels);
        image.map(|image| (image, time)).ok_or_else(|| invalid(format!("no frame of {width}x{height}")))
    }

    /// `None` at the end of the input.
    fn identifier(&mut self) -> io::Result<Option<u32>> {
        let mut first = [0];
        if self.input.read(&mut first)? == 0 {
            return Ok(None);
        }
        let more = first[0].leading_zeros() as usize;
        if more > 3 {
            return Err(invalid(format!("{:#04x} begins no element", first[0])));
        }
        Ok(Some(self.continued(first[0].into(), more)? as u32))
    }

    fn length(&mut self) -> io::Result<u64> {
        let mut first = [0];
        self.input.read_exact(&mut first)?;
        let more = first[0].leading_zeros() as usize;
        if more > 7 {
            return Err(invalid("a length of more than eight bytes".into()));
        }
        self.continued(u64::from(first[0]) & (0x7F >> more), more)
    }

    /// A number in big-endian order of `length` bytes.
    fn number(&mut self, length: u64) -> io::Result<u64> {
        if length > 8 {
            return Err(invalid(format!("a number of {length} bytes")));
        }
        self.continued(0, length as usize)
    }

    fn continued(&mut self, first: u64, more: usize) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.input.read_exact(&mut bytes[..more])?;
        Ok(bytes[..more].iter().fold(first, |number, &byte| number << 8 | u64::from(byte)))
    }
}

/// Writes frames of one size as ffmpeg reads them with `-f matroska`.
pub(crate) struct FrameWriter<W> {
    output: W,
}

impl<W: Write> FrameWriter<W> {
    /// `usual` is the time that a frame usually stays: ffmpeg lets the last one stay so long.
    pub(crate) fn new(mut output: W, (width, height): (u32, u32), usual: Duration) -> io::Result<Self> {
        let header = [number(0x4286, 1), number(0x42F7, 1), number(0x42F2, 4), number(0x42F3, 8)].concat();
        let kind = [element(0x4282, b"matroska"), number(0x4287, 4), number(0x4285, 2)].concat();
        // Times in microseconds; names of the programs, which must be there.
        let program = env!("CARGO_PKG_NAME").as_bytes();
        let info = [number(TIMESTAMP_SCALE, 1000), element(0x4D80, program), element(0x5741, program)].concat();
        let colour = element(0x2E_B524, b"RGB\x18");
        let video = [number(PIXEL_WIDTH, width.into()), number(PIXEL_HEIGHT, height.into()), colour].concat();
        let track = [
            number(0xD7, 1),                            // its number
            number(0x73C5, 1),                          // its identifier
            number(0x83, 1),                            // images
            number(0x9C, 0),                            // one frame a block
            number(0x23_E383, usual.as_nanos() as u64), // usual duration of a frame
            element(0x86, b"V_UNCOMPRESSED"),
            element(VIDEO, &video),
        ];
        output.write_all(&element(0x1A45_DFA3, &[header, kind].concat()))?;
        output.write_all(&[&SEGMENT.to_be_bytes()[..], &(UNKNOWN | 1 << 56).to_be_bytes()].concat())?;
        output.write_all(&[element(INFO, &info), element(TRACKS, &element(TRACK_ENTRY, &track.concat()))].concat())?;
        Ok(Self { output })
    }

    /// Writes a frame in a cluster of its own; times rise.
    pub(crate) fn write(&mut self, image: &RgbImage, time: Duration) -> io::Result<()> {
        // Of the first track, at the cluster's time, a key frame.
        let block = [0x81, 0, 0, 0x80];
        let time = number(TIMESTAMP, time.as_micros() as u64);
        let pixels = image.as_raw();
        let block_start = start(SIMPLE_BLOCK, block.len() + pixels.len());
        let length = time.len() + block_start.len() + block.len() + pixels.len();
        self.output.write_all(&[start(CLUSTER, length), time, block_start, block.to_vec()].concat())?;
        self.output.write_all(pixels)?;
        self.output.flush()
    }
}

/// Identifier and length of an element.
fn start(id: u32, length: usize) -> Vec<u8> {
    let id = id.to_be_bytes();
    let zeros = id.iter().take_while(|&&byte| byte == 0).count();
    [&id[zeros..], &(length as u64 | 1 << 56).to_be_bytes()].concat()
}

fn element(id: u32, data: &[u8]) -> Vec<u8> {
    [&start(id, data.len()), data].concat()
}

fn number(id: u32, value: u64) -> Vec<u8> {
    element(id, &value.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<(RgbImage, Duration)> {
        let shade = |value: u8| RgbImage::from_pixel(5, 3, image::Rgb([value, 1, 2]));
        [0, 40_001, 3_600_000_000].iter().zip(0..).map(|(&at, n)| (shade(n), Duration::from_micros(at))).collect()
    }

    fn written() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = FrameWriter::new(&mut bytes, (5, 3), Duration::from_millis(40)).unwrap();
        for (image, time) in frames() {
            writer.write(&image, time).unwrap();
        }
        bytes
    }

    #[test]
    fn frames_and_times_come_back() {
        let bytes = written();
        let mut reader = FrameReader::new(&bytes[..]);
        for frame in frames() {
            assert_eq!(reader.next_frame().unwrap(), Some(frame));
        }
        assert_eq!(reader.next_frame().unwrap(), None);
    }

    #[test]
    fn what_is_cut_or_strange_is_an_end_or_an_error() {
        let bytes = written();
        for cut in 0..bytes.len() {
            let mut reader = FrameReader::new(&bytes[..cut]);
            while let Ok(Some((image, _))) = reader.next_frame() {
                assert_eq!(image.dimensions(), (5, 3));
            }
            let mut strange = bytes.clone();
            strange[cut] ^= 0xFF;
            let mut reader = FrameReader::new(&strange[..]);
            while let Ok(Some((image, _))) = reader.next_frame() {
                assert_eq!(image.as_raw().len() as u32, image.width() * image.height() * 3);
            }
        }
    }
}
