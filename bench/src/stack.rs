//! The limit of a server with a database: axum and tokio-postgres, and a request's statements.
//!
//! It looks up no session, writes no log and caches nothing. It reads each value of each row and writes it as JSON; the
//! bytes of its response are those of tutord.

use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::BytesMut;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio_postgres::types::{Format, FromSql, IsNull, ToSql, Type};
use tokio_postgres::{Client, NoTls, Statement};

use crate::client::CONNECTIONS;
use crate::proxy::IssuedStatement;
use crate::system::{Node, own_command};

type AnyError = Box<dyn std::error::Error + Sync + Send>;

/// What the stack serves.
#[derive(Serialize, Deserialize)]
struct Served {
    url: String,
    /// Texts and values.
    statements: Vec<(String, Vec<TextValue>)>,
    body: String,
}

/// A value in PostgreSQL's text format, of the type that the statement has there.
#[derive(Debug, Serialize, Deserialize)]
struct TextValue(Option<String>);

impl ToSql for TextValue {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, AnyError> {
        Ok(match &self.0 {
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                IsNull::No
            }
            None => IsNull::Yes,
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, AnyError> {
        self.to_sql(kind, out)
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }
}

/// A value of a row.
#[derive(Serialize)]
#[serde(untagged)]
enum Value<'a> {
    Number(i64),
    Text(&'a str),
    Boolean(bool),
    /// The number of bytes of a value of another type.
    Other(usize),
}

impl<'a> FromSql<'a> for Value<'a> {
    fn from_sql(kind: &Type, bytes: &'a [u8]) -> Result<Self, AnyError> {
        Ok(match *kind {
            Type::INT8 | Type::INT4 | Type::INT2 | Type::TIMESTAMPTZ | Type::DATE => {
                Self::Number(bytes.iter().fold(0, |number, &byte| number << 8 | i64::from(byte)))
            }
            Type::TEXT | Type::VARCHAR => Self::Text(std::str::from_utf8(bytes)?),
            Type::BOOL => Self::Boolean(bytes == [1]),
            _ => Self::Other(bytes.len()),
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A connection, and what is prepared on it.
struct Connection {
    client: Client,
    statements: Vec<Statement>,
}

struct Stack {
    connections: Vec<Connection>,
    next: AtomicUsize,
    values: Vec<Vec<TextValue>>,
    body: Bytes,
}

/// Returns a request's statements but the one that looks the token up, unless it is the only one.
pub(crate) fn without_identity(issued: &[IssuedStatement], token: &str) -> Vec<IssuedStatement> {
    let hash =
        Sha256::digest(token.as_bytes()).iter().fold("\\x".to_owned(), |text, byte| text + &format!("{byte:02x}"));
    let looks_up = |statement: &IssuedStatement| statement.values.iter().flatten().any(|value| *value == hash);
    let rest: Vec<_> = issued.iter().filter(|statement| !looks_up(statement)).cloned().collect();
    if rest.is_empty() { issued.to_vec() } else { rest }
}

/// A process that answers every `GET` with these bytes, after these statements in one round trip.
pub(crate) fn start(url: &str, statements: &[IssuedStatement], body: &[u8]) -> anyhow::Result<Node> {
    let values = |statement: &IssuedStatement| statement.values.iter().cloned().map(TextValue).collect();
    let served = Served {
        url: url.to_owned(),
        statements: statements.iter().map(|statement| (statement.sql.clone(), values(statement))).collect(),
        body: String::from_utf8(body.to_vec())?,
    };
    let mut process = own_command(&["stack"])?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    process.stdin.take().context("standard input")?.write_all(&serde_json::to_vec(&served)?)?;
    Node::by_first_line(process)
}

/// Serves what standard input describes; prints the address.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let Served { url, statements, body } = serde_json::from_str(&text)?;
    let mut connections = Vec::new();
    // As many as tutord and pgbench have.
    for _ in 0..CONNECTIONS {
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
        tokio::spawn(connection);
        let prepared = try_join_all(statements.iter().map(|(sql, _)| client.prepare(sql))).await?;
        connections.push(Connection { client, statements: prepared });
    }
    let values = statements.into_iter().map(|(_, values)| values).collect();
    let stack = Stack { connections, next: AtomicUsize::new(0), values, body: body.into() };
    let router = Router::new().fallback(get(answer)).with_state(Arc::new(stack));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    Ok(axum::serve(listener, router).await?)
}

async fn answer(State(stack): State<Arc<Stack>>) -> Result<impl IntoResponse, StatusCode> {
    let number = stack.next.fetch_add(1, Ordering::Relaxed) % stack.connections.len();
    let Connection { client, statements } = &stack.connections[number];
    // Polled together, they are sent together.
    let sent = statements.iter().zip(&stack.values).map(|(statement, values)| async move {
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as _).collect();
        client.query(statement, &values).await
    });
    let results = try_join_all(sent).await.map_err(failed)?;
    let mut written = Vec::with_capacity(stack.body.len());
    for row in results.iter().flatten() {
        let values = (0..row.len()).map(|column| row.try_get::<_, Option<Value<'_>>>(column));
        let values: Vec<_> = values.collect::<Result<_, _>>().map_err(failed)?;
        serde_json::to_writer(&mut written, &values).map_err(failed)?;
    }
    std::hint::black_box(&written);
    Ok(([(CONTENT_TYPE, "application/json")], stack.body.clone()))
}

fn failed(error: impl std::fmt::Debug) -> StatusCode {
    eprintln!("{error:?}");
    StatusCode::INTERNAL_SERVER_ERROR
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stack_looks_up_no_token() {
        let statement = |sql: &str, values: &[&str]| IssuedStatement {
            sql: sql.to_owned(),
            values: values.iter().map(|value| Some((*value).to_owned())).collect(),
            pipelined: false,
        };
        // SHA-256 of "abc".
        let hash = r"\xba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let (identity, list) = (statement("SELECT 1 WHERE $1", &[hash]), statement("SELECT 2 WHERE $1", &["7"]));
        let issued = [identity.clone(), list.clone()];
        assert_eq!(without_identity(&issued, "abc"), [list]);
        assert_eq!(without_identity(&issued, "another"), issued);
        assert_eq!(without_identity(&issued[..1], "abc"), [identity]);
    }
}
