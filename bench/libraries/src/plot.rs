//! Bar charts for light and dark pages.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// The meaning of a bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Own,
    Other,
    /// A cache that shares nothing between processes.
    Memory,
    Reference,
}

#[derive(Debug)]
pub(crate) struct Bar {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) text: String,
    pub(crate) kind: Kind,
}

/// A chart with its own scale, which begins with 0.
#[derive(Debug)]
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) bars: Vec<Bar>,
}

const PAPER: RGBColor = RGBColor(0xFF, 0xFF, 0xFE);
const INK: RGBColor = RGBColor(0x1F, 0x23, 0x28);
const MUTED: RGBColor = RGBColor(0x59, 0x63, 0x6E);
const OWN: RGBColor = RGBColor(0x1F, 0x77, 0xB4);
const OTHER: RGBColor = RGBColor(0x8C, 0x95, 0x9F);
const MEMORY: RGBColor = RGBColor(0xC4, 0xCA, 0xD0);
const REFERENCE: RGBColor = RGBColor(0xE0, 0x8A, 0x1E);

/// The colours on dark pages. A style sheet in the image replaces the attributes that plotters writes.
const DARK: [(RGBColor, &str); 7] = [
    (PAPER, "#0D1117"),
    (INK, "#E6EDF3"),
    (MUTED, "#9198A1"),
    (OWN, "#58A6FF"),
    (OTHER, "#6E7681"),
    (MEMORY, "#444C56"),
    (REFERENCE, "#E3A34A"),
];

const WIDTH: u32 = 860;
const TOP: i32 = 74;
const TITLE: i32 = 30;
const ROW: i32 = 24;
const GAP: i32 = 14;
const LABELS: i32 = 250;
/// Room for the texts behind the bars.
const TEXTS: i32 = 170;

/// Draws the panels, one below the other.
pub(crate) fn draw(file: &Path, title: &str, panels: &[Panel]) -> anyhow::Result<()> {
    let rows = |panel: &Panel| ROW * i32::try_from(panel.bars.len()).unwrap_or(0);
    let height = TOP + panels.iter().map(|panel| TITLE + rows(panel) + GAP).sum::<i32>();
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height.unsigned_abs())).into_drawing_area();
        area.fill(&PAPER)?;
        area.draw_text(title, &text(20, &INK, HPos::Left), (20, 26))?;
        legend(&area, panels)?;
        let mut top = TOP;
        for panel in panels {
            area.draw_text(&panel.title, &text(15, &INK, HPos::Left), (20, top + TITLE / 2))?;
            top += TITLE;
            bars(&area, panel, top)?;
            top += rows(panel) + GAP;
        }
        area.present()?;
    }
    Ok(std::fs::write(file, with_dark_colours(&svg))?)
}

fn text(size: u32, colour: &RGBColor, position: HPos) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(colour).pos(Pos::new(position, VPos::Center))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn legend(area: &Area<'_>, panels: &[Panel]) -> anyhow::Result<()> {
    let mut left = 20;
    for (kind, name) in [
        (Kind::Own, "readthrough"),
        (Kind::Other, "shares between processes"),
        (Kind::Memory, "one process alone"),
        (Kind::Reference, "limit"),
    ] {
        if panels.iter().flat_map(|panel| &panel.bars).any(|bar| bar.kind == kind) {
            area.draw(&Rectangle::new([(left, 48), (left + 12, 60)], colour(kind).filled()))?;
            area.draw_text(name, &text(13, &MUTED, HPos::Left), (left + 18, 54))?;
            left += 50 + 6 * i32::try_from(name.len()).unwrap_or(0);
        }
    }
    Ok(())
}

fn bars(area: &Area<'_>, panel: &Panel, top: i32) -> anyhow::Result<()> {
    let width = WIDTH.cast_signed();
    let longest = panel.bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
    let scale = f64::from(width - LABELS - TEXTS) / longest;
    for (row, bar) in (0..).zip(&panel.bars) {
        let top = top + row * ROW;
        let middle = top + ROW / 2;
        // A bar of one pixel stands for 0.
        let end = LABELS + ((bar.value * scale).round() as i32).max(1);
        area.draw_text(bar.name, &text(13, &INK, HPos::Right), (LABELS - 10, middle))?;
        area.draw(&Rectangle::new([(LABELS, top + 4), (end, top + ROW - 4)], colour(bar.kind).filled()))?;
        area.draw_text(&bar.text, &text(13, &MUTED, HPos::Left), (end + 8, middle))?;
    }
    Ok(())
}

const fn colour(kind: Kind) -> RGBColor {
    match kind {
        Kind::Own => OWN,
        Kind::Other => OTHER,
        Kind::Memory => MEMORY,
        Kind::Reference => REFERENCE,
    }
}

/// Adds a style sheet that replaces the colours where the page is dark.
fn with_dark_colours(svg: &str) -> String {
    let rules: String = DARK
        .iter()
        .map(|(RGBColor(red, green, blue), dark)| format!("[fill=\"#{red:02X}{green:02X}{blue:02X}\"]{{fill:{dark}}}"))
        .collect();
    let style = format!("<style>@media (prefers-color-scheme:dark){{{rules}}}</style>\n");
    match svg.split_once(">\n") {
        Some((start, rest)) => format!("{start}>\n{style}{rest}"),
        None => svg.to_owned(),
    }
}
