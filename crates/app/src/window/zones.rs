//! Zones and lines in the window: seen, drawn with the mouse, and kept in a file.

use std::path::PathBuf;

use eframe::egui;
use egui::{Align2, Color32, FontId, Key, Pos2, Rect, RichText, Shape, Stroke, Ui, Vec2};

use super::{LiveApp, zones_file};
use yolo_lat_io::zones::{Line, Point, ShapeError, Zone};

/// Points of the display between two places that are taken for one.
const NEAR: f32 = 8.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Zone,
    Line,
}

impl Kind {
    /// What the command line and the file call it.
    fn word(self) -> &'static str {
        match self {
            Self::Zone => "zone",
            Self::Line => "line",
        }
    }
}

/// What is being drawn, and where what is drawn is kept.
#[derive(Debug)]
pub(super) struct Sketch {
    file: Option<PathBuf>,
    drawing: Option<(Kind, Vec<Point>)>,
    /// Of the next one; empty for a number.
    name: String,
}

impl Sketch {
    pub(super) fn new(file: Option<PathBuf>) -> Self {
        Self { file, drawing: None, name: String::new() }
    }

    pub(super) fn is_drawing(&self) -> bool {
        self.drawing.is_some()
    }

    pub(super) fn stop(&mut self) {
        self.drawing = None;
    }
}

/// A point of the display.
fn on_screen([x, y]: Point, screen: Rect) -> Pos2 {
    screen.min + Vec2::new(x, y) * screen.size()
}

/// The point of the image nearest to one of the display.
fn in_image(at: Pos2, screen: Rect) -> Point {
    let share = (at - screen.min) / screen.size();
    [share.x.clamp(0.0, 1.0), share.y.clamp(0.0, 1.0)]
}

impl LiveApp {
    /// Reads what was drawn another time, unless zones or lines were given.
    pub(super) fn load_zones(&mut self) {
        let follow = &mut self.settings.follow;
        let Some(file) = self.sketch.file.as_ref().filter(|_| follow.zones.is_empty() && follow.lines.is_empty())
        else {
            return;
        };
        match zones_file::load(file) {
            Ok((zones, lines)) => (follow.zones, follow.lines) = (zones, lines),
            Err(error) => self.live.note(true, error.to_string()),
        }
    }

    /// Begins a zone or line; the same again gives it up.
    pub(super) fn toggle_sketch(&mut self, kind: Kind) {
        let same = self.sketch.drawing.as_ref().is_some_and(|(drawn, _)| *drawn == kind);
        self.sketch.drawing = (!same).then(|| (kind, Vec::new()));
    }

    /// Takes the corners that are clicked, keys, and draws what is there so far. Whether it took the click.
    pub(super) fn sketch(&mut self, ui: &Ui, painter: &egui::Painter, response: &egui::Response, screen: Rect) -> bool {
        let Some((kind, points)) = &mut self.sketch.drawing else { return false };
        let pressed = |key: Key| !ui.ctx().egui_wants_keyboard_input() && ui.input(|input| input.key_pressed(key));
        if pressed(Key::Backspace) {
            points.pop();
        }
        let mut is_complete = pressed(Key::Enter) || response.double_clicked();
        if response.clicked()
            && let Some(at) = response.interact_pointer_pos().or(ui.input(|input| input.pointer.latest_pos()))
        {
            // What is clicked beside the image means its border.
            let at = on_screen(in_image(at, screen), screen);
            let is_at =
                |point: Option<&Point>| point.is_some_and(|&point| on_screen(point, screen).distance(at) < NEAR);
            is_complete |= points.len() > 2 && is_at(points.first());
            if !is_at(points.first()) && !is_at(points.last()) {
                points.push(in_image(at, screen));
            }
        }
        let mut path: Vec<Pos2> = points.iter().map(|&point| on_screen(point, screen)).collect();
        painter.extend(path.iter().map(|&at| Shape::circle_filled(at, 4.0, Color32::WHITE)));
        path.extend(response.hover_pos());
        stroke(painter, path);
        is_complete |= *kind == Kind::Line && points.len() == 2;
        if is_complete {
            self.complete_sketch();
        }
        true
    }

    /// Makes what was drawn a zone or line, and keeps it.
    fn complete_sketch(&mut self) {
        let Some((kind, points)) = self.sketch.drawing.take() else { return };
        let follow = &mut self.settings.follow;
        let taken: Vec<&str> = match kind {
            Kind::Zone => follow.zones.iter().map(Zone::name).collect(),
            Kind::Line => follow.lines.iter().map(Line::name).collect(),
        };
        let mut numbered = (1..).map(|number| format!("{} {number}", kind.word()));
        let given = Some(self.sketch.name.trim().to_owned()).filter(|name| !name.is_empty());
        let Some(name) = given.or_else(|| numbered.find(|name| !taken.contains(&name.as_str()))) else { return };
        if taken.contains(&name.as_str()) {
            return self.live.note(true, format!("there is a {} {name:?} already", kind.word()));
        }
        let made = match kind {
            Kind::Zone => Zone::new(&name, points.clone()).map(|zone| follow.zones.push(zone)),
            Kind::Line => line(&name, &points).map(|line| follow.lines.push(line)),
        };
        match made {
            Ok(()) => {
                self.sketch.name.clear();
                self.keep(kind, &name, Some(&points));
            }
            Err(error) => self.live.note(true, error.to_string()),
        }
    }

