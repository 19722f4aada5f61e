//! The id under which a request is found in the logs.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

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

/// Takes over a sane id of the client's, otherwise makes one, and returns it in the answer.
pub(super) async fn layer(request: Request, next: Next) -> Response {
    let given = request.headers().get(&HEADER).and_then(|value| value.to_str().ok()).filter(|id| is_sane(id));
    let id: Arc<str> = match given {
        Some(id) => id.into(),
        None => format!("{:032x}", rand::random::<u128>()).into(),
    };
    let mut response = CURRENT.scope(id.clone(), next.run(request)).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, value);
    }
    response
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
