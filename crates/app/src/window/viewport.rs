//! The image with what was found in it: aspect kept, zoom and pan, boxes, pins, and attention as a heat map.

use eframe::egui;
use egui::{Align2, Color32, FontId, Mesh, Pos2, Rect, Sense, Shape, Stroke, StrokeKind, Vec2};

use super::LiveApp;
use crate::live::{LiveResult, SourceStatus};
use yolo_lat::AttentionView;
use yolo_lat::attention::mean_of_heads;
use yolo_lat::geometry::BBox;
use yolo_lat_io::sink::{Drawing, NamedDetection, Track, class_color, ink, label_places};

/// Zoom factors.
const ZOOM: std::ops::RangeInclusive<f32> = 1.0..=16.0;
/// A pinned box without a track follows the detection of its class that overlaps it most, if that is at least this.
const FOLLOW: f32 = 0.3;

/// Which part of the image is seen.
#[derive(Debug)]
pub(super) struct Viewport {
    zoom: f32,
    /// What is in the middle, 0..1 of the image.
    center: Vec2,
    pinned: Option<NamedDetection>,
}

impl Default for Viewport {
    fn default() -> Self {
        Self { zoom: 1.0, center: Vec2::splat(0.5), pinned: None }
    }
}

impl Viewport {
    pub(super) fn reset(&mut self) {
        (self.zoom, self.center) = (1.0, Vec2::splat(0.5));
    }

    pub(super) fn unpin(&mut self) {
        self.pinned = None;
    }

    /// Where an image of `size` pixels lies when it is seen in `area`.
    pub(super) fn screen_from_image(&self, area: Rect, size: Vec2) -> Rect {
        let scale = (area.width() / size.x).min(area.height() / size.y) * self.zoom;
        let shown = size * scale;
        // The image is never pulled away from the middle of the area.
        Rect::from_min_size(area.center() - self.center * shown, shown)
    }

    /// Zooms by `factor` around a point that stays where it is, and pans.
    fn navigate(&mut self, area: Rect, size: Vec2, around: Option<Pos2>, factor: f32, pan: Vec2) {
        let before = self.screen_from_image(area, size);
        let fixed = around.map(|point| (point, (point - before.min) / before.size()));
        self.zoom = (self.zoom * factor).clamp(*ZOOM.start(), *ZOOM.end());
        let shown = self.screen_from_image(area, size).size();
        if let Some((point, at)) = fixed {
            self.center = at + (area.center() - point) / shown;
        }
        self.center -= pan / shown;
        // What is zoomed out entirely is centred.
        let slack = |shown: f32, area: f32| (0.5 - 0.5 * area / shown).clamp(0.0, 0.5);
        let (x, y) = (slack(shown.x, area.width()), slack(shown.y, area.height()));
        self.center = self.center.clamp(Vec2::new(0.5 - x, 0.5 - y), Vec2::new(0.5 + x, 0.5 + y));
    }
}

fn rect_of(bbox: &BBox, screen: Rect, size: Vec2) -> Rect {
    let point = |x: f32, y: f32| screen.min + Vec2::new(x, y) / size * screen.size();
    Rect::from_min_max(point(bbox.x1, bbox.y1), point(bbox.x2, bbox.y2))
}

fn bbox_of(rect: Rect) -> BBox {
    BBox { x1: rect.left(), y1: rect.top(), x2: rect.right(), y2: rect.bottom() }
}

impl LiveApp {
    /// The middle of the window.
    pub(super) fn image(&mut self, ui: &mut egui::Ui) {
        let (area, response) = ui.allocate_exact_size(ui.available_size(), Sense::click_and_drag());
        let painter = ui.painter_at(area);
        let size = self.shown.as_ref().map(|shown| Vec2::new(shown.frame.width() as f32, shown.frame.height() as f32));
        if let Some(size) = size {
            let (scroll, pinch) = ui.input(|input| (input.smooth_scroll_delta.y, input.zoom_delta()));
            let pointer = response.hover_pos();
            let factor = if pointer.is_some() { (scroll * 0.005).exp() * pinch } else { 1.0 };
            let pan = if response.dragged() { response.drag_delta() } else { Vec2::ZERO };
            self.viewport.navigate(area, size, pointer, factor, pan);
            if response.double_clicked() && !self.sketch.is_drawing() {
                self.viewport.reset();
            }
            let screen = self.viewport.screen_from_image(area, size);
            if let Some(texture) = self.pool.as_ref().and_then(|pool| pool.shown()) {
                let lost = matches!(self.feed().source().0, SourceStatus::Lost { .. } | SourceStatus::Failed { .. });
                let tint = if lost { Color32::from_gray(90) } else { Color32::WHITE };
                let uv = Rect::from_min_max(Pos2::ZERO, Pos2::new(1.0, 1.0));
                painter.image(texture, screen, uv, tint);
            }
            self.draw_zones(&painter, screen, size);
            let is_taken = self.sketch(ui, &painter, &response, screen);
            if let Some(result) = self.result.clone() {
                let hovered = self.draw_result(&painter, &response, screen, size, &result);
                if response.clicked() && !is_taken {
                    let at = response.interact_pointer_pos().or(ui.input(|input| input.pointer.latest_pos()));
                    self.click(at.map(|at| (at - screen.min) / screen.size() * size), size, hovered);
                }
            }
        }
        if let Some(message) = self.message() {
            let font = FontId::proportional(18.0);
            let galley = painter.layout(message, font, Color32::WHITE, area.width() * 0.8);
            let place = Align2::CENTER_CENTER.anchor_size(area.center(), galley.size());
            painter.rect_filled(place.expand(12.0), 6.0, Color32::from_black_alpha(190));
            painter.galley(place.min, galley, Color32::WHITE);
        }
    }

