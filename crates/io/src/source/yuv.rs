//! Pixels as cameras deliver them, to RGB. YUV is BT.601 with luma in 16..=235, as web cameras send it; the GPU's
//! letterbox reads the same formats by the same numbers.

use image::RgbImage;

/// RGB of one pixel.
fn rgb_from_yuv(y: u8, u: u8, v: u8) -> [u8; 3] {
    let luma = 1.164_384 * (f32::from(y) - 16.0);
    let (blue, red) = (f32::from(u) - 128.0, f32::from(v) - 128.0);
    let channel = |value: f32| value.round().clamp(0.0, 255.0) as u8;
    [
        channel(luma + 1.596_027 * red),
        channel(luma - 0.391_762 * blue - 0.812_968 * red),
        channel(luma + 2.017_232 * blue),
    ]
}

/// From Y0 U Y1 V, two pixels: rows of `2 * ceil(width / 2)` pixels without padding. `None` for too few bytes.
pub fn rgb_from_yuyv(bytes: &[u8], width: u32, height: u32) -> Option<RgbImage> {
    let row = 4 * width.div_ceil(2) as usize;
    if bytes.len() < row * height as usize {
        return None;
    }
    let mut image = RgbImage::new(width, height);
    for (source, target) in bytes.chunks_exact(row).zip(image.chunks_exact_mut(3 * width as usize)) {
        for (pair, pixels) in source.as_chunks::<4>().0.iter().zip(target.chunks_mut(6)) {
            let [y0, u, y1, v] = *pair;
            for (pixel, y) in pixels.chunks_exact_mut(3).zip([y0, y1]) {
                pixel.copy_from_slice(&rgb_from_yuv(y, u, v));
            }
        }
    }
    Some(image)
}

/// From a plane of luma and one of colour pairs at half the resolution. `None` for too few bytes.
pub fn rgb_from_nv12(bytes: &[u8], width: u32, height: u32) -> Option<RgbImage> {
    let (columns, rows) = (width as usize, height as usize);
    let pair_row = 2 * columns.div_ceil(2);
    let (luma, colour) = bytes.split_at_checked(columns * rows)?;
    if colour.len() < pair_row * rows.div_ceil(2) {
        return None;
    }
    Some(RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (x as usize, y as usize);
        let pair = y / 2 * pair_row + x / 2 * 2;
        image::Rgb(rgb_from_yuv(luma[y * columns + x], colour[pair], colour[pair + 1]))
    }))
}

/// From one byte of brightness a pixel. `None` for too few bytes.
pub fn rgb_from_grey(bytes: &[u8], width: u32, height: u32) -> Option<RgbImage> {
    let count = width as usize * height as usize;
    let grey = bytes.get(..count)?;
    RgbImage::from_raw(width, height, grey.iter().flat_map(|&value| [value; 3]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_colours() {
        // Black, white, and the three primaries of BT.601's 75 % bars at full strength.
        for ((y, u, v), rgb) in [
            ((16, 128, 128), [0, 0, 0]),
            ((235, 128, 128), [255, 255, 255]),
            ((81, 90, 240), [254, 0, 0]),
            ((145, 54, 34), [0, 255, 1]),
            ((41, 240, 110), [0, 0, 255]),
        ] {
            let found = rgb_from_yuv(y, u, v);
            let near = found.iter().zip(rgb).all(|(&a, b): (&u8, i32)| (i32::from(a) - b).abs() <= 1);
            assert!(near, "{y} {u} {v}: {found:?}, expected {rgb:?}");
        }
    }

    #[test]
    fn odd_sizes_and_short_buffers() {
        let yuyv = [235, 128, 16, 128, 16, 128, 0, 128].repeat(2);
        let image = rgb_from_yuyv(&yuyv, 3, 2).unwrap();
        assert_eq!(image.as_raw()[..9], [255, 255, 255, 0, 0, 0, 0, 0, 0]);
        assert!(rgb_from_yuyv(&yuyv[1..], 3, 2).is_none());
        let nv12 = [[235; 9].as_slice(), &[128; 8]].concat();
        assert!(rgb_from_nv12(&nv12, 3, 3).unwrap().iter().all(|&value| value == 255));
        assert!(rgb_from_nv12(&nv12[1..], 3, 3).is_none());
        assert!(rgb_from_nv12(&nv12[..4], 3, 3).is_none());
        assert_eq!(rgb_from_grey(&[7, 9], 2, 1).unwrap().as_raw()[..], [7, 7, 7, 9, 9, 9]);
        assert!(rgb_from_grey(&[7], 2, 1).is_none());
    }
}
