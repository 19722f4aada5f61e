//! Parses the errors of endpoints, in all common shapes.
//!
//! The message of an error may repeat the prompt. It is searched for known phrases, and never logged or shown.

use serde_json::Value;

use super::completion::valid_name;

/// The length of the searched part of a message, in characters.
const MAX_MESSAGE: usize = 2_048;
/// The maximum distance between the phrase of a limit and its number, in characters.
const MAX_DISTANCE: usize = 24;
/// Plausible context sizes, in tokens; other numbers are ignored.
const PLAUSIBLE_CONTEXTS: std::ops::RangeInclusive<u32> = 256..=100_000_000;
/// The lowest reply limit to try, in tokens. If an error states no limit, the client halves the current one.
const MIN_REPLY_LIMIT: u32 = 16;

/// Phrases in errors about the length of a prompt, by OpenAI, vLLM, llama.cpp, Ollama, LM Studio, Anthropic, TGI,
/// Gemini, Cohere, and gateways.
const TOO_LONG_PHRASES: [&str; 19] = [
    "context length",
    "context_length",
    "context window",
    "context size",
    "context limit",
    "context the overflows",
    "context overflow",
    "maximum context",
    "too many tokens",
    "prompt is too long",
    "prompt too long",
    "prompt token count",
    "input is too long",
    "input length exceeds",
    "input token count",
    "inputs` tokens",
    "inputs tokens",
    "reduce the length",
    "request too large",
];

/// Phrases before the size of a context, in tokens.
const CONTEXT_MARKERS: [&str; 14] = [
    "context length is",
    "context length of",
    "context window of",
    "context window is",
    "context size of",
    "context size",
    "context limit of",
    "context limit is",
    "must be <=",
    "tokens >",
    "tokens allowed",
    "cannot exceed",
    "maximum of",
    "limit",
];

/// Phrases before the maximum length of a reply, in tokens.
const REPLY_LIMIT_MARKERS: [&str; 16] = [
    "less than or equal to",
    "at most",
    "no more than",
    "must be <=",
    "<=",
    "[1,",
    "between 1 and",
    "from 1 to",
    "cannot exceed",
    "must not exceed",
    "maximum of",
    "maximum is",
    "maximum value",
    "limit of",
    "limit is",
    ">",
];

/// An error as reported by an endpoint.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct EndpointError {
    code: Option<String>,
    kind: Option<String>,
    param: Option<String>,
    /// The size of the context, if the error has a field for it.
    context: Option<u32>,
    /// The message in lower case.
    message: String,
}

/// Returns a message, or the joined texts of a validator's list, such as `[{"loc": ["body", "temperature"], …}]`.
fn message_text(value: &Value) -> Option<String> {
    fn collect(value: &Value, texts: &mut String) {
        match value {
            Value::String(text) if texts.len() < MAX_MESSAGE => {
                texts.push_str(text);
                texts.push(' ');
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, texts)),
            Value::Object(fields) => fields.values().for_each(|value| collect(value, texts)),
            _ => {}
        }
    }
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(_) => {
            let mut texts = String::new();
            collect(value, &mut texts);
            Some(texts)
        }
        _ => None,
    }
}

impl EndpointError {
    /// Returns the error in a response with status 200, if there is one.
    pub(super) fn find_in(value: &Value) -> Option<Self> {
        let error = &value["error"];
        let is_error = match error {
            Value::Object(fields) => !fields.is_empty(),
            Value::String(text) => !text.is_empty(),
            _ => false,
        };
        if is_error {
            return Some(Self::parse(value));
        }
        (value["object"] == "error").then(|| Self::parse(value))
    }

    /// Parses the error in the response to a failed request.
    pub(super) fn parse(value: &Value) -> Self {
        let error = if value["error"].is_object() { &value["error"] } else { value };
        let field = |name: &str| match &error[name] {
            Value::String(text) => valid_name(text),
            Value::Number(number) => valid_name(&number.to_string()),
            _ => None,
        };
        let messages =
            [&value["error"], &error["message"], &error["detail"], &value["detail"], &error["errors"], value];
        let message = messages.into_iter().find_map(message_text).unwrap_or_default();
        Self {
            code: field("code"),
            kind: field("type"),
            param: field("param"),
            context: error["n_ctx"].as_u64().and_then(|tokens| tokens.try_into().ok()),
            message: normalized(&message),
        }
    }

