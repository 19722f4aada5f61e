//! Conversations with the tutor.
//!
//! - `routes` and `wire`: HTTP in and out;
//! - `service`: begin, list, read, rename and delete conversations;
//! - `exchange`: a student's message and the tutor's reply, whole;
//! - `stream`: the same as server-sent events;
//! - `in_progress`: one request for a reply at a time;
//! - `prompt`: what the model is shown: the system prompt and the bounded history;
//! - `purge`: removes the rows of deleted conversations in the background.

mod exchange;
mod in_progress;
mod prompt;
mod purge;
mod routes;
mod service;
mod stream;
mod wire;

pub use in_progress::InProgress;
pub(crate) use purge::spawn as spawn_purge;
pub use routes::{AWAIT_MODEL, BUDGETS, CONVERSATION_BUDGET, LIST_BUDGET, PAGE_BUDGET, SEND_BUDGET, router};
pub(crate) use routes::{CONVERSATIONS, MESSAGES};
