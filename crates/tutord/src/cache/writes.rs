//! The keys and groups that each write invalidates.

use readthrough::{Key, Target};
use tutord_core::model::change::{Change, ChangeKind};

use super::namespaces::Namespaces;

/// The group of all leaderboard pages.
pub(super) const LEADERBOARDS: &str = "all";

/// A write, classified by the data that it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Write {
    /// Fields of a user that other users don't see.
    Profile { user: i64 },
    /// Fields of a user that leaderboards also show.
    Name { user: i64 },
    /// A session of a user was revoked.
    Session { user: i64 },
    /// A conversation or its messages.
    Conversation { user: i64, conversation: i64 },
    /// Fields that a student's conversation list shows.
    List { user: i64 },
    /// Messages of a conversation.
    Messages { user: i64, conversation: i64 },
    /// A student's progress in an exercise, without a completion.
    Exercise { user: i64, exercise: i64 },
    /// A student's progress in an exercise, possibly with a completion.
    Completion { user: i64, exercise: i64 },
    /// The students that leaderboards show.
    Leaderboards,
    /// Everything that is computed from a student's completions.
    Statistics { user: i64 },
    /// Exercises of the catalogue, or achievements.
    Catalogue,
    /// Rows of this kind of many or unknown users.
    Any(ChangeKind),
}

/// Converts a change recorded by the database's triggers.
pub(super) fn noted(change: &Change) -> Write {
    match (change.kind, change.user_id, change.item_id) {
        (ChangeKind::Profile, Some(user), _) => Write::Statistics { user },
        (ChangeKind::Session, Some(user), _) => Write::Session { user },
        (ChangeKind::Conversation, Some(user), Some(conversation)) => Write::Conversation { user, conversation },
        (ChangeKind::Exercise, Some(user), Some(exercise)) => Write::Exercise { user, exercise },
        (ChangeKind::Catalogue, _, _) => Write::Catalogue,
        (ChangeKind::Leaderboard, _, _) => Write::Leaderboards,
        (kind, _, _) => Write::Any(kind),
    }
}

impl Namespaces {
    /// Returns the keys and groups that the write invalidates.
    pub(super) fn targets(&self, write: Write) -> Vec<Target> {
        match write {
            Write::Profile { user } => vec![self.profiles.target(&Key::new(user))],
            Write::Name { user } => {
                let mut targets = self.targets(Write::Profile { user });
                targets.extend(self.targets(Write::Leaderboards));
                targets
            }
            // The profile holds streaks and counts, too.
            Write::Statistics { user } => {
                let mut targets = self.targets(Write::Name { user });
                targets.push(self.progress.group_target(user));
                targets
            }
            Write::Session { user } => vec![self.sessions.group_target(user)],
            Write::Conversation { user, conversation } => {
                [self.targets(Write::List { user }), self.targets(Write::Messages { user, conversation })].concat()
            }
            Write::List { user } => vec![self.conversations.group_target(user)],
            Write::Messages { user, conversation } => {
                vec![self.messages.group_target(conversation_group(user, conversation))]
            }
            Write::Exercise { user, exercise } => vec![
                self.exercise_lists.group_target(user),
                // A generated exercise that is new, of whose id it may be remembered that there is none.
                self.own_exercises.target(&own_exercise(user, exercise)),
            ],
            Write::Completion { user, exercise } => {
                let mut targets = self.targets(Write::Exercise { user, exercise });
                targets.extend(self.targets(Write::Statistics { user }));
                targets
            }
            Write::Leaderboards => vec![self.leaderboards.group_target(LEADERBOARDS)],
            Write::Any(ChangeKind::Profile | ChangeKind::Leaderboard) => self.targets(Write::Leaderboards),
            Write::Catalogue | Write::Any(_) => Vec::new(),
        }
    }
}

/// Returns the namespaces that a write invalidates as a whole; `*` means all of them.
pub(super) const fn flushed(write: Write) -> &'static [&'static str] {
    match write {
        // What a catalogue changes is in every list and overview.
        Write::Catalogue | Write::Any(ChangeKind::Catalogue) => &["exercise", "exercise:list", "progress"],
        Write::Any(ChangeKind::Profile) => &["user:profile", "progress"],
        Write::Any(ChangeKind::Session) => &["session"],
        Write::Any(ChangeKind::Conversation) => &["conversation:list", "conversation:messages"],
        Write::Any(ChangeKind::Exercise) => &["exercise:list", "exercise:own"],
        Write::Any(ChangeKind::Unknown) => &["*"],
        _ => &[],
    }
}

/// Returns the group of a conversation's pages, which belong to one student.
pub(super) fn conversation_group(user: i64, conversation: i64) -> String {
    format!("{user}:{conversation}")
}

/// Returns the key of an exercise generated for one student.
pub(super) fn own_exercise(user: i64, exercise: i64) -> Key {
    Key::new(format_args!("{exercise}:{user}"))
}
