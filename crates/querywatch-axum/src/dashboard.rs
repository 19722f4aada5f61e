//! The dashboard: its settings, its routes and its pages.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, OriginalUri, Query, State};
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::Response;
use axum::routing::get;
use maud::{Markup, html};
use querywatch::{ShapeSnapshot, Watch};

use crate::assets;
use crate::page::{Entry, Page, TableOrder};
use crate::pages::{findings, overview, queries, requests, slow, statement};
use crate::requests::Requests;
use crate::shell::{DefaultShell, Frame, Shell};
use crate::source::Source;
use crate::view::{News, Section, View};

/// Prevents caching, because pages are private and change constantly.
const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-store");

/// The dashboard of a [`Watch`]; cheap to clone. [`router`](Self::router) makes it a router.
#[derive(Clone)]
pub struct Dashboard {
    source: Source,
    has_overview: bool,
    base: Option<Arc<str>>,
    shell: Arc<dyn Shell>,
}

impl std::fmt::Debug for Dashboard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dashboard").field("watch", &self.source.watch).field("base", &self.base).finish_non_exhaustive()
    }
}

impl Dashboard {
    /// Creates a dashboard with the default shell.
    pub fn new(watch: &Watch) -> Self {
        Self {
            source: Source::new(watch),
            has_overview: true,
            base: None,
            shell: Arc::new(DefaultShell { name: "querywatch".to_owned() }),
        }
    }

    /// Shows requests that a [`WatchLayer`](crate::WatchLayer) records. Default: none.
    pub fn requests(mut self, requests: &Requests) -> Self {
        self.source.requests = Some(requests.clone());
        self
    }

    /// Sets the name in the header of the default shell. Replaces an earlier [`shell`](Self::shell). Default:
    /// `querywatch`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.shell = Arc::new(DefaultShell { name: name.into() });
        self
    }

    /// Sets the document around each page.
    pub fn shell(mut self, shell: impl Shell) -> Self {
        self.shell = Arc::new(shell);
        self
    }

    /// Sets the prefix of all links, such as `/ops`. Required only behind a proxy that changes the path. Default: the
    /// prefix at which the router is mounted, from the URL of the request.
    pub fn base_path(mut self, base: &str) -> Self {
        self.base = Some(base.trim_end_matches('/').into());
        self
    }

    /// Leaves out the page [`Page::Overview`], for hosts that have an overview of their own at the prefix.
    pub const fn without_overview(mut self) -> Self {
        self.has_overview = false;
        self
    }

    /// Adds a section to the page of each statement, such as its plan. Its id is unique among the sections.
    pub fn statement_section(mut self, section: impl Fn(&ShapeSnapshot) -> Section + Send + Sync + 'static) -> Self {
        self.source.statement_sections.push(Arc::new(section));
        self
    }

    /// Sets the names under which pages mention the threshold of slow statements and the limit of repetitions, such as
    /// environment variables of the host. Default: the methods of `WatchBuilder`.
    pub const fn setting_names(mut self, slow_threshold: &'static str, repeat_limit: &'static str) -> Self {
        self.source.threshold_setting = slow_threshold;
        self.source.repeat_setting = repeat_limit;
        self
    }

    /// Returns the routes of the pages and their assets. Mount them at any prefix with [`Router::nest`].
    ///
    /// The router has no authentication: wrap it in a layer of the host, see the [crate's documentation](crate).
    pub fn router<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        self.pages().merge(Self::assets())
    }

    /// Returns the routes of the pages without the assets, for hosts whose other pages use the assets too, such as a
    /// log-in page.
    pub fn pages<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        let plain =
            |page: Page| get(async move |State(dashboard): State<Self>, base: Base| dashboard.respond(&page, &base.0));
        let mut router = Router::new()
            .route("/queries", get(queries_page))
            .route("/queries/{id}", get(statement_page))
            .route("/slow", plain(Page::Slow))
            .route("/findings", plain(Page::Findings));
        if self.has_overview {
            router = router.route("/", plain(Page::Overview));
        }
        if self.source.requests.is_some() {
            router = router.route("/requests", plain(Page::Requests)).route("/requests/{number}", get(request_page));
        }
        router.with_state(self.clone())
    }

    /// Returns the routes of the style sheets and scripts. They contain no data of the service.
    pub fn assets<S: Clone + Send + Sync + 'static>() -> Router<S> {
        assets::router()
    }

    /// Renders the `<head>` elements of the default shell, for further pages of the host. `base` is the prefix of the
    /// dashboard.
    pub fn head(base: &str) -> Markup {
        assets::links(base, true)
    }

    /// Returns the current content of a page, or `None` if the request or statement is not stored. `base` is the prefix
    /// of the dashboard.
    pub fn view(&self, page: &Page, base: &str) -> Option<View> {
        let source = &self.source;
        Some(match page {
            Page::Overview => overview::view(source, base),
            Page::Requests => requests::list(source.requests.as_ref()?, base),
            Page::Request(number) => requests::detail(&*source.requests.as_ref()?.request(*number)?, base),
            Page::Queries(order) => queries::view(source, base, *order),
            Page::Statement(id) => statement::view(source, base, id)?,
            Page::Slow => slow::view(source, base),
            Page::Findings => findings::view(source, base),
        })
    }

    /// Renders the newest slow statements as a table, for a page of the host. `base` is the prefix of the dashboard.
    pub fn newest_slow(&self, base: &str, max: usize) -> Markup {
        slow::newest(&self.source, base, max)
    }

    /// Renders the newest findings as a table, for a page of the host. `base` is the prefix of the dashboard.
    pub fn newest_findings(&self, base: &str, max: usize) -> Markup {
        findings::newest(&self.source, base, max)
    }

    fn respond(&self, page: &Page, base: &str) -> Response {
        let base = self.base.as_deref().unwrap_or(base);
        match self.view(page, base) {
            Some(view) => self.document(page, base, StatusCode::OK, &view),
            None => {
                let text = match page {
                    Page::Request(_) => "The request is not stored: only the newest requests are.",
                    _ => "No statement of this shape is recorded.",
                };
                self.message(page, base, StatusCode::NOT_FOUND, "Not found", text)
            }
        }
    }

    fn message(&self, page: &Page, base: &str, status: StatusCode, title: &str, text: &str) -> Response {
        let view = View { title: title.to_owned(), intro: html! { (text) }, sections: Vec::new() };
        self.document(page, base, status, &view)
    }

    fn document(&self, page: &Page, base: &str, status: StatusCode, view: &View) -> Response {
        let (entries, news) = (self.entries(page, base), News::of(&self.source.watch));
        let frame = Frame { page, view, base, entries, news, exists: status == StatusCode::OK };
        let mut response = self.shell.render(&frame);
        *response.status_mut() = status;
        response.headers_mut().entry(CACHE_CONTROL).or_insert(PRIVATE);
        response.headers_mut().entry(X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
        response
    }

    fn entries(&self, open: &Page, base: &str) -> Vec<Entry> {
        let all = [
            ("Overview", Page::Overview, self.has_overview),
            ("Requests", Page::Requests, self.source.requests.is_some()),
            ("Queries", Page::Queries(TableOrder::default()), true),
            ("Slow statements", Page::Slow, true),
            ("Findings", Page::Findings, true),
        ];
        let current = |page: &Page| match (page, open) {
            (Page::Queries(_), Page::Queries(_)) => Some("page"),
            (page, open) if page == open => Some("page"),
            (Page::Queries(_), Page::Statement(_)) | (Page::Requests, Page::Request(_)) => Some("true"),
            _ => None,
        };
        all.into_iter()
            .filter(|(.., exists)| *exists)
            .map(|(name, page, _)| {
                let current = current(&page);
                // Without the default parameters.
                let href = page.href(base);
                let href = href.split_once('?').map_or(href.as_str(), |(path, _)| path).to_owned();
                Entry { name, href, current }
            })
            .collect()
    }
}