    /// Creates an error from a response that is not JSON.
    pub(super) fn from_text(text: &str) -> Self {
        Self { message: normalized(text), ..Self::default() }
    }

    /// Returns whether the endpoint refuses a parameter of the request.
    pub(super) fn names_parameter(&self, parameter: &str) -> bool {
        match &self.param {
            Some(named) => named == parameter || named.starts_with(&format!("{parameter}.")),
            None => self.message.contains(parameter),
        }
    }

    /// Returns whether the prompt exceeds the model's context.
    pub(super) fn is_too_long(&self) -> bool {
        const NAMES: [&str; 3] = ["context_length_exceeded", "exceed_context_size_error", "string_above_max_length"];
        let is_named = [&self.code, &self.kind].into_iter().flatten().any(|name| NAMES.contains(&name.as_str()));
        is_named || TOO_LONG_PHRASES.iter().any(|text| self.message.contains(text))
    }

    /// Returns whether the request alone exceeds the quota of a minute. A retry of the same request then fails too.
    pub(super) fn exceeds_a_quota(&self) -> bool {
        self.message.contains("request too large")
    }

    /// Returns whether the endpoint refuses the content of the request.
    pub(super) fn is_content_refusal(&self) -> bool {
        const NAMES: [&str; 4] =
            ["content_filter", "content_policy_violation", "data_inspection_failed", "moderation_blocked"];
        [&self.code, &self.kind].into_iter().flatten().any(|name| NAMES.contains(&name.as_str()))
    }

    /// Returns the size of the endpoint's context in tokens (prompt and reply together), if the error states it.
    pub(super) fn context_tokens(&self) -> Option<u32> {
        let stated = || CONTEXT_MARKERS.iter().find_map(|marker| number_after(&self.message, marker));
        self.context.or_else(stated).filter(|tokens| PLAUSIBLE_CONTEXTS.contains(tokens))
    }

    /// Returns the maximum reply length in tokens, if the endpoint supports `parameter` and refuses the value `sent`:
    /// the number in the error, or half of `sent`.
    pub(super) fn reply_limit(&self, parameter: &str, sent: u32) -> Option<u32> {
        const UNKNOWN: [&str; 7] =
            ["unsupported", "not supported", "unrecognized", "unknown", "not permitted", "deprecated", "instead"];
        const TOO_LARGE: [&str; 9] =
            ["too large", "too high", "too big", "less than", "at most", "maximum", "exceed", "<=", "range"];
        let says = |texts: &[&str]| texts.iter().any(|text| self.message.contains(text));
        if !self.names_parameter(parameter) || says(&UNKNOWN) || !(says(&TOO_LARGE) || self.message.contains(" > ")) {
            return None;
        }
        let is_lower = |bound: &u32| (1..sent).contains(bound);
        let stated = REPLY_LIMIT_MARKERS.iter().filter_map(|marker| number_after(&self.message, marker)).find(is_lower);
        stated.or_else(|| Some(sent / 2).filter(|half| *half >= MIN_REPLY_LIMIT))
    }
}

impl std::fmt::Display for EndpointError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".to_owned());
        write!(f, "code {}, type {}", shown(&self.code), shown(&self.kind))
    }
}

fn normalized(text: &str) -> String {
    text.chars().take(MAX_MESSAGE).collect::<String>().to_lowercase()
}

