//! Test support: servers, clients, responses, fixtures, and checks that hold for many routes.

pub(crate) mod builder;
pub(crate) mod checks;
pub(crate) mod client;
pub(crate) mod database;
pub(crate) mod event_stream;
pub(crate) mod fixtures;
pub(crate) mod mailbox;
pub(crate) mod openapi;
pub(crate) mod process;
pub(crate) mod response;
pub(crate) mod test_app;
pub(crate) mod wait;

pub(crate) use client::TestClient;
pub(crate) use response::{TestResponse, fetch};
pub(crate) use test_app::TestApp;
