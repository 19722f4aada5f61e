use std::time::Duration;

use tutord_core::Timestamp;
use tutord_core::model::{EmailTokenPurpose, NewEmailToken, NewSessionTokens, TokenHash};

use crate::fixture::{Fixture, new_user};

crate::on_both!(
    verification_is_single_use,
    a_reset_replaces_the_password_and_ends_sessions,
    a_newer_token_replaces_the_older,
    of_concurrent_uses_one_succeeds,
    expired_ones_are_purged,
);

fn token(user_id: i64, purpose: EmailTokenPurpose, hash: TokenHash) -> NewEmailToken {
    NewEmailToken {
        user_id,
        purpose,
        hash,
        expires_at: Timestamp::now() + Duration::from_secs(3_600),
        keeps_earlier: false,
    }
}

async fn verification_is_single_use(store: &Fixture) {
    let mut new = new_user("ada@example.com");
    new.email_verified = false;
    let user = store.create_user(new).await.unwrap();
    store.create_email_token(token(user.id, EmailTokenPurpose::VerifyEmail, [1; 32])).await.unwrap();
    assert!(store.reset_password(&[1; 32], "x").await.unwrap().is_none(), "of another purpose");
    assert!(store.verify_email(&[2; 32]).await.unwrap().is_none(), "unknown");
    assert!(store.verify_email(&[1; 32]).await.unwrap().unwrap().email_verified);
    assert!(store.verify_email(&[1; 32]).await.unwrap().is_none(), "used");
    let mut late = token(user.id, EmailTokenPurpose::VerifyEmail, [3; 32]);
    late.expires_at = Timestamp::now() - Duration::from_secs(1);
    store.create_email_token(late).await.unwrap();
    assert!(store.verify_email(&[3; 32]).await.unwrap().is_none(), "expired");
}

async fn a_reset_replaces_the_password_and_ends_sessions(store: &Fixture) {
    let user = store.student("ada").await;
    let later = Timestamp::now() + Duration::from_secs(3_600);
    let tokens =
        NewSessionTokens { access: [8; 32], access_expires_at: later, refresh: [9; 32], refresh_expires_at: later };
    store.create_session(user.id, tokens).await.unwrap();
    store.trust_device(user.id, &[7; 32], later).await.unwrap();
    store.create_email_token(token(user.id, EmailTokenPurpose::PasswordReset, [1; 32])).await.unwrap();
    let owner = store.email_token_owner(&[1; 32], EmailTokenPurpose::PasswordReset).await.unwrap().unwrap();
    assert_eq!((owner.user.id, owner.password_hash.as_str()), (user.id, "$argon2id$fake"));
    assert!(store.email_token_owner(&[1; 32], EmailTokenPurpose::VerifyEmail).await.unwrap().is_none());
    assert_eq!(store.reset_password(&[1; 32], "$argon2id$new").await.unwrap(), Some(user.id));
    assert!(store.email_token_owner(&[1; 32], EmailTokenPurpose::PasswordReset).await.unwrap().is_none());
    assert!(store.identity(&[8; 32], None).await.unwrap().is_none());
    assert!(!store.is_trusted_device(user.id, &[7; 32]).await.unwrap());
    assert_eq!(store.credentials("ada@example.com").await.unwrap().unwrap().password_hash, "$argon2id$new");
}

async fn a_newer_token_replaces_the_older(store: &Fixture) {
    let user = store.student("ada").await;
    for hash in [[1; 32], [2; 32]] {
        store.create_email_token(token(user.id, EmailTokenPurpose::PasswordReset, hash)).await.unwrap();
    }
    store.create_email_token(token(user.id, EmailTokenPurpose::VerifyEmail, [3; 32])).await.unwrap();
    assert!(store.reset_password(&[1; 32], "x").await.unwrap().is_none());
    assert!(store.reset_password(&[2; 32], "x").await.unwrap().is_some());
}

async fn of_concurrent_uses_one_succeeds(store: &Fixture) {
    let user = store.student("ada").await;
    for (purpose, hash) in [(EmailTokenPurpose::VerifyEmail, [1; 32]), (EmailTokenPurpose::PasswordReset, [2; 32])] {
        store.create_email_token(token(user.id, purpose, hash)).await.unwrap();
        let uses = (0..8).map(|number| {
            let store = store.store.clone();
            tokio::spawn(async move {
                match purpose {
                    EmailTokenPurpose::VerifyEmail => store.verify_email(&hash).await.unwrap().is_some(),
                    EmailTokenPurpose::PasswordReset => {
                        store.reset_password(&hash, &number.to_string()).await.unwrap().is_some()
                    }
                }
            })
        });
        let mut succeeded = 0;
        for attempt in uses.collect::<Vec<_>>() {
            succeeded += usize::from(attempt.await.unwrap());
        }
        assert_eq!(succeeded, 1, "{purpose}");
    }
}

async fn expired_ones_are_purged(store: &Fixture) {
    let user = store.student("ada").await;
    store.create_email_token(token(user.id, EmailTokenPurpose::VerifyEmail, [1; 32])).await.unwrap();
    let mut late = token(user.id, EmailTokenPurpose::PasswordReset, [2; 32]);
    late.expires_at = Timestamp::now() - Duration::from_secs(1);
    store.create_email_token(late).await.unwrap();
    assert_eq!(store.purge_expired(Timestamp::now(), 100).await.unwrap(), 1);
    assert_eq!(store.count("email_tokens").await, 1);
    assert!(store.verify_email(&[1; 32]).await.unwrap().is_some());
}
