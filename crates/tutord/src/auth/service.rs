//! The rules of accounts and log-ins.

use std::net::IpAddr;
use std::time::Duration;

use tutord_core::model::{
    Credentials, EmailTokenPurpose, MailKind, NewSessionTokens, NewUser, Role, Rotation, TokenHash, User,
};
use tutord_core::rules::address::key as address_key;
use tutord_core::{Error, Timestamp};

use super::cookies::{DEVICE_TTL, Tokens};
use super::password::MatchedForm;
use super::state::AuthState;
use super::token::{self, Token};
use crate::http::admission::without_load;
use crate::http::error::ApiError;
use crate::http::rate_limit::{Rule, Subject, network};

/// The outcome of a registration.
pub(super) enum Registration {
    /// A new account with its session and device token.
    Created(Box<User>, Tokens, Token),
    /// The address is already registered; its owner gets a mail, and the response does not disclose it.
    Taken,
}

/// Creates an account, logs it in, and mails a verification link.
pub(super) async fn register(
    state: &AuthState,
    email: &str,
    password: String,
    name: &str,
) -> Result<Registration, ApiError> {
    let password_hash = state.passwords.hash(password).await?;
    let created = state
        .store
        .create_user(NewUser {
            email: email.to_owned(),
            password_hash,
            name: name.to_owned(),
            role: Role::Student,
            email_verified: false,
            created_at: Timestamp::now(),
        })
        .await;
    match created {
        Ok(user) => {
            let tokens = start_session(state, user.id).await?;
            let device = Token::random();
            trust(state, user.id, device.as_str()).await?;
            state.mailer.enqueue(user.id, MailKind::VerifyEmail).await?;
            Ok(Registration::Created(Box::new(user), tokens, device))
        }
        Err(Error::Conflict(_)) => {
            // Send to the stored address: the typed form can be another person's mailbox.
            if let Some(owner) = state.store.credentials(email).await? {
                state.mailer.enqueue(owner.user.id, MailKind::AddressTaken).await?;
            }
            Ok(Registration::Taken)
        }
        Err(error) => Err(error.into()),
    }
}

/// The subjects whose failures limit the log-ins to an account: the same trusted browser, or the same address and all
/// untrusted browsers together. So strangers can't lock out the owner's browser (OWASP, "Slow Down Online Guessing
/// Attacks with Device Cookies").
struct Allowance {
    own: Subject,
    /// All untrusted browsers together.
    untrusted: Option<Subject>,
}

impl Allowance {
    /// Includes the password's hash in the subject, so that a password reset restarts all counts on every node.
    fn new(email: &str, password_hash: Option<&str>, trusted: Option<TokenHash>, address: IpAddr) -> Self {
        let (email, password_hash) = (address_key(email), password_hash.unwrap_or_default());
        let account = [email.as_bytes(), password_hash.as_bytes()];
        match trusted {
            Some(device) => {
                Self { own: Subject::account(&[account[0], account[1], b"browser", &device]), untrusted: None }
            }
            None => {
                let network = network(address).to_string();
                Self {
                    own: Subject::account(&[account[0], account[1], b"address", network.as_bytes()]),
                    untrusted: Some(Subject::account(&account)),
                }
            }
        }
    }

    /// Returns an error if no attempt is left.
    async fn peek(&self, state: &AuthState) -> Result<(), ApiError> {
        state.http.limits.peek(Rule::LoginFailures, &self.own).await?;
        match &self.untrusted {
            Some(untrusted) => state.http.limits.peek(Rule::LoginFailuresUntrusted, untrusted).await,
            None => Ok(()),
        }
    }

    /// Counts a failure.
    async fn spend(&self, state: &AuthState) -> Result<(), ApiError> {
        state.http.limits.check(Rule::LoginFailures, &self.own).await?;
        match &self.untrusted {
            Some(untrusted) => state.http.limits.check(Rule::LoginFailuresUntrusted, untrusted).await,
            None => Ok(()),
        }
    }
}

/// Checks a password and creates a session and a device token.
pub(super) async fn log_in(
    state: &AuthState,
    address: IpAddr,
    device: Option<&str>,
    email: &str,
    password: String,
) -> Result<(User, Tokens, String), ApiError> {
    state.http.limits.check(Rule::Login, &Subject::Ip(address)).await?;
    let (user, stored) = match state.store.credentials(email).await? {
        Some(Credentials { user, password_hash }) => (Some(user), Some(password_hash)),
        None => (None, None),
    };
    let device = match device.filter(|device| token::is_well_formed(device)) {
        // Query for an unknown account too, so that both take the same time.
        Some(device) => {
            let user_id = user.as_ref().map_or(0, |user| user.id);
            state.store.is_trusted_device(user_id, &token::hash(device)).await?.then_some(device)
        }
        None => None,
    };
    let allowance = Allowance::new(email, stored.as_deref(), device.map(token::hash), address);
    allowance.peek(state).await?;
    let matched = state.passwords.verify(password.clone(), stored.clone()).await?;
    // Check again: of many concurrent attempts, no more than the limit may learn whether the password is right.
    allowance.peek(state).await?;
    let (Some(user), Some(matched), Some(stored)) = (user, matched, stored) else {
        allowance.spend(state).await?;
        return Err(ApiError::wrong_credentials());
    };
    if !user.is_active {
        return Err(ApiError::forbidden("this account is deactivated"));
    }
    if matched == MatchedForm::AsWritten {
        let hash = state.passwords.hash(password).await?;
        state.store.replace_password_hash(user.id, &stored, &hash).await?;
    }
    let tokens = start_session(state, user.id).await?;
    let device = device.map_or_else(|| Token::random().as_str().to_owned(), str::to_owned);
    trust(state, user.id, &device).await?;
    Ok((user, tokens, device))
}

