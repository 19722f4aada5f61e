//! Mails to students: a queue in the store, and the task that sends them.
//!
//! A request stores the mail and does not wait for the mail server. The sender of each process claims mails that are
//! due, creates a token for each attempt, and sends them. A temporarily refused mail is retried for a day.
//!
//! If a process dies, only the mails that it had claimed are sent twice: their claims expire, and another process sends
//! them with the same `Message-ID`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::stream::{StreamExt as _, iter};
use tokio::sync::Notify;
use tutord_core::model::{ClaimedMail, EmailTokenPurpose, MailKind, NewEmailToken};
use tutord_core::{Store, Timestamp};
use url::Url;

use super::token::Token;
use crate::background::Background;
use crate::mail::{DeliveryError, MailStats, MailText, Transport};

const VERIFICATION_TTL: Duration = Duration::from_hours(24);
const RESET_TTL: Duration = Duration::from_hours(1);
/// The interval at which the sender polls for due mails: mails of other processes, and retries.
const POLL: Duration = Duration::from_secs(2);
/// The duration of a claim: longer than an attempt takes.
const CLAIM: Duration = Duration::from_mins(3);
/// The number of mails that a process sends concurrently, each on its own connection.
const AT_ONCE: usize = 8;
/// The pauses after failed attempts; the last one repeats.
const PAUSES: [Duration; 7] = [
    Duration::from_secs(20),
    Duration::from_mins(2),
    Duration::from_mins(5),
    Duration::from_mins(15),
    Duration::from_mins(30),
    Duration::from_hours(1),
    Duration::from_hours(2),
];
/// The time after which an unsent mail is given up.
const PATIENCE: Duration = Duration::from_hours(24);

/// The queue that stores mails; cheap to clone.
#[derive(Clone)]
pub struct Mailer {
    store: Arc<dyn Store>,
    /// Wakes the sender of this process.
    stored: Arc<Notify>,
    /// The domain of `Message-ID`s.
    domain: Arc<str>,
    /// Returns the counts of mails.
    pub stats: Arc<MailStats>,
}

impl Mailer {
    /// Creates a queue in a store, for a sender address.
    pub fn new(store: Arc<dyn Store>, from: &lettre::message::Mailbox) -> Self {
        let domain = from.email.domain().into();
        Self { store, stored: Arc::default(), domain, stats: Arc::default() }
    }

    /// Stores a mail to a user. Issues one statement, whether or not the user exists.
    pub(super) async fn enqueue(&self, user_id: i64, kind: MailKind) -> Result<(), tutord_core::Error> {
        let message_id = format!("{:032x}@{}", rand::random::<u128>(), self.domain);
        if self.store.enqueue_mail(user_id, kind, &message_id).await? {
            self.stored.notify_one();
        }
        Ok(())
    }
}

/// Spawns the task that sends due mails until shutdown. In demo mode, `log_links` also logs the links.
pub(crate) fn spawn(background: &Background, mailer: Mailer, transport: Transport, public_url: Url, log_links: bool) {
    let sender = Sender { store: Arc::clone(&mailer.store), mailer, transport, public_url, log_links };
    let stop = background.shutdown.clone();
    background.spawn(async move {
        loop {
            match sender.send_due().await {
                // There may be more.
                Ok(AT_ONCE..) => {}
                Ok(_) => {
                    sender.mailer.stats.queue_failures.store(0, Ordering::Relaxed);
                    let wait = tokio::time::timeout(POLL, sender.mailer.stored.notified());
                    if stop.run_until_cancelled(wait).await.is_none() {
                        break;
                    }
                }
                Err(error) => {
                    if sender.mailer.stats.queue_failures.fetch_add(1, Ordering::Relaxed) == 0 {
                        tracing::warn!(%error, "could not read mails from the database; retrying every {POLL:?}");
                    }
                    if stop.run_until_cancelled(tokio::time::sleep(POLL)).await.is_none() {
                        break;
                    }
                }
            }
        }
    });
}

