//! Boxes and labels on a picture.

use image::RgbImage;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::fonts::{OWN, parts, use_own_font};
use super::{NamedDetection, ink, label_places};
use yolo_lat_core::geometry::BBox;

/// The colour of a class, the same in every picture and every run.
pub fn class_color(class: usize) -> [u8; 3] {
    let (red, green, blue) = Palette99::pick(class).to_rgba().rgb();
    [red, green, blue]
}

fn rgb([red, green, blue]: [u8; 3]) -> RGBColor {
    RGBColor(red, green, blue)
}

/// Name and confidence in parts with their fonts; a class whose letters no font has is called by its number.
fn label_parts(detection: &NamedDetection) -> Vec<(String, String)> {
    let number = || vec![(OWN.to_owned(), format!("#{} {:.2}", detection.class, detection.confidence))];
    parts(&detection.label()).unwrap_or_else(number)
}

/// Draws boxes, and beside each its name and confidence if `labels`. Lines and letters grow with the picture.
pub fn annotate(picture: &mut RgbImage, detections: &[NamedDetection], labels: bool) {
    use_own_font();
    let (width, height_of_picture) = picture.dimensions();
    let longest = width.max(height_of_picture) as f32;
    let thickness = (longest / 320.0).round().max(1.0) as i32;
    let font_size = 2.0 * (longest / 72.0).clamp(6.0, 32.0).round();
    let area = BitMapBackend::with_buffer(picture, (width, height_of_picture)).into_drawing_area();
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
        let texts: Vec<_> = detections.iter().map(label_parts).collect();
        let width_of = |(family, part): &(String, String)| {
            let size = (family.as_str(), font_size).into_font().box_size(part);
            size.map_or(0, |(width, _)| width as i32)
        };
        let height = (OWN, font_size).into_font().box_size("0").map_or(0.0, |(_, height)| height as f32);
        let size_of = |parts: &Vec<_>| (parts.iter().map(width_of).sum::<i32>() as f32 + 6.0, height + 6.0);
        let sizes: Vec<_> = detections.iter().zip(&texts).map(|(found, text)| (found.bbox, size_of(text))).collect();
        let picture = BBox { x1: 0.0, y1: 0.0, x2: width as f32, y2: height_of_picture as f32 };
        let places = label_places(picture, &sizes);
        let low = (0.2 * font_size).round() as i32; // plotters' middle of a text lies above that of its letters
        for ((detection, text), place) in detections.iter().zip(&texts).zip(places).rev() {
            let color = class_color(detection.class);
            let (mut x, y) = (place.x1.round() as i32, place.y1.round() as i32);
            let (box_width, box_height) = (place.width() as i32, place.height() as i32);
            let _ = area.draw(&Rectangle::new([(x, y), (x + box_width, y + box_height)], rgb(color).filled()));
            x += 3;
            for part in text {
                let font = (part.0.as_str(), font_size).into_font();
                let style = font.color(&rgb(ink(color))).pos(Pos::new(HPos::Left, VPos::Center));
                let _ = area.draw(&Text::new(part.1.as_str(), (x, y + box_height / 2 + low), style));
                x += width_of(part);
            }
        }
    }
    let _ = area.present();
}
