//! The [`Store`] trait: the calls about the aggregates, with a sub-trait for each aggregate.
//!
//! Calls for one student take the student's id and check the owner in the query itself. Rows of other users are treated
//! as missing.
//!
//! Frequent reads return an [`Arc`](std::sync::Arc), so that a cache can share its value.

mod conversations;
mod email_tokens;
mod exercises;
mod loaded;
mod mails;
mod progress;
mod sessions;
mod users;

pub use conversations::Conversations;
pub use email_tokens::EmailTokens;
pub use exercises::Exercises;
pub use loaded::Loaded;
pub use mails::Mails;
pub use progress::Progress;
pub use sessions::{MAX_TRUSTED_DEVICES, Sessions};
pub use users::Users;

/// All aggregates of the store.
pub trait Store: Users + Sessions + EmailTokens + Mails + Conversations + Exercises + Progress {}
impl<T: Users + Sessions + EmailTokens + Mails + Conversations + Exercises + Progress> Store for T {}
