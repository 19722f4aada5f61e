//! Access control of the dashboard.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};

use super::state::DashboardState;
use super::{layout, login};
use crate::auth::Admin;
use crate::http::error::ApiError;

/// Extracts the admin who requests a page.
pub(super) struct Viewer;

/// An error, rendered as a page.
pub(super) struct Refused(ApiError);

impl FromRequestParts<DashboardState> for Viewer {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &DashboardState) -> Result<Self, Refused> {
        Admin::from_request_parts(parts, state).await.map(|_| Self).map_err(Refused)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let page = if self.0.is_unauthenticated() {
            login::page()
        } else {
            layout::message("Page not available", &format!("The page can't be shown: {}.", self.0.message()), false)
        };
        let mut response = page.into_response();
        // Status and headers such as Retry-After are those that the API answers with.
        let plain = self.0.into_response();
        *response.status_mut() = plain.status();
        for (name, value) in plain.headers() {
            response.headers_mut().entry(name).or_insert_with(|| value.clone());
        }
        response
    }
}
