//! Configuration: flags and environment variables, each with a default that works.
//!
//! clap rejects an invalid value with a message that names the flag and the variable. `tutord serve --help` lists all
//! of them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use axum::http::HeaderValue;
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use lettre::message::Mailbox;
use querywatch::Watch;
use readthrough::Identity;
use tutord_core::operations::DatabaseIdentity;
use tutord_db::DatabaseOptions;
use url::Url;

use crate::http::rate_limit::{Rule, Windows};
use crate::ops::plans::Plans;

mod llm;
mod values;

pub use llm::{ExtraBody, LlmConfig};
pub use values::Secret;
use values::{DATABASE_URL, REDIS_URL, SMTP_URL, cache_prefix, http_url, network, origin, public_url, sender, size};

/// The configuration of `serve` and `demo`.
#[derive(Debug, Clone, Args)]
pub struct Config {
    #[command(flatten)]
    /// Listening, limits and headers.
    pub http: HttpConfig,
    #[command(flatten)]
    /// The database and its pool.
    pub database: DatabaseConfig,
    #[command(flatten)]
    /// Tokens and cookies.
    pub auth: AuthConfig,
    #[command(flatten)]
    /// The model.
    pub llm: LlmConfig,
    #[command(flatten)]
    /// Mails.
    pub mail: MailConfig,
    #[command(flatten)]
    /// Rate limits.
    pub rate_limits: RateLimitConfig,
    #[command(flatten)]
    /// The cache.
    pub cache: CacheConfig,
    #[command(flatten)]
    /// Thresholds and comments of SQL statements.
    pub watch: WatchConfig,
}

/// Thresholds and comments of SQL statements.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Statements")]
pub struct WatchConfig {
    /// Duration in milliseconds from which a statement is logged, counted and listed as slow.
    #[arg(long, env = "SLOW_QUERY_THRESHOLD_MS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub slow_query_threshold_ms: u64,
    /// Maximum number of statements of one shape that a request may issue; a request with more is reported as a finding
    /// (N+1).
    #[arg(long, env = "N_PLUS_ONE_LIMIT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub n_plus_one_limit: u32,
    /// Append a comment with the request id and route to each statement, for PostgreSQL's log, auto_explain and
    /// pg_stat_activity. Disables the reuse of prepared statements, which costs one more round trip for each statement.
    #[arg(long, env = "SQL_COMMENTS", default_value_t = false, action = clap::ArgAction::Set)]
    pub sql_comments: bool,
}

impl WatchConfig {
    /// Builds the watch over the process's statements, and the collector of plans of slow statements.
    pub fn build(&self) -> (Watch, Plans) {
        let plans = Plans::default();
        let watch = Watch::builder()
            .slow_threshold(Duration::from_millis(self.slow_query_threshold_ms))
            .repeat_limit(self.n_plus_one_limit)
            .sink(plans.clone());
        #[cfg(feature = "otlp")]
        let watch = watch.sink(crate::ops::otlp::Statements);
        (watch.build(), plans)
    }
}

