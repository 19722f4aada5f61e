//! The embedded style sheets and scripts.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};

use crate::http::error::ApiError;

/// The name, type and text of an asset.
const ASSETS: [(&str, &str, &str); 4] = [
    ("style.css", "text/css; charset=utf-8", include_str!("style.css")),
    ("script.js", "text/javascript; charset=utf-8", include_str!("script.js")),
    ("uplot.css", "text/css; charset=utf-8", include_str!("vendor/uPlot.min.css")),
    ("uplot.js", "text/javascript; charset=utf-8", include_str!("vendor/uPlot.iife.min.js")),
];

/// A hash over all assets.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let hash = ASSETS.iter().fold(Sha256::new(), |hash, (_, _, text)| hash.chain_update(text)).finalize();
    hash[..6].iter().map(|byte| format!("{byte:02x}")).collect()
});

/// Returns the URL of an asset. The URL contains the hash, so that browsers can cache the asset.
pub(super) fn address(name: &str) -> String {
    format!("/ops/assets/{name}?v={}", *VERSION)
}

/// Serves `/ops/assets/{name}`. Requires no authentication, because the log-in page uses the assets.
pub(super) async fn asset(Path(name): Path<String>) -> Response {
    match ASSETS.iter().find(|(known, ..)| *known == name) {
        Some((_, kind, text)) => {
            ([(CONTENT_TYPE, *kind), (CACHE_CONTROL, "public, max-age=31536000, immutable")], *text).into_response()
        }
        None => ApiError::not_found("path").into_response(),
    }
}
