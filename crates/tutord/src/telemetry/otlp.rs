//! Exports traces to an OpenTelemetry collector: a span for each request, with a child span for each SQL statement.
//!
//! Requires the feature `otlp`, and `OTEL_EXPORTER_OTLP_ENDPOINT` with the address of a collector for OTLP over HTTP.
//! Other variables of this family (`OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`, …) have
//! their standard meaning: <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>.
//! `RUST_LOG` must allow level `info` of `tutord`.

use std::time::SystemTime;

use anyhow::Context as _;
use opentelemetry::trace::{Span as _, SpanKind, Status, Tracer as _, TracerProvider as _};
use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::{OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use querywatch::{Outcome, Sink, Statement};
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

/// The instrumentation scope of the spans.
const SCOPE: &str = "tutord";

/// The exporter of traces. Dropping it flushes pending spans.
pub struct TraceExporter(SdkTracerProvider);

impl Drop for TraceExporter {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "could not export the last traces");
        }
    }
}

/// Returns the layer that exports request spans; `None` if no collector is configured.
///
/// # Errors
/// Returns an error if a variable is invalid.
pub fn layer<S>() -> anyhow::Result<Option<(impl Layer<S> + Send + Sync, TraceExporter)>>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let variables = [OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT];
    if variables.iter().all(|variable| std::env::var(variable).unwrap_or_default().is_empty()) {
        return Ok(None);
    }
    let exporter = SpanExporter::builder().with_http().build().context(OTEL_EXPORTER_OTLP_ENDPOINT)?;
    // The resource reads OTEL_SERVICE_NAME itself, which takes precedence.
    let mut resource = Resource::builder();
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("tutord");
    }
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
    global::set_tracer_provider(provider.clone());
    // The exporter's own log lines must not become spans of a request.
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer(SCOPE)).with_location(false);
    Ok(Some((layer, TraceExporter(provider))))
}

/// A sink that creates a span for each statement, as a child of the request's span.
pub(crate) struct StatementSpans;

impl Sink for StatementSpans {
    fn wants_statements(&self) -> bool {
        true
    }

    fn on_statement(&self, statement: &Statement<'_>) {
        let tracer = global::tracer(SCOPE);
        let end = SystemTime::now();
        let name = statement.sql.split(' ').next().unwrap_or_default().to_owned();
        let mut span = tracer
            .span_builder(name)
            .with_kind(SpanKind::Client)
            .with_start_time(end.checked_sub(statement.duration).unwrap_or(end))
            .with_attributes([KeyValue::new("db.query.text", statement.sql.to_owned())])
            .start_with_context(&tracer, &tracing::Span::current().context());
        match statement.outcome {
            Outcome::Failed => span.set_status(Status::error("failed")),
            Outcome::Cancelled => span.set_status(Status::error("cancelled")),
            _ => {}
        }
        span.end_with_timestamp(end);
    }
}
