//! What endpoints answer, whatever shape they give it.
//!
//! Endpoints that call themselves compatible leave fields out, add others, and change their types. Nothing but the text
//! is required, and a field of another type counts as missing.

use serde_json::Value;

/// The longest name of a model, an error or a finish reason that is taken over.
const MAX_NAME: usize = 64;
/// How much of an error's text is looked through.
const MAX_MESSAGE: usize = 2_048;

/// What one event of a stream, or a whole answer, says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) text: Option<String>,
    pub(super) finish_reason: Option<String>,
    pub(super) model: Option<String>,
    pub(super) prompt_tokens: Option<u32>,
    pub(super) total_tokens: Option<u32>,
    /// Whether it holds a part of the model's reasoning, which is not for the student.
    pub(super) reasons: bool,
}

impl Piece {
    pub(super) fn read(value: &Value) -> Self {
        let choice = choice(&value["choices"]);
        let message = ["delta", "message"].into_iter().map(|name| &choice[name]).find(|message| message.is_object());
        let message = message.unwrap_or(&Value::Null);
        let usage = &value["usage"];
        let prompt_tokens = count(&usage["prompt_tokens"]);
        let sum = || Some(prompt_tokens?.saturating_add(count(&usage["completion_tokens"])?));
        Self {
            text: text(&message["content"]).or_else(|| text(&choice["text"])).filter(|text| !text.is_empty()),
            finish_reason: choice["finish_reason"].as_str().filter(|reason| !reason.is_empty()).map(|reason| {
                // What is no name says no more than that it ended.
                name(&reason.to_ascii_lowercase()).unwrap_or_else(|| "stop".to_owned())
            }),
            model: value["model"].as_str().and_then(model_name),
            prompt_tokens,
            total_tokens: count(&usage["total_tokens"]).or_else(sum),
            reasons: ["reasoning_content", "reasoning"].into_iter().any(|name| text(&message[name]).is_some()),
        }
    }
}

/// The choice that is read. One is requested; where an endpoint is told to write more, the first by number counts, in
/// whatever order and in whatever chunk it comes.
fn choice(choices: &Value) -> &Value {
    let choices = choices.as_array().map(Vec::as_slice).unwrap_or_default();
    let is_first = |choice: &&Value| choice["index"].as_u64().is_none_or(|index| index == 0);
    let is_whole = |choice: &&Value| choice["message"].is_object();
    choices.iter().find(is_first).or_else(|| choices.iter().find(is_whole)).unwrap_or(&Value::Null)
}

/// A text, or a list of parts of which some are texts.
fn text(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            Some(parts.iter().filter_map(|part| part.as_str().or_else(|| part["text"].as_str())).collect())
        }
        _ => None,
    }
}

/// A number of tokens, which some endpoints give as a fraction.
fn count(value: &Value) -> Option<u32> {
    let count = value.as_f64().filter(|count| *count >= 0.0)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float saturates")]
    Some(count.round() as u32)
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

fn model_name(text: &str) -> Option<String> {
    let shown: String = text.chars().filter(|char| !char.is_control()).take(MAX_NAME).collect();
    Some(shown).filter(|name| !name.is_empty())
}

/// A name that may be logged and stored.
fn name(text: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'.' | b'-');
    ((1..=MAX_NAME).contains(&text.len()) && text.bytes().all(fits)).then(|| text.to_owned())
}

/// What an endpoint says of an error. Its text may repeat the prompt: it is looked through, and never shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct EndpointError {
    code: Option<String>,
    kind: Option<String>,
    param: Option<String>,
    /// In lower case.
    message: String,
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
        let messages = [&value["error"], &error["message"], &error["detail"], &value["detail"], &error["errors"]];
        let message = messages.into_iter().find_map(message).unwrap_or_default();
        Self {
            code: field("code"),
            kind: field("type"),
            param: field("param"),
            message: message.chars().take(MAX_MESSAGE).collect::<String>().to_lowercase(),
        }
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
        const TEXTS: [&str; 8] = [
            "context length",
            "context_length",
            "context window",
            "context size",
            "maximum context",
            "too many tokens",
            "prompt is too long",
            "exceeds the available context",
        ];
        self.code.as_deref() == Some("context_length_exceeded")
            || self.kind.as_deref() == Some("exceed_context_size_error")
            || TEXTS.iter().any(|text| self.message.contains(text))
    }
}

