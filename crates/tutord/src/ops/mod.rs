//! What operators look at.

pub mod doctor;
pub mod health;
mod redis;
