//! Bounded slices of lists, by offset or by an opaque keyset cursor.
//!
//! A keyset cursor names the last row of a page, so that the next page is a range of an index at any depth (M. Winand,
//! "We need tool support for keyset pagination"). Offsets exist for clients that show page numbers.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// The list and order of a cursor; other lists reject it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum List {
    /// A student's conversations, newest activity first.
    Conversations = 1,
    /// A conversation's messages, oldest first.
    MessagesAscending = 2,
    /// A conversation's messages, newest first.
    MessagesDescending = 3,
    /// A student's exercises, newest first.
    ExerciseHistory = 4,
    /// A leaderboard, the first rank first.
    Leaderboard = 5,
}

impl List {
    const ALL: [Self; 5] = [
        Self::Conversations,
        Self::MessagesAscending,
        Self::MessagesDescending,
        Self::ExerciseHistory,
        Self::Leaderboard,
    ];

    /// Returns `true` if cursors of this list contain a position, and lead in both directions.
    const fn has_positions(self) -> bool {
        matches!(self, Self::MessagesAscending | Self::MessagesDescending)
    }
}

/// A position in a list, opaque to clients.
///
/// A cursor contains only data that the client has seen: the time or value and the id, or the position, of a row. Every
/// query checks the owner itself, so cursors are validated but not signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Cursor {
    list: List,
    backward: bool,
    at: i64,
    id: i64,
}

/// The last microsecond of the year 9999, which both databases and all responses can represent.
const LATEST: i64 = 253_402_300_799_999_999;

/// The error for a text that is not a cursor of the requested list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a next_cursor or prev_cursor of the same list in the same order")]
pub struct CursorError;

impl Cursor {
    /// Creates the cursor of the page after the row with this time and id.
    pub const fn after_time(list: List, at: Timestamp, id: i64) -> Self {
        Self { list, backward: false, at: at.as_micros(), id }
    }

    /// Creates the cursor of the page after the student with this value on a leaderboard.
    pub const fn after_value(value: i64, user_id: i64) -> Self {
        Self { list: List::Leaderboard, backward: false, at: value, id: user_id }
    }

    /// Creates the cursor of the page after (or, if `backward`, before) the message at `position`.
    pub const fn position(list: List, position: i64, backward: bool) -> Self {
        Self { list, backward, at: 0, id: position }
    }

    /// Returns the time and the id of the row.
    pub const fn key(&self) -> (Timestamp, i64) {
        (Timestamp::from_micros(self.at), self.id)
    }

    /// Returns the value on the leaderboard and the id of the student.
    pub const fn value(&self) -> (i64, i64) {
        (self.at, self.id)
    }

    /// Returns `true` if the cursor leads to the page before the row.
    pub const fn is_backward(&self) -> bool {
        self.backward
    }

    /// Returns the list and order of the cursor.
    pub const fn list(&self) -> List {
        self.list
    }

    /// Encodes the cursor for the client, as URL-safe base64 without padding.
    pub fn encode(&self) -> String {
        let mut bytes = [0; 18];
        bytes[0] = self.list as u8;
        bytes[1] = u8::from(self.backward);
        bytes[2..10].copy_from_slice(&self.at.to_be_bytes());
        bytes[10..].copy_from_slice(&self.id.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Decodes the result of [`encode`](Self::encode).
    ///
    /// # Errors
    /// Returns [`CursorError`] for any other text.
    pub fn decode(text: &str) -> Result<Self, CursorError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError)?;
        let bytes: [u8; 18] = bytes.try_into().map_err(|_| CursorError)?;
        let list = List::ALL.into_iter().find(|list| *list as u8 == bytes[0]).ok_or(CursorError)?;
        let backward = match bytes[1] {
            0 => false,
            1 if list.has_positions() => true,
            _ => return Err(CursorError),
        };
        let integer = |from: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[from..from + 8]);
            i64::from_be_bytes(word)
        };
        let (at, id) = (integer(2), integer(10));
        let is_possible = match list {
            List::MessagesAscending | List::MessagesDescending => at == 0,
            // A time that a database can't hold would fail there.
            List::Conversations | List::ExerciseHistory => (0..=LATEST).contains(&at),
            List::Leaderboard => true,
        };
        if id < 1 || !is_possible {
            return Err(CursorError);
        }
        Ok(Self { list, backward, at, id })
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> Self {
        cursor.encode()
    }
}

