//! Server-sent events.

use futures_util::StreamExt as _;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::TestClient;

/// A stream of server-sent events, read one event at a time.
pub(crate) struct EventStream {
    bytes: std::pin::Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<axum::body::Bytes>> + Send>>,
    text: String,
}

impl EventStream {
    /// Sends a request and asserts that the response is an uncompressed event stream.
    pub(crate) async fn open(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert!(!response.headers().contains_key("content-encoding"));
        Self { bytes: Box::pin(response.bytes_stream()), text: String::new() }
    }

    /// Returns the next event's name and data, or `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let line = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                let parsed = line("event: ").zip(line("data: "));
                self.text = rest.to_owned();
                match parsed {
                    Some((name, data)) => return Some((name, serde_json::from_str(&data).unwrap())),
                    None => continue,
                }
            }
            let bytes = self.bytes.next().await?.unwrap();
            self.text += std::str::from_utf8(&bytes).unwrap();
        }
    }

    /// Reads the remaining events.
    pub(crate) async fn collect(mut self) -> Vec<(String, Value)> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

impl TestClient<'_> {
    /// Sends a message and opens the stream of the reply.
    pub(crate) async fn stream_message(&self, body: Value) -> EventStream {
        EventStream::open(self.request(Method::POST, "/api/chat/stream").json(&body)).await
    }

    /// Retries the newest message of a conversation and opens the stream of the reply.
    pub(crate) async fn stream_retry(&self, path: &str) -> EventStream {
        let request = self.request(Method::POST, path).header("accept", "text/event-stream");
        EventStream::open(request.json(&json!({}))).await
    }
}

/// Returns the names of events.
pub(crate) fn event_names(events: &[(String, Value)]) -> Vec<&str> {
    events.iter().map(|(name, _)| name.as_str()).collect()
}

/// Returns the text of the deltas.
pub(crate) fn streamed_text(events: &[(String, Value)]) -> String {
    events.iter().filter_map(|(_, data)| data["content"].as_str()).collect()
}