    /// What was found, over the image; gives what is under the pointer.
    fn draw_result(
        &mut self,
        painter: &egui::Painter,
        response: &egui::Response,
        screen: Rect,
        size: Vec2,
        result: &LiveResult,
    ) -> Option<NamedDetection> {
        if self.attention.shown {
            if let Some(view) = &result.attention {
                heat_map(painter, screen, size, result, view, self.attention.head);
            }
            if let Some((x, y)) = self.probe {
                let at = screen.min + Vec2::new(x, y) / size * screen.size();
                painter.circle_stroke(at, 7.0, Stroke::new(3.0, Color32::BLACK));
                painter.circle_stroke(at, 7.0, Stroke::new(1.5, Color32::WHITE));
            }
        }
        self.follow_pin(result);
        // Hidden objects are in the image already.
        if self.drawing != Drawing::Box {
            return None;
        }
        let pointer = response.hover_pos();
        let under = |detection: &&NamedDetection| {
            pointer.is_some_and(|at| rect_of(&detection.shown_box(), screen, size).contains(at))
        };
        // The smallest box under the pointer is meant.
        let hovered = result.detections.iter().filter(under).min_by(|a, b| a.bbox.area().total_cmp(&b.bbox.area()));
        for detection in result.detections.iter().rev() {
            let is_pinned = self.viewport.pinned.as_ref().is_some_and(|pinned| pinned.bbox == detection.bbox);
            let marked = is_pinned || hovered.is_some_and(|hovered| std::ptr::eq(hovered, detection));
            let stroke = Stroke::new(if marked { 4.0 } else { 2.0 }, color32(class_color(detection.class)));
            let on_screen = |&(x, y): &(f32, f32)| screen.min + Vec2::new(x, y) / size * screen.size();
            painter.line(detection.trail().iter().map(on_screen).collect(), stroke);
            painter.rect_stroke(rect_of(&detection.shown_box(), screen, size), 2.0, stroke, StrokeKind::Inside);
        }
        draw_labels(painter, &result.detections, screen, size);
        if let Some(detection) = hovered {
            let [_, _, width, height] = detection.bbox.xywh();
            let track = detection.track.as_ref();
            let track = track.map(|Track { id, age, speed, .. }| format!("\n#{id}, {age:.1} s, {speed:.0} pixels/s"));
            let text = format!(
                "{}\nconfidence {:.3}\n{width:.0} x {height:.0} pixels{}\n{}",
                detection.name,
                detection.confidence,
                track.unwrap_or_default(),
                if self.attention.shown { "click: attention of this point" } else { "click to pin" }
            );
            response.clone().on_hover_text_at_pointer(text);
        }
        hovered.cloned()
    }

    /// A click at a point of the image, on an object or none.
    fn click(&mut self, at: Option<Vec2>, size: Vec2, hovered: Option<NamedDetection>) {
        if let Some(point) = at.filter(|_| self.attention.shown) {
            let inside = Rect::from_min_size(Pos2::ZERO, size).contains(point.to_pos2());
            self.probe = inside.then_some((point.x, point.y));
        } else if at.is_some() {
            self.viewport.pinned = hovered;
        }
    }

