//! The dashboard for admins at `/ops`.
//!
//! Pages render counters of the process. Only `server`, `replicas` and `mail` query the database. A view is rendered as
//! a page (`layout`), and its parts are sent to open pages (`live`), so that both show the same content. Pages are
//! complete without JavaScript. With JavaScript they update themselves and draw charts. The pages about statements, and
//! the parts of all pages, come from `querywatch_axum` (`statements`).

mod access;
mod assets;
mod cache;
mod layout;
mod live;
mod llm;
mod login;
mod mail;
mod overview;
mod page;
mod parts;
mod pool;
mod replicas;
mod server;
mod state;
mod statements;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use querywatch_axum::TableOrder;

use access::Viewer;
use page::{Page, PageRequest};

pub use live::LivePages;
pub use state::{Dashboard, DashboardSettings, DashboardState};
pub use statements::statement_pages;

/// The path of the dashboard.
const PREFIX: &str = "/ops";

/// Returns the routes of the dashboard.
pub fn router(state: &DashboardState) -> Router {
    let plain = |page: Page| get(async move |State(state): State<DashboardState>, _: Viewer| show(&state, page).await);
    let mut router = Router::new().route("/ops/live", get(live::live)).route("/ops/login", get(login::login));
    for page in Page::ALL.into_iter().filter(|page| !page.is_about_statements()) {
        router = router.route(page.path(), plain(page));
    }
    router.with_state(state.clone()).nest(PREFIX, statements::router(state).merge(assets::router()))
}

async fn show(state: &DashboardState, page: Page) -> Response {
    let request = PageRequest { page, shape: None, ordering: TableOrder::default() };
    match request.view(state).await {
        Some(view) => layout::page(&request, &view, true).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
