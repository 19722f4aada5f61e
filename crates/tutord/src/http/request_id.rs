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
        None => std::str::from_utf8(&random()).unwrap_or_default().into(),
    }
}

/// Returns 32 random hexadecimal digits.
fn random() -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let bytes = rand::random::<u128>().to_be_bytes();
    std::array::from_fn(|index| {
        DIGITS[usize::from(if index % 2 == 0 { bytes[index / 2] >> 4 } else { bytes[index / 2] & 0xf })]
    })
}

/// Runs a future with this request id.
pub(super) fn serve<F: Future>(id: Arc<str>, request: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(id, request)
}

fn is_sane(id: &str) -> bool {
    (1..=MAX_CHARS).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_are_32_digits_and_differ() {
        let (first, second) = (random(), random());
        assert!(first.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{first:?}");
        assert_ne!(first, second);
    }

    #[test]
    fn only_short_plain_ids_are_taken_over() {
        assert!(is_sane("a-B_9.z"));
        assert!(is_sane(&"x".repeat(64)));
        for id in ["", "a b", "a\"b", "é", &"x".repeat(65)] {
            assert!(!is_sane(id), "{id}");
        }
    }
}