/// Cache backends and times to live.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cache")]
pub struct CacheConfig {
    /// URL of the Redis that the processes share as a cache: redis://, rediss://, redis+sentinel://host,host/master or
    /// redis+cluster://host,host. `doctor` and the readiness route check it. Without it, tutord caches in the memory of
    /// the process on SQLite, and caches nothing on PostgreSQL, where other processes can change the rows.
    #[arg(long, env = "REDIS_URL", hide_env_values = true, value_parser = REDIS_URL)]
    pub redis_url: Option<Secret>,
    /// Enable the cache.
    #[arg(long, env = "CACHE_ENABLED", default_value_t = true, action = clap::ArgAction::Set)]
    pub cache_enabled: bool,
    /// Enable the in-process cache (L1) in front of Redis. Without it each read goes to Redis, and never returns a
    /// value that another process replaced a moment ago.
    #[arg(long, env = "CACHE_L1", default_value_t = true, action = clap::ArgAction::Set)]
    pub cache_l1: bool,
    /// Prefix of all keys in Redis; needed if databases that share a Redis have the same identity, such as two copies
    /// of one data directory. At most 32 ASCII letters, digits, '-', '_' and '.'.
    #[arg(long, env = "CACHE_PREFIX", default_value = "", value_parser = cache_prefix)]
    pub cache_prefix: String,
    /// Timeout of a Redis command in milliseconds, after which tutord continues without Redis.
    #[arg(long, env = "REDIS_TIMEOUT_MS", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub redis_timeout_ms: u64,
    /// Time to live of cached profiles, in seconds.
    #[arg(long = "user-profile-cache-ttl", env = "USER_PROFILE_CACHE_TTL", default_value_t = 300, value_parser = ttl())]
    pub user_profile_ttl: u64,
    /// Time to live of cached sessions, in seconds.
    #[arg(long = "session-cache-ttl", env = "SESSION_CACHE_TTL", default_value_t = 300, value_parser = ttl())]
    pub session_ttl: u64,
    /// Time to live of cached exercises, in seconds.
    #[arg(long = "exercise-cache-ttl", env = "EXERCISE_CACHE_TTL", default_value_t = 3_600, value_parser = ttl())]
    pub exercise_ttl: u64,
    /// Time to live of cached lists of a student's exercises, in seconds.
    #[arg(long = "exercise-list-cache-ttl", env = "EXERCISE_LIST_CACHE_TTL", default_value_t = 120, value_parser = ttl())]
    pub exercise_list_ttl: u64,
    /// Time to live of cached conversation lists and of the newest messages of conversations, in seconds.
    #[arg(long = "conversation-cache-ttl", env = "CONVERSATION_CACHE_TTL", default_value_t = 120, value_parser = ttl())]
    pub conversation_ttl: u64,
    /// Time to live of a student's cached statistics and achievements, in seconds.
    #[arg(long = "progress-cache-ttl", env = "PROGRESS_CACHE_TTL", default_value_t = 300, value_parser = ttl())]
    pub progress_ttl: u64,
    /// Time to live of cached leaderboard pages, in seconds.
    #[arg(long = "leaderboard-cache-ttl", env = "LEADERBOARD_CACHE_TTL", default_value_t = 60, value_parser = ttl())]
    pub leaderboard_ttl: u64,
}

/// Returns a parser of seconds, from one second to one week.
fn ttl() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=604_800)
}

impl CacheConfig {
    /// Returns the longest configured time to live, in seconds.
    pub(crate) fn longest_ttl(&self) -> u64 {
        [
            self.user_profile_ttl,
            self.session_ttl,
            self.exercise_ttl,
            self.exercise_list_ttl,
            self.conversation_ttl,
            self.progress_ttl,
            self.leaderboard_ttl,
        ]
        .into_iter()
        .max()
        .unwrap_or_default()
    }

    /// Builds the cache for a database of this kind. Without an identity the cache stays empty until one is set.
    ///
    /// # Errors
    /// Returns an error if the Redis URL is invalid.
    pub fn build(
        &self,
        backend: &str,
        identity: Option<&DatabaseIdentity>,
    ) -> Result<readthrough::Cache, readthrough::ConfigError> {
        let mut builder = readthrough::Cache::builder()
            .prefix(&self.cache_prefix)
            .identity(identity.map(|identity| Identity::new(&identity.state, &identity.lineage)).transpose()?)
            .enabled(self.cache_enabled && (self.redis_url.is_some() || backend == "sqlite"))
            .redis_timeout(Duration::from_millis(self.redis_timeout_ms));
        if let Some(url) = &self.redis_url {
            builder = builder.redis(url.reveal());
        }
        builder.build()
    }
}

/// The URL of the service for a browser on the same machine, without the port of LISTEN_ADDR.
#[expect(clippy::expect_used, reason = "a constant")]
static LOCAL: LazyLock<Url> = LazyLock::new(|| Url::parse("http://localhost").expect("an address"));

