//! The page Overview: current figures, and what happened last.

use maud::{Markup, html};

use super::{findings, requests, slow};
use crate::format;
use crate::page::Page;
use crate::parts::tile;
use crate::source::Source;
use crate::view::{Section, View};

/// The maximum number of findings, slow statements, routes and requests. Their own pages list all.
const MAX_NEWEST: usize = 5;

pub(crate) fn view(source: &Source, base: &str) -> View {
    let mut sections = vec![
        Section::new("now", "Summary", tiles(source)),
        Section::new("findings", "Newest findings", findings::newest(source, base, MAX_NEWEST)),
        Section::new("slow", "Newest slow statements", slow::newest(source, base, MAX_NEWEST)),
    ];
    if let Some(log) = &source.requests {
        let (mut routes, mut newest) = (log.routes(), log.newest());
        routes.truncate(MAX_NEWEST);
        newest.truncate(MAX_NEWEST);
        sections.push(Section::new("routes", "Routes", requests::routes(&routes)));
        let requests = html! {
            (requests::newest(base, &newest))
            @if !newest.is_empty() { p { a href=(Page::Requests.href(base)) { "All routes and the newest requests" } } }
        };
        sections.push(Section::new("requests", "Newest requests", requests));
    }
    View {
        title: "Overview".to_owned(),
        intro: html! { "SQL statements of this process. Figures cover the last " (source.window()) " unless noted." },
        sections,
    }
}

fn tiles(source: &Source) -> Markup {
    let totals = source.watch.totals();
    let window = totals.window;
    let time = |us| html! { (format::time_of(us, window.calls)) };
    html! {
        dl.tiles {
            (tile("Statements", &html! { (format::rate(window.per_second)) }))
            (tile("p50", &time(window.p50_us)))
            (tile("p99", &time(window.p99_us)))
            (tile("Errors", &html! { span.bad[window.errors > 0] { (format::count(window.errors)) } }))
            (tile("Statement shapes", &html! { (format::size(totals.shapes)) }))
            (tile("Slow, since the start", &html! { span.warn[totals.slow > 0] { (format::count(totals.slow)) } }))
            (tile("Outside of requests, since the start", &html! { (format::count(totals.unscoped)) }))
            (tile("Findings, since the start", &html! { span.warn[totals.findings > 0] { (format::count(totals.findings)) } }))
        }
    }
}
