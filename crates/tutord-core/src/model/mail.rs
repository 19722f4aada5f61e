//! The queue of mails.

use diesel::prelude::*;

use super::MailKind;
use crate::time::Timestamp;

/// A mail claimed by this process, with its recipient.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub struct ClaimedMail {
    /// Positive id.
    pub id: i64,
    /// The recipient.
    pub user_id: i64,
    /// The kind of the mail.
    pub kind: MailKind,
    /// The `Message-ID` of all its attempts, without angle brackets.
    pub message_id: String,
    /// The time of the request.
    pub created_at: Timestamp,
    /// The number of attempts, including this one.
    pub attempts: i32,
    /// The recipient's address.
    pub email: String,
}

/// Counts of waiting and given-up mails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MailCounts {
    /// The queue of mails.
    pub pending: i64,
    /// The time of the oldest waiting mail's request.
    pub oldest: Option<Timestamp>,
    /// The number of given-up mails.
    pub failed: i64,
}

/// A given-up mail, with its recipient.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub struct FailedMail {
    /// The recipient's address.
    pub email: String,
    /// The kind of the mail.
    pub kind: MailKind,
    /// The number of attempts.
    pub attempts: i32,
    /// The cause of the last failure.
    pub last_error: Option<String>,
    /// The time when the mail was given up.
    pub failed_at: Timestamp,
}
