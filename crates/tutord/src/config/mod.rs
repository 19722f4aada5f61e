//! The configuration: flags and environment variables, all with defaults.
//!
//! clap rejects an invalid value with a message that names the flag and the variable. `tutord serve --help` lists all
//! settings.

mod database;
mod log;

use clap::Args;
use querywatch::Watch;
use tutord_db::DatabaseOptions;

use crate::auth::AuthSettings;
use crate::cache::CacheSettings;
use crate::http::rate_limit::RateLimitSettings;
use crate::http::settings::HttpSettings;
use crate::llm::LlmSettings;
use crate::mail::MailSettings;
use crate::telemetry::WatchSettings;

pub use database::DatabaseSettings;
pub use log::{LogFormat, LogSettings};

/// The configuration of `serve` and `demo`.
#[derive(Debug, Clone, Args)]
pub struct Config {
    #[command(flatten)]
    /// Listening, limits and headers.
    pub http: HttpSettings,
    #[command(flatten)]
    /// The database and its pool.
    pub database: DatabaseSettings,
    #[command(flatten)]
    /// Tokens and cookies.
    pub auth: AuthSettings,
    #[command(flatten)]
    /// The model.
    pub llm: LlmSettings,
    #[command(flatten)]
    /// Mails.
    pub mail: MailSettings,
    #[command(flatten)]
    /// Rate limits.
    pub rate_limits: RateLimitSettings,
    #[command(flatten)]
    /// The cache.
    pub cache: CacheSettings,
    #[command(flatten)]
    /// Thresholds and comments of SQL statements.
    pub watch: WatchSettings,
}

impl Config {
    /// Returns the store options of a serving process. With Redis, the store records all writes in the outbox.
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

    /// Returns whether cookies get the Secure attribute.
    pub fn secure_cookies(&self) -> bool {
        self.auth.cookie_secure.unwrap_or(!self.http.is_local())
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

    fn error_of(args: &[&str]) -> String {
        Cli::try_parse_from([&["tutord"], args].concat()).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_valid() {
        let config = Cli::try_parse_from(["tutord"]).unwrap().config;
        assert_eq!(config.database.url(), "sqlite://./data/tutord.db");
        assert!(!config.secure_cookies());
        assert_eq!(config.rate_limits.chat.to_string(), "10/min,200/day");
    }

    #[test]
    fn errors_name_the_setting() {
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
            let message = error_of(&args);
            assert!(message.contains(name), "{message}");
        }
    }

    #[test]
    fn proxies_can_be_addresses_and_networks() {
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
    fn debug_output_contains_no_secrets() {
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
