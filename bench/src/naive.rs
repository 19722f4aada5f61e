//! The way that tutord is measured against: what is most easily written, and that form made better by one statement,
//! over the same rows.
//!
//! No statement looks a session up: the token is the student's number. Statements are prepared once, rows become
//! structs and those become JSON, so that nothing but the way of asking is slow.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_postgres::{Client, NoTls, Row, Statement};

use crate::system::{Node, own_command};

const CONVERSATIONS: &str = "SELECT id, title, created_at FROM conversations WHERE user_id = $1 AND deleted_at IS NULL \
     ORDER BY last_message_at DESC LIMIT $2";
/// LoadRequest for each conversation of a list.
const NEWEST: &str =
    "SELECT count(*), (array_agg(content ORDER BY created_at DESC))[1] FROM messages WHERE conversation_id = $1";
/// The list, its counts and newest messages in one, and no less read: all messages are grouped first.
const AGGREGATED: &str = "SELECT c.id, c.title, c.created_at, coalesce(m.number, 0), n.content FROM conversations c \
     LEFT JOIN (SELECT conversation_id, count(*) AS number, max(created_at) AS newest FROM messages GROUP BY conversation_id) m \
     ON m.conversation_id = c.id \
     LEFT JOIN messages n ON n.conversation_id = c.id AND n.position = m.number \
     WHERE c.user_id = $1 AND c.deleted_at IS NULL ORDER BY m.newest DESC NULLS LAST LIMIT $2";
const TOTAL: &str = "SELECT count(*) FROM conversations WHERE user_id = $1 AND deleted_at IS NULL";
const CONVERSATION: &str =
    "SELECT id, title, created_at FROM conversations WHERE id = $1 AND user_id = $2 AND deleted_at IS NULL";
const MESSAGES: &str =
    "SELECT id, role, content, created_at FROM messages WHERE conversation_id = $1 ORDER BY created_at";
const MESSAGES_COUNT: &str = "SELECT count(*) FROM messages WHERE conversation_id = $1";
const MESSAGES_PAGE: &str = "SELECT id, role, content, created_at FROM messages WHERE conversation_id = $1 ORDER BY created_at LIMIT 50 OFFSET $2";
const USER: &str = "SELECT id, email, name, bio, skill_level, created_at FROM users WHERE id = $1";
const EXERCISE: &str = "SELECT id, title, description, instructions, topics, created_at FROM exercises WHERE id = $1";

/// One connection to the database, and what was prepared on it.
struct Database {
    client: Client,
    conversations: Statement,
    newest: Statement,
    aggregated: Statement,
    total: Statement,
    conversation: Statement,
    messages: Statement,
    messages_count: Statement,
    messages_page: Statement,
    user: Statement,
    exercise: Statement,
}

