//! The routes of `/api/auth`.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum_extra::extract::CookieJar;
use garde::Validate;
use serde::{Deserialize, Serialize};
use tutord_core::Timestamp;
use tutord_core::model::{Role, User};
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::identity::AuthenticatedProfile;
use super::service::{self, Registration};
use super::state::AuthState;
use super::{Authenticated, cookies, token};
use crate::http::aliases::WithData;
use crate::http::client_ip::ClientIp;
use crate::http::error::ApiError;
use crate::http::json::{Json, OptionalJson, trimmed, trimmed_nfc};
use crate::http::openapi::Routes;
use crate::http::query::Query;
use crate::http::rate_limit::{Rule, Subject};
use crate::http::route_table::{Budget, RouteFacts};
use crate::http::validation;

/// The budget of routes that return the user of a token, including authentication.
pub const ME_BUDGET: u32 = 2;

/// The budget of routes that create, refresh or end a session, or send a mail.
const SESSION_BUDGET: u32 = 12;

/// The statement budgets of the routes.
const BUDGETS: &[Budget] = &[
    ("POST", "/register", 20),
    ("POST", "/login", SESSION_BUDGET),
    ("POST", "/logout", SESSION_BUDGET),
    ("POST", "/refresh", SESSION_BUDGET),
    ("GET", "/me", ME_BUDGET),
    ("POST", "/verify-email", SESSION_BUDGET),
    ("POST", "/resend-verification", SESSION_BUDGET),
    ("POST", "/password-reset", SESSION_BUDGET),
    ("POST", "/password-reset/confirm", SESSION_BUDGET),
    ("GET", "/oauth/github", 0),
    ("GET", "/oauth/google", 0),
    ("GET", "/oauth/github/callback", 0),
    ("GET", "/oauth/google/callback", 0),
    ("POST", "/oauth/exchange", 0),
];

/// The facts about the routes of this feature.
pub const ROUTES: RouteFacts = RouteFacts::new(BUDGETS);

/// The routes of this feature.
pub fn router() -> Routes<AuthState> {
    vec![
        routes!(register),
        routes!(login),
        routes!(logout),
        routes!(refresh),
        routes!(me),
        routes!(verify_email),
        routes!(resend_verification),
        routes!(request_reset),
        routes!(confirm_reset),
        routes!(oauth_github),
        routes!(oauth_google),
        routes!(oauth_github_callback),
        routes!(oauth_google_callback),
        routes!(oauth_exchange),
    ]
}

#[derive(Deserialize, Validate, ToSchema)]
struct RegisterRequest {
    /// At most 255 characters; unique regardless of case.
    #[serde(deserialize_with = "trimmed_nfc")]
    #[schema(max_length = 255)]
    #[garde(custom(validation::email))]
    email: String,
    /// 8 to 128 characters with an upper-case and a lower-case letter, a digit and a special character.
    #[schema(min_length = 8, max_length = 128)]
    #[garde(custom(validation::password))]
    password: String,
    /// 1 to 255 characters.
    #[serde(deserialize_with = "trimmed")]
    #[schema(min_length = 1, max_length = 255)]
    #[garde(length(chars, min = 1, max = 255))]
    name: String,
}

#[derive(Deserialize, Validate, ToSchema)]
struct LoginRequest {
    #[serde(deserialize_with = "trimmed_nfc")]
    #[schema(min_length = 1, max_length = 255)]
    #[garde(length(chars, min = 1, max = 255))]
    email: String,
    #[schema(min_length = 1, max_length = 128)]
    #[garde(length(chars, min = 1, max = 128))]
    password: String,
}

#[derive(Deserialize, Validate, ToSchema)]
struct RefreshRequest {
    /// Default: the cookie `refresh_token`.
    #[schema(min_length = 1, max_length = 255)]
    #[garde(inner(length(chars, min = 1, max = 255)))]
    refresh_token: Option<String>,
}

#[derive(Deserialize, Validate, ToSchema)]
struct TokenRequest {
    #[schema(min_length = 1, max_length = 255)]
    #[garde(length(chars, min = 1, max = 255))]
    token: String,
}

