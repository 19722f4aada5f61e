//! Conversations with the tutor.
//!
//! - `routes` and `dto`: the HTTP routes and their JSON;
//! - `service`: creates, lists, reads, renames and deletes conversations;
//! - `exchange`: a student's message and the tutor's complete reply;
//! - `stream`: the same as server-sent events;
//! - `in_progress`: at most one request for a reply at a time;
//! - `prompt`: the prompt for the model: the system prompt and the bounded history;
//! - `purge`: removes the rows of deleted conversations in the background.

mod dto;
mod exchange;
mod in_progress;
mod prompt;
mod purge;
mod routes;
mod service;
mod state;
mod stream;

pub use in_progress::InProgress;
pub(crate) use purge::spawn as spawn_purge;
pub use routes::{CONVERSATION_BUDGET, LIST_BUDGET, PAGE_BUDGET, ROUTES, SEND_BUDGET, router};
pub(crate) use routes::{CONVERSATIONS, MESSAGES};
pub use state::{Chat, ChatState};
