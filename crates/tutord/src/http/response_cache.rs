//! A cache of serialized JSON responses of cached values, with their ETags.
//!
//! Cached values are immutable: a change replaces the value. So a response that depends only on one value stays valid
//! as long as the cache returns the same allocation, and needs no invalidation. The type [`Loaded`] distinguishes values
//! that the cache shares from values that were read for one request.

use std::any::{Any, TypeId};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use foldhash::fast::RandomState;
use moka::sync::Cache;
use serde::Serialize;
use tutord_core::store::Loaded;

use super::etag;
use super::middleware::HEADERS;
use crate::http::error::ApiError;

/// The maximum total size of the cached responses in bytes. The values behind them take about as much.
const MAX_BYTES: u64 = 16 << 20;
/// The idle time after which a response is evicted; responses of replaced values are not read again.
const IDLE_TTL: Duration = Duration::from_secs(60);
/// The approximate overhead of a cached response in bytes.
const OVERHEAD: usize = 200;

/// The cache of serialized responses.
#[derive(Debug, Clone)]
pub struct ResponseCache(Cache<ResponseKey, CachedResponse, RandomState>);

/// The key of a response: the address of its value, its type, and an additional number.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ResponseKey {
    value: usize,
    kind: TypeId,
    variant: i64,
}

#[derive(Debug, Clone)]
struct CachedResponse {
    bytes: Bytes,
    etag: HeaderValue,
    /// Keeps the value alive, so that no other value can have its address.
    _value: Arc<dyn Any + Send + Sync>,
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

impl IntoResponse for CachedResponse {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.bytes));
        let mut headers = HeaderMap::with_capacity(HEADERS);
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(ETAG, self.etag);
        *response.headers_mut() = headers;
        response
    }
}

impl Default for ResponseCache {
    fn default() -> Self {
        let weight = |_: &ResponseKey, response: &CachedResponse| {
            u32::try_from(OVERHEAD + response.bytes.len()).unwrap_or(u32::MAX)
        };
        let builder = Cache::builder().weigher(weight).max_capacity(MAX_BYTES).time_to_live(IDLE_TTL);
        Self(builder.build_with_hasher(RandomState::default()))
    }
}

impl ResponseCache {
    /// Returns the response that `make` creates from a value and the number of a variant. The response of a shared value
    /// is cached. `make` must not depend on anything else.
    ///
    /// # Errors
    /// Returns an error if the response can't be serialized as JSON.
    pub fn json<V, W>(&self, value: Loaded<V>, variant: i64, make: impl FnOnce(V) -> W) -> Result<Response, ApiError>
    where
        V: Clone + Send + Sync + 'static,
        W: Serialize + 'static,
    {
        let value = match value {
            Loaded::Shared(value) => value,
            Loaded::Fresh(value) => return Ok(axum::Json(make(value)).into_response()),
        };
        let key = ResponseKey { value: Arc::as_ptr(&value).addr(), kind: TypeId::of::<W>(), variant };
        if let Some(response) = self.0.get(&key) {
            return Ok(response.into_response());
        }
        let bytes = serde_json::to_vec(&make(V::clone(&value))).map_err(|error| ApiError::internal(&error))?;
        let response = CachedResponse { etag: etag::of(&bytes), bytes: bytes.into(), _value: value };
        self.0.insert(key, response.clone());
        Ok(response.into_response())
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
    fn a_response_is_made_once_for_each_value_type_and_variant() {
        let responses = ResponseCache::default();
        let mut made = Vec::new();
        let first = Arc::new(1_i64);
        let mut doubled = |value: &Arc<i64>, variant: i64| {
            let response = responses.json(Loaded::Shared(Arc::clone(value)), variant, |value| {
                made.push((value, variant));
                Doubled(value * 2 + variant)
            });
            tag(&response.unwrap()).unwrap()
        };
        let tags = [doubled(&first, 0), doubled(&first, 0), doubled(&first, 5), doubled(&Arc::new(3), 0)];
        assert_eq!(tags[0], tags[1]);
        assert_ne!(tags[0], tags[2]);
        assert_ne!(tags[0], tags[3]);
        let plain = tag(&responses.json(Loaded::Shared(Arc::clone(&first)), 0, Plain).unwrap()).unwrap();
        assert_ne!(tags[0], plain, "the same value as another kind");
        assert_eq!(made, [(1, 0), (1, 5), (3, 0)]);
        let own = responses.json(Loaded::Fresh(1), 0, Plain).unwrap();
        assert_eq!(tag(&own), None, "a fresh value is not cached");
    }

    #[test]
    fn a_new_value_never_gets_the_response_of_a_dropped_one() {
        let responses = ResponseCache::default();
        for number in 0..10_000 {
            let value = Arc::new(number);
            // Keep the value alive, as the cache does.
            let kept = Arc::clone(&value);
            let response = responses.json(Loaded::Shared(value), 0, Plain).unwrap();
            assert_eq!(tag(&response).unwrap(), etag::of(number.to_string().as_bytes()).to_str().unwrap());
            drop(kept);
        }
    }
}
