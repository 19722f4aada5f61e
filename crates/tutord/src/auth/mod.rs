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
mod settings;
mod state;
mod token;

pub(crate) use identity::profile;
pub use identity::{Admin, Authenticated, AuthenticatedProfile, Verified, VerifiedProfile, presented_token};
pub use mails::Mailer;
pub(crate) use mails::spawn as spawn_mails;
pub use pages::pages;
pub(crate) use password::hash as hash_password;
pub use password::{MatchedForm, Passwords};
pub use routes::{ME_BUDGET, ROUTES, router};
pub use settings::AuthSettings;
pub use state::{Auth, AuthState};
