//! The content of pages, independent of HTML and JSON.

use std::collections::BTreeMap;

use maud::{Markup, html};
use querywatch::Watch;
use serde::Serialize;

use crate::chart::Chart;

/// The content of a page.
pub struct View {
    /// The title and heading of the page.
    pub title: String,
    /// The introduction. It does not change while the page is open.
    pub intro: Markup,
    /// The sections, in order.
    pub sections: Vec<Section>,
}

/// A part of a page with its heading.
pub struct Section {
    /// The id of the section, unique on its page.
    id: &'static str,
    heading: &'static str,
    content: Content,
}

enum Content {
    Markup(Markup),
    Chart(Chart),
}

impl Section {
    /// Creates a section of HTML. The id is unique on its page.
    pub const fn new(id: &'static str, heading: &'static str, markup: Markup) -> Self {
        Self { id, heading, content: Content::Markup(markup) }
    }

    /// Creates a section with a chart. The id is unique on its page.
    pub const fn chart(id: &'static str, heading: &'static str, chart: Chart) -> Self {
        Self { id, heading, content: Content::Chart(chart) }
    }

    fn render(&self) -> Markup {
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

/// An update of an open page. Its JSON is the data of a `snapshot` event of the stream named by `data-live`, see
/// [`View::update`].
#[derive(Serialize)]
pub struct PageUpdate<'a> {
    /// The HTML of each part, by its id.
    parts: BTreeMap<String, String>,
    charts: BTreeMap<&'static str, &'a Chart>,
    news: News,
}

/// Times that a page announces when they grow.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct News {
    /// The end of the newest slow statement, in milliseconds since 1970; 0 if there is none.
    pub(crate) slow: u64,
    /// The first occurrence of the newest finding, in milliseconds since 1970; 0 if there is none.
    pub(crate) findings: u64,
}

impl News {
    /// Reads the newest slow statement and finding of a watch.
    pub fn of(watch: &Watch) -> Self {
        let newest = |times: Option<u64>| times.unwrap_or_default();
        Self {
            slow: newest(watch.slow_statements().first().map(|slow| slow.at_ms)),
            findings: newest(watch.findings().iter().map(|finding| finding.first_seen_ms).max()),
        }
    }
}

impl View {
    /// Renders the heading, the introduction and the sections.
    pub fn render(&self) -> Markup {
        html! {
            h1 { (self.title) }
            p.intro { (self.intro) }
            @for section in &self.sections { (section.render()) }
        }
    }

    /// Returns the changing parts, for a host that streams updates. The stream is a `text/event-stream` whose URL
    /// stands in the attribute `data-live` of the element around the content; each event is named `snapshot` and
    /// carries this update as JSON. Pages without such a stream fetch themselves.
    pub fn update(&self, news: News) -> PageUpdate<'_> {
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
        PageUpdate { parts, charts, news }
    }
}
