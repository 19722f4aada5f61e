//! Access control of the dashboard.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};

use super::state::DashboardState;
use super::{layout, login};
use crate::auth::Admin;
use crate::http::error::ApiError;

/// An extractor of the admin who views a page.
pub(super) struct Viewer;

/// An error, rendered as a page.
pub(super) struct ErrorPage(ApiError);

impl FromRequestParts<DashboardState> for Viewer {
    type Rejection = ErrorPage;

    async fn from_request_parts(parts: &mut Parts, state: &DashboardState) -> Result<Self, ErrorPage> {
        Admin::from_request_parts(parts, state).await.map(|_| Self).map_err(ErrorPage)
    }
}

impl IntoResponse for ErrorPage {
    fn into_response(self) -> Response {
        let page = if self.0.is_unauthenticated() {
            login::page()
        } else {
            layout::message("Page not available", &format!("The page can't be shown: {}.", self.0.message()))
        };
        let mut response = page.into_response();
        // The status and headers such as Retry-After are the same as in the API.
        let plain = self.0.into_response();
        *response.status_mut() = plain.status();
        for (name, value) in plain.headers() {
            response.headers_mut().entry(name).or_insert_with(|| value.clone());
        }
        response
    }
}
