//! The pages about SQL statements: those of `querywatch_axum` in the layout of this dashboard, with plans.

use axum::Router;
use axum::middleware::from_extractor_with_state;
use maud::{Markup, html};
use querywatch::Watch;
use querywatch_axum::parts::empty;
use querywatch_axum::{Dashboard, Frame, Section, TableOrder};

use super::PREFIX;
use super::access::Viewer;
use super::layout::{self, Document};
use super::page::{Page, PageRequest};
use super::state::{DashboardSettings, DashboardState};
use crate::http::query::Query;
use crate::telemetry::plans::{Plan, Plans};

/// Creates the pages about the statements of a watch.
pub fn statement_pages(watch: &Watch, plans: Plans, settings: DashboardSettings) -> Dashboard {
    Dashboard::new(watch)
        .base_path(PREFIX)
        .without_overview()
        .setting_names("SLOW_QUERY_THRESHOLD_MS", "N_PLUS_ONE_LIMIT")
        .shell(document)
        .statement_section(move |shape| Section::new("plan", "Plan", plan(&plans, settings, &shape.id)))
}

/// Returns the routes of the pages below the prefix.
pub(super) fn router(state: &DashboardState) -> Router {
    // An invalid order is an error of the usual shape.
    let checks = from_extractor_with_state::<(Viewer, Query<TableOrder>), _>(state.clone());
    state.statement_pages.pages().route_layer(checks)
}

fn document(frame: &Frame<'_>) -> Document {
    let request = |page, shape, ordering| PageRequest { page, shape, ordering };
    let request = match frame.page() {
        querywatch_axum::Page::Slow => request(Page::Slow, None, TableOrder::default()),
        querywatch_axum::Page::Findings => request(Page::Findings, None, TableOrder::default()),
        querywatch_axum::Page::Statement(id) => request(Page::Queries, Some(id.clone()), TableOrder::default()),
        querywatch_axum::Page::Queries(ordering) => request(Page::Queries, None, *ordering),
        _ => request(Page::Queries, None, TableOrder::default()),
    };
    layout::page(&request, frame.view(), frame.exists())
}

/// Renders the plan of a statement.
fn plan(plans: &Plans, settings: DashboardSettings, id: &str) -> Markup {
    let Some(Plan { text, hints }) = plans.plan(id) else {
        let threshold = settings.slow_query_threshold_ms;
        return empty(&format!(
            "No plan is recorded. tutord records the plan of a statement that takes longer than {threshold} ms."
        ));
    };
    html! {
        @if hints.is_empty() {
            p { "The plan shows no problem. Slow calls waited for a lock or for I/O, or had unusual values." }
        } @else {
            ul { @for hint in &hints { li.warn { (hint) } } }
        }
        pre { code { (text) } }
    }
}
