//! Comments that name the origin of a statement for the database server.

use std::fmt::Write as _;

use crate::context;

/// Returns a comment with the route, request id and trace of the current scope, to append to a statement, in the format of
/// [sqlcommenter](https://google.github.io/sqlcommenter/spec/).
///
/// Returns `None` outside of every scope, or if the scope has none of the three. The comment starts with a space.
///
/// The server shows the comment in `pg_stat_activity`, its log and `auto_explain`. A comment makes the text of each
/// statement unique and so prevents the reuse of prepared statements: make it optional. Shapes contain no comments.
///
/// ```
/// use querywatch::{Scope, Watch};
///
/// let watch = Watch::builder().build();
/// let (comment, _) = Scope::new(&watch, "GET /users/{id}").run_sync(querywatch::sql_comment);
/// assert_eq!(comment.unwrap(), " /*route='GET%20%2Fusers%2F%7Bid%7D'*/");
/// ```
pub fn sql_comment() -> Option<String> {
    let origin = context::origin()?;
    // The specification requires the order of the names.
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

/// Percent-encodes all but the unreserved characters of RFC 3986, so that no value can end the comment or its quotes.
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
    fn a_comment_has_the_known_values_and_escapes_them() {
        assert_eq!(sql_comment(), None);
        assert_eq!(Scope::unwatched().run_sync(sql_comment).0, None);
        let watch = Watch::builder().build();
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let scope = Scope::new(&watch, "GET /x").request_id("'*/; DROP").traceparent(trace);
        let expected = format!(" /*request_id='%27%2A%2F%3B%20DROP',route='GET%20%2Fx',traceparent='{trace}'*/");
        assert_eq!(scope.run_sync(sql_comment).0, Some(expected));
    }
}
