//! The mail transport: SMTP, or files if no mail server is configured.

mod settings;
mod stats;
mod text;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use lettre::address::AddressError;
use lettre::message::Mailbox;
use lettre::message::header::{ContentType, MIME_VERSION_1_0};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use tutord_core::Timestamp;
use tutord_core::rules::address::ascii_domain;

pub use settings::MailSettings;
pub use stats::MailStats;
pub(crate) use text::MailText;

/// The timeout of one SMTP step.
const STEP_TIMEOUT: Duration = Duration::from_secs(15);
/// The timeout of sending one mail.
const SEND_TIMEOUT: Duration = Duration::from_mins(1);
/// The reply codes that reject one mail permanently. Other 5xx codes concern the connection or the log-in, which an
/// operator can fix.
const PERMANENT_CODES: std::ops::RangeInclusive<u16> = 550..=559;

/// The error of an attempt to send a mail.
#[derive(Debug)]
pub(crate) struct DeliveryError {
    /// Whether a retry would fail too.
    pub(crate) is_permanent: bool,
    /// The reply code or another cause. It omits the server's text, which can contain an address.
    pub(crate) cause: String,
}

/// A transport to a mail server, or to a directory of files.
pub struct Transport {
    from: Mailbox,
    destination: Destination,
}

enum Destination {
    Smtp(AsyncSmtpTransport<Tokio1Executor>),
    Files(PathBuf),
}

impl Transport {
    /// Creates a transport to the configured mail server, or to the directory `mail` in `data_dir`.
    ///
    /// # Errors
    /// Returns an error if the SMTP URL is invalid.
    pub fn new(config: &MailSettings, data_dir: &Path) -> anyhow::Result<Self> {
        let destination = match &config.smtp_url {
            Some(url) => {
                let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.reveal()).context("SMTP_URL")?;
                Destination::Smtp(builder.timeout(Some(STEP_TIMEOUT)).build())
            }
            None => Destination::Files(data_dir.join("mail")),
        };
        Ok(Self { from: config.mail_from.clone(), destination })
    }

    /// Connects to the mail server, and logs in if the URL has a user. Returns `None` if mails are written to files.
    pub async fn check(&self) -> Option<Result<(), String>> {
        let Destination::Smtp(transport) = &self.destination else { return None };
        Some(match tokio::time::timeout(STEP_TIMEOUT, transport.test_connection()).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err("the mail server closed the connection".to_owned()),
            Ok(Err(error)) => Err(describe(&error)),
            Err(_) => Err(format!("no response from the mail server within {STEP_TIMEOUT:?}; check SMTP_URL")),
        })
    }

    /// Sends a mail, without retries.
    pub(crate) async fn send(&self, to: &str, message_id: &str, text: MailText) -> Result<(), DeliveryError> {
        let permanent = |cause: String| DeliveryError { is_permanent: true, cause };
        let temporary = |cause: String| DeliveryError { is_permanent: false, cause };
        let recipient = recipient(to).map_err(|_| permanent("the recipient's address is invalid".to_owned()))?;
        let message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, recipient))
            .subject(text.subject)
            .message_id(Some(format!("<{message_id}>")))
            // Without this header, some mail readers show the encoded text, in which the links are broken.
            .header(MIME_VERSION_1_0)
            .header(ContentType::TEXT_PLAIN)
            .body(text.body)
            .map_err(|_| permanent("could not build the mail".to_owned()))?;
        match &self.destination {
            Destination::Smtp(transport) => {
                // A server that refuses the connection refuses every mail, so this mail is retried.
                if let Some(Err(cause)) = self.check().await {
                    return Err(temporary(cause));
                }
                match tokio::time::timeout(SEND_TIMEOUT, transport.send(message)).await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(error)) => {
                        let is_rejected = error.status().is_some_and(|code| PERMANENT_CODES.contains(&u16::from(code)));
                        Err(DeliveryError {
                            is_permanent: is_rejected && !is_about_sender(&error),
                            cause: describe(&error),
                        })
                    }
                    Err(_) => Err(temporary(format!("not sent within {SEND_TIMEOUT:?}"))),
                }
            }
            Destination::Files(directory) => {
                write_file(directory, &message.formatted()).await.map_err(|error| temporary(format!("{error:#}")))
            }
        }
    }
}

/// Returns whether the enhanced status code (RFC 3463) of a rejection concerns the sender or the server's policy, which
/// an operator can fix.
fn is_about_sender(error: &lettre::transport::smtp::Error) -> bool {
    const SENDER_CODES: [&str; 3] = ["5.1.7", "5.1.8", "5.7."];
    let text = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    SENDER_CODES.iter().any(|code| text.trim_start().starts_with(code))
}

/// Returns the cause of a failed attempt, for the operator.
fn describe(error: &lettre::transport::smtp::Error) -> String {
    match error.status() {
        Some(code) => format!("the mail server answered {code}"),
        // The text of the response may repeat the address.
        None if error.is_response() => "the mail server's response is invalid".to_owned(),
        None if error.is_timeout() => format!("the mail server did not respond within {STEP_TIMEOUT:?}"),
        None => {
            let mut text = "could not connect to the mail server".to_owned();
            let mut source = std::error::Error::source(error);
            while let Some(inner) = source {
                text = format!("{text}: {inner}");
                source = inner.source();
            }
            text.chars().take(200).collect()
        }
    }
}

/// Writes a mail to a separate file.
async fn write_file(directory: &Path, mail: &[u8]) -> anyhow::Result<()> {
    tokio::fs::create_dir_all(directory).await.with_context(|| directory.display().to_string())?;
    let name = format!("{}-{:08x}.eml", Timestamp::now().as_micros(), rand::random::<u32>());
    // The rename is atomic, so that programs that watch the directory never read half a mail.
    let (part, path) = (directory.join(format!("{name}.part")), directory.join(&name));
    tokio::fs::write(&part, mail).await.with_context(|| part.display().to_string())?;
    tokio::fs::rename(&part, &path).await.with_context(|| path.display().to_string())
}

/// Returns the address with its domain in ASCII, which every mail server supports. A non-ASCII local part requires a
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
    fn domains_are_converted_to_ascii() {
        assert_eq!(recipient("Anna@Exämple.test").unwrap().to_string(), "Anna@xn--exmple-cua.test");
        assert_eq!(recipient("anna@[127.0.0.1]").unwrap().to_string(), "anna@[127.0.0.1]");
    }

    #[tokio::test]
    async fn mails_are_written_to_files_with_a_usable_link() {
        let directory = tempfile::tempdir().unwrap();
        let config = MailSettings { smtp_url: None, mail_from: "tutord <no-reply@example.com>".parse().unwrap() };
        let transport = Transport::new(&config, directory.path()).unwrap();
        let link = format!("https://tutor.example/app/verify-email?token={}", "abc-123".repeat(9));
        transport.send("student@example.com", "one@example.com", MailText::verify_email(&link)).await.unwrap();
        let mut files = std::fs::read_dir(directory.path().join("mail")).unwrap();
        let text = std::fs::read_to_string(files.next().unwrap().unwrap().path()).unwrap();
        assert!(files.next().is_none());
        assert!(text.contains("To: student@example.com\r\n") && text.contains("Message-ID: <one@example.com>\r\n"));
        // Undoes the folding of long lines (RFC 2045, quoted-printable).
        let text = text.replace("=\r\n", "").replace("=3D", "=");
        assert!(text.contains(&link), "{text}");
        let error = transport.send("no address", "two@example.com", MailText::address_taken("x")).await.unwrap_err();
        assert!(error.is_permanent);
    }
}
