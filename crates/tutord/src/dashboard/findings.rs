//! The page Findings: requests that issue too many statements.

use maud::{Markup, html};
use querywatch::{Finding, FindingKind};

use super::slow::code_or;
use super::state::DashboardState;
use super::view::{Section, View, empty, scrolling};
use super::{format, queries};

pub(super) fn view(state: &DashboardState) -> View {
    View {
        title: "Findings".to_owned(),
        intro: html! {
            "Requests that issued one statement more than " (state.settings.n_plus_one_limit) " times ("
            code { "N_PLUS_ONE_LIMIT" } "), or exceeded the statement budget of their route."
        },
        sections: vec![
            Section::new("findings", "Newest first", table(&state.watch.findings())),
            Section::new("advice", "Remedies", advice()),
        ],
    }
}

const fn name(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::NPlusOne => "N+1",
        FindingKind::RepeatedQuery => "Repeated query",
        FindingKind::BudgetExceeded => "Over budget",
        _ => "Other",
    }
}

const fn what_to_do(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::NPlusOne => {
            "The request issued one statement for each row of a list, so its duration grows with the rows. Read all rows with one statement (a join, or a list of ids) at the line of code in the column “Where”. Mark a batch that is bounded by a constant with allow_repeats."
        }
        FindingKind::RepeatedQuery => {
            "The request issued the same statement with the same values more than once. Pass the value on, or read it through the cache."
        }
        FindingKind::BudgetExceeded => {
            "The request issued more statements than the budget of its route. Check its statements on the Queries page: join or cache an added read, or raise the budget of the route."
        }
        _ => "Check the statements of the request on the Queries page.",
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
        return empty("No findings since the start: no request repeated a statement or exceeded its budget.");
    }
    let table = html! {
        table {
            caption { "Findings, grouped by kind, route and statement; times in UTC" }
            thead { tr {
                th scope="col" { "Kind" }
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
                        td { (code_or(finding.route.as_deref(), "in the background")) }
                        td {
                            @if let (Some(id), Some(sql)) = (&finding.shape, &finding.sql) { (queries::statement_link(id, sql)) }
                            @else { span.muted { "all statements" } }
                        }
                        td.number { (format::count(finding.calls.into())) }
                        td.number { (format::count(finding.limit.into())) }
                        td.number { (format::count(finding.scopes)) }
                        td { (format::when(finding.last_seen_ms)) }
                        td { (code_or(finding.first_call.as_deref(), "not known")) }
                        td { (code_or(finding.request_id.as_deref(), "none")) }
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
    fn each_kind_has_a_row_and_advice() {
        let findings = [
            finding(FindingKind::NPlusOne, Some("SELECT 1")),
            finding(FindingKind::RepeatedQuery, Some("SELECT 2")),
            finding(FindingKind::BudgetExceeded, None),
        ];
        let (table, advice) = (table(&findings).into_string(), advice().into_string());
        for name in ["N+1", "Repeated query", "Over budget"] {
            assert!(table.contains(&format!(">{name}</span>")) && advice.contains(&format!("<strong>{name}</strong>")));
        }
        for part in ["GET /x&lt;y&gt;", "/ops/queries/a1", "all statements", "1\u{202f}500", "03:04:05", "src/lib.rs:7"]
        {
            assert!(table.contains(part), "{part} is not in {table}");
        }
    }
}
