//! The page Findings: requests that issue too many statements.

use maud::{Markup, html};
use querywatch::{Finding, FindingKind};

use crate::format;
use crate::page::Page;
use crate::parts::{Columns, code_or, empty, statement_link, table};
use crate::remedy::Remedy;
use crate::source::Source;
use crate::view::{Section, View};

pub(crate) fn view(source: &Source, base: &str) -> View {
    View {
        title: "Findings".to_owned(),
        intro: html! {
            "Requests that issued one statement more than " (source.watch.repeat_limit()) " times ("
            code { (source.repeat_setting) } "), or exceeded the statement budget of their route. A batch whose size is bounded by a constant is no problem: mark it with "
            code { "allow_repeats" } "."
        },
        sections: vec![
            Section::new("findings", "Newest first", render(base, &source.watch.findings())),
            Section::new("unscoped", "Statements outside of requests", unscoped(source)),
        ],
    }
}

/// Renders the newest findings, with a link to the page.
pub(crate) fn newest(source: &Source, base: &str, max: usize) -> Markup {
    let mut newest = source.watch.findings();
    newest.truncate(max);
    html! {
        (render(base, &newest))
        @if !newest.is_empty() { p { a href=(Page::Findings.href(base)) { "All findings and their remedies" } } }
    }
}

pub(crate) const fn name(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::NPlusOne => "N+1",
        FindingKind::RepeatedQuery => "Repeated query",
        FindingKind::BudgetExceeded => "Over budget",
        _ => "Other",
    }
}

pub(crate) fn render(base: &str, findings: &[Finding]) -> Markup {
    if findings.is_empty() {
        return empty("No findings since the start: no request repeated a statement or exceeded its budget.");
    }
    let columns = Columns::default()
        .texts(["Finding", "Route, statement and remedy"])
        .numbers(["Statements", "Requests"])
        .texts(["Last seen", "Where"]);
    let rows = html! {
        @for finding in findings {
            tr data-key=(key(finding)) {
                th scope="row" { span.badge { (name(finding.kind)) } }
                td.wide {
                    (code_or(finding.route.as_deref(), "in the background"))
                    div {
                        @if let (Some(id), Some(sql)) = (&finding.shape, &finding.sql) {
                            (statement_link(base, id, sql))
                        } @else { span.muted { "all statements" } }
                    }
                    (Remedy::of(finding).render())
                }
                td.number {
                    (format::count(finding.calls.into())) br;
                    span.muted { "limit " (format::count(finding.limit.into())) }
                }
                td.number { (format::count(finding.scopes)) }
                td {
                    (format::when(finding.last_seen_ms))
                    @if let Some(id) = &finding.request_id { br; span.muted { "request " } code { (id) } }
                }
                td { (code_or(finding.first_call.as_deref(), "not known")) }
            }
        }
    };
    table("Findings", "Findings, grouped by kind, route and statement; times in UTC", &columns, &rows)
}

/// Renders the statements that no request counts.
fn unscoped(source: &Source) -> Markup {
    let count = source.watch.totals().unscoped;
    if count == 0 {
        return empty("No statement ran outside of a request.");
    }
    let statements = source.watch.unscoped_statements();
    let columns = Columns::default().texts(["Statement"]).numbers(["Calls"]).texts(["Started by", "Where"]);
    let rows = html! {
        @for statement in &statements {
            tr {
                th scope="row" { code { (format::head(&statement.sql)) } }
                td.number { (format::count(statement.calls)) }
                td { (code_or(statement.spawned_by, "not known")) }
                td { (code_or(statement.location.as_deref(), "not known")) }
            }
        }
    };
    html! {
        p {
            (format::count(count)) " statements belong to no request: those of background tasks, and those of tasks and threads that lost the scope of their request. Bind the latter with "
            code { "in_current_scope" } "."
        }
        @if !statements.is_empty() {
            (table("Statements outside of requests", "Statements without a request, at most 50", &columns, &rows))
        }
    }
}

/// Returns what distinguishes a finding from others, so that an open page moves its row instead of changing it.
fn key(finding: &Finding) -> String {
    let [route, shape] = [&finding.route, &finding.shape].map(|name| name.as_deref().unwrap_or_default());
    format!("{} {shape} {route}", name(finding.kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(kind: FindingKind, sql: Option<&str>) -> Finding {
        let mut finding = Finding::new(kind);
        finding.route = Some("GET /x<y>".to_owned());
        finding.shape = sql.map(|_| "a1".to_owned());
        finding.sql = sql.map(str::to_owned);
        (finding.calls, finding.limit, finding.scopes) = (12, 5, 1_500);
        finding.first_call = Some("src/lib.rs:7".to_owned());
        finding.last_seen_ms = 1_767_323_045_000;
        finding
    }

    #[test]
    fn each_kind_has_a_row_with_a_remedy() {
        let findings = [
            finding(FindingKind::NPlusOne, Some("SELECT name FROM users WHERE id = ?")),
            finding(FindingKind::RepeatedQuery, Some("SELECT 2")),
            finding(FindingKind::BudgetExceeded, None),
        ];
        let table = render("/ops", &findings).into_string();
        let parts = [
            ">N+1</span>",
            ">Repeated query</span>",
            ">Over budget</span>",
            "GET /x&lt;y&gt;",
            "/ops/queries/a1",
            "all statements",
            "1\u{202f}500",
            "03:04:05",
            "src/lib.rs:7",
            "users::table.filter(users::id.eq_any(&amp;values))",
        ];
        for part in parts {
            assert!(table.contains(part), "{part} is not in {table}");
        }
    }
}
