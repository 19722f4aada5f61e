//! A service with an N+1 query, and the dashboard that shows it.
//!
//! `cargo run -p querywatch-axum --example minimal`, then open <http://127.0.0.1:3000/queries> and request
//! <http://127.0.0.1:3000/posts>. `/posts/joined` is the remedy.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use querywatch_axum::{Dashboard, Requests, Watch, WatchLayer};

mod schema {
    diesel::table! {
        posts (id) {
            id -> Integer,
            user_id -> Integer,
            title -> Text,
        }
    }
    diesel::table! {
        users (id) {
            id -> Integer,
            name -> Text,
        }
    }
    diesel::joinable!(posts -> users (user_id));
    diesel::allow_tables_to_appear_in_same_query!(posts, users);
}
use schema::{posts, users};

/// A service with more than one connection has a pool here.
type Database = Arc<Mutex<SqliteConnection>>;

/// The title and the author of each post.
type Posts = Result<Json<Vec<(String, String)>>, StatusCode>;

/// Loads the author of each post with a statement of its own.
async fn posts(State(conn): State<Database>) -> Posts {
    let mut conn = conn.lock().unwrap_or_else(PoisonError::into_inner);
    let mut load = || {
        let rows = posts::table.select((posts::title, posts::user_id)).load::<(String, i32)>(&mut *conn)?;
        let author =
            |(title, user): (String, i32)| Ok((title, users::table.find(user).select(users::name).first(&mut *conn)?));
        rows.into_iter().map(author).collect::<QueryResult<_>>()
    };
    load().map(Json).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

/// Loads posts with their authors in one statement.
async fn posts_joined(State(conn): State<Database>) -> Posts {
    let mut conn = conn.lock().unwrap_or_else(PoisonError::into_inner);
    let rows = posts::table.inner_join(users::table).select((posts::title, users::name)).load(&mut *conn);
    rows.map(Json).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let watch = Watch::builder().build();
    let mut conn = SqliteConnection::establish(":memory:")?;
    conn.batch_execute(
        "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
         CREATE TABLE posts (id INTEGER PRIMARY KEY, user_id INTEGER NOT NULL REFERENCES users, title TEXT NOT NULL);
         INSERT INTO users VALUES (1, 'Ada'), (2, 'Grace'), (3, 'Joan');
         INSERT INTO posts (user_id, title) VALUES (1, 'Notes'), (2, 'Compilers'), (3, 'Joins'), (1, 'Loops'),
             (2, 'Bugs'), (3, 'Keys'), (1, 'Punched cards'), (2, 'Nanoseconds');",
    )?;
    conn.set_instrumentation(watch.instrumentation());

    let requests = Requests::default();
    let app = Router::new()
        .route("/posts", get(posts))
        .route("/posts/joined", get(posts_joined))
        .with_state(Arc::new(Mutex::new(conn)))
        .nest("/queries", Dashboard::new(&watch).requests(&requests).router())
        .layer(WatchLayer::new(&watch).record(&requests).default_budget(3).server_timing(true));

    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("dashboard: http://127.0.0.1:3000/queries");
    println!("a request with an N+1 query: http://127.0.0.1:3000/posts");
    axum::serve(listener, app).await?;
    Ok(())
}
