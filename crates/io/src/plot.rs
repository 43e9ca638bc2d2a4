//! Charts as PNG or SVG.

use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::ranged1d::Ranged;
use plotters::prelude::*;

use crate::sink::{SinkError, use_own_font, write_atomically};

const SIZE: (u32, u32) = (960, 720);

/// Something that can be drawn on any backend.
pub(crate) trait Drawing {
    /// Draws on the whole area.
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<(), String>;

    /// Width and height in pixels.
    fn size(&self) -> (u32, u32) {
        SIZE
    }
}

/// Writes a drawing; the extension decides: `.svg` or `.png`.
pub(crate) fn write(path: &Path, drawing: &impl Drawing) -> Result<(), SinkError> {
    use_own_font();
    let size = drawing.size();
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    match extension.as_deref() {
        Some("svg") => {
            let mut svg = String::new();
            let drawn = drawing.draw(&SVGBackend::with_string(&mut svg, size).into_drawing_area());
            write_atomically(path, |file| {
                drawn.map_err(std::io::Error::other)?;
                std::io::Write::write_all(file, svg.as_bytes())
            })
        }
        Some("png") => {
            let mut image = image::RgbImage::new(size.0, size.1);
            let drawn = drawing.draw(&BitMapBackend::with_buffer(&mut image, size).into_drawing_area());
            write_atomically(path, |file| {
                drawn.map_err(std::io::Error::other)?;
                let encoder = image::codecs::png::PngEncoder::new(file);
                image.write_with_encoder(encoder).map_err(std::io::Error::other)
            })
        }
        _ => write_atomically(path, |_| Err(std::io::Error::other("a plot is written as .png or .svg"))),
    }
}

/// A named line.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// What the legend says.
    pub name: String,
    /// Points from left to right.
    pub points: Vec<(f64, f64)>,
}

/// Lines with both axes logarithmic.
#[derive(Clone, Debug, PartialEq)]
pub struct LogChart {
    /// Above the chart.
    pub title: String,
    /// What x and y are, with units.
    pub axes: [String; 2],
    /// The lines; points that are not positive and finite have no place here and are left out.
    pub lines: Vec<Line>,
}

impl LogChart {
    /// Writes the chart; the extension decides: `.svg` or `.png`.
    ///
    /// # Errors
    /// [`SinkError`] if the file cannot be written, has another extension, or there is nothing to draw.
    pub fn save(&self, path: &Path) -> Result<(), SinkError> {
        write(path, self)
    }
}

impl Drawing for LogChart {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<(), String> {
        let Self { title, axes, lines } = self;
        let fail = |error: DrawingAreaErrorKind<B::ErrorType>| error.to_string();
        let shown = |line: &Line| -> Vec<(f64, f64)> {
            line.points.iter().copied().filter(|(x, y)| *x > 0.0 && *y > 0.0 && y.is_finite()).collect()
        };
        let all: Vec<(f64, f64)> = lines.iter().flat_map(shown).collect();
        // `room` is left above, as a share of the whole: for the legend.
        let range = |pick: fn(&(f64, f64)) -> f64, room: f64| {
            let values = || all.iter().map(pick);
            let (low, high) = (values().fold(f64::INFINITY, f64::min) * 0.8, values().fold(0.0, f64::max) * 1.25);
            low..high * (high / low).powf(room)
        };
        area.fill(&WHITE).map_err(fail)?;
        if all.is_empty() {
            return Err("there is nothing to draw".into());
        }
        let mut chart = ChartBuilder::on(area)
            .caption(title, ("sans-serif", 24))
            .margin(16)
            .margin_right(24)
            .x_label_area_size(44)
            .y_label_area_size(76)
            .build_cartesian_2d(range(|p| p.0, 0.0).log_scale(), range(|p| p.1, 0.3).log_scale())
            .map_err(fail)?;
        let mut mesh = chart.configure_mesh();
        let number = |x: &f64| {
            if (0.001..100_000.0).contains(x) { format!("{}", (x * 1e4).round() / 1e4) } else { format!("{x:.0e}") }
        };
        mesh.x_desc(&axes[0]).y_desc(&axes[1]).label_style(("sans-serif", 16)).light_line_style(WHITE);
        mesh.x_label_formatter(&number).y_label_formatter(&number).draw().map_err(fail)?;
        let shown: Vec<Line> = lines.iter().map(|line| Line { name: line.name.clone(), points: shown(line) }).collect();
        draw_lines(&mut chart, &shown, 3).map_err(fail)?;
        let mut labels = chart.configure_series_labels();
        let labels = labels.position(SeriesLabelPosition::UpperLeft).label_font(("sans-serif", 16));
        labels.background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).draw().map_err(fail)?;
        area.present().map_err(fail)
    }
}

