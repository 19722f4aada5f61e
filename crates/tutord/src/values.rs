//! Types and parsers of settings, with errors that describe the expected form.

use std::ffi::OsStr;

use clap::builder::{StringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Command};
use url::Url;

/// A secret string. `Debug` masks it.
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

/// Returns a parser of numbers from `least` to `most`. clap's own ranges do not support `usize`.
pub(crate) fn size(least: usize, most: usize) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| {
        let size = text.parse().ok().filter(|size| (least..=most).contains(size));
        size.ok_or_else(|| format!("must be between {least} and {most}"))
    }
}

/// A parser of URLs that may contain a password. Its error omits the value.
#[derive(Clone)]
pub(crate) struct SecretUrl {
    /// Returns whether the URL is valid.
    pub(crate) is_valid: fn(&str) -> bool,
    /// The expected form, for the error message.
    pub(crate) expected: &'static str,
}

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

/// Parses an HTTP URL.
pub(crate) fn http_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("must begin with http:// or https://".to_owned());
    }
    Ok(url)
}
