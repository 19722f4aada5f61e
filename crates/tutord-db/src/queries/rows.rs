//! The columns of wide rows. Each selection has one type, which the compiler checks once and not in every query.

use diesel::helper_types::AsSelect;
use diesel::prelude::*;
use diesel_async::AsyncConnectionCore;
use tutord_core::model::progress::{Activity, TopicSkill};
use tutord_core::model::{Conversation, Exercise, HistoryItem, Message, User, UserExercise};

use super::Conn;

/// The columns of a type in this database.
type Row<T> = AsSelect<T, <Conn as AsyncConnectionCore>::Backend>;

/// Selects a user.
pub(super) fn user_row() -> Row<User> {
    User::as_select()
}

/// Selects an exercise.
pub(super) fn exercise_row() -> Row<Exercise> {
    Exercise::as_select()
}

/// Selects a student's progress in an exercise.
pub(super) fn user_exercise_row() -> Row<UserExercise> {
    UserExercise::as_select()
}

/// Selects a conversation.
pub(super) fn conversation_row() -> Row<Conversation> {
    Conversation::as_select()
}

/// Selects a message.
pub(super) fn message_row() -> Row<Message> {
    Message::as_select()
}

/// Selects an entry of a history.
pub(super) fn history_row() -> Row<HistoryItem> {
    HistoryItem::as_select()
}

/// Selects the sums of a day.
pub(super) fn activity_row() -> Row<Activity> {
    Activity::as_select()
}

/// Selects a student's level in a topic.
pub(super) fn topic_skill_row() -> Row<TopicSkill> {
    TopicSkill::as_select()
}
