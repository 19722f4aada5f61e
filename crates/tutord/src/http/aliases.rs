//! What the existing frontend reads in places of its own, all in one file so that it can be dropped.

use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// A body that is also found under `data`.
#[derive(Debug, Serialize, ToSchema)]
pub struct WithData<T: Clone> {
    #[serde(flatten)]
    body: T,
    data: T,
}

impl<T: Clone> WithData<T> {
    /// Shows `body` twice.
    pub fn new(body: T) -> Self {
        Self { data: body.clone(), body }
    }
}

/// The same routes under the paths of the frontend's older release: `/api/v1/users` is `/api/users`, and
/// `/api/progress/skills` is `/api/progress/skill-levels`, `/api/progress/` is `/api/progress`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().nest("/v1/users", crate::users::router()).merge(crate::progress::aliases())
}
