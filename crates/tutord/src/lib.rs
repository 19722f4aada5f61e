//! tutord, the backend of an AI coding tutor.
//!
//! A request's way: `http` (middleware, extractors) → a feature's `routes` → its rules → the cache → the store.
//!
//! - [`app`]: what the features share, and the server;
//! - [`config`]: every flag and variable;
//! - [`cache`]: the store as the features have it, with a cache before it;
//! - [`auth`], [`users`], [`chat`], [`exercises`], [`progress`]: the features;
//! - [`llm`], [`mail`]: the services tutord calls;
//! - [`http`]: what every route shares;
//! - [`ops`]: health and diagnosis; [`commands`]: what the binary can do.
#![forbid(unsafe_code)]

/// Prints a line. Who reads it may have gone away (`tutord doctor | head -1`): then nobody misses the rest.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout().lock(), $($text)*);
    }};
}

pub mod app;
pub mod auth;
pub mod cache;
pub mod chat;
pub mod commands;
pub mod config;
pub mod error;
pub mod exercises;
pub mod http;
pub mod llm;
pub mod mail;
pub mod ops;
pub mod progress;
mod server;
pub mod users;
