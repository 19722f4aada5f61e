//! Password hashing by argon2id, off the async threads.

use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use tokio::sync::Semaphore;

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

    /// Whether `password` is the one behind `stored`; without a stored hash the same work answers no.
    ///
    /// # Errors
    /// An internal error when the check can't be run.
    pub async fn verify(&self, password: String, stored: Option<String>) -> Result<bool, ApiError> {
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| DECOY.to_owned());
        let matches = self.compute(move || verify(&password, &stored)).await?;
        Ok(matches && known)
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

/// The hash of a password, computed on the calling thread.
pub(crate) fn hash(password: &str) -> Result<String, argon2::password_hash::Error> {
    Ok(Argon2::default().hash_password(password.as_bytes())?.to_string())
}

fn verify(password: &str, stored: &str) -> bool {
    PasswordHash::new(stored)
        .is_ok_and(|parsed| Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok())
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
        assert!(passwords.verify("Correct-1-horse".to_owned(), Some(stored.clone())).await.unwrap());
        assert!(!passwords.verify("correct-1-horse".to_owned(), Some(stored)).await.unwrap());
        assert!(!passwords.verify("Correct-1-horse".to_owned(), None).await.unwrap());
        assert!(!passwords.verify("x".to_owned(), Some("no hash".to_owned())).await.unwrap());
    }
}