#[derive(Deserialize, Validate, ToSchema)]
struct EmailRequest {
    #[serde(deserialize_with = "trimmed_nfc")]
    #[schema(max_length = 255)]
    #[garde(custom(validation::known_email))]
    email: String,
}

#[derive(Deserialize, Validate, ToSchema)]
struct ConfirmResetRequest {
    #[schema(min_length = 1, max_length = 255)]
    #[garde(length(chars, min = 1, max = 255))]
    token: String,
    #[schema(min_length = 8, max_length = 128)]
    #[garde(custom(validation::password))]
    new_password: String,
}

#[derive(Deserialize, Validate, ToSchema, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct LogoutQuery {
    /// Ends all sessions of the user instead of only this one.
    #[garde(skip)]
    #[serde(default)]
    all: bool,
}

/// The user in log-in and registration responses.
#[derive(Clone, Serialize, ToSchema)]
struct AccountSummary {
    /// Absent if the address is already registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<i64>,
    email: String,
    name: String,
    role: Role,
    email_verified: bool,
}

#[derive(Clone, Serialize, ToSchema)]
struct AccountResponse {
    message: &'static str,
    user: AccountSummary,
}

/// Returns the user of the access token.
#[derive(Clone, Serialize, ToSchema)]
struct CurrentUser {
    id: i64,
    email: String,
    name: String,
    role: Role,
    email_verified: bool,
    avatar_url: Option<String>,
    is_active: bool,
    onboarding_completed: bool,
    timezone: String,
    created_at: Timestamp,
    last_login: Option<Timestamp>,
}

#[derive(Clone, Serialize, ToSchema)]
struct MeResponse {
    user: CurrentUser,
    /// The same user, at the place where the existing frontend reads it.
    data: CurrentUser,
}

#[derive(Clone, Serialize, ToSchema)]
struct MessageResponse {
    message: &'static str,
}

#[derive(Clone, Serialize, ToSchema)]
struct VerifiedResponse {
    message: &'static str,
    email_verified: bool,
}

#[derive(Clone, Serialize, ToSchema)]
struct RefreshResponse {
    message: &'static str,
    /// Seconds until the new access token expires.
    expires_in: u64,
}

impl From<&User> for AccountSummary {
    fn from(user: &User) -> Self {
        Self {
            id: Some(user.id),
            email: user.email.clone(),
            name: user.name.clone(),
            role: user.role,
            email_verified: user.email_verified,
        }
    }
}

/// Registers an account and logs it in. For a registered address the response is the same, but without `id` and
/// cookies, and the owner of the address gets a mail.
#[utoipa::path(post, path = "/register", tag = "auth", security(()), request_body = RegisterRequest,
    responses((status = 201, body = AccountResponse), (status = 422, description = "a field is invalid"), (status = 429)))]
async fn register(
    State(state): State<AuthState>,
    ClientIp(address): ClientIp,
    Json(request): Json<RegisterRequest>,
) -> Result<Response, ApiError> {
    state.http.limits.check(Rule::Register, &Subject::Ip(address)).await?;
    let RegisterRequest { email, password, name } = request;
    let (jar, user) = match service::register(&state, &email, password, &name).await? {
        Registration::Created(user, tokens, device) => {
            (cookies::log_in(&state, &tokens, device.as_str()), AccountSummary::from(user.as_ref()))
        }
        Registration::Taken => {
            (CookieJar::new(), AccountSummary { id: None, email, name, role: Role::Student, email_verified: false })
        }
    };
    let body =
        AccountResponse { message: "Registration successful. Please check your e-mail to verify your address.", user };
    Ok((StatusCode::CREATED, jar, axum::Json(WithData::new(body))).into_response())
}

/// Logs in with e-mail and password.
#[utoipa::path(post, path = "/login", tag = "auth", security(()), request_body = LoginRequest,
    responses((status = 200, body = AccountResponse), (status = 401), (status = 403, description = "the account is deactivated"), (status = 429)))]