/// Listening, limits and headers.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HTTP")]
pub struct HttpConfig {
    /// Address and port to listen on.
    #[arg(long, env = "LISTEN_ADDR", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Public URL of tutord, for links in mails. An https URL enables HSTS and Secure cookies. Default:
    /// http://localhost with the port of LISTEN_ADDR.
    #[arg(long, env = "PUBLIC_URL", value_parser = public_url)]
    public_url: Option<Url>,
    /// Comma-separated origins that may send requests with credentials (CORS). Default: the origin of PUBLIC_URL.
    #[arg(long, env = "CORS_ORIGINS", value_delimiter = ',', value_parser = origin)]
    pub cors_origins: Vec<HeaderValue>,
    /// Comma-separated addresses and networks (10.0.0.0/8) of trusted proxies, which may set X-Forwarded-For or
    /// Forwarded.
    #[arg(long, env = "TRUSTED_PROXIES", value_delimiter = ',', value_parser = network)]
    pub trusted_proxies: Vec<IpNet>,
    /// Maximum size of a request body in bytes.
    #[arg(long, env = "MAX_BODY_BYTES", default_value_t = 1_048_576, value_parser = size(65_536, 1_073_741_824))]
    pub max_body_bytes: usize,
    /// Timeout of a request in seconds; replies of the model have LLM_TIMEOUT_SECONDS.
    #[arg(long, env = "REQUEST_TIMEOUT_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub request_timeout_seconds: u64,
    /// Time in seconds for open requests and streams to complete during shutdown.
    #[arg(long, env = "SHUTDOWN_TIMEOUT_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    pub shutdown_timeout_seconds: u64,
    /// Maximum number of open client connections. Default: as many as the limit of file descriptors allows, at most
    /// 10,000.
    #[arg(long, env = "MAX_CONNECTIONS", value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    pub max_connections: Option<u32>,
    /// Time in seconds after which an idle connection is closed. A proxy in front of tutord must close its idle
    /// connections earlier.
    #[arg(long, env = "IDLE_TIMEOUT_SECONDS", default_value_t = 75, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub idle_timeout_seconds: u64,
    /// Under overload, reject requests that can't be served in time with 503 at once.
    #[arg(long, env = "LOAD_SHEDDING", default_value_t = true, action = clap::ArgAction::Set)]
    pub load_shedding: bool,
    /// Send a Server-Timing header with the duration and the number of statements of each request.
    #[arg(long, env = "SERVER_TIMING", default_value_t = false, action = clap::ArgAction::Set)]
    pub server_timing: bool,
}

/// The database and its pool.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Database")]
pub struct DatabaseConfig {
    /// Database URL: postgres://USER:PASSWORD@HOST/DATABASE[?sslmode=require] or sqlite://PATH; default: SQLite in
    /// DATA_DIR.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_parser = DATABASE_URL)]
    pub database_url: Option<Secret>,
    /// Directory for the SQLite database and for mails that are written to files.
    #[arg(long, env = "DATA_DIR", default_value = "./data")]
    pub data_dir: PathBuf,
    /// Number of database connections that stay open. On SQLite, the number of read connections, limited to the number
    /// of cores plus one.
    #[arg(long, env = "DATABASE_POOL_SIZE", default_value_t = 10, value_parser = size(1, 10_000))]
    pub database_pool_size: usize,
    /// Maximum number of additional connections under load, closed after some idle seconds (PostgreSQL).
    #[arg(long, env = "DATABASE_MAX_OVERFLOW", default_value_t = 10, value_parser = size(0, 10_000))]
    pub database_max_overflow: usize,
    /// Maximum wait for a database connection in milliseconds, after which the request gets a 503.
    #[arg(long, env = "DATABASE_ACQUIRE_TIMEOUT_MS", default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub database_acquire_timeout_ms: u64,
    /// Timeout of one SQL statement in milliseconds.
    #[arg(long, env = "DATABASE_STATEMENT_TIMEOUT_MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub database_statement_timeout_ms: u64,
}

/// Tokens and cookies.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Authentication")]
pub struct AuthConfig {
    /// Lifetime of an access token in seconds.
    #[arg(long, env = "ACCESS_TOKEN_TTL_SECONDS", default_value_t = 3_600, value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub access_token_ttl_seconds: u64,
    /// Lifetime of a refresh token in days.
    #[arg(long, env = "REFRESH_TOKEN_TTL_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_650))]
    pub refresh_token_ttl_days: u64,
    /// Grace period in seconds in which a refresh token is still accepted after its successor, or another token of its
    /// generation, was used; browser tabs that refresh at the same time need it.
    #[arg(long, env = "REFRESH_GRACE_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=600))]
    pub refresh_grace_seconds: u64,
    /// Set the Secure attribute of cookies. Default: true, unless PUBLIC_URL is an http URL of localhost,
    /// 127.0.0.1 or ::1.
    #[arg(long, env = "COOKIE_SECURE", action = clap::ArgAction::Set)]
    pub cookie_secure: Option<bool>,
}

