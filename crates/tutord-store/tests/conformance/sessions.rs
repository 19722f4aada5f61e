use std::time::Duration;

use tutord_store::Timestamp;
use tutord_store::model::{NewSessionTokens, Rotation, TokenHash};

use crate::fixture::Fixture;

crate::on_both!(
    a_session_is_known_by_its_access_token,
    a_refresh_token_is_good_once,
    of_concurrent_rotations_one_succeeds,
    inactive_users_keep_no_session,
    a_session_needs_a_user,
    revoking_ends_sessions,
    expired_tokens_are_refused_then_purged,
    a_purge_takes_the_oldest_first,
);

const DAY: Duration = Duration::from_secs(86_400);

fn tokens(number: u8) -> NewSessionTokens {
    let now = Timestamp::now();
    NewSessionTokens {
        access: access(number),
        access_expires_at: now + Duration::from_secs(3_600),
        refresh: refresh(number),
        refresh_expires_at: now + 30 * DAY,
    }
}

fn access(number: u8) -> TokenHash {
    [number; 32]
}

fn refresh(number: u8) -> TokenHash {
    [number + 100; 32]
}

async fn a_session_is_known_by_its_access_token(store: &Fixture) {
    let user = store.student("ada").await;
    assert!(user.last_login.is_none());
    let session_id = store.create_session(user.id, tokens(1)).await.unwrap();
    let identity = store.identity(&access(1)).await.unwrap().unwrap();
    assert_eq!((identity.session_id, identity.user_id), (session_id, user.id));
    assert!(identity.email_verified && identity.is_active);
    assert!(store.identity(&access(2)).await.unwrap().is_none());
    assert!(store.identity(&refresh(1)).await.unwrap().is_none(), "a refresh token is no access token");
    assert!(store.user(user.id).await.unwrap().unwrap().last_login.is_some());
}

async fn a_refresh_token_is_good_once(store: &Fixture) {
    let user = store.student("ada").await;
    let session_id = store.create_session(user.id, tokens(1)).await.unwrap();
    assert_eq!(store.rotate_session(&access(1), tokens(2)).await.unwrap(), Rotation::Unknown);
    let rotated = store.rotate_session(&refresh(1), tokens(2)).await.unwrap();
    assert_eq!(rotated, Rotation::Rotated { user_id: user.id });
    assert_eq!(store.identity(&access(2)).await.unwrap().unwrap().session_id, session_id);
    let reused = store.rotate_session(&refresh(1), tokens(3)).await.unwrap();
    assert_eq!(reused, Rotation::Reused { user_id: user.id, session_id });
    for number in [1, 2, 3] {
        assert!(store.identity(&access(number)).await.unwrap().is_none(), "the family is revoked");
    }
    assert_eq!(store.rotate_session(&refresh(2), tokens(4)).await.unwrap(), Rotation::Unknown);
}

async fn of_concurrent_rotations_one_succeeds(store: &Fixture) {
    let user = store.student("ada").await;
    store.create_session(user.id, tokens(1)).await.unwrap();
    let attempts = (2..10).map(|number| {
        let store = store.store.clone();
        tokio::spawn(async move { store.rotate_session(&refresh(1), tokens(number)).await.unwrap() })
    });
    let (mut rotated, mut reused) = (0, 0);
    for attempt in attempts.collect::<Vec<_>>() {
        match attempt.await.unwrap() {
            Rotation::Rotated { .. } => rotated += 1,
            Rotation::Reused { .. } => reused += 1,
            Rotation::Unknown => {}
        }
    }
    assert_eq!(rotated, 1);
    assert!(reused >= 1, "the others count as theft");
    for number in 1..10 {
        assert!(store.identity(&access(number)).await.unwrap().is_none(), "the family is revoked");
    }
}

async fn inactive_users_keep_no_session(store: &Fixture) {
    let user = store.student("ada").await;
    store.create_session(user.id, tokens(1)).await.unwrap();
    store.execute("UPDATE users SET is_active = FALSE").await;
    assert!(!store.identity(&access(1)).await.unwrap().unwrap().is_active, "so that the answer can say so");
    assert_eq!(store.rotate_session(&refresh(1), tokens(2)).await.unwrap(), Rotation::Unknown);
    assert!(store.identity(&access(2)).await.unwrap().is_none());
}

