//! A piece of HTML that several pages share. Others are those of `querywatch_axum`.

use maud::Markup;
use querywatch_axum::parts::empty;

/// Logs a failed query, and renders a note.
pub(super) fn query_failed(error: &tutord_core::Error) -> Markup {
    tracing::warn!(%error, "could not load a dashboard page from the database");
    empty("The database did not respond.")
}
