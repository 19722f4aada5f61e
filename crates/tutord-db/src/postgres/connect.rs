//! Opening of connections: TLS as requested by the URL, and the settings of every connection.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use diesel::ConnectionError;
use diesel_async::{AsyncConnection, AsyncPgConnection};
use querywatch::Watch;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio_postgres::config::{Host, SslMode, SslNegotiation};
use tokio_postgres::tls::TlsStream;
use tokio_postgres::{AsyncMessage, CancelToken, Client, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;
use tutord_core::operations::DatabaseIdentity;
use tutord_core::{Error, Refusal, Result};
use url::Url;

use super::identity;
use super::sqlcommenter::Connection;
use super::sqlstate::{ScannedPlain, ScannedTls, SqlState};
use super::traffic::{Observer, Traffic};
use crate::options::DatabaseOptions;

/// Runs an expression with the TLS connector, and scans the connection for SQLSTATEs if possible.
macro_rules! with_transport {
    ($connector:expr, $state:expr, |$tls:ident| $body:expr) => {
        match (&$connector.tls, $connector.scanned) {
            (Some(tls), _) => {
                let $tls = ScannedTls(tls.clone(), $state);
                $body
            }
            (None, true) => {
                let $tls = ScannedPlain($state);
                $body
            }
            (None, false) => {
                let $tls = NoTls;
                $body
            }
        }
    };
}

/// A connector to a server; cheap to clone.
///
/// The `sslmode` of the URL: `disable`, `prefer` or none connect without TLS; `require`, `verify-ca` and `verify-full`
/// all verify the server's certificate and name against the system's roots, or against the file of `sslrootcert`.
#[derive(Clone)]
pub struct Connector {
    config: Arc<tokio_postgres::Config>,
    tls: Option<MakeRustlsConnect>,
    /// Set if a connection without TLS is scanned; Unix sockets are not.
    scanned: bool,
    statement_timeout: Duration,
    /// See `DatabaseOptions::node`.
    node: Option<u64>,
    watch: Watch,
    comments: bool,
}

impl Connector {
    /// Parses a URL such as `postgres://user:password@host:5432/database?sslmode=require`.
    ///
    /// # Errors
    /// Returns [`Error::InvalidUrl`]; the text never contains the password.
    pub fn new(url: &str, options: &DatabaseOptions) -> Result<Self> {
        let mut url = Url::parse(url).map_err(|error| Error::InvalidUrl(error.to_string()))?;
        let mut mode = None;
        let mut root_file = None;
        let kept: Vec<(String, String)> = url
            .query_pairs()
            .filter_map(|(name, value)| match &*name {
                "sslmode" => {
                    mode = Some(value.into_owned());
                    None
                }
                "sslrootcert" => {
                    root_file = Some(value.into_owned());
                    None
                }
                _ => Some((name.into_owned(), value.into_owned())),
            })
            .collect();
        url.set_query(None);
        if !kept.is_empty() {
            url.query_pairs_mut().extend_pairs(kept);
        }
        let mut config: tokio_postgres::Config =
            url.as_str().parse().map_err(|error: tokio_postgres::Error| Error::InvalidUrl(error.to_string()))?;
        config.application_name("tutord");
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(5));
        }
        let tls = match mode.as_deref() {
            Some("disable") => {
                config.ssl_mode(SslMode::Disable);
                None
            }
            None | Some("prefer") => {
                config.ssl_mode(SslMode::Prefer);
                // Without root certificates, `prefer` is plain text: it does not protect against an active attacker.
                None
            }
            Some("require" | "verify-ca" | "verify-full") => {
                config.ssl_mode(SslMode::Require);
                Some(tls(root_file.as_deref())?)
            }
            Some(other) => {
                return Err(Error::InvalidUrl(format!(
                    "sslmode={other}: must be disable, prefer, require, verify-ca or verify-full"
                )));
            }
        };
        let scanned = tls.is_none()
            && !config.get_hosts().is_empty()
            && config.get_hosts().iter().all(|host| matches!(host, Host::Tcp(_)));
        if scanned {
            // See `ScannedPlain`.
            config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
        }
        Ok(Self {
            config: Arc::new(config),
            tls,
            scanned,
            statement_timeout: options.statement_timeout,
            node: options.node,
            watch: options.watch.clone(),
            comments: options.comments,
        })
    }

    /// Returns the connector without a statement timeout.
    pub(super) fn without_statement_timeout(&self) -> Self {
        Self { statement_timeout: Duration::ZERO, ..self.clone() }
    }

    /// Connects a plain client, for statements that diesel does not support, such as `COPY`.
    ///
    /// # Errors
    /// Returns [`Error::Unavailable`] if the server is unreachable or refuses the connection.
    pub async fn client(&self) -> Result<tokio_postgres::Client> {
        Ok(self.listening_client().await?.0)
    }

    /// Connects a plain client and returns it with a notifier, which is notified of announcements on the client's
    /// channels and of the end of the connection.
    pub(super) async fn listening_client(&self) -> Result<(tokio_postgres::Client, Arc<Notify>)> {
        let announced = Arc::new(Notify::new());
        let client = with_transport!(self, SqlState::default(), |tls| {
            let (client, connection) = self.config.connect(tls).await.map_err(|error| refused(&error))?;
            tokio::spawn(drive(connection, Arc::clone(&announced)));
            client
        });
        Ok((client, announced))
    }

    pub(super) async fn cancel(&self, token: CancelToken) -> std::result::Result<(), tokio_postgres::Error> {
        with_transport!(self, SqlState::default(), |tls| token.cancel_query(tls).await)
    }
}

