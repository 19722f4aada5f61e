//! A service with an N+1 query, as in the example.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::sql_types::Integer;
use querywatch_axum::{Dashboard, Requests, Watch, WatchLayer};

/// A service, and what watches it.
pub(crate) struct Service {
    pub(crate) watch: Watch,
    pub(crate) requests: Requests,
    conn: Arc<Mutex<SqliteConnection>>,
}

#[derive(QueryableByName)]
pub(crate) struct Number {
    #[diesel(sql_type = Integer)]
    #[expect(dead_code, reason = "tests count rows")]
    n: i32,
}

type Shared = Arc<Mutex<SqliteConnection>>;

/// Issues a statement for each of `count` users.
async fn posts(State(conn): State<Shared>, Path(count): Path<i32>) -> Result<String, StatusCode> {
    let mut conn = conn.lock().unwrap_or_else(PoisonError::into_inner);
    let mut rows = 0;
    for user in 0..count {
        let sql = format!("SELECT id AS n FROM posts WHERE user_id = {user}");
        let found = diesel::sql_query(sql).load::<Number>(&mut *conn);
        rows += found.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?.len();
    }
    Ok(rows.to_string())
}

/// Issues a statement whose text contains markup.
async fn markup(State(conn): State<Shared>) -> Result<(), StatusCode> {
    let mut conn = conn.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..6 {
        let sql = r#"SELECT 1 AS n FROM posts AS "<script>alert(1)</script>" WHERE 'secret' <> ''"#;
        diesel::sql_query(sql).load::<Number>(&mut *conn).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    }
    Ok(())
}

impl Service {
    pub(crate) fn new() -> Self {
        let watch = Watch::builder().slow_threshold(std::time::Duration::ZERO).build();
        let mut conn = SqliteConnection::establish(":memory:").unwrap();
        conn.batch_execute("CREATE TABLE posts (id INTEGER PRIMARY KEY, user_id INTEGER NOT NULL)").unwrap();
        conn.set_instrumentation(watch.instrumentation());
        Self { watch, requests: Requests::default(), conn: Arc::new(Mutex::new(conn)) }
    }

    /// Returns the routes of the service without the layer.
    pub(crate) fn routes(&self) -> Router {
        Router::new()
            .route("/users/{count}/posts", get(posts))
            .route("/markup/{<b>id}", get(markup))
            .route("/idle", get(async || "no statement"))
            .with_state(Arc::clone(&self.conn))
    }

    pub(crate) fn layer(&self) -> WatchLayer {
        WatchLayer::new(&self.watch).record(&self.requests)
    }

    pub(crate) fn dashboard(&self) -> Dashboard {
        Dashboard::new(&self.watch).requests(&self.requests)
    }

    /// Returns the service with its dashboard at a prefix.
    pub(crate) fn app(&self, prefix: &str) -> Router {
        let dashboard = self.dashboard().router();
        let routes = self.routes();
        let all = if prefix.is_empty() { routes.merge(dashboard) } else { routes.nest(prefix, dashboard) };
        all.layer(self.layer())
    }
}
