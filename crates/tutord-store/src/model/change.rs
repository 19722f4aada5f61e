//! Changes that the database noted: see [`Outbox`](crate::store::Outbox).

use std::time::Duration;

/// How long a process has to acknowledge its own changes before another one acts on them.
pub const GRACE: Duration = Duration::from_secs(2);

/// Rows of one kind and user that were inserted, changed or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its number; changes are not committed in the order of these.
    pub id: i64,
    /// What was changed.
    pub kind: ChangeKind,
    /// Whose it is; `None` for all users.
    pub user_id: Option<i64>,
    /// Which conversation or exercise.
    pub item_id: Option<i64>,
}

/// What was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// A user, or what is summed up of them.
    Profile,
    /// A session was changed or removed.
    Session,
    /// A conversation or its messages.
    Conversation,
    /// Where a student stands with an exercise, or an exercise that was generated for them.
    Exercise,
    /// Exercises or achievements that all students see.
    Catalogue,
    /// Entries of leaderboards.
    Leaderboard,
    /// Something that this version does not know.
    Unknown,
}

impl ChangeKind {
    /// Reads what the database's triggers write.
    pub(crate) fn read(text: &str) -> Self {
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
