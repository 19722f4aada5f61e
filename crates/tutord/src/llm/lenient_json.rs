//! Parses the invalid JSON that some endpoints produce.
//!
//! Servers that split texts by UTF-16 units send halves of surrogate pairs, Python servers write `NaN`, and some repeat
//! the request in deeply nested fields. None of these may cost words of a reply.

use std::fmt::Write as _;

use serde_json::Value;

/// The maximum depth of the parsed value; deeper values are dropped.
const MAX_DEPTH: usize = 32;

/// Parses JSON, and replaces invalid scalars: half a surrogate pair by U+FFFD, a number out of range or an unknown word
/// by null, a control character by its escape.
pub(super) fn parse(json: &str) -> Option<Value> {
    serde_json::from_str(json).or_else(|_| serde_json::from_str(&repaired(json))).ok()
}

fn repaired(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut rest, mut depth) = (json, 0_usize);
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => string_length(rest),
            '+' | '-' | '.' | '0'..='9' | 'a'..='z' | 'A'..='Z' => {
                let is_scalar = |char: char| char.is_ascii_alphanumeric() || "+-.".contains(char);
                rest.find(|char| !is_scalar(char)).unwrap_or(rest.len())
            }
            other => other.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        rest = after;
        match first {
            '{' | '[' => {
                depth += 1;
                if depth <= MAX_DEPTH {
                    out.push(first);
                } else if depth == MAX_DEPTH + 1 {
                    out.push_str("null");
                }
            }
            '}' | ']' => {
                if depth <= MAX_DEPTH {
                    out.push(first);
                }
                depth = depth.saturating_sub(1);
            }
            _ if depth > MAX_DEPTH => {}
            '"' => push_string(token, &mut out),
            _ if length > 1 && !is_scalar(token) => out.push_str("null"),
            _ => out.push_str(token),
        }
    }
    out
}

/// Returns the length of the string at the start of `text`, including its quotes.
pub(super) fn string_length(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn is_scalar(token: &str) -> bool {
    matches!(token, "true" | "false" | "null") || serde_json::from_str::<serde_json::Number>(token).is_ok()
}

fn push_string(token: &str, out: &mut String) {
    let mut rest = token;
    while let Some(first) = rest.chars().next() {
        let length = match (first, code_unit(rest)) {
            ('\\', Some(0xd800..=0xdbff)) if matches!(code_unit(&rest[6..]), Some(0xdc00..=0xdfff)) => 12,
            ('\\', Some(0xd800..=0xdfff)) => {
                out.push('\u{fffd}');
                rest = &rest[6..];
                continue;
            }
            ('\\', Some(_)) => 6,
            ('\\', None) => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            (control, _) if control.is_ascii_control() && control != '\x7f' => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
                rest = &rest[1..];
                continue;
            }
            (other, _) => other.len_utf8(),
        };
        let (copied, after) = rest.split_at(length);
        out.push_str(copied);
        rest = after;
    }
}

/// Returns the UTF-16 code unit that is escaped at the start of `text`.
fn code_unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn invalid_scalars_are_replaced() {
        let deep = format!(r#"{{"a": {}1{}, "b": "text"}}"#, "[".repeat(500), "]".repeat(500));
        for (text, expected) in [
            (r#"{"a": "lost \ud83d text"}"#, json!({"a": "lost \u{fffd} text"})),
            (r#"{"a": "\udf89 time \ud83d\ud83c\udf89"}"#, json!({"a": "\u{fffd} time \u{fffd}\u{1f389}"})),
            (r#"{"a": "\\ud83d \" \u00e9 \ud8"}"#, Value::Null),
            (r#"{"a": "\\ud83d \" \u00e9", "b": "\ud800"}"#, json!({"a": "\\ud83d \" é", "b": "\u{fffd}"})),
            ("{\"a\": \"two\nlines\"}", json!({"a": "two\nlines"})),
            (
                r#"{"a": NaN, "b": -Infinity, "c": 1e999, "d": -1.5e3}"#,
                json!({"a": null, "b": null, "c": null, "d": -1500.0}),
            ),
            (r#"{"a": None, "b": True, "c": null}"#, json!({"a": null, "b": null, "c": null})),
        ] {
            assert_eq!(parse(text).unwrap_or_default(), expected, "{text}");
        }
        assert_eq!(parse(&deep).unwrap()["b"], "text");
    }

    #[test]
    fn truncated_json_is_rejected() {
        for text in ["", r#"{"a": "#, r#"{"a": "x"#, r#"{"a": "\"#, r#"{"a": "\u12"#, "{]", "\"\\"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn valid_json_is_unchanged(text in "\\PC{0,40}", number in any::<i32>()) {
            let value = json!({"text": text, "list": [number, null, true]});
            prop_assert_eq!(serde_json::from_str::<Value>(&repaired(&value.to_string())).ok(), Some(value));
        }

        #[test]
        fn no_text_panics(text in r#"([\[\]{}",:\\u0-9a-fNd \n]|\\ud8|é){0,40}"#) {
            let _ = parse(&text);
        }
    }
}
