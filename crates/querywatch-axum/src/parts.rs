//! Small pieces of HTML that several pages share.

use maud::{Markup, Render, html};

use crate::format;

/// Renders the beginning of a document's `<head>`: the encoding, the width of phones, the title and an empty icon.
pub fn document_head(title: &str, site: &str) -> Markup {
    html! {
        meta charset="utf-8";
        meta name="viewport" content="width=device-width, initial-scale=1";
        title { (title) " – " (site) }
        link rel="icon" href="data:,";
    }
}

/// Renders a figure with its name. Figures stand in a `dl.tiles`.
pub fn tile(name: &str, value: &Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

/// The headings of the columns of a [`table`], from left to right.
#[derive(Default)]
pub struct Columns(Vec<Markup>);

impl Columns {
    /// Appends columns of texts.
    #[must_use]
    pub fn texts(mut self, headings: impl IntoIterator<Item = impl Render>) -> Self {
        self.0.extend(headings.into_iter().map(|heading| html! { th scope="col" { (heading) } }));
        self
    }

    /// Appends columns of numbers, which are aligned to the right.
    #[must_use]
    pub fn numbers(self, headings: impl IntoIterator<Item = impl Render>) -> Self {
        self.sortable_numbers(headings.into_iter().map(|heading| (heading, false)))
    }

    /// Appends columns of numbers, and marks those that determine the order of the rows, highest first.
    #[must_use]
    pub fn sortable_numbers(mut self, headings: impl IntoIterator<Item = (impl Render, bool)>) -> Self {
        self.0.extend(headings.into_iter().map(|(heading, is_sorted)| {
            html! { th.number scope="col" aria-sort=[is_sorted.then_some("descending")] { (heading) } }
        }));
        self
    }
}

/// Renders a table in a scrollable box with an accessible name. The box also scrolls by keyboard.
pub fn table(label: &str, caption: impl Render, columns: &Columns, rows: &Markup) -> Markup {
    html! {
        div.scroll role="group" tabindex="0" aria-label=(label) {
            table {
                caption { (caption) }
                thead { tr { @for heading in &columns.0 { (heading) } } }
                tbody { (rows) }
            }
        }
    }
}

/// Renders a note that explains why there is no data.
pub fn empty(text: &str) -> Markup {
    html! { p.empty { (text) } }
}

/// Renders a name as code, or a fallback text.
pub fn code_or(name: Option<&str>, otherwise: &str) -> Markup {
    html! {
        @if let Some(name) = name { code { (name) } } @else { span.muted { (otherwise) } }
    }
}

/// Renders the beginning of a statement, with a link to its page.
pub(crate) fn statement_link(base: &str, id: &str, sql: &str) -> Markup {
    html! {
        a href=(format!("{base}/queries/{id}")) {
            code { (format::head(sql)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_a_label_and_headings() {
        let columns =
            Columns::default().texts(["A & B"]).numbers(["C"]).sortable_numbers([(html! { b { "D" } }, true)]);
        let html = table("Figures", "In ms", &columns, &html! { tr { td { "1" } } }).into_string();
        assert_eq!(
            html,
            r#"<div class="scroll" role="group" tabindex="0" aria-label="Figures"><table><caption>In ms</caption>"#
                .to_owned()
                + r#"<thead><tr><th scope="col">A &amp; B</th>"#
                + r#"<th class="number" scope="col">C</th>"#
                + r#"<th class="number" scope="col" aria-sort="descending"><b>D</b></th></tr></thead>"#
                + "<tbody><tr><td>1</td></tr></tbody></table></div>"
        );
    }

    #[test]
    fn long_statements_are_shortened_and_escaped() {
        let html = statement_link("/base", "a1", &format!("SELECT '<b>' {}", "ü".repeat(200))).into_string();
        assert!(html.contains("SELECT '&lt;b&gt;' üüü") && html.contains("ü…</code>"), "{html}");
        assert!(html.starts_with(r#"<a href="/base/queries/a1">"#), "{html}");
        assert!(!statement_link("", "a1", "SELECT 1").into_string().contains('…'));
    }
}
