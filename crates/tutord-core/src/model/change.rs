//! Changes recorded by the database: see [`Outbox`](crate::operations::Outbox).

use std::time::Duration;

/// The time in which a process must acknowledge its own changes, before another process invalidates them.
pub const GRACE: Duration = Duration::from_secs(2);

/// A recorded change: inserted, changed or removed rows of one kind and user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The number of the change; changes may commit in another order.
    pub id: i64,
    /// The kind of the changed rows.
    pub kind: ChangeKind,
    /// The user of the rows; `None` for all users.
    pub user_id: Option<i64>,
    /// The conversation or exercise.
    pub item_id: Option<i64>,
}

/// The kind of the changed rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// A user, or the sums of a user.
    Profile,
    /// A session was changed or removed.
    Session,
    /// A conversation or its messages.
    Conversation,
    /// The progress of a student in an exercise, or an exercise generated for a student.
    Exercise,
    /// Exercises or achievements that all students see.
    Catalogue,
    /// Entries of leaderboards.
    Leaderboard,
    /// A kind that this version does not know.
    Unknown,
}

impl ChangeKind {
    /// Parses the kind written by the database's triggers.
    pub fn read(text: &str) -> Self {
        match text {
            "profile" => Self::Profile,
            "session" => Self::Session,
            "conversation" => Self::Conversation,
            "exercise" => Self::Exercise,
            "catalogue" => Self::Catalogue,
            "leaderboard" => Self::Leaderboard,
            _ => Self::Unknown,
        }
    }
}
