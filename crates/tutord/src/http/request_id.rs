//! The id under which a request is found in the logs.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName};

/// The header in which a client may send an id, and finds it in the answer.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

const MAX_CHARS: usize = 64;

tokio::task_local! {
    static CURRENT: Arc<str>;
}

/// The id of the request that the calling task serves.
pub fn current() -> Option<Arc<str>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// A sane id of the client's, otherwise a new one.
pub(super) fn of(headers: &HeaderMap) -> Arc<str> {
    match headers.get(&HEADER).and_then(|value| value.to_str().ok()).filter(|id| is_sane(id)) {
        Some(id) => id.into(),
        None => format!("{:032x}", rand::random::<u128>()).into(),
    }
}

/// Runs what serves the request of this id.
pub(super) async fn serve<F: Future>(id: Arc<str>, request: F) -> F::Output {
    CURRENT.scope(id, request).await
}

fn is_sane(id: &str) -> bool {
    (1..=MAX_CHARS).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_plain_ids_are_taken_over() {
        assert!(is_sane("a-B_9.z"));
        assert!(is_sane(&"x".repeat(64)));
        for id in ["", "a b", "a\"b", "é", &"x".repeat(65)] {
            assert!(!is_sane(id), "{id}");
        }
    }
}
