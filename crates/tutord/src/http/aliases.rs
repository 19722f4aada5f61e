//! Aliases for the existing frontend, in one file so that they can be removed together.

use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// A body that is duplicated under `data`.
#[derive(Debug, Serialize, ToSchema)]
pub struct WithData<T: Clone> {
    #[serde(flatten)]
    body: T,
    data: T,
}

impl<T: Clone> WithData<T> {
    /// Duplicates `body` under `data`.
    pub fn new(body: T) -> Self {
        Self { data: body.clone(), body }
    }
}

/// Returns the routes at the paths of the frontend's older release: `/api/v1/users` is `/api/users`,
/// `/api/progress/skills` is `/api/progress/skill-levels`, and `/api/progress/` is `/api/progress`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().nest("/v1/users", crate::users::router()).merge(crate::progress::aliases())
}
