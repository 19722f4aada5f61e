//! Accounts, log-ins and who makes a request.
//!
//! [`Authenticated`] is a request by a known user, [`Verified`] one by a user whose e-mail address is
//! verified, [`Admin`] one by an admin; taking one of them as a handler's argument is what protects the route.

mod cookies;
mod identity;
mod mails;
mod pages;
mod password;
mod routes;
mod service;
mod token;

pub use identity::{Admin, Authenticated, Verified, presented_token};
pub(crate) use mails::spawn as spawn_mails;
pub use mails::{MailStats, Mailer};
pub use pages::pages;
pub(crate) use password::hash as hash_password;
pub use password::{Matched, Passwords};
pub use routes::{BUDGETS, ME_BUDGET, router};
