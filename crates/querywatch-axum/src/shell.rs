//! The document around the content of a page.

use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use crate::assets;
use crate::page::{Entry, Page};
use crate::parts::document_head;
use crate::view::{News, View};

/// The interval in which an open page fetches itself, in seconds.
const REFRESH_SECONDS: u32 = 2;
/// The content security policy of the default shell. uPlot sets styles through the DOM, which the policy permits.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
);

/// Wraps the content of a page into an HTML document.
///
/// Implement it, or use a closure, to give the dashboard the layout and navigation of the host:
///
/// ```
/// use axum::response::Html;
/// use querywatch_axum::{Dashboard, Frame, Watch};
///
/// let shell = |frame: &Frame<'_>| {
///     let (head, navigation, content) = (frame.head(), frame.navigation(), frame.content());
///     Html(format!(
///         "<!doctype html><html lang=en><head><meta charset=utf-8><title>{} – my service</title>{}</head>\
///          <body>{}<main>{}</main></body></html>",
///         frame.title().into_string(),
///         head.into_string(),
///         navigation.into_string(),
///         content.into_string(),
///     ))
/// };
/// let dashboard = Dashboard::new(&Watch::builder().build()).shell(shell);
/// ```
pub trait Shell: Send + Sync + 'static {
    /// Renders the document. The router sets the status.
    fn render(&self, frame: &Frame<'_>) -> Response;
}

impl<F, R> Shell for F
where
    F: Fn(&Frame<'_>) -> R + Send + Sync + 'static,
    R: IntoResponse,
{
    fn render(&self, frame: &Frame<'_>) -> Response {
        self(frame).into_response()
    }
}

/// A page to wrap into a document.
pub struct Frame<'a> {
    pub(crate) page: &'a Page,
    pub(crate) view: &'a View,
    pub(crate) base: &'a str,
    pub(crate) entries: Vec<Entry>,
    pub(crate) news: News,
    /// Set if the page exists, and therefore updates itself.
    pub(crate) exists: bool,
}

impl Frame<'_> {
    /// Returns the page.
    pub const fn page(&self) -> &Page {
        self.page
    }

    /// Returns the content, for shells that render or stream it themselves.
    pub const fn view(&self) -> &View {
        self.view
    }

    /// Returns whether the page exists. Otherwise the content is a message, which does not update itself.
    pub const fn exists(&self) -> bool {
        self.exists
    }

    /// Returns the prefix at which the dashboard is mounted, without a slash at its end. Part of the request's
    /// URL: escape it.
    pub const fn base(&self) -> &str {
        self.base
    }

    /// Returns the entries of the navigation.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Renders the title as escaped text.
    pub fn title(&self) -> Markup {
        html! { (self.view.title) }
    }

    /// Renders the style sheets and scripts of the content, for `<head>`. All style rules apply within the class
    /// `querywatch` only.
    pub fn head(&self) -> Markup {
        assets::links(self.base, false)
    }

    /// Renders the navigation as a list of links.
    pub fn navigation(&self) -> Markup {
        html! {
            nav aria-label="Pages" { ul {
                @for entry in &self.entries {
                    li { a href=(entry.href) aria-current=[entry.current] { (entry.name) } }
                }
            } }
        }
    }

    /// Renders the content in an element that updates itself every two seconds.
    pub fn content(&self) -> Markup {
        html! {
            div.querywatch data-refresh=[self.exists.then_some(REFRESH_SECONDS)] data-slow=(self.news.slow) data-findings=(self.news.findings) {
                (self.view.render())
            }
        }
    }
}

/// Renders the status of the updates and a button that pauses them. Needs JavaScript; without it, nothing appears.
pub fn controls() -> Markup {
    html! {
        p #live-status role="status" {}
        button #pause type="button" hidden { "Pause" }
    }
}

/// The shell of services without one: a header with the navigation, in light and dark colors.
#[derive(Debug, Clone)]
pub struct DefaultShell {
    /// The name in the header and in the title.
    pub(crate) name: String,
}

impl Shell for DefaultShell {
    fn render(&self, frame: &Frame<'_>) -> Response {
        let markup = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    (document_head(&frame.view.title, &self.name))
                    (assets::links(frame.base, true))
                }
                body.querywatch {
                    a.skip href="#main" { "To the content" }
                    header {
                        p.name { (self.name) }
                        (frame.navigation())
                        div.controls { (controls()) }
                    }
                    main #main tabindex="-1" { (frame.content()) }
                }
            }
        };
        let headers: [(HeaderName, HeaderValue); 1] = [(CONTENT_SECURITY_POLICY, POLICY)];
        (headers, Html(markup.into_string())).into_response()
    }
}
