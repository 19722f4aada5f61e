//! The content of pages, independent of HTML and JSON.

use std::collections::BTreeMap;

use maud::{Markup, html};
use serde::Serialize;

use super::chart::Chart;
use super::state::DashboardState;

/// The content of a page.
pub(super) struct View {
    pub(super) title: String,
    /// The introduction. It does not change while the page is open.
    pub(super) intro: Markup,
    pub(super) sections: Vec<Section>,
}

/// A part of a page with its heading.
pub(super) struct Section {
    /// The id of the section, unique on its page.
    pub(super) id: &'static str,
    pub(super) heading: &'static str,
    pub(super) content: Content,
}

pub(super) enum Content {
    Markup(Markup),
    Chart(Chart),
}

impl Section {
    pub(super) const fn new(id: &'static str, heading: &'static str, markup: Markup) -> Self {
        Self { id, heading, content: Content::Markup(markup) }
    }

    pub(super) const fn chart(id: &'static str, heading: &'static str, chart: Chart) -> Self {
        Self { id, heading, content: Content::Chart(chart) }
    }

    pub(super) fn render(&self) -> Markup {
        let heading = format!("{}-heading", self.id);
        html! {
            section aria-labelledby=(heading) {
                h2 id=(heading) { (self.heading) }
                @match &self.content {
                    Content::Markup(markup) => div data-part=(self.id) { (markup) },
                    Content::Chart(chart) => (chart.render(self.id, self.heading)),
                }
            }
        }
    }
}

/// An update of an open page.
#[derive(Serialize)]
pub(super) struct PageUpdate<'a> {
    /// The HTML of each part, by its id.
    parts: BTreeMap<String, String>,
    charts: BTreeMap<&'static str, &'a Chart>,
    news: Announced,
}

/// Values that the page announces when they grow.
#[derive(Serialize)]
struct Announced {
    slow: u64,
    findings: u64,
}

impl View {
    pub(super) fn update(&self, state: &DashboardState) -> PageUpdate<'_> {
        let (mut parts, mut charts) = (BTreeMap::new(), BTreeMap::new());
        for section in &self.sections {
            match &section.content {
                Content::Markup(markup) => {
                    parts.insert(section.id.to_owned(), markup.0.clone());
                }
                Content::Chart(chart) => {
                    parts.extend(chart.parts(section.id).map(|(id, markup)| (id, markup.into_string())));
                    charts.insert(section.id, chart);
                }
            }
        }
        let newest = |times: Option<u64>| times.unwrap_or_default();
        let news = Announced {
            slow: newest(state.watch.slow_statements().first().map(|slow| slow.at_ms)),
            findings: newest(state.watch.findings().iter().map(|finding| finding.first_seen_ms).max()),
        };
        PageUpdate { parts, charts, news }
    }
}

/// Renders a figure with its name.
pub(super) fn tile(name: &str, value: &Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

/// Wraps a table in a scrollable box, which also scrolls by keyboard.
pub(super) fn scrolling(label: &str, table: &Markup) -> Markup {
    html! { div.scroll role="group" tabindex="0" aria-label=(label) { (table) } }
}

/// Renders a note that explains why there is no data.
pub(super) fn empty(text: &str) -> Markup {
    html! { p.empty { (text) } }
}

/// Logs a failed query, and renders a note.
pub(super) fn query_failed(error: &tutord_core::Error) -> Markup {
    tracing::warn!(%error, "could not load a dashboard page from the database");
    empty("The database did not respond.")
}
