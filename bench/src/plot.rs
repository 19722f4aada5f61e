//! Plots.

use std::path::Path;

use anyhow::Context as _;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;

/// A named line.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// The names of two axes, and whether they are logarithmic. A linear axis begins at 0.
pub(crate) struct Axes {
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    pub(crate) logarithmic: bool,
}

impl Axes {
    pub(crate) const fn logarithmic(x: &'static str, y: &'static str) -> Self {
        Self { x, y, logarithmic: true }
    }

    pub(crate) const fn linear(x: &'static str, y: &'static str) -> Self {
        Self { x, y, logarithmic: false }
    }
}

const COLOURS: [RGBColor; 8] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(255, 127, 14),
    RGBColor(23, 190, 207),
    RGBColor(140, 86, 75),
    RGBColor(127, 127, 127),
];

/// Draws lines.
pub(crate) fn draw(file: &Path, title: &str, axes: &Axes, lines: &[Line]) -> anyhow::Result<()> {
    let points = || lines.iter().flat_map(|line| &line.points).copied();
    let range = |values: &dyn Fn((f64, f64)) -> f64| {
        points().map(values).fold((f64::MAX, f64::MIN), |(low, high), at| (low.min(at), high.max(at)))
    };
    points().next().context("no points")?;
    let ((left, right), (low, high)) = (range(&|(x, _)| x), range(&|(_, y)| y));
    let area = SVGBackend::new(file, (720, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut builder = ChartBuilder::on(&area);
    builder.caption(title, ("sans-serif", 18)).margin(12).x_label_area_size(42).y_label_area_size(64);
    // Room for the outermost points, and above them for the legend.
    if axes.logarithmic {
        anyhow::ensure!(left > 0.0 && low > 0.0, "{title}: a logarithm needs more than 0");
        let (x, y) = ((left * 0.8..right * 1.25).log_scale(), (low * 0.8..high * 6.0).log_scale());
        fill(builder.build_cartesian_2d(x, y)?, axes, lines)?;
    } else {
        fill(builder.build_cartesian_2d(0.0..right * 1.05, 0.0..high * 1.2)?, axes, lines)?;
    }
    Ok(area.present()?)
}

/// Draws the axes, the lines and the legend.
fn fill<'a, X, Y>(
    mut chart: ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>,
    axes: &Axes,
    lines: &[Line],
) -> anyhow::Result<()>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let number =
        |value: &f64| if *value >= 1.0 || *value == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    chart
        .configure_mesh()
        .x_desc(axes.x)
        .y_desc(axes.y)
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
    Ok(())
}
