//! Small pieces of HTML that several pages share.

use maud::{Markup, html};

use crate::format;

/// Renders a figure with its name. Figures stand in a `dl.tiles`.
pub fn tile(name: &str, value: &Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

/// Wraps a table in a scrollable box, which also scrolls by keyboard.
pub fn scrolling(label: &str, table: &Markup) -> Markup {
    html! { div.scroll role="group" tabindex="0" aria-label=(label) { (table) } }
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
    fn long_statements_are_shortened_and_escaped() {
        let html = statement_link("/base", "a1", &format!("SELECT '<b>' {}", "ü".repeat(200))).into_string();
        assert!(html.contains("SELECT '&lt;b&gt;' üüü") && html.contains("ü…</code>"), "{html}");
        assert!(html.starts_with(r#"<a href="/base/queries/a1">"#), "{html}");
        assert!(!statement_link("", "a1", "SELECT 1").into_string().contains('…'));
    }
}