impl TryFrom<String> for Cursor {
    type Error = CursorError;

    fn try_from(text: String) -> Result<Self, CursorError> {
        Self::decode(&text)
    }
}

/// The start of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The number of items to skip (≥ 0).
    Offset(i64),
    /// At a cursor.
    Cursor(Cursor),
}

/// A request for a page of a list. The HTTP layer limits `limit`; the store does not check it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    /// The maximum number of items in the page (≥ 1).
    pub limit: i64,
    /// The start of the page.
    pub position: Position,
}

impl PageRequest {
    /// Requests the first `limit` items.
    pub const fn first(limit: i64) -> Self {
        Self { limit, position: Position::Offset(0) }
    }

    /// Returns the offset, if the page was requested by offset.
    pub const fn offset(&self) -> Option<i64> {
        match self.position {
            Position::Offset(offset) => Some(offset),
            Position::Cursor(_) => None,
        }
    }
}

/// A bounded slice of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The items, at most `limit`.
    pub items: Vec<T>,
    /// The number of items in the whole list.
    pub total: i64,
    /// Set if an item follows this page.
    pub has_more: bool,
    /// The cursor of the next page, if there is one.
    pub next: Option<Cursor>,
    /// The cursor of the previous page, if the list can be read backward and there is one.
    pub previous: Option<Cursor>,
}

impl<T> Page<T> {
    /// Creates a page from up to `limit` + 1 rows, the last of which shows whether the list continues.
    pub fn cut(mut items: Vec<T>, total: i64, limit: i64, cursor: impl Fn(&T) -> Cursor) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let has_more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| has_more).map(cursor);
        Self { items, total, has_more, next, previous: None }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cursors_survive_the_round_trip(
            at in 0..=LATEST, value in any::<i64>(), id in 1..i64::MAX, backward in any::<bool>(),
        ) {
            let activity = Cursor::after_time(List::Conversations, Timestamp::from_micros(at), id);
            prop_assert_eq!(Cursor::decode(&activity.encode()), Ok(activity));
            let entry = Cursor::after_value(value, id);
            prop_assert_eq!(Cursor::decode(&entry.encode()), Ok(entry));
            let message = Cursor::position(List::MessagesDescending, id, backward);
            prop_assert_eq!(Cursor::decode(&message.encode()), Ok(message));
        }

        #[test]
        fn any_text_is_refused_or_means_what_it_encodes(text in ".{0,40}") {
            if let Ok(cursor) = Cursor::decode(&text) {
                prop_assert_eq!(cursor.encode(), text);
            }
        }
    }

    #[test]
    fn tampered_cursors_are_refused() {
        let good = Cursor::position(List::MessagesAscending, 7, false).encode();
        let raw = URL_SAFE_NO_PAD.decode(&good).unwrap();
        for (index, value) in [(0, 0), (0, 9), (1, 2), (2, 1), (10, 0x80)] {
            let mut bytes = raw.clone();
            bytes[index] = value;
            assert_eq!(Cursor::decode(&URL_SAFE_NO_PAD.encode(&bytes)), Err(CursorError), "byte {index} = {value}");
        }
        for at in [i64::MIN, -1, LATEST + 1, i64::MAX] {
            let impossible = Cursor::after_time(List::ExerciseHistory, Timestamp::from_micros(at), 7).encode();
            assert_eq!(Cursor::decode(&impossible), Err(CursorError), "the time {at}");
        }
        assert_eq!(Cursor::decode(""), Err(CursorError));
        assert_eq!(Cursor::decode(&format!("{good}AA")), Err(CursorError));
    }
}
