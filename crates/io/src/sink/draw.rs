//! Results on an image: boxes and labels, zones and lines, objects made unrecognisable, or heat.

use image::RgbImage;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::fonts::{OWN, parts, use_own_font};
use super::heat::Heat;
use super::hide::hide;
use super::{NamedDetection, ink, label_places};
use crate::zones::{Counts, Crossings, Line, Point, Zone};
use yolo_lat_core::geometry::BBox;
use yolo_lat_core::resample::Resampler;

/// The colour of a class, the same in every image and every run.
pub fn class_color(class: usize) -> [u8; 3] {
    let (red, green, blue) = Palette99::pick(class).to_rgba().rgb();
    [red, green, blue]
}

fn rgb([red, green, blue]: [u8; 3]) -> RGBColor {
    RGBColor(red, green, blue)
}

/// What is drawn for the objects of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drawing {
    /// Boxes with names, and zones and lines with theirs.
    #[default]
    Box,
    /// Objects run into coarse colours, nothing else: for images of people that others will see.
    Blur,
    /// The same as tiles.
    Pixelate,
    /// Where objects were so far.
    Heat,
}

/// How results are drawn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DrawOptions {
    /// What is drawn.
    pub drawing: Drawing,
    /// Whether boxes have names and confidences.
    pub labels: bool,
    /// Drawn with boxes.
    pub zones: Vec<Zone>,
    /// Drawn with boxes.
    pub lines: Vec<Line>,
}

/// Draws the results of one image after the other; of one video, since a heat map adds up.
#[derive(Default)]
pub struct Annotator {
    options: DrawOptions,
    heat: Heat,
    resampler: Resampler,
}

impl Annotator {
    /// Nothing was seen yet.
    pub fn new(options: DrawOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// How it draws.
    pub fn options(&self) -> &DrawOptions {
        &self.options
    }

    /// Draws what was found in an image; `counts` says what has crossed each line so far.
    pub fn draw(&mut self, image: &mut RgbImage, detections: &[NamedDetection], counts: &Counts) {
        match self.options.drawing {
            Drawing::Box => {
                draw_shapes(image, &self.options.zones, &self.options.lines, counts);
                annotate(image, detections, self.options.labels);
            }
            Drawing::Heat => self.heat.draw(image, detections.iter().map(|detection| &detection.bbox)),
            hidden => detections.iter().for_each(|detection| {
                hide(image, &detection.bbox, hidden == Drawing::Blur, &mut self.resampler);
            }),
        }
    }
}

/// Sizes of lines and letters, which grow with the image.
struct Pen {
    thickness: i32,
    font_size: f64,
}

type Parts = Vec<(String, String)>;

impl Pen {
    fn of(image: &RgbImage) -> Self {
        let longest = f64::from(image.width().max(image.height()));
        let thickness = (longest / 320.0).round().max(1.0) as i32;
        Self { thickness, font_size: 2.0 * (longest / 72.0).clamp(6.0, 32.0).round() }
    }

    fn width_of(&self, (family, part): &(String, String)) -> i32 {
        let size = (family.as_str(), self.font_size).into_font().box_size(part);
        size.map_or(0, |(width, _)| width as i32)
    }

    /// Width and height of a label.
    fn size_of(&self, parts: &Parts) -> (f32, f32) {
        let height = (OWN, self.font_size).into_font().box_size("0").map_or(0.0, |(_, height)| height as f32);
        (parts.iter().map(|part| self.width_of(part)).sum::<i32>() as f32 + 6.0, height + 6.0)
    }