    /// A pin stays on its object from frame to frame.
    fn follow_pin(&mut self, result: &LiveResult) {
        if let Some(pinned) = &mut self.viewport.pinned {
            let id = |detection: &NamedDetection| detection.track.as_ref().map(|track| track.id);
            let same = result.detections.iter().filter(|detection| match (id(pinned), id(detection)) {
                (Some(pinned), Some(other)) => pinned == other,
                _ => detection.class == pinned.class && detection.bbox.iou(&pinned.bbox) >= FOLLOW,
            });
            if let Some(nearest) = same.max_by(|a, b| a.bbox.iou(&pinned.bbox).total_cmp(&b.bbox.iou(&pinned.bbox))) {
                *pinned = nearest.clone();
            }
        }
    }

    /// The pinned object, for the side panel.
    pub(super) fn pinned(&self) -> Option<&NamedDetection> {
        self.viewport.pinned.as_ref()
    }
}

fn color32([red, green, blue]: [u8; 3]) -> Color32 {
    Color32::from_rgb(red, green, blue)
}

/// Names and confidences beside the boxes that are seen, the most confident on top.
fn draw_labels(painter: &egui::Painter, detections: &[NamedDetection], screen: Rect, size: Vec2) {
    let clip = painter.clip_rect();
    let mut seen = Vec::new();
    let mut labels = Vec::new();
    for detection in detections {
        let rect = rect_of(&detection.shown_box(), screen, size);
        if rect.intersects(clip) {
            let color = class_color(detection.class);
            let galley = painter.layout_no_wrap(detection.label(), FontId::proportional(14.0), color32(ink(color)));
            labels.push((bbox_of(rect), (galley.size().x + 8.0, galley.size().y + 2.0)));
            seen.push((color32(color), galley));
        }
    }
    let places = label_places(bbox_of(clip), &labels);
    for ((color, galley), place) in seen.into_iter().zip(places).rev() {
        let place = Rect::from_min_max(Pos2::new(place.x1, place.y1), Pos2::new(place.x2, place.y2));
        painter.rect_filled(place, 2.0, color);
        painter.galley(place.min + Vec2::new(4.0, 1.0), galley, Color32::PLACEHOLDER);
    }
}

/// One cell for each position: the brighter, the more the query looks there. The largest weight is the brightest.
fn heat_map(
    painter: &egui::Painter,
    screen: Rect,
    size: Vec2,
    result: &LiveResult,
    view: &AttentionView,
    head: Option<usize>,
) {
    let weights = match head.filter(|&head| head < view.weights.nrows()) {
        Some(head) => view.weights.row(head).to_vec(),
        None => mean_of_heads(&view.weights),
    };
    let most = weights.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let (rows, columns) = view.grid;
    let letterbox = &result.letterbox;
    let (width, height) = (letterbox.input.0 as f32 / columns as f32, letterbox.input.1 as f32 / rows as f32);
    let mut mesh = Mesh::default();
    for (position, weight) in weights.iter().enumerate() {
        let (row, column) = (position / columns, position % columns);
        let (x, y) = (column as f32 * width, row as f32 * height);
        let cell = BBox { x1: x, y1: y, x2: x + width, y2: y + height };
        let rect = rect_of(&letterbox.image_from_letterbox(&cell), screen, size).intersect(screen);
        if rect.is_positive() {
            let share = weight / most;
            let colour = colorous::INFERNO.eval_continuous(share);
            let alpha = 70.0 + 130.0 * share;
            mesh.add_colored_rect(rect, Color32::from_rgba_unmultiplied(colour.r, colour.g, colour.b, alpha as u8));
        }
    }
    painter.add(Shape::mesh(mesh));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_fills_the_area_and_the_point_under_the_wheel_stays() {
        let area = Rect::from_min_size(Pos2::new(10.0, 20.0), Vec2::new(800.0, 600.0));
        let size = Vec2::new(640.0, 320.0);
        let mut viewport = Viewport::default();
        let whole = viewport.screen_from_image(area, size);
        assert_eq!((whole.width(), whole.center()), (800.0, area.center()));
        let point = Pos2::new(300.0, 330.0);
        let before = (point - whole.min) / whole.size();
        viewport.navigate(area, size, Some(point), 4.0, Vec2::ZERO);
        let zoomed = viewport.screen_from_image(area, size);
        let after = (point - zoomed.min) / zoomed.size();
        assert!((before - after).length() < 1e-4, "{before:?} {after:?}");
        // Panning stops at the border; zooming out centres again.
        viewport.navigate(area, size, None, 1.0, Vec2::new(1e6, 1e6));
        let border = viewport.screen_from_image(area, size);
        assert!((border.left() - area.left()).abs() < 0.5 && (border.top() - area.top()).abs() < 0.5, "{border:?}");
        viewport.navigate(area, size, None, 1e-3, Vec2::ZERO);
        assert_eq!(viewport.screen_from_image(area, size), whole);
    }
}
