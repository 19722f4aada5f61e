//! Bodies that are sent as they come: what each of them has, and what becomes of one that does not come to its end.

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
use crate::ops::metrics::Requests;

/// nginx and others collect an answer before they pass it on, unless it has this header.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// Events are for now. A proxy that compressed them would hold them back.
const EVENTS_CACHING: HeaderValue = HeaderValue::from_static("no-cache, no-transform");
const DOWNLOAD_CACHING: HeaderValue = HeaderValue::from_static("no-store, no-transform");

/// Tells that a stream failed whose last event says so: a body that ends as it should, of a request that failed.
/// Part of the response, and of whoever makes its events.
#[derive(Debug, Clone, Default)]
pub struct FailureFlag(Arc<AtomicBool>);

impl FailureFlag {
    /// Notes that the request failed.
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

/// Makes of every body that is streamed one that may be polled after its end, that can't take anything else down with
/// it, and that is counted and logged where it fails. Proxies are told to pass it on as it comes.
///
/// Bodies whose size is known are complete already, and stay as they are.
pub(super) fn supervise(response: Response, route: impl FnOnce() -> String, requests: &Requests) -> Response {
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
    let (route, requests) = (route(), requests.clone());
    requests.expect_body(&route);
    let body = Supervised { body: Some(body.into_data_stream()), failure, route, requests, span: Span::current() };
    Response::from_parts(parts, Body::from_stream(body))
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// What a panic said.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&'static str>().copied()).unwrap_or("no message")
}

struct Supervised {
    /// `None` after its end: most streams must not be polled again, and the compression layer does.
    body: Option<BodyDataStream>,
    failure: FailureFlag,
    route: String,
    requests: Requests,
    /// The request's, which has its id.
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
        // The connection is closed without the mark of a body's end: no client takes the part for the whole.
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
            tracing::debug!(parent: &self.span, "the client left before the response's end");
        }
    }
}
