//! Streamed response bodies: their headers, and the handling of failures.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::BoxError;
use axum::body::{Body, BodyDataStream, Bytes, HttpBody as _};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponseParts, Response, ResponseParts};
use futures_util::Stream;
use tracing::Span;

use super::bounded::Bounded;
use super::requests::Requests;

/// The header that disables response buffering in nginx and other proxies.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// Prevents proxies from compressing events, which would delay them.
const EVENTS_CACHING: HeaderValue = HeaderValue::from_static("no-cache, no-transform");
const DOWNLOAD_CACHING: HeaderValue = HeaderValue::from_static("no-store, no-transform");

/// The failure flag of a stream whose last event reports an error: the body is complete, but the request failed.
/// Shared by the response and the producer of its events.
#[derive(Debug, Clone, Default)]
pub struct FailureFlag(Arc<AtomicBool>);

impl FailureFlag {
    /// Marks the request as failed.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl IntoResponseParts for FailureFlag {
    type Error = std::convert::Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Self::Error> {
        parts.extensions_mut().insert(self);
        Ok(parts)
    }
}

/// Wraps every streamed body: it may be polled after its end, contains panics, and is counted and logged if it fails.
/// Proxies are instructed to forward it unbuffered.
///
/// Bodies of known size are already complete and stay unchanged.
pub(super) fn supervise(response: Response, route: &str, requests: &Requests) -> Response {
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let headers = &mut parts.headers;
    headers.insert(BUFFERING, HeaderValue::from_static("no"));
    if is_event_stream(headers) {
        headers.insert(CACHE_CONTROL, EVENTS_CACHING);
    } else {
        headers.entry(CACHE_CONTROL).or_insert(DOWNLOAD_CACHING);
    }
    let failure = parts.extensions.remove::<FailureFlag>().unwrap_or_default();
    let (route, requests) = (route.to_owned(), requests.clone());
    requests.expect_body(&route);
    let body = Supervised { body: Some(body.into_data_stream()), failure, route, requests, span: Span::current() };
    Response::from_parts(parts, Body::from_stream(body))
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// Returns the message of a panic.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&'static str>().copied()).unwrap_or("no message")
}

struct Supervised {
    /// `None` after the end: most streams must not be polled again, but the compression layer does so.
    body: Option<BodyDataStream>,
    failure: FailureFlag,
    route: String,
    requests: Requests,
    /// The span of the request, with its id.
    span: Span,
}

impl Supervised {
    fn failed(&self, error: &str) {
        self.requests.count_failed_body(&self.route);
        tracing::error!(parent: &self.span, error = %Bounded(error), "response body failed");
    }
}

impl Stream for Supervised {
    type Item = Result<Bytes, BoxError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let entered = this.span.enter();
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(body).poll_next(context)));
        drop(entered);
        let error: BoxError = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Some(Ok(bytes)))) => return Poll::Ready(Some(Ok(bytes))),
            Ok(Poll::Ready(None)) => {
                this.body = None;
                if this.failure.is_set() {
                    this.failed("the last event tells the client");
                }
                return Poll::Ready(None);
            }
            Ok(Poll::Ready(Some(Err(error)))) => error.into(),
            Err(payload) => format!("panic: {}", panic_message(&*payload)).into(),
        };
        this.body = None;
        this.failed(&error.to_string());
        // The connection is closed without the end mark of the body, so no client mistakes the part for the whole.
        Poll::Ready(Some(Err(error)))
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if self.body.is_none() {
            return;
        }
        if self.failure.is_set() {
            self.failed("the last event tells a client that has left");
        } else {
            tracing::debug!(parent: &self.span, "the client disconnected before the response was complete");
        }
    }
}