    /// Writes a label on a ground of `color`.
    fn write(&self, area: &Area, parts: &Parts, place: BBox, color: [u8; 3]) {
        let low = (0.2 * self.font_size).round() as i32; // plotters' middle of a text lies above that of its letters
        let (mut x, y) = (place.x1.round() as i32, place.y1.round() as i32);
        let (width, height) = (place.width() as i32, place.height() as i32);
        let _ = area.draw(&Rectangle::new([(x, y), (x + width, y + height)], rgb(color).filled()));
        x += 3;
        for part in parts {
            let font = (part.0.as_str(), self.font_size).into_font();
            let style = font.color(&rgb(ink(color))).pos(Pos::new(HPos::Left, VPos::Center));
            let _ = area.draw(&Text::new(part.1.as_str(), (x, y + height / 2 + low), style));
            x += self.width_of(part);
        }
    }
}

type Area<'a> = DrawingArea<BitMapBackend<'a>, plotters::coord::Shift>;

/// Name and confidence in parts with their fonts; a class whose letters no font has is called by its number.
fn label_parts(detection: &NamedDetection) -> Parts {
    let number = || {
        let numbered = NamedDetection { name: format!("#{}", detection.class), ..detection.clone() };
        vec![(OWN.to_owned(), numbered.label())]
    };
    parts(&detection.label()).unwrap_or_else(number)
}

/// Draws boxes and trails, and beside each box its name and confidence if `labels`. Lines and letters grow with the image.
pub fn annotate(image: &mut RgbImage, detections: &[NamedDetection], labels: bool) {
    use_own_font();
    let (width, height) = image.dimensions();
    let pen = Pen::of(image);
    let area = BitMapBackend::with_buffer(image, (width, height)).into_drawing_area();
    // The most confident last, so that it lies on top.
    for detection in detections.iter().rev() {
        let color = rgb(class_color(detection.class));
        let bbox = detection.shown_box();
        let (left, top) = (bbox.x1.round() as i32, bbox.y1.round() as i32);
        let (right, bottom) = (bbox.x2.round() as i32, bbox.y2.round() as i32);
        let edges = [
            ((left, top), (right, top + pen.thickness)),
            ((left, bottom - pen.thickness), (right, bottom)),
            ((left, top), (left + pen.thickness, bottom)),
            ((right - pen.thickness, top), (right, bottom)),
        ];
        let trail = detection.trail().iter().map(|&(x, y)| (x.round() as i32, y.round() as i32));
        // Drawing into memory fails only outside of the image, where nothing is to be drawn.
        let _ = area.draw(&PathElement::new(trail.collect::<Vec<_>>(), color.stroke_width(pen.thickness as u32)));
        for (from, to) in edges {
            let _ = area.draw(&Rectangle::new([from, to], color.filled()));
        }
    }
    if labels {
        let texts: Vec<_> = detections.iter().map(label_parts).collect();
        let sized = |(found, text): (&NamedDetection, &Parts)| (found.shown_box(), pen.size_of(text));
        let sizes: Vec<_> = detections.iter().zip(&texts).map(sized).collect();
        let whole = BBox { x1: 0.0, y1: 0.0, x2: width as f32, y2: height as f32 };
        let places = label_places(whole, &sizes);
        for ((detection, text), place) in detections.iter().zip(&texts).zip(places).rev() {
            pen.write(&area, text, place, class_color(detection.class));
        }
    }
    let _ = area.present();
}

/// Draws the borders of zones, and lines with an arrow to where `in` is, with their names and counts.
fn draw_shapes(image: &mut RgbImage, zones: &[Zone], lines: &[Line], counts: &Counts) {
    if zones.is_empty() && lines.is_empty() {
        return;
    }
    use_own_font();
    let (width, height) = image.dimensions();
    let pen = Pen::of(image);
    let area = BitMapBackend::with_buffer(image, (width, height)).into_drawing_area();
    let pixel = |[x, y]: Point| ((x * (width - 1) as f32).round() as i32, (y * (height - 1) as f32).round() as i32);
    // Seen on every ground: white between black.
    let stroke = |points: Vec<(i32, i32)>| {
        for (color, thickness) in [(BLACK, 3 * pen.thickness), (WHITE, pen.thickness)] {
            let style = color.stroke_width(thickness as u32);
            let _ = area.draw(&PathElement::new(points.clone(), style));
        }
    };
    let name = |text: String, at: Point| {
        let parts = parts(&text).unwrap_or_else(|| vec![(OWN.to_owned(), text)]);
        let ((x, y), (w, h)) = (pixel(at), pen.size_of(&parts));
        let inside = |at: i32, size: f32, side: u32| (at as f32).min(side as f32 - size).max(0.0);
        let place = BBox::from_xywh([inside(x, w, width), inside(y, h, height), w, h]);
        pen.write(&area, &parts, place, [255; 3]);
    };
    for zone in zones {
        let around = zone.points().iter().chain(zone.points().first());
        stroke(around.map(|&point| pixel(point)).collect());
        name(zone.name().to_owned(), zone.points()[0]);
    }
    for line in lines {
        let [from, to] = line.points().map(pixel);
        stroke(vec![from, to]);
        let [middle, tip] = line.arrow((width, height), 8.0 * pen.thickness as f32).map(pixel);
        stroke(vec![middle, tip]);
        let Crossings { entered, left } = counts.get(line.name()).copied().unwrap_or_default();
        name(format!("{}: {entered} in, {left} out", line.name()), line.points()[0]);
    }
    let _ = area.present();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::{Shown, Track};
    use yolo_lat_core::postprocess::Detection;

    #[test]
    fn a_tracked_object_is_drawn_where_it_is_shown_with_its_trail() {
        let bbox = BBox::from_xywh([10.0, 10.0, 40.0, 40.0]);
        let mut detection = NamedDetection::new(Detection { class: 3, confidence: 0.8, bbox }, "boat".into());
        let shown = Shown {
            bbox: BBox::from_xywh([100.0, 20.0, 50.0, 50.0]),
            confidence: 0.5,
            trail: vec![(200.0, 90.0), (125.0, 90.0)],
        };
        detection.track = Some(Track { id: 12, age: 1.0, speed: 9.0, shown: Some(shown) });
        assert_eq!(detection.label(), "boat #12 0.50");
        let mut image = RgbImage::new(320, 160);
        annotate(&mut image, &[detection], false);
        let is_drawn = |x: u32, y: u32| image.get_pixel(x, y).0 == class_color(3);
        // The shown box's left edge, a point of the trail; nothing of the box as it was detected.
        assert_eq!([(100, 45), (160, 90), (10, 30)].map(|(x, y)| is_drawn(x, y)), [true, true, false]);
    }
}