impl std::fmt::Display for EndpointError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".to_owned());
        write!(f, "code {}, type {}", shown(&self.code), shown(&self.kind))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn text_is_found_in_each_shape() {
        for choice in [
            json!({"delta": {"content": "hi"}}),
            json!({"delta": null, "message": {"content": "hi"}}),
            json!({"delta": {"content": [{"type": "text", "text": "h"}, {"type": "image"}, "i"]}}),
            json!({"text": "hi", "finish_reason": null}),
        ] {
            assert_eq!(Piece::read(&json!({"choices": [choice]})).text.as_deref(), Some("hi"), "{choice}");
        }
        for nothing in
            [json!(null), json!({"choices": null}), json!({"choices": []}), json!({"choices": [{"delta": null}]})]
        {
            assert_eq!(Piece::read(&nothing), Piece::default(), "{nothing}");
        }
        let reasoning = Piece::read(&json!({"choices": [{"delta": {"content": "", "reasoning_content": "hm"}}]}));
        assert_eq!(reasoning, Piece { reasons: true, ..Piece::default() });
    }

    #[test]
    fn of_several_choices_the_first_counts() {
        let text = |choices: Value| Piece::read(&json!({"choices": choices})).text;
        let [no, yes] = ["delta", "message"]
            .map(|name| (json!({"index": 1, name: {"content": "no"}}), json!({"index": 0, name: {"content": "yes"}})));
        for (other, first) in [no, yes] {
            assert_eq!(text(json!([other, first])).as_deref(), Some("yes"));
            assert_eq!(text(json!([first, other])).as_deref(), Some("yes"));
        }
        assert_eq!(text(json!([{"index": 1, "delta": {"content": "no"}}])), None, "a chunk of another choice");
        assert_eq!(text(json!([{"index": 1, "message": {"content": "yes"}}])).as_deref(), Some("yes"));
    }

    #[test]
    fn tokens_are_counted_where_the_numbers_make_sense() {
        let total = |usage: Value| Piece::read(&json!({"usage": usage})).total_tokens;
        assert_eq!(total(json!({"total_tokens": 12})), Some(12));
        assert_eq!(total(json!({"total_tokens": 11.6})), Some(12));
        assert_eq!(total(json!({"total_tokens": 1e300})), Some(u32::MAX));
        assert_eq!(total(json!({"prompt_tokens": 5, "completion_tokens": 3})), Some(8));
        for none in [json!({}), json!(null), json!({"total_tokens": -1}), json!({"total_tokens": "12"}), json!([])] {
            assert_eq!(total(none.clone()), None, "{none}");
        }
    }

    #[test]
    fn names_are_bounded() {
        let reason = |reason: &str| Piece::read(&json!({"choices": [{"finish_reason": reason}]})).finish_reason;
        assert_eq!(reason("STOP").as_deref(), Some("stop"));
        assert_eq!(reason("content_filter").as_deref(), Some("content_filter"));
        assert_eq!(reason(&"x".repeat(65)).as_deref(), Some("stop"));
        assert_eq!(reason("a\nb").as_deref(), Some("stop"));
        assert_eq!(reason(""), None);
        let model = Piece::read(&json!({"model": "m\n".repeat(100)})).model.unwrap();
        assert_eq!(model, "m".repeat(64));
    }

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

    fn any_json() -> impl Strategy<Value = Value> {
        let names = "choices|delta|message|content|usage|total_tokens|finish_reason|error|code|text|model";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::hash_map(names, inner, 0..4).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_shape_panics(value in any_json()) {
            let _ = (Piece::read(&value), EndpointError::read(&value), EndpointError::within(&value));
        }
    }
}
