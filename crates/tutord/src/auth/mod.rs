//! Accounts, log-ins and authentication.
//!
//! A handler's argument protects its route: [`Authenticated`] requires a logged-in user, [`Verified`] a user with a
//! verified e-mail address, and [`Admin`] an admin.

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