async fn login(
    State(state): State<AuthState>,
    ClientIp(address): ClientIp,
    jar: CookieJar,
    Json(request): Json<LoginRequest>,
) -> Result<Response, ApiError> {
    let device = jar.get(cookies::DEVICE).map(cookie::Cookie::value);
    let (user, tokens, device) = service::log_in(&state, address, device, &request.email, request.password).await?;
    let body = AccountResponse { message: "Login successful.", user: AccountSummary::from(&user) };
    Ok((cookies::log_in(&state, &tokens, &device), axum::Json(WithData::new(body))).into_response())
}

/// Ends the session, or with `all=true` all sessions of the user, and clears the cookies.
#[utoipa::path(post, path = "/logout", tag = "auth", params(LogoutQuery),
    responses((status = 200, body = MessageResponse), (status = 401), (status = 403, description = "CSRF_FAILED")))]
async fn logout(
    State(state): State<AuthState>,
    headers: HeaderMap,
    Query(query): Query<LogoutQuery>,
    authenticated: Result<Authenticated, ApiError>,
) -> Result<Response, ApiError> {
    match authenticated {
        Ok(Authenticated(identity)) if query.all => state.store.revoke_sessions(identity.user_id).await?,
        Ok(Authenticated(identity)) => state.store.revoke_session(identity.user_id, identity.session_id).await?,
        Err(error) => {
            // If the access token has expired, the refresh token can still end the session.
            let jar = CookieJar::from_headers(&headers);
            let refresh = jar.get(cookies::REFRESH).filter(|_| error.is_unauthenticated()).ok_or(error)?;
            cookies::check_csrf(&jar, &headers)?;
            state.store.revoke_session_of(&token::hash(refresh.value())).await?;
        }
    }
    Ok((cookies::clear(&state), axum::Json(MessageResponse { message: "Logged out." })).into_response())
}

/// Exchanges the refresh token, from the body or its cookie, for new tokens. A token is accepted again for some
/// seconds, and until its successor is used; a retired token ends its session.
///
/// Requires no CSRF token: the cookie is SameSite=Strict, and an attacker could not read the response of a forged
/// request.
#[utoipa::path(post, path = "/refresh", tag = "auth", security(()), request_body = Option<RefreshRequest>,
    responses((status = 200, body = RefreshResponse), (status = 401)))]
async fn refresh(
    State(state): State<AuthState>,
    ClientIp(address): ClientIp,
    headers: HeaderMap,
    OptionalJson(request): OptionalJson<RefreshRequest>,
) -> Result<Response, ApiError> {
    state.http.limits.check(Rule::Other, &Subject::Ip(address)).await?;
    let jar = CookieJar::from_headers(&headers);
    let presented = request
        .and_then(|request| request.refresh_token)
        .or_else(|| jar.get(cookies::REFRESH).map(|cookie| cookie.value().to_owned()))
        .ok_or_else(ApiError::unauthenticated)?;
    let tokens = service::refresh(&state, &presented).await?;
    let body = RefreshResponse { message: "Token refreshed.", expires_in: state.settings.access_ttl().as_secs() };
    Ok((cookies::renew(&state, &tokens, &jar), axum::Json(body)).into_response())
}

/// Returns the user of the access token.
#[utoipa::path(get, path = "/me", tag = "auth", responses((status = 200, body = MeResponse), (status = 401)))]
async fn me(AuthenticatedProfile(user): AuthenticatedProfile) -> Result<axum::Json<MeResponse>, ApiError> {
    let user = CurrentUser {
        id: user.id,
        email: user.email.clone(),
        name: user.name.clone(),
        role: user.role,
        email_verified: user.email_verified,
        avatar_url: user.avatar_url.clone(),
        is_active: user.is_active,
        onboarding_completed: user.onboarding_completed,
        timezone: user.timezone.clone(),
        created_at: user.created_at,
        last_login: user.last_login,
    };
    Ok(axum::Json(MeResponse { data: user.clone(), user }))
}

