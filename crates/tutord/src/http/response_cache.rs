//! A cache of serialized JSON responses of cached values, with their ETags.
//!
//! Cached values are immutable: a change replaces the value. So a response that depends only on one value stays valid
//! as long as the cache returns the same allocation, and needs no invalidation.

use std::any::{Any, TypeId};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_TYPE, ETAG};
use axum::response::{IntoResponse, Response};
use moka::sync::Cache;
use serde::Serialize;

use super::etag;
use crate::http::error::ApiError;

/// The maximum total size of the cached responses in bytes. The values behind them take about as much.
const MAX_BYTES: u64 = 16 << 20;
/// The idle time after which a response is evicted; responses of replaced values are not read again.
const KEPT: Duration = Duration::from_secs(60);
/// The approximate overhead of a cached response in bytes.
const OVERHEAD: usize = 200;

/// The cache of serialized responses.
#[derive(Debug, Clone)]
pub struct ResponseCache(Cache<Place, Answer>);

/// The key of a response: the address of its value, its type, and an additional number.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Place {
    value: usize,
    kind: TypeId,
    beside: i64,
}

#[derive(Debug, Clone)]
struct Answer {
    bytes: Bytes,
    etag: HeaderValue,
    /// Keeps the value alive, so that no other value can have its address.
    _value: Arc<dyn Any + Send + Sync>,
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, HeaderValue::from_static("application/json")), (ETAG, self.etag)], self.bytes).into_response()
    }
}

impl Default for ResponseCache {
    fn default() -> Self {
        let weight = |_: &Place, answer: &Answer| u32::try_from(OVERHEAD + answer.bytes.len()).unwrap_or(u32::MAX);
        Self(Cache::builder().weigher(weight).max_capacity(MAX_BYTES).time_to_live(KEPT).build())
    }
}

impl ResponseCache {
    /// Returns the response that `make` creates from a value and a number, from memory if the value is shared with the
    /// cache. `make` must not depend on anything else.
    ///
    /// # Errors
    /// Returns an error if the response can't be serialized as JSON.
    pub fn json<V, W>(&self, value: Arc<V>, beside: i64, make: impl FnOnce(V) -> W) -> Result<Response, ApiError>
    where
        V: Clone + Send + Sync + 'static,
        W: Serialize + 'static,
    {
        // A value that is nobody else's comes from the database, and will not be seen again.
        if Arc::strong_count(&value) == 1 {
            return Ok(axum::Json(make(Arc::unwrap_or_clone(value))).into_response());
        }
        let place = Place { value: Arc::as_ptr(&value).addr(), kind: TypeId::of::<W>(), beside };
        if let Some(answer) = self.0.get(&place) {
            return Ok(answer.into_response());
        }
        let bytes = serde_json::to_vec(&make(V::clone(&value))).map_err(|error| ApiError::internal(&error))?;
        let answer = Answer { etag: etag::of(&bytes), bytes: bytes.into(), _value: value };
        self.0.insert(place, answer.clone());
        Ok(answer.into_response())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Doubled(i64);

    #[derive(Serialize)]
    struct Plain(i64);

    fn tag(response: &Response) -> Option<String> {
        response.headers().get(ETAG).map(|tag| tag.to_str().unwrap().to_owned())
    }

    #[test]
    fn an_answer_is_made_once_for_each_value_kind_and_number() {
        let answers = ResponseCache::default();
        let mut made = Vec::new();
        let first = Arc::new(1_i64);
        let mut doubled = |value: &Arc<i64>, beside: i64| {
            let response = answers.json(Arc::clone(value), beside, |value| {
                made.push((value, beside));
                Doubled(value * 2 + beside)
            });
            tag(&response.unwrap()).unwrap()
        };
        let tags = [doubled(&first, 0), doubled(&first, 0), doubled(&first, 5), doubled(&Arc::new(3), 0)];
        assert_eq!(tags[0], tags[1]);
        assert_ne!(tags[0], tags[2]);
        assert_ne!(tags[0], tags[3]);
        let plain = tag(&answers.json(Arc::clone(&first), 0, Plain).unwrap()).unwrap();
        assert_ne!(tags[0], plain, "the same value as another kind");
        assert_eq!(made, [(1, 0), (1, 5), (3, 0)]);
        let own = answers.json(Arc::new(1), 0, Plain).unwrap();
        assert_eq!(tag(&own), None, "what nobody else has is not kept");
    }

    #[test]
    fn another_value_is_never_taken_for_one_that_is_gone() {
        let answers = ResponseCache::default();
        for number in 0..10_000 {
            let value = Arc::new(number);
            // As the cache would, while the answer is made.
            let kept = Arc::clone(&value);
            let response = answers.json(value, 0, Plain).unwrap();
            assert_eq!(tag(&response).unwrap(), etag::of(number.to_string().as_bytes()).to_str().unwrap());
            drop(kept);
        }
    }
}
