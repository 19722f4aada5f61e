//! Profiles, onboarding and learning preferences.

mod onboarding;
mod routes;
mod wire;

pub use routes::{PROFILE_BUDGET, router};
