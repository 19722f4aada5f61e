//! Authentication extractors.

use std::pin::pin;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum_extra::extract::CookieJar;
use futures_util::future::join;
use tutord_core::Timestamp;
use tutord_core::model::{Identity, Role, TokenHash, User};
use tutord_core::store::{Loaded, Users};

use super::state::AuthState;
use super::{cookies, token};
use crate::http::client_ip::ClientIp;
use crate::http::error::ApiError;
use crate::http::rate_limit::{Rule, Subject};

/// Extracts the logged-in user of a request.
#[derive(Debug, Clone)]
pub struct Authenticated(pub Identity);

/// Extracts the logged-in user of a request; requires a verified e-mail address.
#[derive(Debug, Clone)]
pub struct Verified(pub Identity);

/// Extracts the profile of the logged-in user of a request. Redis returns identity and profile in one round trip.
#[derive(Debug, Clone)]
pub struct AuthenticatedProfile(pub Loaded<User>);

/// Extracts the profile of the logged-in user of a request, like [`AuthenticatedProfile`]; requires a verified e-mail
/// address.
#[derive(Debug, Clone)]
pub struct VerifiedProfile(pub Loaded<User>);

/// Extracts the admin of a request; requires a verified e-mail address.
#[derive(Debug, Clone)]
pub struct Admin(pub Identity);

impl<S> FromRequestParts<S> for Authenticated
where
    S: Send + Sync,
    AuthState: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let state = AuthState::from_ref(state);
        let presented = PresentedToken::of(&parts.headers);
        Ok(Self(authenticate(parts, &state, presented).await?))
    }
}

impl<S> FromRequestParts<S> for Verified
where
    S: Send + Sync,
    AuthState: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Authenticated(identity) = Authenticated::from_request_parts(parts, state).await?;
        if identity.email_verified { Ok(Self(identity)) } else { Err(ApiError::email_not_verified()) }
    }
}

impl<S> FromRequestParts<S> for AuthenticatedProfile
where
    S: Send + Sync,
    AuthState: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Ok(Self(authenticate_with_profile(parts, &AuthState::from_ref(state)).await?.1))
    }
}

impl<S> FromRequestParts<S> for VerifiedProfile
where
    S: Send + Sync,
    AuthState: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let (identity, user) = authenticate_with_profile(parts, &AuthState::from_ref(state)).await?;
        if identity.email_verified { Ok(Self(user)) } else { Err(ApiError::email_not_verified()) }
    }
}

impl<S> FromRequestParts<S> for Admin
where
    S: Send + Sync,
    AuthState: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Verified(identity) = Verified::from_request_parts(parts, state).await?;
        if identity.role == Role::Admin {
            Ok(Self(identity))
        } else {
            Err(ApiError::forbidden("only admins have access"))
        }
    }
}

/// Returns the profile of a logged-in user.
///
/// # Errors
/// Returns 401 if the user was deleted after the look-up of the session.
pub(crate) async fn profile(store: &(impl Users + ?Sized), user_id: i64) -> Result<Loaded<User>, ApiError> {
    store.user(user_id).await?.ok_or_else(ApiError::unauthenticated)
}

/// Returns the user of a token, and counts the request.
async fn authenticate(
    parts: &Parts,
    state: &AuthState,
    presented: Option<PresentedToken>,
) -> Result<Identity, ApiError> {
    let identity = identify(parts, state, presented).await?;
    state.http.limits.check(Rule::Other, &Subject::User(identity.user_id)).await?;
    Ok(identity)
}

/// Returns the user of a token like [`authenticate`], with the profile.
async fn authenticate_with_profile(parts: &Parts, state: &AuthState) -> Result<(Identity, Loaded<User>), ApiError> {
    let presented = PresentedToken::of(&parts.headers);
    let prefetched = async { state.store.prefetched_user(presented?.named?).await };
    let (identity, prefetched) = join(pin!(authenticate(parts, state, presented)), pin!(prefetched)).await;
    let identity = identity?;
    let user = match prefetched.filter(|user| user.id == identity.user_id) {
        Some(user) => user,
        None => profile(state.store.as_ref(), identity.user_id).await?,
    };
    Ok((identity, user))
}

async fn identify(parts: &Parts, state: &AuthState, presented: Option<PresentedToken>) -> Result<Identity, ApiError> {
    let found = match &presented {
        Some(presented) => state.store.identity(&presented.hash, presented.named).await?,
        None => None,
    };
    let (Some(identity), Some(presented)) = (found, presented) else {
        // Limit guesses by address: each costs a look-up.
        let ClientIp(address) = ClientIp::of(parts, &state.http);
        state.http.limits.check(Rule::Other, &Subject::Ip(address)).await?;
        return Err(ApiError::unauthenticated());
    };
    if identity.expires_at <= Timestamp::now() {
        return Err(ApiError::token_expired());
    }
    if !identity.is_active {
        return Err(ApiError::forbidden("this account is deactivated"));
    }
    state.http.admission.confirm(presented.hash);
    if presented.is_cookie && !matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS) {
        cookies::check_csrf(&CookieJar::from_headers(&parts.headers), &parts.headers)?;
    }
    Ok(identity)
}

/// Returns the hash of a request's access token.
pub fn presented_token(headers: &HeaderMap) -> Option<TokenHash> {
    PresentedToken::of(headers).map(|presented| presented.hash)
}

/// The access token of a request.
#[derive(Debug, Clone, Copy)]
struct PresentedToken {
    hash: TokenHash,
    /// The user that the token names.
    named: Option<i64>,
    is_cookie: bool,
}

impl PresentedToken {
    fn of(headers: &HeaderMap) -> Option<Self> {
        // The header takes precedence: a program that sends both has set the header on purpose.
        let (text, is_cookie) = match bearer(headers) {
            Some(text) => (text, false),
            None => (cookies::access_token(headers)?, true),
        };
        let named = token::named_user(text);
        (!text.is_empty()).then(|| Self { hash: token::hash(text), named, is_cookie })
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, credentials) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| credentials.trim())
}