/// Lines and their points as discs of `radius` pixels, each with its name for the legend.
fn draw_lines<B, X, Y>(
    chart: &mut ChartContext<'_, B, Cartesian2d<X, Y>>,
    lines: &[Line],
    radius: i32,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>>
where
    B: DrawingBackend,
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    for (index, Line { name, points }) in lines.iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        let series = chart.draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?;
        series.label(name).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
        chart.draw_series(points.iter().map(|&point| Circle::new(point, radius, color.filled())))?;
    }
    Ok(())
}

/// What lies around a line: x, lower and upper end, from left to right.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Band(pub Vec<(f64, f64, f64)>);

/// Lines with both axes linear.
#[derive(Clone, Debug, PartialEq)]
pub struct LineChart {
    /// Above the chart.
    pub title: String,
    /// What x and y are, with units.
    pub axes: [String; 2],
    /// The lines; points that are not finite are left out.
    pub lines: Vec<Line>,
    /// Bands in the colours of the lines, in their order; there may be fewer.
    pub bands: Vec<Band>,
    /// Whether the lines rise, so that the legend has room below them.
    pub rises: bool,
}

/// Writes charts one below the other, all from 0 to the largest x of any; the extension decides: `.svg` or `.png`.
///
/// # Errors
/// [`SinkError`] if the file cannot be written, has another extension, or there is nothing to draw.
pub fn save_panels(path: &Path, charts: &[LineChart]) -> Result<(), SinkError> {
    write(path, &Panels(charts))
}

struct Panels<'a>(&'a [LineChart]);

impl Drawing for Panels<'_> {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<(), String> {
        let fail = |error: DrawingAreaErrorKind<B::ErrorType>| error.to_string();
        area.fill(&WHITE).map_err(fail)?;
        let points = self.0.iter().flat_map(|chart| &chart.lines).flat_map(|line| &line.points);
        let most = points.map(|point| point.0).filter(|x| x.is_finite()).fold(1.0, f64::max);
        for (chart, panel) in self.0.iter().zip(area.split_evenly((self.0.len(), 1))) {
            chart.draw(&panel, most)?;
        }
        area.present().map_err(fail)
    }

    /// Higher, where there would be no room for legends.
    fn size(&self) -> (u32, u32) {
        (SIZE.0, SIZE.1.max(self.0.len() as u32 * SIZE.1 / 2))
    }
}

impl LineChart {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, most: f64) -> Result<(), String> {
        let fail = |error: DrawingAreaErrorKind<B::ErrorType>| error.to_string();
        let is_finite = |&(x, y): &(f64, f64)| x.is_finite() && y.is_finite();
        let shown = |line: &Line| Line {
            name: line.name.clone(),
            points: line.points.iter().copied().filter(is_finite).collect(),
        };
        let lines: Vec<Line> = self.lines.iter().map(shown).collect();
        let ends = self.bands.iter().flat_map(|band| &band.0).flat_map(|&(_, low, high)| [low, high]);
        let ends: Vec<f64> = ends.filter(|end| end.is_finite()).collect();
        let values = || lines.iter().flat_map(|line| &line.points).map(|point| point.1).chain(ends.iter().copied());
        let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        let room = if high > low { 0.05 * (high - low) } else { 0.5 };
        if lines.iter().all(|line| line.points.is_empty()) {
            return Err(format!("{}: there is nothing to draw", self.title));
        }
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 20))
            .margin(10)
            .margin_right(24)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..most * 1.02, low - room..high + room)
            .map_err(fail)?;
        let mut mesh = chart.configure_mesh();
        let number = |x: &f64| format!("{}", (x * 1e3).round() / 1e3);
        mesh.x_desc(&self.axes[0]).y_desc(&self.axes[1]).label_style(("sans-serif", 14)).light_line_style(WHITE);
        mesh.x_label_formatter(&number).y_label_formatter(&number).draw().map_err(fail)?;
        for (index, Band(points)) in self.bands.iter().enumerate() {
            let below = points.iter().map(|&(x, low, _)| (x, low));
            let above = points.iter().rev().map(|&(x, _, high)| (x, high));
            let outline: Vec<(f64, f64)> = below.chain(above).filter(is_finite).collect();
            let band = Polygon::new(outline, Palette99::pick(index).mix(0.2).filled());
            chart.draw_series(std::iter::once(band)).map_err(fail)?;
        }
        draw_lines(&mut chart, &lines, 2).map_err(fail)?;
        let mut labels = chart.configure_series_labels();
        let corner = if self.rises { SeriesLabelPosition::LowerRight } else { SeriesLabelPosition::UpperRight };
        let labels = labels.position(corner).label_font(("sans-serif", 14));
        labels.background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).draw().map_err(fail)
    }
}

/// A named point.
#[derive(Clone, Debug, PartialEq)]
pub struct Dot {
    /// Written beside it.
    pub name: String,
    /// Where it is.
    pub at: (f64, f64),
    /// Of its disc, in any unit: the largest fills a fixed size.
    pub area: f64,
}

