//! What endpoints say of a request that they refuse, whatever shape they give it.
//!
//! An error's text may repeat the prompt: it is looked through, and never shown.

use serde_json::Value;

use super::shapes::name;

/// How much of an error's text is looked through.
const MAX_MESSAGE: usize = 2_048;
/// The most characters between the words of a bound and its number.
const NEAR: usize = 24;
/// Contexts outside of these bounds are misread.
const CONTEXTS: std::ops::RangeInclusive<u32> = 256..=100_000_000;
/// A bound of the reply's tokens that is not stated is sought by halves, down to this one.
const LOWEST_BOUND: u32 = 16;

/// Texts of errors that a prompt's length causes: of OpenAI, vLLM, llama.cpp, Ollama, LM Studio, Anthropic, TGI, Gemini,
/// Cohere, and of gateways.
const TOO_LONG: [&str; 19] = [
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

/// What precedes the number of tokens that a context holds.
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

/// What precedes the most tokens that a reply may have.
const BOUND_MARKERS: [&str; 16] = [
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

/// What an endpoint says of an error.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct EndpointError {
    code: Option<String>,
    kind: Option<String>,
    param: Option<String>,
    /// The size of the context, where it has a field of its own.
    context: Option<u32>,
    /// In lower case.
    message: String,
}

/// A message, or the texts of a list of what is wrong, as validators write it: `[{"loc": ["body", "temperature"], …}]`.
fn message(value: &Value) -> Option<String> {
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
    /// The error in an answer that came with status 200, if it holds one.
    pub(super) fn within(value: &Value) -> Option<Self> {
        let error = &value["error"];
        let says_something = match error {
            Value::Object(fields) => !fields.is_empty(),
            Value::String(text) => !text.is_empty(),
            _ => false,
        };
        if says_something {
            return Some(Self::read(value));
        }
        (value["object"] == "error").then(|| Self::read(value))
    }

    /// The error in the answer of a request that failed.
    pub(super) fn read(value: &Value) -> Self {
        let error = if value["error"].is_object() { &value["error"] } else { value };
        let field = |name_: &str| match &error[name_] {
            Value::String(text) => name(text),
            Value::Number(number) => name(&number.to_string()),
            _ => None,
        };
        let messages =
            [&value["error"], &error["message"], &error["detail"], &value["detail"], &error["errors"], value];
        let message = messages.into_iter().find_map(message).unwrap_or_default();
        Self {
            code: field("code"),
            kind: field("type"),
            param: field("param"),
            context: error["n_ctx"].as_u64().and_then(|tokens| tokens.try_into().ok()),
            message: beginning(&message),
        }
    }

    /// The error in an answer that is no JSON.
    pub(super) fn text(text: &str) -> Self {
        Self { message: beginning(text), ..Self::default() }
    }

    /// Whether the endpoint refuses a parameter of the request.
    pub(super) fn names(&self, parameter: &str) -> bool {
        match &self.param {
            Some(named) => named == parameter || named.starts_with(&format!("{parameter}.")),
            None => self.message.contains(parameter),
        }
    }

    /// Whether the prompt is longer than the model's context.
    pub(super) fn is_too_long(&self) -> bool {
        const NAMES: [&str; 3] = ["context_length_exceeded", "exceed_context_size_error", "string_above_max_length"];
        let is_named = [&self.code, &self.kind].into_iter().flatten().any(|name| NAMES.contains(&name.as_str()));
        is_named || TOO_LONG.iter().any(|text| self.message.contains(text))
    }

    /// Whether one request exceeds what the endpoint accepts in a minute, so that a pause does not help.
    pub(super) fn exceeds_a_quota(&self) -> bool {
        self.message.contains("request too large")
    }

    /// Whether the endpoint refuses the content of the request.
    pub(super) fn declines(&self) -> bool {
        const NAMES: [&str; 4] =
            ["content_filter", "content_policy_violation", "data_inspection_failed", "moderation_blocked"];
        [&self.code, &self.kind].into_iter().flatten().any(|name| NAMES.contains(&name.as_str()))
    }

    /// The tokens that the endpoint's context holds, prompt and reply together, where the error states them.
    pub(super) fn context_tokens(&self) -> Option<u32> {
        let stated = || CONTEXT_MARKERS.iter().find_map(|marker| number_after(&self.message, marker));
        self.context.or_else(stated).filter(|tokens| CONTEXTS.contains(tokens))
    }

    /// The most tokens that a reply may have, where the endpoint knows `parameter` and refuses its value `sent`: the
    /// number that the error states, or half of what was sent.
    pub(super) fn bound(&self, parameter: &str, sent: u32) -> Option<u32> {
        const UNKNOWN: [&str; 7] =
            ["unsupported", "not supported", "unrecognized", "unknown", "not permitted", "deprecated", "instead"];
        const TOO_LARGE: [&str; 9] =
            ["too large", "too high", "too big", "less than", "at most", "maximum", "exceed", "<=", "range"];
        let says = |texts: &[&str]| texts.iter().any(|text| self.message.contains(text));
        if !self.names(parameter) || says(&UNKNOWN) || !(says(&TOO_LARGE) || self.message.contains(" > ")) {
            return None;
        }
        let is_lower = |bound: &u32| (1..sent).contains(bound);
        let stated = BOUND_MARKERS.iter().filter_map(|marker| number_after(&self.message, marker)).find(is_lower);
        stated.or_else(|| Some(sent / 2).filter(|half| *half >= LOWEST_BOUND))
    }
}

impl std::fmt::Display for EndpointError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".to_owned());
        write!(f, "code {}, type {}", shown(&self.code), shown(&self.kind))
    }
}