/// Mails.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Mail")]
pub struct MailConfig {
    /// URL of the mail server: smtps://USER:PASSWORD@HOST or smtp://HOST:25; without it, mails are written to
    /// DATA_DIR/mail.
    #[arg(long, env = "SMTP_URL", hide_env_values = true, value_parser = SMTP_URL)]
    pub smtp_url: Option<Secret>,
    /// Sender address of mails.
    #[arg(long, env = "MAIL_FROM", default_value = "tutord <no-reply@localhost>", value_parser = sender)]
    pub mail_from: Mailbox,
}

/// Requests per window, such as `10/min,100/h`; `none` disables a limit.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Rate limits")]
pub struct RateLimitConfig {
    /// Enable the rate limits.
    #[arg(long = "rate-limit-enabled", env = "RATE_LIMIT_ENABLED", default_value_t = true, action = clap::ArgAction::Set)]
    pub enabled: bool,
    /// Registrations from one client address.
    #[arg(long = "rate-limit-register", env = "RATE_LIMIT_REGISTER", default_value = "5/min,20/h")]
    pub register: Windows,
    /// Log-ins from one client address.
    #[arg(long = "rate-limit-login", env = "RATE_LIMIT_LOGIN", default_value = "10/min,100/h")]
    pub login: Windows,
    /// Failed log-ins to one account from one trusted browser, or from one other client address.
    #[arg(long = "rate-limit-login-failures", env = "RATE_LIMIT_LOGIN_FAILURES", default_value = "10/h")]
    pub login_failures: Windows,
    /// Failed log-ins to one account from all untrusted browsers together.
    #[arg(
        long = "rate-limit-login-failures-untrusted",
        env = "RATE_LIMIT_LOGIN_FAILURES_UNTRUSTED",
        default_value = "50/h"
    )]
    pub login_failures_untrusted: Windows,
    /// Requests for a password reset from one client address.
    #[arg(long = "rate-limit-reset-request", env = "RATE_LIMIT_RESET_REQUEST", default_value = "3/min,10/h")]
    pub reset_request: Windows,
    /// Attempts to confirm a password reset from one client address.
    #[arg(long = "rate-limit-reset-confirm", env = "RATE_LIMIT_RESET_CONFIRM", default_value = "3/min,10/h")]
    pub reset_confirm: Windows,
    /// Requests for another verification mail from one client address.
    #[arg(
        long = "rate-limit-resend-verification",
        env = "RATE_LIMIT_RESEND_VERIFICATION",
        default_value = "3/min,15/h"
    )]
    pub resend_verification: Windows,
    /// Messages to the tutor from one student.
    #[arg(long = "rate-limit-chat", env = "RATE_LIMIT_CHAT", default_value = "10/min,200/day")]
    pub chat: Windows,
    /// Messages to the tutor from one admin.
    #[arg(long = "rate-limit-chat-admin", env = "RATE_LIMIT_CHAT_ADMIN", default_value = "30/min,1000/day")]
    pub chat_admin: Windows,
    /// Exercise hints for one user.
    #[arg(long = "rate-limit-hint", env = "RATE_LIMIT_HINT", default_value = "10/day")]
    pub hint: Windows,
    /// Exercises generated by the model for one student.
    #[arg(long = "rate-limit-generate", env = "RATE_LIMIT_GENERATE", default_value = "5/day")]
    pub generate: Windows,
    /// Exercises generated by the model for one admin.
    #[arg(long = "rate-limit-generate-admin", env = "RATE_LIMIT_GENERATE_ADMIN", default_value = "20/day")]
    pub generate_admin: Windows,
    /// Solutions submitted by one user.
    #[arg(long = "rate-limit-submit", env = "RATE_LIMIT_SUBMIT", default_value = "10/min,100/day")]
    pub submit: Windows,
    /// Exports of the history of one user.
    #[arg(long = "rate-limit-export", env = "RATE_LIMIT_EXPORT", default_value = "10/h")]
    pub export: Windows,
    /// OAuth log-in requests from one client address.
    #[arg(long = "rate-limit-oauth", env = "RATE_LIMIT_OAUTH", default_value = "60/min")]
    pub oauth: Windows,
    /// All other requests from one user, or from one client address before log-in.
    #[arg(long = "rate-limit-other", env = "RATE_LIMIT_OTHER", default_value = "120/min")]
    pub other: Windows,
}

