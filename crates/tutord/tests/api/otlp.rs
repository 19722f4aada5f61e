//! The spans that the binary sends to an OpenTelemetry collector.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;
use serde_json::json;
use testbed::FakeModel;
use tokio::net::TcpListener;

use crate::support::process::{DemoClient, demo_command, start, terminate};

/// Starts a collector; returns its address and the bodies that it receives.
async fn start_collector() -> (String, Arc<Mutex<Vec<Bytes>>>) {
    let received = Arc::new(Mutex::new(Vec::new()));
    let bodies = Arc::clone(&received);
    let traces = post(async move |body: Bytes| bodies.lock().unwrap().push(body));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, Router::new().route("/v1/traces", traces)).await.unwrap() });
    (address, received)
}

fn attribute<'a>(span: &'a Span, key: &str) -> &'a Attribute {
    let found = span.attributes.iter().find(|attribute| attribute.key == key).expect(key);
    found.value.as_ref().unwrap().value.as_ref().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_and_its_statements_are_spans_of_the_trace_of_the_client() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let model = FakeModel::start().await.unwrap();
    let (address, received) = start_collector().await;
    let mut command = demo_command(directory.path(), &model);
    let (mut child, greeting) = start(
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", address).env("RUST_LOG", "info").env_remove("OTEL_SERVICE_NAME"),
    );
    let client = DemoClient::log_in(&greeting, "student").await;
    let (trace, caller, said) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "only for the tutor");
    let message = client.post("/api/chat/message", &json!({"message": said}));
    let message = message.header("traceparent", format!("00-{trace}-{caller}-01"));
    assert_eq!(message.send().await.unwrap().status(), 200);
    // The process batches spans and sends the rest at its end.
    terminate(&child);
    assert!(child.wait().unwrap().success());

    let received = received.lock().unwrap();
    let secrets = [
        &client.token,
        said,
        greeting["student"]["email"].as_str().unwrap(),
        greeting["student"]["password"].as_str().unwrap(),
    ];
    for secret in secrets {
        let sent = received.iter().any(|body| body.windows(secret.len()).any(|part| part == secret.as_bytes()));
        assert!(!sent, "{secret} left the process");
    }
    let spans: Vec<Span> = received
        .iter()
        .flat_map(|body| ExportTraceServiceRequest::decode(body.as_ref()).unwrap().resource_spans)
        .flat_map(|resource| resource.scope_spans)
        .flat_map(|scope| scope.spans)
        .collect();
    let hex = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let of_trace: Vec<_> = spans.iter().filter(|span| hex(&span.trace_id) == trace).collect();
    let requests: Vec<_> = of_trace.iter().filter(|span| span.kind() == SpanKind::Server).collect();
    let [request] = requests[..] else { panic!("one request: {requests:#?}") };
    assert_eq!((request.name.as_str(), hex(&request.parent_span_id).as_str()), ("POST /api/chat/message", caller));
    assert_eq!(attribute(request, "http.response.status_code"), &Attribute::IntValue(200));
    let statements: Vec<_> = of_trace.iter().filter(|span| span.kind() == SpanKind::Client).collect();
    assert!(statements.iter().all(|span| span.parent_span_id == request.span_id), "{statements:#?}");
    let insert = statements.iter().find(|span| span.name == "INSERT").expect("a span of the message's insert");
    let Attribute::StringValue(sql) = attribute(insert, "db.query.text") else { panic!("{insert:#?}") };
    assert!(sql.starts_with("INSERT INTO") && sql.contains('?'), "{sql}");
    assert!(spans.iter().any(|span| hex(&span.trace_id) != trace), "the login has its own trace");
}
