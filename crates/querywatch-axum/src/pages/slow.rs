//! The page Slow statements.

use maud::{Markup, html};
use querywatch::{Outcome, SlowStatement};

use crate::format;
use crate::page::Page;
use crate::parts::{Columns, code_or, empty, statement_link, table};
use crate::source::Source;
use crate::view::{Section, View};

pub(crate) fn view(source: &Source, base: &str) -> View {
    View {
        title: "Slow statements".to_owned(),
        intro: html! {
            "The newest statements that took " (source.slow_threshold()) " or longer ("
            code { (source.threshold_setting) } "). Values are not recorded. The request id identifies the request in the log."
        },
        sections: vec![Section::new("slow", "Newest first", render(source, base, &source.watch.slow_statements()))],
    }
}

/// Renders the newest slow statements, with a link to the page.
pub(crate) fn newest(source: &Source, base: &str, max: usize) -> Markup {
    let mut statements = source.watch.slow_statements();
    statements.truncate(max);
    html! {
        (render(source, base, &statements))
        @if !statements.is_empty() { p { a href=(Page::Slow.href(base)) { "All slow statements" } } }
    }
}

pub(crate) fn render(source: &Source, base: &str, statements: &[SlowStatement]) -> Markup {
    if statements.is_empty() {
        let threshold = source.slow_threshold();
        return empty(&format!("No statement took longer than {threshold} since the start."));
    }
    let columns =
        Columns::default().texts(["Ended"]).numbers(["Duration"]).texts(["Statement", "Route", "Request", "Outcome"]);
    let rows = html! {
        @for statement in statements {
            tr data-key=(format!("{} {}", statement.at_ms, statement.shape)) {
                td { (format::when(statement.at_ms)) }
                td.number { (format::time(statement.duration_us)) }
                th scope="row" { (statement_link(base, &statement.shape, &statement.sql)) }
                td { (code_or(statement.route.as_deref(), "in the background")) }
                td { (code_or(statement.request_id.as_deref(), "none")) }
                td { (outcome(statement.outcome)) }
            }
        }
    };
    table("Slow statements", "Statements slower than the threshold; times in UTC", &columns, &rows)
}

fn outcome(outcome: Outcome) -> Markup {
    match outcome {
        Outcome::Finished => html! { "finished" },
        Outcome::Failed => html! { span.bad { "failed" } },
        Outcome::Cancelled => html! { span.bad { "cancelled" } },
        _ => html! { "unknown" },
    }
}
