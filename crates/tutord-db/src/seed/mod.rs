//! Generated rows for benchmarks.
//!
//! The same [`SeedPlan`] generates the same rows on both databases at any time: every text and number comes from
//! xoshiro256++ generators (Blackman, Vigna 2018), which are seeded by the plan's seed and the row's number. Rows are
//! generated one at a time, so memory does not grow with the plan.

mod rows;
mod words;

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;
use tutord_core::Timestamp;
use tutord_core::model::{Difficulty, ExerciseType, MessageRole, PREVIEW_CHARS, SkillLevel};
use tutord_core::operations::SeedPlan;

pub(crate) use rows::{ConversationRow, CopyText, ExerciseRow, MessageRow, SeedRow, UserRow};

/// 2026-01-01T00:00:00Z: a fixed start makes the rows independent of the time of generation.
const BEGINNING: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);
/// The interval between two messages of a conversation.
const PAUSE: Duration = Duration::from_secs(30);

/// The highest existing ids, after which new rows are numbered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HighestIds {
    pub(crate) users: i64,
    pub(crate) exercises: i64,
    pub(crate) conversations: i64,
    pub(crate) messages: i64,
}

/// The generated rows of a plan.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SeedRows<'a> {
    plan: &'a SeedPlan,
    ids: HighestIds,
}

impl<'a> SeedRows<'a> {
    pub(crate) const fn new(plan: &'a SeedPlan, ids: HighestIds) -> Self {
        Self { plan, ids }
    }

    /// Creates a generator for a row of a kind.
    fn random(self, kind: u64, number: u64) -> Xoshiro256PlusPlus {
        Xoshiro256PlusPlus::seed_from_u64(self.plan.seed.rotate_left(17) ^ kind.rotate_left(56) ^ number)
    }

    pub(crate) fn users(self) -> impl Iterator<Item = UserRow<'a>> + Send {
        (0..self.plan.users).map(move |index| {
            let mut random = self.random(1, index);
            let email = self.plan.email(index + 1);
            let joined = BEGINNING + Duration::from_secs(random.random_range(0..86_400 * 30));
            UserRow {
                id: self.ids.users + 1 + index.cast_signed(),
                email_folded: email.clone(),
                email,
                password_hash: &self.plan.password_hash,
                name: format!("{} {}", words::pick(&mut random, words::FIRST_NAMES), index + 1),
                programming_language: words::pick(&mut random, words::LANGUAGES),
                skill_level: SkillLevel::ALL[random.random_range(0..SkillLevel::ALL.len())],
                email_verified: true,
                created_at: joined,
                updated_at: joined,
            }
        })
    }

    pub(crate) fn exercises(self) -> impl Iterator<Item = ExerciseRow> + Send {
        (0..self.plan.exercises).map(move |index| {
            let mut random = self.random(2, index);
            let topic = words::pick(&mut random, words::TOPICS);
            ExerciseRow {
                id: self.ids.exercises + 1 + index.cast_signed(),
                title: format!("Exercise {}: {topic}", index + 1),
                description: words::sentence(&mut random),
                instructions: words::sentence(&mut random),
                exercise_type: ExerciseType::ALL[random.random_range(0..ExerciseType::ALL.len())],
                difficulty: Difficulty::ALL[random.random_range(0..Difficulty::ALL.len())],
                programming_language: words::pick(&mut random, words::LANGUAGES),
                topics: topic,
                created_at: BEGINNING,
            }
        })
    }

    /// Returns the number of messages of each conversation, in order: shares of the total by Pareto-distributed
    /// weights, rounded so that they add up exactly.
    fn message_counts(self) -> impl Iterator<Item = u64> + Send {
        let weight = move |index| 1.0 / self.random(3, index).random_range(0.001..1.0_f64);
        let all: f64 = (0..self.plan.conversations).map(weight).sum();
        let mut weights = 0.0;
        let mut given = 0;
        (0..self.plan.conversations).map(move |index| {
            weights += weight(index);
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of a count that fits"
            )]
            let until = if index + 1 == self.plan.conversations {
                self.plan.messages
            } else {
                ((weights / all) * self.plan.messages as f64) as u64
            };
            let count = until.saturating_sub(given);
            given = given.max(until);
            count
        })
    }

    pub(crate) fn conversations(self) -> impl Iterator<Item = ConversationRow> + Send {
        let mut owners = self.random(4, 0);
        (0..self.plan.conversations).zip(self.message_counts()).map(move |(index, count)| {
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a number below the number of users"
            )]
            let owner = {
                let share = owners.random_range(0.0..1.0_f64);
                (self.plan.users as f64 * (share * share)) as u64
            };
            let begun = conversation_beginning(index);
            let last = (count > 0).then(|| self.content(index, count));
            let active = if count > 0 { message_time(index, count) } else { begun };
            ConversationRow {
                id: self.ids.conversations + 1 + index.cast_signed(),
                user_id: self.ids.users + 1 + owner.cast_signed(),
                title: self.content(index, 1).chars().take(60).collect(),
                message_count: count.cast_signed(),
                last_message_at: active,
                last_message_preview: last.map(|text| text.chars().take(PREVIEW_CHARS).collect()),
                created_at: begun,
                updated_at: active,
            }
        })
    }

    pub(crate) fn messages(self) -> impl Iterator<Item = MessageRow> + Send {
        let mut id = self.ids.messages;
        (0..self.plan.conversations)
            .zip(self.message_counts())
            .flat_map(|(conversation, count)| (1..=count).map(move |position| (conversation, position)))
            .map(move |(conversation, position)| {
                id += 1;
                let reply = position % 2 == 0;
                let mut random = self.random(5, conversation.wrapping_mul(1 << 32) ^ position);
                MessageRow {
                    id,
                    conversation_id: self.ids.conversations + 1 + conversation.cast_signed(),
                    position: position.cast_signed(),
                    role: if reply { MessageRole::Assistant } else { MessageRole::User },
                    content: self.content(conversation, position),
                    tokens_used: reply.then(|| random.random_range(50..500)),
                    model_used: reply.then_some("seed-model"),
                    provider: reply.then_some("seed"),
                    finish_reason: reply.then_some("stop"),
                    cached: false,
                    response_time_ms: reply.then(|| random.random_range(200..4_000)),
                    reply_to: reply.then(|| id - 1),
                    created_at: message_time(conversation, position),
                }
            })
    }

    fn content(self, conversation: u64, position: u64) -> String {
        let mut random = self.random(6, conversation.wrapping_mul(1 << 32) ^ position);
        let sentences = if position.is_multiple_of(2) { random.random_range(2..6) } else { random.random_range(1..3) };
        let mut text = String::new();
        for _ in 0..sentences {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(&words::sentence(&mut random));
        }
        text
    }
}

