//! The page Queries: all statements with their statistics.

use std::cmp::Reverse;

use maud::{Markup, html};
use querywatch::{ShapeSnapshot, Stats};
use serde::Deserialize;

use super::format;
use super::state::DashboardState;
use super::view::{Section, View, empty, scrolling};

/// The maximum number of rows of the table.
const MAX_ROWS: usize = 100;

/// The sort order and the period of the table.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(super) struct TableOrder {
    #[serde(default)]
    pub(super) sort: SortColumn,
    #[serde(default)]
    pub(super) over: Period,
}

/// A column to sort by, highest value first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SortColumn {
    #[default]
    Total,
    Calls,
    P50,
    P95,
    P99,
    Max,
    Errors,
    Slow,
}

impl SortColumn {
    pub(super) const ALL: [Self; 8] =
        [Self::Calls, Self::Total, Self::P50, Self::P95, Self::P99, Self::Max, Self::Errors, Self::Slow];

    /// Returns the name in the query string.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Calls => "calls",
            Self::P50 => "p50",
            Self::P95 => "p95",
            Self::P99 => "p99",
            Self::Max => "max",
            Self::Errors => "errors",
            Self::Slow => "slow",
        }
    }

    const fn heading(self) -> &'static str {
        match self {
            Self::Total => "Total time",
            Self::Calls => "Calls",
            Self::P50 => "p50",
            Self::P95 => "p95",
            Self::P99 => "p99",
            Self::Max => "Longest",
            Self::Errors => "Errors",
            Self::Slow => "Slow, since the start",
        }
    }

    const fn value(self, stats: &Stats, slow: u64) -> u64 {
        match self {
            Self::Total => stats.total_us,
            Self::Calls => stats.calls,
            Self::P50 => stats.p50_us,
            Self::P95 => stats.p95_us,
            Self::P99 => stats.p99_us,
            Self::Max => stats.max_us,
            Self::Errors => stats.errors,
            Self::Slow => slow,
        }
    }

    fn text(self, stats: &Stats, slow: u64) -> String {
        let value = self.value(stats, slow);
        match self {
            Self::Calls | Self::Errors | Self::Slow => format::count(value),
            Self::Total => format::time(value),
            Self::P50 | Self::P95 | Self::P99 | Self::Max => format::time_of(value, stats.calls),
        }
    }
}

/// The period of the statistics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Period {
    /// The last five minutes.
    #[default]
    Window,
    /// Since the start.
    Start,
}

impl Period {
    /// Returns the name in the query string.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Window => "window",
            Self::Start => "start",
        }
    }

    const fn of(self, shape: &ShapeSnapshot) -> &Stats {
        match self {
            Self::Window => &shape.window,
            Self::Start => &shape.since_start,
        }
    }
}

pub(super) fn view(state: &DashboardState, ordering: &TableOrder) -> View {
    let link = |over: Period, text: &str| {
        let address = format!("/ops/queries?sort={}&over={}", ordering.sort.name(), over.name());
        html! { a href=(address) aria-current=[(over == ordering.over).then_some("true")] { (text) } }
    };
    View {
        title: "Queries".to_owned(),
        intro: html! {
            "SQL statements, grouped by their text without values. Period: "
            (link(Period::Window, "the last five minutes")) " or " (link(Period::Start, "since the start")) "."
        },
        sections: vec![Section::new("shapes", "Statements", shapes(state, *ordering))],
    }
}

fn shapes(state: &DashboardState, TableOrder { sort, over }: TableOrder) -> Markup {
    let mut shapes = state.watch.shapes();
    shapes.retain(|shape| over.of(shape).calls > 0);
    if shapes.is_empty() {
        return empty("No statements in this period. Each statement appears here with its first call.");
    }
    shapes.sort_by_key(|shape| Reverse(sort.value(over.of(shape), shape.slow)));
    let all = shapes.len();
    shapes.truncate(MAX_ROWS);
    let table = html! {
        table {
            caption {
                @if all > MAX_ROWS { "The first " (MAX_ROWS) " of " (format::size(all)) } @else { "All " (format::size(all)) }
                " statements, highest “" (sort.heading()) "” first. Select a heading to sort by its column."
            }
            thead { tr {
                th scope="col" { "Statement" }
                @for column in SortColumn::ALL {
                    th.number scope="col" aria-sort=[(column == sort).then_some("descending")] {
                        a href=(format!("/ops/queries?sort={}&over={}", column.name(), over.name())) {
                            (column.heading()) @if column == sort { span aria-hidden="true" { " ▼" } }
                        }
                    }
                }
            } }
            tbody {
                @for shape in &shapes {
                    tr {
                        th scope="row" { (statement_link(&shape.id, &shape.sql)) }
                        @for column in SortColumn::ALL { td.number { (column.text(over.of(shape), shape.slow)) } }
                    }
                }
            }
        }
    };
    scrolling("Statements", &table)
}

/// Renders the beginning of a statement, with a link to its page.
pub(super) fn statement_link(id: &str, sql: &str) -> Markup {
    html! {
        a href=(format!("/ops/queries/{id}")) {
            code { (format::head(sql)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_statements_are_shortened_and_escaped() {
        let html = statement_link("a1", &format!("SELECT '<b>' {}", "ü".repeat(200))).into_string();
        assert!(html.contains("SELECT '&lt;b&gt;' üüü") && html.contains("ü…</code>"), "{html}");
        assert!(html.starts_with(r#"<a href="/ops/queries/a1">"#), "{html}");
        assert!(!statement_link("a1", "SELECT 1").into_string().contains('…'));
    }
}
