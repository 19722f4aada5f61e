//! Parsers of values, whose errors say what is expected.

use std::ffi::OsStr;
use std::net::IpAddr;

use axum::http::HeaderValue;
use clap::builder::{StringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Command};
use ipnet::IpNet;
use lettre::message::Mailbox;
use url::Url;

/// A secret string, which `Debug` masks.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Returns the secret in plain text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
    address.or_else(|_| text.parse()).map_err(|_| "must be an IP address or a network such as 10.0.0.0/8".to_owned())
}

pub(super) fn origin(text: &str) -> Result<HeaderValue, String> {
    let is_origin = Url::parse(text).is_ok_and(|url| url.origin().ascii_serialization() == text);
    if !is_origin {
        return Err("must be scheme://host[:port] without a path, such as https://app.example.com".to_owned());
    }
    text.parse().map_err(|_| "must be ASCII".to_owned())
}

pub(super) fn cache_prefix(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.len() <= 32 && text.bytes().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("must be at most 32 ASCII letters, digits, '-', '_' and '.'".to_owned())
    }
}

/// Returns a parser of a number between two bounds. clap's own ranges do not support `usize`.
pub(super) fn size(least: usize, most: usize) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| {
        let size = text.parse().ok().filter(|size| (least..=most).contains(size));
        size.ok_or_else(|| format!("must be between {least} and {most}"))
    }
}

/// Parses a URL that may contain a password; the error message omits the value.
#[derive(Clone)]
pub(super) struct SecretUrl {
    is_valid: fn(&str) -> bool,
    expected: &'static str,
}

pub(super) const SMTP_URL: SecretUrl = SecretUrl {
    is_valid: |text| lettre::AsyncSmtpTransport::<lettre::Tokio1Executor>::from_url(text).is_ok(),
    expected: "smtps://USER:PASSWORD@HOST or smtp://HOST:PORT",
};
pub(super) const REDIS_URL: SecretUrl = SecretUrl {
    is_valid: |text| readthrough::Cache::builder().redis(text).check().is_ok(),
    expected: "redis://HOST:PORT, rediss://, redis+sentinel://HOST,HOST/MASTER or redis+cluster://HOST,HOST",
};
pub(super) const DATABASE_URL: SecretUrl = SecretUrl {
    is_valid: |text| ["postgres://", "postgresql://", "sqlite://"].iter().any(|scheme| text.starts_with(scheme)),
    expected: "postgres://USER:PASSWORD@HOST/DATABASE or sqlite://PATH",
};

impl TypedValueParser for SecretUrl {
    type Value = Secret;

    fn parse_ref(&self, command: &Command, argument: Option<&Arg>, value: &OsStr) -> Result<Secret, clap::Error> {
        let text = StringValueParser::new().parse_ref(command, argument, value)?;
        if (self.is_valid)(&text) {
            return Ok(Secret(text));
        }
        let name = argument.map(ToString::to_string).unwrap_or_default();
        let message = format!("invalid value for '{name}': must be {}\n", self.expected);
        Err(clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command))
    }
}

pub(super) fn sender(text: &str) -> Result<Mailbox, String> {
    text.parse().map_err(|_| "must be an address such as 'tutord <no-reply@example.com>'".to_owned())
}

/// Parses a URL to which link paths are appended.
pub(super) fn public_url(text: &str) -> Result<Url, String> {
    let url = http_url(text)?;
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err("must have no user, query or fragment".to_owned());
    }
    Ok(url)
}

pub(super) fn http_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("must begin with http:// or https://".to_owned());
    }
    Ok(url)
}
