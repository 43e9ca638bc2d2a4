//! Precision against recall, as PNG or SVG.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::Evaluation;
use crate::plot::{Drawing, write};
use crate::sink::SinkError;

/// Draws the curve of every class at IoU 0.5 and their mean. The extension decides: `.svg` or `.png`.
///
/// # Errors
/// [`SinkError`] if the file cannot be written or has another extension.
pub fn plot_precision_recall(path: &Path, classes: &[String], evaluation: &Evaluation) -> Result<(), SinkError> {
    write(path, &PrecisionRecall { classes, evaluation })
}

struct PrecisionRecall<'a> {
    classes: &'a [String],
    evaluation: &'a Evaluation,
}

impl Drawing for PrecisionRecall<'_> {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<(), String> {
        let Self { classes, evaluation } = self;
        let fail = |error: DrawingAreaErrorKind<B::ErrorType>| error.to_string();
        area.fill(&WHITE).map_err(fail)?;
        let title = format!("Precision and recall at IoU 0.5, mAP50 {:.1} %", 100.0 * evaluation.map50);
        let mut chart = ChartBuilder::on(area)
            .caption(title, ("sans-serif", 24))
            .margin(16)
            .margin_right(24)
            .x_label_area_size(44)
            .y_label_area_size(52)
            .build_cartesian_2d(0.0..1.0, 0.0..1.0)
            .map_err(fail)?;
        let mut mesh = chart.configure_mesh();
        mesh.x_desc("recall")
            .y_desc("precision")
            .label_style(("sans-serif", 16))
            .light_line_style(WHITE)
            .draw()
            .map_err(fail)?;
        for result in &evaluation.per_class {
            let color = Palette99::pick(result.class).to_rgba();
            let points = result.curve.recall.iter().copied().zip(result.curve.precision.iter().copied());
            let label = format!("{} {:.1}", classes[result.class], 100.0 * result.ap50);
            let line = chart.draw_series(LineSeries::new(points, color.mix(0.6))).map_err(fail)?;
            line.label(label).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
        }
        let mean = chart.draw_series(LineSeries::new(mean_curve(evaluation), BLACK.stroke_width(3))).map_err(fail)?;
        let label = format!("mean {:.1}", 100.0 * evaluation.map50);
        mean.label(label).legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], BLACK.stroke_width(3)));
        let mut labels = chart.configure_series_labels();
        let labels = labels.position(SeriesLabelPosition::LowerLeft).label_font(("sans-serif", 14));
        labels.background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).draw().map_err(fail)?;
        area.present().map_err(fail)
    }
}

/// Mean over the classes of the best precision at each recall.
fn mean_curve(evaluation: &Evaluation) -> Vec<(f64, f64)> {
    let best_from = |recall: f64| {
        let best = evaluation.per_class.iter().map(|result| {
            let points = result.curve.recall.iter().zip(&result.curve.precision);
            points.filter(|(r, _)| **r >= recall).map(|(_, p)| *p).fold(0.0, f64::max)
        });
        best.sum::<f64>() / evaluation.per_class.len().max(1) as f64
    };
    (0..=100).map(|index| f64::from(index) / 100.0).map(|recall| (recall, best_from(recall))).collect()
}
