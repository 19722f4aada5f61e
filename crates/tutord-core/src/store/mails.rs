//! The queue of mails.

use async_trait::async_trait;

use crate::error::Result;
use crate::model::{ClaimedMail, FailedMail, MailCounts, MailKind};
use crate::time::Timestamp;

/// The queue of mails, with at most one mail of each kind for a user.
#[async_trait]
pub trait Mails: Send + Sync {
    /// Stores a mail to be sent at once, and replaces an earlier one of its kind. Returns `true` if there is a
    /// recipient: an active user with this id, whose address is unverified if it is a verification mail. 1 statement.
    async fn enqueue_mail(&self, user_id: i64, kind: MailKind, message_id: &str) -> Result<bool>;

    /// Claims at most `limit` mails that are due at `now`, in one transaction. Other processes can't claim them before
    /// `until`.
    async fn claim_mails(&self, now: Timestamp, until: Timestamp, limit: i64) -> Result<Vec<ClaimedMail>>;

    /// Removes a sent mail, unless a newer one has replaced it. 1 statement.
    async fn remove_mail(&self, mail: &ClaimedMail) -> Result<()>;

    /// Sets the time of the next attempt, and the cause of the last failure. 1 statement.
    async fn postpone_mail(&self, mail: &ClaimedMail, due_at: Timestamp, error: &str) -> Result<()>;

    /// Marks a mail as given up, and keeps it for 30 days. 1 statement.
    async fn fail_mail(&self, mail: &ClaimedMail, error: &str) -> Result<()>;

    /// Returns the newest given-up mails, at most `limit`. 1 statement.
    async fn failed_mails(&self, limit: i64) -> Result<Vec<FailedMail>>;

    /// Counts the mails. 2 statements.
    async fn mail_counts(&self) -> Result<MailCounts>;
}
