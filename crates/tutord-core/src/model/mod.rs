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
    AppendOutcome, BROKEN_OFF, Conversation, ConversationPage, IDEMPOTENCY_KEY_LIFETIME, INCOMPLETE_REASONS,
    INTERRUPTED, Message, MessageTarget, NewConversation, NewReply, NewUserMessage, Order, PREVIEW_CHARS,
    StoredExchange, StoredMessage,
};
pub use enums::{
    AchievementCategory, ContextType, Difficulty, EmailTokenPurpose, ExerciseStatus, ExerciseType, MailKind,
    MessageRole, Metric, Period, Rarity, Requirement, Role, SessionTokenPurpose, SkillLevel, UnknownValue,
};
pub use exercise::{
    Achievement, AssignedExercise, Candidate, CandidateFilter, CatalogueCounts, Completion, DailyChoice, Exercise,
    ExerciseKey, GradedSubmission, Grading, HistoryItem, Moment, NewAchievement, NewExercise, NewSubmission,
    NewestDailyExercise, PASSING_GRADE, RequestKey, StoredSubmission, SubmissionOutcome, TakenHint, Transition,
    UserExercise,
};
pub use mail::{ClaimedMail, FailedMail, MailCounts};
pub use session::{Identity, NewEmailToken, NewSessionTokens, Rotation, TokenHash};
pub use user::{Credentials, LearningProfile, NewUser, User, UserChanges};
