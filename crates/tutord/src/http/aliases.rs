//! The shape of responses that an existing frontend expects.

use serde::Serialize;
use utoipa::ToSchema;

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