/// Discs with names.
#[derive(Clone, Debug, PartialEq)]
pub struct ScatterChart {
    /// Above the chart.
    pub title: String,
    /// What x and y are, with units.
    pub axes: [String; 2],
    /// What the discs' areas are.
    pub area: String,
    /// The discs.
    pub points: Vec<Dot>,
}

impl ScatterChart {
    /// Radius of the largest disc in pixels.
    const LARGEST: f64 = 22.0;

    /// Writes the chart; the extension decides: `.svg` or `.png`.
    ///
    /// # Errors
    /// [`SinkError`] if the file cannot be written, has another extension, or there is nothing to draw.
    pub fn save(&self, path: &Path) -> Result<(), SinkError> {
        write(path, self)
    }
}

impl Drawing for ScatterChart {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<(), String> {
        let fail = |error: DrawingAreaErrorKind<B::ErrorType>| error.to_string();
        area.fill(&WHITE).map_err(fail)?;
        if self.points.is_empty() {
            return Err("there is nothing to draw: no model has a value for this chart".into());
        }
        let least = |values: &dyn Fn(&Dot) -> f64| self.points.iter().map(values).fold(f64::INFINITY, f64::min);
        let most = |values: &dyn Fn(&Dot) -> f64| self.points.iter().map(values).fold(0.0, f64::max);
        let (x, y) = (|dot: &Dot| dot.at.0, |dot: &Dot| dot.at.1);
        let margin = (0.15 * (most(&y) - least(&y))).max(0.05 * most(&y));
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 24))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(60)
            // Names stand to the right of their discs.
            .build_cartesian_2d(0.0..most(&x) * 1.35, (least(&y) - margin).max(0.0)..most(&y) + margin)
            .map_err(fail)?;
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(format!("{} ({})", self.axes[0], self.area)).y_desc(&self.axes[1]).label_style(("sans-serif", 16));
        mesh.light_line_style(WHITE)
            .x_label_formatter(&|x| format!("{}", (x * 100.0).round() / 100.0))
            .draw()
            .map_err(fail)?;
        let largest = most(&|dot| dot.area).max(f64::MIN_POSITIVE);
        let radius = |dot: &Dot| (Self::LARGEST * (dot.area / largest).sqrt()).max(3.0) as i32;
        let pixel = |dot: &Dot| chart.backend_coord(&dot.at);
        // Left, top, right and bottom of what a name must not hide: all discs, and the names before it.
        let square = |dot: &Dot| {
            let ((x, y), radius) = (pixel(dot), radius(dot));
            [x - radius, y - radius, x + radius, y + radius]
        };
        let mut taken: Vec<[i32; 4]> = self.points.iter().map(square).collect();
        let style: TextStyle = ("sans-serif", 14).into_font().into();
        let mut names = Vec::new();
        for dot in &self.points {
            let (width, height) = area.estimate_text_size(&dot.name, &style).map_err(fail)?;
            let ((x, y), right) = (pixel(dot), radius(dot) + 4);
            let place = |shift: i32| [x + right, y + shift, x + right + width as i32, y + shift + height as i32];
            let free = |shift: &i32| {
                let [left, top, right, bottom] = place(*shift);
                !taken.iter().any(|other| left < other[2] && other[0] < right && top < other[3] && other[1] < bottom)
            };
            // Beside the middle of the disc if nothing is there, else the nearest place above or below.
            let middle = -(height as i32) / 2;
            let shift = (0..=40).flat_map(|way| [middle - way, middle + way]).find(free).unwrap_or(middle);
            taken.push(place(shift));
            names.push(EmptyElement::at(dot.at) + Text::new(dot.name.clone(), (right, shift), style.clone()));
        }
        for (index, dot) in self.points.iter().enumerate() {
            let disc = Circle::new(dot.at, radius(dot), Palette99::pick(index).mix(0.6).filled());
            chart.draw_series(std::iter::once(disc)).map_err(fail)?;
        }
        chart.draw_series(names).map_err(fail)?;
        area.present().map_err(fail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_panels_make_a_high_picture() {
        let folder = tempfile::tempdir().unwrap();
        let line = |name: &str| Line { name: name.to_owned(), points: vec![(1.0, 2.0), (2.0, 3.0)] };
        let chart = LineChart {
            title: "Loss".into(),
            axes: ["step".into(), "nats".into()],
            lines: ["a", "b", "c", "d", "e", "f", "g"].map(line).to_vec(),
            bands: Vec::new(),
            rises: false,
        };
        for (panels, height) in [(1, 720), (2, 720), (3, 1080), (5, 1800)] {
            let path = folder.path().join("panels.png");
            save_panels(&path, &vec![chart.clone(); panels]).unwrap();
            let image = image::ImageReader::open(&path).unwrap().decode().unwrap();
            assert_eq!((image.width(), image.height()), (960, height));
        }
    }
}