/// Returns the value of `tutord.node` for a process, which its rows of the outbox contain.
pub(super) fn node_name(node: u64) -> String {
    format!("{node:016x}")
}

/// Drives the connection of a plain client until its end.
async fn drive<S, T>(mut connection: tokio_postgres::Connection<S, T>, announced: Arc<Notify>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
        if let AsyncMessage::Notification(_) = message {
            announced.notify_one();
        }
    }
    announced.notify_one();
}

/// Opens a connection with tutord's settings.
///
/// # Errors
/// Returns a [`ConnectionError`] that contains an [`Error`].
pub async fn connect(connector: &Connector) -> std::result::Result<Connection, ConnectionError> {
    Ok(connect_to(connector, false).await?.0)
}

/// Opens a connection and, if requested, reads the identity of its database.
pub(super) async fn connect_to(
    connector: &Connector,
    identify: bool,
) -> std::result::Result<(Connection, Option<DatabaseIdentity>), ConnectionError> {
    let state = SqlState::default();
    // By statement, not as a start-up option: poolers such as PgBouncer refuse those.
    let mut settings = format!("SET statement_timeout = {}", connector.statement_timeout.as_millis());
    if let Some(node) = connector.node {
        // Writing to a String cannot fail.
        let _ = write!(settings, "; SET tutord.node = '{}'", node_name(node));
    }
    let (mut conn, identity) = with_transport!(connector, state.clone(), |tls| {
        let (client, connection) = connector.config.connect(tls).await.map_err(|error| carried(&error))?;
        set_up(client, connection, &settings, identify).await?
    });
    let traffic = Arc::<Traffic>::default();
    conn.set_instrumentation(Observer { traffic: Arc::clone(&traffic), watch: connector.watch.instrumentation() });
    Ok((Connection::new(conn, state, traffic, connector.comments), identity))
}

/// Returns the error of a failed connection attempt.
fn refused(error: &tokio_postgres::Error) -> Error {
    match error.code().and_then(|code| Refusal::from_sqlstate(code.code())) {
        Some(refusal) => Error::Refused(refusal, describe(error)),
        None => Error::Unavailable(describe(error)),
    }
}

/// Converts [`refused`] to diesel's type, which can carry the kind only as a boxed error.
fn carried(error: &tokio_postgres::Error) -> ConnectionError {
    ConnectionError::CouldntSetupConfiguration(diesel::result::Error::QueryBuilderError(Box::new(refused(error))))
}

/// Extracts the error of a failed [`connect`] from diesel's type.
pub(super) fn connection_error(error: ConnectionError) -> Error {
    match error {
        ConnectionError::CouldntSetupConfiguration(diesel::result::Error::QueryBuilderError(inner)) => {
            match inner.downcast::<Error>() {
                Ok(error) => *error,
                Err(other) => Error::Unavailable(other.to_string()),
            }
        }
        ConnectionError::CouldntSetupConfiguration(error) => error.into(),
        other => Error::Unavailable(other.to_string()),
    }
}

/// Sends the settings, together with the query for the identity.
async fn set_up<S>(
    client: Client,
    mut connection: tokio_postgres::Connection<Socket, S>,
    settings: &str,
    identify: bool,
) -> std::result::Result<(AsyncPgConnection, Option<DatabaseIdentity>), ConnectionError>
where
    S: TlsStream + Unpin + Send + 'static,
{
    let answer = async {
        if identify {
            match client.simple_query(&format!("{settings}; {}", identity::READ)).await {
                Ok(answer) => return Ok(identity::parse(&answer)),
                // The settings went with it.
                Err(error) if identity::is_refused(&error) => {}
                Err(error) => return Err(error),
            }
        }
        client.simple_query(settings).await.map(|_| None)
    };
    let identity = tokio::select! {
        answer = answer => answer.map_err(|error| carried(&error))?,
        _ = &mut connection => return Err(ConnectionError::BadConnection("the server closed the connection".to_owned())),
    };
    Ok((AsyncPgConnection::try_from_client_and_connection(client, connection).await?, identity))
}

/// Describes an error with its source, because the message of tokio-postgres contains only the kind.
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn tls(root_file: Option<&str>) -> Result<MakeRustlsConnect> {
    let invalid = |what: String| Error::InvalidUrl(format!("sslrootcert: {what}"));
    let mut roots = rustls::RootCertStore::empty();
    match root_file {
        Some(path) => {
            let certificates = CertificateDer::pem_file_iter(path).map_err(|error| invalid(error.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| invalid(error.to_string()))?;
                roots.add(certificate).map_err(|error| invalid(error.to_string()))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(invalid("the file contains no CA certificate".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