async fn a_session_needs_a_user(store: &Fixture) {
    let user = store.student("ada").await;
    assert!(store.create_session(user.id + 1, tokens(1)).await.is_err());
    store.create_session(user.id, tokens(1)).await.unwrap();
    // Hashes of random tokens don't meet; if they did, nothing of the second session would stay.
    let taken = NewSessionTokens { access: access(2), ..tokens(1) };
    let taken = store.create_session(user.id, taken).await;
    assert!(matches!(taken, Err(tutord_store::Error::Conflict(_))), "{taken:?}");
    assert!(store.identity(&access(2)).await.unwrap().is_none());
    assert_eq!((store.count("sessions").await, store.count("session_tokens").await), (1, 2));
}

async fn revoking_ends_sessions(store: &Fixture) {
    let (ada, bob) = (store.student("ada").await, store.student("bob").await);
    let first = store.create_session(ada.id, tokens(1)).await.unwrap();
    for (user, number) in [(&ada, 2), (&ada, 3), (&ada, 4), (&bob, 5)] {
        store.create_session(user.id, tokens(number)).await.unwrap();
    }
    let alive = async |numbers: [u8; 5]| {
        let mut alive = Vec::new();
        for number in numbers {
            if store.identity(&access(number)).await.unwrap().is_some() {
                alive.push(number);
            }
        }
        alive
    };
    store.revoke_session(ada.id, first).await.unwrap();
    assert_eq!(alive([1, 2, 3, 4, 5]).await, [2, 3, 4, 5]);
    store.revoke_session_of(&refresh(2)).await.unwrap();
    store.revoke_session_of(&access(3)).await.unwrap();
    assert_eq!(alive([1, 2, 3, 4, 5]).await, [3, 4, 5], "only a refresh token ends its session");
    store.revoke_sessions(ada.id).await.unwrap();
    assert_eq!(alive([1, 2, 3, 4, 5]).await, [5]);
    assert_eq!(store.rotate_session(&refresh(3), tokens(6)).await.unwrap(), Rotation::Unknown);
}

async fn expired_tokens_are_refused_then_purged(store: &Fixture) {
    let user = store.student("ada").await;
    let past = Timestamp::now() - DAY;
    let expired = NewSessionTokens { access_expires_at: past, refresh_expires_at: past, ..tokens(1) };
    store.create_session(user.id, expired).await.unwrap();
    store.create_session(user.id, tokens(2)).await.unwrap();
    assert_eq!(store.identity(&access(1)).await.unwrap().unwrap().expires_at, past, "so that the answer can say so");
    assert_eq!(store.rotate_session(&refresh(1), tokens(3)).await.unwrap(), Rotation::Unknown);
    assert_eq!(store.purge_expired(past, 100).await.unwrap(), 0);
    assert_eq!(store.purge_expired(Timestamp::now(), 100).await.unwrap(), 3, "two tokens and their session");
    assert_eq!(store.purge_expired(Timestamp::now(), 100).await.unwrap(), 0);
    assert!(store.identity(&access(1)).await.unwrap().is_none());
    assert!(store.identity(&access(2)).await.unwrap().is_some());
}

async fn a_purge_takes_the_oldest_first(store: &Fixture) {
    let user = store.student("ada").await;
    let now = Timestamp::now();
    for age in 1..=5u8 {
        let ended = now - DAY * u32::from(age);
        let expired = NewSessionTokens { access_expires_at: ended, refresh_expires_at: ended, ..tokens(age) };
        store.create_session(user.id, expired).await.unwrap();
    }
    assert!(store.purge_expired(now, 2).await.unwrap() > 0);
    assert!(store.identity(&access(5)).await.unwrap().is_none(), "its session went");
    assert!(store.identity(&access(1)).await.unwrap().is_some(), "left for a later batch");
    while store.purge_expired(now, 2).await.unwrap() > 0 {}
    assert!(store.identity(&access(1)).await.unwrap().is_none());
}
