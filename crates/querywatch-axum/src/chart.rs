//! Charts over time. A table has the same figures, for pages without JavaScript.

use std::borrow::Cow;

use maud::{Markup, html};
use querywatch::Point;
use serde::{Serialize, Serializer};

use crate::format;
use crate::parts::{Columns, table};

/// A chart of one or more lines over time.
#[derive(Serialize)]
pub struct Chart {
    unit: &'static str,
    /// The times in seconds since 1970, as uPlot expects.
    at: Vec<u64>,
    series: Vec<Series>,
    empty: bool,
    /// The text shown while there is no data.
    #[serde(skip)]
    nothing: Cow<'static, str>,
}

/// A line of a chart. Missing values are gaps.
#[derive(Serialize)]
pub struct Series {
    /// The name in the legend.
    pub name: &'static str,
    /// A value for each time.
    #[serde(serialize_with = "rounded")]
    pub values: Vec<Option<f64>>,
}

/// Rounds to three decimals to reduce the size of the response.
fn rounded<S: Serializer>(values: &[Option<f64>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(|value| value.map(|value| (value * 1e3).round() / 1e3)))
}

impl Chart {
    /// Creates a chart over times in milliseconds since 1970. While no value is above 0, the page shows the text
    /// `nothing` in its place.
    pub fn new(unit: &'static str, at_ms: &[u64], series: Vec<Series>, nothing: impl Into<Cow<'static, str>>) -> Self {
        let empty = !series.iter().flat_map(|series| &series.values).flatten().any(|value| *value > 0.0);
        Self { unit, at: at_ms.iter().map(|ms| ms / 1000).collect(), series, empty, nothing: nothing.into() }
    }

    pub(crate) fn render(&self, id: &str, heading: &str) -> Markup {
        let names: Vec<_> = self.series.iter().map(|series| series.name).collect();
        let label =
            format!("Chart: {heading} ({}), in {}. A table with the figures follows.", names.join(" and "), self.unit);
        let points = serde_json::to_string(self).unwrap_or_default();
        html! {
            figure {
                @let [(note, words), (figures, table)] = self.parts(id);
                div data-part=(note) { (words) }
                div.plot role="img" aria-label=(label) data-chart=(id) data-points=(points) hidden[self.empty] {}
                details {
                    summary { "Figures: " (heading) }
                    div data-part=(figures) { (table) }
                }
            }
        }
    }

    /// Returns the HTML parts with their ids.
    pub(crate) fn parts(&self, id: &str) -> [(String, Markup); 2] {
        let words = html! { @if self.empty { p.empty { (self.nothing) } } };
        [(format!("{id}-note"), words), (format!("{id}-figures"), self.table())]
    }

    fn table(&self) -> Markup {
        let names = self.series.iter().map(|series| series.name);
        let columns = Columns::default().texts(["From (UTC)"]).numbers(names);
        let rows = html! {
            @for (index, at) in self.at.iter().enumerate().rev() {
                tr {
                    th scope="row" { (format::clock(at * 1000)) }
                    @for series in &self.series {
                        td.number { (format::decimal(series.values.get(index).copied().flatten())) }
                    }
                }
            }
        };
        table("Figures", format!("In {}, newest first", self.unit), &columns, &rows)
    }
}

/// Converts microseconds to milliseconds. Returns `None` if the count is 0.
pub fn milliseconds(us: u64, counted: u64) -> Option<f64> {
    (counted > 0).then(|| format::float(us) / 1e3)
}

/// Returns the rates per second of a series. The newest slot is incomplete.
pub fn rates(series: &[Point], now_ms: u64, of: impl Fn(&Point) -> u64) -> Vec<Option<f64>> {
    let length = series.windows(2).next().map_or(10_000, |pair| pair[1].at_ms.saturating_sub(pair[0].at_ms)).max(1_000);
    let rate = |point: &Point| {
        let over = now_ms.saturating_sub(point.at_ms).clamp(1_000, length);
        Some(format::float(of(point)) * 1e3 / format::float(over))
    };
    series.iter().map(rate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_of_zeros_is_a_note() {
        let line = |values: &[Option<f64>]| Series { name: "p50", values: values.to_vec() };
        let empty = Chart::new("ms", &[1_000], vec![line(&[None]), line(&[Some(0.0)])], "Nothing yet.");
        let html = empty.render("times", "Times").into_string();
        assert!(html.contains("Nothing yet.") && html.contains(" hidden"), "{html}");
        let full = Chart::new("ms", &[1_000, 2_000], vec![line(&[None, Some(1.23456)])], "Nothing yet.");
        let html = full.render("times", "Times").into_string();
        assert!(!html.contains("Nothing yet.") && !html.contains(" hidden"), "{html}");
        let json = serde_json::to_value(&full).unwrap();
        assert_eq!(json["series"][0]["values"], serde_json::json!([null, 1.235]));
        assert_eq!(json["at"], serde_json::json!([1, 2]));
    }

    #[test]
    fn the_rate_of_the_newest_slot_uses_its_elapsed_time() {
        let point = |at_ms, calls| {
            let mut point = Point::default();
            (point.at_ms, point.calls) = (at_ms, calls);
            point
        };
        let series = [point(0, 20), point(10_000, 10)];
        assert_eq!(rates(&series, 12_000, |point| point.calls), [Some(2.0), Some(5.0)]);
        assert_eq!(rates(&series, 10_000, |point| point.calls), [Some(2.0), Some(10.0)]);
    }
}
