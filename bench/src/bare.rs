//! The limit of a handler: axum, and bytes that are there already.

use std::io::Read as _;
use std::process::{Child, Stdio};

use anyhow::Context as _;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::system::first_line;

/// Serves standard input at `/`; prints the address.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let mut body = Vec::new();
    std::io::stdin().read_to_end(&mut body)?;
    let body = axum::body::Bytes::from(body);
    let handler = move || {
        let body = body.clone();
        async move { ([(CONTENT_TYPE, "application/json")], body) }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    Ok(axum::serve(listener, Router::new().route("/", get(handler))).await?)
}

/// A process that serves these bytes; its address. Ends when dropped.
pub(crate) struct Bare {
    process: Child,
    pub(crate) address: String,
}

impl Bare {
    pub(crate) fn start(body: &[u8]) -> anyhow::Result<Self> {
        use std::io::Write as _;
        let mut process = std::process::Command::new(std::env::current_exe()?)
            .arg("bare")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        process.stdin.take().context("standard input")?.write_all(body)?;
        let address = first_line(&mut process)?;
        Ok(Self { process, address })
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
