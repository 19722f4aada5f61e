//! The generated rows, and their format for PostgreSQL's `COPY`.

use std::fmt::{Display, Write as _};

use diesel::Insertable;
use tutord_core::Timestamp;
use tutord_core::model::{Difficulty, ExerciseType, MessageRole, SkillLevel};
use tutord_core::schema::{conversations, exercises, messages, users};

/// Lines in `COPY`'s text format.
#[derive(Default)]
pub(crate) struct CopyText(String);

impl CopyText {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn take(&mut self) -> bytes::Bytes {
        std::mem::take(&mut self.0).into()
    }

    fn separate(&mut self) {
        if !self.0.is_empty() && !self.0.ends_with('\n') {
            self.0.push('\t');
        }
    }

    /// Writes a value that needs no escape.
    fn plain(&mut self, value: impl Display) -> &mut Self {
        self.separate();
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{value}");
        self
    }

    fn text(&mut self, value: &str) -> &mut Self {
        self.separate();
        for character in value.chars() {
            match character {
                '\\' => self.0.push_str("\\\\"),
                '\t' => self.0.push_str("\\t"),
                '\n' => self.0.push_str("\\n"),
                '\r' => self.0.push_str("\\r"),
                other => self.0.push(other),
            }
        }
        self
    }

    fn optional(&mut self, value: Option<impl Display>) -> &mut Self {
        match value {
            Some(value) => self.text(&value.to_string()),
            None => self.plain("\\N"),
        }
    }

    pub(crate) fn end_row(&mut self) {
        self.0.push('\n');
    }
}

/// A row in `COPY` format.
pub(crate) trait SeedRow {
    /// The table and its columns, in the order in which [`write`](Self::write) writes them.
    const TARGET: &'static str;
    fn write(&self, out: &mut CopyText);
}

#[derive(Insertable)]
#[diesel(table_name = users)]
pub(crate) struct UserRow<'a> {
    pub(crate) id: i64,
    pub(crate) email: String,
    pub(crate) email_folded: String,
    pub(crate) password_hash: &'a str,
    pub(crate) name: String,
    pub(crate) programming_language: &'static str,
    pub(crate) skill_level: SkillLevel,
    pub(crate) email_verified: bool,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
}

impl SeedRow for UserRow<'_> {
    const TARGET: &'static str = "users (id, email, email_folded, password_hash, name, programming_language, \
         skill_level, email_verified, created_at, updated_at)";

    fn write(&self, out: &mut CopyText) {
        out.plain(self.id).text(&self.email).text(&self.email_folded).text(self.password_hash).text(&self.name);
        out.plain(self.programming_language).plain(self.skill_level).plain(self.email_verified);
        out.plain(self.created_at).plain(self.updated_at);
    }
}

#[derive(Insertable)]
#[diesel(table_name = exercises)]
pub(crate) struct ExerciseRow {
    pub(crate) id: i64,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) instructions: String,
    pub(crate) exercise_type: ExerciseType,
    pub(crate) difficulty: Difficulty,
    pub(crate) programming_language: &'static str,
    pub(crate) topics: &'static str,
    pub(crate) created_at: Timestamp,
}

impl SeedRow for ExerciseRow {
    const TARGET: &'static str = "exercises (id, title, description, instructions, exercise_type, difficulty, \
         programming_language, topics, created_at)";

    fn write(&self, out: &mut CopyText) {
        out.plain(self.id).text(&self.title).text(&self.description).text(&self.instructions);
        out.plain(self.exercise_type).plain(self.difficulty).plain(self.programming_language).plain(self.topics);
        out.plain(self.created_at);
    }
}

#[derive(Insertable)]
#[diesel(table_name = conversations)]
pub(crate) struct ConversationRow {
    pub(crate) id: i64,
    pub(crate) user_id: i64,
    pub(crate) title: String,
    pub(crate) message_count: i64,
    pub(crate) last_message_at: Timestamp,
    pub(crate) last_message_preview: Option<String>,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
}

impl SeedRow for ConversationRow {
    const TARGET: &'static str = "conversations (id, user_id, title, message_count, last_message_at, \
         last_message_preview, created_at, updated_at)";

    fn write(&self, out: &mut CopyText) {
        out.plain(self.id).plain(self.user_id).text(&self.title).plain(self.message_count).plain(self.last_message_at);
        out.optional(self.last_message_preview.as_deref()).plain(self.created_at).plain(self.updated_at);
    }
}

#[derive(Insertable)]
#[diesel(table_name = messages)]
pub(crate) struct MessageRow {
    pub(crate) id: i64,
    pub(crate) conversation_id: i64,
    pub(crate) position: i64,
    pub(crate) role: MessageRole,
    pub(crate) content: String,
    pub(crate) tokens_used: Option<i32>,
    pub(crate) model_used: Option<&'static str>,
    pub(crate) provider: Option<&'static str>,
    pub(crate) finish_reason: Option<&'static str>,
    pub(crate) cached: bool,
    pub(crate) response_time_ms: Option<i32>,
    pub(crate) reply_to: Option<i64>,
    pub(crate) created_at: Timestamp,
}

impl SeedRow for MessageRow {
    const TARGET: &'static str = "messages (id, conversation_id, position, role, content, tokens_used, model_used, \
         provider, finish_reason, cached, response_time_ms, reply_to, created_at)";

    fn write(&self, out: &mut CopyText) {
        out.plain(self.id).plain(self.conversation_id).plain(self.position).plain(self.role).text(&self.content);
        out.optional(self.tokens_used).optional(self.model_used).optional(self.provider).optional(self.finish_reason);
        out.plain(self.cached).optional(self.response_time_ms).optional(self.reply_to).plain(self.created_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_copy_would_misread_is_escaped() {
        let mut out = CopyText::default();
        out.plain(1).text("a\tb\\c\nd").optional(None::<i32>);
        out.end_row();
        out.plain(2).text("").optional(Some("x"));
        out.end_row();
        assert_eq!(out.take(), "1\ta\\tb\\\\c\\nd\t\\N\n2\t\tx\n");
    }
}
