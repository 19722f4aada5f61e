//! The router of all routes.

use axum::Router;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;

use crate::http::openapi::mount;
use crate::http::{middleware, openapi};
use crate::state::AppState;
use crate::{admin, auth, chat, dashboard, exercises, progress, telemetry, users};

/// Returns the router of all routes, with the shared layers. The `further` routes are not part of the API.
pub fn router(state: &AppState, further: Router) -> Router {
    let api = OpenApiRouter::with_openapi(openapi::Description::openapi());
    let api = mount(api, "/api/auth", auth::router(), &state.auth);
    let api = ["/api/users", "/api/v1/users"].into_iter().fold(api, |api, prefix| {
        let api = mount(api, prefix, users::router(), &state.users);
        mount(api, prefix, progress::own_achievements(), &state.progress)
    });
    let api = mount(api, "/api/chat", chat::router(), &state.chat);
    let api = mount(api, "/api/exercises", exercises::router(), &state.exercises);
    let api = mount(api, "/api/progress", progress::router(), &state.progress);
    let api = mount(api, "/api", progress::aliases(), &state.progress);
    let api = mount(api, "/api/admin", admin::router(), &state.admin);
    let api = mount(api, "/api", telemetry::health::router(), &state.telemetry);
    let api = mount(api, "", telemetry::metrics_router(), &state.telemetry);
    let (router, description) = api.split_for_parts();
    let router = router
        .merge(telemetry::probes().with_state(state.telemetry.clone()))
        .merge(auth::pages().with_state(state.auth.clone()))
        .merge(dashboard::router(&state.dashboard))
        .merge(openapi::router(&description, &state.routes))
        .merge(further);
    middleware::wrap(router, &state.http, state.routes.clone())
}
