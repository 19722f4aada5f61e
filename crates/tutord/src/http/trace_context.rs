//! The trace context of a request.

use axum::http::{HeaderMap, HeaderName};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Returns the header `traceparent` (<https://www.w3.org/TR/trace-context/#traceparent-header>) if it is valid.
pub(super) fn traceparent(headers: &HeaderMap) -> Option<&str> {
    headers.get(&TRACEPARENT).and_then(|value| value.to_str().ok()).filter(|text| is_sane(text))
}

/// Sets the client's trace as parent of a request's span.
#[cfg(feature = "otlp")]
pub(super) fn continue_trace(span: &tracing::Span, traceparent: &str) {
    use opentelemetry::propagation::TextMapPropagator as _;
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;
    let carrier = std::collections::HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    // Fails only without a layer that exports spans.
    let _ = span.set_parent(TraceContextPropagator::new().extract(&carrier));
}

/// Records the status of a response in the request's span.
#[cfg(feature = "otlp")]
pub(super) fn record_status(span: &tracing::Span, status: axum::http::StatusCode) {
    use opentelemetry::trace::Status;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;
    span.set_attribute("http.response.status_code", i64::from(status.as_u16()));
    if super::error::is_failure(status) {
        span.set_status(Status::error(status.as_str().to_owned()));
    }
}

/// Checks version, trace, parent and flags: lower-case hexadecimal digits, with a nonzero trace and parent.
fn is_sane(text: &str) -> bool {
    const LENGTHS: [usize; 4] = [2, 32, 16, 2];
    let parts: Vec<&str> = text.split('-').collect();
    parts.iter().map(|part| part.len()).eq(LENGTHS)
        && parts.iter().all(|part| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
        && parts[1..3].iter().all(|part| part.bytes().any(|byte| byte != b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_standard_form_is_taken() {
        assert!(is_sane("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473'-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert!(!is_sane(text), "{text}");
        }
    }
}
