//! Request ids, which identify requests in the log.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName};

/// The header for the request id, in requests and responses.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

const MAX_CHARS: usize = 64;

tokio::task_local! {
    static CURRENT: Arc<str>;
}

/// Returns the id of the request that the calling task serves.
pub fn current() -> Option<Arc<str>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// Returns the client's id if it is valid, otherwise a new one.
pub(super) fn of(headers: &HeaderMap) -> Arc<str> {
    match headers.get(&HEADER).and_then(|value| value.to_str().ok()).filter(|id| is_sane(id)) {
        Some(id) => id.into(),
        None => format!("{:032x}", rand::random::<u128>()).into(),
    }
}

/// Runs a future with this request id.
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
