//! The page Pool: the database's connections.

use maud::{Markup, html};
use querywatch_axum::parts::{empty, tile};
use querywatch_axum::{Chart, Section, Series, View, format, rates};

use super::state::DashboardState;

pub(super) fn view(state: &DashboardState) -> View {
    let totals = state.watch.totals();
    let at: Vec<_> = totals.series.iter().map(|point| point.at_ms).collect();
    let now = format::now_ms();
    let rate = vec![
        Series { name: "statements", values: rates(&totals.series, now, |point| point.calls) },
        Series { name: "errors", values: rates(&totals.series, now, |point| point.errors) },
    ];
    View {
        title: "Pool".to_owned(),
        intro: html! {
            "Current connections to " (state.operations.backend())
            @if state.operations.backend() == "sqlite" { " (read connections; one more connection writes)" }
            ". A request that waits longer than " (state.settings.acquire_timeout_ms) " ms ("
            code { "DATABASE_ACQUIRE_TIMEOUT_MS" } ") for a connection gets a 503."
        },
        sections: vec![
            Section::new("connections", "Connections", connections(state)),
            Section::chart(
                "statements",
                "Statements",
                Chart::new("statements per second", &at, rate, "No statement was issued in the last five minutes."),
            ),
        ],
    }
}

fn connections(state: &DashboardState) -> Markup {
    let pool = state.operations.pool();
    let in_use = pool.open.saturating_sub(pool.idle);
    html! {
        dl.tiles {
            (tile("In use", &html! {
                (format::size(in_use)) " "
                meter min="0" max=(pool.max) value=(in_use) aria-label="Connections in use" {}
            }))
            (tile("Idle", &html! { (format::size(pool.idle)) }))
            (tile("Open", &html! { (format::size(pool.open)) }))
            (tile("Maximum", &html! { (format::size(pool.max)) }))
            (tile("Mean wait", &html! { (format::time_of(pool.acquire_us / pool.acquires.max(1), pool.acquires)) }))
            (tile("Waiting requests", &html! { span.bad[pool.waiting > 0] { (format::size(pool.waiting)) } }))
        }
        @if pool.open == 0 {
            (empty("No connections are open. The first request opens one."))
        } @else if pool.waiting > 0 {
            p.bad {
                "Requests wait for a connection. Fix slow statements first; then raise " code { "DATABASE_POOL_SIZE" } "."
            }
        }
    }
}
