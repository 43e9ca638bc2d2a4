//! Where a JPEG ends, and whether all of it is there.

/// Behind the end mark (FF D9) of the image at the start of `bytes`; `None` if it has none. What follows, such as the
/// video of a motion photo, is no part of it, nor are the end marks of thumbnails inside its segments.
pub(super) fn end_of_image(bytes: &[u8]) -> Option<usize> {
    let mut at = 2;
    loop {
        at += bytes.get(at..)?.iter().position(|&byte| byte == 0xFF)?;
        // Any number of FF may stand before a marker.
        at += bytes[at..].iter().position(|&byte| byte != 0xFF)?;
        let marker = bytes[at];
        at += 1;
        match marker {
            0xD9 => return Some(at),
            // A stuffed FF of compressed data; marks without a segment.
            0x00 | 0x01 | 0xD0..=0xD8 => {}
            _ => at += usize::from(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?)),
        }
    }
}

/// Data that continues a JPEG whose end mark is missing, in three ways that differ from the first bit on: nothing and
/// twice some bits.
///
/// Decoders fill what is missing with grey, where objects would be looked for. If all blocks are there, the image does
/// not depend on what follows them; if it was cut, the tails are decoded as blocks.
pub(super) const TAILS: [&[u8]; 3] =
    [b"\xFF\xD9", b"\x1B\xA4\x35\xC9\x72\x5E\x8D\x16\xFF\xD9", b"\xE4\x5A\xCB\x36\x8D\xA1\x72\xE9\xFF\xD9"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_that_of_the_image_itself() {
        let segment = |marker: u8, data: &[u8]| {
            let length = (data.len() as u16 + 2).to_be_bytes();
            [&[0xFF, marker], &length[..], data].concat()
        };
        let thumbnail = segment(0xE1, b"Exif\0\xFF\xD8\xFF\xDA..\xFF\xD9");
        let scan = [&segment(0xDA, &[1, 1, 0, 0, 63, 0])[..], b"data\xFF\x00data\xFF\xD0data"].concat();
        let image = [b"\xFF\xD8", &thumbnail[..], &scan, b"\xFF\xFF\xD9"].concat();
        assert_eq!(end_of_image(&image), Some(image.len()));
        let motion = [&image[..], b"ftypmp42\xFF\xDA..\xFF\xD9"].concat();
        assert_eq!(end_of_image(&motion), Some(image.len()));
        for cut in 0..image.len() {
            assert_eq!(end_of_image(&image[..cut]), None, "{cut}");
        }
    }
}
