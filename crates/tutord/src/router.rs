//! The router of all routes.

use axum::Router;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;

use crate::http::{middleware, openapi};
use crate::state::AppState;
use crate::{admin, auth, chat, dashboard, exercises, progress, telemetry, users};

/// Returns the router of all routes, with the shared layers. The `further` routes are not part of the API.
pub fn router(state: &AppState, further: Router) -> Router {
    let users = || {
        let progress: OpenApiRouter = progress::own_achievements().with_state(state.progress.clone());
        users::router().with_state(state.users.clone()).merge(progress)
    };
    let api = OpenApiRouter::with_openapi(openapi::Description::openapi())
        .nest("/api/auth", auth::router().with_state(state.auth.clone()))
        .nest("/api/users", users())
        .nest("/api/v1/users", users())
        .nest("/api/chat", chat::router().with_state(state.chat.clone()))
        .nest("/api/exercises", exercises::router().with_state(state.exercises.clone()))
        .nest("/api/progress", progress::router().with_state(state.progress.clone()))
        .nest("/api", progress::aliases().with_state(state.progress.clone()))
        .nest("/api/admin", admin::router().with_state(state.admin.clone()))
        .nest("/api", telemetry::health::router().with_state(state.telemetry.clone()))
        .merge(telemetry::metrics_router().with_state(state.telemetry.clone()));
    let (router, description) = api.split_for_parts();
    let router = router
        .merge(telemetry::probes().with_state(state.telemetry.clone()))
        .merge(auth::pages().with_state(state.auth.clone()))
        .merge(dashboard::router(&state.dashboard))
        .merge(openapi::router(&description, &state.routes))
        .merge(further);
    middleware::wrap(router, &state.http, state.routes.clone())
}
