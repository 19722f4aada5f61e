//! The data types of the store.

pub mod change;
mod conversation;
mod enums;
mod exercise;
mod mail;
pub mod progress;
mod session;
mod user;

pub use conversation::message_page;
pub use conversation::{
    Appended, BROKEN_OFF, Conversation, ConversationPage, IDEMPOTENCY_KEY_LIFETIME, INCOMPLETE_REASONS, INTERRUPTED,
    Message, NewConversation, NewReply, NewUserMessage, Order, PREVIEW_CHARS, Stored, StoredExchange, Target,
};
pub use enums::{
    AchievementCategory, ContextType, Difficulty, EmailTokenPurpose, ExerciseStatus, ExerciseType, MailKind,
    MessageRole, Metric, Period, Rarity, Requirement, Role, SessionTokenPurpose, SkillLevel, UnknownValue,
};
pub use exercise::{
    Achievement, Assigned, Candidate, CatalogueLoaded, Choice, Completion, Daily, Exercise, ExerciseKey, Graded,
    Grading, HintTaken, HistoryItem, Moment, NewAchievement, NewExercise, NewSubmission, NewestDaily, PASSING_GRADE,
    RequestKey, StoredSubmission, Submitted, Transition, UserExercise,
};
pub use mail::{ClaimedMail, FailedMail, MailCounts};
pub use session::{Identity, NewEmailToken, NewSessionTokens, Rotation, TokenHash};
pub use user::{Credentials, LearningProfile, NewUser, User, UserChanges};