/// Returns the number shortly after a marker, such as `4,096` after `at most`.
fn number_after(text: &str, marker: &str) -> Option<u32> {
    let (_, rest) = text.split_once(marker)?;
    let start = rest.char_indices().take(MAX_DISTANCE).find(|(_, char)| char.is_ascii_digit())?.0;
    let number = rest[start..].chars().take_while(|char| char.is_ascii_digit() || matches!(char, ',' | '_'));
    number.filter(char::is_ascii_digit).collect::<String>().parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_display_names_but_no_text() {
        let error = EndpointError::parse(&json!({"error": {
            "message": "Unsupported parameter: 'max_tokens'; the prompt was: my secret", "type": "invalid_request_error",
            "param": "max_tokens", "code": "unsupported_parameter",
        }}));
        assert_eq!(error.to_string(), "code unsupported_parameter, type invalid_request_error");
        assert!(error.names_parameter("max_tokens") && !error.names_parameter("temperature"));
        for body in [
            json!({"error": "temperature is not supported"}),
            json!({"detail": "temperature is not supported"}),
            json!({"object": "error", "message": "Temperature is not supported", "code": 400}),
            json!({"detail": [{"type": "extra_forbidden", "loc": ["body", "temperature"], "msg": "no", "input": 0.7}]}),
        ] {
            assert!(EndpointError::parse(&body).names_parameter("temperature"), "{body}");
        }
        let secret = EndpointError::parse(&json!({"error": {"code": "my secret", "type": "A SECRET", "message": "x"}}));
        assert_eq!(secret.to_string(), "code -, type -");
        for nothing in [json!(null), json!(false), json!(""), json!({})] {
            assert!(EndpointError::find_in(&json!({"error": nothing, "choices": []})).is_none());
        }
        assert!(EndpointError::find_in(&json!({"object": "error", "message": "x"})).is_some());
    }

    fn error(message: &str) -> EndpointError {
        EndpointError::parse(&json!({"error": {"message": message}}))
    }

    #[test]
    fn refusals_of_a_length_are_detected_with_their_numbers() {
        for (message, context) in [
            ("This model's maximum context length is 8192 tokens. However, you requested 9000 tokens", Some(8_192)),
            ("This model's maximum context length is 4,096 tokens. However, your messages resulted in 5", Some(4_096)),
            ("the request exceeds the available context size. try increasing the context size", None),
            ("request (5000 tokens) exceeds the available context size (2048 tokens), try increasing it", Some(2_048)),
            ("Requested tokens (5000) exceed context window of 2048", Some(2_048)),
            ("prompt is too long: 208310 tokens > 200000 maximum", Some(200_000)),
            ("Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5", Some(4_096)),
            ("input length exceeds maximum context length", None),
            (
                "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with \
              context length of only 4096 tokens, which is not enough.",
                Some(4_096),
            ),
            (
                "The input token count (2000000) exceeds the maximum number of tokens allowed (1048576).",
                Some(1_048_576),
            ),
            ("Request too large for model `m` on tokens per minute (TPM): Limit 6000, Requested 9000", Some(6_000)),
            ("'max_tokens' is too large: 1024. This model's maximum context length is 2048 tokens", Some(2_048)),
            ("This model's maximum context length is 10 tokens", None),
            ("This model's maximum context length is 99999999999999999999 tokens", None),
        ] {
            assert!(error(message).is_too_long(), "{message}");
            assert_eq!(error(message).context_tokens(), context, "{message}");
        }
        let named = EndpointError::parse(&json!({"error": {"type": "exceed_context_size_error", "n_ctx": 4096}}));
        assert!(named.is_too_long() && named.context_tokens() == Some(4_096));
        for other in ["invalid model", "max_tokens must be at most 8192", "the model is overloaded"] {
            assert!(!error(other).is_too_long(), "{other}");
        }
    }

    #[test]
    fn values_that_are_too_large_differ_from_unknown_parameters() {
        for (message, bound) in [
            (
                "`max_tokens` must be less than or equal to `512`, the maximum value for `max_tokens` is less than the \
                 `context_window` for this model",
                Some(512),
            ),
            ("max_tokens: Input should be less than or equal to 8,192", Some(500)),
            ("max_tokens is too large: 1000. This model supports at most 400 completion tokens", Some(400)),
            ("Invalid max_tokens value, the valid range of max_tokens is [1, 819]", Some(819)),
            ("max_tokens: 1000 > 409, which is the maximum allowed number of output tokens", Some(409)),
            ("max_tokens exceeds what this model can write", Some(500)),
            ("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", None),
            ("max_tokens is not supported", None),
            ("temperature must be at most 1", None),
        ] {
            assert_eq!(error(message).reply_limit("max_tokens", 1_000), bound, "{message}");
        }
        assert_eq!(error("max_tokens is too large").reply_limit("max_tokens", 20), None, "no limit is this low");
        assert_eq!(EndpointError::from_text("max_tokens must be at most 5").reply_limit("max_tokens", 9), Some(5));
    }
}