    /// Writes a change into the file.
    fn keep(&self, kind: Kind, name: &str, points: Option<&[Point]>) {
        let Some(file) = &self.sketch.file else { return };
        match zones_file::change(file, kind.word(), name, points) {
            Ok(()) => {
                let done = if points.is_some() { "kept in" } else { "removed from" };
                self.live.note(false, format!("{} {name:?} {done} {}", kind.word(), file.display()));
            }
            Err(error) => self.live.note(true, error.to_string()),
        }
    }

    /// Zones and lines with their names, and the counts of lines.
    pub(super) fn draw_zones(&self, painter: &egui::Painter, screen: Rect, size: Vec2) {
        let follow = &self.settings.follow;
        let name = |text: String, at: Point| {
            let at = on_screen(at, screen) + Vec2::new(4.0, 2.0);
            let (font, color) = (FontId::proportional(14.0), Color32::WHITE);
            let galley = painter.layout_no_wrap(text, font, color);
            let place = Align2::LEFT_TOP.anchor_size(at, galley.size());
            painter.rect_filled(place.expand(2.0), 2.0, Color32::from_black_alpha(160));
            painter.galley(place.min, galley, color);
        };
        for zone in &follow.zones {
            let around = zone.points().iter().chain(zone.points().first());
            stroke(painter, around.map(|&point| on_screen(point, screen)).collect());
            name(zone.name().to_owned(), zone.points()[0]);
        }
        for line in &follow.lines {
            stroke(painter, line.points().map(|point| on_screen(point, screen)).to_vec());
            let length = 14.0 * size.x / screen.width();
            stroke(
                painter,
                line.arrow((size.x as u32, size.y as u32), length).map(|at| on_screen(at, screen)).to_vec(),
            );
            name(self.line_label(line), line.points()[0]);
        }
    }

    fn line_label(&self, line: &Line) -> String {
        let crossings = self.result.as_ref().and_then(|result| result.counts.get(line.name()).copied());
        let crossings = crossings.unwrap_or_default();
        format!("{}: {} in, {} out", line.name(), crossings.entered, crossings.left)
    }

    /// The section of the side panel.
    pub(super) fn zone_controls(&mut self, ui: &mut Ui) {
        let drawn = self.sketch.drawing.as_ref().map(|(kind, _)| *kind);
        ui.horizontal(|ui| {
            for (kind, text) in [(Kind::Zone, "Draw a zone"), (Kind::Line, "Draw a line")] {
                if ui.selectable_label(drawn == Some(kind), text).clicked() {
                    self.toggle_sketch(kind);
                }
            }
        });
        ui.horizontal(|ui| {
            let label = ui.label("Name");
            let edit =
                egui::TextEdit::singleline(&mut self.sketch.name).hint_text("of the next one").desired_width(180.0);
            ui.add(edit).labelled_by(label.id);
        });
        match drawn {
            Some(Kind::Zone) => drop(ui.weak("click its corners; Enter closes it, Backspace takes the last one back")),
            Some(Kind::Line) => {
                drop(ui.weak("click its ends; `in` is to the right of the way from the first to the second"))
            }
            None => {}
        }
        let mut removed = None;
        let mut row = |ui: &mut Ui, kind: Kind, name: &str, text: String| {
            ui.horizontal(|ui| {
                if ui.small_button("x").on_hover_text(format!("remove {name}")).clicked() {
                    removed = Some((kind, name.to_owned()));
                }
                ui.label(RichText::new(text));
            });
        };
        let detections = self.result.as_ref().map_or(&[][..], |result| &result.detections);
        for zone in &self.settings.follow.zones {
            let inside = detections.iter().filter(|found| found.zones.iter().any(|name| name == zone.name())).count();
            row(ui, Kind::Zone, zone.name(), format!("{}: {inside} inside", zone.name()));
        }
        for line in &self.settings.follow.lines {
            row(ui, Kind::Line, line.name(), self.line_label(line));
        }
        if let Some((kind, name)) = removed {
            match kind {
                Kind::Zone => self.settings.follow.zones.retain(|zone| zone.name() != name),
                Kind::Line => self.settings.follow.lines.retain(|line| line.name() != name),
            }
            self.keep(kind, &name, None);
        }
        if !self.settings.follow.lines.is_empty() && !self.settings.follow.track {
            ui.weak("lines count objects that are followed: see Detector");
        }
        if let Some(file) = &self.sketch.file {
            ui.weak(format!("kept in {}, for --config too", file.display()));
        }
    }
}

fn line(name: &str, points: &[Point]) -> Result<Line, ShapeError> {
    match *points {
        [from, to] => Line::new(name, [from, to]),
        _ => Err(ShapeError::Count { name: name.to_owned(), wanted: "a line has 2 points", count: points.len() }),
    }
}

/// Seen on every ground: white between black.
fn stroke(painter: &egui::Painter, path: Vec<Pos2>) {
    painter.line(path.clone(), Stroke::new(4.0, Color32::from_black_alpha(160)));
    painter.line(path, Stroke::new(1.5, Color32::WHITE));
}
