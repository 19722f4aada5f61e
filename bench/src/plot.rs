//! Plots.

use std::path::Path;

use anyhow::Context as _;
use plotters::prelude::*;

/// A named line.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

const COLOURS: [RGBColor; 5] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(255, 127, 14),
];

/// Draws lines over two logarithmic axes.
pub(crate) fn draw(file: &Path, title: &str, axes: (&str, &str), lines: &[Line]) -> anyhow::Result<()> {
    let points = || lines.iter().flat_map(|line| &line.points).copied();
    let range = |values: &dyn Fn((f64, f64)) -> f64, above: f64| {
        let (low, high) =
            points().map(values).fold((f64::MAX, f64::MIN), |(low, high), at| (low.min(at), high.max(at)));
        // Room for the outermost points, and above them for the legend.
        (low * 0.8..high * above).log_scale()
    };
    anyhow::ensure!(points().all(|(x, y)| x > 0.0 && y > 0.0), "{title}: a logarithm needs more than 0");
    points().next().context("no points")?;
    let area = SVGBackend::new(file, (720, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(64)
        .build_cartesian_2d(range(&|(x, _)| x, 1.25), range(&|(_, y)| y, 6.0))?;
    let number = |value: &f64| if *value >= 1.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    chart
        .configure_mesh()
        .x_desc(axes.0)
        .y_desc(axes.1)
        .x_label_formatter(&number)
        .y_label_formatter(&number)
        .draw()?;
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), colour.stroke_width(2)).point_size(3))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(area.present()?)
}
