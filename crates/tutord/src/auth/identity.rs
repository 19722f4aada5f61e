//! Authentication extractors.

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum_extra::extract::CookieJar;
use tutord_core::Timestamp;
use tutord_core::model::{Identity, Role, TokenHash};

use super::{cookies, token};
use crate::app::App;
use crate::error::ApiError;
use crate::http::client_ip::ClientIp;
use crate::http::rate_limit::{Rule, Subject};

/// Extracts the logged-in user of a request.
#[derive(Debug, Clone)]
pub struct Authenticated(pub Identity);

/// Extracts the logged-in user of a request; requires a verified e-mail address.
#[derive(Debug, Clone)]
pub struct Verified(pub Identity);

/// Extracts the admin of a request; requires a verified e-mail address.
#[derive(Debug, Clone)]
pub struct Admin(pub Identity);

impl FromRequestParts<App> for Authenticated {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let identity = identify(parts, app).await?;
        app.limits.check(Rule::Other, &Subject::User(identity.user_id)).await?;
        Ok(Self(identity))
    }
}

impl FromRequestParts<App> for Verified {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Authenticated(identity) = Authenticated::from_request_parts(parts, app).await?;
        if identity.email_verified { Ok(Self(identity)) } else { Err(ApiError::email_not_verified()) }
    }
}

impl FromRequestParts<App> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Verified(identity) = Verified::from_request_parts(parts, app).await?;
        if identity.role == Role::Admin {
            Ok(Self(identity))
        } else {
            Err(ApiError::forbidden("only admins have access"))
        }
    }
}

async fn identify(parts: &mut Parts, app: &App) -> Result<Identity, ApiError> {
    let jar = CookieJar::from_headers(&parts.headers);
    let (presented, by_cookie) = presented(&parts.headers, &jar);
    let found = match &presented {
        Some(presented) => app.store.identity(presented).await?,
        None => None,
    };
    let Some(identity) = found else {
        // Guessing is what costs a look-up and gets nowhere: it is limited by address.
        let ClientIp(address) = ClientIp::from_request_parts(parts, app).await?;
        app.limits.check(Rule::Other, &Subject::Ip(address)).await?;
        return Err(ApiError::unauthenticated());
    };
    if identity.expires_at <= Timestamp::now() {
        return Err(ApiError::token_expired());
    }
    if !identity.is_active {
        return Err(ApiError::forbidden("this account is deactivated"));
    }
    if let Some(presented) = presented {
        app.admission.confirm(presented);
    }
    if by_cookie && !matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS) {
        cookies::check_csrf(&jar, &parts.headers)?;
    }
    Ok(identity)
}

/// Returns the hash of a request's access token.
pub fn presented_token(headers: &HeaderMap) -> Option<TokenHash> {
    presented(headers, &CookieJar::from_headers(headers)).0
}

/// Returns the hash of the access token, and whether it came in a cookie.
fn presented(headers: &HeaderMap, jar: &CookieJar) -> (Option<TokenHash>, bool) {
    // The header wins: a program that sends both means the one it wrote.
    let (presented, by_cookie) = match bearer(headers) {
        Some(presented) => (Some(presented), false),
        None => (jar.get(cookies::ACCESS).map(cookie::Cookie::value), true),
    };
    (presented.filter(|presented| !presented.is_empty()).map(token::hash), by_cookie)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, credentials) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| credentials.trim())
}
