//! Finds JSON objects in the text of a reply.
//!
//! Models put the requested JSON into a fenced block or a sentence, and may write drafts in JSON before it.

use serde_json::Value;

use super::lenient_json;

/// The work limit of a search, as a multiple of the text's length.
const MAX_PASSES: usize = 32;

/// Returns the complete JSON objects of a text, the last one first, including nested objects.
pub fn json_objects(text: &str) -> impl Iterator<Item = Value> + '_ {
    let mut budget = text.len().saturating_mul(MAX_PASSES);
    text.rmatch_indices('{').filter_map(move |(start, _)| {
        let rest = &text[start..];
        let read = if budget == 0 { None } else { object_length(rest) };
        budget = budget.saturating_sub(read.unwrap_or(rest.len()));
        lenient_json::parse(&rest[..read?]).filter(Value::is_object)
    })
}

/// Returns the length of the object at the start of `text`; `None` if the object is incomplete.
fn object_length(text: &str) -> Option<usize> {
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = text.as_bytes().get(at) {
        match byte {
            b'"' => {
                at += lenient_json::string_length(&text[at..]);
                continue;
            }
            b'{' => depth += 1,
            b'}' if depth == 1 => return Some(at + 1),
            b'}' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_object_comes_first() {
        for (text, expected) in [
            ("", vec![]),
            ("no object, } {", vec![]),
            ("```json\n{\"a\": 1}\n```", vec![json!({"a": 1})]),
            (
                "<think>{\"a\": 1}</think> {\"a\": {\"b\": 2}}",
                vec![json!({"b": 2}), json!({"a": {"b": 2}}), json!({"a": 1})],
            ),
            ("{\"a\": \"two\nlines, {}\"} and {x}", vec![json!({}), json!({"a": "two\nlines, {}"})]),
            ("if (x) { {\"a\": \"\\ud83d\"}", vec![json!({"a": "\u{fffd}"})]),
            ("{\"a\": \"cut off", vec![]),
        ] {
            assert_eq!(json_objects(text).collect::<Vec<_>>(), expected, "{text}");
        }
    }

    #[test]
    fn the_search_in_a_text_of_braces_is_bounded() {
        let text = format!("{}{{\"a\": 1}}", "{".repeat(100_000));
        assert_eq!(json_objects(&text).count(), 1);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in r#"([{}"\\a: é]|\{"a":1\}){0,60}"#) {
            let _ = json_objects(&text).count();
        }
    }
}
