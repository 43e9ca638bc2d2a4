//! Charts beside the image.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use eframe::egui;
use egui::{Color32, Ui};
use egui_plot::{FilledArea, Legend, Line, Plot, PlotPoints, Points};

use crate::live::{History, Sample};
use yolo_lat::attention::{HadamardExp, Rows, linear_f32, softmax_f32};

/// Width of a head as in the networks.
const WIDTH: usize = 16;
/// Input sizes whose tokens at stride 16 are measured.
const SIZES: [usize; 7] = [160, 320, 480, 640, 800, 1040, 1280];

/// Colours of the stages, in their order.
const COLORS: [Color32; 6] = [
    Color32::from_rgb(122, 162, 247),
    Color32::from_rgb(125, 207, 255),
    Color32::from_rgb(158, 206, 106),
    Color32::from_rgb(224, 175, 104),
    Color32::from_rgb(247, 118, 142),
    Color32::from_rgb(187, 154, 247),
];

/// Times of the stages over the last seconds, one upon the other.
pub(super) fn stages(ui: &mut Ui, history: &History, now: Instant) {
    let times: Vec<f64> = history.iter().map(|(at, _)| -now.saturating_duration_since(*at).as_secs_f64()).collect();
    let plot = Plot::new("stages").height(130.0).include_y(0.0).include_x(-10.0).include_x(0.0);
    let plot = plot.allow_drag(false).allow_zoom(false).allow_scroll(false).x_axis_label("seconds").y_axis_label("ms");
    plot.show(ui, |plot| {
        let mut below = vec![0.0; times.len()];
        for (stage, (name, color)) in Sample::STAGES.iter().zip(COLORS).enumerate() {
            let above: Vec<f64> =
                history.iter().zip(&below).map(|((_, sample), below)| below + sample.stages_ms()[stage]).collect();
            plot.add(FilledArea::new(*name, &times, &below, &above).fill_color(color));
            below = above;
        }
    });
    // Beside the plot it would cover what it explains.
    ui.horizontal_wrapped(|ui| {
        for (name, color) in Sample::STAGES.iter().zip(COLORS) {
            ui.colored_label(color, *name);
        }
    });
}

/// Milliseconds of one head of attention against tokens.
#[derive(Clone, Debug, Default)]
struct Measured {
    ela: Vec<[f64; 2]>,
    softmax: Vec<[f64; 2]>,
    running: bool,
}

/// Attention measured on this machine's processor while the window is open.
#[derive(Default)]
pub(super) struct AttentionTimes {
    measured: Arc<Mutex<Measured>>,
}

fn tokens(size: usize) -> usize {
    (size / 16).pow(2)
}

impl AttentionTimes {
    /// Measures in a thread of its own.
    fn start(&self) -> std::io::Result<()> {
        let shared = self.measured.clone();
        *shared.lock().unwrap_or_else(PoisonError::into_inner) = Measured { running: true, ..Measured::default() };
        let work = move || {
            for size in SIZES {
                let tokens = tokens(size);
                let values: Vec<f32> = (0..tokens * WIDTH).map(|i| ((i % 8191) as f32 * 0.71).sin()).collect();
                let rows = Rows::new(&values, WIDTH);
                let least = |work: &dyn Fn()| {
                    let time = |_| {
                        let start = Instant::now();
                        work();
                        start.elapsed().as_secs_f64() * 1e3
                    };
                    (0..3).map(time).fold(f64::INFINITY, f64::min)
                };
                let ela = least(&|| drop(linear_f32(&HadamardExp, rows, rows, rows)));
                let softmax = least(&|| drop(softmax_f32(rows, rows, rows)));
                let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
                shared.ela.push([tokens as f64, ela]);
                shared.softmax.push([tokens as f64, softmax]);
            }
            shared.lock().unwrap_or_else(PoisonError::into_inner).running = false;
        };
        std::thread::Builder::new().name("measure".into()).spawn(work).map(drop)
    }

    /// The chart; `size` is the network's input now.
    pub(super) fn show(&self, ui: &mut Ui, size: usize) {
        let measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ui.horizontal(|ui| {
            if ui.add_enabled(!measured.running, egui::Button::new("Measure attention")).clicked()
                && let Err(error) = self.start()
            {
                log::warn!("{error}");
            }
            if measured.running {
                ui.spinner();
            }
        });
        if measured.ela.is_empty() {
            ui.weak("time of one head against tokens, linear and softmax, on this processor");
            return;
        }
        let plot = Plot::new("attention").height(150.0).legend(Legend::default()).include_y(0.0);
        let plot =
            plot.allow_drag(false).allow_zoom(false).allow_scroll(false).x_axis_label("tokens").y_axis_label("ms");
        plot.show(ui, |plot| {
            let here = tokens(size) as f64;
            for (name, points, color) in
                [("linear (ELA)", &measured.ela, COLORS[2]), ("softmax", &measured.softmax, COLORS[4])]
            {
                plot.line(Line::new(name, PlotPoints::from(points.clone())).color(color).width(2.0));
                let nearest = points.iter().min_by(|a, b| (a[0] - here).abs().total_cmp(&(b[0] - here).abs()));
                if let Some(&point) = nearest {
                    plot.points(Points::new(name, PlotPoints::from(vec![point])).radius(5.0).color(color));
                }
            }
        });
    }
}
