//! Responses in the shapes of servers with OpenAI's chat completions API.
//!
//! The shapes follow the servers' documentation and reports of their users.

use serde_json::{Value, json};

/// A kind of endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// A newer model of OpenAI, which supports neither `max_tokens` nor a temperature other than 1.
    OpenAi,
    /// Groq, which reports tokens in a separate field.
    Groq,
    /// Ollama, which sends neither `[DONE]` nor usage.
    Ollama,
    /// vLLM with a chat template that has no system role and requires alternating roles.
    StrictVllm,
    /// llama.cpp, which sends additional fields, and a specific error for a prompt that is too long.
    LlamaCpp,
    /// Azure's gateway, which sends a chunk without choices first, and refuses `stream_options`.
    AzureGateway,
    /// A proxy that changes content types and line ends, and inserts comments.
    BrokenProxy,
}

/// The status, the content type and the body of a response.
pub type RawAnswer = (u16, &'static str, Vec<u8>);

impl Endpoint {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::OpenAi,
        Self::Groq,
        Self::Ollama,
        Self::StrictVllm,
        Self::LlamaCpp,
        Self::AzureGateway,
        Self::BrokenProxy,
    ];

    /// Returns the response with this text, or a refusal of the request.
    pub fn answer(self, body: &Value, text: &str) -> RawAnswer {
        if let Some(error) = self.refusal(body) {
            return (400, "application/json", error.to_string().into_bytes());
        }
        if body["stream"] == true { self.stream(text) } else { self.whole(text) }
    }

    fn refusal(self, body: &Value) -> Option<Value> {
        let unsupported = |param: &str| {
            json!({"error": {
                "message": format!("Unsupported parameter: '{param}' is not supported with this model."),
                "type": "invalid_request_error", "param": param, "code": "unsupported_parameter",
            }})
        };
        let has = |name: &str| body.get(name).is_some();
        match self {
            Self::OpenAi if has("max_tokens") => Some(unsupported("max_tokens")),
            Self::OpenAi if has("temperature") && body["temperature"] != 1 => Some(unsupported("temperature")),
            Self::AzureGateway if has("stream_options") => Some(
                json!({"error": {"code": null, "message": "Unrecognized request argument supplied: stream_options"}}),
            ),
            Self::StrictVllm => {
                let roles = body["messages"].as_array()?.iter().map(|message| &message["role"]);
                let alternate =
                    roles.enumerate().all(|(n, role)| role == if n % 2 == 0 { "user" } else { "assistant" });
                let message = "Conversation roles must alternate user/assistant/user/assistant/...";
                (!alternate)
                    .then(|| json!({"object": "error", "message": message, "type": "BadRequestError", "code": 400}))
            }
            Self::LlamaCpp if body["messages"].to_string().len() > 8_000 => Some(json!({"error": {
                "code": 400, "message": "the request exceeds the available context size",
                "type": "exceed_context_size_error", "n_prompt_tokens": 3_000, "n_ctx": 2_048,
            }})),
            _ => None,
        }
    }

    fn whole(self, text: &str) -> RawAnswer {
        let mut body = json!({"model": "fake-1", "choices": [{
            "index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop",
        }]});
        let mut kind = "application/json";
        match self {
            Self::OpenAi => body["usage"] = json!({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}),
            Self::Groq => body["usage"] = json!({"queue_time": 0.01, "prompt_tokens": 9, "completion_tokens": 3}),
            Self::Ollama => body["system_fingerprint"] = "fp_ollama".into(),
            Self::StrictVllm => body["choices"][0]["message"]["reasoning_content"] = Value::Null,
            Self::LlamaCpp => body["timings"] = json!({"predicted_per_second": 40.5}),
            Self::AzureGateway => body["choices"][0]["content_filter_results"] = json!({}),
            Self::BrokenProxy => kind = "text/plain",
        }
        (200, kind, body.to_string().into_bytes())
    }

    fn stream(self, text: &str) -> RawAnswer {
        let chunk = |delta: Value, finish: Value| json!({"model": "fake-1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]});
        let mut chunks = vec![chunk(json!({"role": "assistant", "content": ""}), Value::Null)];
        chunks.extend(text.split_inclusive(' ').map(|word| chunk(json!({"content": word}), Value::Null)));
        chunks.push(chunk(json!({}), "stop".into()));
        match self {
            Self::OpenAi => chunks.push(json!({"choices": [], "usage": {"prompt_tokens": 9, "total_tokens": 12}})),
            Self::Groq => {
                if let Some(last) = chunks.last_mut() {
                    last["x_groq"] = json!({"usage": {"total_tokens": 12}});
                }
            }
            // The finish reason arrives with the last text. Later chunks have no delta.
            Self::Ollama => chunks.push(json!({"choices": [{"index": 0, "delta": null}]})),
            Self::StrictVllm => chunks.push(json!({"choices": [], "usage": null})),
            Self::LlamaCpp => {
                chunks.push(json!({"choices": [], "usage": {}, "timings": {"predicted_per_second": 40.5}}));
            }
            Self::AzureGateway => chunks.insert(0, json!({"choices": [], "prompt_filter_results": []})),
            Self::BrokenProxy => {}
        }
        let end = if self == Self::Ollama { "" } else { "data: [DONE]\n\n" };
        let events: String = chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).chain([end.to_owned()]).collect();
        match self {
            Self::BrokenProxy => {
                (200, "text/plain", format!("\u{feff}: connected\n\n{events}").replace('\n', "\r\n").into_bytes())
            }
            _ => (200, "text/event-stream", events.into_bytes()),
        }
    }
}
