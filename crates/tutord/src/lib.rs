//! tutord, the backend of an AI coding tutor.
//!
//! A request passes through `http` (middleware, extractors), a feature's `routes`, its rules, the cache, and the store.
//!
//! The modules, from the top: a module imports only from those below it. A test checks this; `docs/ARCHITECTURE.md` has
//! the list.
//!
//! - [`cli`]: the commands of the binary;
//! - [`server`], `router`, [`state`] and `mounts` know all features: they fill the state of each, mount its routes, and
//!   serve them;
//! - [`config`]: every flag and variable, composed of the settings of the modules below;
//! - [`dashboard`], [`admin`]: pages and routes for operators;
//! - [`chat`], [`exercises`], [`progress`], [`users`], [`auth`]: the features;
//! - [`telemetry`]: health checks, metrics, traces and plans of slow statements;
//! - [`cache`]: the cached store that the features use;
//! - [`mail`], [`llm`]: the services tutord calls; [`background`]: the background tasks;
//! - [`http`]: the middleware and extractors that all routes share; [`values`]: values of settings.
#![forbid(unsafe_code)]

/// Prints a line to stdout. Ignores a closed pipe, as in `tutord doctor | head -1`.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout().lock(), $($text)*);
    }};
}

pub mod admin;
pub mod auth;
pub mod background;
pub mod cache;
pub mod chat;
pub mod cli;
pub mod config;
pub mod dashboard;
pub mod exercises;
pub mod http;
pub mod llm;
pub mod mail;
pub mod mounts;
pub mod progress;
#[cfg(test)]
mod rooms;
pub mod router;
pub mod server;
pub mod state;
pub mod telemetry;
pub mod users;
pub mod values;
