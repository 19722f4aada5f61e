//! Liveness and readiness checks.

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use readthrough::RedisFault;
use serde_json::{Value, json};
use tutord_core::{Error, Refusal};
use utoipa_axum::routes;

use crate::http::openapi::Routes;

use super::state::TelemetryState;

/// Returns the routes of `/api/health`.
pub fn router() -> Routes<TelemetryState> {
    vec![routes!(health), routes!(live), routes!(ready)]
}

/// Returns the status and the version of the process.
#[utoipa::path(get, path = "/health", tag = "health", security(()), responses((status = 200, body = Object)))]
pub async fn health() -> axum::Json<Value> {
    axum::Json(json!({"status": "healthy", "version": env!("CARGO_PKG_VERSION")}))
}

/// Reports liveness.
#[utoipa::path(get, path = "/health/live", tag = "health", security(()), responses((status = 200, body = Object)))]
pub async fn live() -> axum::Json<Value> {
    axum::Json(json!({"status": "alive"}))
}

/// The readiness of the process, with the result of each check.
#[derive(Debug, Clone)]
pub struct Readiness {
    ready: bool,
    checks: Value,
}

/// The timeout of all database checks together. It is shorter than the time-outs of common load balancers.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Reports readiness, with the result of each check. Redis does not affect readiness. The checks run at most once a
/// second.
#[utoipa::path(get, path = "/health/ready", tag = "health", security(()), responses((status = 200, body = Object),
    (status = 503, body = Object, description = "The process can't serve requests; `checks` gives the reason.")))]
pub async fn ready(State(state): State<TelemetryState>) -> Response {
    let Readiness { ready, checks } = state.readiness.get_or_compute(check(&state)).await;
    let ready = ready && !state.shutdown.is_cancelled();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({"status": if ready { "ready" } else { "not_ready" }, "checks": checks});
    (status, axum::Json(body)).into_response()
}

async fn check(state: &TelemetryState) -> Readiness {
    let database = async {
        tokio::time::timeout(DATABASE_TIMEOUT, async { tokio::join!(database(state), schema(state)) })
            .await
            .unwrap_or_else(|_| {
                let late = unavailable(&Error::Timeout);
                (late.clone(), (late.clone(), late))
            })
    };
    let ((database, (migrations, catalogue)), cache) = tokio::join!(database, cache(state));
    let ready = [&database, &migrations].into_iter().all(|check| check["status"] == "ok");
    let checks = json!({"database": database, "migrations": migrations, "catalogue": catalogue, "cache": cache});
    if !ready {
        tracing::error!(%checks, "readiness check failed");
    }
    Readiness { ready, checks }
}

/// Checks that the database responds and accepts writes.
async fn database(state: &TelemetryState) -> Value {
    let began = Instant::now();
    if let Err(error) = state.operations.ping().await {
        return unavailable(&error);
    }
    let latency = rounded(began);
    match state.operations.try_write().await {
        // Without migrations there is no table to write to, which the check of the migrations reports.
        Ok(()) | Err(Error::Refused(Refusal::SchemaMismatch, _)) => json!({"status": "ok", "latency_ms": latency}),
        Err(error) => unavailable(&error),
    }
}

/// Checks that the schema matches this version, and that a catalogue is loaded.
async fn schema(state: &TelemetryState) -> (Value, Value) {
    let schema = match state.operations.schema().await {
        Ok(schema) => schema,
        Err(error) => return (unavailable(&error), unavailable(&error)),
    };
    let catalogue = match schema.catalogue() {
        Some(_) => json!({"status": "ok"}),
        None => json!({"status": "missing", "message": "no catalogue is loaded; run `tutord migrate`"}),
    };
    let migrations = match schema.check() {
        Err(error) => json!({"status": "incompatible", "message": error.to_string()}),
        Ok(()) if schema.pending.is_empty() => json!({"status": "ok"}),
        Ok(()) => json!({"status": "pending", "pending": schema.pending}),
    };
    (migrations, catalogue)
}

/// Returns the public part of an error: its kind, without the database's message.
fn unavailable(error: &Error) -> Value {
    match error.refusal() {
        Some(refusal) => json!({"status": "error", "cause": refusal.name(), "message": refusal.to_string()}),
        None if matches!(error, Error::Overloaded) => {
            json!({"status": "error", "cause": "overloaded", "message": error.to_string()})
        }
        None => json!({"status": "error", "cause": "unreachable", "message": "the database does not respond"}),
    }
}

async fn cache(state: &TelemetryState) -> Value {
    if state.cache.connection_stats().is_none() {
        return json!({"status": "disabled"});
    }
    let began = Instant::now();
    let answered = state.cache.redis_stats().await.is_some();
    let fault = state.cache.connection_stats().and_then(|link| link.fault);
    if answered && fault.is_none() {
        return json!({"status": "ok", "latency_ms": rounded(began)});
    }
    let fault = fault.unwrap_or(RedisFault::Unreachable);
    json!({"status": "degraded", "cause": fault, "message": fault.to_string()})
}

/// Returns the milliseconds since `began`, rounded to microseconds.
fn rounded(began: Instant) -> f64 {
    (began.elapsed().as_secs_f64() * 1e6).round() / 1e3
}
