//! tutord, the backend of an AI coding tutor.
//!
//! A request passes through `http` (middleware, extractors), a feature's `routes`, its rules, the cache, and the store.
//!
//! - [`app`]: the state that the features share, and the server;
//! - [`config`]: every flag and variable;
//! - [`cache`]: the cached store that the features use;
//! - [`auth`], [`users`], [`chat`], [`exercises`], [`progress`]: the features;
//! - [`llm`], [`mail`]: the services tutord calls;
//! - [`http`]: the middleware and extractors that all routes share;
//! - [`ops`]: health and diagnosis; [`commands`]: the commands of the binary.
#![forbid(unsafe_code)]

/// Prints a line to stdout. Ignores a closed pipe, as in `tutord doctor | head -1`.
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
