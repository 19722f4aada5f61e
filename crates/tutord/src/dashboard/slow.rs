//! The page Slow statements.

use maud::{Markup, html};
use querywatch::{Outcome, SlowStatement};

use super::state::DashboardState;
use super::view::{Section, View, empty, scrolling};
use super::{format, queries};

pub(super) fn view(state: &DashboardState) -> View {
    View {
        title: "Slow statements".to_owned(),
        intro: html! {
            "The newest 200 statements that took longer than " (state.settings.slow_query_threshold_ms) " ms ("
            code { "SLOW_QUERY_THRESHOLD_MS" } "). Values are not recorded. The request id identifies the request in the log."
        },
        sections: vec![Section::new("slow", "Newest first", table(state, &state.watch.slow_statements()))],
    }
}

pub(super) fn table(state: &DashboardState, statements: &[SlowStatement]) -> Markup {
    if statements.is_empty() {
        let threshold = state.settings.slow_query_threshold_ms;
        return empty(&format!("No statement took longer than {threshold} ms since the start."));
    }
    let table = html! {
        table {
            caption { "Statements slower than the threshold; times in UTC" }
            thead { tr {
                th scope="col" { "Ended" }
                th.number scope="col" { "Duration" }
                th scope="col" { "Statement" }
                th scope="col" { "Route" }
                th scope="col" { "Request" }
                th scope="col" { "Outcome" }
            } }
            tbody {
                @for statement in statements {
                    tr {
                        td { (format::when(statement.at_ms)) }
                        td.number { (format::time(statement.duration_us)) }
                        th scope="row" { (queries::statement_link(&statement.shape, &statement.sql)) }
                        td { (code_or(statement.route.as_deref(), "in the background")) }
                        td { (code_or(statement.request_id.as_deref(), "none")) }
                        td { (outcome(statement.outcome)) }
                    }
                }
            }
        }
    };
    scrolling("Slow statements", &table)
}

/// Renders a name as code, or a fallback text.
pub(super) fn code_or(name: Option<&str>, otherwise: &str) -> Markup {
    html! {
        @if let Some(name) = name { code { (name) } } @else { span.muted { (otherwise) } }
    }
}

fn outcome(outcome: Outcome) -> Markup {
    match outcome {
        Outcome::Finished => html! { "finished" },
        Outcome::Failed => html! { span.bad { "failed" } },
        Outcome::Cancelled => html! { span.bad { "cancelled" } },
        _ => html! { "unknown" },
    }
}
