//! Boxes and labels on a picture.

use std::sync::Once;

use image::RgbImage;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};

use super::NamedDetection;

/// DejaVu Sans.
pub(crate) static FONT: &[u8] = include_bytes!("../../assets/DejaVuSans.ttf");

/// Makes the program's own font known as `sans-serif`, so that text looks the same on every machine.
pub(crate) fn use_own_font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // The file is part of the program; were it damaged, boxes would appear without text.
        let _ = register_font("sans-serif", FontStyle::Normal, FONT);
    });
}

/// The colour of a class, the same in every picture and every run.
pub fn class_color(class: usize) -> [u8; 3] {
    let (red, green, blue) = Palette99::pick(class).to_rgba().rgb();
    [red, green, blue]
}

/// Draws boxes, and above each its name and confidence if `labels`. Lines and letters grow with the picture.
pub fn annotate(picture: &mut RgbImage, detections: &[NamedDetection], labels: bool) {
    use_own_font();
    let (width, height) = picture.dimensions();
    let longest = width.max(height) as f32;
    let thickness = (longest / 320.0).round().max(1.0) as i32;
    let font_size = (longest / 36.0).clamp(11.0, 64.0).round();
    let area = BitMapBackend::with_buffer(picture, (width, height)).into_drawing_area();
    // The most confident last, so that it lies on top.
    for detection in detections.iter().rev() {
        let [red, green, blue] = class_color(detection.class);
        let color = RGBColor(red, green, blue);
        let bbox = detection.bbox;
        let (left, top) = (bbox.x1.round() as i32, bbox.y1.round() as i32);
        let (right, bottom) = (bbox.x2.round() as i32, bbox.y2.round() as i32);
        let edges = [
            ((left, top), (right, top + thickness)),
            ((left, bottom - thickness), (right, bottom)),
            ((left, top), (left + thickness, bottom)),
            ((right - thickness, top), (right, bottom)),
        ];
        // Drawing into memory fails only outside of the picture, where nothing is to be drawn.
        for (from, to) in edges {
            let _ = area.draw(&Rectangle::new([from, to], color.filled()));
        }
        if labels {
            let text = format!("{} {:.2}", detection.name, detection.confidence);
            let luminance = 0.299 * f32::from(red) + 0.587 * f32::from(green) + 0.114 * f32::from(blue);
            let ink = if luminance > 140.0 { BLACK } else { WHITE };
            let font = ("sans-serif", font_size).into_font();
            let (text_width, text_height) = font.box_size(&text).unwrap_or((0, 0));
            let (box_width, box_height) = (text_width as i32 + 6, text_height as i32 + 6);
            // Above the box if there is room, else inside; never beyond the right border.
            let y = if top >= box_height { top - box_height } else { top.max(0) };
            let x = left.min(width as i32 - box_width).max(0);
            let _ = area.draw(&Rectangle::new([(x, y), (x + box_width, y + box_height)], color.filled()));
            let style = font.color(&ink).pos(Pos::new(HPos::Left, VPos::Center));
            let _ = area.draw(&Text::new(text, (x + 3, y + box_height / 2), style));
        }
    }
    let _ = area.present();
}
