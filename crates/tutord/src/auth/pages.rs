//! The pages behind the links in mails; they work without JavaScript.
//!
//! Mail scanners open links, so a GET does not use a token; a button posts it. The token itself authorizes the request,
//! so a page of another origin gains nothing by posting without one.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use maud::{DOCTYPE, Markup, html};
use querywatch_axum::parts::document_head;
use serde::Deserialize;

use super::state::AuthState;
use super::{service, token};
use crate::http::client_ip::ClientIp;
use crate::http::error::ApiError;
use crate::http::rate_limit::{Rule, Subject};
use crate::http::validation;

const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);
const ROBOTS: HeaderName = HeaderName::from_static("x-robots-tag");
/// The maximum size of a form: a token and a password with every byte escaped.
const MAX_FORM_BYTES: usize = 8 * 1_024;

/// Returns the routes `/verify-email` and `/reset-password`.
pub fn pages() -> Router<AuthState> {
    Router::new()
        .route("/verify-email", get(show_verification).post(verify))
        .route("/reset-password", get(show_reset).post(reset))
        .route("/account.css", get(style))
        .layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
}

#[derive(Deserialize)]
struct Form {
    #[serde(default)]
    token: String,
    #[serde(default)]
    new_password: String,
}

impl Form {
    /// Parses a form or the query of a link; missing fields are empty.
    fn read(encoded: &[u8]) -> Self {
        let empty = Self { token: String::new(), new_password: String::new() };
        serde_urlencoded::from_bytes(encoded).unwrap_or(empty)
    }
}

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = Response;

    /// Reads a posted form; a refusal is a page.
    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let content_type = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
        if !essence.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded") {
            return Err(failed(&ApiError::unsupported_media_type()));
        }
        match Bytes::from_request(request, state).await {
            Ok(body) => Ok(Self::read(&body)),
            Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Err(failed(&ApiError::payload_too_large(MAX_FORM_BYTES)))
            }
            Err(_) => Err(failed(&ApiError::malformed_json("could not read the whole form"))),
        }
    }
}

async fn style() -> Response {
    let headers = [(CONTENT_TYPE, "text/css; charset=utf-8"), (CACHE_CONTROL, "public, max-age=3600")];
    (headers, include_str!("pages.css")).into_response()
}

async fn show_verification(uri: axum::http::Uri) -> Response {
    let form = Form::read(uri.query().unwrap_or_default().as_bytes());
    if token::is_well_formed(&form.token) { verification(&form.token) } else { stale_verification() }
}

async fn verify(State(state): State<AuthState>, ClientIp(address): ClientIp, form: Form) -> Response {
    let verified = async {
        state.http.limits.check(Rule::Other, &Subject::Ip(address)).await?;
        service::verify_email(&state, &form.token).await
    };
    match verified.await {
        Ok(_) => message(StatusCode::OK, "Your address is verified", "You can close this page and go on learning."),
        Err(error) if error.status() == StatusCode::UNPROCESSABLE_ENTITY => stale_verification(),
        Err(error) => failed(&error),
    }
}

fn verification(token: &str) -> Response {
    let main = html! {
        h1 { "Verify your e-mail address" }
        p { "One click, and your account is ready." }
        form method="post" action="verify-email" {
            input type="hidden" name="token" value=(token);
            button type="submit" { "Verify my address" }
        }
    };
    document(StatusCode::OK, "Verify your e-mail address", &main)
}

fn stale_verification() -> Response {
    let text = "This link was used before, or has expired. If your address is not verified yet, log in and request another mail.";
    message(StatusCode::UNPROCESSABLE_ENTITY, "This link can't be used", text)
}

async fn show_reset(uri: axum::http::Uri) -> Response {
    let form = Form::read(uri.query().unwrap_or_default().as_bytes());
    if token::is_well_formed(&form.token) { password_form(&form.token, None) } else { stale_reset() }
}

async fn reset(State(state): State<AuthState>, ClientIp(address): ClientIp, form: Form) -> Response {
    let Form { token, new_password } = form;
    if !token::is_well_formed(&token) {
        return stale_reset();
    }
    if let Err(error) = validation::password(&new_password, &()) {
        return password_form(&token, Some(&format!("The password {error}.")));
    }
    let done = async {
        state.http.limits.check(Rule::ResetConfirm, &Subject::Ip(address)).await?;
        service::reset_password(&state, &token, new_password).await
    };
    match done.await {
        Ok(()) => {
            let text = "You were logged out everywhere. Log in with the new password.";
            message(StatusCode::OK, "Your password was changed", text)
        }
        Err(error) if error.status() != StatusCode::UNPROCESSABLE_ENTITY => failed(&error),
        Err(error) if error.field() == Some("new_password") => {
            password_form(&token, Some("The password must differ from the current one."))
        }
        Err(_) => stale_reset(),
    }
}

fn password_form(token: &str, error: Option<&str>) -> Response {
    let main = html! {
        h1 { "Choose a new password" }
        @if let Some(error) = error { p.error #error role="alert" { (error) } }
        form method="post" action="reset-password" {
            input type="hidden" name="token" value=(token);
            label for="password" { "New password" }
            input #password type="password" name="new_password" autocomplete="new-password" required minlength="8"
                maxlength="128" aria-describedby=(if error.is_some() { "error help" } else { "help" })
                aria-invalid=[error.map(|_| "true")];
            p.help #help { "8 to 128 characters: an upper-case letter, a lower-case letter, a digit, and another character. You will be logged out everywhere." }
            button type="submit" { "Change my password" }
        }
    };
    let status = if error.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    document(status, "Choose a new password", &main)
}

fn stale_reset() -> Response {
    let text = "This link was used before, or has expired. You can request another one where you log in.";
    message(StatusCode::UNPROCESSABLE_ENTITY, "This link can't be used", text)
}

fn failed(error: &ApiError) -> Response {
    let (title, text) = match error.status() {
        StatusCode::TOO_MANY_REQUESTS => ("Too many attempts", "Please wait a minute, and open the link again."),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            ("The request is invalid", "Please open the link in the mail, and use its button.")
        }
        StatusCode::PAYLOAD_TOO_LARGE => ("The password is too long", "A password has at most 128 characters."),
        _ => ("Please try again", "Something went wrong. The link is still valid: please open it again in a moment."),
    };
    message(error.status(), title, text)
}

fn message(status: StatusCode, title: &str, text: &str) -> Response {
    document(status, title, &html! { h1 { (title) } p { (text) } })
}

fn document(status: StatusCode, title: &str, main: &Markup) -> Response {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                (document_head(title, "tutord"))
                // Relative, like the links of the forms, because PUBLIC_URL can have a path.
                link rel="stylesheet" href="account.css";
            }
            body { main { p.name { "tutord" } (main) } }
        }
    };
    let headers = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (ROBOTS, HeaderValue::from_static("noindex")),
    ];
    (status, headers, Html(markup.into_string())).into_response()
}
