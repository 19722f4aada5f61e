//! The page of one statement: durations, recent history, and routes that issue it.

use maud::{Markup, html};
use querywatch::{ShapeDetail, Stats};

use super::chart::{Chart, Series, milliseconds, rates};
use super::state::DashboardState;
use super::view::{Section, View, empty, scrolling};
use super::{findings, format, slow};
use crate::telemetry::plans::Plan;

const NO_CALLS: &str = "The statement was not issued in the last five minutes.";

pub(super) fn view(state: &DashboardState, id: &str) -> Option<View> {
    let ShapeDetail { shape, series, .. } = state.watch.shape(id)?;
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
    let (mut slow, mut findings) = (state.watch.slow_statements(), state.watch.findings());
    slow.retain(|statement| statement.shape == shape.id);
    findings.retain(|finding| finding.shape.as_deref() == Some(&shape.id));
    let routes: Vec<_> = shape.routes.iter().map(|route| (route.route.as_str(), route.calls)).collect();
    Some(View {
        title: format!("Statement {}", shape.id),
        intro: html! { a href="/ops/queries" { "All statements" } },
        sections: vec![
            Section::new("sql", "Text", html! { pre { code { (shape.sql) } } }),
            Section::new("figures", "Figures", figures(&shape.window, &shape.since_start)),
            Section::chart("rate", "Calls", Chart::new("calls per second", &at, rate, NO_CALLS)),
            Section::chart("times", "Times", Chart::new("ms", &at, times, NO_CALLS)),
            Section::new("routes", "Routes", issuers(&routes)),
            Section::new("plan", "Plan", plan(state, &shape.id)),
            Section::new("slow", "Slow calls", slow::table(state, &slow)),
            Section::new("findings", "Findings", findings::table(&findings)),
        ],
    })
}

fn figures(window: &Stats, ever: &Stats) -> Markup {
    let table = html! {
        table {
            caption { "Calls and their durations" }
            thead { tr {
                th scope="col" { "Period" }
                @for name in ["Calls", "Rate", "Errors", "Total time", "p50", "p95", "p99", "Longest"] {
                    th.number scope="col" { (name) }
                }
            } }
            tbody {
                @for (name, stats) in [("Last five minutes", window), ("Since the start", ever)] {
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
            }
        }
    };
    scrolling("Figures", &table)
}

/// Renders the plan of the statement.
fn plan(state: &DashboardState, id: &str) -> Markup {
    let Some(Plan { text, hints }) = state.plans.plan(id) else {
        let threshold = state.settings.slow_query_threshold_ms;
        return empty(&format!(
            "No plan is recorded. tutord records the plan of a statement that takes longer than {threshold} ms."
        ));
    };
    html! {
        @if hints.is_empty() {
            p { "The plan shows no problem. Slow calls waited for a lock or for I/O, or had unusual values." }
        } @else {
            ul { @for hint in &hints { li.warn { (hint) } } }
        }
        pre { code { (text) } }
    }
}

fn issuers(routes: &[(&str, u64)]) -> Markup {
    if routes.is_empty() {
        return empty("No request issued the statement: background tasks use it.");
    }
    let table = html! {
        table {
            caption { "Calls since the start, at most 16 routes" }
            thead { tr { th scope="col" { "Route" } th.number scope="col" { "Calls" } } }
            tbody {
                @for (route, calls) in routes {
                    tr { th scope="row" { code { (route) } } td.number { (format::count(*calls)) } }
                }
            }
        }
    };
    scrolling("Routes that issue the statement", &table)
}
