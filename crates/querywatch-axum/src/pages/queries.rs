//! The page Queries: all statements with their statistics.

use std::cmp::Reverse;

use maud::{Markup, html};
use querywatch::{ShapeSnapshot, Stats};

use crate::format;
use crate::page::{Page, Period, SortColumn, TableOrder};
use crate::parts::{Columns, empty, statement_link, table};
use crate::source::Source;
use crate::view::{Section, View};

/// The maximum number of rows of the table.
const MAX_ROWS: usize = 100;

impl SortColumn {
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

impl Period {
    const fn of(self, shape: &ShapeSnapshot) -> &Stats {
        match self {
            Self::Window => &shape.window,
            Self::Start => &shape.since_start,
        }
    }
}

pub(crate) fn view(source: &Source, base: &str, ordering: TableOrder) -> View {
    let link = |over: Period, text: &str| {
        let address = Page::Queries(TableOrder { over, ..ordering }).href(base);
        html! { a href=(address) aria-current=[(over == ordering.over).then_some("true")] { (text) } }
    };
    View {
        title: "Queries".to_owned(),
        intro: html! {
            "SQL statements, grouped by their text without values. Period: "
            (link(Period::Window, &format!("the last {}", source.window()))) " or " (link(Period::Start, "since the start")) "."
        },
        sections: vec![Section::new("shapes", "Statements", shapes(source, base, ordering))],
    }
}

fn shapes(source: &Source, base: &str, TableOrder { sort, over }: TableOrder) -> Markup {
    let mut shapes = source.watch.shapes();
    shapes.retain(|shape| over.of(shape).calls > 0);
    if shapes.is_empty() {
        return empty("No statements in this period. Each statement appears here with its first call.");
    }
    shapes.sort_by_key(|shape| Reverse(sort.value(over.of(shape), shape.slow)));
    let all = shapes.len();
    shapes.truncate(MAX_ROWS);
    let caption = html! {
        @if all > MAX_ROWS { "The first " (MAX_ROWS) " of " (format::size(all)) } @else { "All " (format::size(all)) }
        " statements, highest “" (sort.heading()) "” first. Select a heading to sort by its column."
    };
    let headings = SortColumn::ALL.map(|column| {
        let is_sorted = column == sort;
        let heading = html! {
            a href=(Page::Queries(TableOrder { sort: column, over }).href(base)) {
                (column.heading()) @if is_sorted { span aria-hidden="true" { " ▼" } }
            }
        };
        (heading, is_sorted)
    });
    let columns = Columns::default().texts(["Statement"]).sortable_numbers(headings);
    let rows = html! {
        @for shape in &shapes {
            tr data-key=(shape.id) {
                th scope="row" { (statement_link(base, &shape.id, &shape.sql)) }
                @for column in SortColumn::ALL { td.number { (column.text(over.of(shape), shape.slow)) } }
            }
        }
    };
    table("Statements", &caption, &columns, &rows)
}
