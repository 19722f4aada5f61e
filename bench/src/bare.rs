//! The limit of a handler: axum, and bytes that are there already.

use std::io::{Read as _, Write as _};
use std::process::Stdio;

use anyhow::Context as _;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::any;
use tokio::net::TcpListener;

use crate::system::{Node, own_command};

/// Serves standard input at `/`, and at any other path to whom is told that this is a model; prints the address.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let mut body = Vec::new();
    std::io::stdin().read_to_end(&mut body)?;
    let body = axum::body::Bytes::from(body);
    let handler = move || {
        let body = body.clone();
        async move { ([(CONTENT_TYPE, "application/json")], body) }
    };
    let router = Router::new().route("/", any(handler.clone())).fallback(handler);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    Ok(axum::serve(listener, router).await?)
}

/// A process that serves these bytes.
pub(crate) fn start(body: &[u8]) -> anyhow::Result<Node> {
    let mut process = own_command(&["bare"])?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    process.stdin.take().context("standard input")?.write_all(body)?;
    Node::by_first_line(process)
}