/// Verifies an e-mail address with the mailed token; single use, valid for 24 hours.
#[utoipa::path(post, path = "/verify-email", tag = "auth", security(()), request_body = TokenRequest,
    responses((status = 200, body = VerifiedResponse), (status = 422, description = "the token is invalid")))]
async fn verify_email(
    State(state): State<AuthState>,
    ClientIp(address): ClientIp,
    Json(request): Json<TokenRequest>,
) -> Result<axum::Json<WithData<VerifiedResponse>>, ApiError> {
    state.http.limits.check(Rule::Other, &Subject::Ip(address)).await?;
    let user = service::verify_email(&state, &request.token).await?;
    let body = VerifiedResponse { message: "E-mail address verified.", email_verified: user.email_verified };
    Ok(axum::Json(WithData::new(body)))
}

/// Mails a new verification link; the response is the same for every address.
#[utoipa::path(post, path = "/resend-verification", tag = "auth", security(()), request_body = EmailRequest,
    responses((status = 200, body = MessageResponse), (status = 422), (status = 429)))]
async fn resend_verification(
    State(state): State<AuthState>,
    ClientIp(address): ClientIp,
    Json(request): Json<EmailRequest>,
) -> Result<axum::Json<WithData<MessageResponse>>, ApiError> {
    state.http.limits.check(Rule::ResendVerification, &Subject::Ip(address)).await?;
    service::resend_verification(&state, &request.email).await?;
    let message = "If the address has an account that is not verified yet, a new link is on its way.";
    Ok(axum::Json(WithData::new(MessageResponse { message })))
}

/// Mails a link to reset the password; the response is the same for every address.
#[utoipa::path(post, path = "/password-reset", tag = "auth", security(()), request_body = EmailRequest,
    responses((status = 200, body = MessageResponse), (status = 422), (status = 429)))]
async fn request_reset(
    State(state): State<AuthState>,
    ClientIp(address): ClientIp,
    Json(request): Json<EmailRequest>,
) -> Result<axum::Json<MessageResponse>, ApiError> {
    state.http.limits.check(Rule::ResetRequest, &Subject::Ip(address)).await?;
    service::request_reset(&state, &request.email).await?;
    Ok(axum::Json(MessageResponse {
        message: "If the address has an account, a link to reset its password is on its way.",
    }))
}

/// Sets a new password with the mailed token; single use, valid for 1 hour. Ends all sessions of the account.
#[utoipa::path(post, path = "/password-reset/confirm", tag = "auth", security(()), request_body = ConfirmResetRequest,
    responses((status = 200, body = MessageResponse), (status = 422), (status = 429)))]
async fn confirm_reset(
    State(state): State<AuthState>,
    ClientIp(address): ClientIp,
    Json(request): Json<ConfirmResetRequest>,
) -> Result<axum::Json<MessageResponse>, ApiError> {
    state.http.limits.check(Rule::ResetConfirm, &Subject::Ip(address)).await?;
    service::reset_password(&state, &request.token, request.new_password).await?;
    Ok(axum::Json(MessageResponse { message: "The password was changed. Please log in with the new one." }))
}

macro_rules! oauth_route {
    ($name:ident, $method:ident, $path:literal) => {
        /// OAuth log-in; not configured.
        #[utoipa::path($method, path = $path, tag = "auth", security(()), responses((status = 501, description = "NOT_IMPLEMENTED"), (status = 429)))]
        async fn $name(State(state): State<AuthState>, ClientIp(address): ClientIp) -> ApiError {
            match state.http.limits.check(Rule::OAuth, &Subject::Ip(address)).await {
                Ok(()) => ApiError::not_implemented("OAuth log-in is not configured"),
                Err(limited) => limited,
            }
        }
    };
}
oauth_route!(oauth_github, get, "/oauth/github");
oauth_route!(oauth_google, get, "/oauth/google");
oauth_route!(oauth_github_callback, get, "/oauth/github/callback");
oauth_route!(oauth_google_callback, get, "/oauth/google/callback");
oauth_route!(oauth_exchange, post, "/oauth/exchange");
