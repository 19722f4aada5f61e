//! What operators look at.

pub(crate) mod background;
pub mod cache;
pub mod doctor;
pub mod health;