/// Format and level of the log.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logging")]
pub struct LogConfig {
    /// Format of log lines: readable text, or one JSON object for each event.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Pretty, global = true)]
    pub log_format: LogFormat,
    /// Log filter, such as `info` or `tutord=debug,warn`.
    #[arg(long, env = "RUST_LOG", default_value = "info", global = true)]
    pub log_filter: String,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Readable text.
    Pretty,
    /// JSON, for log collectors.
    Json,
}

impl HttpConfig {
    /// Returns [`request_timeout_seconds`](Self::request_timeout_seconds) as a duration.
    pub const fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout_seconds)
    }

    /// Returns `true` if the address belongs to a trusted proxy.
    pub fn trusts_proxy(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted_proxies.iter().any(|network| network.contains(&address))
    }

    /// Returns the public URL of this service.
    pub fn public_url(&self) -> Url {
        let mut local = self.public_url.clone().unwrap_or_else(|| LOCAL.clone());
        if self.public_url.is_none() {
            // Setting the port can't fail: the URL has a host.
            let _ = local.set_port(Some(self.listen.port()));
        }
        local
    }

    /// Returns `true` if other machines can connect, but links in mails point to localhost.
    pub fn lacks_public_url(&self) -> bool {
        self.public_url.is_none() && !self.listen.ip().is_loopback()
    }

    /// Returns the origins that may send credentials: the configured list, or the origin of
    /// [`public_url`](Self::public_url).
    pub fn allowed_origins(&self) -> Vec<HeaderValue> {
        if self.cors_origins.is_empty() {
            self.public_url().origin().ascii_serialization().parse().into_iter().collect()
        } else {
            self.cors_origins.clone()
        }
    }

    /// Returns `true` if the public URL is `https`.
    pub fn uses_tls(&self) -> bool {
        self.public_url().scheme() == "https"
    }

    fn is_local(&self) -> bool {
        !self.uses_tls() && matches!(self.public_url().host_str(), Some("localhost" | "127.0.0.1" | "[::1]"))
    }
}

impl DatabaseConfig {
    /// Returns the URL of the database.
    pub fn url(&self) -> String {
        self.database_url.as_ref().map_or_else(
            || format!("sqlite://{}", self.data_dir.join("tutord.db").display()),
            |url| url.reveal().to_owned(),
        )
    }

    /// Returns the options of the store's connections.
    pub fn options(&self) -> DatabaseOptions {
        DatabaseOptions {
            pool_size: self.database_pool_size,
            max_overflow: self.database_max_overflow,
            acquire_timeout: Duration::from_millis(self.database_acquire_timeout_ms),
            statement_timeout: Duration::from_millis(self.database_statement_timeout_ms),
            creates_directory: self.database_url.is_none(),
            ..DatabaseOptions::default()
        }
    }
}

impl AuthConfig {
    /// Returns the lifetime of an access token.
    pub const fn access_ttl(&self) -> Duration {
        Duration::from_secs(self.access_token_ttl_seconds)
    }

    /// Returns the lifetime of a refresh token.
    pub const fn refresh_ttl(&self) -> Duration {
        Duration::from_secs(self.refresh_token_ttl_days * 24 * 60 * 60)
    }

    /// Returns how long a superseded refresh token is still accepted.
    pub const fn refresh_grace(&self) -> Duration {
        Duration::from_secs(self.refresh_grace_seconds)
    }
}

