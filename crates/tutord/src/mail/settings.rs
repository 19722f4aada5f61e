//! Settings of mails.

use clap::Args;
use lettre::message::Mailbox;

use crate::values::{Secret, SecretUrl};

/// Settings of mails.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Mail")]
pub struct MailSettings {
    /// URL of the mail server: smtps://USER:PASSWORD@HOST or smtp://HOST:25; without it, mails are written to
    /// DATA_DIR/mail.
    #[arg(long, env = "SMTP_URL", hide_env_values = true, value_parser = SMTP_URL)]
    pub smtp_url: Option<Secret>,
    /// Sender address of mails.
    #[arg(long, env = "MAIL_FROM", default_value = "tutord <no-reply@localhost>", value_parser = sender)]
    pub mail_from: Mailbox,
}

const SMTP_URL: SecretUrl = SecretUrl {
    is_valid: |text| lettre::AsyncSmtpTransport::<lettre::Tokio1Executor>::from_url(text).is_ok(),
    expected: "smtps://USER:PASSWORD@HOST or smtp://HOST:PORT",
};

fn sender(text: &str) -> Result<Mailbox, String> {
    text.parse().map_err(|_| "must be an address such as 'tutord <no-reply@example.com>'".to_owned())
}
