//! Password hashing with argon2id, on blocking threads.

use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization as _;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory as _};

use crate::http::error::ApiError;

/// Hashes and checks passwords with argon2id at the crate's default cost (19 MiB, 2 passes, 1 lane:
/// OWASP's first recommendation).
///
/// Computes at most one hash for each core at a time, so that a wave of log-ins neither starves other requests nor
/// takes 19 MiB each.
#[derive(Clone)]
pub struct Passwords {
    running: Arc<Semaphore>,
    queue: Arc<Semaphore>,
}

/// The maximum number of running and waiting hashes for each core; together they take less than a second.
const QUEUE_PER_CORE: usize = 32;

/// Stands in for the hash of an account that doesn't exist, so that both checks take the same time. It consists of
/// zeros, which no known password has: a hash computed at the start would leave its 19 MiB with the allocator.
const DECOY: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

impl Default for Passwords {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { running: Arc::new(Semaphore::new(cores)), queue: Arc::new(Semaphore::new(cores * QUEUE_PER_CORE)) }
    }
}

impl Passwords {
    /// Hashes a password with a new salt, in PHC string format.
    ///
    /// # Errors
    /// Returns an internal error if hashing fails.
    pub async fn hash(&self, password: String) -> Result<String, ApiError> {
        self.compute(move || hash(&password)).await?.map_err(|error| ApiError::internal(&error))
    }

    /// Checks `password` against the hash `stored`, and returns the matching form. Without a stored hash it does the
    /// same work and returns no match.
    ///
    /// # Errors
    /// Returns an internal error if the check can't run.
    pub async fn verify(&self, password: String, stored: Option<String>) -> Result<Option<MatchedForm>, ApiError> {
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| DECOY.to_owned());
        let matched = self.compute(move || verify(&password, &stored)).await?;
        Ok(matched.filter(|_| known))
    }

    async fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
        let overloaded = |_| ApiError::overloaded("too many concurrent log-ins; retry shortly");
        let _place = self.queue.try_acquire().map_err(overloaded)?;
        let permit = self.running.clone().acquire_owned().await.map_err(|error| ApiError::internal(&error))?;
        tokio::task::spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        })
        .await
        .map_err(|error| ApiError::internal(&error))
    }
}

/// The form in which a password matches a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatchedForm {
    /// The prepared form, in which passwords are hashed now.
    Normalized,
    /// The password as written: the hash is older than the preparation of passwords.
    AsWritten,
}

/// Hashes a password on the calling thread.
pub(crate) fn hash(password: &str) -> Result<String, argon2::password_hash::Error> {
    Ok(Argon2::default().hash_password(prepare(password).as_bytes())?.to_string())
}

/// Hashes at most twice, and only if the two forms differ.
fn verify(password: &str, stored: &str) -> Option<MatchedForm> {
    let parsed = PasswordHash::new(stored).ok()?;
    let is = |form: &str| Argon2::default().verify_password(form.as_bytes(), &parsed).is_ok();
    let prepared = prepare(password);
    if is(&prepared) {
        Some(MatchedForm::Normalized)
    } else {
        (prepared != password && is(password)).then_some(MatchedForm::AsWritten)
    }
}

/// Returns the form in which a password is hashed: all spaces are ASCII and characters are composed (NFC), so that a
/// password is the same from every keyboard (RFC 8265, OpaqueString, section 4.2.2).
fn prepare(password: &str) -> String {
    let space = |c: char| if c.general_category() == GeneralCategory::SpaceSeparator { ' ' } else { c };
    password.chars().map(space).nfc().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_of_a_known_account_passes() {
        let passwords = Passwords::default();
        let stored = passwords.hash("Correct-1-horse".to_owned()).await.unwrap();
        let cost = |hash: &str| PasswordHash::new(hash).unwrap().params.to_string();
        assert_eq!(cost(&stored), "m=19456,t=2,p=1");
        assert_eq!(cost(DECOY), cost(&stored), "who has no account waits as long");
        assert_eq!(DECOY.len(), stored.len());
        let verify =
            async |password: &str, stored: Option<String>| passwords.verify(password.to_owned(), stored).await.unwrap();
        assert_eq!(verify("Correct-1-horse", Some(stored.clone())).await, Some(MatchedForm::Normalized));
        assert_eq!(verify("correct-1-horse", Some(stored)).await, None);
        assert_eq!(verify("Correct-1-horse", None).await, None);
        assert_eq!(verify("x", Some("no hash".to_owned())).await, None);
    }

    #[test]
    fn a_password_is_the_same_from_every_keyboard() {
        let stored = hash("Zu\u{308}rich 1\u{a0}x\u{3000}!").unwrap();
        assert_eq!(verify("Z\u{fc}rich 1 x !", &stored), Some(MatchedForm::Normalized));
        assert_eq!(verify("zu\u{308}rich 1 x !", &stored), None);
        assert_eq!(prepare("\u{fb01}\u{200d}\u{ff21}"), "\u{fb01}\u{200d}\u{ff21}", "nothing else is changed");
    }

    #[test]
    fn hashes_of_unprepared_passwords_still_match() {
        let old = "Zu\u{308}rich-1";
        let stored = Argon2::default().hash_password(old.as_bytes()).unwrap().to_string();
        assert_eq!(verify(old, &stored), Some(MatchedForm::AsWritten));
        assert_eq!(verify("Z\u{fc}rich-1", &stored), None);
    }
}
