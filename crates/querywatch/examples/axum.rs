//! An axum server with a scope for each request, a budget for a route, and the shapes as JSON.
//!
//! `cargo run -p querywatch --example axum`, then `curl -i localhost:3000/items` and `curl localhost:3000/shapes`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use querywatch::{Finding, Scope, ShapeSnapshot, Sink, Watch};

mod schema {
    diesel::table! {
        items (id) {
            id -> Integer,
            name -> Text,
        }
    }
}
use schema::items;

#[derive(Clone)]
struct App {
    watch: Watch,
    // A real server has a pool, which sets the instrumentation of each new connection.
    conn: Arc<Mutex<SqliteConnection>>,
}

/// Prints findings. A real server updates a metric.
struct Metrics;

impl Sink for Metrics {
    fn on_finding(&self, finding: &Finding) {
        println!("finding: {finding}");
    }
}

/// Runs a request in a scope. The route is the matched pattern, because the number of paths is unbounded.
async fn run_in_scope(State(app): State<App>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("(no route)", MatchedPath::as_str);
    let mut scope = Scope::new(&app.watch, &format!("{} {path}", request.method()));
    if let Some(id) = request.headers().get("x-request-id").and_then(|id| id.to_str().ok()) {
        scope = scope.request_id(id);
    }
    let (mut response, report) = scope.run(next.run(request)).await;
    let milliseconds = report.db_time.as_secs_f64() * 1_000.0;
    let timing = format!("db;dur={milliseconds:.3}, db_queries;desc=\"{}\"", report.statements);
    if let Ok(timing) = HeaderValue::from_str(&timing) {
        response.headers_mut().insert("server-timing", timing);
    }
    response
}

async fn names(State(app): State<App>) -> Result<Json<Vec<String>>, StatusCode> {
    querywatch::set_budget(2);
    let mut conn = app.conn.lock().unwrap_or_else(PoisonError::into_inner);
    let mut load = || {
        let ids = items::table.select(items::id).load::<i32>(&mut *conn)?;
        // Issues one query for each row. Compare it with `items::table.select(items::name).load(&mut *conn)`.
        ids.into_iter()
            .map(|id| items::table.find(id).select(items::name).first(&mut *conn))
            .collect::<QueryResult<_>>()
    };
    load().map(Json).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

async fn shapes(State(app): State<App>) -> Json<Vec<ShapeSnapshot>> {
    Json(app.watch.shapes())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    let watch = Watch::builder().slow_threshold(Duration::from_millis(100)).sink(Metrics).build();
    let mut conn = SqliteConnection::establish(":memory:")?;
    conn.batch_execute(
        "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20) INSERT INTO items SELECT i, 'item ' || i FROM n",
    )?;
    conn.set_instrumentation(watch.instrumentation());
    let app = App { watch, conn: Arc::new(Mutex::new(conn)) };
    let router = Router::new()
        .route("/items", get(names))
        .route("/shapes", get(shapes))
        // A `route_layer` runs after routing, so that the matched path is available.
        .route_layer(from_fn_with_state(app.clone(), run_in_scope))
        .with_state(app);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("http://{}/items", listener.local_addr()?);
    axum::serve(listener, router).await?;
    Ok(())
}
