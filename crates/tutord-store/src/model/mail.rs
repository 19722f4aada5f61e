//! Mails that are to be sent.

use diesel::prelude::*;

use super::MailKind;
use crate::model::time::Timestamp;

/// A mail that this process is to send, and its recipient.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub struct ClaimedMail {
    /// Positive id.
    pub id: i64,
    /// The recipient.
    pub user_id: i64,
    /// What it says.
    pub kind: MailKind,
    /// The `Message-ID` of all its attempts, without angle brackets.
    pub message_id: String,
    /// When it was requested.
    pub created_at: Timestamp,
    /// Attempts so far, this one included.
    pub attempts: i32,
    /// The recipient's address.
    pub email: String,
}

/// Mails that wait, and mails that were given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MailCounts {
    /// Mails that are to be sent.
    pub pending: i64,
    /// When the oldest of them was requested.
    pub oldest: Option<Timestamp>,
    /// Mails that are not tried any more.
    pub failed: i64,
}

/// A mail that is not tried any more, and its recipient.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub struct FailedMail {
    /// The recipient's address.
    pub email: String,
    /// What it says.
    pub kind: MailKind,
    /// Attempts in all.
    pub attempts: i32,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// Since when it is not tried any more.
    pub failed_at: Timestamp,
}
