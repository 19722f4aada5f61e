//! The embedded style sheets and scripts.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::LazyLock;

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::routing::get;
use maud::{Markup, html};

/// The name, type and text of an asset.
const ASSETS: [(&str, &str, &str); 5] = [
    ("style.css", "text/css; charset=utf-8", include_str!("../assets/style.css")),
    ("shell.css", "text/css; charset=utf-8", include_str!("../assets/shell.css")),
    ("script.js", "text/javascript; charset=utf-8", include_str!("../assets/script.js")),
    ("uplot.css", "text/css; charset=utf-8", include_str!("../assets/vendor/uPlot.min.css")),
    ("uplot.js", "text/javascript; charset=utf-8", include_str!("../assets/vendor/uPlot.iife.min.js")),
];

/// A hash over all assets.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = DefaultHasher::new();
    ASSETS.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
});

/// Returns the URL of an asset. The URL contains the hash, so that browsers can cache the asset.
pub(crate) fn address(base: &str, name: &str) -> String {
    format!("{base}/assets/{name}?v={}", *VERSION)
}

/// Renders the elements of `<head>` that every page needs. `shell` adds the style of the default shell.
pub(crate) fn links(base: &str, shell: bool) -> Markup {
    html! {
        link rel="stylesheet" href=(address(base, "uplot.css"));
        link rel="stylesheet" href=(address(base, "style.css"));
        @if shell { link rel="stylesheet" href=(address(base, "shell.css")); }
        script src=(address(base, "uplot.js")) defer {}
        script src=(address(base, "script.js")) defer {}
    }
}

/// Returns the routes of the assets. Each has its own route, so that the host answers unknown names.
pub(crate) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    ASSETS.into_iter().fold(Router::new(), |router, (name, kind, text)| {
        let headers = [
            (CONTENT_TYPE, kind),
            (CACHE_CONTROL, "public, max-age=31536000, immutable"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        router.route(&format!("/assets/{name}"), get(async move || (headers, text)))
    })
}
