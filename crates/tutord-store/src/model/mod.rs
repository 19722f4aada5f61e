//! What is stored, as the callers see it.

mod conversation;
mod enums;
mod session;
pub(crate) mod time;
mod user;

pub use conversation::{
    Appended, Conversation, ConversationPage, IDEMPOTENCY_KEY_LIFETIME, Message, NewConversation, NewReply,
    NewUserMessage, Order, PREVIEW_CHARS, StoredExchange, Target,
};
pub use enums::{
    ContextType, Difficulty, EmailTokenPurpose, ExerciseStatus, ExerciseType, MessageRole, Role, SessionTokenPurpose,
    SkillLevel, UnknownValue,
};
pub use session::{Identity, NewEmailToken, NewSessionTokens, Rotation, TokenHash};
pub use user::{Credentials, LearningProfile, NewUser, User, UserChanges};
