//! The keys and groups that each write invalidates.

use readthrough::{Key, Target};
use tutord_core::model::change::{Change, ChangeKind};

use super::namespaces::Namespaces;

/// The group of all leaderboard pages, and of all places on leaderboards.
pub(super) const LEADERBOARDS: &str = "all";

/// A write, classified by the data that it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CacheEffect {
    /// Fields of a user that other users don't see.
    Profile { user: i64 },
    /// Fields of a user that leaderboards also show.
    Name { user: i64 },
    /// A session of a user was revoked, or the user's role, activation or verification changed.
    Session { user: i64 },
    /// Any fields of a user, or anything that is computed from the user's completions.
    Account { user: i64 },
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
pub(super) fn effect_of(change: &Change) -> CacheEffect {
    match (change.kind, change.user_id, change.item_id) {
        (ChangeKind::Profile, Some(user), _) => CacheEffect::Account { user },
        (ChangeKind::Session, Some(user), _) => CacheEffect::Session { user },
        (ChangeKind::Conversation, Some(user), Some(conversation)) => CacheEffect::Conversation { user, conversation },
        (ChangeKind::Exercise, Some(user), Some(exercise)) => CacheEffect::Exercise { user, exercise },
        (ChangeKind::Catalogue, _, _) => CacheEffect::Catalogue,
        (ChangeKind::Leaderboard, _, _) => CacheEffect::Leaderboards,
        (kind, _, _) => CacheEffect::Any(kind),
    }
}

impl Namespaces {
    /// Returns the keys and groups that the write invalidates.
    pub(super) fn targets(&self, write: CacheEffect) -> Vec<Target> {
        match write {
            CacheEffect::Profile { user } => vec![self.profiles.target(&Key::new(user))],
            CacheEffect::Name { user } => {
                let mut targets = self.targets(CacheEffect::Profile { user });
                targets.extend(self.targets(CacheEffect::Leaderboards));
                targets
            }
            // The profile contains streaks and counts, too.
            CacheEffect::Statistics { user } => {
                let mut targets = self.targets(CacheEffect::Name { user });
                targets.push(self.progress.group_target(user));
                targets
            }
            CacheEffect::Session { user } => vec![self.identities.group_target(user)],
            CacheEffect::Account { user } => {
                [self.targets(CacheEffect::Session { user }), self.targets(CacheEffect::Statistics { user })].concat()
            }
            CacheEffect::Conversation { user, conversation } => {
                [self.targets(CacheEffect::List { user }), self.targets(CacheEffect::Messages { user, conversation })]
                    .concat()
            }
            CacheEffect::List { user } => vec![self.conversations.group_target(user)],
            CacheEffect::Messages { user, conversation } => {
                vec![self.messages.group_target(conversation_group(user, conversation))]
            }
            CacheEffect::Exercise { user, exercise } => vec![
                self.exercise_lists.group_target(user),
                // The cache may hold that the id of a new exercise does not exist.
                self.own_exercises.target(&own_exercise(user, exercise)),
            ],
            CacheEffect::Completion { user, exercise } => {
                let mut targets = self.targets(CacheEffect::Exercise { user, exercise });
                targets.extend(self.targets(CacheEffect::Statistics { user }));
                targets
            }
            CacheEffect::Leaderboards => {
                vec![self.leaderboards.group_target(LEADERBOARDS), self.places.group_target(LEADERBOARDS)]
            }
            CacheEffect::Any(ChangeKind::Profile | ChangeKind::Leaderboard) => self.targets(CacheEffect::Leaderboards),
            CacheEffect::Catalogue | CacheEffect::Any(_) => Vec::new(),
        }
    }
}

/// Returns the namespaces that an effect invalidates as a whole; `*` means all of them.
pub(super) const fn flushed(write: CacheEffect) -> &'static [&'static str] {
    match write {
        // Every list and overview contains data of the catalogue.
        CacheEffect::Catalogue | CacheEffect::Any(ChangeKind::Catalogue) => &["exercise", "exercise:list", "progress"],
        CacheEffect::Any(ChangeKind::Profile) => &["user:profile", "session", "progress"],
        CacheEffect::Any(ChangeKind::Session) => &["session"],
        CacheEffect::Any(ChangeKind::Conversation) => &["conversation:list", "conversation:messages"],
        CacheEffect::Any(ChangeKind::Exercise) => &["exercise:list", "exercise:own"],
        CacheEffect::Any(ChangeKind::Unknown) => &["*"],
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
