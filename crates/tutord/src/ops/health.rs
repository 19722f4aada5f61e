//! Whether this process lives, and whether it can serve.

use std::time::Instant;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;

/// `/api/health…`
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(live)).routes(routes!(ready))
}

/// Whether the process answers.
#[utoipa::path(get, path = "/health", tag = "health", security(()), responses((status = 200, body = Object)))]
pub async fn health() -> axum::Json<Value> {
    axum::Json(json!({"status": "healthy", "version": env!("CARGO_PKG_VERSION")}))
}

/// Whether the process should go on living.
#[utoipa::path(get, path = "/health/live", tag = "health", security(()), responses((status = 200, body = Object)))]
pub async fn live() -> axum::Json<Value> {
    axum::Json(json!({"status": "alive"}))
}

/// Whether the process can serve, and what keeps it from it. Redis is no reason not to.
#[utoipa::path(get, path = "/health/ready", tag = "health", security(()), responses((status = 200, body = Object),
    (status = 503, body = Object, description = "The process can't serve; `checks` says why.")))]
pub async fn ready(State(app): State<App>) -> Response {
    let (database, migrations, cache) = tokio::join!(database(&app), migrations(&app), cache(&app));
    let ready =
        !app.shutdown.is_cancelled() && [&database, &migrations].into_iter().all(|check| check["status"] == "ok");
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "status": if ready { "ready" } else { "not_ready" },
        "checks": {"database": database, "cache": cache, "migrations": migrations},
    });
    (status, axum::Json(body)).into_response()
}

async fn database(app: &App) -> Value {
    let began = Instant::now();
    match app.store.ping().await {
        Ok(_) => json!({"status": "ok", "latency_ms": rounded(began)}),
        Err(error) => {
            tracing::error!(%error, "not ready: the database does not answer");
            json!({"status": "error", "message": "the database does not answer"})
        }
    }
}

async fn migrations(app: &App) -> Value {
    match app.store.pending_migrations().await {
        Ok(pending) if pending.is_empty() => json!({"status": "ok"}),
        Ok(pending) => json!({"status": "pending", "pending": pending}),
        Err(_) => json!({"status": "error", "message": "the database does not answer"}),
    }
}

async fn cache(app: &App) -> Value {
    if app.cache.link().is_none() {
        return json!({"status": "disabled"});
    }
    let began = Instant::now();
    match app.cache.redis().await {
        Some(_) => json!({"status": "ok", "latency_ms": rounded(began)}),
        None => {
            tracing::warn!("degraded: Redis does not answer");
            json!({"status": "degraded", "message": "Redis does not answer"})
        }
    }
}

/// Milliseconds since `began`, to a microsecond.
fn rounded(began: Instant) -> f64 {
    (began.elapsed().as_secs_f64() * 1e6).round() / 1e3
}