/// Marks the browser with this device token as trusted for the user.
async fn trust(state: &AuthState, user_id: i64, device: &str) -> Result<(), ApiError> {
    Ok(state.store.trust_device(user_id, &token::hash(device), Timestamp::now() + DEVICE_TTL).await?)
}

/// Creates a session for an authenticated user.
async fn start_session(state: &AuthState, user_id: i64) -> Result<Tokens, ApiError> {
    let (tokens, hashed) = new_tokens(state, Some(user_id));
    state.store.create_session(user_id, hashed).await?;
    Ok(tokens)
}

/// Exchanges a refresh token for new ones.
pub(super) async fn refresh(state: &AuthState, presented: &str) -> Result<Tokens, ApiError> {
    let hash = token::hash(presented);
    let user_id = match token::named_user(presented) {
        Some(user_id) => Some(user_id),
        // A token of an earlier version.
        None => state.store.refresh_token_owner(&hash).await?,
    };
    let (tokens, hashed) = new_tokens(state, user_id);
    let grace = state.settings.refresh_grace();
    match state.store.rotate_session(&hash, hashed, Timestamp::now(), grace).await? {
        Rotation::Rotated { .. } => Ok(tokens),
        Rotation::Reused { user_id, session_id } => {
            tracing::warn!(
                user_id,
                session_id,
                "a retired refresh token was presented: two clients hold tokens of its session; revoked the session"
            );
            Err(ApiError::unauthenticated())
        }
        Rotation::Unknown => Err(ApiError::unauthenticated()),
    }
}

/// Returns the tokens of a session, which name its user if it is known.
fn new_tokens(state: &AuthState, user_id: Option<i64>) -> (Tokens, NewSessionTokens) {
    let now = Timestamp::now();
    let new = || user_id.map_or_else(Token::random, Token::of_user);
    let tokens = Tokens { access: new(), refresh: new() };
    let hashed = NewSessionTokens {
        access: tokens.access.hash(),
        access_expires_at: now + state.settings.access_ttl(),
        refresh: tokens.refresh.hash(),
        refresh_expires_at: now + state.settings.refresh_ttl(),
    };
    (tokens, hashed)
}

/// Marks the address of a mailed token as verified.
pub(super) async fn verify_email(state: &AuthState, presented: &str) -> Result<User, ApiError> {
    state.store.verify_email(&token::hash(presented)).await?.ok_or_else(bad_token)
}

/// Mails a new verification link if the address has an unverified account.
///
/// Like [`request_reset`], neither the response nor its time discloses whether the account exists: the statements are
/// the same.
pub(super) async fn resend_verification(state: &AuthState, email: &str) -> Result<(), ApiError> {
    enqueue(state, email, MailKind::VerifyEmail).await
}

/// The minimum duration of a request for a mail, which hides whether the address has an account.
const ANSWER_STEP: Duration = Duration::from_millis(100);

/// Mails a link to reset the password if the address has an account.
pub(super) async fn request_reset(state: &AuthState, email: &str) -> Result<(), ApiError> {
    enqueue(state, email, MailKind::PasswordReset).await
}

async fn enqueue(state: &AuthState, email: &str, kind: MailKind) -> Result<(), ApiError> {
    let step = tokio::time::Instant::now() + ANSWER_STEP;
    // No user has the id 0.
    let user_id = state.store.credentials(email).await?.map_or(0, |found| found.user.id);
    state.mailer.enqueue(user_id, kind).await?;
    // Storing a mail takes longer than skipping it.
    without_load(tokio::time::sleep_until(step)).await;
    Ok(())
}

/// Replaces the password of the account of a mailed token, and ends all its sessions.
pub(super) async fn reset_password(state: &AuthState, presented: &str, new_password: String) -> Result<(), ApiError> {
    let hash = token::hash(presented);
    let owner = state.store.email_token_owner(&hash, EmailTokenPurpose::PasswordReset).await?.ok_or_else(bad_token)?;
    if state.passwords.verify(new_password.clone(), Some(owner.password_hash)).await?.is_some() {
        return Err(ApiError::validation("new_password", "new_password must differ from the current password"));
    }
    let password_hash = state.passwords.hash(new_password).await?;
    state.store.reset_password(&hash, &password_hash).await?.ok_or_else(bad_token)?;
    Ok(())
}

fn bad_token() -> ApiError {
    ApiError::validation("token", "token is invalid, was used before, or has expired")
}
