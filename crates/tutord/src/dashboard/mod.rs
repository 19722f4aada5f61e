//! The dashboard for admins at `/ops`.
//!
//! Pages render counters of the process. Only `server`, `replicas` and `mail` query the database. A view is rendered as
//! a page (`layout`), and its parts are sent to open pages (`live`), so that both show the same content. Pages are
//! complete without JavaScript. With JavaScript they update themselves and draw charts.

mod access;
mod assets;
mod cache;
mod chart;
mod findings;
mod format;
mod layout;
mod live;
mod llm;
mod login;
mod mail;
mod overview;
mod page;
mod pool;
mod queries;
mod replicas;
mod server;
mod shape;
mod slow;
mod state;
mod view;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::http::query::Query;
use access::Viewer;
use page::{Page, PageRequest};
use queries::TableOrder;

pub use live::LivePages;
pub use state::{Dashboard, DashboardSettings, DashboardState};

/// Returns the routes of the dashboard.
pub fn router() -> Router<DashboardState> {
    let plain = |page: Page| {
        get(async move |State(state): State<DashboardState>, _: Viewer| {
            show(&state, &PageRequest { page, shape: None, ordering: TableOrder::default() }).await
        })
    };
    let mut router = Router::new()
        .route("/ops/queries", get(queries))
        .route("/ops/queries/{id}", get(shape))
        .route("/ops/live", get(live::live))
        .route("/ops/login", get(login::login))
        .route("/ops/assets/{name}", get(assets::asset));
    for page in Page::ALL.into_iter().filter(|page| *page != Page::Queries) {
        router = router.route(page.path(), plain(page));
    }
    router
}

async fn queries(State(state): State<DashboardState>, _: Viewer, Query(ordering): Query<TableOrder>) -> Response {
    show(&state, &PageRequest { page: Page::Queries, shape: None, ordering }).await
}

async fn shape(State(state): State<DashboardState>, _: Viewer, Path(id): Path<String>) -> Response {
    show(&state, &PageRequest { page: Page::Queries, shape: Some(id), ordering: TableOrder::default() }).await
}

async fn show(state: &DashboardState, subject: &PageRequest) -> Response {
    match subject.view(state).await {
        Some(view) => layout::page(subject, &view).into_response(),
        None => (StatusCode::NOT_FOUND, layout::message("Not found", "No statement of this shape is recorded.", true))
            .into_response(),
    }
}
