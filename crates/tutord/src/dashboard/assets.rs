//! The style sheet and the script of the log-in. Those of all pages belong to `querywatch_axum`.

use std::sync::LazyLock;

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::routing::get;
use sha2::{Digest as _, Sha256};

use super::PREFIX;

/// The name, type and text of an asset.
const ASSETS: [(&str, &str, &str); 2] = [
    ("login.css", "text/css; charset=utf-8", include_str!("login.css")),
    ("login.js", "text/javascript; charset=utf-8", include_str!("login.js")),
];

/// A hash over all assets.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let hash = ASSETS.iter().fold(Sha256::new(), |hash, (_, _, text)| hash.chain_update(text)).finalize();
    hash[..6].iter().map(|byte| format!("{byte:02x}")).collect()
});

/// Returns the URL of an asset. The URL contains the hash, so that browsers can cache the asset.
pub(super) fn address(name: &str) -> String {
    format!("{PREFIX}/assets/{name}?v={}", *VERSION)
}

/// Returns the routes of all assets below the prefix. They require no authentication, because the log-in page uses them.
pub(super) fn router() -> Router {
    ASSETS.into_iter().fold(querywatch_axum::Dashboard::assets(), |router, (name, kind, text)| {
        let headers = [(CONTENT_TYPE, kind), (CACHE_CONTROL, "public, max-age=31536000, immutable")];
        router.route(&format!("/assets/{name}"), get(async move || (headers, text)))
    })
}
