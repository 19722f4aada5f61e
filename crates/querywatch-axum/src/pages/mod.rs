//! The content of each page.

pub(crate) mod findings;
pub(crate) mod overview;
pub(crate) mod queries;
pub(crate) mod requests;
pub(crate) mod slow;
pub(crate) mod statement;
