//! The HTTP layer of all routes: middleware, extractors, limits and the OpenAPI document.

pub mod admission;
pub mod aliases;
pub mod answers;
pub mod body;
pub mod bounded;
pub mod budgets;
pub mod client_ip;
mod clock;
pub mod connections;
mod encoding;
mod etag;
mod head_limits;
pub mod json;
pub mod middleware;
pub mod openapi;
pub mod pagination;
pub mod path;
pub mod query;
pub mod rate_limit;
pub mod request_id;
mod route;
mod strict;
pub(crate) mod text;
pub(crate) mod timed_io;
mod trace_context;
pub mod validation;
