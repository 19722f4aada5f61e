//! The options of a test's server.

use std::fmt::Display;

use clap::Parser;
use testbed::{FakeModel, Postgres, Redis, SmtpSink};
use tokio::net::TcpListener;
use tutord::config::Config;
use tutord::state::AppState;

use super::TestApp;
use super::fixtures::store;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    config: Config,
}

#[derive(Clone)]
pub(super) enum Database {
    /// A new SQLite file.
    Sqlite,
    /// A new database on the shared PostgreSQL.
    Postgres,
    /// An existing database.
    Url(String),
}

/// Options of a [`TestApp`].
#[derive(Clone)]
pub(crate) struct TestAppBuilder {
    database: Database,
    has_model: bool,
    has_cache: bool,
    limits_requests: bool,
    waits_for_redis: bool,
    /// Flags of `tutord serve` with their values.
    flags: Vec<(&'static str, String)>,
}

/// Declares a method for each option: its name, the type of its value, and its flag.
macro_rules! options {
    ($($name:ident($value:ty) => $flag:literal;)+) => {
        impl TestAppBuilder {
            $(pub(crate) fn $name(self, value: $value) -> Self {
                self.set($flag, &value)
            })+
        }
    };
}

options! {
    public_url(&str) => "--public-url";
    cors_origins(&str) => "--cors-origins";
    trusted_proxies(&str) => "--trusted-proxies";
    max_connections(u32) => "--max-connections";
    idle_timeout_seconds(u64) => "--idle-timeout-seconds";
    request_timeout_seconds(u64) => "--request-timeout-seconds";
    shutdown_timeout_seconds(u64) => "--shutdown-timeout-seconds";
    access_token_ttl_seconds(u64) => "--access-token-ttl-seconds";
    refresh_grace_seconds(u64) => "--refresh-grace-seconds";
    pool_size(usize) => "--database-pool-size";
    max_overflow(usize) => "--database-max-overflow";
    acquire_timeout_ms(u64) => "--database-acquire-timeout-ms";
    statement_timeout_ms(u64) => "--database-statement-timeout-ms";
    slow_query_threshold_ms(u64) => "--slow-query-threshold-ms";
    redis_url(&str) => "--redis-url";
    cache_l1(bool) => "--cache-l1";
    llm_timeout_seconds(u64) => "--llm-timeout-seconds";
    llm_context_tokens(u32) => "--llm-context-tokens";
    llm_max_reply_tokens(u32) => "--llm-max-reply-tokens";
    llm_system_role(&str) => "--llm-system-role";
    llm_extra_body(&str) => "--llm-extra-body";
    llm_cache_ttl_seconds(u64) => "--llm-cache-ttl";
    llm_cache_max_temperature(f64) => "--llm-cache-max-temperature";
    limit_logins(&str) => "--rate-limit-login";
    limit_login_failures(&str) => "--rate-limit-login-failures";
    limit_untrusted_login_failures(&str) => "--rate-limit-login-failures-untrusted";
    limit_oauth(&str) => "--rate-limit-oauth";
    limit_chat(&str) => "--rate-limit-chat";
    limit_chat_of_admins(&str) => "--rate-limit-chat-admin";
    limit_other_requests(&str) => "--rate-limit-other";
}

impl TestAppBuilder {
    pub(super) fn new(database: Database) -> Self {
        Self {
            database,
            has_model: true,
            has_cache: true,
            limits_requests: false,
            waits_for_redis: false,
            flags: vec![
                ("--llm-max-retries", "0".to_owned()),
                ("--server-timing", "true".to_owned()),
                // A busy machine must not look like a Redis that is down.
                ("--redis-timeout-ms", "2000".to_owned()),
                // A busy machine must not look like an overloaded server.
                ("--load-shedding", "false".to_owned()),
            ],
        }
    }

    fn set(mut self, flag: &'static str, value: &dyn Display) -> Self {
        self.flags.retain(|(name, _)| *name != flag);
        self.flags.push((flag, value.to_string()));
        self
    }

    /// Configures no model.
    pub(crate) fn without_model(mut self) -> Self {
        self.has_model = false;
        self
    }

    /// Disables the cache.
    pub(crate) fn without_cache(mut self) -> Self {
        self.has_cache = false;
        self.set("--cache-enabled", &false)
    }

    /// Uses this Redis; [`start`](Self::start) waits until the server is connected to it.
    pub(crate) fn redis(mut self, redis: &Redis) -> Self {
        self.waits_for_redis = true;
        self.redis_url(&redis.url())
    }

    /// Enables the rate limits.
    pub(crate) fn rate_limits(mut self) -> Self {
        self.limits_requests = true;
        self
    }

    /// Enables load shedding.
    pub(crate) fn load_shedding(self) -> Self {
        self.set("--load-shedding", &true)
    }

    /// Appends the request id and the route to each statement as a comment.
    pub(crate) fn sql_comments(self) -> Self {
        self.set("--sql-comments", &true)
    }

    /// Sends mails to this mail server.
    pub(crate) fn mail_server(self, sink: &SmtpSink) -> Self {
        self.set("--smtp-url", &sink.url()).set("--mail-from", &"tutor@example.com")
    }

    /// Starts two servers with these options on one database.
    pub(crate) async fn start_two(self) -> [TestApp; 2] {
        let second = self.clone();
        let first = self.start().await;
        let second = Self { database: Database::Url(first.database_url()), ..second };
        [first, second.start().await]
    }

    /// Starts the server.
    pub(crate) async fn start(mut self) -> TestApp {
        // Another test of this process may have installed the provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let model = FakeModel::start().await.unwrap();
        let url = match &self.database {
            Database::Sqlite => format!("sqlite://{}", directory.path().join("test.db").display()),
            Database::Postgres => {
                let postgres = Postgres::shared().await.unwrap();
                postgres.database_like("tutord_api_template", store::migrate).await.unwrap()
            }
            Database::Url(url) => url.clone(),
        };
        let has_redis = self.flags.iter().any(|(flag, _)| *flag == "--redis-url");
        let starts_redis = matches!(self.database, Database::Postgres) && self.has_cache && !has_redis;
        let redis = if starts_redis { Some(Redis::start().await.unwrap()) } else { None };
        if let Some(redis) = &redis {
            self = self.redis(redis);
        }
        if self.has_model {
            self = self.set("--llm-base-url", &model.base_url()).set("--llm-model", &"fake-1");
        }
        let limits_requests = self.limits_requests;
        self = self
            .set("--database-url", &url)
            .set("--data-dir", &directory.path().display())
            .set("--rate-limit-enabled", &limits_requests);

        let arguments = self.flags.iter().flat_map(|(flag, value)| [*flag, value]);
        let config = Cli::parse_from(["tutord"].into_iter().chain(arguments)).config;
        let (watch, plans) = config.watch.build();
        let store = tutord_db::open(&config.database.url(), &config.store_options(&watch)).await.unwrap();
        store.migrate().await.unwrap();
        let app = AppState::start(config, (watch.clone(), plans), store, false).unwrap();
        if self.waits_for_redis {
            app.cache.until_connected().await;
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let server = app.clone();
        tokio::spawn(async move { tutord::server::serve(server, listener, axum::Router::new()).await });
        // A client is expensive to create. It keeps no connections, because tests stop servers.
        let is_compressed = app.operations.backend() == "postgres";
        let client = reqwest::Client::builder().pool_max_idle_per_host(0).gzip(is_compressed).build().unwrap();
        TestApp { app, model, base_url, directory, client, _guard: watch.fail_on_findings(), _redis: redis }
    }
}
