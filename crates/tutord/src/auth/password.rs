//! Password hashing by argon2id, off the async threads.

use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization as _;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory as _};

use crate::error::ApiError;

/// Hashes and checks passwords with argon2id at the crate's default cost (19 MiB, 2 passes, 1 lane:
/// OWASP's first recommendation).
///
/// At most as many hashes are computed at once as there are cores, so that a wave of log-ins neither
/// starves the requests of others nor takes 19 MiB each.
#[derive(Clone)]
pub struct Passwords {
    running: Arc<Semaphore>,
    queue: Arc<Semaphore>,
}

/// Hashes for each core that may be computed or wait: together they take less than a second.
const QUEUE_PER_CORE: usize = 32;

/// Checked in place of the hash of an account that doesn't exist, so that both cost the same. A hash of zeros, which no password is known to
/// have: one computed at the start would leave its 19 MiB with the allocator for as long as nothing else is asked of it.
const DECOY: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

impl Default for Passwords {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { running: Arc::new(Semaphore::new(cores)), queue: Arc::new(Semaphore::new(cores * QUEUE_PER_CORE)) }
    }
}

impl Passwords {
    /// The password's hash in PHC string format, with a fresh salt.
    ///
    /// # Errors
    /// An internal error when hashing fails.
    pub async fn hash(&self, password: String) -> Result<String, ApiError> {
        self.compute(move || hash(&password)).await?.map_err(|error| ApiError::internal(&error))
    }

    /// Whether `password` is the one behind `stored`, and in which form; without a stored hash the same work answers no.
    ///
    /// # Errors
    /// An internal error when the check can't be run.
    pub async fn verify(&self, password: String, stored: Option<String>) -> Result<Option<Matched>, ApiError> {
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| DECOY.to_owned());
        let matched = self.compute(move || verify(&password, &stored)).await?;
        Ok(matched.filter(|_| known))
    }

    async fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
        let overloaded = |_| ApiError::overloaded("too many log-ins at once; please try again");
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

/// In which form a password is the one behind a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matched {
    /// As passwords are hashed now.
    Prepared,
    /// As it was written: the hash is older than the preparation of passwords.
    AsWritten,
}

/// The hash of a password, computed on the calling thread.
pub(crate) fn hash(password: &str) -> Result<String, argon2::password_hash::Error> {
    Ok(Argon2::default().hash_password(prepare(password).as_bytes())?.to_string())
}

/// Hashes twice at most, and only where the two forms differ.
fn verify(password: &str, stored: &str) -> Option<Matched> {
    let parsed = PasswordHash::new(stored).ok()?;
    let is = |form: &str| Argon2::default().verify_password(form.as_bytes(), &parsed).is_ok();
    let prepared = prepare(password);
    if is(&prepared) {
        Some(Matched::Prepared)
    } else {
        (prepared != password && is(password)).then_some(Matched::AsWritten)
    }
}

/// The form in which a password is hashed: every space is the ASCII one, and characters are composed (NFC), so that one
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
        assert_eq!(verify("Correct-1-horse", Some(stored.clone())).await, Some(Matched::Prepared));
        assert_eq!(verify("correct-1-horse", Some(stored)).await, None);
        assert_eq!(verify("Correct-1-horse", None).await, None);
        assert_eq!(verify("x", Some("no hash".to_owned())).await, None);
    }

    #[test]
    fn a_password_is_the_same_from_every_keyboard() {
        let stored = hash("Zu\u{308}rich 1\u{a0}x\u{3000}!").unwrap();
        assert_eq!(verify("Z\u{fc}rich 1 x !", &stored), Some(Matched::Prepared));
        assert_eq!(verify("zu\u{308}rich 1 x !", &stored), None);
        assert_eq!(prepare("\u{fb01}\u{200d}\u{ff21}"), "\u{fb01}\u{200d}\u{ff21}", "nothing else is changed");
    }

    #[test]
    fn hashes_of_unprepared_passwords_still_match() {
        let old = "Zu\u{308}rich-1";
        let stored = Argon2::default().hash_password(old.as_bytes()).unwrap().to_string();
        assert_eq!(verify(old, &stored), Some(Matched::AsWritten));
        assert_eq!(verify("Z\u{fc}rich-1", &stored), None);
    }
}
