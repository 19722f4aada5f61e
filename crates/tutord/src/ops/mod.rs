//! What operators look at.

pub(crate) mod background;
pub mod doctor;
pub mod health;
mod redis;
