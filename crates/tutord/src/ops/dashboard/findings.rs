//! Requests that issue more statements than they should.

use maud::{Markup, html};
use querywatch::{Finding, FindingKind};

use super::slow::named_or;
use super::view::{Section, View, empty, scrolling};
use super::{format, queries};
use crate::app::App;

pub(super) fn view(app: &App) -> View {
    View {
        title: "Findings".to_owned(),
        intro: html! {
            "Requests that issued one statement again and again (more than " (app.config.watch.n_plus_one_limit) " times, "
            code { "N_PLUS_ONE_LIMIT" } "), or more statements than their route may."
        },
        sections: vec![
            Section::new("findings", "Newest first", table(&app.watch.findings())),
            Section::new("advice", "What to do", advice()),
        ],
    }
}

const fn name(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::NPlusOne => "N+1",
        FindingKind::RepeatedQuery => "Repeated query",
        FindingKind::BudgetExceeded => "Over budget",
    }
}

const fn what_to_do(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::NPlusOne => {
            "One statement for each row of a list: the time grows with the rows. Read all of them with one statement (a join, or a list of ids), below the line of code that is named here. A batch that is bounded by a constant is none: say so with allow_repeats."
        }
        FindingKind::RepeatedQuery => {
            "The same statement with the same values: its answer was known already. Pass the value on, or read it through the cache."
        }
        FindingKind::BudgetExceeded => {
            "The route issued more statements than are written beside it. Look at its statements under Queries: either a read was added that can be joined to another or cached, or the budget of the route has to be raised with care."
        }
    }
}

fn advice() -> Markup {
    html! {
        dl {
            @for kind in [FindingKind::NPlusOne, FindingKind::RepeatedQuery, FindingKind::BudgetExceeded] {
                dt { strong { (name(kind)) } }
                dd { (what_to_do(kind)) }
            }
        }
    }
}

pub(super) fn table(findings: &[Finding]) -> Markup {
    if findings.is_empty() {
        return empty("Nothing was found since the start: no request repeated a statement or exceeded its budget.");
    }
    let table = html! {
        table {
            caption { "Findings; those of the same kind, route and statement are one. Times in UTC" }
            thead { tr {
                th scope="col" { "What" }
                th scope="col" { "Route" }
                th scope="col" { "Statement" }
                th.number scope="col" { "Statements" }
                th.number scope="col" { "Allowed" }
                th.number scope="col" { "Requests" }
                th scope="col" { "Last seen" }
                th scope="col" { "Where" }
                th scope="col" { "Newest request" }
            } }
            tbody {
                @for finding in findings {
                    tr {
                        th scope="row" { span.warn { (name(finding.kind)) } }
                        td { (named_or(finding.route.as_deref(), "in the background")) }
                        td {
                            @if let (Some(id), Some(sql)) = (&finding.shape, &finding.sql) { (queries::named(id, sql)) }
                            @else { span.muted { "all together" } }
                        }
                        td.number { (format::count(finding.calls.into())) }
                        td.number { (format::count(finding.limit.into())) }
                        td.number { (format::count(finding.scopes)) }
                        td { (format::when(finding.last_seen_ms)) }
                        td { (named_or(finding.first_call.as_deref(), "not known")) }
                        td { (named_or(finding.request_id.as_deref(), "none")) }
                    }
                }
            }
        }
    };
    scrolling("Findings", &table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(kind: FindingKind, sql: Option<&str>) -> Finding {
        Finding {
            kind,
            route: Some("GET /x<y>".to_owned()),
            request_id: None,
            shape: sql.map(|_| "a1".to_owned()),
            sql: sql.map(str::to_owned),
            calls: 12,
            limit: 5,
            first_call: Some("src/lib.rs:7".to_owned()),
            last_call: None,
            scopes: 1_500,
            first_seen_ms: 0,
            last_seen_ms: 1_767_323_045_000,
        }
    }

    #[test]
    fn each_kind_has_a_row_and_advice() {
        let found = [
            finding(FindingKind::NPlusOne, Some("SELECT 1")),
            finding(FindingKind::RepeatedQuery, Some("SELECT 2")),
            finding(FindingKind::BudgetExceeded, None),
        ];
        let (table, advice) = (table(&found).into_string(), advice().into_string());
        for name in ["N+1", "Repeated query", "Over budget"] {
            assert!(table.contains(&format!(">{name}</span>")) && advice.contains(&format!("<strong>{name}</strong>")));
        }
        for part in ["GET /x&lt;y&gt;", "/ops/queries/a1", "all together", "1\u{202f}500", "03:04:05", "src/lib.rs:7"] {
            assert!(table.contains(part), "{part} is not in {table}");
        }
    }
}
