//! Bounded slices of lists, by offset or by an opaque keyset cursor.
//!
//! A keyset cursor names the row at which a page ended, so that the next page is a range of an index
//! whatever its depth (M. Winand, "We need tool support for keyset pagination"). An offset is kept
//! for clients that show page numbers.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::model::time::Timestamp;

/// Which list, in which order, a cursor belongs to: a cursor of one list means nothing in another.
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

    /// Whether its cursors name a position, and lead in both directions.
    const fn has_positions(self) -> bool {
        matches!(self, Self::MessagesAscending | Self::MessagesDescending)
    }
}

/// A place in a list; opaque to clients.
///
/// It discloses nothing: it holds the time or value and the id, or the position, of a row that the client has
/// seen, and every query checks the owner by itself. So it is validated, not signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Cursor {
    list: List,
    backward: bool,
    at: i64,
    id: i64,
}

/// The last microsecond of the year 9999: both databases and all answers can hold it.
const LATEST: i64 = 253_402_300_799_999_999;

/// A text that is no cursor of the list it was given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a next_cursor or prev_cursor of this list in this order")]
pub struct CursorError;

impl Cursor {
    /// The page that follows the row with this time and id.
    pub(crate) const fn after_time(list: List, at: Timestamp, id: i64) -> Self {
        Self { list, backward: false, at: at.as_micros(), id }
    }

    /// The page that follows the student with this value on a leaderboard.
    pub(crate) const fn after_value(value: i64, user_id: i64) -> Self {
        Self { list: List::Leaderboard, backward: false, at: value, id: user_id }
    }

    /// The page that follows (or, `backward`, precedes) the message at `position`.
    pub(crate) const fn position(list: List, position: i64, backward: bool) -> Self {
        Self { list, backward, at: 0, id: position }
    }

    pub(crate) const fn key(&self) -> (Timestamp, i64) {
        (Timestamp::from_micros(self.at), self.id)
    }

    pub(crate) const fn value(&self) -> (i64, i64) {
        (self.at, self.id)
    }

    pub(crate) const fn is_backward(&self) -> bool {
        self.backward
    }

    /// The list and order that this cursor belongs to.
    pub const fn list(&self) -> List {
        self.list
    }

    /// The text that a client sends back: URL-safe base64 without padding.
    pub fn encode(&self) -> String {
        let mut bytes = [0; 18];
        bytes[0] = self.list as u8;
        bytes[1] = u8::from(self.backward);
        bytes[2..10].copy_from_slice(&self.at.to_be_bytes());
        bytes[10..].copy_from_slice(&self.id.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`CursorError`] for anything else.
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

/// Where a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// After this many items (≥ 0).
    Offset(i64),
    /// At a cursor.
    Cursor(Cursor),
}

/// Which page of a list is asked for. The HTTP layer bounds `limit`; the store trusts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    /// The most items that the page holds (≥ 1).
    pub limit: i64,
    /// Where it begins.
    pub position: Position,
}

impl PageRequest {
    /// The first `limit` items.
    pub const fn first(limit: i64) -> Self {
        Self { limit, position: Position::Offset(0) }
    }

    /// The offset, where the page was asked for by offset.
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
    /// The items, at most as many as asked for.
    pub items: Vec<T>,
    /// How many items the whole list has.
    pub total: i64,
    /// Whether an item follows this page.
    pub has_more: bool,
    /// The page after this one, where one exists.
    pub next: Option<Cursor>,
    /// The page before this one, where the list can be read backward and one exists.
    pub previous: Option<Cursor>,
}

impl<T> Page<T> {
    /// A page of rows of which one more than `limit` was asked for, to see whether the list goes on.
    pub(crate) fn cut(mut items: Vec<T>, total: i64, limit: i64, cursor: impl Fn(&T) -> Cursor) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let has_more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| has_more).map(cursor);
        Self { items, total, has_more, next, previous: None }
    }
}

/// The items and the total of rows that each tell it; no total beyond the end of a list, where there is no row to tell it.
pub(crate) fn counted<T>(rows: Vec<(T, Option<i64>)>, position: Position) -> (Vec<T>, Option<i64>) {
    let total = match rows.first() {
        Some((_, total)) => *total,
        None => (position == Position::Offset(0)).then_some(0),
    };
    (rows.into_iter().map(|(item, _)| item).collect(), total)
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