struct Sender {
    store: Arc<dyn Store>,
    mailer: Mailer,
    transport: Transport,
    public_url: Url,
    /// In demo mode, also log the links.
    log_links: bool,
}

impl Sender {
    /// Sends at most [`AT_ONCE`] mails. Returns the number of due mails.
    async fn send_due(&self) -> Result<usize, tutord_core::Error> {
        let now = Timestamp::now();
        let due = self.store.claim_mails(now, now + CLAIM, i64::try_from(AT_ONCE).unwrap_or(1)).await?;
        let count = due.len();
        iter(due).for_each_concurrent(AT_ONCE, |mail| async move { self.send(&mail).await }).await;
        self.mailer.stats.set_counts(self.store.mail_counts().await?);
        Ok(count)
    }

    async fn send(&self, mail: &ClaimedMail) {
        let outcome = match self.text(mail).await {
            Ok(text) => self.transport.send(&mail.email, &mail.message_id, text).await,
            Err(error) => Err(DeliveryError { is_permanent: false, cause: format!("no token: {error:#}") }),
        };
        let kind = mail.kind;
        let stored = match outcome {
            Ok(()) => {
                self.mailer.stats.add(kind, "sent");
                self.store.remove_mail(mail).await
            }
            Err(DeliveryError { is_permanent, cause }) => {
                let pause = PAUSES[usize::try_from(mail.attempts - 1).unwrap_or(0).min(PAUSES.len() - 1)];
                // Spread the retries of mails that failed together.
                let due_at = Timestamp::now() + pause + pause.mul_f64(rand::random_range(0.0..0.1));
                let attempts = mail.attempts;
                if is_permanent || due_at > mail.created_at + PATIENCE {
                    tracing::error!(mail = mail.id, %kind, attempts, cause, "gave up on a mail");
                    self.mailer.stats.add(kind, "failed");
                    self.store.fail_mail(mail, &cause).await
                } else {
                    tracing::warn!(mail = mail.id, %kind, attempts, cause, ?pause, "could not send a mail; it is retried");
                    self.mailer.stats.add(kind, "postponed");
                    self.store.postpone_mail(mail, due_at, &cause).await
                }
            }
        };
        if let Err(error) = stored {
            tracing::error!(mail = mail.id, %error, "could not store the outcome of a mail; it is sent again in {CLAIM:?}");
        }
    }

    async fn text(&self, mail: &ClaimedMail) -> anyhow::Result<MailText> {
        Ok(match mail.kind {
            MailKind::VerifyEmail => MailText::verify_email(
                &self.link(mail, "verify-email", EmailTokenPurpose::VerifyEmail, VERIFICATION_TTL).await?,
            ),
            MailKind::PasswordReset => MailText::password_reset(
                &self.link(mail, "reset-password", EmailTokenPurpose::PasswordReset, RESET_TTL).await?,
            ),
            MailKind::AddressTaken => MailText::address_taken(self.public_url.as_str()),
        })
    }

    /// Creates a link with a new token.
    async fn link(
        &self,
        mail: &ClaimedMail,
        page: &str,
        purpose: EmailTokenPurpose,
        ttl: Duration,
    ) -> anyhow::Result<String> {
        let token = Token::random();
        let new = NewEmailToken {
            user_id: mail.user_id,
            purpose,
            hash: token.hash(),
            expires_at: Timestamp::now() + ttl,
            // An attempt that seemed to fail may have delivered its link.
            keeps_earlier: mail.attempts > 1,
        };
        self.store.create_email_token(new).await.context("token")?;
        let mut link = self.public_url.clone();
        if let Ok(mut segments) = link.path_segments_mut() {
            segments.pop_if_empty().push(page);
        }
        link.query_pairs_mut().append_pair("token", token.as_str());
        if self.log_links {
            tracing::info!(%link, "mailed link");
        }
        Ok(link.into())
    }
}
