//! Mails: to a server by SMTP, or into files where none is configured.
//!
//! A mail is handed to a task and sent off the request's path: the answer waits for no mail server,
//! and its time does not tell whether a mail was sent.

mod text;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use lettre::address::AddressError;
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tutord_store::Timestamp;
use tutord_store::rules::address::ascii_domain;
use url::Url;

use crate::config::MailConfig;
use text::Text;

/// Mails that may wait for a slow server; beyond it they are dropped and logged.
const QUEUE: usize = 1_000;
/// The longest that sending one mail may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Hands mails to the task that sends them; cheap to clone.
#[derive(Clone)]
pub struct Mailer {
    queue: mpsc::Sender<(String, Text)>,
    public_url: Url,
    /// Demo mode: the links are also logged, for a person without a mailbox.
    log_links: bool,
}

enum Transport {
    Smtp(AsyncSmtpTransport<Tokio1Executor>),
    Files(PathBuf),
}

impl Mailer {
    /// Starts the sending task; it ends when the last mailer is gone and the queue is empty.
    ///
    /// # Errors
    /// When the SMTP address can't be used.
    pub fn start(
        config: &MailConfig,
        data_dir: &Path,
        public_url: &Url,
        log_links: bool,
        tasks: &TaskTracker,
    ) -> anyhow::Result<Self> {
        let transport = match &config.smtp_url {
            Some(url) => {
                let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.reveal()).context("SMTP_URL")?;
                Transport::Smtp(builder.timeout(Some(SEND_TIMEOUT)).build())
            }
            None => Transport::Files(data_dir.join("mail")),
        };
        let from = config.mail_from.clone();
        let (queue, mut waiting) = mpsc::channel::<(String, Text)>(QUEUE);
        tasks.spawn(async move {
            while let Some((to, text)) = waiting.recv().await {
                if let Err(error) = transport.send(&from, &to, text).await {
                    tracing::error!(error = format!("{error:#}"), "a mail was not sent");
                }
            }
        });
        Ok(Self { queue, public_url: public_url.clone(), log_links })
    }

    /// Asks the owner of an address to verify it.
    pub fn verify_email(&self, to: &str, token: &str) {
        let link = self.link("verify-email", token);
        self.enqueue(to, Text::verify_email(&link));
    }

    /// Sends the link by which a password is reset.
    pub fn password_reset(&self, to: &str, token: &str) {
        let link = self.link("reset-password", token);
        self.enqueue(to, Text::password_reset(&link));
    }

    /// Tells the owner of an account that somebody tried to register with its address.
    pub fn address_taken(&self, to: &str) {
        self.enqueue(to, Text::address_taken(self.public_url.as_str()));
    }

    fn link(&self, page: &str, token: &str) -> String {
        let mut link = self.public_url.clone();
        if let Ok(mut segments) = link.path_segments_mut() {
            segments.pop_if_empty().push(page);
        }
        link.query_pairs_mut().append_pair("token", token);
        if self.log_links {
            tracing::info!(%link, "mailed link");
        }
        link.into()
    }

    fn enqueue(&self, to: &str, text: Text) {
        if self.queue.try_send((to.to_owned(), text)).is_err() {
            tracing::error!("a mail was dropped: {QUEUE} are waiting already");
        }
    }
}

impl Transport {
    async fn send(&self, from: &Mailbox, to: &str, text: Text) -> anyhow::Result<()> {
        let message = Message::builder()
            .from(from.clone())
            .to(Mailbox::new(None, recipient(to).context("recipient")?))
            .subject(text.subject)
            .header(ContentType::TEXT_PLAIN)
            .body(text.body)
            .context("message")?;
        match self {
            Self::Smtp(transport) => {
                transport.send(message).await.context("SMTP")?;
            }
            Self::Files(directory) => {
                tokio::fs::create_dir_all(directory).await.with_context(|| directory.display().to_string())?;
                let name = format!("{}-{:08x}.eml", Timestamp::now().as_micros(), rand::random::<u32>());
                // Renamed into place: whoever watches the directory never sees half a mail.
                let (part, path) = (directory.join(format!("{name}.part")), directory.join(&name));
                tokio::fs::write(&part, message.formatted()).await.with_context(|| part.display().to_string())?;
                tokio::fs::rename(&part, &path).await.with_context(|| path.display().to_string())?;
            }
        }
        Ok(())
    }
}

/// The address with its domain in ASCII, which every mail server understands. One that is not ASCII before the `@` needs a
/// server with SMTPUTF8 (RFC 6531).
fn recipient(to: &str) -> Result<Address, AddressError> {
    let address: Address = to.parse()?;
    match ascii_domain(address.domain()) {
        Some(domain) if !address.domain().is_ascii() => Address::new(address.user(), domain),
        _ => Ok(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_sent_to_in_ascii() {
        assert_eq!(recipient("Anna@Exämple.test").unwrap().to_string(), "Anna@xn--exmple-cua.test");
        assert_eq!(recipient("anna@[127.0.0.1]").unwrap().to_string(), "anna@[127.0.0.1]");
    }

    #[tokio::test]
    async fn mails_land_in_files_with_a_usable_link() {
        let directory = tempfile::tempdir().unwrap();
        let tasks = TaskTracker::new();
        let config = MailConfig { smtp_url: None, mail_from: "tutord <no-reply@example.com>".parse().unwrap() };
        let url = Url::parse("https://tutor.example/app/").unwrap();
        let mailer = Mailer::start(&config, directory.path(), &url, false, &tasks).unwrap();
        mailer.verify_email("student@example.com", "abc-123");
        drop(mailer);
        tasks.close();
        tasks.wait().await;
        let mut files = std::fs::read_dir(directory.path().join("mail")).unwrap();
        let text = std::fs::read_to_string(files.next().unwrap().unwrap().path()).unwrap();
        assert!(files.next().is_none());
        assert!(text.contains("To: student@example.com\r\n"));
        // Long lines are folded, and the sign that folds them is escaped itself (RFC 2045, quoted-printable).
        let text = text.replace("=\r\n", "").replace("=3D", "=");
        assert!(text.contains("https://tutor.example/app/verify-email?token=abc-123"), "{text}");
    }
}
