//! The page Overview: requests, durations and current problems.

use maud::{Markup, html};
use querywatch_axum::parts::{Columns, empty, table, tile};
use querywatch_axum::{Chart, Section, Series, View, format, milliseconds};

use super::PREFIX;
use super::state::DashboardState;
use crate::http::recent::RequestStats;

/// The number of slow statements and findings. Their own pages list all.
const MAX_NEWEST: usize = 5;

pub(super) fn view(state: &DashboardState) -> View {
    let points = state.requests.recent.series();
    let at: Vec<_> = points.iter().map(|point| point.at_ms).collect();
    let line = |name, value: fn(&RequestStats) -> Option<f64>| Series {
        name,
        values: points.iter().map(|point| value(&point.stats)).collect(),
    };
    let rate = vec![
        line("answered", |stats| Some(stats.per_second)),
        line("failed", |stats| {
            let share = format::float(stats.failed) / format::float(stats.answered.max(1));
            Some(stats.per_second * share)
        }),
    ];
    let times = vec![
        line("p99", |stats| milliseconds(stats.p99_us, stats.answered)),
        line("p50", |stats| milliseconds(stats.p50_us, stats.answered)),
    ];
    View {
        title: "Overview".to_owned(),
        intro: html! {
            "The last five minutes of this process, tutord " (env!("CARGO_PKG_VERSION")) " on " (state.operations.backend())
            ". Each process has its own dashboard; Prometheus collects " code { "/metrics" } " of all processes."
        },
        sections: vec![
            Section::new("now", "Summary", tiles(state)),
            Section::chart(
                "rate",
                "Requests",
                Chart::new("requests per second", &at, rate, "No requests in the last five minutes."),
            ),
            Section::chart(
                "times",
                "Request durations",
                Chart::new("ms", &at, times, "No requests in the last five minutes."),
            ),
            Section::new("routes", "Routes", routes(state)),
            Section::new("slow", "Newest slow statements", state.statement_pages.newest_slow(PREFIX, MAX_NEWEST)),
            Section::new("findings", "Newest findings", state.statement_pages.newest_findings(PREFIX, MAX_NEWEST)),
        ],
    }
}

fn tiles(state: &DashboardState) -> Markup {
    let requests = state.requests.recent.overall();
    let statements = state.watch.totals();
    let pool = state.operations.pool();
    let (hits, reads) = state
        .cache
        .stats()
        .iter()
        .fold((0, 0), |(hits, reads), stats| (hits + stats.hits(), reads + stats.hits() + stats.misses));
    let hit_rate =
        if reads == 0 { "–".to_owned() } else { format::percent(format::float(hits) / format::float(reads)) };
    let time = |us| html! { (format::time_of(us, requests.answered)) };
    html! {
        dl.tiles {
            (tile("Requests", &html! { (format::rate(requests.per_second)) }))
            (tile("p50", &time(requests.p50_us)))
            (tile("p95", &time(requests.p95_us)))
            (tile("p99", &time(requests.p99_us)))
            (tile("Failed (5xx)", &html! { span.bad[requests.failed > 0] { (format::count(requests.failed)) } }))
            (tile("Refused (4xx)", &html! { (format::count(requests.refused)) }))
            (tile("Statements", &html! { (format::rate(statements.window.per_second)) }))
            (tile("Statements, p99", &html! { (format::time_of(statements.window.p99_us, statements.window.calls)) }))
            (tile("Slow, since the start", &html! { span.warn[statements.slow > 0] { (format::count(statements.slow)) } }))
            (tile("Findings, since the start", &html! { span.warn[statements.findings > 0] { (format::count(statements.findings)) } }))
            (tile("Cache hits, since the start", &html! { (hit_rate) }))
            (tile("Connections in use", &html! { (format::size(pool.open.saturating_sub(pool.idle))) " of " (format::size(pool.max)) }))
        }
    }
}

fn routes(state: &DashboardState) -> Markup {
    let routes = state.requests.recent.by_route();
    if routes.is_empty() {
        return empty("No requests in the last five minutes. Each route appears here with its first request.");
    }
    by_route("Requests of the last five minutes by route, busiest first", &routes)
}

/// Renders routes with their rates, durations and errors.
pub(super) fn by_route(caption: &str, routes: &[(String, RequestStats)]) -> Markup {
    let columns = Columns::default().texts(["Route"]).numbers([
        "Rate",
        "Requests",
        "p50",
        "p95",
        "p99",
        "Longest",
        "Failed (5xx)",
        "Refused (4xx)",
    ]);
    let rows = html! {
        @for (route, stats) in routes {
            tr {
                th scope="row" { code { (route) } }
                td.number { (format::rate(stats.per_second)) }
                td.number { (format::count(stats.answered)) }
                @for us in [stats.p50_us, stats.p95_us, stats.p99_us, stats.max_us] { td.number { (format::time(us)) } }
                td.number { span.bad[stats.failed > 0] { (format::count(stats.failed)) } }
                td.number { (format::count(stats.refused)) }
            }
        }
    };
    table("Routes", caption, &columns, &rows)
}
