//! The pages of requests: routes by statements per request, the newest requests, and the statements of one request.

use std::sync::Arc;

use maud::{Markup, html};
use querywatch::FindingKind;

use super::findings;
use crate::format;
use crate::page::Page;
use crate::parts::{Columns, code_or, empty, statement_link, table, tile};
use crate::requests::{Request, Requests, RouteTotals};
use crate::view::{Section, View};

pub(crate) fn list(log: &Requests, base: &str) -> View {
    View {
        title: "Requests".to_owned(),
        intro: html! {
            "Statements per request, by route, and the newest requests that issued statements. A number that grows with "
            "the data of a page points to a statement in a loop."
        },
        sections: vec![
            Section::new("requests", "Newest requests", newest(base, &log.newest())),
            Section::new("routes", "Routes", routes(&log.routes())),
        ],
    }
}

pub(crate) fn routes(routes: &[(Arc<str>, RouteTotals)]) -> Markup {
    if routes.is_empty() {
        return empty("No request issued a statement yet.");
    }
    let columns = Columns::default().texts(["Route"]).numbers([
        "Statements per request",
        "Most",
        "Newest",
        "Requests",
        "Failed (5xx)",
        "Database time",
        "Total time",
    ]);
    let rows = html! {
        @for (route, totals) in routes {
            @let mean = format::float(totals.statements) / format::float(totals.requests.max(1));
            tr {
                th scope="row" { code { (route) } }
                td.number { (format::decimal(Some(mean))) }
                td.number { (format::count(totals.most.into())) }
                td.number { (format::count(totals.newest.into())) }
                td.number { (format::count(totals.requests)) }
                td.number { span.bad[totals.failed > 0] { (format::count(totals.failed)) } }
                @for us in [totals.db_us, totals.took_us] {
                    td.number { (format::time(us / totals.requests.max(1))) }
                }
            }
        }
    };
    html! {
        (table("Routes", "Since the start, most statements per request first", &columns, &rows))
        p.muted { "Times are means per request." }
    }
}

pub(crate) fn newest(base: &str, requests: &[Arc<Request>]) -> Markup {
    if requests.is_empty() {
        return empty("No request issued a statement yet. Each request appears here when its response is ready.");
    }
    let columns = Columns::default()
        .texts(["Answered", "Request"])
        .numbers(["Status", "Statements", "Database time", "Total time"])
        .texts(["Findings"]);
    let rows = html! {
        @for request in requests {
            tr data-key=(request.number) {
                td { (format::when(request.at_ms)) }
                th scope="row" { a href=(Page::Request(request.number).href(base)) { code { (request.route) } } }
                td.number { (status(request.status)) }
                td.number { (format::count(request.statements.into())) }
                td.number { (format::time(request.db_us)) }
                td.number { (format::time(request.took_us)) }
                td { (kinds(&request.findings)) }
            }
        }
    };
    table("Newest requests", "Requests with statements, newest first; times in UTC", &columns, &rows)
}

fn status(status: Option<u16>) -> Markup {
    html! {
        @match status {
            Some(status) => span.bad[status >= 500] { (status) },
            None => span.bad { "failed" },
        }
    }
}

fn kinds(kinds: &[FindingKind]) -> Markup {
    html! {
        @if kinds.is_empty() { span.muted { "none" } }
        @for kind in kinds { span.badge { (findings::name(*kind)) } " " }
    }
}

pub(crate) fn detail(request: &Request, base: &str) -> View {
    let figures = html! {
        dl.tiles {
            (tile("Statements", &html! { (format::count(request.statements.into())) }))
            (tile("Database time", &html! { (format::time(request.db_us)) }))
            (tile("Total time", &html! { (format::time(request.took_us)) }))
            (tile("Status", &status(request.status)))
        }
        p { "Answered " (format::when(request.at_ms)) " UTC. Request id: " (code_or(request.request_id.as_deref(), "none")) }
    };
    let found = html! {
        @if request.findings.is_empty() { (empty("The request has no findings.")) }
        @else { p { (kinds(&request.findings)) a href=(Page::Findings.href(base)) { "Remedies" } } }
    };
    View {
        title: request.route.to_string(),
        intro: html! { a href=(Page::Requests.href(base)) { "All requests" } },
        sections: vec![
            Section::new("figures", "Figures", figures),
            Section::new("findings", "Findings", found),
            Section::new("statements", "Statements", statements(request, base)),
        ],
    }
}

fn statements(request: &Request, base: &str) -> Markup {
    let columns = Columns::default().texts(["Statement"]).numbers(["Calls"]);
    let rows = html! {
        @for shape in &request.shapes {
            tr {
                th scope="row" { (statement_link(base, &shape.id, &shape.sql)) }
                td.number { (format::count(shape.calls.into())) }
            }
        }
    };
    html! {
        (table("Statements of the request", "Most frequent first", &columns, &rows))
        @if request.more_shapes > 0 { p.muted { (format::size(request.more_shapes)) " further statements are not stored." } }
    }
}
