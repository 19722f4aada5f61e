//! Parses chat completions, in all common shapes.
//!
//! Compatible endpoints omit fields, add fields, and change their types. Only the text is required, and a field of an
//! unexpected type counts as missing.

use serde_json::Value;

/// The maximum length of a model name, an error name or a finish reason.
const MAX_NAME: usize = 64;

/// The content of one stream event, or of a whole response.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CompletionChunk {
    pub(super) text: Option<String>,
    pub(super) finish_reason: Option<String>,
    pub(super) model: Option<String>,
    pub(super) prompt_tokens: Option<u32>,
    pub(super) total_tokens: Option<u32>,
    /// Whether the chunk contains a part of the model's reasoning, which students do not see.
    pub(super) has_reasoning: bool,
}

impl CompletionChunk {
    pub(super) fn parse(value: &Value) -> Self {
        let choice = choice(&value["choices"]);
        let message = ["delta", "message"].into_iter().map(|name| &choice[name]).find(|message| message.is_object());
        let message = message.unwrap_or(&Value::Null);
        let usage = &value["usage"];
        let prompt_tokens = count(&usage["prompt_tokens"]);
        let sum = || Some(prompt_tokens?.saturating_add(count(&usage["completion_tokens"])?));
        // A refusal has a field of its own.
        let texts = [&message["content"], &choice["text"], &message["refusal"]];
        Self {
            text: texts.into_iter().filter_map(text).find(|text| !text.is_empty()),
            finish_reason: choice["finish_reason"].as_str().filter(|reason| !reason.is_empty()).map(|reason| {
                // An invalid reason still proves that the reply ended.
                valid_name(&reason.to_ascii_lowercase()).unwrap_or_else(|| "stop".to_owned())
            }),
            model: value["model"].as_str().and_then(model_name),
            prompt_tokens,
            total_tokens: count(&usage["total_tokens"]).or_else(sum),
            has_reasoning: ["reasoning_content", "reasoning"].into_iter().any(|name| text(&message[name]).is_some()),
        }
    }
}

/// Selects the choice to read. tutord requests one. If an endpoint sends several, the choice with index 0 wins, in any
/// order and in any chunk.
fn choice(choices: &Value) -> &Value {
    let choices = choices.as_array().map(Vec::as_slice).unwrap_or_default();
    let is_first = |choice: &&Value| choice["index"].as_u64().is_none_or(|index| index == 0);
    let is_whole = |choice: &&Value| choice["message"].is_object();
    choices.iter().find(is_first).or_else(|| choices.iter().find(is_whole)).unwrap_or(&Value::Null)
}

/// Returns a text, or the joined texts of a list of parts.
fn text(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| {
                part.as_str().or_else(|| part["text"].as_str()).or_else(|| part["refusal"].as_str())
            });
            Some(texts.collect())
        }
        _ => None,
    }
}

/// Parses a number of tokens, which some endpoints send as a fraction.
fn count(value: &Value) -> Option<u32> {
    let count = value.as_f64().filter(|count| *count >= 0.0)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float saturates")]
    Some(count.round() as u32)
}

fn model_name(text: &str) -> Option<String> {
    let shown: String = text.chars().filter(|char| !char.is_control()).take(MAX_NAME).collect();
    Some(shown).filter(|name| !name.is_empty())
}

/// Returns a name if it is safe to log and to store.
pub(super) fn valid_name(text: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'.' | b'-');
    ((1..=MAX_NAME).contains(&text.len()) && text.bytes().all(fits)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::llm::endpoint_error::EndpointError;

    #[test]
    fn text_is_parsed_in_each_shape() {
        for choice in [
            json!({"delta": {"content": "hi"}}),
            json!({"delta": null, "message": {"content": "hi"}}),
            json!({"delta": {"content": [{"type": "text", "text": "h"}, {"type": "image"}, "i"]}}),
            json!({"text": "hi", "finish_reason": null}),
            json!({"delta": {"content": null, "refusal": "hi"}}),
            json!({"message": {"content": "", "refusal": "hi"}}),
            json!({"message": {"content": [{"type": "refusal", "refusal": "hi"}]}}),
        ] {
            assert_eq!(CompletionChunk::parse(&json!({"choices": [choice]})).text.as_deref(), Some("hi"), "{choice}");
        }
        for nothing in
            [json!(null), json!({"choices": null}), json!({"choices": []}), json!({"choices": [{"delta": null}]})]
        {
            assert_eq!(CompletionChunk::parse(&nothing), CompletionChunk::default(), "{nothing}");
        }
        let reasoning =
            CompletionChunk::parse(&json!({"choices": [{"delta": {"content": "", "reasoning_content": "hm"}}]}));
        assert_eq!(reasoning, CompletionChunk { has_reasoning: true, ..CompletionChunk::default() });
    }

    #[test]
    fn the_first_of_several_choices_is_read() {
        let text = |choices: Value| CompletionChunk::parse(&json!({"choices": choices})).text;
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
    fn plausible_token_counts_are_read() {
        let total = |usage: Value| CompletionChunk::parse(&json!({"usage": usage})).total_tokens;
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
        let reason =
            |reason: &str| CompletionChunk::parse(&json!({"choices": [{"finish_reason": reason}]})).finish_reason;
        assert_eq!(reason("STOP").as_deref(), Some("stop"));
        assert_eq!(reason("content_filter").as_deref(), Some("content_filter"));
        assert_eq!(reason(&"x".repeat(65)).as_deref(), Some("stop"));
        assert_eq!(reason("a\nb").as_deref(), Some("stop"));
        assert_eq!(reason(""), None);
        let model = CompletionChunk::parse(&json!({"model": "m\n".repeat(100)})).model.unwrap();
        assert_eq!(model, "m".repeat(64));
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
            let _ = CompletionChunk::parse(&value);
            let error = EndpointError::parse(&value);
            let _ = (error.is_too_long(), error.context_tokens(), error.reply_limit("max_tokens", 9), EndpointError::find_in(&value));
        }
    }
}
