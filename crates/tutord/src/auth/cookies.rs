//! The cookies of a log-in, and the double-submit check against cross-site request forgery.

use std::time::Duration;

use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderValue};
use axum_extra::extract::CookieJar;
use axum_extra::extract::cookie::{Cookie, SameSite};
use subtle::ConstantTimeEq;

use super::state::Auth;
use super::token::{self, Token};
use crate::http::error::ApiError;

/// The access token; HttpOnly.
pub(super) const ACCESS: &str = "access_token";
/// The refresh token; HttpOnly, sent only to the auth routes.
pub(super) const REFRESH: &str = "refresh_token";
/// The CSRF token, which scripts can read.
pub(super) const CSRF: &str = "csrf_token";
/// The device token of a trusted browser; HttpOnly, sent only to the auth routes.
pub(super) const DEVICE: &str = "device_token";
/// The header that repeats [`CSRF`].
pub(super) const CSRF_HEADER: &str = "x-csrf-token";

const REFRESH_PATH: &str = "/api/auth";

/// The time for which a browser is trusted after a log-in.
pub(super) const DEVICE_TTL: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The unhashed tokens of a log-in or a refresh.
pub(super) struct Tokens {
    /// For the cookie [`ACCESS`].
    pub(super) access: Token,
    /// For the cookie [`REFRESH`].
    pub(super) refresh: Token,
}

/// Returns the access token of a request's cookies; of several, the last one. Every request reads this cookie, so the
/// others are not parsed.
pub(super) fn access_token(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = cookies.flat_map(|value| value.split(';')).filter_map(|cookie| cookie.split_once('='));
    pairs.filter(|(name, _)| name.trim() == ACCESS).map(|(_, value)| value.trim()).next_back()
}

/// Returns the cookies with these tokens and a new CSRF token.
pub(super) fn issue(auth: &Auth, tokens: &Tokens) -> CookieJar {
    with_csrf(auth, tokens, Token::random().as_str())
}

/// Returns the cookies of a log-in: those of [`issue`], and the device token.
pub(super) fn log_in(auth: &Auth, tokens: &Tokens, device: &str) -> CookieJar {
    issue(auth, tokens).add(cookie(auth, DEVICE, device, REFRESH_PATH, DEVICE_TTL, true))
}

/// Returns the cookies of a refresh. They keep the browser's CSRF token, because another tab may be about to send it.
pub(super) fn renew(auth: &Auth, tokens: &Tokens, presented: &CookieJar) -> CookieJar {
    match presented.get(CSRF).map(Cookie::value).filter(|value| token::is_well_formed(value)) {
        Some(csrf) => with_csrf(auth, tokens, csrf),
        None => issue(auth, tokens),
    }
}

fn with_csrf(auth: &Auth, tokens: &Tokens, csrf: &str) -> CookieJar {
    let refresh_ttl = auth.settings.refresh_ttl();
    CookieJar::new()
        .add(cookie(auth, ACCESS, tokens.access.as_str(), "/", auth.settings.access_ttl(), true))
        .add(cookie(auth, REFRESH, tokens.refresh.as_str(), REFRESH_PATH, refresh_ttl, true))
        .add(cookie(auth, CSRF, csrf, "/", refresh_ttl, false))
}

/// Returns the cookies that clear a log-in.
pub(super) fn clear(auth: &Auth) -> CookieJar {
    CookieJar::new()
        .add(cookie(auth, ACCESS, "", "/", Duration::ZERO, true))
        .add(cookie(auth, REFRESH, "", REFRESH_PATH, Duration::ZERO, true))
        .add(cookie(auth, CSRF, "", "/", Duration::ZERO, false))
}

fn cookie(
    auth: &Auth,
    name: &'static str,
    value: &str,
    path: &'static str,
    ttl: Duration,
    http_only: bool,
) -> Cookie<'static> {
    let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
    Cookie::build((name, value.to_owned()))
        .path(path)
        .http_only(http_only)
        .secure(auth.secure_cookies)
        .same_site(SameSite::Strict)
        .max_age(cookie::time::Duration::seconds(seconds))
        .build()
}

/// Checks in constant time that the header equals the CSRF cookie.
///
/// # Errors
/// Returns 403 `CSRF_FAILED` if they differ.
pub(super) fn check_csrf(jar: &CookieJar, headers: &HeaderMap) -> Result<(), ApiError> {
    let submitted = headers.get(CSRF_HEADER).map(HeaderValue::as_bytes).unwrap_or_default();
    let expected = jar.get(CSRF).map(Cookie::value).unwrap_or_default().as_bytes();
    if !expected.is_empty() && bool::from(submitted.ct_eq(expected)) { Ok(()) } else { Err(ApiError::csrf_failed()) }
}