impl Config {
    /// Returns the store options of a serving process. With Redis, the store also records the writes that must be
    /// invalidated.
    pub fn store_options(&self, watch: &Watch) -> DatabaseOptions {
        let shared = self.cache.cache_enabled && self.cache.redis_url.is_some();
        DatabaseOptions {
            node: shared.then(rand::random),
            serves: true,
            watch: watch.clone(),
            comments: self.watch.sql_comments,
            ..self.database.options()
        }
    }

    /// Returns `true` if cookies have the Secure attribute.
    pub fn secure_cookies(&self) -> bool {
        self.auth.cookie_secure.unwrap_or(!self.http.is_local())
    }
}

impl RateLimitConfig {
    /// Returns the windows of a rule.
    pub const fn windows(&self, rule: Rule) -> &Windows {
        match rule {
            Rule::Register => &self.register,
            Rule::Login => &self.login,
            Rule::LoginFailures => &self.login_failures,
            Rule::LoginFailuresUntrusted => &self.login_failures_untrusted,
            Rule::ResetRequest => &self.reset_request,
            Rule::ResetConfirm => &self.reset_confirm,
            Rule::ResendVerification => &self.resend_verification,
            Rule::Chat => &self.chat,
            Rule::ChatAdmin => &self.chat_admin,
            Rule::Hint => &self.hint,
            Rule::Generate => &self.generate,
            Rule::GenerateAdmin => &self.generate_admin,
            Rule::Submit => &self.submit,
            Rule::Export => &self.export,
            Rule::OAuth => &self.oauth,
            Rule::Other => &self.other,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        config: Config,
    }

    impl Default for RateLimitConfig {
        fn default() -> Self {
            Cli::try_parse_from(["tutord"]).unwrap().config.rate_limits
        }
    }

    fn refused(args: &[&str]) -> String {
        Cli::try_parse_from([&["tutord"], args].concat()).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_work() {
        let config = Cli::try_parse_from(["tutord"]).unwrap().config;
        assert_eq!(config.database.url(), "sqlite://./data/tutord.db");
        assert!(!config.secure_cookies());
        assert_eq!(config.rate_limits.chat.to_string(), "10/min,200/day");
    }

    #[test]
    fn a_wrong_value_is_named() {
        for (args, name) in [
            (["--listen", "nowhere"], "--listen"),
            (["--database-pool-size", "0"], "--database-pool-size"),
            (["--rate-limit-login", "10/week"], "--rate-limit-login"),
            (["--cors-origins", "https://a.example/path"], "--cors-origins"),
            (["--llm-base-url", "http://127.0.0.1:1"], "--llm-model"),
            (["--llm-model", "m"], "--llm-base-url"),
            (["--trusted-proxies", "10.0.0.0/33"], "--trusted-proxies"),
            (["--trusted-proxies", "proxy.example"], "--trusted-proxies"),
            (["--cache-prefix", "a:b"], "--cache-prefix"),
        ] {
            let message = refused(&args);
            assert!(message.contains(name), "{message}");
        }
    }

    #[test]
    fn proxies_are_addresses_and_networks() {
        let list = "192.0.2.1,10.0.0.0/8,fd00::/8,::ffff:192.0.2.2";
        let http = Cli::try_parse_from(["tutord", "--trusted-proxies", list]).unwrap().config.http;
        for (address, trusted) in [
            ("192.0.2.1", true),
            ("192.0.2.2", true),
            ("192.0.2.3", false),
            ("10.255.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("fd12::1", true),
            ("fe80::1", false),
        ] {
            assert_eq!(http.trusts_proxy(address.parse().unwrap()), trusted, "{address}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let args = ["tutord", "--llm-api-key", "sk-1", "--llm-base-url", "http://a", "--llm-model", "m"];
        let config = Cli::try_parse_from(args).unwrap().config;
        assert!(!format!("{config:?}").contains("sk-1"));
    }

    #[test]
    fn cookies_are_secure_unless_the_frontend_is_local() {
        let secure = |url| Cli::try_parse_from(["tutord", "--public-url", url]).unwrap().config.secure_cookies();
        assert!(secure("https://tutor.example"));
        assert!(secure("http://tutor.example"));
        assert!(!secure("http://localhost:3000"));
    }
}
