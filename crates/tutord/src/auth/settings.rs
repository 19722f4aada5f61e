//! The settings of tokens and cookies.

use std::time::Duration;

use clap::Args;

/// Tokens and cookies.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Authentication")]
pub struct AuthSettings {
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

impl AuthSettings {
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
