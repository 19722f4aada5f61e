//! The page of one statement: durations, recent history, and routes that issue it.

use maud::{Markup, html};
use querywatch::{ShapeDetail, Stats};

use super::{findings, slow};
use crate::chart::{Chart, Series, milliseconds, rates};
use crate::format;
use crate::page::{Page, TableOrder};
use crate::parts::{Columns, empty, table};
use crate::source::Source;
use crate::view::{Section, View};

pub(crate) fn view(source: &Source, base: &str, id: &str) -> Option<View> {
    let ShapeDetail { shape, series, .. } = source.watch.shape(id)?;
    let window = source.window();
    let no_calls = format!("The statement was not issued in the last {window}.");
    let at: Vec<_> = series.iter().map(|point| point.at_ms).collect();
    let now = format::now_ms();
    let rate = vec![
        Series { name: "calls", values: rates(&series, now, |point| point.calls) },
        Series { name: "errors", values: rates(&series, now, |point| point.errors) },
    ];
    let times = vec![
        Series { name: "p99", values: series.iter().map(|point| milliseconds(point.p99_us, point.calls)).collect() },
        Series { name: "p50", values: series.iter().map(|point| milliseconds(point.p50_us, point.calls)).collect() },
    ];
    let (mut slow, mut findings) = (source.watch.slow_statements(), source.watch.findings());
    slow.retain(|statement| statement.shape == shape.id);
    findings.retain(|finding| finding.shape.as_deref() == Some(&shape.id));
    let routes: Vec<_> = shape.routes.iter().map(|route| (route.route.as_str(), route.calls)).collect();
    let mut sections = vec![
        Section::new("sql", "Text", html! { pre { code { (shape.sql) } } }),
        Section::new("figures", "Figures", figures(&window, &shape.window, &shape.since_start)),
        Section::chart("rate", "Calls", Chart::new("calls per second", &at, rate, no_calls.clone())),
        Section::chart("times", "Times", Chart::new("ms", &at, times, no_calls)),
        Section::new("routes", "Routes", issuers(&routes)),
    ];
    sections.extend(source.statement_sections.iter().map(|section| section(&shape)));
    sections.push(Section::new("slow", "Slow calls", slow::render(source, base, &slow)));
    sections.push(Section::new("findings", "Findings", findings::render(base, &findings)));
    Some(View {
        title: format!("Statement {}", shape.id),
        intro: html! { a href=(Page::Queries(TableOrder::default()).href(base)) { "All statements" } },
        sections,
    })
}

fn figures(period: &str, window: &Stats, ever: &Stats) -> Markup {
    let columns = Columns::default().texts(["Period"]).numbers([
        "Calls",
        "Rate",
        "Errors",
        "Total time",
        "p50",
        "p95",
        "p99",
        "Longest",
    ]);
    let rows = html! {
        @for (name, stats) in [(format!("Last {period}"), window), ("Since the start".to_owned(), ever)] {
            tr {
                th scope="row" { (name) }
                td.number { (format::count(stats.calls)) }
                td.number { (format::rate(stats.per_second)) }
                td.number { (format::count(stats.errors)) }
                td.number { (format::time(stats.total_us)) }
                @for us in [stats.p50_us, stats.p95_us, stats.p99_us, stats.max_us] {
                    td.number { (format::time_of(us, stats.calls)) }
                }
            }
        }
    };
    table("Figures", "Calls and their durations", &columns, &rows)
}

fn issuers(routes: &[(&str, u64)]) -> Markup {
    if routes.is_empty() {
        return empty("No request issued the statement: background tasks use it.");
    }
    let columns = Columns::default().texts(["Route"]).numbers(["Calls"]);
    let rows = html! {
        @for (route, calls) in routes {
            tr { th scope="row" { code { (route) } } td.number { (format::count(*calls)) } }
        }
    };
    table("Routes that issue the statement", "Calls since the start, at most 16 routes", &columns, &rows)
}