type Answer<T> = Result<([(&'static str, String); 1], Json<T>), StatusCode>;

/// Answers, and tells how many statements that took.
const fn counted<T>(statements: usize) -> impl FnOnce(T) -> ([(&'static str, String); 1], Json<T>) {
    move |body| ([("server-timing", format!("db_queries;desc=\"{statements}\""))], Json(body))
}

#[derive(Serialize)]
struct Conversation {
    id: i64,
    title: String,
    created_at: u64,
    message_count: i64,
    last_message: Option<String>,
}

#[derive(Serialize)]
struct Conversations {
    conversations: Vec<Conversation>,
    total: Option<i64>,
}

#[derive(Serialize)]
struct Message {
    id: i64,
    role: String,
    content: String,
    created_at: u64,
}

#[derive(Serialize)]
struct Messages {
    id: i64,
    title: String,
    messages: Vec<Message>,
    total: Option<i64>,
}

#[derive(Deserialize)]
struct Page {
    limit: Option<i64>,
    offset: Option<i64>,
}

/// Serves the database at `url`; prints the address.
pub(crate) async fn serve(url: &str) -> anyhow::Result<()> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    let database = Database {
        conversations: client.prepare(CONVERSATIONS).await?,
        newest: client.prepare(NEWEST).await?,
        aggregated: client.prepare(AGGREGATED).await?,
        total: client.prepare(TOTAL).await?,
        conversation: client.prepare(CONVERSATION).await?,
        messages: client.prepare(MESSAGES).await?,
        messages_count: client.prepare(MESSAGES_COUNT).await?,
        messages_page: client.prepare(MESSAGES_PAGE).await?,
        user: client.prepare(USER).await?,
        exercise: client.prepare(EXERCISE).await?,
        client,
    };
    let router = Router::new()
        .route("/naive/conversations", get(list))
        .route("/better/conversations", get(better_list))
        .route("/naive/conversations/{id}", get(all_messages))
        .route("/better/conversations/{id}", get(better_messages))
        .route("/naive/users/me", get(user))
        .route("/naive/exercises/{id}", get(exercise))
        .with_state(Arc::new(database));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    Ok(axum::serve(listener, router).await?)
}

/// A statement for the list, and one for each of its rows.
async fn list(
    State(database): State<Arc<Database>>,
    headers: HeaderMap,
    Query(page): Query<Page>,
) -> Answer<Conversations> {
    let mut conversations = Vec::new();
    let limit = page.limit.unwrap_or(20);
    for row in database.client.query(&database.conversations, &[&student(&headers)?, &limit]).await.map_err(failed)? {
        let id: i64 = row.get(0);
        let newest = database.client.query_one(&database.newest, &[&id]).await.map_err(failed)?;
        conversations.push(Conversation {
            id,
            title: row.get(1),
            created_at: time(&row, 2),
            message_count: newest.get(0),
            last_message: newest.get(1),
        });
    }
    Ok(counted(1 + conversations.len())(Conversations { conversations, total: None }))
}

/// Two statements, of which one groups all messages there are.
async fn better_list(
    State(database): State<Arc<Database>>,
    headers: HeaderMap,
    Query(page): Query<Page>,
) -> Answer<Conversations> {
    let student = student(&headers)?;
    let total = database.client.query_one(&database.total, &[&student]).await.map_err(failed)?.get(0);
    let limit = page.limit.unwrap_or(20);
    let rows = database.client.query(&database.aggregated, &[&student, &limit]).await.map_err(failed)?;
    let conversation = |row: &Row| Conversation {
        id: row.get(0),
        title: row.get(1),
        created_at: time(row, 2),
        message_count: row.get(3),
        last_message: row.get(4),
    };
    Ok(counted(2)(Conversations { conversations: rows.iter().map(conversation).collect(), total: Some(total) }))
}

/// The conversation with all it has.
async fn all_messages(
    State(database): State<Arc<Database>>,
    headers: HeaderMap,
    Path(id): Path<i64>,
) -> Answer<Messages> {
    let title = database.title(id, &headers).await?;
    let rows = database.client.query(&database.messages, &[&id]).await.map_err(failed)?;
    Ok(counted(2)(Messages { id, title, messages: rows.iter().map(message).collect(), total: None }))
}

/// A page of the conversation: the database reads what precedes the page, and counts the rest.
async fn better_messages(
    State(database): State<Arc<Database>>,
    headers: HeaderMap,
    Path(id): Path<i64>,
    Query(page): Query<Page>,
) -> Answer<Messages> {
    let title = database.title(id, &headers).await?;
    let total = database.client.query_one(&database.messages_count, &[&id]).await.map_err(failed)?.get(0);
    let offset = page.offset.unwrap_or(0);
    let rows = database.client.query(&database.messages_page, &[&id, &offset]).await.map_err(failed)?;
    Ok(counted(3)(Messages { id, title, messages: rows.iter().map(message).collect(), total: Some(total) }))
}

impl Database {
    async fn title(&self, id: i64, headers: &HeaderMap) -> Result<String, StatusCode> {
        let row = self.client.query_opt(&self.conversation, &[&id, &student(headers)?]).await.map_err(failed)?;
        Ok(row.ok_or(StatusCode::NOT_FOUND)?.get(1))
    }
}

async fn user(
    State(database): State<Arc<Database>>,
    headers: HeaderMap,
) -> Answer<Vec<(&'static str, Option<String>)>> {
    let row = database.client.query_one(&database.user, &[&student(&headers)?]).await.map_err(failed)?;
    Ok(counted(1)(texts(&row, &["email", "name", "bio", "skill_level"])))
}

async fn exercise(
    State(database): State<Arc<Database>>,
    Path(id): Path<i64>,
) -> Answer<Vec<(&'static str, Option<String>)>> {
    let row = database.client.query_one(&database.exercise, &[&id]).await.map_err(failed)?;
    Ok(counted(1)(texts(&row, &["title", "description", "instructions", "topics"])))
}

fn texts(row: &Row, names: &[&'static str]) -> Vec<(&'static str, Option<String>)> {
    names.iter().map(|&name| (name, row.get(name))).collect()
}

fn message(row: &Row) -> Message {
    Message { id: row.get(0), role: row.get(1), content: row.get(2), created_at: time(row, 3) }
}

/// Seconds since 1970.
fn time(row: &Row, column: usize) -> u64 {
    row.get::<_, SystemTime>(column).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn student(headers: &HeaderMap) -> Result<i64, StatusCode> {
    let token =
        headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Bearer ")?.parse().ok());
    token.ok_or(StatusCode::UNAUTHORIZED)
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function for map_err")]
fn failed(error: tokio_postgres::Error) -> StatusCode {
    eprintln!("{error:?}");
    StatusCode::INTERNAL_SERVER_ERROR
}

/// A process that serves the database at `url`.
pub(crate) fn start(url: &str) -> anyhow::Result<Node> {
    Node::by_first_line(own_command(&["naive", url])?.stdout(Stdio::piped()).spawn()?)
}