fn conversation_beginning(index: u64) -> Timestamp {
    BEGINNING + Duration::from_secs(index % 8_000_000)
}

fn message_time(conversation: u64, position: u64) -> Timestamp {
    let pauses = u32::try_from(position).unwrap_or(u32::MAX);
    conversation_beginning(conversation) + PAUSE * pauses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> SeedPlan {
        SeedPlan { users: 5, conversations: 20, messages: 400, exercises: 3, seed: 7, password_hash: "-".to_owned() }
    }

    const IDS: HighestIds = HighestIds { users: 10, exercises: 0, conversations: 100, messages: 1_000 };

    #[test]
    fn counters_agree_with_the_messages() {
        let plan = plan();
        let messages: Vec<_> = SeedRows::new(&plan, IDS).messages().collect();
        assert_eq!(messages.len(), 400);
        for conversation in SeedRows::new(&plan, IDS).conversations() {
            let own: Vec<_> = messages.iter().filter(|message| message.conversation_id == conversation.id).collect();
            assert_eq!(conversation.message_count, i64::try_from(own.len()).unwrap());
            assert!((11..=15).contains(&conversation.user_id));
            if let Some(last) = own.last() {
                assert_eq!(conversation.last_message_at, last.created_at);
                assert!(last.content.starts_with(conversation.last_message_preview.as_deref().unwrap()));
            }
            for (index, message) in own.iter().enumerate() {
                assert_eq!(message.position, i64::try_from(index + 1).unwrap());
                assert_eq!(message.reply_to.is_some(), index % 2 == 1);
            }
        }
    }

    #[test]
    fn the_seed_decides() {
        let contents = |plan: &SeedPlan| SeedRows::new(plan, IDS).messages().map(|row| row.content).collect::<Vec<_>>();
        assert_eq!(contents(&plan()), contents(&plan()));
        assert_ne!(contents(&plan()), contents(&SeedPlan { seed: 8, ..plan() }));
    }
}
