//! Comments that tell a database server on whose behalf a statement runs.

use std::fmt::Write as _;

use crate::scope;

/// The current scope as a comment to put after a statement, a space before it: route, request id and trace, in the form of
/// [sqlcommenter](https://google.github.io/sqlcommenter/spec/). `None` outside of every scope, or when nothing is known.
///
/// The server shows it in `pg_stat_activity`, its log and `auto_explain`. It makes each statement's text unique, so such
/// statements can't be prepared once and used again: have a switch for it. Shapes are without comments.
///
/// ```
/// use querywatch::{Scope, Watch};
///
/// let watch = Watch::builder().build();
/// let (comment, _) = Scope::new(&watch, "GET /users/{id}").run_sync(querywatch::comment);
/// assert_eq!(comment.unwrap(), " /*route='GET%20%2Fusers%2F%7Bid%7D'*/");
/// ```
pub fn comment() -> Option<String> {
    let origin = scope::origin()?;
    // In the order of the names, as the specification asks.
    let pairs = [("request_id", origin.request_id), ("route", origin.route), ("traceparent", origin.traceparent)];
    let mut text = String::new();
    for (name, value) in pairs {
        let Some(value) = value else { continue };
        text.push_str(if text.is_empty() { " /*" } else { "," });
        text.push_str(name);
        text.push_str("='");
        encode(&mut text, &value);
        text.push('\'');
    }
    if text.is_empty() {
        return None;
    }
    text.push_str("*/");
    Some(text)
}

/// By percent signs, all but the unreserved characters of RFC 3986: nothing that ends a comment, or a text, is left.
fn encode(text: &mut String, value: &str) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Scope, Watch};

    #[test]
    fn it_tells_what_is_known_and_can_not_be_left() {
        assert_eq!(comment(), None);
        assert_eq!(Scope::unwatched().run_sync(comment).0, None);
        let watch = Watch::builder().build();
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let scope = Scope::new(&watch, "GET /x").request_id("'*/; DROP").traceparent(trace);
        let expected = format!(" /*request_id='%27%2A%2F%3B%20DROP',route='GET%20%2Fx',traceparent='{trace}'*/");
        assert_eq!(scope.run_sync(comment).0, Some(expected));
    }
}
