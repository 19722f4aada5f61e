//! Generated names, and the values of `SET` commands.

use super::lexer::{Kind, Token};

/// The action for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Keep,
    /// Write `?` instead.
    Replace,
    Omit,
}

/// Follows a statement from its first word.
#[derive(Debug, Default, Clone, Copy)]
pub(super) enum Names {
    /// Before the first word.
    #[default]
    Start,
    /// The first name that is none of these words is generated.
    Expect(&'static [&'static str]),
    /// In a `SET` command, before its value.
    Set,
    /// A `SET` command whose value starts with the next token.
    SetValue,
    /// After the first token of a value of a `SET` command.
    SetRest,
    /// No generated name follows, except after `CURRENT OF`.
    Other,
    Current,
    CurrentOf,
}

/// The words before a generated name, by the first word of the statement.
const GENERATED: [(&str, &[&str]); 13] = [
    ("SAVEPOINT", &[]),
    ("RELEASE", &["SAVEPOINT"]),
    ("ROLLBACK", &["WORK", "TRANSACTION", "TO", "SAVEPOINT", "AND", "NO", "CHAIN", "PREPARED"]),
    ("DECLARE", &[]),
    ("FETCH", FETCH),
    ("MOVE", FETCH),
    ("CLOSE", &["ALL"]),
    ("PREPARE", &["TRANSACTION"]),
    ("EXECUTE", &["IMMEDIATE"]),
    ("DEALLOCATE", &["PREPARE", "ALL"]),
    ("LISTEN", &[]),
    ("UNLISTEN", &[]),
    ("NOTIFY", &[]),
];
const FETCH: &[&str] =
    &["NEXT", "PRIOR", "FIRST", "LAST", "ABSOLUTE", "RELATIVE", "FORWARD", "BACKWARD", "ALL", "FROM", "IN"];
/// `SET` commands without values.
const SET_WITHOUT_VALUE: [&str; 3] = ["TRANSACTION", "CHARACTERISTICS", "CONSTRAINTS"];
/// The words and marks before the value of a `SET` command.
const BEFORE_SET_VALUE: [&str; 6] = ["=", "TO", "ZONE", "ROLE", "AUTHORIZATION", "NAMES"];

impl Names {
    /// Processes a token that is no space.
    pub(super) fn next(&mut self, token: &Token<'_>) -> Action {
        let is = |word: &&str| token.text.eq_ignore_ascii_case(word);
        let is_name = matches!(token.kind, Kind::Word | Kind::Name);
        if token.text == ";" {
            *self = Self::Start;
            return Action::Keep;
        }
        let (next, action) = match *self {
            Self::Start if is(&"SET") => (Self::Set, Action::Keep),
            Self::Start => {
                let generated = GENERATED.iter().find(|(first, _)| is(first));
                (generated.map_or(Self::Other, |(_, words)| Self::Expect(words)), Action::Keep)
            }
            // A number may precede the name in `FETCH`.
            Self::Expect(FETCH) if is_name && !FETCH.iter().any(is) => (Self::Expect(FETCH), Action::Replace),
            Self::Expect(FETCH) => (Self::Expect(FETCH), Action::Keep),
            Self::Expect(words) if is_name && !words.iter().any(is) => (Self::Other, Action::Replace),
            Self::Expect(_) if !is_name => (Self::Other, Action::Keep),
            Self::Set if SET_WITHOUT_VALUE.iter().any(is) => (Self::Other, Action::Keep),
            Self::Set if BEFORE_SET_VALUE.iter().any(is) => (Self::SetValue, Action::Keep),
            Self::SetValue => (Self::SetRest, Action::Replace),
            Self::SetRest => (Self::SetRest, Action::Omit),
            Self::Other | Self::Current if is(&"CURRENT") => (Self::Current, Action::Keep),
            Self::Current if is(&"OF") => (Self::CurrentOf, Action::Keep),
            Self::CurrentOf if is_name => (Self::Other, Action::Replace),
            Self::Current | Self::CurrentOf => (Self::Other, Action::Keep),
            unchanged => (unchanged, Action::Keep),
        };
        *self = next;
        action
    }
}