fn beginning(text: &str) -> String {
    text.chars().take(MAX_MESSAGE).collect::<String>().to_lowercase()
}

/// The number that follows a marker closely, such as `4,096` after `at most`.
fn number_after(text: &str, marker: &str) -> Option<u32> {
    let (_, rest) = text.split_once(marker)?;
    let start = rest.char_indices().take(NEAR).find(|(_, char)| char.is_ascii_digit())?.0;
    let number = rest[start..].chars().take_while(|char| char.is_ascii_digit() || matches!(char, ',' | '_'));
    number.filter(char::is_ascii_digit).collect::<String>().parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_show_names_and_no_text() {
        let error = EndpointError::read(&json!({"error": {
            "message": "Unsupported parameter: 'max_tokens'; the prompt was: my secret", "type": "invalid_request_error",
            "param": "max_tokens", "code": "unsupported_parameter",
        }}));
        assert_eq!(error.to_string(), "code unsupported_parameter, type invalid_request_error");
        assert!(error.names("max_tokens") && !error.names("temperature"));
        for body in [
            json!({"error": "temperature is not supported"}),
            json!({"detail": "temperature is not supported"}),
            json!({"object": "error", "message": "Temperature is not supported", "code": 400}),
            json!({"detail": [{"type": "extra_forbidden", "loc": ["body", "temperature"], "msg": "no", "input": 0.7}]}),
        ] {
            assert!(EndpointError::read(&body).names("temperature"), "{body}");
        }
        let secret = EndpointError::read(&json!({"error": {"code": "my secret", "type": "A SECRET", "message": "x"}}));
        assert_eq!(secret.to_string(), "code -, type -");
        for nothing in [json!(null), json!(false), json!(""), json!({})] {
            assert!(EndpointError::within(&json!({"error": nothing, "choices": []})).is_none());
        }
        assert!(EndpointError::within(&json!({"object": "error", "message": "x"})).is_some());
    }

    fn error(message: &str) -> EndpointError {
        EndpointError::read(&json!({"error": {"message": message}}))
    }

    #[test]
    fn refusals_of_a_length_are_recognised_and_their_numbers_read() {
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
        let named = EndpointError::read(&json!({"error": {"type": "exceed_context_size_error", "n_ctx": 4096}}));
        assert!(named.is_too_long() && named.context_tokens() == Some(4_096));
        for other in ["invalid model", "max_tokens must be at most 8192", "the model is overloaded"] {
            assert!(!error(other).is_too_long(), "{other}");
        }
    }

    #[test]
    fn a_value_that_is_too_large_is_told_from_a_parameter_that_is_unknown() {
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
            assert_eq!(error(message).bound("max_tokens", 1_000), bound, "{message}");
        }
        assert_eq!(error("max_tokens is too large").bound("max_tokens", 20), None, "no bound is this low");
        assert_eq!(EndpointError::text("max_tokens must be at most 5").bound("max_tokens", 9), Some(5));
    }
}