async fn queries_page(
    State(dashboard): State<Dashboard>,
    base: Base,
    order: Result<Query<TableOrder>, QueryRejection>,
) -> Response {
    match order {
        Ok(Query(order)) => dashboard.respond(&Page::Queries(order), &base.0),
        Err(_) => {
            let base = dashboard.base.as_deref().unwrap_or(&base.0);
            let text = "The parameter sort is one of total, calls, p50, p95, p99, max, errors and slow. The parameter \
                        over is window or start.";
            let page = Page::Queries(TableOrder::default());
            dashboard.message(&page, base, StatusCode::BAD_REQUEST, "Invalid query string", text)
        }
    }
}

async fn statement_page(State(dashboard): State<Dashboard>, base: Base, uri: Uri) -> Response {
    dashboard.respond(&Page::Statement(last_segment(&uri).to_owned()), &base.0)
}

async fn request_page(State(dashboard): State<Dashboard>, base: Base, uri: Uri) -> Response {
    // No request has the number 0.
    dashboard.respond(&Page::Request(last_segment(&uri).parse().unwrap_or_default()), &base.0)
}

/// Returns the last segment of a path. The extractor `Path` would also contain the parameters of the host's prefix.
fn last_segment(uri: &Uri) -> &str {
    uri.path().rsplit('/').next().unwrap_or_default()
}

/// The prefix at which the router is mounted, without a slash at its end.
struct Base(String);

impl<S: Send + Sync> FromRequestParts<S> for Base {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let original = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |OriginalUri(uri)| uri);
        Ok(Self(base(original.path(), parts.uri.path()).to_owned()))
    }
}

/// Returns the part of a path before the path within the router.
fn base<'a>(original: &'a str, inner: &str) -> &'a str {
    let base = original.trim_end_matches('/').strip_suffix(inner.trim_end_matches('/')).unwrap_or_default();
    // Two slashes would start the name of another host.
    if base.starts_with("//") { "" } else { base.trim_end_matches('/') }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_is_what_precedes_the_path_within_the_router() {
        assert_eq!(base("/ops/queries/a", "/queries/a"), "/ops");
        assert_eq!(base("/ops", "/"), "/ops");
        assert_eq!(base("/a/b/slow", "/slow"), "/a/b");
        assert_eq!(base("/slow", "/slow"), "");
        assert_eq!(base("/", "/"), "");
        assert_eq!(base("//example.com/slow", "/slow"), "");
    }
}
