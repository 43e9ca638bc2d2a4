//! Boxes and labels on a picture.

use std::sync::Once;

use image::RgbImage;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};

use super::{NamedDetection, ink, label_places};
use yolo_lat_core::geometry::BBox;

/// DejaVu Sans.
pub static FONT: &[u8] = include_bytes!("../../../../assets/DejaVuSans.ttf");

/// Makes the program's own font known as `sans-serif`, so that text looks the same on every machine.
///
/// Texts have even sizes: plotters puts the tops of letters at half the size, cut to a whole pixel, and of an odd size
/// the points of decimals float.
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

fn rgb([red, green, blue]: [u8; 3]) -> RGBColor {
    RGBColor(red, green, blue)
}

/// Draws boxes, and beside each its name and confidence if `labels`. Lines and letters grow with the picture.
pub fn annotate(picture: &mut RgbImage, detections: &[NamedDetection], labels: bool) {
    use_own_font();
    let (width, height) = picture.dimensions();
    let longest = width.max(height) as f32;
    let thickness = (longest / 320.0).round().max(1.0) as i32;
    let font_size = 2.0 * (longest / 72.0).clamp(6.0, 32.0).round();
    let area = BitMapBackend::with_buffer(picture, (width, height)).into_drawing_area();
    // The most confident last, so that it lies on top.
    for detection in detections.iter().rev() {
        let color = rgb(class_color(detection.class));
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
    }
    if labels {
        let texts: Vec<String> = detections.iter().map(NamedDetection::label).collect();
        let font = ("sans-serif", font_size).into_font();
        let size_of = |text: &String| {
            let (width, height) = font.box_size(text).unwrap_or((0, 0));
            (width as f32 + 6.0, height as f32 + 6.0)
        };
        let sizes: Vec<_> = detections.iter().zip(&texts).map(|(found, text)| (found.bbox, size_of(text))).collect();
        let picture = BBox { x1: 0.0, y1: 0.0, x2: width as f32, y2: height as f32 };
        let places = label_places(picture, &sizes);
        let low = (0.2 * font_size).round() as i32; // plotters' middle of a text lies above that of its letters
        for ((detection, text), place) in detections.iter().zip(&texts).zip(places).rev() {
            let color = class_color(detection.class);
            let style = font.color(&rgb(ink(color))).pos(Pos::new(HPos::Left, VPos::Center));
            let (x, y) = (place.x1.round() as i32, place.y1.round() as i32);
            let (box_width, box_height) = (place.width() as i32, place.height() as i32);
            let _ = area.draw(&Rectangle::new([(x, y), (x + box_width, y + box_height)], rgb(color).filled()));
            let _ = area.draw(&Text::new(text.as_str(), (x + 3, y + box_height / 2 + low), style));
        }
    }
    let _ = area.present();
}
